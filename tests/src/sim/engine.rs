//! A model of the worker's engine: starts what is due inside its lease, ends it after a while, and
//! makes a frame of each second. One core, no sockets; the rules are those of `ld_worker::engine`.

use super::net::MS;
use super::tickets::{Say, Taken, Tickets};
use super::truth::{Truth, Who};
use ld_shared::frame::{FrameBody, Generator, Odometers};
use ld_shared::lanes::LANES;
use ld_shared::load::{ArrivalCursor, ArrivalId, Load};
use ld_shared::plan::{Plan, Pool, ScenarioPlan};
use ld_shared::rng::KeyedRng;
use ld_shared::sample::{Phase, SeriesKey};
use ld_shared::shard::Shard;
use ld_shared::snapshot::{DropReason, Snapshot};
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::{Mono, RunTime, SECOND};
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
    User { number: u64, life: u64, end: u64, ticket: bool },
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
}

#[derive(Debug)]
struct Open {
    job: Job,
    phase: Phase,
    started: u64,
}

#[derive(Debug)]
struct Arrivals {
    cursor: ArrivalCursor,
    cap: u64,
    open: u64,
}

/// An engine that is prepared or runs.
#[derive(Debug)]
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

    pub(crate) fn start(&mut self, shard: &Shard, t0: Mono, truth: &mut Truth) {
        self.t0 = Some(t0.0);
        self.end = self.end.min(t0.0.saturating_add(self.plan.end().0));
        self.parts = shard.throttles.iter().map(|share| share.parts).collect();
        truth.limits(self.who, &self.parts);
        let lanes: Arc<[u16]> = shard.lanes.iter().collect();
        let plan = Arc::clone(&self.plan);
        for (index, scenario) in plan.scenarios.iter().enumerate() {
            let arrivals = match &scenario.load {
                Load::Open(load) => {
                    let (seed, first) = (scenario.arrival_seed(&plan), scenario.first_number);
                    let load = Arc::new(load.clone());
                    let cursor = ArrivalCursor::new(load, seed, first, Arc::clone(&lanes), shard.from, plan.end());
                    let cap = shard.max_in_flight.get(index).copied().unwrap_or(0);
                    Some(Arrivals { cursor: cursor.limited(plan.most_arrivals(scenario)), cap, open: 0 })
                }
                Load::Closed(_) => {
                    self.plan_users(index, scenario, shard, t0.0, truth);
                    None
                }
            };
            self.arrivals.push(arrivals);
            self.expect_arrival(index, 0);
        }
        self.at(self.end, Act::Over);
        self.at(t0.0 + SECOND, Act::Roll);
    }

    fn plan_users(&mut self, index: usize, scenario: &ScenarioPlan, shard: &Shard, t0: u64, truth: &mut Truth) {
        let Load::Closed(load) = &scenario.load else { return };
        let end = self.plan.end();
        for number in 0..load.peak(end) {
            if !shard.lanes.contains(((scenario.first_number + number) % LANES as u64) as u16) {
                continue;
            }
            for life in load.lives(number).into_iter().filter(|life| life.start < end && life.end > shard.from) {
                let kind = Kind::User {
                    number,
                    life: truth.new_life(),
                    end: t0.saturating_add(life.end.min(end).0),
                    ticket: false,
                };
                let job = Job { scenario: index, kind, step: 0, next_source: 0 };
                self.at(t0 + life.start.max(shard.from).0, Act::Begin(job));
            }
        }
    }

    pub(crate) fn set_lease(&mut self, until: Mono) {
        self.lease = self.lease.max(until.0);
    }

    pub(crate) fn set_limits(&mut self, parts: &[u32], truth: &mut Truth) {
        self.parts = parts.to_vec();
        truth.limits(self.who, parts);
    }

    /// Starts nothing more; open requests may take the plan's grace.
    pub(crate) fn stop(&mut self, now: u64) {
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
            if now >= self.end && self.drain.is_none() {
                self.begin_drain(now);
            }
            self.act(now, act, truth);
            self.settle(now);
        }
        std::mem::take(&mut self.said)
    }

    fn act(&mut self, now: u64, act: Act, truth: &mut Truth) {
        match act {
            Act::Arrive(scenario) => {
                while let Some((id, due)) = self.take_arrival(scenario, now) {
                    self.serve(now, scenario, (id, due), truth);
                }
                self.expect_arrival(scenario, now);
            }
            Act::Begin(job) => self.begin_user(now, job, truth),
            Act::Next(job) => self.go_on(now, job, truth),
            Act::Answer(id) => self.answer(now, id, truth),
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

    // --- open model -----------------------------------------------------------------------------

    fn expect_arrival(&mut self, scenario: usize, now: u64) {
        let t0 = self.t0.unwrap_or(0);
        let next = self.arrivals[scenario].as_ref().and_then(|a| a.cursor.peek());
        if let Some((_, due)) = next.filter(|_| self.drain.is_none()) {
            // a pacer is a little late
            let lag = self.rng.below(MS);
            self.at((t0 + due.0 + lag).max(now), Act::Arrive(scenario));
        }
    }

    fn take_arrival(&mut self, scenario: usize, now: u64) -> Option<(ArrivalId, u64)> {
        let t0 = self.t0?;
        if self.drain.is_some() {
            return None;
        }
        loop {
            let cursor = &mut self.arrivals[scenario].as_mut()?.cursor;
            let (id, due) = cursor.peek().filter(|(_, due)| t0 + due.0 <= now)?;
            cursor.take();
            let due = t0 + due.0;
            let phase = self.phase_at(due);
            self.odometers.phases[phase.index()].due += 1;
            if self.lease_over(now) {
                self.drop_arrival(due, DropReason::NoOwner);
            } else if now - due > SECOND {
                self.drop_arrival(due, DropReason::GeneratorLate);
            } else {
                return Some((id, due));
            }
        }
    }

    fn drop_arrival(&mut self, due: u64, reason: DropReason) {
        let phase = self.phase_at(due);
        self.odometers.phases[phase.index()].dropped[reason.index()] += 1;
    }

    fn refuse_arrival(&mut self, now: u64, due: u64) {
        let reason = if self.lease_over(now) { DropReason::NoOwner } else { DropReason::GeneratorLate };
        self.drop_arrival(due, reason);
    }

    fn serve(&mut self, now: u64, scenario: usize, (id, due): (ArrivalId, u64), truth: &mut Truth) {
        let Some(arrivals) = &mut self.arrivals[scenario] else { return };
        if arrivals.open >= arrivals.cap {
            self.drop_arrival(due, DropReason::InFlightCap);
            return;
        }
        arrivals.open += 1;
        self.users_changed(1);
        self.go_on(now, Job { scenario, kind: Kind::Arrival { id, due }, step: 0, next_source: 0 }, truth);
    }

    fn users_changed(&mut self, change: i64) {
        self.users = self.users.saturating_add_signed(change);
        self.users_max = self.users_max.max(self.users);
    }

    // --- closed model ---------------------------------------------------------------------------

    fn begin_user(&mut self, now: u64, job: Job, truth: &mut Truth) {
        let Kind::User { end, .. } = job.kind else { return };
        if self.is_over(now) || now >= end {
            return;
        }
        self.users_changed(1);
        let scenario = &self.plan.scenarios[job.scenario];
        if scenario.on_start.is_empty() {
            self.go_on(now, job, truth);
        } else if !self.request(now, job, Phase::Hooks, truth) {
            self.leave(job);
        }
    }

    // --- both -----------------------------------------------------------------------------------

    /// Takes the tickets that the iteration needs, then starts it.
    fn go_on(&mut self, now: u64, mut job: Job, truth: &mut Truth) {
        if let Kind::User { end, .. } = job.kind
            && (self.is_over(now) || now >= end)
        {
            self.leave(job);
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
        let taken = self.tickets.take(pool, &mut say);
        self.said.extend(say.into_iter().map(Said::Tickets));
        match (taken, pool) {
            (Taken::Wait, _) => {
                self.waiting.push((pool, job));
                return;
            }
            (Taken::None, Pool::Iterations) => {
                self.leave(job);
                return;
            }
            (Taken::Ticket(ticket), _) => truth.ticket(self.who, pool, ticket),
            // the placeholder's text stays
            (Taken::None, Pool::Source(_)) => {}
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
        let begun = self.request(now, Job { step: 1, ..job }, phase, truth);
        match job.kind {
            Kind::Arrival { due, .. } if !begun => {
                self.refuse_arrival(now, due);
                self.leave(job);
            }
            Kind::User { .. } if !begun => self.leave(job),
            Kind::Arrival { id, .. } => {
                self.odometers.phases[phase.index()].iterations += 1;
                truth.arrival(self.who, job.scenario, id);
            }
            Kind::User { .. } => {
                let odometer = &mut self.odometers.phases[phase.index()];
                (odometer.due, odometer.iterations) = (odometer.due + 1, odometer.iterations + 1);
            }
        }
    }

    /// Starts a request, if it may be. The lease is checked on this very instant.
    fn request(&mut self, now: u64, job: Job, phase: Phase, truth: &mut Truth) -> bool {
        if self.lease_over(now) || self.is_over(now) {
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
            let phase = self.phase_at(now);
            if !self.request(now, Job { step: job.step + 1, ..job }, phase, truth) {
                self.leave(job);
            }
        } else {
            self.end_iteration(now, job, wait, truth);
        }
    }

    fn end_iteration(&mut self, now: u64, job: Job, wait: Option<(f64, f64)>, truth: &mut Truth) {
        let Kind::User { number, life, end, .. } = job.kind else {
            self.leave(job);
            // whoever finishes takes the next arrival that is due
            if let Some(next) = self.take_arrival(job.scenario, now) {
                self.serve(now, job.scenario, next, truth);
            }
            return;
        };
        let (low, high) = wait.unwrap_or((0.001, 0.002));
        let pause = RunTime::from_secs(self.rng.between(low, high)).0;
        let kind = Kind::User { number, life, end, ticket: false };
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

    // --- seconds and the end --------------------------------------------------------------------

    fn roll(&mut self, now: u64) {
        let Some(t0) = self.t0.filter(|t0| now >= *t0 && !self.finished) else { return };
        let second = RunTime(now - t0).second();
        while self.second < second {
            self.emit();
        }
    }

    fn emit(&mut self) {
        let second = self.second;
        let mut counts = self.building.remove(&second).unwrap_or_default();
        counts.rows.entry(second).or_default();
        let body = FrameBody { from_second: second, to_second: second + 1, counts, ..self.body() };
        self.said.push(Said::Span(Box::new(body)));
        self.second += 1;
    }

    fn body(&self) -> FrameBody {
        let generator = Generator { cores: 1, users_max: self.users_max, ..Generator::default() };
        FrameBody { odometers: self.odometers, generator, ..FrameBody::default() }
    }

    fn begin_drain(&mut self, now: u64) {
        for scenario in 0..self.arrivals.len() {
            while let Some((_, due)) = self.take_arrival(scenario, now.min(self.end)) {
                self.drop_arrival(due, DropReason::GeneratorLate);
            }
        }
        let until = now.saturating_add(self.plan.graceful_stop.0);
        self.drain = Some(until);
        for (_, job) in std::mem::take(&mut self.waiting) {
            if let Kind::Arrival { due, .. } = job.kind {
                self.refuse_arrival(now, due);
            }
            self.leave(job);
        }
        self.at(until, Act::Over);
    }

    /// Ends, if nothing is left to do.
    fn settle(&mut self, now: u64) {
        if self.finished || self.t0.is_none() {
            return;
        }
        let idle = self.users == 0 && self.open.is_empty() && self.waiting.is_empty();
        let to_come = |act: &Act| matches!(act, Act::Begin(_) | Act::Next(_) | Act::Arrive(_));
        let done = match self.drain {
            Some(until) => self.open.is_empty() || now >= until || self.aborted,
            // everything was started, and has ended
            None => idle && !self.acts.values().any(to_come),
        };
        if !done {
            return;
        }
        for open in std::mem::take(&mut self.open).into_values() {
            self.odometers.phases[open.phase.index()].requests_in_flight += 1;
        }
        self.emit();
        let second = self.second;
        let last = FrameBody { from_second: second, to_second: second, last: true, ..self.body() };
        self.said.push(Said::Span(Box::new(last)));
        self.finished = true;
        self.acts.clear();
    }
}
