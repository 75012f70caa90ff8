//! What one core holds: its lanes and the loads of its scenarios, as they change in mid-run.
//!
//! Changes are taken in before the first start that they concern, by whoever makes it: the core's
//! own follower of news only wakes those that sleep.

use super::limits::{Change, Limits, Loads};
use ld_shared::lanes::LANES;
use ld_shared::load::{Agenda, ArrivalId, Load};
use ld_shared::snapshot::DropReason;
use ld_shared::time::{RunTime, SECOND};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use tokio::sync::Notify;

/// An arrival that is later than this is dropped: no backlog is fired as a burst after a freeze.
pub(crate) const TOO_LATE: u64 = SECOND;
/// Gaps of the lease that are kept: what was due in older ones is long gone.
const MOST_GAPS: usize = 16;

/// An uninterrupted time for which a core holds a lane. Its users hold it as long as they live.
#[derive(Debug)]
pub(crate) struct Tenure {
    /// Its end, ns of this node's clock; `u64::MAX`: none is known.
    until: Cell<u64>,
    /// Earlier ones of the same lane: while a user of them lives, none of this may begin.
    before: Vec<Weak<Self>>,
}

impl Tenure {
    /// Whether its users must start nothing more.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        now >= self.until.get()
    }

    /// Its end, ns of this node's clock.
    pub(crate) fn until(&self) -> u64 {
        self.until.get()
    }

    /// This one and the earlier ones, as far as users of them live.
    fn with_earlier(self: &Rc<Self>) -> Vec<Weak<Self>> {
        let earlier = self.before.iter().filter(|earlier| earlier.strong_count() > 0).cloned();
        earlier.chain([Rc::downgrade(self)]).collect()
    }

    /// Whether users of an earlier tenure still live.
    pub(crate) fn must_wait(&self) -> bool {
        self.before.iter().any(|earlier| earlier.strong_count() > 0)
    }
}

/// Lanes that a core got at once.
pub(crate) struct Batch {
    /// From then on.
    pub(crate) from: RunTime,
    /// Ascending, with their tenures.
    pub(crate) lanes: Vec<(u16, Weak<Tenure>)>,
}

/// Whether something may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    Start,
    /// Not before there is a lease again.
    NoLease,
    /// Never: the test is over, or another one does it.
    Over,
}

/// What one core holds.
pub(crate) struct Holding {
    limits: Arc<Limits>,
    core: usize,
    /// Run time 0, ns of this node's clock.
    t0: Cell<u64>,
    tenures: RefCell<Vec<Option<Rc<Tenure>>>>,
    /// Lanes that nobody has begun to start users on.
    batches: RefCell<Vec<Rc<Batch>>>,
    /// The lanes held in the end by all that was said, ascending, and since when, ns of this node's
    /// clock.
    lanes: RefCell<(u64, Arc<[u16]>)>,
    /// Arrivals, of scenarios of the open model.
    agendas: RefCell<Vec<(usize, Rc<RefCell<Agenda>>)>>,
    loads: RefCell<Vec<Load>>,
    /// When users begin no iteration, and whether more is to come although nothing may be due.
    pauses: RefCell<Vec<(RunTime, RunTime)>>,
    waits: Cell<bool>,
    /// Raised whenever a load changes.
    version: Cell<u64>,
    /// When the lease was over, latest last; ns of this node's clock.
    gaps: RefCell<Vec<(u64, u64)>>,
    /// The end of the last of them.
    gap_end: Cell<u64>,
    /// Nobody needs idle connections until there is a lease again.
    hung_up: Cell<bool>,
    /// Whenever something has changed.
    told: Notify,
}

impl Holding {
    pub(crate) fn new(limits: Arc<Limits>, core: usize) -> Self {
        Self {
            limits,
            core,
            t0: Cell::new(u64::MAX),
            tenures: RefCell::new(vec![None; LANES]),
            batches: RefCell::default(),
            lanes: RefCell::new((0, Arc::from([]))),
            agendas: RefCell::default(),
            loads: RefCell::default(),
            pauses: RefCell::default(),
            waits: Cell::new(false),
            version: Cell::new(0),
            gaps: RefCell::default(),
            gap_end: Cell::new(0),
            hung_up: Cell::new(false),
            told: Notify::new(),
        }
    }

    /// The test begins: run time 0 is `t0`, and these are the loads of its scenarios.
    pub(crate) fn start(&self, t0: u64, loads: Vec<Load>, agendas: Vec<(usize, Rc<RefCell<Agenda>>)>) {
        self.t0.set(t0);
        self.loads.replace(loads);
        self.agendas.replace(agendas);
    }

    /// Whether something of a tenure (open model: none) may start at `now`.
    pub(crate) fn may_start(&self, now: u64, tenure: Option<&Tenure>) -> May {
        let is_clear = self.limits.is_clear(self.core, now);
        if !is_clear {
            self.catch_up();
        }
        if tenure.is_some_and(|tenure| tenure.is_over(now)) || !is_clear && now >= self.limits.end() {
            May::Over
        } else if !is_clear && self.limits.lease_over(now) {
            May::NoLease
        } else {
            May::Start
        }
    }

    /// Whether there is no lease at `now`.
    pub(crate) fn lease_over(&self, now: u64) -> bool {
        self.limits.lease_over(now)
    }

    /// Until when users are users of this worker, as far as is known; ns of this node's clock.
    pub(crate) fn users_until(&self) -> u64 {
        self.limits.users_until()
    }

    /// Why an arrival that was due at `due` must not start at `now`, if so.
    pub(crate) fn drop_reason(&self, due: u64, now: u64) -> Option<DropReason> {
        let late = now.saturating_sub(due) > TOO_LATE;
        if !late && due >= self.gap_end.get() {
            return None;
        }
        let gaps = self.gaps.borrow();
        let nobody = gaps.iter().any(|(from, to)| due < *to && (due >= *from || late && due + TOO_LATE > *from));
        if nobody { Some(DropReason::NoOwner) } else { late.then_some(DropReason::GeneratorLate) }
    }

    /// Why an arrival that was due at `due` never started, when starting ends at `now`.
    pub(crate) fn reason_at_end(&self, due: u64, now: u64) -> DropReason {
        if self.limits.lease_over(now) {
            return DropReason::NoOwner;
        }
        self.drop_reason(due, now).unwrap_or(DropReason::GeneratorLate)
    }

    /// Takes in what the core has been told.
    pub(crate) fn catch_up(&self) {
        let changes = self.limits.take_changes(self.core);
        if changes.is_empty() {
            return;
        }
        for (at, change) in changes {
            match change {
                Change::Lanes { from, lanes } => self.set_lanes(at, from, &lanes),
                Change::Loads { from, loads } => self.set_loads(from, &loads),
                Change::Gap { from, to } => {
                    let mut gaps = self.gaps.borrow_mut();
                    if gaps.len() == MOST_GAPS {
                        gaps.remove(0);
                    }
                    gaps.push((from, to));
                    self.gap_end.set(to);
                    self.hung_up.set(false);
                }
                Change::HangUp => self.hung_up.set(true),
            }
        }
        self.told.notify_waiters();
    }

    /// The core has exactly these lanes from `from` on, which is `at` on this node's clock.
    fn set_lanes(&self, at: u64, from: RunTime, lanes: &Arc<[u16]>) {
        let now = ld_shared::boot::clock::mono().0;
        let mut batch = Batch { from, lanes: Vec::new() };
        let mut wanted = lanes.iter().copied().peekable();
        for (lane, tenure) in (0..).zip(self.tenures.borrow_mut().iter_mut()) {
            let is_wanted = wanted.next_if_eq(&lane).is_some();
            match tenure {
                // a later end that was said before is taken back
                Some(have) if is_wanted && have.until() >= at && !have.is_over(now) => have.until.set(u64::MAX),
                Some(have) if !is_wanted && have.until() > at => have.until.set(at),
                _ if is_wanted => {
                    let before = tenure.as_ref().map(Tenure::with_earlier).unwrap_or_default();
                    let new = Rc::new(Tenure { until: Cell::new(u64::MAX), before });
                    batch.lanes.push((lane, Rc::downgrade(&new)));
                    *tenure = Some(new);
                }
                _ => {}
            }
        }
        for (_, agenda) in self.agendas.borrow().iter() {
            agenda.borrow_mut().assign(from, lanes);
        }
        self.lanes.replace((at, Arc::clone(lanes)));
        if !batch.lanes.is_empty() {
            self.batches.borrow_mut().push(Rc::new(batch));
        }
    }

    fn set_loads(&self, from: RunTime, new: &Loads) {
        for (scenario, agenda) in self.agendas.borrow().iter() {
            if let (Some(Load::Open(load)), Some(most)) = (new.each.get(*scenario), new.most.get(*scenario)) {
                agenda.borrow_mut().change(from, Arc::new(load.clone()), *most);
            }
        }
        self.loads.replace(new.each.clone());
        self.pauses.replace(new.pauses.clone());
        self.waits.set(new.waits);
        self.version.set(self.version.get() + 1);
    }

    /// The end of the pause that is on at `now`, if there is one.
    pub(crate) fn paused_until(&self, now: RunTime) -> Option<RunTime> {
        let pauses = self.pauses.borrow();
        pauses.iter().find(|(from, to)| *from <= now && now < *to).map(|(_, to)| *to)
    }

    /// Whether more may come although nothing is due by what is known.
    pub(crate) fn waits(&self) -> bool {
        self.waits.get()
    }

    /// The lanes that the core holds in the end, by all that it was told.
    pub(crate) fn lanes(&self) -> Arc<[u16]> {
        Arc::clone(&self.lanes.borrow().1)
    }

    /// Whether the core may hold lanes at instants before `end`, ns of this node's clock, of which it
    /// was told nothing since.
    pub(crate) fn has_work_before(&self, end: u64) -> bool {
        let (since, lanes) = &*self.lanes.borrow();
        *since < end && !lanes.is_empty()
    }

    /// The lanes that came since the last call.
    pub(crate) fn take_batches(&self) -> Vec<Rc<Batch>> {
        self.batches.take()
    }

    /// The next arrival of any scenario that this core will ever start, by what it knows.
    pub(crate) fn next_arrival(&self) -> Option<(ArrivalId, RunTime)> {
        self.agendas.borrow().iter().filter_map(|(_, agenda)| agenda.borrow().peek()).min_by_key(|(_, due)| *due)
    }

    /// Whether lanes came that nobody looks after yet.
    pub(crate) fn has_batches(&self) -> bool {
        !self.batches.borrow().is_empty()
    }

    /// The load of a scenario, as it is by all that was said so far.
    pub(crate) fn load(&self, scenario: usize) -> Option<Load> {
        self.loads.borrow().get(scenario).cloned()
    }

    /// Changes whenever a load does.
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    /// The instant from which nothing is due any more on any lane.
    pub(crate) fn last_instant(&self) -> u64 {
        let ends = |load: &Load| {
            let profile = load.profile();
            if profile.tail() > 0.0 { u64::MAX } else { profile.length().0 }
        };
        self.t0.get().saturating_add(self.loads.borrow().iter().map(ends).max().unwrap_or(0))
    }

    /// Whether the lease is over and idle connections are to be closed.
    pub(crate) fn is_hung_up(&self, now: u64) -> bool {
        self.hung_up.get() && self.limits.lease_over(now)
    }

    /// Resolves when something has changed.
    pub(crate) fn told(&self) -> tokio::sync::futures::Notified<'_> {
        self.told.notified()
    }

    /// Wakes whoever waits for a change.
    pub(crate) fn wake_all(&self) {
        self.told.notify_waiters();
    }
}
