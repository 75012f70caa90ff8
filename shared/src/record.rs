//! One request: what reports and stores list, and how it travels to the master.

use crate::id::{RunId, SessionId};
use crate::sample::Phase;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which requests are kept, and how much of their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPolicy {
    /// At most so many successes and so many failures of the main phase, over the whole cluster.
    pub keep: u64,
    /// Whose bodies are kept.
    pub bodies: Bodies,
    /// Every request is shipped to the master as well, which writes them to a file.
    #[serde(default)]
    pub all: bool,
}

impl Default for RecordPolicy {
    fn default() -> Self {
        Self { keep: 100_000, bodies: Bodies::Failed(1024), all: false }
    }
}

/// Whose bodies are kept, and at most how many bytes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bodies {
    /// Nobody's.
    None,
    /// Those of failures.
    Failed(u64),
    /// Everybody's.
    All(u64),
}

/// One request, kept.
///
/// Its three instants: intended = `ended_at` − `response_us`, started = `started_at`, ended =
/// `ended_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Random, drawn before the answer was read. The kept ones are those with the lowest, so a
    /// sample of a sample is a sample: keeping the lowest `k` merges, and stays uniform.
    pub priority: u64,
    /// Run-clock instant of its end, in nanoseconds: orders records of different workers.
    pub ended_at: u64,
    /// Run-clock instant of its start, before DNS and connect, in nanoseconds. Its wall clock is
    /// [`Self::start_time`].
    pub started_at: u64,
    /// Which part of the run.
    pub phase: Phase,
    /// `GET`, `WS`, …: the seed's `Method`.
    pub request_type: Arc<str>,
    /// URL or target, as requested.
    pub url: Arc<str>,
    /// Name in the statistics.
    pub name: Arc<str>,
    /// Scenario of its user.
    pub scenario: Arc<str>,
    /// Worker that sent it. Known once the master has it; empty before.
    pub worker: Arc<str>,
    /// Status of the answer; `None` where the protocol has none, 0 without an answer.
    pub status: Option<u16>,
    /// Response time, µs.
    pub response_us: u64,
    /// Length of the decoded body, bytes.
    pub body_bytes: u64,
    /// Why it failed; `None` for a success.
    pub error: Option<Arc<str>>,
    /// The answer, where the policy keeps it.
    pub answer: Option<Arc<Answer>>,
}

impl Record {
    /// Wall clock of its start, epoch seconds to the microsecond; `run_started` is that of the run's
    /// start instant ([`crate::time::RunTime`] 0).
    pub fn start_time(&self, run_started: DateTime<Utc>) -> f64 {
        start_time(self.started_at, run_started)
    }

    /// About how many bytes it takes, in memory or on the wire.
    pub fn size(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |answer| answer.size());
        let error = self.error.as_ref().map_or(0, |error| error.len());
        FIXED_SIZE + self.url.len() + self.name.len() + error + answer
    }
}

/// Bytes of a record beside its texts.
const FIXED_SIZE: usize = 64;

/// Wall clock of an instant of the run clock, epoch seconds to the microsecond.
pub fn start_time(at: u64, run_started: DateTime<Utc>) -> f64 {
    let micros = run_started.timestamp_micros() + (at / 1_000).cast_signed();
    micros as f64 / 1e6
}

/// One request of those that are all written to a file: a [`Record`] without answer, of the main
/// phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// [`Record::started_at`].
    pub started_at: u64,
    /// `GET`, `WS`, …
    pub request_type: Arc<str>,
    /// URL or target, as requested.
    pub url: Arc<str>,
    /// Name in the statistics.
    pub name: Arc<str>,
    /// [`Record::status`].
    pub status: Option<u16>,
    /// Response time, µs.
    pub response_us: u64,
    /// Length of the decoded body, bytes.
    pub body_bytes: u64,
    /// Why it failed; `None` for a success.
    pub error: Option<Arc<str>>,
}

/// Single requests on their way to the master: sent until acknowledged, counted once, by key.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordBatch {
    /// The run.
    pub run: RunId,
    /// The worker's session in it.
    pub session: SessionId,
    /// 1, 2, 3, … without gaps, apart from the frames' numbers.
    pub seq: u64,
    /// What it brings.
    pub body: RecordBody,
}

/// The content of a [`RecordBatch`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordBody {
    /// Kept requests.
    pub kept: Vec<Record>,
    /// Every request of a stretch, encoded (see [`crate::wire::Lines`]); empty: none.
    pub lines: Bytes,
    /// Nothing of this session follows.
    pub last: bool,
}

/// The part of an answer that a record keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Header lines in order: name, value.
    pub headers: Vec<(String, String)>,
    /// The decoded body, cut to the policy's size.
    pub body: Vec<u8>,
}

impl Answer {
    /// About how many bytes it takes, in memory or on the wire.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        self.body.len() + headers
    }
}
