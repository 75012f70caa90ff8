//! Pass-fail rules: `p95 < 200ms`, `failure_rate < 1%`, `p99 of service <= 1s`.
//!
//! ```text
//! METRIC [of response|service|lag] OP NUMBER[us|ms|s|%|/s] [for …] [over …]
//! ```
//!
//! | metric | unit | meaning |
//! |---|---|---|
//! | `p50` … `p99`, `p999`, `p9999` | us, ms (default), s | percentile; digits after the second are decimals |
//! | `mean` `max` | us, ms (default), s | of the same times |
//! | `rate` | /s | requests started in the main window per second |
//! | `count` `failures` | | requests that ended; that failed |
//! | `failure_rate` | a share: `0.01` or `1%` | failures / count |
//! | `dropped` | a number, or with `%` a share of what was due | iterations that were not started |
//!
//! Operators: `<` `<=` `>` `>=` `==` `!=`. Without samples a rule fails (`dropped` aside: it is not
//! about samples). Percentiles are read from the merged histograms, never averaged.

use crate::fault::{Fault, did_you_mean};
use crate::latency::Latency;
use crate::snapshot::PhaseSnapshot;

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    rule: String,
    metric: Metric,
    operator: Operator,
    /// In the metric's base unit: milliseconds, a share from 0 to 1, per second, or a number.
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    Time(Statistic, Basis),
    Rate,
    Count,
    Failures,
    FailureRate,
    Dropped,
    DroppedShare,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    /// 0..100.
    Percentile(f64),
    Mean,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    Response,
    Service,
    Lag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    NotEqual,
}

/// What rules look at: the main phase of a run.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What ended, all samples.
    pub main: &'a PhaseSnapshot,
    /// Requests started.
    pub started: u64,
    /// Iterations that were due.
    pub due: u64,
    /// Iterations that were due and not started.
    pub dropped: u64,
    /// Length of the main window, seconds.
    pub seconds: f64,
}

/// What a rule saw, and whether it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// In the metric's base unit: milliseconds, a share from 0 to 1, per second, or a number. 0.0
    /// without samples.
    pub value: f64,
    /// Whether the rule holds.
    pub ok: bool,
}

const METRICS: [&str; 12] =
    ["p50", "p90", "p95", "p99", "p999", "mean", "max", "rate", "count", "failures", "failure_rate", "dropped"];
const EXAMPLE: &str = "write it like `p95 < 200ms`, `p99 of service <= 1s` or `failure_rate < 1%`";

impl Threshold {
    /// Parses a rule.
    ///
    /// # Errors
    ///
    /// A [`Fault`] without pointer: what of the rule is not understood. `for` and `over` are known
    /// and refused: they come with part 2.
    pub fn parse(rule: &str) -> Result<Self, Fault> {
        let fault = |message: String| Fault::new("", format!("{message} in the rule `{rule}`"));
        let text = rule.to_ascii_lowercase();
        let at = text.find(['<', '>', '=', '!']);
        let (left, right) = at.map(|at| text.split_at(at)).ok_or_else(|| fault("no operator".into()).help(EXAMPLE))?;
        let end = right.find(|c| !"<>=!".contains(c)).unwrap_or(right.len());
        let (operator, right) = right.split_at(end);
        let operator = match operator {
            "<" => Operator::Less,
            "<=" => Operator::AtMost,
            ">" => Operator::Greater,
            ">=" => Operator::AtLeast,
            "==" | "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            other => {
                let accepted = "accepted: <, <=, >, >=, ==, !=";
                return Err(fault(format!("unknown operator `{other}`")).help(accepted));
            }
        };
        let (name, basis) = metric_words(left).map_err(|message| fault(message).help(EXAMPLE))?;
        let limit = limit_words(right).map_err(|(message, help)| fault(message).help(help))?;
        let metric = metric(name, basis).map_err(|help| fault(format!("unknown metric `{name}`")).help(help))?;
        let (number, unit) = number(limit).ok_or_else(|| fault(format!("`{limit}` is no number")).help(EXAMPLE))?;
        let (metric, limit) = in_unit(metric, number, unit)
            .map_err(|accepted| fault(format!("`{name}` is not measured in `{unit}`")).help(accepted))?;
        if basis.is_some() && !matches!(metric, Metric::Time(..)) {
            return Err(fault(format!("`{name}` has no `of`")).help("`of` goes with percentiles, mean and max"));
        }
        Ok(Self { rule: rule.trim().to_owned(), metric, operator, limit })
    }

    /// The rule as written.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Whether it is about failures: then failed requests alone don't fail the run.
    pub fn names_failures(&self) -> bool {
        matches!(self.metric, Metric::Failures | Metric::FailureRate)
    }

    /// Holds the rule against a run.
    pub fn evaluate(&self, facts: &Facts<'_>) -> Observed {
        let failures = facts.main.failed();
        let count = facts.main.succeeded() + failures;
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let value = match self.metric {
            Metric::Time(statistic, Basis::Response) => statistic.of(&facts.main.response()),
            Metric::Time(statistic, Basis::Service) => statistic.of(&facts.main.service),
            Metric::Time(statistic, Basis::Lag) => statistic.of(&facts.main.lag),
            Metric::Rate if facts.seconds > 0.0 => facts.started as f64 / facts.seconds,
            Metric::Rate => 0.0,
            Metric::Count => count as f64,
            Metric::Failures => failures as f64,
            Metric::FailureRate => share(failures, count),
            Metric::Dropped => facts.dropped as f64,
            Metric::DroppedShare => share(facts.dropped, facts.due),
        };
        let measured = count > 0 || matches!(self.metric, Metric::Dropped | Metric::DroppedShare);
        Observed { value, ok: measured && self.operator.holds(value, self.limit) }
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.rule)
    }
}

impl Statistic {
    /// In milliseconds.
    fn of(self, times: &Latency) -> f64 {
        match self {
            Self::Percentile(p) => times.percentile(p) as f64 / 1_000.0,
            Self::Mean => times.mean() / 1_000.0,
            Self::Max => times.max() as f64 / 1_000.0,
        }
    }
}

impl Operator {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Less => value < limit,
            Self::AtMost => value <= limit,
            Self::Greater => value > limit,
            Self::AtLeast => value >= limit,
            Self::Equal => value.total_cmp(&limit).is_eq(),
            Self::NotEqual => value.total_cmp(&limit).is_ne(),
        }
    }
}

/// `METRIC [of BASIS]`.
fn metric_words(left: &str) -> Result<(&str, Option<Basis>), String> {
    let mut words = left.split_whitespace();
    let name = words.next().ok_or("no metric before the operator")?;
    let basis = match (words.next(), words.next()) {
        (None, _) => None,
        (Some("of"), Some("response")) => Some(Basis::Response),
        (Some("of"), Some("service")) => Some(Basis::Service),
        (Some("of"), Some("lag")) => Some(Basis::Lag),
        (Some("of"), other) => {
            return Err(format!("`of {}` is not response, service or lag", other.unwrap_or_default()));
        }
        (Some(word), _) => return Err(format!("unexpected `{word}`")),
    };
    match words.next() {
        None => Ok((name, basis)),
        Some(word) => Err(format!("unexpected `{word}`")),
    }
}

/// `NUMBER[unit]`, the unit with or without space before it; `for` and `over` may follow.
fn limit_words(right: &str) -> Result<&str, (String, &'static str)> {
    let clause = right.split_whitespace().find(|word| ["for", "over"].contains(word));
    if let Some(clause) = clause {
        let help = "rules of this version look at the whole run; leave it out";
        return Err((format!("`{clause}` comes with a later version"), help));
    }
    Ok(right.trim())
}

fn metric(name: &str, basis: Option<Basis>) -> Result<Metric, String> {
    let time = |statistic| Ok(Metric::Time(statistic, basis.unwrap_or(Basis::Response)));
    match name {
        "mean" => time(Statistic::Mean),
        "max" => time(Statistic::Max),
        "rate" => Ok(Metric::Rate),
        "count" => Ok(Metric::Count),
        "failures" => Ok(Metric::Failures),
        "failure_rate" => Ok(Metric::FailureRate),
        "dropped" => Ok(Metric::Dropped),
        _ => match percentile(name) {
            Some(p) => time(Statistic::Percentile(p)),
            None => Err(did_you_mean(name, METRICS)),
        },
    }
}

/// `p95` is 95, `p999` is 99.9, `p99.9` too.
fn percentile(name: &str) -> Option<f64> {
    let digits = name.strip_prefix('p')?;
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = match digits.split_once('.') {
        Some((whole, part)) if is_digits(whole) && is_digits(part) => digits.to_owned(),
        Some(_) => return None,
        None if !is_digits(digits) || digits.len() < 2 => return None,
        None if digits == "100" => digits.to_owned(),
        None => format!("{}.{}", digits.get(..2)?, digits.get(2..)?),
    };
    text.parse().ok().filter(|p| (0.0..=100.0).contains(p))
}

fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: f64 = digits.parse().ok()?;
    number.is_finite().then_some((number, unit.trim()))
}

/// The limit in the base unit, and the metric (`dropped` with `%` is another one).
fn in_unit(metric: Metric, number: f64, unit: &str) -> Result<(Metric, f64), &'static str> {
    let limit = match (metric, unit) {
        (Metric::Time(..), "" | "ms")
        | (Metric::Rate, "" | "/s")
        | (Metric::FailureRate | Metric::Count | Metric::Failures | Metric::Dropped, "") => number,
        (Metric::Time(..), "us" | "µs") => number / 1_000.0,
        (Metric::Time(..), "s") => number * 1_000.0,
        (Metric::FailureRate, "%") => number / 100.0,
        (Metric::Dropped, "%") => return Ok((Metric::DroppedShare, number / 100.0)),
        (Metric::Time(..), _) => return Err("accepted: us, ms (if none is given), s"),
        (Metric::Rate, _) => return Err("accepted: /s or none"),
        (Metric::FailureRate | Metric::Dropped | Metric::DroppedShare, _) => return Err("accepted: % or none"),
        (Metric::Count | Metric::Failures, _) => return Err("it is a plain number"),
    };
    Ok((metric, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SeriesKey;

    fn phase(successes: &[u64], failures: &[u64]) -> PhaseSnapshot {
        let mut phase = PhaseSnapshot::default();
        let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
        for ms in successes {
            phase.series_mut(&key).succeeded.record(ms * 1_000);
            phase.service.record(ms * 500);
        }
        for ms in failures {
            phase.series_mut(&key).failed.record(ms * 1_000);
            phase.service.record(ms * 500);
        }
        phase
    }

    fn observe(rule: &str, main: &PhaseSnapshot) -> (f64, bool) {
        let facts = Facts { main, started: 100, due: 200, dropped: 3, seconds: 10.0 };
        let seen = Threshold::parse(rule).unwrap().evaluate(&facts);
        ((seen.value * 1e6).round() / 1e6, seen.ok)
    }

    #[test]
    fn rules_hold_or_fail() {
        let main = phase(&[1, 1, 1, 1, 1, 1, 1, 1, 1], &[2]);
        let table = [
            ("p50 < 1.001", (1.0, true)),
            ("p50 < 1ms", (1.0, false)),
            ("p50<=1ms", (1.0, true)),
            ("P95 of response > 1999 us", (2.0, true)),
            ("p999 < 1s", (2.0, true)),
            ("p50 of service == 0.5ms", (0.5, true)),
            ("max of lag == 0", (0.0, true)),
            ("mean <= 1.1ms", (1.1, true)),
            ("rate >= 10/s", (10.0, true)),
            ("count != 10", (10.0, false)),
            ("failures < 1", (1.0, false)),
            ("failure_rate <= 10%", (0.1, true)),
            ("failure_rate < 0.1", (0.1, false)),
            ("failure_rate >= 10%", (0.1, true)),
            ("dropped == 3", (3.0, true)),
            ("dropped < 1.5%", (0.015, false)),
            ("dropped <= 1.5 %", (0.015, true)),
        ];
        for (rule, expected) in table {
            assert_eq!(observe(rule, &main), expected, "{rule}");
        }
    }

    #[test]
    fn without_samples_a_rule_fails() {
        let none = phase(&[], &[]);
        for rule in ["p95 < 200ms", "failure_rate < 1%", "failures == 0", "count < 5", "rate > 1/s"] {
            assert!(!observe(rule, &none).1, "{rule}");
        }
        assert!(observe("dropped < 5", &none).1);
    }

    #[test]
    fn percentiles_are_named_by_their_digits() {
        let table = [("p50", 50.0), ("p05", 5.0), ("p999", 99.9), ("p9999", 99.99), ("p99.9", 99.9), ("p100", 100.0)];
        for (name, p) in table {
            assert_eq!(percentile(name), Some(p), "{name}");
        }
        for name in ["p", "p5", "pp", "p-1", "p.5", "q50", "p101.0"] {
            assert_eq!(percentile(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let table = [
            ("p95", "no operator in the rule `p95`", EXAMPLE),
            ("p95 <> 5", "unknown operator `<>` in the rule `p95 <> 5`", "accepted: <, <=, >, >=, ==, !="),
            ("p95 < fast", "`fast` is no number in the rule `p95 < fast`", EXAMPLE),
            ("p95 < ", "`` is no number in the rule `p95 < `", EXAMPLE),
            (
                "p95 < 5%",
                "`p95` is not measured in `%` in the rule `p95 < 5%`",
                "accepted: us, ms (if none is given), s",
            ),
            ("count < 5ms", "`count` is not measured in `ms` in the rule `count < 5ms`", "it is a plain number"),
            ("p95 of wire < 5", "`of wire` is not response, service or lag in the rule `p95 of wire < 5`", EXAMPLE),
            (
                "rate of service > 1",
                "`rate` has no `of` in the rule `rate of service > 1`",
                "`of` goes with percentiles, mean and max",
            ),
            (
                "p95 < 5 over 10s",
                "`over` comes with a later version in the rule `p95 < 5 over 10s`",
                "rules of this version look at the whole run; leave it out",
            ),
            (
                "failurerate < 1%",
                "unknown metric `failurerate` in the rule `failurerate < 1%`",
                "did you mean `failure_rate`? accepted: p50, p90, p95, p99, p999, mean, max, rate, count, failures, \
                 failure_rate, dropped",
            ),
        ];
        for (rule, message, help) in table {
            let fault = Threshold::parse(rule).unwrap_err();
            assert_eq!((fault.message.as_str(), fault.help.as_deref()), (message, Some(help)));
        }
    }
}
