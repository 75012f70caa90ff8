//! One request, kept: what reports and stores list.

use crate::sample::Phase;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which requests are kept, and how much of their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPolicy {
    /// At most so many successes and so many failures over the whole run and cluster.
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

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Random, drawn before the answer was read. The kept ones are those with the lowest, so a
    /// sample of a sample is a sample: keeping the lowest `k` merges, and stays uniform.
    pub priority: u64,
    /// Run-clock instant of its end, in nanoseconds: orders records of different workers.
    pub ended_at: u64,
    /// Which part of the run.
    pub phase: Phase,
    /// `GET`, `WS`, …: the seed's `Method`.
    pub request_type: Arc<str>,
    /// URL or target, as requested.
    pub url: Arc<str>,
    /// Name in the statistics.
    pub name: Arc<str>,
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

/// The part of an answer that a record keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Header lines in order: name, value.
    pub headers: Vec<(String, String)>,
    /// The decoded body, cut to the policy's size.
    pub body: Vec<u8>,
}
