//! What a run measured, and the result that is made of it.

pub(crate) mod attic;
pub mod blocks;
pub mod conservation;
#[cfg(test)]
pub(crate) mod fixture;
pub mod folded;
pub mod messages;
pub mod result;
pub mod thresholds;
pub mod timeline;
pub mod verdict;

use crate::cluster::rule_watch::Watched;
use crate::record_file::Written;
use chrono::{DateTime, Utc};
use ld_shared::frame::{Collected, Odometers};
use ld_shared::id::{Digest, RunId};
use ld_shared::latency::Latency;
use ld_shared::load::Program;
use ld_shared::plan::Plan;
use ld_shared::record::Record;
use ld_shared::sample::Phase;
use ld_shared::snapshot::{Row, Snapshot};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a run measured: the cluster's part. [`crate::run`] makes a result of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The run.
    pub run: RunId,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// What was changed of its load while it ran.
    pub program: Program,
    /// Digest of the plan.
    pub plan_digest: Digest,
    /// `local` or `cluster`.
    pub mode: &'static str,
    /// Wall clock at the start instant.
    pub started_at: DateTime<Utc>,
    /// Wall clock when the run closed.
    pub ended_at: DateTime<Utc>,
    /// Length of the main window and warm-up: from the start instant to when starting ended, s.
    pub duration_s: f64,
    /// Everything.
    pub total: Snapshot,
    /// Everything but the spans in which the generator was the limit.
    pub unmarked: Snapshot,
    /// Per second, rows and response times (merged over workers).
    pub timeline: BTreeMap<u32, TimelineRow>,
    /// By name over spans of the run: how far it scatters within itself.
    pub blocks: blocks::Blocks,
    /// Counters of all sessions at their ends.
    pub odometers: Odometers,
    /// Upper bound of requests that were started and whose end is not known.
    pub lost: u64,
    /// The same by [`ld_shared::sample::Phase`] index.
    pub lost_by_phase: [u64; Phase::COUNT],
    /// One entry a worker that took part.
    pub workers: Vec<WorkerResult>,
    /// What was lost, and when.
    pub losses: Vec<Loss>,
    /// What people and policies did to the run.
    pub events: Vec<Event>,
    /// What each rule saw while the run went on, in the order of the rules.
    pub watched: Vec<Watched>,
    /// Kept records in order of their ends.
    pub records: Vec<Record>,
    /// Requests of the main phase that records were chosen from: successes, failures.
    pub records_seen: [u64; 2],
    /// The file of all requests, if one was asked for.
    pub all_records: Option<AllRecords>,
    /// How the run ended.
    pub ending: Ending,
    /// What a setup brought about.
    pub collected: Option<Collected>,
}

/// The file to which every request of the main phase was to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllRecords {
    /// Its path, as the document names it.
    pub file: String,
    /// Requests that are in it.
    pub written: u64,
    /// Requests that are not: the worker's buffer or the disk could not take them, or the worker was
    /// lost with them.
    pub missed: u64,
}

/// A run that is over, and how it was judged.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was measured.
    pub measured: Measured,
    /// Its verdict.
    pub verdict: verdict::Verdict,
    /// Label given by the document, if any.
    pub label: Option<String>,
}

impl Measured {
    /// Takes over what became of the file of all requests.
    pub fn take_written(&mut self, file: String, written: Written) -> &AllRecords {
        let main = self.total.phase(Phase::Main);
        let missed = (main.succeeded() + main.failed()).saturating_sub(written.requests);
        if let Some((why, at_s)) = written.fault {
            let what = format!("cannot write `{file}` any more: {why}; {} requests are in it", written.requests);
            self.events.push(Event { at_s, what, by: "records".into() });
        }
        self.all_records.insert(AllRecords { file, written: written.requests, missed })
    }

    /// Adds what was run once, before or after: all its requests count as hooks.
    pub fn add_hooks(&mut self, stage: &Self) {
        let hooks = Phase::Hooks.index();
        for (phase, (ended, counted)) in stage.total.phases.iter().zip(stage.odometers.phases).enumerate() {
            let place = if phase == Phase::Messages.index() { phase } else { hooks };
            self.total.phases[place].merge(ended);
            let mut odometers = Odometers::default();
            odometers.phases[place] = counted;
            self.odometers.add(&odometers);
        }
        self.lost += stage.lost;
        self.lost_by_phase[hooks] += stage.lost;
    }

    /// Length of the main window, without the warm-up, s.
    pub fn main_seconds(&self) -> f64 {
        (self.duration_s - self.plan.warmup.as_secs()).max(0.0)
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As planned.
    Completed,
    /// Somebody asked it to (Ctrl-C, SIGTERM, the API); with open-ended tests that is normal.
    Stopped,
    /// A rule that aborts failed: which, says [`Measured::watched`].
    Breached,
    /// It could not go on: what happened.
    Failed(String),
}

/// One second of the timeline; after the first hour, of several.
#[derive(Clone, Debug)]
pub struct TimelineRow {
    /// Counts.
    pub row: Row,
    /// Seconds that they are of.
    pub seconds: u32,
    /// Response times of what ended in it.
    pub response: Latency,
    /// Length of the span that percentiles describe, if it is not one second.
    pub coarse: Option<u32>,
    /// Lies after the planned end: answers of the drain.
    pub drain: bool,
}

impl Default for TimelineRow {
    fn default() -> Self {
        Self { row: Row::default(), seconds: 1, response: Latency::default(), coarse: None, drain: false }
    }
}

/// One worker's part.
#[derive(Clone, Debug)]
pub struct WorkerResult {
    /// Its name.
    pub name: String,
    /// Its load cores.
    pub cores: u32,
    /// Most users at once.
    pub users_max: u64,
    /// Requests it started (all phases).
    pub requests: u64,
    /// Greatest CPU share of one of its cores in one second, 0..1.
    pub cpu_max: f64,
    /// p99 of how long its cores waited to be polled.
    pub lag_p99_ms: f64,
    /// The master's clock − its, ms.
    pub clock_offset_ms: f64,
    /// Bound on the error of that.
    pub clock_error_ms: f64,
    /// First start − start instant.
    pub start_skew_ms: f64,
    /// `ok`, `lost`, `left`, `late`.
    pub state: &'static str,
    /// When it was lost, run time.
    pub lost_at_s: Option<f64>,
}

/// A loss: which load, when, and the bound of what is not known.
#[derive(Clone, Debug)]
pub struct Loss {
    /// From, run time.
    pub from_s: f64,
    /// To, run time.
    pub to_s: f64,
    /// Which worker.
    pub worker: String,
    /// Starts that its share planned in that span.
    pub planned: u64,
    /// Starts that happened.
    pub achieved: u64,
    /// Upper bound of requests with unknown end.
    pub bound: u64,
    /// Why.
    pub reason: String,
}

/// Something done to a run.
#[derive(Clone, Debug)]
pub struct Event {
    /// Run time.
    pub at_s: f64,
    /// What.
    pub what: String,
    /// By whom.
    pub by: String,
}

/// Where a running test stands: what the live line shows.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// `waiting`, `preparing`, `running`, `draining`, `done`.
    pub state: &'static str,
    /// Run time in seconds.
    pub elapsed_s: f64,
    /// Planned length, if it has one.
    pub planned_s: Option<f64>,
    /// Users now (open model: open iterations).
    pub users: u64,
    /// Requests started in the last complete second.
    pub rate: f64,
    /// Response times so far in µs: p50, p95, p99.
    pub percentiles: [u64; 3],
    /// Requests so far.
    pub requests: u64,
    /// Failures so far.
    pub failures: u64,
    /// Workers that take part, and that were expected.
    pub workers: [u32; 2],
    /// Names of workers that are there, while waiting.
    pub present: Vec<String>,
}
