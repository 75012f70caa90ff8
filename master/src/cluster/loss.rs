//! What a worker that died may have done, and nobody will know: an upper bound. Pure.
//!
//! Known of it are E, the requests whose end stands in counted frames, and H, its starts by its
//! newest report at run time `t_H`. It may have started more until `t_x`, when its connection ended
//! or, if it fell silent, its lease.

use super::assign::own_due;
use super::handover::Tenures;
use ld_shared::load::Load;
use ld_shared::plan::{Mode, Plan, RetryPlan, ScenarioPlan, TaskPlan};
use ld_shared::time::{RunTime, SECOND};

/// What is known of a dead session.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// E: requests whose end is counted.
    pub settled: u64,
    /// H: requests started by the newest report.
    pub started: u64,
    /// Iterations started or dropped by the newest report.
    pub iterations: u64,
    /// Iterations taken up as due by the newest report: those beyond `iterations` wait for a ticket, a
    /// row or a limit, however long that takes.
    pub taken: u64,
    /// Run time of the newest report.
    pub reported_at: RunTime,
    /// `t_x`: it started nothing later.
    pub until: RunTime,
    /// Highest rate of starts between two reports, per second.
    pub top_rate: f64,
    /// Most users or open iterations that were reported.
    pub users: u64,
}

/// Arrivals that were due in `[from, to)` on what a session owned then.
pub fn due(plan: &Plan, tenures: &Tenures, from: RunTime, to: RunTime) -> u64 {
    let owned = tenures.within(from, to);
    owned.map(|(from, to, lanes)| plan.scenarios.iter().map(|s| own_due(plan, s, lanes, from, to)).sum::<u64>()).sum()
}

/// Requests whose end nobody knows, at most.
pub fn bound(plan: &Plan, tenures: &Tenures, known: &Known) -> u64 {
    let certain = known.started.saturating_sub(known.settled);
    if known.until <= known.reported_at {
        return certain;
    }
    let single = plan.scenarios.iter().all(|s| matches!(s.load, Load::Open(_)) && one_request(s));
    if single {
        let due = |from, to| due(plan, tenures, from, to);
        let backlog = waiting(known) + untaken(plan, tenures, known);
        // the newest arrival may have been counted as an iteration and not yet as a request
        let begun = known.iterations.saturating_sub(known.started).min(known.users);
        // `until` itself is included, hence one nanosecond more
        return certain + backlog + begun + due(known.reported_at, RunTime(known.until.0.saturating_add(1)));
    }
    let seconds = RunTime(known.until.0 - known.reported_at.0).as_secs();
    let users = plan.scenarios.iter().map(|s| own_users(plan, s, tenures, known)).sum::<u64>();
    certain + users + (2.0 * known.top_rate * seconds).ceil() as u64
}

/// Arrivals that were taken up by the report, and had neither started nor been dropped.
fn waiting(known: &Known) -> u64 {
    known.taken.saturating_sub(known.iterations)
}

/// Arrivals that were due before the report, not taken up then, and not yet too late for it afterwards.
fn untaken(plan: &Plan, tenures: &Tenures, known: &Known) -> u64 {
    let second_before = RunTime(known.reported_at.0.saturating_sub(SECOND));
    let late = due(plan, tenures, RunTime(0), known.reported_at).saturating_sub(known.iterations.max(known.taken));
    late.min(due(plan, tenures, second_before, known.reported_at))
}

/// Requests of hooks among those whose end nobody knows and that the newest report, which has `begun` of
/// them, does not have: at most. They may be users' first requests, and at the end of the plan their last.
pub fn hooks(plan: &Plan, tenures: &Tenures, known: &Known, begun: u64) -> u64 {
    if known.until <= known.reported_at {
        return 0;
    }
    let each = |s: &ScenarioPlan| {
        let stops = if known.until < plan.end() { &[][..] } else { &s.on_stop[..] };
        let steps = s.on_start.iter().chain(stops);
        let tries = |task: &TaskPlan| {
            let of = |retry: &RetryPlan| retry.transient.max(retry.flaky).max(retry.permanent);
            1 + task.retry.as_ref().map_or(0, |retry| u64::from(of(retry)))
        };
        steps.map(tries).sum::<u64>()
    };
    let all = plan.scenarios.iter().map(|s| own_users(plan, s, tenures, known).saturating_mul(each(s))).sum::<u64>();
    // of several tenures nobody knows to whose users the requests that began belong
    let only = tenures.within(RunTime(0), known.reported_at).count() <= 1;
    if only { all.saturating_sub(begun) } else { all }
}

/// Whether an iteration is one request, and all that its user does are iterations.
fn one_request(scenario: &ScenarioPlan) -> bool {
    let hooks = !scenario.on_start.is_empty() || !scenario.on_stop.is_empty();
    let again = scenario.tasks.iter().any(|task| task.retry.is_some());
    (scenario.mode == Mode::Weighted || scenario.tasks.len() <= 1) && !hooks && !again
}

fn own_users(plan: &Plan, scenario: &ScenarioPlan, tenures: &Tenures, known: &Known) -> u64 {
    let owned = tenures.within(known.reported_at, known.until);
    match &scenario.load {
        Load::Closed(load) => {
            let peak = load.peak(known.until.min(plan.end()));
            owned.map(|(.., l)| l.count_between(scenario.first_number, scenario.first_number + peak)).sum()
        }
        Load::Open(_) => known.users + owned.map(|(from, to, l)| own_due(plan, scenario, l, from, to)).sum::<u64>(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::assign::tests::{closed, open, plan, task};
    use super::super::handover::Part;
    use super::*;
    use ld_shared::id::Epoch;
    use ld_shared::lanes::LaneSet;
    use ld_shared::load::Arrivals;

    #[test]
    fn hooks_that_may_have_begun() {
        let known = Known {
            settled: 0,
            started: 5,
            iterations: 0,
            taken: 0,
            reported_at: RunTime::from_secs(0.2),
            until: RunTime::from_secs(0.5),
            top_rate: 100.0,
            users: 5,
        };
        let full = Part { lanes: LaneSet::full(), caps: Vec::new() };
        let once = Tenures::first(full.clone());
        let mut plan = plan(vec![closed(20.0)]);
        assert_eq!(hooks(&plan, &once, &known, 0), 0);
        let step = task();
        plan.scenarios[0].on_start = vec![step.clone()];
        plan.scenarios[0].on_stop = vec![step];
        // 20 log in, 5 of whom are known to have begun
        assert_eq!(hooks(&plan, &once, &known, 5), 15);
        assert_eq!(hooks(&plan, &once, &known, 20), 0);
        assert_eq!(hooks(&plan, &once, &Known { until: known.reported_at, ..known }, 5), 0);
        // at its end they log out too
        let end = Known { reported_at: plan.end(), until: RunTime(plan.end().0 + SECOND), ..known };
        assert_eq!(hooks(&plan, &once, &end, 20), 20);
        // lanes that came back bring new users
        let mut again = once;
        again.change(Epoch(2), RunTime::from_secs(0.1), Part::default());
        again.change(Epoch(3), RunTime::from_secs(0.15), full);
        assert_eq!(hooks(&plan, &again, &known, 20), 20);
    }

    #[test]
    fn bounds_by_model() {
        let known = Known {
            settled: 90,
            started: 100,
            iterations: 100,
            taken: 100,
            reported_at: RunTime::from_secs(1.0),
            until: RunTime::from_secs(1.5),
            top_rate: 100.0,
            users: 3,
        };
        let full = Tenures::first(Part { lanes: LaneSet::full(), caps: Vec::new() });
        // 10 certain, 20 users, 2 · 100/s · 0.5 s
        assert_eq!(bound(&plan(vec![closed(20.0)]), &full, &known), 10 + 20 + 100);
        // 10 certain, arrivals due at 1.00, 1.01, .., 1.50
        let open = plan(vec![open(100.0, Arrivals::Constant, 1_000)]);
        assert_eq!(bound(&open, &full, &known), 10 + 51);
        // 7 of those due had not been started at the report
        let late = Known { started: 93, iterations: 93, taken: 93, settled: 93, ..known };
        assert_eq!(bound(&open, &full, &late), 7 + 51);
        // of 300 due in 3 s 120 wait for rows since longer than a second: each may still start
        let later = Known { reported_at: RunTime::from_secs(3.0), until: RunTime::from_secs(3.5), ..known };
        let stuck = Known { started: 180, iterations: 180, taken: 300, settled: 180, ..later };
        assert_eq!(bound(&open, &full, &stuck), 120 + 51);
        // and of 120 that were not even taken up all but the last second's are too late
        let frozen = Known { taken: 180, ..stuck };
        assert_eq!(bound(&open, &full, &frozen), 100 + 51);
        assert_eq!(bound(&open, &full, &Known { until: known.reported_at, ..known }), 10);
    }
}
