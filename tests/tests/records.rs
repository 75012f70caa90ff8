//! Single requests: the file of all of them, and the kept sample, over real processes.

use ld_master::target::{Law, Options, Target};
use ld_tests::document::{and, closed, open, test};
use ld_tests::process::Cluster;
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

fn target() -> (Target, String) {
    let latency = Law::Fixed(Duration::from_millis(5));
    let target = Target::start(Options { latency, ..Options::default() }).expect("loopback has free ports");
    let url = format!("http://{}/", target.addr());
    (target, url)
}

/// Rows of the file, by worker; every one must be whole.
fn rows_by_worker(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).expect("the run made the file");
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a line is an object");
        assert_eq!(
            (&row["name"], &row["status_code"], &row["outcome"]),
            (&"hit".into(), &"200".into(), &"success".into())
        );
        *rows.entry(row["worker"].as_str().expect("a text").to_owned()).or_default() += 1;
    }
    rows
}

#[test]
fn every_request_of_three_workers_is_in_the_file() {
    let (target, url) = target();
    let load = and(closed(30, 4.0), &json!({"warmup": 1, "records": {"all": "all.jsonl", "keep": 100}}));
    let mut cluster = Cluster::start(&test(&url, &load), 3, &[]);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0).expect_said("wrote all.jsonl");
    summary.check_conservation();
    let requests = summary.count("/totals/requests");
    let rows = rows_by_worker(&cluster.folder.path().join("all.jsonl"));
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["w1", "w2", "w3"]);
    assert_eq!(rows.values().sum::<u64>(), requests);
    assert_eq!(summary.0["records"]["all"], json!({"file": "all.jsonl", "written": requests, "missed": 0}));
    assert_eq!((summary.count("/records/kept"), summary.count("/records/seen")), (100, requests));
    let warmup = summary.count("/warmup/requests_started");
    assert_eq!(target.stop().expect("no log was asked for").total, requests + warmup);
}

#[test]
fn what_a_killed_worker_had_not_sent_is_counted_as_missing() {
    let (target, url) = target();
    let load = and(open(2_000.0, 6.0), &json!({"records": {"all": "all.jsonl"}}));
    let mut cluster = Cluster::start(&test(&url, &load), 3, &[]);
    wait_for("load", PATIENCE, || (target.counts().total >= 4_000).then_some(()));
    cluster.workers[1].signal(Signal::KILL);
    cluster.master.wait(LIMIT);
    let summary = Summary::read(&cluster.summary_path()).expect("a run that lost a worker has a result");
    summary.check_conservation();
    let rows: u64 = rows_by_worker(&cluster.folder.path().join("all.jsonl")).values().sum();
    assert_eq!(summary.count("/records/all/written"), rows);
    assert_eq!(rows + summary.count("/records/all/missed"), summary.count("/totals/requests").max(rows));
    assert!(summary.count("/records/kept") <= summary.count("/records/seen"));
}
