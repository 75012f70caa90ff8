//! Flags of `ld-worker`: how much it takes part for, where results wait, what it does without a master.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::target::{Options, Target};
use ld_tests::document::{and, closed, open, test};
use ld_tests::process::{Cluster, Process, command, free_port};
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, pause, under_load, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

fn target() -> (Target, String) {
    let target = Target::start(Options::default()).unwrap();
    let url = format!("http://{}/", target.addr());
    (target, url)
}

/// Workers with these flags beside the usual ones, by their number from 1.
fn cluster(document: &Value, address: &str, flags: &[&[&str]]) -> Cluster {
    let worker = |n: usize, state: &Path| {
        let mut command = command("ld-worker", state);
        command.args(flags[n - 1]);
        command
    };
    Cluster::launch(document, flags.len(), address, &[], |state| command("ld-master", state), worker)
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn a_worker_takes_part_for_no_more_users_than_it_says() {
    let (target, url) = target();
    let document = test(&url, &and(closed(60, 6.0), &json!({"wait_time": 0.1})));
    let mut split = cluster(&document, &address(), &[&["--max-users", "10"], &[]]);
    let (finished, summary) = split.finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
    let most: Vec<u64> = summary.list("/workers").iter().map(|worker| worker["users_max"].as_u64().unwrap()).collect();
    assert_eq!(most.iter().sum::<u64>(), 60);
    assert!((8..=10).contains(most.iter().min().unwrap()), "{most:?}");
    // nobody is moved to where there is no room
    let users: Vec<f64> = summary.list("/timeline").iter().map(|row| row["users"].as_f64().unwrap()).collect();
    assert!(users[1..5].iter().all(|users| (59.0..61.0).contains(users)), "{users:?}");
    let arrived = target.counts().total;
    assert_eq!(summary.ended(), arrived);

    let mut refused = cluster(&document, &address(), &[&["--max-users", "10"], &["--max-users", "20"]]);
    refused.master.wait(LIMIT).expect_code(3).expect_said("needs 60 connections at once").expect_said("= 30");
    assert_eq!(target.stop().unwrap().total, arrived, "nothing was run");
}

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[test]
fn results_wait_in_the_spool_for_a_master_that_comes_back() {
    let (target, url) = target();
    let address = address();
    let document = test(&url, &open(300.0, 14.0));
    let spools: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let paths: Vec<&str> = spools.iter().map(|spool| spool.path().to_str().unwrap()).collect();
    let mut cluster = cluster(&document, &address, &[&["--spool", paths[0]], &["--spool", paths[1]]]);
    under_load(&target, 900);
    cluster.master.signal(Signal::KILL);
    cluster.master.wait(LIMIT);
    pause(Duration::from_secs(5));
    let waiting: Vec<usize> = spools.iter().map(|spool| files(spool.path())).collect();
    assert!(waiting.iter().all(|n| *n >= 3), "{waiting:?} frames after 5 s without a master");
    let mut again = command("ld-master", cluster.folder.path());
    again.args(["--bind", &address, "--expected-workers", "2", "run", "test.json", "--summary", "summary.json"]);
    cluster.master = Process::start("ld-master", again);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
    assert_eq!(summary.ended(), target.stop().unwrap().total);
    assert_eq!((summary.count("/conservation/due"), summary.count("/conservation/lost")), (300 * 14, 0));
    let left: Vec<usize> = spools.iter().map(|spool| files(spool.path())).collect();
    assert_eq!(left, [0, 0], "what was counted is removed");
}

/// A worker of three is killed, maybe 3 s after its master, and started again on its spool, as is the master then.
#[track_caller]
fn inherited(master_dies: bool) {
    let (target, url) = target();
    let address = address();
    let document = test(&url, &open(600.0, 14.0));
    let spools: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let paths: Vec<&str> = spools.iter().map(|spool| spool.path().to_str().unwrap()).collect();
    let flags: Vec<[&str; 2]> = paths.iter().map(|path| ["--spool", path]).collect();
    let flags: Vec<&[&str]> = flags.iter().map(|flags| &flags[..]).collect();
    let mut cluster = cluster(&document, &address, &flags);
    under_load(&target, 1_800);
    if master_dies {
        cluster.master.signal(Signal::KILL);
        cluster.master.wait(LIMIT);
        pause(Duration::from_secs(3));
    }
    cluster.workers[1].signal(Signal::KILL);
    cluster.workers[1].wait(LIMIT);
    let mut next = command("ld-worker", cluster.folder.path());
    next.args(["--master", &address, "--name", "next", "--cores", "1", "--spool", paths[1]]);
    cluster.workers[1] = Process::start("ld-worker next", next);
    if master_dies {
        let mut again = command("ld-master", cluster.folder.path());
        again.args(["--bind", &address, "--expected-workers", "3", "run", "test.json", "--summary", "summary.json"]);
        cluster.master = Process::start("ld-master", again);
    }
    cluster.workers[1].line_with("what it left in ");
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    let seen = target.stop().unwrap().total;
    summary.check_bounds(seen);
    let missing = seen - summary.ended() - summary.count("/conservation/in_flight");
    let lost = summary.count("/conservation/lost");
    // no more than what it did since its last whole second, of 200/s; and as much as could follow its last word
    let could = if master_dies { 500 } else { 0 };
    assert!(missing <= 250 && lost <= missing + could + 60, "{missing} of {lost} did arrive: {}", summary.0["losses"]);
    let told = summary.list("/events").iter().any(|event| event["what"].as_str().unwrap().contains("from its spool"));
    assert!(told, "{}", summary.0["events"]);
    let left: Vec<usize> = spools.iter().map(|spool| files(spool.path())).collect();
    assert_eq!(left, [0, 0, 0], "what was counted is removed");
}

#[test]
fn what_a_killed_worker_left_the_next_one_delivers() {
    inherited(false);
}

#[test]
fn what_a_killed_worker_left_without_a_master_the_next_one_delivers() {
    inherited(true);
}

/// A master that is killed for good in the fourth second of a test of ten, under a policy.
fn forsaken(policy: &str) -> (u64, Summary) {
    let (target, url) = target();
    let load = and(open(200.0, 10.0), &json!({"on_master_loss": policy}));
    let flags: &[&str] = &["--master-timeout", "3s"];
    let mut cluster = cluster(&test(&url, &load), &address(), &[flags, flags]);
    under_load(&target, 700);
    cluster.master.signal(Signal::KILL);
    cluster.master.wait(LIMIT);
    for worker in &mut cluster.workers {
        worker.wait(LIMIT).expect_code(3).expect_said("nothing was heard of the master");
    }
    wait_for("ends of connections", PATIENCE, || (target.counts().open_connections == 0).then_some(()));
    let mut rescue = command("ld-master", cluster.folder.path());
    rescue.args(["runs", "rescue", "latest", "--summary", "rescued.json", "--html", "rescued.html"]);
    Process::start("ld-master runs rescue", rescue).wait(LIMIT).expect_code(0).expect_said("the master ended before");
    let html = std::fs::read_to_string(cluster.folder.path().join("rescued.html")).unwrap();
    assert!(html.contains("the master ended before the run did") && html.contains("</html>"));
    (target.stop().unwrap().total, Summary::read(&cluster.folder.path().join("rescued.json")).unwrap())
}

#[test]
fn without_a_master_the_test_is_stopped_or_finished() {
    let (seen, rescued) = forsaken("stop");
    // it goes on for as long as the master may come back
    assert!((1_000..1_700).contains(&seen), "{seen} of 2,000");
    assert!(rescued.ended() <= 1_000 && rescued.ended() >= 200, "{}", rescued.ended());
    rescued.check_conservation();
    let (seen, _) = forsaken("finish");
    assert!((1_980..=2_000).contains(&seen), "{seen} of 2,000");
}

#[test]
fn a_master_that_is_not_there_is_named_once_and_awaited() {
    let (state, address) = (tempfile::tempdir().unwrap(), address());
    let mut worker = command("ld-worker", state.path());
    worker.args(["--master", &address, "--tls", "off", "--master-timeout", "3s"]);
    let mut worker = Process::start("ld-worker", worker);
    let finished = worker.wait(LIMIT);
    finished.expect_code(3).expect_said(&format!("nothing was heard of the master {address} for 3 s"));
    let said = finished.stderr.matches(&format!("no connection to the master {address}: ")).count();
    assert_eq!(said, 1, "{}", finished.stderr);
}
