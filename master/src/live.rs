//! What a person sees while a test runs.

use crate::console::Console;
use crate::format;
use crate::run::Progress;
use ld_shared::load::Load;
use ld_shared::plan::{Plan, ScenarioPlan};
use ld_shared::time::RunTime;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// The line that says what begins: model, load, target, and that there is no pause if there is none.
pub fn start_line(plan: &Plan) -> String {
    let named = |s: &ScenarioPlan| match plan.scenarios.len() {
        1 => scenario(s, plan),
        _ => format!("{}: {}", s.name, scenario(s, plan)),
    };
    let scenarios: Vec<String> = plan.scenarios.iter().map(named).collect();
    let time = plan.test_time.map_or("until stopped".into(), |t| format!("for {}", format::duration(t.as_secs())));
    let limit = plan.iterations.map(|n| format!(", at most {} iterations", format::count(n))).unwrap_or_default();
    format!("starting: {} {time}{limit}", scenarios.join("; "))
}

fn scenario(scenario: &ScenarioPlan, plan: &Plan) -> String {
    let peak = scenario.load.profile().peak(plan.test_time.unwrap_or(RunTime::MAX));
    let target = scenario.host.as_deref().map(|host| format!(" against {host}")).unwrap_or_default();
    match &scenario.load {
        Load::Closed(_) => {
            let pause = match scenario.wait_time {
                None => "no pause between iterations".into(),
                Some((low, high)) if low >= high => format!("{low} s pause after each iteration"),
                Some((low, high)) => format!("{low} to {high} s pause after each iteration"),
            };
            let users = format::count(peak.ceil() as u64);
            format!("closed model, {users} users ({}), {pause},{target}", scenario.user)
                .trim_end_matches(',')
                .to_owned()
        }
        Load::Open(open) => format!(
            "open model, {} iterations/s ({}), at most {} open{target}",
            format::rate(peak),
            scenario.user,
            format::count(open.max_in_flight)
        ),
    }
}

/// Shows progress: one line rewritten on a terminal, a plain line every 5 s elsewhere. Never
/// returns; dropped when the run is over.
pub(crate) async fn show(console: &Console, progress: watch::Receiver<Arc<Progress>>) -> Infallible {
    let period = Duration::from_secs(if console.is_terminal() { 1 } else { 5 });
    let mut ticks = interval(period / if console.is_terminal() { 4 } else { 1 });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // the first tick comes at once, when there is nothing to show
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = Arc::clone(&progress.borrow());
        if console.is_terminal() {
            console.live(&line(&now, console.width().saturating_sub(1)));
        } else {
            console.note(&line(&now, usize::MAX));
        }
    }
}

/// Where the run stands, in at most `width` columns: what matters least goes first.
pub fn line(progress: &Progress, width: usize) -> String {
    if progress.state == "waiting" {
        let [there, expected] = progress.workers;
        let names =
            if progress.present.is_empty() { String::new() } else { format!(": {}", progress.present.join(", ")) };
        return format::cut(&format!("waiting for workers, {there} of {expected} there{names}"), width);
    }
    let state = if progress.state.is_empty() { "preparing" } else { progress.state };
    let time = match progress.planned_s {
        Some(planned) => format!("{} of {}", clock(progress.elapsed_s), clock(planned)),
        None => clock(progress.elapsed_s),
    };
    let [p50, p95, p99] = progress.percentiles.map(|us| format::latency_short(us as f64 / 1e3));
    // the greater the number, the sooner the part goes
    let parts = [
        (1, state.to_owned()),
        (0, time),
        (2, format!("{} users", progress.users)),
        (0, format!("{}/s", format::rate(progress.rate))),
        (4, format!("p50 {p50}")),
        (1, format!("p95 {p95}")),
        (3, format!("p99 {p99}")),
        (0, format!("{} failed", format::count(progress.failures))),
        (5, format!("{} workers", progress.workers[0])),
    ];
    for least in (0..=5).rev() {
        let text: Vec<&str> = parts.iter().filter(|(rank, _)| *rank <= least).map(|(_, text)| text.as_str()).collect();
        let text = text.join("  ");
        if text.chars().count() <= width || least == 0 {
            return format::cut(&text, width);
        }
    }
    unreachable!("the last round returns")
}

/// `0:45`, `2:30`.
fn clock(seconds: f64) -> String {
    let s = seconds as u64;
    if s < 3_600 {
        format!("{}:{:02}", s / 60, s % 60)
    } else {
        format!("{}:{:02}:{:02}", s / 3_600, s % 3_600 / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    fn progress() -> Progress {
        Progress {
            state: "running",
            elapsed_s: 12.3,
            planned_s: Some(60.0),
            users: 200,
            rate: 1_234.4,
            percentiles: [1_210, 8_450, 104_000],
            requests: 14_000,
            failures: 3,
            workers: [4, 4],
            present: vec![],
        }
    }

    #[test]
    fn the_line_fits() {
        let wide = line(&progress(), 200);
        assert_eq!(
            wide,
            "running  0:12 of 1:00  200 users  1,234/s  p50 1.21ms  p95 8.45ms  p99 104ms  3 failed  4 workers"
        );
        for width in [80, 60, 40, 20, 5] {
            assert!(line(&progress(), width).chars().count() <= width, "{width}");
        }
        assert_eq!(line(&progress(), 40), "0:12 of 1:00  1,234/s  3 failed");
    }

    #[test]
    fn waiting_names_who_is_there() {
        let waiting = Progress { state: "waiting", workers: [1, 3], present: vec!["w1".into()], ..progress() };
        assert_eq!(line(&waiting, 80), "waiting for workers, 1 of 3 there: w1");
    }

    #[test]
    fn the_start_line_says_what_begins() {
        let plan = fixture::plan();
        let text = "starting: open model, 100 iterations/s (fast_http_user), at most 1,000 open against http://127.0.0.1:8080 for 12 s";
        assert_eq!(start_line(&plan), text);
    }
}
