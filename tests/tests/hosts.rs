//! Workers on hosts of their own (network namespaces), nginx as target, and a starved generator.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_tests::cgroup::CpuGroup;
use ld_tests::document::{and, closed, open, test};
use ld_tests::netns::{HUB, Hosts};
use ld_tests::nginx::Nginx;
use ld_tests::process::{Cluster, Process, command, command_in};
use ld_tests::summary::{Summary, count_above};
use ld_tests::wait::PATIENCE;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// Runs a document with one worker a host, against a target in the hub. Returns the summary and the
/// target's counts.
fn run_on(hosts: &Hosts, workers: usize, load: &Value, latency: &str) -> (Summary, Value) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command_in(&hosts.hub(), "ld-master", folder.path());
    command.args(["target", "--listen", &format!("{HUB}:8080"), "--latency", latency]);
    let mut target = Process::start("ld-master target", command);
    target.line_with("listening");
    let document = test(&format!("http://{HUB}:8080/"), load);
    let mut cluster = Cluster::launch(
        &document,
        workers,
        &format!("{HUB}:5557"),
        &[],
        |state| command_in(&hosts.hub(), "ld-master", state),
        |n, state| command_in(&hosts.worker(n), "ld-worker", state),
    );
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
    target.signal(Signal::INT);
    let out = target.wait(PATIENCE).expect_code(0).stdout.clone();
    let counts = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    (summary, counts)
}

#[test]
fn lines_per_client_address_are_the_workers_requests() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let hosts = Hosts::new("a", 3);
    let (summary, counts) = run_on(&hosts, 3, &closed(15, 5.0), "uniform:2ms..10ms");
    for n in 1..=3 {
        let worker = summary.list("/workers").iter().find(|w| w["name"] == format!("w{n}")).unwrap();
        assert_eq!(counts["by_client"][Hosts::address(n)], worker["requests"], "w{n}: {counts}");
        assert!(worker["requests"].as_u64().unwrap() > 100);
    }
}

#[test]
fn the_p99_of_a_cluster_with_one_slow_link_is_that_of_all_samples() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let mut hosts = Hosts::new("b", 3);
    hosts.delay(3, 100);
    let (summary, counts) = run_on(&hosts, 3, &open(300.0, 6.0), "fixed:2ms");
    let of = |n: usize| {
        let worker = summary.list("/workers").iter().find(|w| w["name"] == format!("w{n}")).unwrap();
        worker["requests"].as_u64().unwrap()
    };
    assert_eq!(counts["by_client"][Hosts::delayed_address(3)], of(3));
    assert_eq!(counts["by_client"][Hosts::address(1)], of(1));
    // on a busy machine the end may overtake the last arrival of somebody
    let dropped = summary.count("/conservation/dropped");
    let shares = [of(1), of(2), of(3)];
    assert!(shares.iter().all(|share| (598..=600).contains(share)), "rates are split exactly: {shares:?}");
    assert_eq!(shares.iter().sum::<u64>() + dropped, 1800);
    // a third of all samples came over the slow link, and a mean of p99s would be far below
    let all = summary.histogram("hit");
    assert_eq!(all.len() + dropped, 1800);
    let slow = count_above(&all, 99);
    assert!(slow.abs_diff(600) <= 30, "{slow} samples above 99 ms");
    let printed = summary.number("/latency_overall/p99_ms");
    assert!(printed >= 100.0, "p99 {printed} ms");
    assert!((printed - all.value_at_quantile(0.99) as f64 / 1e3).abs() < 0.01, "p99 {printed} ms");
    assert!(summary.number("/latency_overall/p50_ms") < 50.0);
}

#[test]
fn a_starved_worker_is_inconclusive_and_a_free_one_passes() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let Some(group) = CpuGroup::new(20) else { return ld_tests::skip("no CPU group can be made") };
    let target = ld_master::target::Target::start(ld_master::target::Options::default()).unwrap();
    for starved in [true, false] {
        // a free one is not to be the limit of anything, whatever else this machine does
        let load = if starved { closed(20, 6.0) } else { open(200.0, 6.0) };
        let load = and(load, &json!({"thresholds": ["p95 < 10s"]}));
        let document = test(&format!("http://{}/", target.addr()), &load);
        let mut cluster = Cluster::start_with(&document, 1, &[], |_, state| {
            let worker = command("ld-worker", state);
            if !starved {
                return worker;
            }
            group.confine(&worker, state)
        });
        let (finished, summary) = cluster.finish(LIMIT);
        finished.expect_code(if starved { 4 } else { 0 });
        summary.check_conservation();
        let marked = summary.list("/timeline").iter().filter(|r| r["generator_bound"] == true).count();
        if starved {
            assert!(marked >= 4, "{marked} seconds marked");
            assert_eq!(summary.0["verdict"]["outcome"], "inconclusive");
        }
    }
}

fn against_nginx(workers: usize, users: u64, seconds: f64) {
    let Some(nginx) = Nginx::start() else { return ld_tests::skip("nginx is not installed") };
    let document = test(&format!("http://127.0.0.1:{}/", nginx.port), &closed(users, seconds));
    let mut cluster = Cluster::start(&document, workers, &[]);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
    let lines = nginx.lines();
    assert_eq!(lines.len() as u64, summary.count("/totals/requests"), "{workers} workers");
    assert_eq!(summary.count("/conservation/in_flight"), 0);
    // nginx stamps the end of a request, in wall-clock seconds; ours count from the start instant
    let stamps: Vec<f64> = lines.iter().filter_map(|l| l.split(' ').nth(1)?.parse().ok()).collect();
    let first = stamps.iter().copied().fold(f64::INFINITY, f64::min);
    let started = summary.timeline("started");
    for (second, ours) in started.iter().enumerate().take(seconds as usize - 1).skip(1) {
        let from = first + second as f64;
        let theirs = stamps.iter().filter(|s| (from..from + 1.0).contains(*s)).count() as f64;
        assert!((ours - theirs).abs() <= 50.0 + 0.1 * theirs, "second {second}: {ours} started, {theirs} in the log");
    }
}

#[test]
fn nginx_log_local() {
    against_nginx(0, 200, 5.0);
}

#[test]
fn nginx_log_three_workers() {
    against_nginx(3, 200, 5.0);
}

#[test]
fn nginx_log_four_workers() {
    against_nginx(4, 200, 5.0);
}

#[test]
#[ignore = "long: tests/run --long"]
fn nginx_log_twenty_seconds() {
    for workers in [0, 1, 3, 4] {
        against_nginx(workers, 200, 20.0);
    }
}
