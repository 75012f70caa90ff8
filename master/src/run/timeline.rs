//! The run second by second: what was planned, what happened.

use super::result::ms;
use super::{Measured, TimelineRow};
use ld_shared::load::Load;
use ld_shared::plan::Plan;
use ld_shared::time::RunTime;
use serde::Serialize;

/// One second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Second {
    /// Run-clock second, from 0.
    pub second: u32,
    /// Users, on average over the second (open model: open iterations).
    pub users: f64,
    /// Users that the plan has, on average; `null` without a closed-model scenario.
    pub planned_users: Option<f64>,
    /// Iterations that the plan has due; `null` without an open-model scenario.
    pub planned_rate: Option<f64>,
    /// Requests started.
    pub started: u64,
    /// Requests ended with success.
    pub succeeded: u64,
    /// Requests ended with failure.
    pub failed: u64,
    /// Mean response time of what ended.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The generator, not the target, was the limit.
    pub generator_bound: bool,
    /// Percentiles describe a span of so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coarse: Option<u32>,
    /// After the planned end: answers to what was open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
}

/// Every second from 0 to the last in which anything happened.
pub fn of(measured: &Measured) -> Vec<Second> {
    let Some(last) = measured.timeline.keys().next_back() else {
        return Vec::new();
    };
    let end = RunTime::from_secs(measured.duration_s);
    let empty = TimelineRow::default();
    let plan = measured.plan.with(&measured.program);
    // seconds without a row are quiet ones, unless a merged row stands for them
    let mut covered_to = 0;
    let mut seconds = Vec::with_capacity(*last as usize + 1);
    for second in 0..=*last {
        let row = measured.timeline.get(&second);
        if let Some(row) = row {
            covered_to = second + row.coarse.unwrap_or(1);
        } else if second < covered_to {
            continue;
        }
        seconds.push(one(second, row.unwrap_or(&empty), &plan, end));
    }
    seconds
}

fn one(second: u32, row: &TimelineRow, plan: &Plan, end: RunTime) -> Second {
    let response = &row.response;
    Second {
        second,
        users: row.row.user_ms as f64 / 1e3,
        planned_users: planned(plan, second, end, |load| matches!(load, Load::Closed(_))),
        planned_rate: planned(plan, second, end, |load| matches!(load, Load::Open(_))),
        started: row.row.requests_started,
        succeeded: row.row.succeeded,
        failed: row.row.failed,
        mean_ms: response.mean() / 1e3,
        p50_ms: ms(response.percentile(50.0)),
        p95_ms: ms(response.percentile(95.0)),
        p99_ms: ms(response.percentile(99.0)),
        generator_bound: row.row.bound_cores > 0,
        coarse: row.coarse,
        drain: row.drain,
    }
}

/// Integral of the profiles of some scenarios over one second, up to the end of the run.
fn planned(plan: &Plan, second: u32, end: RunTime, wanted: impl Fn(&Load) -> bool) -> Option<f64> {
    let from = RunTime::from_secs(f64::from(second)).min(end);
    let to = RunTime::from_secs(f64::from(second) + 1.0).min(end);
    let profiles = plan.scenarios.iter().map(|s| &s.load).filter(|load| wanted(load)).map(Load::profile);
    profiles.map(|profile| profile.integral(to) - profile.integral(from)).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;
    use ld_shared::sample::Phase;

    #[test]
    fn quiet_seconds_have_rows_and_merged_ones_have_one() {
        let mut measured = fixture::measured();
        measured.timeline.remove(&3);
        assert!(of(&measured).iter().any(|s| s.second == 3 && s.started == 0));
        measured.timeline.get_mut(&2).unwrap().coarse = Some(2);
        assert!(of(&measured).iter().all(|s| s.second != 3));
    }

    #[test]
    fn sums_over_the_timeline_are_the_totals() {
        let measured = fixture::measured();
        let seconds = of(&measured);
        let phases = &measured.total.phases[..Phase::LEAST];
        assert_eq!(
            seconds.iter().map(|s| s.succeeded).sum::<u64>(),
            phases.iter().map(ld_shared::snapshot::PhaseSnapshot::succeeded).sum::<u64>()
        );
        assert_eq!(
            seconds.iter().map(|s| s.started).sum::<u64>(),
            measured.odometers.of_requests().iter().map(|p| p.requests_started).sum::<u64>()
        );
    }
}
