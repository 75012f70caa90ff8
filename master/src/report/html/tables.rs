//! The tables of the page: their rows, and how many rows there are beyond.
//!
//! Names, reasons and URLs come from outside, and may be long and many. What is shown of them is
//! bounded here, so that the page is.

use crate::format::cut;
use crate::report::records::{Kept, Millis, Status, listed};
use crate::report::{Findings, Part};
use crate::run::result::{FailureGroup, NameResult, RunResult};
use minijinja::context;
use minijinja::value::{Serde, Value};
use std::sync::Arc;

/// Longest name that is shown, in characters.
const NAME: usize = 100;
/// Longest sentence and URL.
const TEXT: usize = 200;
/// Most rows of the table of names, which is what people look for.
const NAMES: usize = 250;
/// Most rows of any other.
const ROWS: usize = 100;

/// `rows`: the first ones; `more`: how many are left out; `all`: how many there are.
fn table<T>(items: &[T], most: usize, row: impl Fn(&T) -> Value) -> Value {
    let rows: Vec<Value> = items.iter().take(most).map(row).collect();
    context! { more => items.len() - rows.len(), all => items.len(), rows }
}

/// Why the outcome is what it is.
pub(super) fn reasons(result: &RunResult) -> Value {
    table(&result.verdict.reasons, 20, |reason| Value::from(cut(reason, TEXT)))
}

/// Names, in order of first end.
pub(super) fn names(result: &RunResult) -> Value {
    let slowest = result.per_name.0.iter().map(|(_, n)| n.latency.p95_ms).fold(0.0, f64::max);
    table(&result.per_name.0, NAMES, |(name, n): &(Arc<str>, NameResult)| {
        let bar = if slowest > 0.0 { n.latency.p95_ms / slowest * 100.0 } else { 0.0 };
        let share = if result.totals.requests == 0 { 0.0 } else { n.count as f64 / result.totals.requests as f64 };
        let l = n.latency;
        context! {
            name => cut(name, NAME), request_type => cut(&n.request_type, 20), bar => format!("{bar:.1}"),
            rate => share * result.totals.requests_per_s, count => n.count, failures => n.failures,
            failure_rate => n.failure_rate, p50_ms => l.p50_ms, p90_ms => l.p90_ms, p95_ms => l.p95_ms,
            p99_ms => l.p99_ms, p999_ms => l.p999_ms, max_ms => l.max_ms,
        }
    })
}

/// Failures by name and reason, most frequent first.
pub(super) fn failures(failures: &[FailureGroup]) -> Value {
    table(failures, ROWS, |f| {
        context! {
            name => cut(&f.name, NAME), request_type => cut(&f.request_type, 20), class => f.class, reason => cut(&f.reason, TEXT),
            count => f.count, first_at_s => f.first_at_s, last_at_s => f.last_at_s,
        }
    })
}

/// What arrived by itself, by name in order of first arrival.
pub(super) fn messages(result: &RunResult) -> Value {
    table(&result.messages.per_name.0, ROWS, |(name, n): &(Arc<str>, NameResult)| {
        let l = n.success_latency;
        context! {
            name => cut(name, NAME), request_type => cut(&n.request_type, 20), successes => n.successes,
            failures => n.failures, p50_ms => l.p50_ms, p90_ms => l.p90_ms, p99_ms => l.p99_ms, max_ms => l.max_ms,
        }
    })
}

/// Rules of every run, and what was seen.
pub(super) fn thresholds(findings: &Findings) -> Value {
    let several = findings.runs.len() > 1;
    let of_run = |(run, n): (&Arc<crate::run::Run>, usize)| {
        let row = |t: &crate::run::verdict::Threshold| {
            let test = several.then_some(n);
            context! { rule => cut(&t.rule, TEXT), seen => cut(&t.seen, TEXT), ok => t.ok, unsure => t.is_unsure(&run.measured), test }
        };
        run.verdict.thresholds.iter().map(row).collect::<Vec<_>>()
    };
    let rows: Vec<Value> = findings.runs.iter().zip(1..).flat_map(of_run).collect();
    table(&rows, ROWS, Value::clone)
}

/// Response, service and lag side by side.
pub(super) fn times(result: &RunResult) -> Vec<Value> {
    let rows = [
        ("response", result.latency_overall),
        ("of successes", result.success_latency),
        ("service", result.service_overall),
        ("start lag", result.lag_overall),
    ];
    rows.into_iter().map(|(name, p)| context! { name, ..Value::from(Serde(p)) }).collect()
}

/// Parts of exchanges, those that there were.
pub(super) fn timing(result: &RunResult) -> Vec<Value> {
    let parts = result.timing.parts().into_iter().filter(|(_, part)| part.count > 0);
    parts.map(|(name, part)| context! { name => name.replace('_', " "), ..Value::from(Serde(part)) }).collect()
}

/// Who made the load.
pub(super) fn workers(result: &RunResult) -> Value {
    table(&result.workers, ROWS, |w| context! { name => cut(&w.name, NAME), ..Value::from(Serde(w)) })
}

/// What was lost.
pub(super) fn losses(result: &RunResult) -> Value {
    table(&result.losses, ROWS, |l| {
        context! { worker => cut(&l.worker, NAME), reason => cut(&l.reason, TEXT), ..Value::from(Serde(l)) }
    })
}

/// What people and policies did.
pub(super) fn events(result: &RunResult) -> Value {
    table(&result.events, ROWS, |e| context! { at_s => e.at_s, what => cut(&e.what, TEXT), by => cut(&e.by, NAME) })
}

/// Each test, if there are several.
pub(super) fn runs(result: &RunResult) -> Value {
    table(&result.runs, ROWS, |t| {
        context! {
            label => t.run.label.as_ref().map(|label| cut(label, NAME)),
            started_at => t.run.started_at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            totals => Value::from(Serde(&t.totals)), p95_ms => t.latency_overall.p95_ms, outcome => t.verdict.outcome.name(),
        }
    })
}

/// The first kept requests of a part, one by one.
pub(super) fn requests(findings: &Findings, part: Part, most: usize) -> Value {
    let row = |r: &ld_shared::record::Record| {
        context! {
            method => cut(&r.request_type, 20), url => cut(&r.url, TEXT), name => cut(&r.name, NAME),
            status => Status(r.status).to_string(), time_ms => r.response_us as f64 / 1e3, exact => Millis(r.response_us).to_string(),
            length => r.body_bytes, error => r.error.as_ref().map(|error| cut(error, TEXT)),
        }
    };
    let rows: Vec<Value> = listed(findings, part).take(most).map(row).collect();
    let kept = Kept::of(findings, part);
    context! { shown => rows.len(), kept => kept.kept, seen => kept.seen, rows }
}
