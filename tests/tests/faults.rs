//! What dies, and what the result then says.

use ld_master::target::{Law, Options, Target};
use ld_tests::document::{closed, open, test};
use ld_tests::process::{Cluster, Process, command, free_port};
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, pause, under_load, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

fn target() -> (Target, String) {
    let latency = Law::Fixed(Duration::from_millis(20));
    let target = Target::start(Options { latency, ..Options::default() }).expect("loopback has free ports");
    let url = format!("http://{}/", target.addr());
    (target, url)
}

fn worker<'a>(summary: &'a Summary, name: &str) -> &'a Value {
    summary.list("/workers").iter().find(|w| w["name"] == name).unwrap_or_else(|| panic!("no worker {name}"))
}

fn a_killed_worker(load: &Value) {
    let (target, url) = target();
    let mut cluster = Cluster::start(&test(&url, load), 4, &[]);
    under_load(&target, 400);
    cluster.workers[2].signal(Signal::KILL);
    let finished = cluster.master.wait(LIMIT);
    let summary = Summary::read(&cluster.summary_path()).expect("a run that lost a worker has a result");
    for n in [0, 1, 3] {
        cluster.workers[n].wait(LIMIT);
    }
    summary.check_bounds(target.stop().expect("no log was asked for").total);
    let dead = worker(&summary, "w3");
    assert_eq!(dead["state"], "lost", "{dead}");
    assert!(dead["lost_at_s"].as_f64().is_some(), "{dead}");
    let losses = summary.list("/losses");
    assert!(losses.iter().any(|l| l["worker"] == "w3" && l["reason"].is_string()), "{losses:?}");
    for name in ["w1", "w2", "w4"] {
        assert_eq!(worker(&summary, name)["state"], "ok", "{name}");
    }
    finished.expect_said("w3");
}

#[test]
fn a_worker_killed_under_open_load_is_a_stated_loss() {
    a_killed_worker(&open(400.0, 8.0));
}

#[test]
fn a_worker_killed_under_closed_load_is_a_stated_loss() {
    a_killed_worker(&closed(20, 8.0));
}

#[test]
fn all_workers_killed_is_exit_3() {
    let (target, url) = target();
    let mut cluster = Cluster::start(&test(&url, &closed(10, 60.0)), 2, &[]);
    under_load(&target, 200);
    for worker in &mut cluster.workers {
        worker.signal(Signal::KILL);
    }
    cluster.master.wait(LIMIT).expect_code(3);
    if let Ok(summary) = Summary::read(&cluster.summary_path()) {
        summary.check_bounds(target.stop().expect("no log was asked for").total);
    }
}

#[test]
fn a_worker_told_to_end_says_goodbye_and_loses_nothing() {
    let (target, url) = target();
    let mut cluster = Cluster::start(&test(&url, &open(400.0, 8.0)), 3, &[]);
    under_load(&target, 400);
    cluster.workers[1].signal(Signal::TERM);
    cluster.workers[1].wait(LIMIT);
    cluster.master.wait(LIMIT);
    let summary = Summary::read(&cluster.summary_path()).expect("a run that a worker left has a result");
    let seen = target.stop().expect("no log was asked for").total;
    summary.check_bounds(seen);
    assert_eq!(summary.count("/conservation/lost"), 0);
    assert_eq!(seen, summary.count("/conservation/requests_started"));
    assert_eq!(worker(&summary, "w2")["state"], "left");
}

/// Workers of a master that is gone stop their load, and end, by themselves.
fn without_master(signal: Signal) {
    let (target, url) = target();
    let mut cluster = Cluster::start_with(&test(&url, &closed(10, 300.0)), 2, &[], |_, state| {
        let mut command = command("ld-worker", state);
        command.args(["--master-timeout", "4s"]);
        command
    });
    under_load(&target, 300);
    cluster.master.signal(signal);
    cluster.master.wait(LIMIT);
    for worker in &mut cluster.workers {
        let finished = worker.wait(LIMIT);
        if signal == Signal::KILL {
            finished.expect_code(3).expect_said("master");
        }
    }
    let settled = target.counts().total;
    pause(Duration::from_millis(300));
    assert_eq!(target.counts().total, settled, "load after the workers ended");
    assert_eq!(
        wait_for("closed connections", PATIENCE, || Some(target.counts().open_connections).filter(|n| *n == 0)),
        0
    );
}

#[test]
fn workers_of_a_killed_master_stop_by_themselves() {
    without_master(Signal::KILL);
}

#[test]
fn workers_of_a_terminated_master_end_with_it() {
    without_master(Signal::TERM);
}

#[test]
fn a_worker_without_a_master_gives_up_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = command("ld-worker", folder.path());
    command.args(["--master", &address, "--master-timeout", "2s"]);
    Process::start("ld-worker", command).wait(LIMIT).expect_code(3).expect_said(&address);
}

#[test]
fn a_frozen_worker_sends_no_burst_and_is_counted_once() {
    let (target, url) = target();
    let mut cluster = Cluster::start(&test(&url, &open(300.0, 10.0)), 3, &[]);
    under_load(&target, 300);
    cluster.workers[0].signal(Signal::STOP);
    pause(Duration::from_secs(5));
    cluster.workers[0].signal(Signal::CONT);
    cluster.master.wait(LIMIT);
    let summary = Summary::read(&cluster.summary_path()).expect("a run with a frozen worker has a result");
    let counts = target.stop().expect("no log was asked for");
    summary.check_bounds(counts.total);
    let most = counts.by_second.iter().max().copied().unwrap_or(0);
    assert!(most <= 450, "{most} arrivals in one second of a plan of 300: {:?}", counts.by_second);
}
