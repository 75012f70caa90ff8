//! What really happened: every start, by whom; and what a result says of it.

use ld_master::run::{Ending, Measured};
use ld_shared::id::SessionId;
use ld_shared::load::ArrivalId;
use ld_shared::plan::Plan;
use ld_shared::sample::Phase;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The truth that all hosts of a simulation tell.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Truth>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Truth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(crate) struct Truth {
    /// Arrivals that were started, and by which worker first.
    started: BTreeMap<ArrivalId, usize>,
    twice: Vec<String>,
    workers: BTreeMap<usize, Process>,
    /// Starts of which nobody will ever hear: after the end of a connection whose session never came back. No
    /// bound has them.
    unheard: u64,
    /// Sessions that came back over another connection.
    pub(crate) returns: u64,
}

/// A worker's process.
#[derive(Default)]
struct Process {
    session: Option<SessionId>,
    is_connected: bool,
    /// Starts since its connection ended.
    alone: u64,
}

impl Truth {
    /// A worker's process begins; the one before is gone.
    pub(crate) fn process(&mut self, worker: usize) {
        let before = self.workers.insert(worker, Process::default());
        self.unheard += before.map_or(0, |process| process.alone);
    }

    /// The worker's end of its connection is closed.
    pub(crate) fn disconnected(&mut self, worker: usize) {
        self.workers.entry(worker).or_default().is_connected = false;
    }

    /// The master lets the worker in.
    pub(crate) fn welcome(&mut self, worker: usize, session: SessionId) {
        let process = self.workers.entry(worker).or_default();
        if process.session == Some(session) {
            self.returns += 1;
        } else {
            // as somebody else: what it did under its old name it will not tell
            self.unheard += process.alone;
        }
        *process = Process { session: Some(session), is_connected: true, alone: 0 };
    }

    /// A worker starts an arrival.
    pub(crate) fn start(&mut self, worker: usize, id: ArrivalId) {
        let process = self.workers.entry(worker).or_default();
        process.alone += u64::from(!process.is_connected);
        if let Some(before) = self.started.insert(id, worker) {
            self.twice.push(format!("arrival {} was started by w{before} and by w{worker}", id.0));
        }
    }

    /// Arrivals that were started.
    pub(crate) fn started(&self) -> u64 {
        self.started.len() as u64
    }

    /// Starts that no bound has.
    pub(crate) fn unheard(&self) -> u64 {
        self.unheard + self.workers.values().map(|process| process.alone).sum::<u64>()
    }

    /// What does not hold of a result; nothing starts any more.
    pub(crate) fn judge(&self, plan: &Plan, measured: &Measured) -> Vec<String> {
        let mut broken = self.twice.clone();
        let mut check = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        let started = self.started() + self.twice.len() as u64;
        let main = measured.total.phase(Phase::Main);
        let counted = main.succeeded() + main.failed();
        let odometer = measured.odometers.phase(Phase::Main);
        let (in_flight, lost) = (odometer.requests_in_flight, measured.lost);
        let known = counted + in_flight + lost;
        let unheard = self.unheard();
        check(counted <= started, format!("{counted} are counted, {started} were started"));
        check(
            started <= known + unheard,
            format!("{started} were started; {counted} + {in_flight} + {lost} are claimed, {unheard} nobody heard of"),
        );
        check(
            odometer.requests_started == known,
            format!("{} requests started by the result, the fates of {known} are known", odometer.requests_started),
        );
        let dropped: u64 = odometer.dropped.iter().sum();
        check(
            odometer.due == odometer.iterations + dropped,
            format!("{} were due, {} started, {dropped} dropped", odometer.due, odometer.iterations),
        );
        let rows: u64 = measured.timeline.values().map(|row| row.row.succeeded + row.row.failed).sum();
        check(rows == counted, format!("rows add up to {rows}, the total is {counted}"));
        if measured.workers.iter().all(|worker| worker.state != "lost") {
            check(
                lost == 0 && started == counted + in_flight,
                format!("nobody was lost: lost = {lost}, {started} were started, {counted} + {in_flight} are counted"),
            );
        }
        if measured.ending == Ending::Completed {
            let open = plan.scenarios[0].load.open().expect("the load is open");
            let planned = open.first_at(plan.end());
            check(odometer.due == planned, format!("{} were due, {planned} are planned", odometer.due));
        }
        broken
    }
}
