//! The end table: what a finished test prints on stdout, in 80 columns.

use crate::format;
use crate::run::conservation::Conservation;
use crate::run::result::{NameResult, Percentiles, RunResult};
use std::fmt::Write as _;

/// Most names in the table; reports have them all.
const NAMES: usize = 40;
/// Most failure groups.
const FAILURES: usize = 5;

/// Names, total, verdict, conservation, limits and losses of one run, at least 80 columns wide.
pub fn end_table(result: &RunResult, width: usize) -> String {
    let name_width = width.clamp(80, 120) - NUMBERS;
    let mut out = String::new();
    let mut say = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    say("");
    say(&row(name_width, "name", ["count", "failed", "rate/s", "p50", "p90", "p95", "p99", "max"].map(str::to_owned)));
    for (name, n) in result.per_name.0.iter().take(NAMES) {
        say(&row(name_width, name, name_cells(n, result)));
    }
    if result.per_name.0.len() > NAMES {
        say(&format!("… and {} more names", result.per_name.0.len() - NAMES));
    }
    let totals = &result.totals;
    say(&row(
        name_width,
        "total",
        cells(totals.requests, totals.failures, totals.requests_per_s, &result.latency_overall),
    ));
    say("");
    for failure in result.failures.iter().take(FAILURES) {
        say(&format!("failed: {} × {}: {}", format::count(failure.count), failure.name, failure.reason));
    }
    if result.failures.len() > FAILURES {
        say(&format!("failed: {} more groups", result.failures.len() - FAILURES));
    }
    for threshold in &result.verdict.thresholds {
        let mark = if threshold.ok { "holds" } else { "does not hold" };
        say(&format!("threshold: {} {mark} (seen: {})", threshold.rule, threshold.seen));
    }
    say(&format!("verdict: {}", result.verdict.outcome.name()));
    for reason in &result.verdict.reasons {
        say(&format!("  {reason}"));
    }
    say(&conservation(result));
    for (name, ledger) in [("warm-up", &result.warmup.conservation), ("hooks", &result.hooks.conservation)] {
        if ledger.requests_started > 0 || ledger.due > 0 {
            say(&apart(name, ledger));
        }
    }
    for (name, n) in result.messages.per_name.0.iter().take(NAMES) {
        say(&messages(name, n));
    }
    say(&limit(result));
    for loss in &result.losses {
        // users of a closed model plan no starts
        let starts = match loss.planned {
            0 => String::new(),
            planned => format!("{} of {planned} planned starts happened, ", loss.achieved),
        };
        let unknown = match loss.bound {
            0 => "no request unknown".to_owned(),
            bound => format!("at most {bound} requests unknown"),
        };
        say(&format!("lost: {} at {:.1} s ({}): {starts}{unknown}", loss.worker, loss.from_s, loss.reason));
    }
    out
}

/// Columns of all numbers with the blanks before them.
const NUMBERS: usize = 9 + 7 + 8 + 5 * 7;

fn row(name_width: usize, name: &str, cells: [String; 8]) -> String {
    let name = format::cut(name, name_width);
    let [count, failed, rate, times @ ..] = cells;
    let mut line = format!("{name:<name_width$} {count:>8} {failed:>6} {rate:>7}");
    for time in times {
        write!(line, " {time:>6}").expect("writing to a String cannot fail");
    }
    line
}

fn cells(count: u64, failed: u64, rate: f64, at: &Percentiles) -> [String; 8] {
    let time = format::latency_short;
    [
        count.to_string(),
        failed.to_string(),
        format::rate(rate),
        time(at.p50_ms),
        time(at.p90_ms),
        time(at.p95_ms),
        time(at.p99_ms),
        time(at.max_ms),
    ]
}

fn name_cells(name: &NameResult, result: &RunResult) -> [String; 8] {
    let share = crate::run::result::share(name.count, result.totals.requests);
    let at = Percentiles::of(&name.response);
    cells(name.count, name.failures, share * result.totals.requests_per_s, &at)
}

/// What arrived by itself under one name.
fn messages(name: &str, n: &NameResult) -> String {
    let time = |at: f64| format::latency_short(at);
    let at = &n.success_latency;
    let faults = if n.failures > 0 { format!(", {} faulty", n.failures) } else { String::new() };
    format!(
        "messages: {} × {name} ({}){faults}: p50 {}, p99 {}, max {}",
        format::count(n.successes),
        n.request_type,
        time(at.p50_ms),
        time(at.p99_ms),
        time(at.max_ms)
    )
}

fn conservation(result: &RunResult) -> String {
    let c = &result.conservation;
    let verb = if c.ok { "counts add up" } else { "COUNTS DON'T ADD UP" };
    format!(
        "{verb}: {} requests = {} ok + {} failed + {} in flight + {} lost\n\
         {:width$}  {} iterations due = {} started + {} dropped",
        c.requests_started,
        c.succeeded,
        c.failed,
        c.in_flight,
        c.lost,
        "",
        c.due,
        c.started,
        c.dropped,
        width = verb.len(),
    )
}

/// Requests that are in no other number.
fn apart(name: &str, ledger: &Conservation) -> String {
    let Conservation { requests_started, succeeded, failed, in_flight, lost, .. } = ledger;
    format!(
        "{name}, apart: {requests_started} requests = {succeeded} ok + {failed} failed + {in_flight} in flight + {lost} lost"
    )
}

/// What limited the run.
fn limit(result: &RunResult) -> String {
    let busy: Vec<_> = result.timeline.iter().filter(|s| !s.drain && s.started > 0).collect();
    let marked = busy.iter().filter(|s| s.generator_bound).count();
    let cpu = result.workers.iter().map(|w| w.cpu_max).fold(0.0, f64::max);
    let cpu = format!("busiest core {:.0} % of CPU", cpu * 100.0);
    if marked > 0 {
        return format!("limit: the generator in {marked} of {} s ({cpu})", busy.len());
    }
    match result.run.as_ref().map(|run| run.model) {
        Some("open") => format!("limit: the planned rate; the generator kept up ({cpu})"),
        Some("mixed") => {
            format!("limit: the target, the number of users or the planned rate; the generator kept up ({cpu})")
        }
        _ => format!("limit: the target or the number of users; the generator kept up ({cpu})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::verdict::Verdict;
    use crate::run::{Run, fixture};
    use std::sync::Arc;

    #[test]
    fn the_table_of_a_run_fits_80_columns() {
        let measured = fixture::measured();
        let verdict = Verdict::of(&measured, fixture::thresholds());
        let run = Arc::new(Run { measured, verdict: verdict.clone(), label: None });
        let text = end_table(&RunResult::of(&[run], verdict), 80);
        let table = text.lines().skip(1).take_while(|line| !line.is_empty());
        assert!(table.clone().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!("end_table", text);
    }
}
