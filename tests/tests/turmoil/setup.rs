//! The test that a seed describes, and the faults that befall it.

use super::world::WORKERS;
use ld_shared::load::{Arrivals, Load, Open, Profile};
use ld_shared::plan::{Plan, WorkerLoss};
use ld_shared::record::RecordPolicy;
use ld_shared::rng::KeyedRng;
use ld_shared::time::RunTime;
use ld_tests::plan::scenario;

/// Something bad that befalls the way between a worker and the master, or the worker; for so many milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// Nothing gets through, and nothing is ever sent again.
    Cut,
    CutUp,
    CutDown,
    /// Everything waits.
    Hold,
    /// `kill -9`, and a new process afterwards.
    Kill,
    /// `kill -9`, and none.
    KillForGood,
}

/// A fault, from so many milliseconds after the start of the run on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) length: u64,
    pub(crate) worker: usize,
    pub(crate) what: What,
}

/// What a seed describes.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) seconds: u64,
    pub(crate) rate: u64,
    pub(crate) latency: u64,
    pub(crate) on_worker_loss: WorkerLoss,
    pub(crate) faults: Vec<Fault>,
}

impl Setup {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = KeyedRng::new(seed, 5, 7);
        let seconds = 5 + rng.below(4);
        let count = if seed.is_multiple_of(6) { 0 } else { 1 + rng.below(4) };
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..count {
            let worker = rng.below(WORKERS as u64) as usize;
            // half of them early, so that long ones are over within the run
            let at = if rng.below(2) == 0 { rng.below(1_500) } else { rng.below(seconds * 1_000) };
            let length = [300 + rng.below(1_000), 1_000 + rng.below(2_500), 3_000 + rng.below(3_000)];
            let length = length[rng.below(3) as usize];
            let what = match rng.below(8) {
                0 | 1 => What::Cut,
                2 => What::CutUp,
                3 => What::CutDown,
                4 | 5 => What::Hold,
                6 => What::Kill,
                _ => What::KillForGood,
            };
            // one at a time to each worker: turmoil does not mix them
            let overlaps = |other: &Fault| {
                let is_over = at > other.at + other.length || other.at > at + length;
                other.worker == worker && !is_over
            };
            if !faults.iter().any(overlaps) {
                faults.push(Fault { at, length, worker, what });
            }
        }
        let on_worker_loss = if rng.below(4) == 0 { WorkerLoss::Degrade } else { WorkerLoss::Redistribute };
        Self { seconds, rate: 30 + rng.below(60), latency: rng.below(51), on_worker_loss, faults }
    }

    /// The plan, under a number that is its own.
    pub(crate) fn plan(&self, number: u64) -> Plan {
        let load = Load::Open(Open {
            rate: Profile::constant(self.rate as f64),
            arrivals: Arrivals::Constant,
            max_in_flight: 1_000,
        });
        Plan {
            seed: number,
            scenarios: vec![scenario(load)],
            test_time: Some(RunTime::from_secs(self.seconds as f64)),
            graceful_stop: RunTime::from_secs(1.0),
            records: RecordPolicy { keep: 0, ..RecordPolicy::default() },
            on_worker_loss: self.on_worker_loss,
            ..Plan::default()
        }
    }
}
