//! What one worker runs of a plan.

use crate::id::{Digest, Epoch};
use crate::lanes::LaneSet;
use crate::throttle::ThrottleShare;
use crate::time::RunTime;

/// The slice of a plan that one worker runs. Shards of one run are disjoint at every instant, and
/// their union is the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The plan.
    pub plan: Digest,
    /// The lanes that the worker owns.
    pub lanes: LaneSet,
    /// The assignment's epoch.
    pub epoch: Epoch,
    /// The instant from which it owns them.
    pub from: RunTime,
    /// Its share of the cap on open iterations, one entry a scenario.
    pub max_in_flight: Vec<u64>,
    /// Its share of every limit on the rate of requests, as [`crate::plan::Plan::limits`] lists them.
    pub throttles: Vec<ThrottleShare>,
}
