//! A run's rules, held against it: once with every second, once without those in which the
//! generator was the limit.

use super::Measured;
use super::conservation::sent;
use super::verdict::Threshold as Judged;
use crate::format;
use ld_shared::sample::Phase;
use ld_shared::snapshot::Row;
use ld_shared::threshold::{Facts, Threshold};

/// Judges each rule.
pub fn judge(rules: &[Threshold], measured: &Measured) -> Vec<Judged> {
    let (all, unmarked) = (all(measured), unmarked(measured));
    let one = |rule: &Threshold| {
        let seen = rule.evaluate(&all);
        let samples = measured.total.phase(Phase::Main).succeeded() + measured.total.phase(Phase::Main).failed();
        Judged {
            rule: rule.rule().to_owned(),
            observed: (samples > 0).then_some(seen.value),
            ok: seen.ok,
            ok_unmarked: unmarked.as_ref().map_or(seen.ok, |facts| rule.evaluate(facts).ok),
            about_failures: rule.names_failures(),
            seen: if samples > 0 { text(rule.rule(), seen.value) } else { "no samples".into() },
        }
    };
    rules.iter().map(one).collect()
}

fn all(measured: &Measured) -> Facts<'_> {
    let counted = measured.odometers.phase(Phase::Main);
    Facts {
        main: measured.total.phase(Phase::Main),
        started: sent(counted),
        due: counted.due,
        dropped: counted.dropped.iter().sum(),
        seconds: measured.main_seconds(),
    }
}

/// The same of the seconds without a mark; `None` if no second has one.
fn unmarked(measured: &Measured) -> Option<Facts<'_>> {
    let main = |second: u32| f64::from(second) >= measured.plan.warmup.as_secs();
    let window: Vec<&Row> =
        measured.timeline.iter().filter(|(s, r)| main(**s) && !r.drain).map(|(_, r)| &r.row).collect();
    let sound: Vec<&&Row> = window.iter().filter(|row| row.bound_cores == 0).collect();
    if sound.len() == window.len() {
        return None;
    }
    let dropped: u64 = sound.iter().flat_map(|row| row.dropped).sum();
    Some(Facts {
        main: measured.unmarked.phase(Phase::Main),
        started: sound.iter().map(|row| row.requests_started).sum(),
        due: sound.iter().map(|row| row.iterations).sum::<u64>() + dropped,
        dropped,
        seconds: sound.len() as f64,
    })
}

/// What a rule saw, in the unit of its metric.
fn text(rule: &str, value: f64) -> String {
    let metric: String = rule.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match metric.as_str() {
        "failure_rate" => format::percent(value),
        "dropped" if rule.contains('%') => format::percent(value),
        "count" | "failures" | "dropped" => format::count(value as u64),
        "rate" => format!("{}/s", format::rate(value)),
        _ => format::latency(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    #[test]
    fn marked_seconds_are_left_out_once() {
        let mut measured = fixture::measured();
        let with = all(&measured);
        let without = unmarked(&measured).unwrap();
        assert!((with.seconds - 10.0).abs() < 1e-9 && (without.seconds - 9.0).abs() < 1e-9);
        assert_eq!(without.started, with.started - measured.timeline[&9].row.requests_started);
        measured.timeline.values_mut().for_each(|r| r.row.bound_cores = 0);
        assert!(unmarked(&measured).is_none());
    }

    #[test]
    fn what_was_seen_reads_like_its_rule() {
        let rules = [("p95 < 200ms", 183.0), ("failure_rate < 1%", 0.021), ("rate > 100/s", 95.2), ("count > 5", 1e4)];
        assert_eq!(rules.map(|(rule, value)| text(rule, value)), ["183 ms", "2.10 %", "95.2/s", "10,000"]);
    }
}
