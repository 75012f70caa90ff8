//! Limits on the rate of requests, split over workers.
//!
//! A limit means the cluster. It is split into [`PARTS`], of which every worker holds some; what
//! the workers hold together never exceeds the whole.

use crate::plan::{Covers, Plan, TaskPlan, ThrottlePlan};
use std::sync::Arc;

/// So many parts are the whole of a limit.
pub const PARTS: u32 = 1_000_000;

/// One worker's share of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleShare {
    /// Of the rate.
    pub parts: u32,
    /// Of the burst.
    pub burst: u64,
    /// Run time of its first request, ns: shares take turns, so that the cluster begins evenly.
    pub first: u64,
}

/// How much of a limit a worker uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleUse {
    /// Requests let through so far.
    pub passed: u64,
    /// Users that wait now.
    pub waiting: u64,
}

/// Time between two requests of a share, ns; `u64::MAX`: it lets nothing through. Rounded up, so
/// that all shares together never exceed the rate.
pub fn interval(rate: f64, parts: u32) -> u64 {
    let own = rate * f64::from(parts) / f64::from(PARTS);
    if own > 0.0 { (1e9 / own).ceil() as u64 } else { u64::MAX }
}

/// Splits a limit by weights: exactly, and in the order given. Without any weight the first gets all.
pub fn split(limit: &ThrottlePlan, weights: &[u64]) -> Vec<ThrottleShare> {
    let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    let up_to = |whole: u64, weight: u128| match sum {
        0 => whole,
        _ => (u128::from(whole) * weight / sum) as u64,
    };
    let holders = weights.iter().filter(|weight| **weight > 0).count().max(1);
    let mut before = 0_u128;
    let mut turn = 0_u32;
    let mut shares = Vec::new();
    for (i, weight) in weights.iter().enumerate() {
        let until = before + u128::from(*weight);
        let own = |whole: u64| {
            let from = if i == 0 { 0 } else { up_to(whole, before) };
            up_to(whole, until) - from
        };
        let parts = own(u64::from(PARTS)) as u32;
        // turns by position, not by weight: else the first requests of many small shares fall together
        let waits = f64::from(turn) / holders as f64;
        let first = if parts == 0 { 0 } else { (waits * interval(limit.rate, parts) as f64) as u64 };
        turn += u32::from(*weight > 0);
        shares.push(ThrottleShare { parts, burst: own(limit.burst), first });
        before = until;
    }
    shares
}

impl Plan {
    /// Every limit of the plan, one a key: of two with one key the first counts. Workers, the wire
    /// and shares name limits by their index in this list.
    pub fn limits(&self) -> Vec<ThrottlePlan> {
        let mut limits: Vec<ThrottlePlan> = Vec::new();
        for limit in self.throttles.iter().chain(self.all_tasks().filter_map(|task| task.throttle.as_ref())) {
            if !limits.iter().any(|known| known.key == limit.key) {
                limits.push(limit.clone());
            }
        }
        limits
    }

    /// Indices in [`Self::limits`] of the limits that a task of a scenario falls under.
    pub fn limits_on(&self, limits: &[ThrottlePlan], scenario: usize, task: &TaskPlan) -> Vec<usize> {
        let covered = limits.iter().enumerate().filter(|(_, limit)| match limit.covers {
            Covers::Tasks => task.throttle.as_ref().is_some_and(|own| own.key == limit.key),
            Covers::Scenario(index) => index as usize == scenario,
            Covers::Test => true,
        });
        covered.map(|(index, _)| index).collect()
    }

    /// Keys of limits that tasks give different settings: only the first ones count.
    pub fn conflicting_limits(&self) -> Vec<Arc<str>> {
        let limits = self.limits();
        let differs = |limit: &&ThrottlePlan| {
            limits.iter().any(|known| known.key == limit.key && (known.rate, known.burst) != (limit.rate, limit.burst))
        };
        let tasks = self.all_tasks().filter_map(|task| task.throttle.as_ref()).filter(differs);
        let mut keys: Vec<Arc<str>> = tasks.map(|limit| Arc::clone(&limit.key)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit(rate: f64, burst: u64) -> ThrottlePlan {
        ThrottlePlan { key: "k".into(), rate, burst, covers: Covers::Test }
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_limit(
            weights in prop::collection::vec(0u64..1_000_000, 1..20),
            rate in 0.01f64..1e6,
            burst in 1u64..1_000_000,
        ) {
            let shares = split(&limit(rate, burst), &weights);
            prop_assert_eq!(shares.iter().map(|s| u64::from(s.parts)).sum::<u64>(), u64::from(PARTS));
            prop_assert_eq!(shares.iter().map(|s| s.burst).sum::<u64>(), burst);
            let sum: f64 = shares.iter().map(|s| 1e9 / interval(rate, s.parts) as f64).sum();
            prop_assert!(sum <= rate * (1.0 + 1e-9), "{} {}", sum, rate);
        }

        /// Whatever the weights, the cluster never runs ahead of the rate by more than workers' first requests.
        #[test]
        fn shares_begin_in_turns(weights in prop::collection::vec(1u64..50, 1..6), at in 0u64..20_000_000_000) {
            let rate = 10.0;
            let shares = split(&limit(rate, 1), &weights);
            let due = |share: &ThrottleShare| {
                (at + 1).saturating_sub(share.first).div_ceil(interval(rate, share.parts))
            };
            let count: u64 = shares.iter().map(due).sum();
            let planned = rate * at as f64 / 1e9;
            prop_assert!(count as f64 <= planned + 1.0 + weights.len() as f64 / 2.0, "{} {}", count, planned);
        }
    }

    #[test]
    fn equal_shares_make_one_even_stream() {
        let shares = split(&limit(10.0, 4), &[1, 1, 1, 1]);
        assert_eq!(shares.iter().map(|s| s.first / 1_000_000).collect::<Vec<_>>(), [0, 100, 200, 300]);
        assert_eq!(split(&limit(10.0, 1), &[0, 0])[0].parts, PARTS, "nobody has users: one holds it");
        assert_eq!(interval(10.0, 0), u64::MAX);
        assert_eq!(interval(10.0, PARTS), 100_000_000);
    }
}
