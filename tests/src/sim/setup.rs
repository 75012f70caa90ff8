//! The test that a seed describes, and the faults that befall it.

use super::clock::Clock;
use super::engine::Service;
use super::net::MS;
use crate::plan::{scenario, task};
use ld_shared::id::Digest;
use ld_shared::load::{Arrivals, Closed, Load, Open, Profile};
use ld_shared::plan::{AtEnd, Covers, Dealing, MasterLoss, Plan, ScenarioPlan, SourcePlan, ThrottlePlan, WorkerLoss};
use ld_shared::record::RecordPolicy;
use ld_shared::rng::KeyedRng;
use ld_shared::time::{RunTime, SECOND};
use std::sync::Arc;
use std::time::Duration;

/// Something bad, or somebody's wish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing gets through, silently: to the master, to the worker, or both.
    Cut { worker: usize, up: bool, down: bool, length: u64 },
    /// Everything, or results, are late.
    Slow { worker: usize, all: u64, results: u64, length: u64 },
    /// A middlebox resets the connection; the master and the worker see it so much later.
    Reset { worker: usize, late: [u64; 2] },
    /// SIGSTOP and SIGCONT.
    Freeze { node: Option<usize>, length: u64 },
    /// `kill -9`; `vanish`: its machine goes with it, nobody closes its connection. A new process
    /// comes after a while.
    Kill { worker: usize, vanish: bool, back: Option<u64> },
    /// `kill -9` of the master; another one takes its run up after a while.
    KillMaster { back: Option<u64> },
    /// Commits take so long.
    SlowDisk { delay: u64, length: u64 },
    /// Somebody ends the run.
    Stop,
    /// Somebody ends it at once.
    Abort,
    /// Somebody ends a worker: SIGTERM.
    Signal { worker: usize },
}

impl Fault {
    /// Whether it can keep a run from what was planned.
    pub(crate) fn disturbs(self) -> bool {
        !matches!(self, Self::Stop | Self::Abort)
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) plan: Arc<Plan>,
    pub(crate) workers: usize,
    pub(crate) cores: Vec<u32>,
    /// Open files that each worker has for load.
    pub(crate) capacity: Vec<u64>,
    /// When each worker's process is started.
    pub(crate) begins: Vec<u64>,
    /// Of the workers, and of the master behind them.
    pub(crate) clocks: Vec<Clock>,
    pub(crate) service: Service,
    pub(crate) delay: u64,
    pub(crate) master_timeout: Duration,
    pub(crate) allow_missing: bool,
    /// Workers have a spool on their disks.
    pub(crate) spools: bool,
    pub(crate) faults: Vec<(u64, Fault)>,
}

/// How long a run waits for its workers.
pub(crate) const WAIT: Duration = Duration::from_secs(5);

impl Setup {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = KeyedRng::new(seed, 1, 0);
        let workers = 2 + rng.below(3) as usize;
        let seconds = 3 + rng.below(5);
        let plan = Arc::new(plan(seed, seconds, &mut rng));
        let clock = |rng: &mut KeyedRng| {
            let fast = rng.below(2_000_001).cast_signed() - 1_000_000;
            Clock::new(1_000 * SECOND + rng.below(1_000_000 * SECOND), fast)
        };
        let clocks = (0..=workers).map(|_| clock(&mut rng)).collect();
        let delay = [MS / 5, MS, 10 * MS, 60 * MS][rng.below(4) as usize];
        let service = Service {
            least: [MS / 2, 5 * MS, 40 * MS][rng.below(3) as usize],
            spread: [MS, 50 * MS, 300 * MS][rng.below(3) as usize],
            stuck: [20, 200, 100_000][rng.below(3) as usize],
        };
        let faults = if rng.below(4) == 0 { 0 } else { 1 + rng.below(4) };
        let faults = (0..faults).map(|_| fault(workers, seconds, &mut rng));
        let mut faults: Vec<(u64, Fault)> = faults.collect();
        faults.sort_by_key(|(at, _)| *at);
        Self {
            cores: (0..workers).map(|_| 1 + rng.below(3) as u32).collect(),
            capacity: capacity(seed, workers),
            begins: (0..workers).map(|_| rng.below(300 * MS)).collect(),
            plan,
            workers,
            clocks,
            service,
            delay,
            master_timeout: Duration::from_secs(3 + rng.below(3)),
            allow_missing: rng.below(2) == 0,
            spools: KeyedRng::new(seed, 5, 0).below(2) == 0,
            faults,
        }
    }

    pub(crate) fn digest() -> Digest {
        Digest::of(b"plan")
    }

    /// For people.
    pub(crate) fn story(&self) -> Vec<String> {
        let scenarios = self.plan.scenarios.iter().map(|s| format!("{}: {:?}", s.name, s.load));
        let mut story = vec![format!(
            "{} workers, test_time {:?} s, graceful {:?} s, iterations {:?}, sources {:?}, limits {}, {:?}, delay {} ms, {:?}, spools {}, capacity {:?}",
            self.workers,
            self.plan.end().as_secs(),
            self.plan.graceful_stop.as_secs(),
            self.plan.iterations,
            self.plan.sources.iter().map(|s| s.rows).collect::<Vec<_>>(),
            self.plan.throttles.len(),
            self.plan.on_worker_loss,
            self.delay as f64 / 1e6,
            self.service,
            self.spools,
            self.capacity,
        )];
        story.extend(scenarios);
        story.extend(self.faults.iter().map(|(at, fault)| format!("at {:.3} s {fault:?}", *at as f64 / 1e9)));
        story
    }
}

/// Of some seeds' workers the last one can open little; the first one can always open all.
fn capacity(seed: u64, workers: usize) -> Vec<u64> {
    let mut rng = KeyedRng::new(seed, 6, 0);
    let few = 1 + rng.below(8);
    let is_short = rng.below(3) == 0;
    (0..workers).map(|worker| if is_short && worker + 1 == workers { few } else { 10_000 }).collect()
}

fn fault(workers: usize, seconds: u64, rng: &mut KeyedRng) -> (u64, Fault) {
    // most in mid-run, which begins after about a second and a half
    let early = rng.below(8) == 0;
    let at = if early { rng.below(1_500 * MS) } else { 1_500 * MS + rng.below((seconds + 1) * SECOND) };
    let worker = rng.below(workers as u64) as usize;
    let length = [300 * MS, 1_500 * MS, 3_500 * MS, 7_000 * MS][rng.below(4) as usize];
    let length = length / 2 + rng.below(length);
    let late = |rng: &mut KeyedRng| if rng.below(2) == 0 { 0 } else { rng.below(2 * SECOND) };
    let fault = match rng.below(18) {
        0..=1 => Fault::Cut { worker, up: true, down: true, length },
        2 => Fault::Cut { worker, up: true, down: false, length },
        3 => Fault::Cut { worker, up: false, down: true, length },
        4 => Fault::Slow { worker, all: 20 * MS + rng.below(600 * MS), results: 0, length },
        5 => Fault::Slow { worker, all: 0, results: 500 * MS + rng.below(3 * SECOND), length },
        6..=7 => Fault::Reset { worker, late: [late(rng), late(rng)] },
        8..=9 => Fault::Freeze { node: Some(worker), length },
        10 => Fault::Freeze { node: None, length },
        11 => Fault::Kill { worker, vanish: false, back: Some(200 * MS + rng.below(3 * SECOND)) },
        12 => Fault::Kill { worker, vanish: rng.below(2) == 0, back: None },
        13..=14 => Fault::KillMaster { back: (rng.below(5) > 0).then(|| 100 * MS + rng.below(5 * SECOND)) },
        15 => Fault::SlowDisk { delay: 50 * MS + rng.below(3 * SECOND), length },
        16 => {
            if rng.below(2) == 0 {
                Fault::Stop
            } else {
                Fault::Abort
            }
        }
        _ => Fault::Signal { worker },
    };
    (at, fault)
}

fn profile(seconds: u64, least: u64, most: u64, rng: &mut KeyedRng) -> Profile {
    let value = |rng: &mut KeyedRng| (least + rng.below(most - least)) as f64;
    let steady = value(rng);
    match rng.below(3) {
        0 => Profile::constant(steady),
        1 => Profile::default().then(seconds as f64 / 3.0, 0.0, steady),
        _ => Profile::default().then(seconds as f64 / 2.0, steady, value(rng)).then(1.0, steady, steady),
    }
}

fn plan(seed: u64, seconds: u64, rng: &mut KeyedRng) -> Plan {
    let count = 1 + rng.below(4) / 3;
    let closed = rng.below(2) == 0;
    let mut scenarios = Vec::new();
    for index in 0..count {
        let load = if closed {
            Load::Closed(Closed { users: profile(seconds, 2, 12, rng) })
        } else {
            let arrivals = if rng.below(2) == 0 { Arrivals::Constant } else { Arrivals::Poisson };
            Load::Open(Open { rate: profile(seconds, 10, 60, rng), arrivals, max_in_flight: 3 + rng.below(60) })
        };
        let tasks = vec![task(); if rng.below(3) == 0 { 2 } else { 1 }];
        let on_start = if closed && rng.below(2) == 0 { vec![task()] } else { Vec::new() };
        let wait = 0.01 + rng.next_f64() / 4.0;
        scenarios.push(ScenarioPlan {
            name: format!("s{index}").into(),
            first_number: 17 * index,
            tasks,
            on_start,
            wait_time: closed.then_some((wait, 2.0 * wait)),
            ..scenario(load)
        });
    }
    let limit =
        |index: u64| ThrottlePlan { key: format!("k{index}").into(), rate: 50.0, burst: 1, covers: Covers::Test };
    let limits = if rng.below(3) == 0 { 1 + rng.below(2) } else { 0 };
    let source = SourcePlan {
        name: "rows".into(),
        columns: vec!["a".into()],
        rows: 1 + rng.below(150),
        blob: Digest::of(b"rows"),
        dealing: Dealing::Once(AtEnd::Placeholder),
    };
    Plan {
        seed,
        scenarios,
        sources: if rng.below(3) == 0 { vec![source] } else { Vec::new() },
        test_time: Some(RunTime(seconds * SECOND)),
        warmup: RunTime(rng.below(2) * SECOND),
        graceful_stop: RunTime(200 * MS + rng.below(2_500 * MS)),
        iterations: (rng.below(4) == 0).then(|| 10 + rng.below(200)),
        records: RecordPolicy { keep: 0, ..RecordPolicy::default() },
        throttles: (0..limits).map(limit).collect(),
        on_worker_loss: [WorkerLoss::Redistribute, WorkerLoss::Degrade, WorkerLoss::Abort]
            [[0, 0, 0, 1, 2][rng.below(5) as usize]],
        on_master_loss: if rng.below(2) == 0 { MasterLoss::Stop } else { MasterLoss::Finish },
        ..Plan::default()
    }
}
