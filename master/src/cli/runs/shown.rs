//! `runs show`.

use super::reference::{Finder, Known};
use super::{Fault, Place};
use crate::cli::Global;
use crate::console::Console;
use crate::format;
use crate::run::verdict::exit;
use serde_json::{Value, json};

/// Shows, and returns the exit code.
pub(super) async fn run(
    global: &Global,
    console: &Console,
    place: &Place,
    name: &str,
    json: bool,
) -> Result<u8, Fault> {
    let mut finder = Finder::new(global, place);
    let known = finder.find(name).await?;
    finder.close().await;
    if json {
        let text = serde_json::to_string_pretty(&json!({"plan": known.plan, "result": known.result}));
        console.lines(&format!("{}\n", text.expect("a JSON value has a JSON form")));
    } else {
        console.print(&page(&known, console.width()));
    }
    Ok(exit::PASSED)
}

/// Columns of all numbers with the blanks before them.
const NUMBERS: usize = 9 + 9 + 8 + 5 * 7;

fn page(known: &Known, width: usize) -> String {
    let name_width = width.clamp(80, 120) - NUMBERS;
    let result = &known.result;
    let mut lines = vec![known.line(), String::new()];
    let row = |name: &str, [count, failed, rate, p50, p90, p95, p99, max]: [String; 8]| {
        let name = format::cut(name, name_width);
        format!("{name:<name_width$} {count:>8} {failed:>8} {rate:>7} {p50:>6} {p90:>6} {p95:>6} {p99:>6} {max:>6}")
    };
    lines.push(row("name", ["count", "failed", "rate/s", "p50", "p90", "p95", "p99", "max"].map(str::to_owned)));
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let cells = |count: u64, failures: &Value, at: &Value| {
        let rate = if known.evidence.seconds > 0.0 { count as f64 / known.evidence.seconds } else { 0.0 };
        let time = |key: &str| format::latency_short(number(&at[key]));
        [
            count.to_string(),
            failures.as_u64().unwrap_or(0).to_string(),
            format::rate(rate),
            time("p50_ms"),
            time("p90_ms"),
            time("p95_ms"),
            time("p99_ms"),
            time("max_ms"),
        ]
    };
    for (name, found) in result["per_name"].as_object().into_iter().flatten() {
        lines.push(row(name, cells(found["count"].as_u64().unwrap_or(0), &found["failures"], found)));
    }
    let totals = &result["totals"];
    let all = totals["requests"].as_u64().unwrap_or(0);
    lines.push(row("total", cells(all, &totals["failures"], &result["latency_overall"])));
    lines.push(String::new());
    for group in result["failures"].as_array().into_iter().flatten().take(10) {
        let text = |key: &str| group[key].as_str().unwrap_or_default();
        let count = format::count(group["count"].as_u64().unwrap_or(0));
        lines.push(format!("failed: {count} × {}: {}", text("name"), text("reason")));
    }
    let verdict = &result["verdict"];
    for threshold in verdict["thresholds"].as_array().into_iter().flatten() {
        let mark = if threshold["ok"] == true { "holds" } else { "does not hold" };
        lines.push(format!("threshold: {} {mark}", threshold["rule"].as_str().unwrap_or_default()));
    }
    lines.push(format!("verdict: {}", verdict["outcome"].as_str().unwrap_or("unknown")));
    let reasons = verdict["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.extend(reasons.map(|reason| format!("  {reason}")));
    let c = |key: &str| result["conservation"][key].as_u64().unwrap_or(0);
    let (started, ok, failed) = (c("requests_started"), c("succeeded"), c("failed"));
    let (in_flight, lost) = (c("in_flight"), c("lost"));
    lines.push(format!("requests: {started} = {ok} ok + {failed} failed + {in_flight} in flight + {lost} lost"));
    let text: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    format!("{}\n", text.join("\n"))
}
