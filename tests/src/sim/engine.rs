//! A model of the worker's engine: starts what is due inside its lease, ends it after a while, and
//! makes a frame of each second. One core, no sockets; the rules are those of `ld_worker::engine`.

use super::net::MS;
use super::tickets::{Say, Taken, Tickets};
use super::truth::{Life, Truth, Who};
use ld_shared::frame::{FrameBody, Generator, Odometers};
use ld_shared::lanes::{LANES, LaneSet};
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
        self.assign(now, shard, truth);
        self.at(self.end, Act::Over);
        self.at(t0.0 + (u64::from(self.second) + 1) * SECOND, Act::Roll);
    }

    /// Owns other lanes from `shard.from` on.
    pub(crate) fn assign(&mut self, now: u64, shard: &Shard, truth: &mut Truth) {
        let Some(t0) = self.t0 else { return };
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
        if now >= self.end {
            self.begin_drain(now);
        }
    }

    fn change_arrivals(&mut self, index: usize, scenario: &ScenarioPlan, shard: &Shard, added: &LaneSet) {
        let Load::Open(load) = &scenario.load else { return };
        let Some(arrivals) = &mut self.arrivals[index] else { return };
        let load = Arc::new(load.clone());
        let plan = &self.plan;
        let tenure = |lanes: LaneSet, from: RunTime| {
            let list: Arc<[u16]> = lanes.iter().collect();
            let (seed, first) = (scenario.arrival_seed(plan), scenario.first_number);
            let cursor = ArrivalCursor::new(Arc::clone(&load), seed, first, list, from, plan.end());
            Tenure { lanes, until: RunTime::MAX, cursor: cursor.limited(plan.most_arrivals(scenario)) }
        };
        let mut new = vec![tenure(added.clone(), shard.from)];
        for old in arrivals.tenures.iter_mut().filter(|old| old.until == RunTime::MAX) {
            let mut kept = old.lanes.clone();
            old.lanes.iter().filter(|lane| !shard.lanes.contains(*lane)).for_each(|lane| kept.remove(lane));
            // what was taken of a lane that is kept is not taken again
            let from = old.next().map_or(RunTime::MAX, |next| next.max(shard.from));
            new.push(tenure(kept, from));
            old.until = shard.from;
        }
        arrivals.tenures.extend(new);
        arrivals.tenures.retain(|tenure| tenure.next().is_some());
    }

    /// Users whose lane is lost start nothing more.
    fn end_users(&mut self, scenario: &ScenarioPlan, shard: &Shard, t0: u64) {
        let lost = |number: u64| !shard.lanes.contains(((scenario.first_number + number) % LANES as u64) as u16);
        let at = t0.saturating_add(shard.from.0);
        let living = self.open.values().map(|open| open.job).chain(self.parked.iter().copied());
        let waiting = self.waiting.iter().map(|(_, job)| *job);
        let acting = self.acts.values().filter_map(|act| match act {
            Act::Begin(job) | Act::Next(job) => Some(*job),
            Act::Arrive(_) | Act::Answer(_) | Act::Over | Act::Roll | Act::Caps => None,
        });
        for job in living.chain(waiting).chain(acting) {
            if let Kind::User { number, life, .. } = job.kind
                && self.plan.scenarios[job.scenario].name == scenario.name
                && lost(number)
                && let Some(end) = self.ends.get_mut(&life)
            {
                *end = at.min(*end);
            }
        }
    }

    /// Users on lanes that are owned anew from `from` on: those who live then begin over a second.
    fn plan_users(
        &mut self,
        now: u64,
        index: usize,
        scenario: &ScenarioPlan,
        from: RunTime,
        lanes: &LaneSet,
        truth: &mut Truth,
    ) {
        let (Load::Closed(load), Some(t0)) = (&scenario.load, self.t0) else { return };
        let end = self.plan.end();
        let own = |number: &u64| lanes.contains(((scenario.first_number + number) % LANES as u64) as u16);
        let numbers: Vec<u64> = (0..load.peak(end)).filter(own).collect();
        let count = numbers.len().max(1) as u64;
        for (position, number) in numbers.into_iter().enumerate() {
            for life in load.lives(number).into_iter().filter(|life| life.start < end && life.end > from) {
                let spread = if life.start < from { SECOND * position as u64 / count } else { 0 };
                let kind = Kind::User { number, life: truth.new_life(from), ticket: false };
                let Kind::User { life: name, .. } = kind else { continue };
                self.ends.insert(name, t0.saturating_add(life.end.min(end).0));
                let job = Job { scenario: index, kind, step: 0, next_source: 0 };
                let begin = t0 + life.start.max(from).0 + spread;
                self.at(begin.max(now), Act::Begin(job));
            }
        }
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

    /// Drops what was due by `to` and was not started for want of a lease since `lapsed`.
    fn drop_unleased(&mut self, scenario: usize, to: u64, lapsed: u64) {
        let t0 = self.t0.unwrap_or(0);
        let gone = |due: u64| due >= lapsed || to.saturating_sub(due) > SECOND;
        while let Some(due) = self.next_due(scenario).map(|due| t0 + due.0).filter(|due| *due <= to && gone(*due)) {
            self.take_next(scenario);
            let phase = self.phase_at(due);
            self.odometers.phases[phase.index()].due += 1;
            self.drop_arrival(due, DropReason::NoOwner);
        }
    }

    fn resume(&mut self, now: u64) {
        for job in std::mem::take(&mut self.parked) {
            self.at(now, Act::Next(job));
        }
    }

    pub(crate) fn set_limits(&mut self, parts: &[u32], truth: &mut Truth) {
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
            if now >= self.end && (self.ordered || !self.lease_over(now)) {
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

    // --- open model -----------------------------------------------------------------------------

    fn change_caps(&mut self, now: u64, truth: &mut Truth) {
        let Some((_, caps)) = self.next_caps.take_if(|(at, _)| *at <= now) else { return };
        truth.caps(self.who, &caps);
        for (arrivals, cap) in self.arrivals.iter_mut().zip(caps) {
            if let Some(arrivals) = arrivals {
                arrivals.cap = cap;
            }
        }
    }

    fn next_due(&self, scenario: usize) -> Option<RunTime> {
        self.arrivals.get(scenario)?.as_ref()?.tenures.iter().filter_map(Tenure::next).min()
    }

    fn take_next(&mut self, scenario: usize) -> Option<(ArrivalId, RunTime)> {
        let tenures = &mut self.arrivals.get_mut(scenario)?.as_mut()?.tenures;
        let next = tenures.iter_mut().filter(|tenure| tenure.next().is_some()).min_by_key(|tenure| tenure.next())?;
        let taken = next.cursor.take();
        tenures.retain(|tenure| tenure.next().is_some());
        taken
    }

    fn expect_arrival(&mut self, scenario: usize, now: u64) {
        let t0 = self.t0.unwrap_or(0);
        if let Some(due) = self.next_due(scenario).filter(|_| self.drain.is_none()) {
            // a pacer is a little late
            let lag = self.rng.below(MS);
            self.at((t0 + due.0 + lag).max(now), Act::Arrive(scenario));
        }
    }

    /// The next arrival that is due and may be started. Without a lease none is taken.
    fn take_arrival(&mut self, scenario: usize, now: u64) -> Option<(ArrivalId, u64)> {
        let t0 = self.t0?;
        if self.drain.is_some() || self.lease_over(now) || self.is_over(now) {
            return None;
        }
        loop {
            self.next_due(scenario).filter(|due| t0 + due.0 <= now)?;
            let (id, due) = self.take_next(scenario)?;
            let due = t0 + due.0;
            let phase = self.phase_at(due);
            self.odometers.phases[phase.index()].due += 1;
            if now - due <= SECOND {
                return Some((id, due));
            }
            self.drop_arrival(due, DropReason::GeneratorLate);
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
        let Kind::User { number, .. } = job.kind else { return };
        if self.is_over(now) || self.has_ended(now, job) {
            return;
        }
        let busy = |open: &Open| {
            open.job.scenario == job.scenario && matches!(open.job.kind, Kind::User { number: n, .. } if n == number)
        };
        if self.open.values().any(busy) {
            // one with this number, of an earlier tenure, still waits for its answer
            self.at(now + 20 * MS, Act::Begin(job));
            return;
        }
        self.users_changed(1);
        if self.plan.scenarios[job.scenario].on_start.is_empty() {
            self.go_on(now, job, truth);
        } else {
            self.request(now, job, Phase::Hooks, truth);
        }
    }

    /// Whether a user's time is over.
    fn has_ended(&self, now: u64, job: Job) -> bool {
        match job.kind {
            Kind::User { life, .. } => self.ends.get(&life).is_none_or(|end| now >= *end),
            Kind::Arrival { .. } => false,
        }
    }

    // --- both -----------------------------------------------------------------------------------

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
        if self.drain.is_some() {
            return;
        }
        let (t0, to, leased) = (self.t0.unwrap_or(0), now.min(self.end), !self.lease_over(now));
        for scenario in 0..self.arrivals.len() {
            if !leased {
                self.drop_unleased(scenario, to, 0);
            }
            while let Some(due) = self.next_due(scenario).map(|due| t0 + due.0).filter(|due| *due <= to) {
                self.take_next(scenario);
                let phase = self.phase_at(due);
                self.odometers.phases[phase.index()].due += 1;
                self.drop_arrival(due, DropReason::GeneratorLate);
            }
        }
        let until = now.saturating_add(self.plan.graceful_stop.0);
        self.drain = Some(until);
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(_, job)| job);
        for job in waiting.chain(std::mem::take(&mut self.parked)) {
            self.refuse(now, job);
        }
        self.at(until, Act::Over);
    }

    /// Ends, if nothing is left to do.
    fn settle(&mut self, now: u64) {
        if self.finished || self.t0.is_none() {
            return;
        }
        let idle = self.users == 0 && self.open.is_empty() && self.waiting.is_empty() && self.parked.is_empty();
        let to_come = |act: &Act| matches!(act, Act::Begin(_) | Act::Next(_) | Act::Arrive(_) | Act::Caps);
        let done = match self.drain {
            Some(until) => self.open.is_empty() || now >= until || self.aborted,
            // users end by themselves only when the iterations are used up; else it waits for more lanes
            None => {
                let used_up = self.plan.iterations.is_some() && !self.lanes.is_empty();
                let next = (0..self.arrivals.len()).any(|scenario| self.next_due(scenario).is_some());
                used_up && idle && !next && !self.lease_over(now) && !self.acts.values().any(to_come)
            }
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
