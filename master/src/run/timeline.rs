//! The run second by second: what was planned, what happened.

use super::result::ms;
use super::{Measured, TimelineRow};
use ld_shared::load::Load;
use ld_shared::plan::Plan;
use ld_shared::time::RunTime;
use serde::Serialize;
use std::collections::BTreeMap;

/// One second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Second {
    /// Run-clock second, from 0.
    pub second: u32,
    /// Seconds that it stands for, where that is more than one: counts are of all of them, users and rates
    /// are averages.
    #[serde(skip_serializing_if = "is_one")]
    pub seconds: u32,
    /// Users, on average over the second (open model: open iterations).
    pub users: f64,
    /// Users that the plan has, on average; `null` without a closed-model scenario.
    pub planned_users: Option<f64>,
    /// Iterations per second that the plan has due; `null` without an open-model scenario.
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_one(seconds: &u32) -> bool {
    *seconds == 1
}

impl Second {
    /// The second behind those that it stands for.
    pub fn end(&self) -> u32 {
        self.second + self.seconds
    }

    /// What is left of it without its first seconds, which were told already. Its percentiles stay those
    /// of the whole.
    #[must_use]
    pub fn without(self, told: &[Self]) -> Self {
        let Some(last) = told.last() else { return self };
        let left = self.end() - last.end();
        let average = |whole: f64, part: fn(&Self) -> f64| {
            let told: f64 = told.iter().map(|second| part(second) * f64::from(second.seconds)).sum();
            (whole * f64::from(self.seconds) - told).max(0.0) / f64::from(left)
        };
        let count = |whole: u64, part: fn(&Self) -> u64| whole.saturating_sub(told.iter().map(part).sum());
        Self {
            second: last.end(),
            seconds: left,
            users: average(self.users, |s| s.users),
            planned_users: self.planned_users.map(|planned| average(planned, |s| s.planned_users.unwrap_or(0.0))),
            planned_rate: self.planned_rate.map(|planned| average(planned, |s| s.planned_rate.unwrap_or(0.0))),
            started: count(self.started, |s| s.started),
            succeeded: count(self.succeeded, |s| s.succeeded),
            failed: count(self.failed, |s| s.failed),
            ..self
        }
    }
}

/// Every second from 0 to the last in which anything happened.
pub fn of(measured: &Measured) -> Vec<Second> {
    let to = measured.timeline.keys().next_back().map_or(0, |last| last + 1);
    let plan = measured.plan.with(&measured.program);
    listed(&measured.timeline, &plan, (0, to), RunTime::from_secs(measured.duration_s))
}

/// The seconds from `from` (where a row begins) to `to`, of a run by `plan` that goes on.
pub fn seconds(rows: &BTreeMap<u32, TimelineRow>, plan: &Plan, from: u32, to: u32) -> Vec<Second> {
    listed(rows, plan, (from, to), plan.end())
}

fn listed(rows: &BTreeMap<u32, TimelineRow>, plan: &Plan, (from, to): (u32, u32), end: RunTime) -> Vec<Second> {
    let empty = TimelineRow::default();
    // seconds without a row are quiet ones, unless a merged row stands for them
    let mut covered_to = 0;
    let mut seconds = Vec::with_capacity(to.saturating_sub(from) as usize);
    for second in from..to {
        let row = rows.get(&second);
        if let Some(row) = row {
            covered_to = second + row.seconds;
        } else if second < covered_to {
            continue;
        }
        seconds.push(one(second, row.unwrap_or(&empty), plan, end));
    }
    seconds
}

fn one(second: u32, row: &TimelineRow, plan: &Plan, end: RunTime) -> Second {
    let (response, span) = (&row.response, (second, row.seconds));
    Second {
        second,
        seconds: row.seconds,
        users: row.row.user_ms as f64 / 1e3 / f64::from(row.seconds),
        planned_users: planned(plan, span, end, |load| matches!(load, Load::Closed(_))),
        planned_rate: planned(plan, span, end, |load| matches!(load, Load::Open(_))),
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

/// Average of the profiles of some scenarios over a span, nothing being planned behind the end of the run.
fn planned(plan: &Plan, (second, seconds): (u32, u32), end: RunTime, wanted: impl Fn(&Load) -> bool) -> Option<f64> {
    let from = RunTime::from_secs(f64::from(second)).min(end);
    let to = RunTime::from_secs(f64::from(second) + f64::from(seconds)).min(end);
    let profiles = plan.scenarios.iter().map(|s| &s.load).filter(|load| wanted(load)).map(Load::profile);
    let sum = profiles.map(|profile| profile.integral(to) - profile.integral(from)).reduce(|a, b| a + b);
    sum.map(|sum| sum / f64::from(seconds))
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
        // percentiles of a longer span do not hide a quiet second; a row of two seconds stands for both
        let merged = |measured: &mut Measured| measured.timeline.get_mut(&2).unwrap().coarse = Some(2);
        merged(&mut measured);
        assert!(of(&measured).iter().any(|s| s.second == 3));
        let [one, next] = [2, 3].map(|second| of(&measured)[second].clone());
        measured.timeline.get_mut(&2).unwrap().seconds = 2;
        let seconds = of(&measured);
        assert!(seconds.iter().all(|s| s.second != 3));
        let two = &seconds[2];
        assert_eq!((two.seconds, two.started, two.users), (2, one.started, one.users / 2.0));
        let planned = [one, next].map(|second| second.planned_rate.unwrap());
        assert_eq!(two.planned_rate, Some(f64::midpoint(planned[0], planned[1])));
    }

    #[test]
    fn a_row_of_which_the_first_second_was_told() {
        let measured = fixture::measured();
        let first = of(&measured)[4].clone();
        let whole = Second { seconds: 3, started: first.started + 7, users: 5.0, coarse: Some(3), ..first.clone() };
        let rest = whole.clone().without(std::slice::from_ref(&first));
        assert_eq!((rest.second, rest.seconds, rest.started), (5, 2, 7));
        assert!((rest.users * 2.0 + first.users - 15.0).abs() < 1e-9);
        assert_eq!(whole.clone().without(&[]), whole);
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
