//! What one rule looks at of a span: sums that add up over spans and workers.

use crate::frame::PhaseOdometer;
use crate::latency::Latency;

/// Counts and times of what a rule selects, over a span.
///
/// `merge` is commutative and associative and has an identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// The times that the rule is about; empty if it is about counts.
    pub times: Latency,
    /// Requests ended with success.
    pub succeeded: u64,
    /// Requests ended with failure.
    pub failed: u64,
    /// What was to be done.
    pub work: Work,
    /// The generator was the limit in a part of the span.
    pub marked: bool,
}

/// What was to be done in a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Requests started.
    pub started: u64,
    /// Iterations that were due.
    pub due: u64,
    /// Iterations that were due and not started.
    pub dropped: u64,
}

impl Tally {
    /// Requests that ended.
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.times.merge(&other.times);
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.work.merge(other.work);
        self.marked |= other.marked;
    }
}

impl Work {
    /// Between two readings of a session's counters. What a limit of the worker's machine stopped
    /// before a byte left is no request.
    pub fn between(before: &PhaseOdometer, now: &PhaseOdometer) -> Self {
        let sent = |o: &PhaseOdometer| o.requests_started.saturating_sub(o.requests_unsent);
        let dropped = |o: &PhaseOdometer| o.dropped.iter().sum::<u64>();
        Self {
            started: sent(now).saturating_sub(sent(before)),
            due: now.due.saturating_sub(before.due),
            dropped: dropped(now).saturating_sub(dropped(before)),
        }
    }

    /// Adds `other`.
    pub fn merge(&mut self, other: Self) {
        self.started += other.started;
        self.due += other.due;
        self.dropped += other.dropped;
    }
}
