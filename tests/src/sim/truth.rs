//! What really happened, and the invariants that it must obey (the **I** lines of ENGINEERING.md).

use super::clock::Clock;
use ld_master::cluster::assign::own_due;
use ld_master::run::{Ending, Measured};
use ld_shared::frame::{Frame, FrameKey};
use ld_shared::id::SessionId;
use ld_shared::lanes::LaneSet;
use ld_shared::load::{ArrivalId, Load};
use ld_shared::message::LEASE;
use ld_shared::plan::{Plan, Pool, ScenarioPlan};
use ld_shared::sample::Phase;
use ld_shared::throttle::PARTS;
use ld_shared::time::{Mono, RunTime};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A life of a user: later ones are of later tenures.
pub(crate) type Life = (RunTime, u64);

/// An engine of a worker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub(crate) worker: usize,
    pub(crate) engine: u64,
}

/// A worker's process, as far as starts are concerned.
#[derive(Clone, Debug, Default)]
struct Process {
    /// Its newest session.
    session: Option<SessionId>,
    /// It may start until then, on its own clock.
    lease: u64,
    /// It believes that it may start until then.
    believed: u64,
    /// The master has given its share away.
    given_away: bool,
    /// The master has seen its connection end, and it has started something since.
    disconnected: bool,
    doubtful: bool,
    /// Its running engine, and the limits that it goes by.
    running: Option<(u64, Vec<u32>)>,
    /// Caps that it goes by.
    caps: Vec<u64>,
}

/// What a run's result says, to be held against the target at the very end.
#[derive(Clone, Copy, Debug)]
struct Claim {
    ended: u64,
    in_flight: u64,
    lost: u64,
    /// Nobody was lost, or has come back with all that it had measured.
    exact: bool,
}

/// Everything that the target and an all-seeing witness saw.
#[derive(Debug)]
pub(crate) struct Truth {
    /// True time.
    pub(crate) now: u64,
    clocks: Vec<Clock>,
    processes: Vec<Process>,
    /// Caps of the plan, by scenario.
    most: Vec<u64>,
    /// Requests that reached the target.
    pub(crate) target: u64,
    engines: u64,
    lives: u64,
    arrivals: BTreeMap<(usize, ArrivalId), Who>,
    iterations: u64,
    /// The newest life of every user that started something, whose it is, and when it began.
    users: BTreeMap<(usize, u64), (Life, Who, u64)>,
    /// What clocks may differ by, beside their rates.
    skew: u64,
    used: BTreeSet<(Pool, u64)>,
    granted: BTreeMap<Pool, u64>,
    offered: BTreeMap<FrameKey, Frame>,
    acknowledged: BTreeMap<SessionId, u64>,
    /// Frames of dead workers that the master has counted.
    pub(crate) inherited: u64,
    claim: Option<Claim>,
    /// Somebody's connection ended, it went on for a while and never came back: nobody will know of what it
    /// did then. The residual of decision C3.
    residual: bool,
    broken: Option<String>,
}

impl Truth {
    pub(crate) fn new(clocks: Vec<Clock>, plan: &Plan, delay: u64) -> Self {
        Self {
            skew: 4 * delay,
            now: 0,
            most: plan.scenarios.iter().map(|s| s.load.open().map_or(0, |open| open.max_in_flight)).collect(),
            processes: vec![Process::default(); clocks.len()],
            clocks,
            target: 0,
            engines: 0,
            lives: 0,
            arrivals: BTreeMap::new(),
            iterations: 0,
            users: BTreeMap::new(),
            used: BTreeSet::new(),
            granted: BTreeMap::new(),
            offered: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            inherited: 0,
            claim: None,
            residual: false,
            broken: None,
        }
    }

    /// The first invariant that broke.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// `holds`, or else an invariant broke.
    pub(crate) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    pub(crate) fn new_engine(&mut self, worker: usize) -> Who {
        self.engines += 1;
        Who { worker, engine: self.engines }
    }

    /// A user's life on lanes that are owned from that instant on.
    pub(crate) fn new_life(&mut self, from: RunTime) -> Life {
        self.lives += 1;
        (from, self.lives)
    }

    /// A worker's process begins, or is gone.
    pub(crate) fn process(&mut self, worker: usize) {
        self.residual |= self.processes[worker].doubtful;
        self.processes[worker] = Process::default();
    }

    /// A worker's process is let in.
    pub(crate) fn welcome(&mut self, worker: usize, session: SessionId) {
        let process = &mut self.processes[worker];
        // as somebody else: what it did under its old name it will not tell
        self.residual |= process.doubtful && process.session != Some(session);
        (process.session, process.given_away) = (Some(session), false);
        (process.disconnected, process.doubtful) = (false, false);
    }

    /// A worker was told that a beat of this instant was answered.
    pub(crate) fn answered(&mut self, worker: usize, sent_at: Mono) {
        self.leased(worker, sent_at.after(LEASE));
    }

    /// A worker whose master's machine says that nobody listens may go on until then.
    pub(crate) fn leased(&mut self, worker: usize, until: Mono) {
        let process = &mut self.processes[worker];
        process.lease = process.lease.max(until.0);
    }

    /// A worker gives itself a lease.
    pub(crate) fn believes(&mut self, worker: usize, until: Mono) {
        let process = &mut self.processes[worker];
        process.believed = process.believed.max(until.0);
        let right = process.believed <= process.lease;
        self.check(right, || format!("C1: worker {worker} takes a longer lease than it was given"));
        self.check_limits();
        self.check_caps();
    }

    /// An engine goes by these caps.
    pub(crate) fn caps(&mut self, who: Who, caps: &[u64]) {
        self.processes[who.worker].caps = caps.to_vec();
        self.check_caps();
    }

    fn check_caps(&mut self) {
        for scenario in 0..self.most.len() {
            let in_force = |(clock, process): (&Clock, &Process)| {
                let runs = clock.mono(self.now).0 < process.believed && process.running.is_some();
                runs.then(|| process.caps.get(scenario).copied().unwrap_or(0))
            };
            let sum: u64 = self.clocks.iter().zip(&self.processes).filter_map(in_force).sum();
            let most = self.most[scenario];
            self.check(sum <= most, || format!("A7: caps of scenario {scenario} add up to {sum}, more than {most}"));
        }
    }

    /// The master sees the end of a worker's connection.
    pub(crate) fn disconnected(&mut self, session: SessionId) {
        self.processes.iter_mut().filter(|p| p.session == Some(session)).for_each(|p| p.disconnected = true);
    }

    /// The master believes that a worker starts nothing any more, and acts on it.
    pub(crate) fn gave_away(&mut self, session: SessionId) {
        self.processes.iter_mut().filter(|p| p.session == Some(session)).for_each(|p| p.given_away = true);
    }

    /// An engine is gone.
    pub(crate) fn dropped(&mut self, who: Who) {
        let running = &mut self.processes[who.worker].running;
        if running.take_if(|(engine, _)| *engine == who.engine).is_some() {
            self.processes[who.worker].caps.clear();
        }
    }

    /// An engine goes by these parts of the limits.
    pub(crate) fn limits(&mut self, who: Who, parts: &[u32]) {
        self.processes[who.worker].running = Some((who.engine, parts.to_vec()));
        self.check_limits();
    }

    fn check_limits(&mut self) {
        let in_force = |(clock, process): (&Clock, &Process)| {
            (clock.mono(self.now).0 < process.believed)
                .then(|| process.running.clone().map(|(_, parts)| parts))
                .flatten()
        };
        let held: Vec<Vec<u32>> = self.clocks.iter().zip(&self.processes).filter_map(in_force).collect();
        let limits = held.iter().map(Vec::len).max().unwrap_or(0);
        for limit in 0..limits {
            let sum: u32 = held.iter().filter_map(|parts| parts.get(limit)).sum();
            self.check(sum <= PARTS, || format!("A7: {sum} of {PARTS} parts of limit {limit} are in force: {held:?}"));
        }
    }

    /// A request starts, and reaches the target. `user`: scenario, number and life in the closed model.
    pub(crate) fn start(&mut self, who: Who, own: u64, user: Option<(usize, u64, Life)>) {
        self.target += 1;
        let process = &mut self.processes[who.worker];
        process.doubtful |= process.disconnected;
        let Process { lease, given_away, .. } = self.processes[who.worker];
        self.check(own < lease, || {
            format!("C1: worker {} started {} ms after its lease", who.worker, (own - lease) as f64 / 1e6)
        });
        self.check(!given_away, || format!("C1: worker {} started after its share was given away", who.worker));
        if let Some((scenario, number, life)) = user {
            let newest = *self.users.entry((scenario, number)).or_insert((life, who, self.now));
            if life > newest.0 {
                self.users.insert((scenario, number), (life, who, self.now));
            }
            // run clocks drift apart: where both live, the old one ends by its own
            let apart = self.skew + self.now / 300;
            let now = self.now;
            self.check(life >= newest.0 || who == newest.1 || now < newest.2 + apart, || {
                format!(
                    "A4: user {number} of scenario {scenario} runs twice: by {who:?}, {} ms after {:?}",
                    (now - newest.2) as f64 / 1e6,
                    newest.1
                )
            });
        }
    }

    /// An arrival was started.
    pub(crate) fn arrival(&mut self, who: Who, scenario: usize, id: ArrivalId) {
        self.iterations += 1;
        let before = self.arrivals.insert((scenario, id), who);
        self.check(before.is_none(), || {
            format!("C1: arrival {} of scenario {scenario} was started by {before:?} and {who:?}", id.0)
        });
    }

    /// A ticket is used.
    pub(crate) fn ticket(&mut self, who: Who, pool: Pool, ticket: u64) {
        let new = self.used.insert((pool, ticket));
        self.check(new, || format!("A6: ticket {ticket} of {pool:?} was used twice, the second time by {who:?}"));
    }

    /// Tickets leave the master.
    pub(crate) fn granted(&mut self, pool: Pool, tickets: &Range<u64>) {
        *self.granted.entry(pool).or_default() += tickets.end - tickets.start;
    }

    /// A frame leaves a worker.
    pub(crate) fn offer(&mut self, frame: &Frame) {
        let seq = frame.key.seq;
        match self.offered.get(&frame.key) {
            Some(before) => {
                let same = before == frame;
                self.check(same, || format!("B3: frame {seq} was offered, and changed afterwards"));
            }
            None => {
                self.offered.insert(frame.key.clone(), frame.clone());
            }
        }
    }

    /// The master says that it has counted every frame of a session up to `seq`.
    pub(crate) fn acknowledge(&mut self, session: SessionId, seq: u64) {
        let most = self.acknowledged.entry(session).or_default();
        *most = seq.max(*most);
    }

    /// Lanes of workers that the master believes to make load.
    pub(crate) fn owners<'a>(&mut self, owned: impl Iterator<Item = &'a LaneSet>) {
        let mut union = LaneSet::empty();
        for lanes in owned {
            let disjoint = union.is_disjoint(lanes);
            union.extend(lanes);
            self.check(disjoint, || "A1: a lane has two owners".into());
        }
    }

    /// A worker that can open so many connections is told of lanes.
    pub(crate) fn given(&mut self, plan: &Plan, lanes: &LaneSet, capacity: u64) {
        let users = |scenario: &ScenarioPlan| match &scenario.load {
            Load::Closed(load) => {
                let first = scenario.first_number;
                lanes.count_between(first, first + load.peak(plan.end()))
            }
            Load::Open(_) => 0,
        };
        let users = plan.scenarios.iter().map(users).sum::<u64>();
        self.check(users <= capacity, || format!("A8: {users} users for who can open {capacity} connections"));
    }

    /// The run is over: what its result says.
    pub(crate) fn judge(&mut self, plan: &Plan, measured: &Measured) {
        self.judge_frames(measured);
        self.judge_balance(measured);
        self.judge_plan(plan, measured);
    }

    /// B2: the result is the sum of the acknowledged frames, each counted once.
    fn judge_frames(&mut self, measured: &Measured) {
        let mut sum = [0; Phase::COUNT];
        for (session, most) in self.acknowledged.clone() {
            for seq in 1..=most {
                let key = FrameKey { run: measured.run.clone(), session, seq };
                let Some(frame) = self.offered.get(&key) else {
                    self.check(false, || {
                        format!("B2: frame {seq} of session {session} was acknowledged, never offered")
                    });
                    continue;
                };
                for (sum, phase) in sum.iter_mut().zip(&frame.body.counts.phases) {
                    *sum += phase.succeeded() + phase.failed();
                }
            }
        }
        let counted = [0, 1, 2, 3].map(|index| {
            let phase: &ld_shared::snapshot::PhaseSnapshot = &measured.total.phases[index];
            phase.succeeded() + phase.failed()
        });
        self.check(counted == sum, || format!("B2: {counted:?} are counted, {sum:?} stand in acknowledged frames"));
    }

    /// B1: both identities, to the unit, in every phase; rows add up to totals.
    fn judge_balance(&mut self, measured: &Measured) {
        let mut claim = Claim { ended: 0, in_flight: 0, lost: measured.lost, exact: false };
        for phase in [Phase::Main, Phase::Warmup, Phase::Hooks] {
            let odometer = *measured.odometers.phase(phase);
            let counted = measured.total.phase(phase);
            let ended = counted.succeeded() + counted.failed();
            let lost = measured.lost_by_phase[phase.index()];
            let known = ended + odometer.requests_in_flight + lost;
            self.check(odometer.requests_started == known, || {
                format!("B1: {phase:?}: {} requests started, the fates of {known} are known", odometer.requests_started)
            });
            let dropped: u64 = odometer.dropped.iter().sum();
            self.check(odometer.due == odometer.iterations + dropped, || {
                format!("B1: {phase:?}: {} due, {} started, {dropped} dropped", odometer.due, odometer.iterations)
            });
            claim.ended += ended;
            claim.in_flight += odometer.requests_in_flight;
        }
        let rows: u64 = measured.timeline.values().map(|row| row.row.succeeded + row.row.failed).sum();
        let total = [Phase::Main, Phase::Warmup].map(|phase| measured.total.phase(phase));
        let total: u64 = total.iter().map(|phase| phase.succeeded() + phase.failed()).sum();
        self.check(rows == total, || format!("B3: rows add up to {rows}, the total is {total}"));
        let bounds: u64 = measured.losses.iter().map(|loss| loss.bound).sum();
        self.check(bounds == measured.lost, || format!("C3: losses add up to {bounds}, lost is {}", measured.lost));
        let lost = measured.workers.iter().any(|worker| worker.state == "lost");
        self.check(lost || measured.lost == 0, || "C3: nobody is lost, and requests are".into());
        self.claim = Some(Claim { exact: !lost, ..claim });
    }

    /// A1, A4: what was due is what the plan says, whoever owned it; nothing was started unseen.
    fn judge_plan(&mut self, plan: &Plan, measured: &Measured) {
        let open = plan.scenarios.iter().all(|scenario| matches!(scenario.load, Load::Open(_)));
        let load = [Phase::Main, Phase::Warmup].map(|phase| *measured.odometers.phase(phase));
        let iterations: u64 = load.iter().map(|odometer| odometer.iterations).sum();
        if !open {
            return;
        }
        let started = self.iterations;
        let residual = self.residual || self.processes.iter().any(|process| process.doubtful);
        self.check(iterations >= started || residual, || {
            format!("A4: {started} arrivals were started, {iterations} are counted; losses {:?}", measured.losses)
        });
        if measured.ending == Ending::Completed {
            let full = LaneSet::full();
            let planned = plan.scenarios.iter().map(|s| own_due(plan, s, &full, RunTime(0), plan.end()));
            let (planned, due): (u64, u64) = (planned.sum(), load.iter().map(|odometer| odometer.due).sum());
            self.check(due == planned, || {
                format!(
                    "A1: {due} arrivals were due, {planned} are planned; losses {:?}, {:?}",
                    measured.losses, measured.events
                )
            });
        }
        if !measured.workers.iter().any(|worker| worker.state == "lost") {
            self.check(iterations == started, || format!("A4: {started} arrivals started, {iterations} counted"));
        }
    }

    /// Nothing will happen any more. `undisturbed`: no fault was injected.
    pub(crate) fn finish(&mut self, plan: &Plan, undisturbed: bool) {
        let target = self.target;
        self.residual |= self.processes.iter().any(|process| process.doubtful);
        if let Some(Claim { ended, in_flight, lost, exact }) = self.claim {
            self.check(ended <= target, || format!("C3: {ended} requests are counted, the target saw {target}"));
            let most = ended + in_flight + lost;
            // of a run from which nobody ever said anything, nothing can be said
            let silent = ended == 0 && in_flight == 0;
            self.check(target <= most || self.residual || silent, || {
                format!("C3: the target saw {target} requests, at most {ended} + {in_flight} + {lost} are claimed")
            });
            if undisturbed || exact {
                self.check(lost == 0 && target == most, || {
                    format!("C3: nobody was lost for good: lost = {lost}, the target saw {target}, {most} are claimed")
                });
            }
        }
        for (pool, total) in plan.pools() {
            let granted = self.granted.get(&pool).copied().unwrap_or(0);
            self.check(granted <= total, || format!("A6: {granted} of {total} tickets of {pool:?} were granted"));
            let used = self.used.iter().filter(|(of, _)| *of == pool).count() as u64;
            self.check(used <= granted, || format!("A6: {used} tickets of {pool:?} were used, {granted} granted"));
        }
    }
}
