//! Scenarios, what users do first and last, and what is done once a test: exact counts at the target.

use ld_master::target::{Law, Options, Target};
use ld_tests::process::Cluster;
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

fn target() -> Target {
    let latency = Law::Fixed(Duration::from_millis(5));
    Target::start(Options { latency, keep_arrivals: true, ..Options::default() }).expect("loopback has free ports")
}

/// How often each path was asked for.
fn paths(target: &Target) -> BTreeMap<String, u64> {
    let mut paths = BTreeMap::new();
    for arrival in target.arrivals() {
        *paths.entry(arrival.path).or_default() += 1;
    }
    paths
}

/// Users, arrivals and users without hooks, between a setup and a teardown.
fn document(target: &Target, more: &Value) -> Value {
    let get = |path: &str| json!([{"method": "get", "request_url": path}]);
    let mut test = json!({
        "user_detail_dict": {"user": "fast_http_user"}, "host": format!("http://{}", target.addr()),
        "test_time": 3, "warmup": 1, "teardown": get("/teardown?${var.len}"),
        "setup": [{"method": "get", "request_url": "/setup",
            "extract": [{"from": "header", "name": "content-length", "var": "len"}]}],
        "on_start": [{"method": "get", "request_url": "/login"}, {"method": "get", "request_url": "/profile"}],
        "on_stop": get("/logout"),
        "scenarios": [
            {"name": "closed", "user_count": 20, "spawn_rate": 100, "wait_time": 0.1, "tasks": get("/closed/${var.len}")},
            {"name": "plain", "on_start": null, "on_stop": null, "user_count": 5, "spawn_rate": 50, "wait_time": 0.2,
                "tasks": get("/plain")},
            {"name": "open", "arrival_rate": 50, "tasks": get("/open")},
        ],
    });
    ld_tests::document::merge(&mut test, more);
    json!({"load_density": [["LD_start_test", test]]})
}

/// Requests of a phase whose end is known, after a look at its ledger.
#[track_caller]
fn ended(summary: &Summary, phase: &str) -> u64 {
    let count = |key: &str| summary.count(&format!("/{phase}/{key}"));
    let known = count("succeeded") + count("failed");
    assert_eq!(count("requests_started"), known + count("in_flight") + count("lost"), "{}", summary.0[phase]);
    known
}

#[test]
fn hooks_run_once_each_and_are_counted_apart() {
    let target = target();
    let mut cluster = Cluster::start(&document(&target, &json!({})), 3, &[]);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0).expect_said("hooks, apart");
    summary.check_conservation();
    let seen = paths(&target);
    let times = |path: &str| seen.get(path).copied().unwrap_or_default();
    assert_eq!((times("/setup"), times("/teardown"), times("/open")), (1, 1, 150));
    // 20 users, and as many as the arrivals needed
    let users = times("/login");
    assert!(users > 20, "{seen:?}");
    assert_eq!((times("/profile"), times("/logout")), (users, users));
    assert_eq!(ended(&summary, "hooks"), 2 + 3 * users);
    // an answer of the target has 2 bytes: that is what setup extracted for all
    let load = times("/closed/2") + times("/plain") + times("/open");
    assert_eq!(ended(&summary, "conservation") + ended(&summary, "warmup"), load, "{seen:?}");
    assert_eq!(summary.0["run"]["model"], "mixed");
}

#[test]
fn a_setup_that_fails_keeps_the_test_from_running() {
    let target = target();
    let step = json!([{"method": "get", "request_url": "/setup", "name": "prepare",
        "assertions": [{"type": "contains", "value": "never"}]}]);
    let mut cluster = Cluster::start(&document(&target, &json!({"setup": step})), 2, &[]);
    cluster.master.wait(LIMIT).expect_code(1).expect_said("step 1 of 1, `prepare` (GET)");
    assert_eq!(paths(&target), BTreeMap::from([("/setup".into(), 1), ("/teardown".into(), 1)]));
}

#[test]
fn a_killed_worker_keeps_nobody_from_the_teardown() {
    let target = target();
    let mut cluster = Cluster::start(&document(&target, &json!({"test_time": 8})), 3, &[]);
    wait_for("load", PATIENCE, || (target.counts().total >= 400).then_some(()));
    cluster.workers[1].signal(Signal::KILL);
    cluster.master.wait(LIMIT).expect_said("w2");
    let summary = Summary::read(&cluster.summary_path()).expect("a run that lost a worker has a result");
    summary.check_conservation();
    let seen = paths(&target);
    assert_eq!(seen.get("/teardown"), Some(&1), "{seen:?}");
    let known = ["conservation", "warmup", "hooks"].map(|phase| ended(&summary, phase)).iter().sum::<u64>();
    let lost = ["conservation", "warmup", "hooks"].map(|phase| summary.count(&format!("/{phase}/lost")));
    let all: u64 = seen.values().sum();
    assert!((known..=known + lost.iter().sum::<u64>()).contains(&all), "{all} seen, {known} known, {lost:?} lost");
}
