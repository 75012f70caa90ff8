//! Rules as people write them.

use super::{Basis, Metric, Operator, Selector, Statistic, Threshold};
use crate::fault::{Fault, did_you_mean};
use crate::time::{self, RunTime};

const METRICS: [&str; 12] =
    ["p50", "p90", "p95", "p99", "p999", "mean", "max", "rate", "count", "failures", "failure_rate", "dropped"];
pub(super) const EXAMPLE: &str =
    "write it like `p95 < 200ms`, `p99 of service <= 1s for name:GET /a*` or `failure_rate < 1% over 10s`";
const SELECTIONS: &str = "write it like `for name:GET /a*`, `for scenario:shop` or `for type:GET`";
const WINDOWS: &str = "a window has whole seconds, from 1s to 1h, like `over 10s`";
/// Longest window, seconds: what lies in it is kept.
const LONGEST: f64 = 3_600.0;

/// A message and, where there is one, its remedy.
type Wrong = (String, String);

fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), help.into()))
}

pub(super) fn parse(rule: &str) -> Result<Threshold, Fault> {
    read(rule).map_err(|(message, help)| Fault::new("", format!("{message} in the rule `{rule}`")).help(help))
}

fn read(rule: &str) -> Result<Threshold, Wrong> {
    let Some((left, right)) = rule.find(['<', '>', '=', '!']).map(|at| rule.split_at(at)) else {
        return wrong("no operator", EXAMPLE);
    };
    let end = right.find(|c| !"<>=!".contains(c)).unwrap_or(right.len());
    let (operator, right) = right.split_at(end);
    let operator = match operator {
        "<" => Operator::Less,
        "<=" => Operator::AtMost,
        ">" => Operator::Greater,
        ">=" => Operator::AtLeast,
        "==" | "=" => Operator::Equal,
        "!=" => Operator::NotEqual,
        other => return wrong(format!("unknown operator `{other}`"), "accepted: <, <=, >, >=, ==, !="),
    };
    let left = left.to_ascii_lowercase();
    let (name, basis) = metric_words(&left)?;
    let clauses = Clauses::of(right)?;
    let limit = clauses.limit.to_ascii_lowercase();
    let metric = metric(name, basis).or_else(|help| wrong(format!("unknown metric `{name}`"), help))?;
    let Some((number, unit)) = number(&limit) else { return wrong(format!("`{limit}` is no number"), EXAMPLE) };
    let (metric, limit) = in_unit(metric, number, unit)
        .or_else(|accepted| wrong(format!("`{name}` is not measured in `{unit}`"), accepted))?;
    if basis.is_some() && !matches!(metric, Metric::Time(..)) {
        return wrong(format!("`{name}` has no `of`"), "`of` goes with percentiles, mean and max");
    }
    if clauses.selector.is_some() && matches!(metric, Metric::Dropped | Metric::DroppedShare) {
        let help = "iterations are dropped before it is known what they would have requested; leave `for` out";
        return wrong("`dropped` has no `for`", help);
    }
    let Clauses { selector, over, .. } = clauses;
    let rule = rule.trim().to_owned();
    Ok(Threshold { rule, metric, operator, limit, selector, over, abort: false, after: RunTime(0) })
}

/// What follows the operator.
struct Clauses<'a> {
    limit: &'a str,
    selector: Option<Selector>,
    over: Option<u32>,
}

impl<'a> Clauses<'a> {
    fn of(text: &'a str) -> Result<Self, Wrong> {
        let end = places(text, "for").into_iter().chain(places(text, "over")).min().unwrap_or(text.len());
        let (limit, mut rest) = text.split_at(end);
        let mut clauses = Self { limit: limit.trim(), selector: None, over: None };
        while !rest.trim().is_empty() {
            let (word, after) = first_word(rest);
            if word.eq_ignore_ascii_case("for") && clauses.selector.is_none() {
                let (selector, after) = selection(after)?;
                (clauses.selector, rest) = (Some(selector), after);
            } else if word.eq_ignore_ascii_case("over") && clauses.over.is_none() {
                let (length, after) = before(after, places(after, "for").first());
                (clauses.over, rest) = (Some(window(length.trim())?), after);
            } else {
                return wrong(format!("unexpected `{word}`"), EXAMPLE);
            }
        }
        Ok(clauses)
    }
}

/// `name:GLOB`, `scenario:X` or `type:T`, and what follows it.
fn selection(text: &str) -> Result<(Selector, &str), Wrong> {
    let text = text.trim_start();
    let Some((kind, value)) = text.split_once(':') else {
        return wrong(format!("`for {}` selects nothing", text.trim_end()), SELECTIONS);
    };
    let value = value.trim_start();
    let (value, rest) = match value.chars().next().filter(|c| ['"', '\''].contains(c)) {
        Some(quote) => match value.strip_prefix(quote).and_then(|inner| inner.split_once(quote)) {
            Some(parts) => parts,
            None => return wrong(format!("no end of the quoted text `{value}`"), SELECTIONS),
        },
        None => before(value, places(value, "over").last()),
    };
    let value = if rest.is_empty() { value.trim_end() } else { value.trim() };
    if value.is_empty() {
        return wrong(format!("`for {kind}:` selects nothing"), SELECTIONS);
    }
    let selector = match kind.trim().to_ascii_lowercase().as_str() {
        "name" => Selector::Name(value.into()),
        "scenario" => Selector::Scenario(value.into()),
        "type" => Selector::Type(value.into()),
        other => {
            let help = did_you_mean(other, ["name", "scenario", "type"]);
            return wrong(format!("unknown selection `{other}`"), help);
        }
    };
    Ok((selector, rest))
}

/// Whole seconds of a window.
fn window(text: &str) -> Result<u32, Wrong> {
    let seconds = time::seconds(text).filter(|s| s.fract() == 0.0 && (1.0..=LONGEST).contains(s));
    match seconds {
        Some(seconds) => Ok(seconds as u32),
        None => wrong(
            format!("`over {text}` is no window"),
            format!("{WINDOWS}; a name that holds the word `over` stands in quotes"),
        ),
    }
}

/// Where `word` stands in `text`, in any case, as a word of its own.
fn places(text: &str, word: &str) -> Vec<usize> {
    let mut at = 0;
    let mut places = Vec::new();
    for piece in text.split_inclusive(char::is_whitespace) {
        if piece.trim_end().eq_ignore_ascii_case(word) {
            places.push(at);
        }
        at += piece.len();
    }
    places
}

/// `text` in two at a place that [`places`] found; all of it before if there is none.
fn before<'a>(text: &'a str, place: Option<&usize>) -> (&'a str, &'a str) {
    text.split_at(place.copied().unwrap_or(text.len()))
}

fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

/// `METRIC [of BASIS]`.
fn metric_words(left: &str) -> Result<(&str, Option<Basis>), Wrong> {
    let mut words = left.split_whitespace();
    let Some(name) = words.next() else { return wrong("no metric before the operator", EXAMPLE) };
    let basis = match (words.next(), words.next()) {
        (None, _) => None,
        (Some("of"), Some("response")) => Some(Basis::Response),
        (Some("of"), Some("service")) => Some(Basis::Service),
        (Some("of"), Some("lag")) => Some(Basis::Lag),
        (Some("of"), other) => {
            let text = format!("`of {}` is not response, service or lag", other.unwrap_or_default());
            return wrong(text, EXAMPLE);
        }
        (Some(word @ ("for" | "over")), _) => {
            let help = "the operator and its number come first, like `p95 < 200ms for name:GET /a* over 10s`";
            return wrong(format!("`{word}` before the operator"), help);
        }
        (Some(word), _) => return wrong(format!("unexpected `{word}`"), EXAMPLE),
    };
    match words.next() {
        None => Ok((name, basis)),
        Some(word) => wrong(format!("unexpected `{word}`"), EXAMPLE),
    }
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
pub(super) fn percentile(name: &str) -> Option<f64> {
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
