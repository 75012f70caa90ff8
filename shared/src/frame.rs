//! What a worker sends of its measurements: the snapshot of one span of one session.

use crate::id::{RunId, SessionId};
use crate::latency::Latency;
use crate::sample::Phase;
use crate::snapshot::Snapshot;
use serde_json::{Map, Value};

/// Names a frame. Frames of one key are the same frame, however often they arrive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKey {
    /// The run.
    pub run: RunId,
    /// The worker's session in it.
    pub session: SessionId,
    /// 1, 2, 3, … without gaps.
    pub seq: u64,
}

/// What a worker measured in a span: sent until acknowledged, counted once.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Its key.
    pub key: FrameKey,
    /// Its measurements.
    pub body: FrameBody,
}

/// The content of a frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameBody {
    /// First run-clock second that the frame covers.
    pub from_second: u32,
    /// First run-clock second after those that it covers. Percentiles are valid for the span as a
    /// whole, rows of counts for each second.
    pub to_second: u32,
    /// What ended in the span.
    pub counts: Snapshot,
    /// Where the session's counters stood at the end of the span.
    pub odometers: Odometers,
    /// How the generator fared in the span.
    pub generator: Generator,
    /// What a setup brought about; only in the last frame of the worker that ran it.
    pub collected: Option<Box<Collected>>,
    /// The session's last frame: nothing ends after it.
    pub last: bool,
    /// Batches of records still follow the last frame; the last of them says so.
    pub records_follow: bool,
}

/// Most bytes of the variables that a setup hands to all users: they travel in one message, and lie in every plan.
pub const MOST_COLLECTED: usize = 4 * 1024 * 1024;

/// What a setup brought about ([`crate::plan::Plan::collect`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    /// The variables that its steps extracted.
    pub variables: Map<String, Value>,
    /// The step at which it ended, and why; `None`: it went well to its end.
    pub failure: Option<String>,
}

/// Cumulative counters of a session, one set a phase. They never fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odometers {
    /// One entry a [`Phase`], by its index.
    pub phases: [PhaseOdometer; Phase::COUNT],
}

/// Counters of one phase of a session.
///
/// They are the first of the two paths of conservation: counted where the engine starts and
/// drops, never derived from the histograms, which are the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseOdometer {
    /// Iterations that were due.
    pub due: u64,
    /// Iterations started.
    pub iterations: u64,
    /// Iterations dropped, by [`crate::snapshot::DropReason`] index.
    pub dropped: [u64; 4],
    /// Requests started: before their DNS look-up or connect, if they need one.
    pub requests_started: u64,
    /// Requests whose bytes reached the socket: the one to hold against a target's log.
    pub requests_written: u64,
    /// Requests recorded as ended.
    pub requests_ended: u64,
    /// Requests that a limit of this machine (files, ports) stopped before a byte left. They are
    /// in `requests_started`, and taken off it where it is balanced against ends.
    pub requests_unsent: u64,
    /// Requests cut off at the end of the drain.
    pub requests_in_flight: u64,
}

impl Odometers {
    /// The counters of `phase`.
    pub fn phase(&self, phase: Phase) -> &PhaseOdometer {
        &self.phases[phase.index()]
    }

    /// The counters of the phases that hold requests.
    pub fn of_requests(&self) -> &[PhaseOdometer] {
        &self.phases[..Phase::LEAST]
    }

    /// Whether no counter is lower than in `earlier`.
    pub fn is_after(&self, earlier: &Self) -> bool {
        self.phases.iter().zip(&earlier.phases).all(|(now, then)| {
            now.due >= then.due
                && now.iterations >= then.iterations
                && now.dropped.iter().zip(then.dropped).all(|(a, b)| *a >= b)
                && now.requests_started >= then.requests_started
                && now.requests_written >= then.requests_written
                && now.requests_ended >= then.requests_ended
                && now.requests_unsent >= then.requests_unsent
                && now.requests_in_flight >= then.requests_in_flight
        })
    }

    /// Adds the counters of another session or core.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.phases.iter_mut().zip(&other.phases) {
            mine.due += theirs.due;
            mine.iterations += theirs.iterations;
            for (a, b) in mine.dropped.iter_mut().zip(theirs.dropped) {
                *a += b;
            }
            mine.requests_started += theirs.requests_started;
            mine.requests_written += theirs.requests_written;
            mine.requests_ended += theirs.requests_ended;
            mine.requests_unsent += theirs.requests_unsent;
            mine.requests_in_flight += theirs.requests_in_flight;
        }
    }
}

/// How the generator fared in a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generator {
    /// Load cores.
    pub cores: u32,
    /// Greatest CPU share of one load core in one second, in thousandths.
    pub cpu_max_permille: u32,
    /// How long cores waited to be polled (5 ms probes).
    pub scheduler_lag: Latency,
    /// Milliseconds for which the cgroup was throttled.
    pub throttled_ms: u64,
    /// Most users that lived at once (open model: open iterations).
    pub users_max: u64,
    /// Requests of the main phase that ended so far in this session, which are those that records
    /// are chosen from: successes, failures.
    pub records_seen: [u64; 2],
    /// First start − start instant, ns; `None` before it is known or when nothing started.
    pub start_skew: Option<u64>,
}
