//! What a run is worth: outcome, exit code, and the reasons.

use super::conservation::Conservation;
use super::{Ending, Measured};
use crate::format;
use ld_shared::sample::Phase;
use ld_shared::snapshot::PhaseSnapshot;
use serde::Serialize;

/// How a run was judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// The exit code that says so.
    pub exit_code: u8,
    /// Why, and warnings, most important first.
    pub reasons: Vec<String>,
    /// Each rule.
    pub thresholds: Vec<Threshold>,
}

/// One pass-fail rule, judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Threshold {
    /// As the document has it.
    pub rule: String,
    /// What was seen, in the rule's unit, with windows in the worst of them; `null` without samples.
    pub observed: Option<f64>,
    /// Whether it holds.
    pub ok: bool,
    /// Run time at which the worst window begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_from_s: Option<f64>,
    /// Run time at which it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_to_s: Option<f64>,
    /// Run time at which it ended the test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted_at_s: Option<f64>,
    /// Whether it holds without the seconds in which the generator was the limit.
    #[serde(skip)]
    pub ok_unmarked: bool,
    /// The rule is about failures, so that failed requests alone don't fail the run.
    #[serde(skip)]
    pub about_failures: bool,
    /// What was seen, for people: `183 ms`, with windows `183 ms at 12–22 s`.
    #[serde(skip)]
    pub seen: String,
}

impl Threshold {
    /// Whether it could not be judged: the generator was the limit all the time, or the outcome
    /// hangs on the seconds in which it was.
    pub fn is_unsure(&self, measured: &Measured) -> bool {
        Marks::of(measured).all || self.ok != self.ok_unmarked
    }
}

/// The outcome of a run, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every rule holds.
    Passed,
    /// The generator, not the target, was the limit: the rules could not be judged.
    Inconclusive,
    /// A rule does not hold, or requests or actions failed.
    Failed,
    /// The input was refused, or the run could not be carried out.
    Error,
    /// Ended by the user.
    Aborted,
}

impl Outcome {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Inconclusive => "inconclusive",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Aborted => "aborted",
        }
    }
}

/// Exit codes, and which of two is the worse.
pub mod exit {
    /// Passed.
    pub const PASSED: u8 = 0;
    /// A threshold or an action failed, or requests did and no threshold names failures.
    pub const FAILED: u8 = 1;
    /// The input was refused, nothing was run.
    pub const REFUSED: u8 = 2;
    /// Could not run.
    pub const NOT_RUN: u8 = 3;
    /// The generator, not the target, was the limit.
    pub const INCONCLUSIVE: u8 = 4;
    /// Ended by the user.
    pub const ENDED_BY_USER: u8 = 130;

    /// The code that holds first: 130, 3, 2, 1, 4, 0.
    pub fn worse(a: u8, b: u8) -> u8 {
        let rank =
            |code| [ENDED_BY_USER, NOT_RUN, REFUSED, FAILED, INCONCLUSIVE, PASSED].iter().position(|c| *c == code);
        if rank(a) <= rank(b) { a } else { b }
    }
}

impl Verdict {
    /// Nothing has run, and nothing is wrong.
    pub fn nothing() -> Self {
        Self::new(exit::PASSED, Vec::new(), Vec::new())
    }

    /// With the outcome that an exit code stands for.
    pub fn new(exit_code: u8, reasons: Vec<String>, thresholds: Vec<Threshold>) -> Self {
        let outcome = match exit_code {
            exit::PASSED => Outcome::Passed,
            exit::FAILED => Outcome::Failed,
            exit::INCONCLUSIVE => Outcome::Inconclusive,
            exit::ENDED_BY_USER => Outcome::Aborted,
            _ => Outcome::Error,
        };
        Self { outcome, exit_code, reasons, thresholds }
    }

    /// Judges a run by its rules.
    pub fn of(measured: &Measured, thresholds: Vec<Threshold>) -> Self {
        let main = measured.total.phase(Phase::Main);
        let marks = Marks::of(measured);
        let mut code = exit::PASSED;
        let mut reasons = Vec::new();
        let mut found = |new: u8, reason: String| {
            code = exit::worse(code, new);
            reasons.push(reason);
        };
        match &measured.ending {
            Ending::Failed(what) => found(exit::NOT_RUN, what.clone()),
            Ending::Stopped if measured.plan.test_time.is_some() => {
                found(exit::ENDED_BY_USER, format!("ended by the user after {:.1} s", measured.duration_s));
            }
            Ending::Stopped | Ending::Breached | Ending::Completed => {}
        }
        // whoever asks why the test ended reads the answer first
        for threshold in thresholds.iter().filter(|threshold| threshold.aborted_at_s.is_some()) {
            let Threshold { rule, seen, aborted_at_s, .. } = threshold;
            let at = aborted_at_s.unwrap_or_default();
            found(exit::FAILED, format!("`{rule}` does not hold: {seen}; it aborted the test at {at:.1} s"));
        }
        if measured.ending == Ending::Breached && thresholds.iter().all(|threshold| threshold.aborted_at_s.is_none()) {
            // seen by a master that was killed before the end; its event names the rule
            found(exit::FAILED, format!("a rule aborted the test at {:.1} s: see the events", measured.duration_s));
        }
        for threshold in thresholds.iter().filter(|threshold| threshold.aborted_at_s.is_none()) {
            let Threshold { rule, seen, .. } = threshold;
            if marks.all || threshold.ok != threshold.ok_unmarked {
                let text =
                    format!("`{rule}` could not be judged: the generator was the limit in {marks} (seen: {seen})");
                found(exit::INCONCLUSIVE, text);
            } else if !threshold.ok {
                found(exit::FAILED, format!("`{rule}` does not hold: {seen}"));
            }
        }
        let (failed, ended) = (main.failed(), main.failed() + main.succeeded());
        if failed > 0 && !thresholds.iter().any(|t| t.about_failures) {
            let [failed, ended] = [failed, ended].map(format::count);
            found(exit::FAILED, format!("{failed} of {ended} requests failed"));
        }
        let hooks = measured.total.phase(Phase::Hooks);
        if !Conservation::holds(measured) {
            let main = Conservation::of_main(measured);
            let text = format!(
                "counts don't add up: {} requests started, {} known to have ended, be in flight or be lost; the numbers can't be trusted",
                main.requests_started,
                main.succeeded + main.failed + main.in_flight + main.lost
            );
            found(exit::NOT_RUN, text);
        }
        if ended == 0 && measured.odometers.phase(Phase::Main).requests_started == 0 && thresholds.is_empty() {
            reasons.push("warning: no request was started".into());
        }
        if hooks.failed() > 0 {
            let [failed, ended] = [hooks.failed(), hooks.failed() + hooks.succeeded()].map(format::count);
            reasons.push(format!("warning: {failed} of {ended} requests of hooks failed{}", most_often(hooks)));
        }
        let unsure = thresholds.is_empty() || measured.ending == Ending::Breached;
        if marks.marked > 0 && unsure {
            reasons.push(format!("warning: the generator, not the target, was the limit in {marks}"));
        }
        Self::new(code, reasons, thresholds)
    }
}

/// `, most often NAME: REASON`.
fn most_often(phase: &PhaseSnapshot) -> String {
    let most = phase.failures.iter().max_by_key(|(_, failure)| failure.count);
    most.map(|((key, reason), _)| format!(", most often `{}`: {reason}", key.name)).unwrap_or_default()
}

/// Seconds with load in which the generator was the limit.
struct Marks {
    marked: u32,
    of: u32,
    all: bool,
}

impl Marks {
    fn of(measured: &Measured) -> Self {
        let busy = || measured.timeline.values().filter(|r| !r.drain && r.row.requests_started > 0);
        let of = busy().map(|r| r.seconds).sum();
        let marked = busy().filter(|r| r.row.bound_cores > 0).map(|r| r.seconds).sum();
        Self { marked, of, all: of > 0 && marked == of }
    }
}

impl std::fmt::Display for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} s", self.marked, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    fn rule(ok: bool, ok_unmarked: bool, about_failures: bool) -> Threshold {
        let rule = if about_failures { "failure_rate < 1%" } else { "p95 < 200ms" };
        let (observed, seen) = (Some(1.0), "1".into());
        Threshold { rule: rule.into(), observed, ok, ok_unmarked, about_failures, seen, ..Threshold::default() }
    }

    fn clean() -> Measured {
        let mut measured = fixture::measured();
        fixture::without_failures(&mut measured);
        measured.timeline.values_mut().for_each(|r| r.row.bound_cores = 0);
        measured
    }

    #[test]
    fn the_code_that_holds_first() {
        assert_eq!(Verdict::of(&clean(), vec![]).exit_code, exit::PASSED);
        assert_eq!(Verdict::of(&clean(), vec![rule(true, true, false)]).exit_code, exit::PASSED);
        assert_eq!(Verdict::of(&clean(), vec![rule(false, false, false)]).exit_code, exit::FAILED);
        assert_eq!(Verdict::of(&clean(), vec![rule(false, true, false)]).exit_code, exit::INCONCLUSIVE);
        let both = vec![rule(false, true, false), rule(false, false, false)];
        assert_eq!(Verdict::of(&clean(), both).exit_code, exit::FAILED);
        let mut broken = clean();
        broken.ending = Ending::Failed("all workers were lost".into());
        assert_eq!(Verdict::of(&broken, vec![rule(false, false, false)]).exit_code, exit::NOT_RUN);
    }

    #[test]
    fn failed_requests_fail_the_run_unless_a_rule_speaks_of_them() {
        let mut measured = fixture::measured();
        measured.timeline.values_mut().for_each(|r| r.row.bound_cores = 0);
        assert_eq!(Verdict::of(&measured, vec![rule(true, true, false)]).exit_code, exit::FAILED);
        assert_eq!(Verdict::of(&measured, vec![rule(true, true, true)]).exit_code, exit::PASSED);
    }

    #[test]
    fn a_generator_that_was_always_the_limit_decides_nothing() {
        let mut measured = clean();
        measured.timeline.values_mut().for_each(|r| r.row.bound_cores = 1);
        let without = Verdict::of(&measured, vec![]);
        assert_eq!(without.exit_code, exit::PASSED);
        assert!(without.reasons.iter().any(|r| r.starts_with("warning: the generator")));
        assert_eq!(Verdict::of(&measured, vec![rule(false, false, false)]).exit_code, exit::INCONCLUSIVE);
        assert_eq!(Verdict::of(&measured, vec![rule(true, true, false)]).exit_code, exit::INCONCLUSIVE);
    }

    #[test]
    fn a_signal_is_the_normal_end_of_an_open_ended_test() {
        let mut measured = clean();
        measured.ending = Ending::Stopped;
        assert_eq!(Verdict::of(&measured, vec![]).exit_code, exit::ENDED_BY_USER);
        std::sync::Arc::make_mut(&mut measured.plan).test_time = None;
        assert_eq!(Verdict::of(&measured, vec![]).exit_code, exit::PASSED);
    }

    #[test]
    fn a_rule_that_ended_the_test_is_the_first_reason() {
        let mut measured = fixture::measured();
        measured.ending = Ending::Breached;
        measured.timeline.values_mut().for_each(|r| r.row.bound_cores = 1);
        let aborted = Threshold { aborted_at_s: Some(7.04), seen: "1 at 2–7 s".into(), ..rule(false, false, false) };
        let verdict = Verdict::of(&measured, vec![rule(true, true, true), aborted]);
        assert_eq!((verdict.outcome, verdict.exit_code), (Outcome::Failed, exit::FAILED));
        assert_eq!(verdict.reasons[0], "`p95 < 200ms` does not hold: 1 at 2–7 s; it aborted the test at 7.0 s");
        assert!(verdict.reasons.iter().any(|r| r.starts_with("warning: the generator")));
    }

    #[test]
    fn exit_codes_are_ordered() {
        let order = [0, 4, 1, 2, 3, 130];
        for pair in order.windows(2) {
            assert_eq!(exit::worse(pair[0], pair[1]), pair[1]);
            assert_eq!(exit::worse(pair[1], pair[0]), pair[1]);
        }
    }
}
