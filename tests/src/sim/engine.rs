//! A model of the worker's engine: starts what is due inside its lease, ends it after a while, and
//! makes a frame of each second. One core, no sockets; the rules are those of `ld_worker::engine`.

mod arrivals;
mod seconds;
mod users;

use super::tickets::{Say, Tickets};
use super::truth::{Life, Truth, Who};
use ld_shared::frame::{FrameBody, Odometers};
use ld_shared::lanes::LaneSet;
use ld_shared::load::{ArrivalCursor, ArrivalId, Load};
use ld_shared::plan::{Plan, Pool};
use ld_shared::rng::KeyedRng;
use ld_shared::sample::{Phase, SeriesKey};
use ld_shared::shard::Shard;
use ld_shared::snapshot::Snapshot;
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::{Mono, RunTime, SECOND};
use ld_worker::stock::Taken;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long answers take, and how often they are failures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    pub(crate) least: u64,
    pub(crate) spread: u64,
    /// One of so many takes seconds.
    pub(crate) stuck: u64,
}

/// What an engine says.
#[derive(Debug)]
pub(crate) enum Said {
    Span(Box<FrameBody>),
    Tickets(Say),
}

/// What is done for one arrival, or by one user: where it stands.
#[derive(Clone, Copy, Debug)]
struct Job {
    scenario: usize,
    kind: Kind,
    /// Requests of this iteration that have begun.
    step: usize,
    /// Tickets of sources that it still needs, by source.
    next_source: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Arrival { id: ArrivalId, due: u64 },
    User { number: u64, life: Life, ticket: bool },
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Arrivals of a scenario may be due.
    Arrive(usize),
    /// A user begins to live.
    Begin(Job),
    /// A user's next iteration.
    Next(Job),
    /// An answer comes.
    Answer(u64),
    /// Nothing starts any more, or the grace is over.
    Over,
    /// A second is over.
    Roll,
    /// Caps change.
    Caps,
}

#[derive(Debug)]
struct Open {
    job: Job,
    phase: Phase,
    started: u64,
}

/// Arrivals of one scenario on the lanes that are owned, by tenure.
#[derive(Debug)]
struct Arrivals {
    tenures: Vec<Tenure>,
    cap: u64,
    open: u64,
}

/// Lanes that are owned over a span, and what of them was not taken yet.
#[derive(Debug)]
struct Tenure {
    lanes: LaneSet,
    /// Run time of its end.
    until: RunTime,
    cursor: ArrivalCursor,
}

impl Tenure {
    fn next(&self) -> Option<RunTime> {
        self.cursor.peek().map(|(_, due)| due).filter(|due| *due < self.until)
    }
}

/// An engine that is prepared or runs.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says another thing")]
pub(crate) struct Engine {
    plan: Arc<Plan>,
    pub(crate) who: Who,
    service: Service,
    rng: KeyedRng,
    t0: Option<u64>,
    lease: u64,
    end: u64,
    /// It keeps no lease: a planted fault.
    lawless: bool,
    arrivals: Vec<Option<Arrivals>>,
    acts: BTreeMap<(u64, u64), Act>,
    number: u64,
    open: BTreeMap<u64, Open>,
    waiting: Vec<(Pool, Job)>,
    /// What waits for a lease.
    parked: Vec<Job>,
    /// All lanes by the newest assignment.
    lanes: LaneSet,
    /// Instants at which users of the closed model start nothing more, by life.
    ends: BTreeMap<Life, u64>,
    /// Caps of the newest assignment, from an instant on.
    next_caps: Option<(u64, Vec<u64>)>,
    /// Somebody asked it to end.
    ordered: bool,
    tickets: Tickets,
    users: u64,
    users_max: u64,
    odometers: Odometers,
    building: BTreeMap<u32, Snapshot>,
    second: u32,
    /// Open requests may take until then.
    drain: Option<u64>,
    aborted: bool,
    pub(crate) finished: bool,
    parts: Vec<u32>,
    passed: Vec<u64>,
    said: Vec<Said>,
}

impl Engine {
    pub(crate) fn new(plan: Arc<Plan>, who: Who, service: Service, lawless: bool, rng: KeyedRng) -> Self {
        Self {
            tickets: Tickets::new(&plan),
            passed: vec![0; plan.limits().len()],
            plan,
            who,
            service,
            rng,
            t0: None,
            lease: 0,
            end: u64::MAX,
            lawless,
            arrivals: Vec::new(),
            acts: BTreeMap::new(),
            number: 0,
            open: BTreeMap::new(),
            waiting: Vec::new(),
            parked: Vec::new(),
            lanes: LaneSet::empty(),
            ends: BTreeMap::new(),
            next_caps: None,
            ordered: false,
            users: 0,
            users_max: 0,
            odometers: Odometers::default(),
            building: BTreeMap::new(),
            second: 0,
            drain: None,
            aborted: false,
            finished: false,
            parts: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Run time 0 is `t0`; whoever joins in mid-run begins with the second that runs.
    pub(crate) fn start(&mut self, now: u64, shard: &Shard, t0: Mono, truth: &mut Truth) {
        self.t0 = Some(t0.0);
        self.second = RunTime(now.saturating_sub(t0.0)).second();
        self.end = self.end.min(t0.0.saturating_add(self.plan.end().0));
        self.arrivals = self
            .plan
            .scenarios
            .iter()
            .map(|scenario| scenario.load.open().map(|_| Arrivals { tenures: Vec::new(), cap: 0, open: 0 }))
            .collect();
        let parts: Vec<u32> = shard.throttles.iter().map(|share| share.parts).collect();
        self.set_limits(&parts, truth);
        self.own(now, shard, truth);
        self.at(self.end, Act::Over);
        self.at(t0.0 + (u64::from(self.second) + 1) * SECOND, Act::Roll);
    }

    /// Owns other lanes from `shard.from` on.
    pub(crate) fn assign(&mut self, now: u64, shard: &Shard, truth: &mut Truth) {
        self.own(now, shard, truth);
        self.at(now, Act::Over);
    }

    /// Whether at the end it is known what was this worker's: not without a lease, unless there is
    /// nothing left that a new one could change.
    fn is_decided(&self, now: u64) -> bool {
        let t0 = self.t0.unwrap_or(0);
        let comes = |scenario| self.next_due(scenario).is_some_and(|due| t0 + due.0 < self.end);
        !self.lease_over(now) || !(0..self.arrivals.len()).any(comes)
    }

    fn own(&mut self, now: u64, shard: &Shard, truth: &mut Truth) {
        let Some(t0) = self.t0.filter(|_| !self.finished) else { return };
        let plan = Arc::clone(&self.plan);
        let mut added = shard.lanes.clone();
        self.lanes.iter().for_each(|lane| added.remove(lane));
        for (index, scenario) in plan.scenarios.iter().enumerate() {
            match &scenario.load {
                Load::Open(_) => self.change_arrivals(index, scenario, shard, &added),
                Load::Closed(_) => {
                    self.end_users(scenario, shard, t0);
                    self.plan_users(now, index, scenario, shard.from, &added, truth);
                }
            }
            self.expect_arrival(index, now);
        }
        self.lanes = shard.lanes.clone();
        for (arrivals, cap) in self.arrivals.iter_mut().zip(&shard.max_in_flight) {
            if let Some(arrivals) = arrivals {
                arrivals.cap = arrivals.cap.min(*cap);
            }
        }
        let caps: Vec<u64> = self.arrivals.iter().map(|a| a.as_ref().map_or(0, |a| a.cap)).collect();
        truth.caps(self.who, &caps);
        let at = t0.saturating_add(shard.from.0);
        self.next_caps = Some((at, shard.max_in_flight.clone()));
        self.at(at.max(now), Act::Caps);
        self.resume(now);
    }

    /// A lease, which may end a gap: what was due in it is nobody's.
    pub(crate) fn set_lease(&mut self, now: u64, until: Mono) {
        let before = self.lease;
        self.lease = before.max(until.0);
        if now < before || now >= self.lease || self.t0.is_none() || self.drain.is_some() {
            return;
        }
        for scenario in 0..self.arrivals.len() {
            self.drop_unleased(scenario, now.min(self.end), before);
            self.expect_arrival(scenario, now);
        }
        self.resume(now);
        self.at(now, Act::Over);
    }

    fn resume(&mut self, now: u64) {
        for job in std::mem::take(&mut self.parked) {
            self.at(now, Act::Next(job));
        }
    }

    pub(crate) fn set_limits(&mut self, parts: &[u32], truth: &mut Truth) {
        if self.finished {
            return;
        }
        self.parts = parts.to_vec();
        truth.limits(self.who, parts);
    }

    /// Starts nothing more; open requests may take the plan's grace.
    pub(crate) fn stop(&mut self, now: u64) {
        self.ordered = true;
        self.end = self.end.min(now);
        self.at(now, Act::Over);
    }

    /// Cuts open requests off.
    pub(crate) fn abort(&mut self, now: u64) {
        self.aborted = true;
        self.stop(now);
    }

    pub(crate) fn grant(&mut self, now: u64, pool: Pool, tickets: std::ops::Range<u64>, exhausted: bool) {
        self.tickets.grant(pool, tickets, exhausted);
        for (waits, job) in std::mem::take(&mut self.waiting) {
            if waits == pool {
                self.at(now, Act::Next(job));
            } else {
                self.waiting.push((waits, job));
            }
        }
    }

    pub(crate) fn odometers(&self) -> Odometers {
        self.odometers
    }

    /// What limits let through, by chance: the model does not wait for them.
    pub(crate) fn throttle_use(&mut self) -> Vec<ThrottleUse> {
        let rng = &mut self.rng;
        let mut waits = || if rng.below(3) == 0 { rng.below(20) } else { 0 };
        let of = |passed: &mut u64| {
            let waiting = waits();
            *passed += waiting / 2;
            ThrottleUse { passed: *passed, waiting }
        };
        self.passed.iter_mut().map(of).collect()
    }

    /// When [`Self::run`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.acts.first_key_value().map(|((at, _), _)| Mono(*at))
    }

    /// Does what is due at `now`.
    pub(crate) fn run(&mut self, now: u64, truth: &mut Truth) -> Vec<Said> {
        while let Some(entry) = self.acts.first_entry().filter(|entry| entry.key().0 <= now) {
            let act = entry.remove();
            self.roll(now);
            // without a lease it waits for one, or for word of its lanes
            if now >= self.end && (self.ordered || self.is_decided(now)) {
                self.begin_drain(now);
            }
            self.act(now, act, truth);
            self.settle(now);
        }
        if self.finished {
            truth.dropped(self.who);
        }
        std::mem::take(&mut self.said)
    }

    fn act(&mut self, now: u64, act: Act, truth: &mut Truth) {
        match act {
            Act::Arrive(scenario) => {
                while let Some((id, due)) = self.take_arrival(scenario, now) {
                    self.serve(now, scenario, (id, due), truth);
                }
                if !self.lease_over(now) {
                    self.expect_arrival(scenario, now);
                }
            }
            Act::Begin(job) => self.begin_user(now, job, truth),
            Act::Next(job) => self.go_on(now, job, truth),
            Act::Answer(id) => self.answer(now, id, truth),
            Act::Caps => self.change_caps(now, truth),
            Act::Over | Act::Roll => {}
        }
        if matches!(act, Act::Roll) && !self.finished {
            let next = self.t0.unwrap_or(0) + (u64::from(self.second) + 1) * SECOND;
            self.at(next, Act::Roll);
        }
    }

    fn at(&mut self, at: u64, act: Act) {
        if at < u64::MAX / 2 {
            self.number += 1;
            self.acts.insert((at, self.number), act);
        }
    }

    fn is_over(&self, now: u64) -> bool {
        now >= self.end
    }

    fn lease_over(&self, now: u64) -> bool {
        now >= self.lease && !self.lawless
    }

    fn phase_at(&self, at: u64) -> Phase {
        self.plan.phase_at(RunTime(at.saturating_sub(self.t0.unwrap_or(0))))
    }

    fn users_changed(&mut self, change: i64) {
        self.users = self.users.saturating_add_signed(change);
        self.users_max = self.users_max.max(self.users);
    }

    /// Goes on where a job stands: takes the tickets that its iteration needs, then starts it.
    fn go_on(&mut self, now: u64, mut job: Job, truth: &mut Truth) {
        if job.step > 0 {
            // the middle of an iteration that waited for a lease
            self.request(now, job, self.phase_at(now), truth);
            return;
        }
        if self.is_over(now) || self.has_ended(now, job) {
            self.refuse(now, job);
            return;
        }
        let wanted = match job.kind {
            Kind::User { ticket: false, .. } if self.plan.iterations.is_some() => Some(Pool::Iterations),
            _ => self.source(job.next_source),
        };
        let Some(pool) = wanted else {
            self.begin_iteration(now, job, truth);
            return;
        };
        let mut say = Vec::new();
        let taken = self.tickets.take(now, pool, &mut say);
        self.said.extend(say.into_iter().map(Said::Tickets));
        match (taken, pool) {
            (Taken::Wait, _) => {
                self.waiting.push((pool, job));
                return;
            }
            (Taken::None { .. }, Pool::Iterations) => {
                self.leave(job);
                return;
            }
            (Taken::Ticket(ticket), _) => truth.ticket(self.who, pool, ticket),
            // the placeholder's text stays
            (Taken::None { .. }, Pool::Source(_)) => {}
        }
        match (pool, &mut job.kind) {
            (Pool::Iterations, Kind::User { ticket, .. }) => *ticket = true,
            _ => job.next_source += 1,
        }
        self.go_on(now, job, truth);
    }

    fn source(&self, from: usize) -> Option<Pool> {
        (from < self.plan.sources.len()).then_some(Pool::Source(from as u32))
    }

    fn begin_iteration(&mut self, now: u64, job: Job, truth: &mut Truth) {
        let intended = match job.kind {
            Kind::Arrival { due, .. } => due,
            Kind::User { .. } => now,
        };
        let phase = self.phase_at(intended);
        if !self.request(now, job, phase, truth) {
            return;
        }
        let odometer = &mut self.odometers.phases[phase.index()];
        odometer.iterations += 1;
        match job.kind {
            Kind::Arrival { id, .. } => truth.arrival(self.who, job.scenario, id),
            Kind::User { .. } => odometer.due += 1,
        }
    }

    /// Starts the next request of a job, if it may be: the lease is checked on this very instant.
    /// Without a lease users wait for one; an arrival that has not begun is nobody's.
    fn request(&mut self, now: u64, mut job: Job, phase: Phase, truth: &mut Truth) -> bool {
        if self.is_over(now) || self.has_ended(now, job) {
            self.refuse(now, job);
            return false;
        }
        if self.lease_over(now) {
            match job.kind {
                Kind::Arrival { .. } if job.step == 0 => self.refuse(now, job),
                Kind::Arrival { .. } | Kind::User { .. } => self.parked.push(job),
            }
            return false;
        }
        let user = match job.kind {
            Kind::User { number, life, .. } => Some((job.scenario, number, life)),
            Kind::Arrival { .. } => None,
        };
        truth.start(self.who, now, user);
        let odometer = &mut self.odometers.phases[phase.index()];
        (odometer.requests_started, odometer.requests_written) =
            (odometer.requests_started + 1, odometer.requests_written + 1);
        let second = self.second;
        if phase.is_load() {
            self.building.entry(second).or_default().rows.entry(second).or_default().requests_started += 1;
            job.step += 1;
        }
        self.number += 1;
        let id = self.number;
        self.open.insert(id, Open { job, phase, started: now });
        let Service { least, spread, stuck } = self.service;
        let long = if self.rng.below(stuck) == 0 { self.rng.below(4 * SECOND) } else { 0 };
        let answer = now + least + self.rng.below(spread) + long;
        self.at(answer, Act::Answer(id));
        true
    }

    /// A job ends without (another) request.
    fn refuse(&mut self, now: u64, job: Job) {
        if let Kind::Arrival { due, .. } = job.kind
            && job.step == 0
        {
            self.refuse_arrival(now, due);
        }
        self.leave(job);
    }

    fn answer(&mut self, now: u64, id: u64, truth: &mut Truth) {
        let Some(Open { job, phase, started }) = self.open.remove(&id) else { return };
        self.odometers.phases[phase.index()].requests_ended += 1;
        let failed = self.rng.below(20) == 0;
        let scenario = &self.plan.scenarios[job.scenario];
        let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: Arc::clone(&scenario.name) };
        let (steps, wait) = (scenario.tasks.len(), scenario.wait_time);
        let second = self.second;
        let building = self.building.entry(second).or_default();
        let series = building.phase_mut(phase).series_mut(&key);
        if failed { &mut series.failed } else { &mut series.succeeded }.record((now - started) / 1_000);
        if phase.is_load() {
            let row = building.rows.entry(second).or_default();
            (row.failed, row.succeeded) = (row.failed + u64::from(failed), row.succeeded + u64::from(!failed));
        }
        if phase == Phase::Hooks {
            self.go_on(now, job, truth);
        } else if job.step < steps {
            // intended when the one before has ended
            self.request(now, job, self.phase_at(now), truth);
        } else {
            self.end_iteration(now, job, wait, truth);
        }
    }

    fn end_iteration(&mut self, now: u64, job: Job, wait: Option<(f64, f64)>, truth: &mut Truth) {
        let Kind::User { number, life, .. } = job.kind else {
            self.leave(job);
            // whoever finishes takes the next arrival that is due
            if let Some(next) = self.take_arrival(job.scenario, now) {
                self.serve(now, job.scenario, next, truth);
            }
            return;
        };
        let (low, high) = wait.unwrap_or((0.001, 0.002));
        let pause = RunTime::from_secs(self.rng.between(low, high)).0;
        let kind = Kind::User { number, life, ticket: false };
        let end = self.ends.get(&life).copied().unwrap_or(now);
        let next = (now + pause).min(end.min(self.end).max(now));
        self.at(next, Act::Next(Job { kind, step: 0, next_source: 0, ..job }));
    }

    /// The iteration's slot, or the user, is gone.
    fn leave(&mut self, job: Job) {
        self.users_changed(-1);
        if let (Kind::Arrival { .. }, Some(arrivals)) = (job.kind, &mut self.arrivals[job.scenario]) {
            arrivals.open -= 1;
        }
    }
}
