//! The rate that a name should have had in the second run: see [`super`].

use super::evidence::{Evidence, NameEvidence, Scenario};

/// Rate of the name in the second run, had only response times changed; `None` where nothing is
/// known of who paced it.
pub(super) fn expected(a: &Evidence, b: &Evidence, one: &NameEvidence, other: &NameEvidence) -> Option<f64> {
    let (a_scenario, b_scenario) = (a.scenario_of(one)?, b.scenario_of(other)?);
    let had = one.rate(a);
    if a_scenario.open && b_scenario.open {
        return Some(had);
    }
    if a_scenario.open != b_scenario.open {
        // another model: the plain comparison is all there is
        return Some(had);
    }
    let (before, after) = (flow(a, a_scenario)?, flow(b, b_scenario)?);
    // pauses and work between requests, per request
    let pause = (a_scenario.users / before.rate - before.response_s).max(0.0);
    let explained = a_scenario.users / (after.response_s + pause);
    Some(had * explained / before.rate)
}

/// Requests of one scenario.
struct Flow {
    rate: f64,
    response_s: f64,
}

fn flow(run: &Evidence, scenario: &Scenario) -> Option<Flow> {
    let names = || run.names.values().filter(|name| name.scenario.as_deref() == Some(&scenario.name));
    let count = names().map(|name| name.response.count()).sum::<u64>() as f64;
    let sum_us = names().map(|name| name.response.sum()).sum::<u64>() as f64;
    (count > 0.0 && run.seconds > 0.0).then(|| Flow { rate: count / run.seconds, response_s: sum_us / count / 1e6 })
}
