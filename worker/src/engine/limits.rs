//! Until when starts are allowed, and what has been said to the cores meanwhile.
//!
//! Every core has a gate: one instant, before which a start needs no look at anything else. It is
//! the least of the lease's end, the end of starting, and the instant of the first change that the
//! core has not taken in. So a core that stood still never starts what it no longer owns, however
//! its tasks wake up.

use ld_shared::load::Load;
use ld_shared::time::RunTime;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What a core is told of its work in mid-run.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// It has these lanes, ascending, from then on.
    Lanes { from: RunTime, lanes: Arc<[u16]> },
    /// The loads are others from then on.
    Loads { from: RunTime, loads: Arc<Loads> },
    /// The lease was over between these instants of this node's clock, and is no more.
    Gap { from: u64, to: u64 },
    /// The lease is over, and others will do the work: idle connections are not needed.
    HangUp,
}

/// The loads of all scenarios, as a program changed them.
#[derive(Debug)]
pub(crate) struct Loads {
    pub(crate) each: Vec<Load>,
    /// How many arrivals of each scenario count, if not all.
    pub(crate) most: Vec<Option<u64>>,
    /// When nothing new starts.
    pub(crate) pauses: Vec<(RunTime, RunTime)>,
    /// Nothing may be due for now although more will come.
    pub(crate) waits: bool,
}

/// Until when starts are allowed. Checked at every start, against the reading that becomes `started`.
#[derive(Debug)]
pub(crate) struct Limits {
    lease: AtomicU64,
    end: AtomicU64,
    gates: Vec<Gate>,
    /// Others have the users of this worker when its lease is over.
    is_replaced: bool,
}

/// What one core looks at before each start.
#[derive(Debug, Default)]
struct Gate {
    /// Before this instant of this node's clock everything is as the core knows it.
    clear_until: AtomicU64,
    /// Changes that the core has not taken in, and from when it must not start without them.
    changes: Mutex<VecDeque<(u64, Change)>>,
    news: Notify,
}

impl Gate {
    fn changes(&self) -> MutexGuard<'_, VecDeque<(u64, Change)>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    pub(crate) fn new(cores: usize, is_replaced: bool) -> Self {
        let gates = (0..cores).map(|_| Gate::default()).collect();
        Self { lease: AtomicU64::new(0), end: AtomicU64::new(u64::MAX), gates, is_replaced }
    }

    /// Until when users are users of this worker, as far as is known; ns of this node's clock.
    pub(crate) fn users_until(&self) -> u64 {
        if self.is_replaced { self.lease.load(Ordering::Acquire) } else { u64::MAX }
    }

    /// Whether a core may start something at `now` without a look at anything else.
    pub(crate) fn is_clear(&self, core: usize, now: u64) -> bool {
        now < self.gates[core].clear_until.load(Ordering::Acquire)
    }

    /// Whether the lease is over at `now` (the test may go on elsewhere).
    pub(crate) fn lease_over(&self, now: u64) -> bool {
        now >= self.lease.load(Ordering::Acquire)
    }

    /// The end of starting, ns of this node's clock.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Nothing starts from `at` on any more, ns of this node's clock. Never moves back.
    pub(crate) fn end_at(&self, at: u64) {
        self.end.fetch_min(at, Ordering::AcqRel);
        self.renew();
    }

    /// The lease lasts until `until`, said at `now`. Never moves back.
    pub(crate) fn set_lease(&self, until: u64, now: u64) {
        let before = self.lease.fetch_max(until, Ordering::AcqRel);
        if before < now && now < until {
            self.gates
                .iter()
                .enumerate()
                .for_each(|(core, _)| self.tell(core, 0, Change::Gap { from: before, to: now }));
        }
        self.renew();
    }

    /// Tells a core of a change; from `at` on it starts nothing without it.
    pub(crate) fn tell(&self, core: usize, at: u64, change: Change) {
        let gate = &self.gates[core];
        let mut changes = gate.changes();
        changes.push_back((at, change));
        self.set_gate(gate, &changes);
        drop(changes);
        gate.news.notify_one();
    }

    /// Makes a core look at what there is for it.
    pub(crate) fn wake(&self, core: usize) {
        self.gates[core].news.notify_one();
    }

    /// What a core has not taken in yet, in order.
    pub(crate) fn take_changes(&self, core: usize) -> VecDeque<(u64, Change)> {
        let gate = &self.gates[core];
        let mut changes = gate.changes();
        let taken = std::mem::take(&mut *changes);
        self.set_gate(gate, &changes);
        taken
    }

    /// Waits until a core is told of a change.
    pub(crate) async fn news(&self, core: usize) {
        self.gates[core].news.notified().await;
    }

    fn renew(&self) {
        for gate in &self.gates {
            self.set_gate(gate, &gate.changes());
        }
    }

    /// `changes` are those of the gate: holding them keeps others from setting it meanwhile.
    fn set_gate(&self, gate: &Gate, changes: &VecDeque<(u64, Change)>) {
        let first = changes.iter().map(|(at, _)| *at).min().unwrap_or(u64::MAX);
        let until = first.min(self.lease.load(Ordering::Acquire)).min(self.end());
        gate.clear_until.store(until, Ordering::Release);
    }
}
