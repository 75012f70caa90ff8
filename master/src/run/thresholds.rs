//! A run's rules, held against it: once with every second, once without those in which the
//! generator was the limit.
//!
//! Rules with windows were judged while the run went on ([`crate::cluster::rule_watch`]).

use super::conservation::sent;
use super::verdict::Threshold as Judged;
use super::{Measured, TimelineRow};
use crate::cluster::rule_watch::{Seen, Watched};
use crate::format;
use ld_shared::sample::Phase;

use ld_shared::threshold::{Observed, Threshold, Unit, Work};

/// Judges each rule.
pub fn judge(rules: &[Threshold], measured: &Measured) -> Vec<Judged> {
    let unmarked = Unmarked::of(measured);
    let nothing = Watched::default();
    let watched = |index: usize| measured.watched.get(index).unwrap_or(&nothing);
    rules.iter().enumerate().map(|(index, rule)| one(rule, watched(index), measured, unmarked.as_ref())).collect()
}

fn one(rule: &Threshold, watched: &Watched, measured: &Measured, unmarked: Option<&Unmarked>) -> Judged {
    let whole = rule.judge_run(&rule.tally(measured.total.phase(Phase::Main), work(measured)), measured.main_seconds());
    let mut judged = Judged {
        rule: rule.rule().to_owned(),
        observed: whole.value,
        ok: whole.ok,
        ok_unmarked: whole.ok,
        about_failures: rule.names_failures(),
        seen: seen(rule, whole.value),
        ..Judged::default()
    };
    match (rule.over(), &watched.worst) {
        (Some(_), Some(worst)) if whole.value.is_some() => {
            judged.ok = worst.observed.ok;
            // windows that are all marked decide nothing
            judged.ok_unmarked = watched.ok_unmarked.unwrap_or(!judged.ok);
            judged.show(rule, worst);
        }
        (Some(_), _) => {
            (judged.ok, judged.ok_unmarked, judged.observed) = (false, false, None);
            if whole.value.is_some() {
                judged.seen = "no full window".into();
            }
        }
        (None, _) => {
            if let Some(unmarked) = unmarked {
                judged.ok_unmarked = unmarked.judge(rule, measured).ok;
            }
        }
    }
    if let Some((seen, at)) = &watched.aborted {
        // what came after the breach, answers to what was open, does not undo it
        (judged.ok, judged.ok_unmarked, judged.aborted_at_s) = (false, false, Some(at.as_secs()));
        if rule.over().is_none() {
            judged.show(rule, seen);
        }
    }
    judged
}

impl Judged {
    fn show(&mut self, rule: &Threshold, worst: &Seen) {
        self.observed = worst.observed.value;
        self.seen = format!("{} at {}", seen(rule, worst.observed.value), span(worst));
        (self.worst_from_s, self.worst_to_s) = (Some(f64::from(worst.from)), Some(f64::from(worst.to)));
    }
}

/// What was to be done in the main phase.
fn work(measured: &Measured) -> Work {
    let counted = measured.odometers.phase(Phase::Main);
    Work { started: sent(counted), due: counted.due, dropped: counted.dropped.iter().sum() }
}

/// The main window without the seconds that have a mark.
#[derive(Debug)]
struct Unmarked {
    work: Work,
    seconds: f64,
}

impl Unmarked {
    /// `None` if no second has one.
    fn of(measured: &Measured) -> Option<Self> {
        let main = |second: u32| f64::from(second) >= measured.plan.warmup.as_secs();
        let window: Vec<&TimelineRow> =
            measured.timeline.iter().filter(|(s, r)| main(**s) && !r.drain).map(|(_, r)| r).collect();
        let sound: Vec<&&TimelineRow> = window.iter().filter(|row| row.row.bound_cores == 0).collect();
        if sound.len() == window.len() {
            return None;
        }
        let dropped: u64 = sound.iter().flat_map(|row| row.row.dropped).sum();
        let work = Work {
            started: sound.iter().map(|row| row.row.requests_started).sum(),
            due: sound.iter().map(|row| row.row.iterations).sum::<u64>() + dropped,
            dropped,
        };
        Some(Self { work, seconds: sound.iter().map(|row| f64::from(row.seconds)).sum() })
    }

    fn judge(&self, rule: &Threshold, measured: &Measured) -> Observed {
        rule.judge_run(&rule.tally(measured.unmarked.phase(Phase::Main), self.work), self.seconds)
    }
}

/// What a rule saw, in the unit of its metric.
pub(crate) fn seen(rule: &Threshold, value: Option<f64>) -> String {
    let Some(value) = value else { return "no samples".into() };
    match rule.unit() {
        Unit::Millis => format::latency(value),
        Unit::PerSecond => format!("{}/s", format::rate(value)),
        Unit::Share => format::percent(value),
        Unit::Number => format::count(value as u64),
    }
}

/// A span of the run, as people read it: `12–22 s`.
pub(crate) fn span(seen: &Seen) -> String {
    format!("{}–{} s", seen.from, seen.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;
    use ld_shared::time::RunTime;

    fn rule(text: &str) -> Threshold {
        Threshold::parse(text).unwrap()
    }

    fn window(from: u32, value: Option<f64>, ok: bool) -> Seen {
        Seen { from, to: from + 5, observed: Observed { value, ok } }
    }

    #[test]
    fn marked_seconds_are_left_out_once() {
        let mut measured = fixture::measured();
        let without = Unmarked::of(&measured).unwrap();
        assert!((measured.main_seconds() - 10.0).abs() < 1e-9 && (without.seconds - 9.0).abs() < 1e-9);
        assert_eq!(without.work.started, work(&measured).started - measured.timeline[&9].row.requests_started);
        measured.timeline.values_mut().for_each(|r| r.row.bound_cores = 0);
        assert!(Unmarked::of(&measured).is_none());
    }

    #[test]
    fn what_was_seen_reads_like_its_rule() {
        let rules = [("p95 < 200ms", 183.0), ("failure_rate < 1%", 0.021), ("rate > 100/s", 95.2), ("count > 5", 1e4)];
        let texts = rules.map(|(text, value)| seen(&rule(text), Some(value)));
        assert_eq!(texts, ["183 ms", "2.10 %", "95.2/s", "10,000"]);
    }

    #[test]
    fn windows_say_when_they_were_worst() {
        let mut measured = fixture::measured();
        let rules = [rule("p95 < 200ms over 5s"), rule("p95 < 200ms over 1h"), rule("p95 < 1s for name:no over 5s")];
        let worst = |value, ok| Some(window(4, value, ok));
        let watched = |worst, ok_unmarked| Watched { worst, ok_unmarked, aborted: None };
        measured.watched =
            vec![watched(worst(Some(812.0), false), Some(true)), Watched::default(), watched(worst(None, false), None)];
        let judged = judge(&rules, &measured);
        let texts: Vec<(&str, bool, bool)> = judged.iter().map(|j| (&*j.seen, j.ok, j.ok_unmarked)).collect();
        assert_eq!(
            texts,
            [("812 ms at 4–9 s", false, true), ("no full window", false, false), ("no samples", false, false)]
        );
        assert_eq!((judged[0].worst_from_s, judged[0].worst_to_s), (Some(4.0), Some(9.0)));
        measured.watched[0].ok_unmarked = None;
        assert!(judge(&rules, &measured)[0].ok_unmarked, "every window is marked: neither way decided");
    }

    #[test]
    fn a_rule_that_ended_the_test_failed_whatever_came_after() {
        let mut measured = fixture::measured();
        let rules = [rule("p95 < 100s")];
        assert!(judge(&rules, &measured)[0].ok);
        let aborted = Some((window(2, Some(2e5), false), RunTime::from_secs(7.25)));
        measured.watched = vec![Watched { aborted, ..Watched::default() }];
        let judged = &judge(&rules, &measured)[0];
        assert_eq!((judged.ok, judged.ok_unmarked, judged.aborted_at_s), (false, false, Some(7.25)));
        assert_eq!(judged.seen, "3 min 20 s at 2–7 s");
    }
}
