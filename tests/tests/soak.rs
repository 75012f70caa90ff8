//! Half an hour at half the top rate: memory stays, no frame is late, counts are exact.
//!
//! `LD_SOAK_MINUTES=5 cargo test -p ld-tests --test soak -- --ignored --nocapture` shows the counts in less; memory takes the half hour.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "figures for people")]
#![expect(clippy::disallowed_methods, reason = "a shorter time is given by the environment")]

use ld_tests::document::{and, closed, open, test};
use ld_tests::process::{Cluster, Process, command, free_port};
use ld_tests::summary::Summary;
use ld_tests::wait::PATIENCE;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const WORKERS: usize = 3;
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// A target of its own process, which keeps nothing but counts.
struct Target(Process, String);

impl Target {
    fn start(state: &std::path::Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = command("ld-master", state);
        command.args(["target", "--listen", &address]);
        let mut process = Process::start("ld-master target", command);
        process.line_with("listening");
        Self(process, format!("http://{address}/"))
    }

    fn total(mut self) -> u64 {
        self.0.signal(Signal::INT);
        let out = self.0.wait(PATIENCE).expect_code(0).stdout.clone();
        serde_json::from_str::<Value>(out.lines().last().unwrap()).unwrap()["total"].as_u64().unwrap()
    }
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn top_rate(state: &std::path::Path) -> f64 {
    let target = Target::start(state);
    let (finished, summary) =
        Cluster::start(&test(&target.1, &closed(60, 10.0)), WORKERS, &[]).finish(Duration::from_mins(2));
    finished.expect_code(0);
    summary.ended() as f64 / 10.0
}

/// The middle of these, KiB.
fn median(mut of: Vec<u64>) -> f64 {
    of.sort_unstable();
    of[of.len() / 2] as f64
}

fn soak(minutes: f64) {
    let state = tempfile::tempdir().unwrap();
    let rate = (top_rate(state.path()) / 2.0).round();
    let target = Target::start(state.path());
    let seconds = minutes * 60.0;
    // a machine that stands still for a moment drops arrivals instead of opening thousands of connections
    let load = and(open(rate, seconds), &json!({"max_in_flight": 300}));
    let mut cluster = Cluster::start(&test(&target.1, &load), WORKERS, &[]);
    let pids: Vec<(String, u32)> = std::iter::once(&cluster.master)
        .chain(&cluster.workers)
        .enumerate()
        .map(|(n, process)| (if n == 0 { "master".into() } else { format!("w{n}") }, process.pid()))
        .collect();
    let begun = Instant::now();
    let mut seen = vec![Vec::new(); pids.len()];
    while begun.elapsed().as_secs_f64() < seconds - 5.0 {
        std::thread::sleep(SAMPLE_EVERY);
        assert!(cluster.master.runs(), "{}", cluster.master.stderr());
        for (list, (_, pid)) in seen.iter_mut().zip(&pids) {
            list.push(resident(*pid));
        }
    }
    let (finished, summary) = cluster.finish(Duration::from_mins(2));
    finished.expect_code(0);
    check(&summary, (rate, seconds), target.total());
    let mut grown = Vec::new();
    for ((name, _), list) in pids.iter().zip(&seen) {
        // the first third fills what is bounded: kept records, rows of the timeline
        let third = list.len() / 3;
        let (before, after) = (median(list[third..2 * third].to_vec()), median(list[2 * third..].to_vec()));
        let most = list.iter().max().unwrap();
        eprintln!("{name}: {before:.0} KiB, then {after:.0} KiB, at most {most} KiB");
        if (after / before - 1.0).abs() > 0.02 {
            grown.push((name, list));
        }
    }
    assert!(grown.is_empty(), "memory did not stay, KiB every 5 s: {grown:?}");
}

fn check(summary: &Summary, (rate, seconds): (f64, f64), arrived: u64) {
    summary.check_conservation();
    assert_eq!(summary.count("/conservation/lost"), 0);
    assert_eq!(summary.ended() + summary.count("/conservation/in_flight"), arrived);
    let (due, dropped) = (summary.count("/conservation/due"), summary.count("/conservation/dropped"));
    assert_eq!(due, (rate * seconds) as u64);
    assert!(dropped as f64 <= due as f64 * 0.02, "{dropped} of {due} were dropped");
    let late = summary.list("/timeline").iter().filter(|row| row["coarse"].is_number()).count();
    assert_eq!(late, 0, "seconds whose frames were late");
    eprintln!("{rate}/s for {seconds} s: {} requests, as many arrived, {dropped} dropped", summary.ended());
}

#[test]
#[ignore = "half an hour: tests/run --long"]
fn memory_stays_and_counts_are_exact_for_half_an_hour() {
    soak(std::env::var("LD_SOAK_MINUTES").map_or(30.0, |text| text.parse().unwrap()));
}
