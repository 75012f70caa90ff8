//! `runs list`.

use super::{Fault, Place};
use crate::cli::Global;
use crate::console::Console;
use crate::format;
use crate::run::result::share;
use crate::run::verdict::exit;
use crate::store::Saved;
use chrono::{DateTime, Local, Utc};
use ld_shared::boot::clock;

/// Lists, and returns the exit code.
pub(super) async fn run(
    global: &Global,
    console: &Console,
    place: &Place,
    limit: i64,
    json: bool,
) -> Result<u8, Fault> {
    let runs = match place.open(global).await? {
        Some(mut store) => {
            let runs = store.saved(limit).await?;
            store.close().await;
            runs
        }
        None => Vec::new(),
    };
    if json {
        let text = serde_json::to_string_pretty(&runs).expect("rows hold only types with a JSON form");
        console.lines(&format!("{text}\n"));
    } else if runs.is_empty() {
        console.print("no runs yet\n");
    } else {
        console.print(&table(&runs, clock::wall(), console.width()));
    }
    Ok(exit::PASSED)
}

/// Columns of everything but the label.
const NUMBERS: usize = 5 + 14 + 14 + 9 + 10 + 8 + 8;

fn table(runs: &[Saved], now: DateTime<Utc>, width: usize) -> String {
    let label_width = width.clamp(80, 120) - NUMBERS;
    let mut out = String::new();
    let row = |[number, when, label, outcome, requests, failed, rate, p95]: [String; 8]| {
        let label = format::cut(&label, label_width - 1);
        let text = format!(
            "{number:>4} {when:<13} {label:<label_width$}{outcome:<13}{requests:>10} {failed:>8} {rate:>8} {p95:>7}"
        );
        format!("{}\n", text.trim_end())
    };
    out.push_str(&row(["run", "when", "label", "verdict", "requests", "failed", "rate/s", "p95"].map(str::to_owned)));
    for run in runs {
        let when = when(&run.started_at, now);
        let label = run.label.clone().unwrap_or_default();
        let cells = match &run.measured {
            Some(m) => [
                m.outcome.clone(),
                m.requests.to_string(),
                format::percent(share(m.failures.unsigned_abs(), m.requests.unsigned_abs())).replace(' ', ""),
                format::rate(m.requests_per_s),
                format::latency_short(m.p95_ms),
            ],
            None => ["no result", "", "", "", ""].map(str::to_owned),
        };
        let [outcome, requests, failed, rate, p95] = cells;
        out.push_str(&row([run.id.to_string(), when, label, outcome, requests, failed, rate, p95]));
    }
    out
}

/// How long ago, within a day; else the local date.
pub(super) fn when(started_at: &str, now: DateTime<Utc>) -> String {
    let Ok(at) = DateTime::parse_from_rfc3339(started_at) else { return started_at.to_owned() };
    let ago = now.signed_duration_since(at);
    match ago.num_minutes() {
        ..0 => "now".into(),
        0 => format!("{} s ago", ago.num_seconds()),
        minutes @ 1..60 => format!("{minutes} min ago"),
        minutes @ 60..1_440 => format!("{} h ago", minutes / 60),
        _ => at.with_timezone(&Local).format("%Y-%m-%d").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Measured;

    #[test]
    fn the_list_fits_80_columns() {
        let measured = Measured {
            uuid: None,
            outcome: "inconclusive".into(),
            requests: 1_234_567_890,
            failures: 123_456,
            requests_per_s: 20_576.0,
            p95_ms: 812.4,
            duration_s: 60_000.0,
        };
        let run = |id, at: &str, label: Option<&str>, measured| Saved {
            id,
            label: label.map(str::to_owned),
            started_at: at.into(),
            measured,
        };
        let runs = [
            run(1_003, "2026-11-24T18:59:30+00:00", Some("checkout of everything"), Some(measured)),
            run(7, "2026-11-24T10:00:00+00:00", None, None),
            run(6, "2026-11-20T10:00:00+00:00", Some("a"), None),
        ];
        let now = DateTime::parse_from_rfc3339("2026-11-24T19:00:00+00:00").unwrap().to_utc();
        let text = table(&runs, now, 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("30 s ago") && text.contains("9 h ago") && text.contains("2026-11-20"), "{text}");
    }
}
