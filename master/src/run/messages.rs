//! What arrived by itself: pushed messages, messages of streams, events, deliveries.

use super::result::{FailureGroup, Names, failures};
use ld_shared::snapshot::PhaseSnapshot;
use serde::Serialize;

/// Messages by name. They count in no total of requests; what their times mean depends on their
/// kind, which stands where requests have their type.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Messages {
    /// How many arrived as they should.
    pub received: u64,
    /// How many did not: lost, twice, out of order, of a kind that nobody expected.
    pub faults: u64,
    /// By name, in order of first arrival.
    pub per_name: Names,
    /// Faults by name and reason, most frequent first.
    pub failures: Vec<FailureGroup>,
}

impl Messages {
    /// Of that phase of one or several runs.
    pub(super) fn of(phase: &PhaseSnapshot) -> Self {
        Self {
            received: phase.succeeded(),
            faults: phase.failed(),
            per_name: Names::of(phase),
            failures: failures(phase),
        }
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.received + self.faults == 0
    }
}
