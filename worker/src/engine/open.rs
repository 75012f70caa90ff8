//! Open model: arrivals at their due instants, whatever the target does.
//!
//! A user that finishes takes the next due arrival itself, for it has just read the clock; the
//! pacer serves what is left. Nothing is ever queued: an arrival that finds the cap reached is
//! dropped and counted.

use super::closed::Alive;
use super::core::{Core, Owing};
use super::holding::{May, TOO_LATE};
use super::pacer::Pacer;
use super::slots::{Era, Slots};
use crate::user::{Began, Scenario, User};
use ld_shared::boot::clock::mono;
use ld_shared::load::{Agenda, ArrivalId, Arrivals, Open};
use ld_shared::rng::KeyedRng;
use ld_shared::snapshot::DropReason;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The pacer looks at most so often: between two looks arrivals gather for one wake-up.
const GRAIN: u64 = 30_000;
/// While arrivals wait for the pool to grow, the pacer looks this often.
const GROWING: u64 = 200_000;
/// A pacer that wakes later than this is on a core that has all it can do.
const BUSY: u64 = 500_000;

/// One scenario's arrivals and users on one core.
pub(crate) struct Pool {
    scenario: Rc<Scenario>,
    index: usize,
    agenda: Rc<RefCell<Agenda>>,
    /// Users without an iteration, last in first out: warm connections are used first.
    idle: RefCell<Vec<Rc<Desk>>>,
    poisson: bool,
    closed: Cell<bool>,
    users: Cell<u32>,
    growth: Cell<Growth>,
}

/// An arrival that was counted as due and taken for a user. If nobody comes to start it, it counts
/// as dropped.
struct Arrival {
    core: Rc<Core>,
    id: ArrivalId,
    /// When it was due, ns of this node's clock.
    due: u64,
    /// Its slot, which its user gives back.
    slot: Era,
    begun: bool,
}

impl Arrival {
    fn new(core: &Rc<Core>, (id, due): (ArrivalId, u64), slot: Era) -> Self {
        Self { core: Rc::clone(core), id, due, slot, begun: false }
    }

    /// Its user begins it, and answers for it from now on.
    fn begin(mut self) -> (ArrivalId, u64) {
        self.begun = true;
        (self.id, self.due)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.begun {
            let recorder = &self.core.recorder;
            recorder.iteration_refused(recorder.phase_at(self.due), self.due, mono().0);
        }
    }
}

/// How many users a pool may still add, and the instant of that count, ns of this node's clock.
///
/// A new user brings a new connection, which costs many times a request. A pool that made one for
/// every arrival that finds nobody idle would, at a high rate, do nothing but connect, and never
/// catch up. So it grows by at most a quarter (or 8 users) a millisecond, and not at all while
/// the core is behind its own work: arrivals wait for a user that finishes, and their lag shows.
#[derive(Clone, Copy, Default)]
struct Growth {
    users: f64,
    at: u64,
}

/// Where an idle user waits for its next arrival.
#[derive(Default)]
struct Desk {
    job: Cell<Job>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Default)]
enum Job {
    #[default]
    None,
    Serve(Arrival),
    /// No arrival will come any more.
    End,
}

impl Desk {
    /// The next arrival and its due instant; `None` if none will come.
    async fn job(&self) -> Option<Arrival> {
        poll_fn(|context| match self.job.take() {
            Job::Serve(arrival) => Poll::Ready(Some(arrival)),
            Job::End => Poll::Ready(None),
            Job::None => {
                let mut waker = self.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|w| w.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }

    fn give(&self, job: Job) {
        self.job.set(job);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Pool {
    pub(crate) fn new(scenario: &Rc<Scenario>, load: &Open, agenda: Rc<RefCell<Agenda>>) -> Rc<Self> {
        Rc::new(Self {
            scenario: Rc::clone(scenario),
            index: scenario.index(),
            agenda,
            idle: RefCell::default(),
            poisson: load.arrivals == Arrivals::Poisson,
            closed: Cell::new(false),
            users: Cell::new(0),
            growth: Cell::default(),
        })
    }

    /// The next due instant, ns of this node's clock.
    fn next(&self, core: &Core) -> Option<u64> {
        let (_, due) = self.agenda.borrow().peek()?;
        Some(core.recorder.t0().saturating_add(due.0))
    }

    /// Takes an arrival that is due at `now`, if there is one that may still start; drops what is
    /// too late or was nobody's. Without a lease nothing is taken: whether it is this worker's will
    /// be known later.
    fn take(&self, core: &Core, now: u64) -> Option<(ArrivalId, u64)> {
        if self.closed.get() || core.holding().may_start(now, None) != May::Start {
            return None;
        }
        loop {
            let (id, due) = self.take_due(core, now)?;
            match core.holding().drop_reason(due, now) {
                Some(reason) => Self::drop_arrival(core, due, reason, now),
                None => return Some((id, due)),
            }
        }
    }

    /// Takes an arrival that is due at `now`, and counts it as due.
    fn take_due(&self, core: &Core, now: u64) -> Option<(ArrivalId, u64)> {
        let due = self.next(core).filter(|due| *due <= now)?;
        let (id, _) = self.agenda.borrow_mut().take()?;
        core.recorder.iteration_due(core.recorder.phase_at(due));
        Some((id, due))
    }

    fn drop_arrival(core: &Core, due: u64, reason: DropReason, now: u64) {
        core.recorder.iteration_dropped(core.recorder.phase_at(due), reason, now);
    }

    /// Number of an arrival among all of the scenario, for sources that cycle.
    fn number(&self, id: ArrivalId) -> u64 {
        if self.poisson { (id.0 >> 16) * 1_000 + (id.0 & 0xffff) } else { id.0 }
    }

    fn slots<'a>(&self, core: &'a Core) -> &'a Slots {
        &core.shared.slots[self.index]
    }

    /// Whether the pool may add a user at `now`; takes the right to it.
    fn grow(&self, now: u64, busy: bool) -> bool {
        if busy && self.users.get() > 0 {
            return false;
        }
        let step = f64::from(self.users.get() / 4).max(8.0);
        let Growth { users, at } = self.growth.get();
        let users = (users + step * now.saturating_sub(at) as f64 / 1e6).min(step);
        self.growth.set(Growth { users: if users >= 1.0 { users - 1.0 } else { users }, at: now });
        users >= 1.0
    }

    /// Starts or drops what is due at `now`. Returns whether arrivals wait for the pool to grow.
    fn serve(self: &Rc<Self>, core: &Rc<Core>, now: u64, busy: bool) -> bool {
        while let Some(due) = self.next(core).filter(|due| *due <= now) {
            let stuck = self.idle.borrow().is_empty() && !self.slots(core).is_full();
            if stuck && now - due <= TOO_LATE && !self.grow(now, busy) {
                return true;
            }
            let Some((id, due)) = self.take(core, now) else { return false };
            let slot = self.slots(core).take().or_else(|| {
                // more may be allowed since a moment
                core.shared.take_shares(now);
                self.slots(core).take()
            });
            let Some(slot) = slot else {
                Self::drop_arrival(core, due, DropReason::InFlightCap, now);
                continue;
            };
            let desk = self.idle.borrow_mut().pop();
            if let Some(desk) = desk {
                desk.give(Job::Serve(Arrival::new(core, (id, due), slot)));
            } else {
                self.users.set(self.users.get() + 1);
                let work = serve_arrivals(Rc::clone(core), Rc::clone(self), Arrival::new(core, (id, due), slot));
                core.users.borrow_mut().spawn_local(work);
            }
        }
        false
    }

    /// Starting is over: what was due before and never came up is dropped.
    pub(crate) fn close(&self, core: &Core, now: u64) {
        while let Some((_, due)) = self.take_due(core, now.min(core.shared.limits.end())) {
            Self::drop_arrival(core, due, core.holding().reason_at_end(due, now), now);
        }
        self.closed.set(true);
    }

    /// Whether its users have something to do at their end.
    pub(crate) fn owes(&self) -> bool {
        !self.scenario.on_stop().is_empty()
    }

    /// No arrival will come any more: users end when they have served theirs.
    pub(crate) fn retire(&self) {
        self.closed.set(true);
        self.dismiss();
    }

    /// Idle users end, and with them their connections; others will come with arrivals.
    pub(crate) fn dismiss(&self) {
        self.idle.borrow_mut().drain(..).for_each(|desk| desk.give(Job::End));
    }
}

/// Serves the arrivals of all pools of a core.
pub(crate) async fn pace(core: Rc<Core>, pools: Vec<Rc<Pool>>) {
    let pacer = match Pacer::new() {
        Ok(pacer) => pacer,
        Err(error) => {
            // without it every arrival will be dropped as late, which the result says
            tracing::error!(%error, "no timer for arrivals");
            return;
        }
    };
    let mut grain = GRAIN;
    loop {
        let told = core.holding().told();
        let now = mono().0;
        let next = pools.iter().filter_map(|pool| pool.next(&core)).min();
        let next = next.filter(|_| core.holding().may_start(now, None) == May::Start);
        let Some(next) = next else {
            // nothing is due by what is known now, or there is no lease
            told.await;
            continue;
        };
        let wake = next.max(now + grain);
        tokio::select! {
            () = pacer.until(wake) => {}
            () = told => continue,
        }
        grain = GRAIN;
        for pool in &pools {
            let now = mono().0;
            if pool.serve(&core, now, now > wake + BUSY) {
                grain = GROWING;
            }
        }
    }
}

/// A pooled user: in this model just a warm connection. Every arrival starts from its base scope.
///
/// The arrival that brings a user into being waits for its `on_start`, as a person would: its
/// response time has it in.
async fn serve_arrivals(core: Rc<Core>, pool: Rc<Pool>, first: Arrival) {
    let mut user = User::new(&core, &pool.scenario, None);
    let _member = Member(&pool);
    let _owing = Owing::new(&core, &pool.scenario);
    let (id, number) = (first.id.0, pool.number(first.id));
    // numbers that no arrival has
    let hook =
        |which: u64| KeyedRng::new(core.shared.plan.seed, id, u64::MAX - which - pool.scenario.plan().first_number);
    core.recorder.dispatched(mono().0.saturating_sub(first.due));
    let slot = Slot::new(&core, &pool, &first);
    match user.start(hook(0), number).await {
        Began::Ready => serve(&core, &pool, &mut user, slot, first).await,
        Began::Over => drop((slot, first)),
        Began::Never => return,
    }
    user.stop(hook(1), number).await;
}

/// Serves arrivals until none will come any more, or the user must end.
async fn serve<'a>(core: &'a Rc<Core>, pool: &'a Rc<Pool>, user: &mut User, slot: Slot<'a>, first: Arrival) {
    let desk = Rc::new(Desk::default());
    let mut job = first;
    let mut slot = Some(slot);
    let mut was_told = true;
    loop {
        let slot = slot.take().unwrap_or_else(|| Slot::new(core, pool, &job));
        let mut next = Some(job.begin());
        while let Some((id, due)) = next.take() {
            let now = mono().0;
            if !std::mem::take(&mut was_told) {
                core.recorder.dispatched(now.saturating_sub(due));
            }
            let rng = KeyedRng::new(core.shared.plan.seed, id.0, pool.scenario.plan().first_number);
            user.begin_iteration(rng, pool.number(id), Some(due), now);
            if user.iterate(Some(due)).await.is_break() && !user.lacked_lease() {
                return;
            }
            user.end_iteration();
            let now = user.last_instant();
            if pool.slots(core).is_full() {
                // these came due while nobody could start them
                while let Some((_, due)) = pool.take(core, now) {
                    Pool::drop_arrival(core, due, DropReason::InFlightCap, now);
                }
            } else if pool.slots(core).counts(slot.since) {
                next = pool.take(core, now);
            }
        }
        let counts = pool.slots(core).counts(slot.since);
        drop(slot);
        // one that outlived the share that it was of would be one too many of the next
        if !counts || pool.closed.get() || core.holding().is_hung_up(mono().0) {
            return;
        }
        pool.idle.borrow_mut().push(Rc::clone(&desk));
        let Some(next) = desk.job().await else { return };
        job = next;
    }
}

/// A user of a pool, counted as long as it exists.
struct Member<'a>(&'a Pool);

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.0.users.set(self.0.users.get() - 1);
    }
}

/// A slot of the cap, given back however the iteration ends.
struct Slot<'a> {
    core: &'a Core,
    pool: &'a Pool,
    since: Era,
    _alive: Alive,
}

impl<'a> Slot<'a> {
    /// The one that was taken for an arrival.
    fn new(core: &'a Rc<Core>, pool: &'a Pool, arrival: &Arrival) -> Self {
        Self { core, pool, since: arrival.slot, _alive: Alive::new(core) }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.pool.slots(self.core).give(self.since);
    }
}
