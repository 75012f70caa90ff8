//! Workers that die, freeze, are cut off, come back or join while a test runs: the load is soon back at
//! its plan, and the result says what is not known.

use ld_master::target::{Law, Options, Target};
use ld_tests::document::{and, closed, open, test};
use ld_tests::netns::{HUB, Hosts};
use ld_tests::process::{Cluster, Process, command, command_in};
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, pause, under_load, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);
/// After a fault the load is back at its plan within so many seconds.
const BACK_WITHIN: u64 = 5;

fn target(options: Options) -> (Target, String) {
    let latency = Law::Fixed(Duration::from_millis(20));
    let target = Target::start(Options { latency, ..options }).expect("loopback has free ports");
    let url = format!("http://{}/", target.addr());
    (target, url)
}

/// Every request is known: a run without a killed worker.
#[track_caller]
fn nothing_is_lost(summary: &Summary, seen: u64) {
    summary.check_bounds(seen);
    assert_eq!(summary.count("/conservation/lost"), 0, "{}", summary.0["losses"]);
    assert_eq!(seen, summary.count("/conservation/requests_started"));
}

/// Starts by second of the run.
fn starts(summary: &Summary) -> Vec<u64> {
    summary.list("/timeline").iter().map(|row| row["started"].as_u64().unwrap_or(0)).collect()
}

/// From `after` seconds on the load is as planned; `rate` a second.
#[track_caller]
fn is_back_at_plan(summary: &Summary, rate: u64, after: u64, seconds: u64) {
    let starts = starts(summary);
    for second in after..seconds {
        let started = starts.get(second as usize).copied().unwrap_or(0);
        // a pause of the machine moves starts into the next second; a share that is missing is a third or a quarter
        assert!(started * 100 >= rate * 85, "{started} of {rate} in second {second}: {starts:?}");
    }
    let all: u64 = starts.iter().take(seconds as usize).skip(after as usize).sum();
    assert!(all * 100 >= rate * (seconds - after) * 97, "{all} from second {after} on: {starts:?}");
}

fn second_of(summary: &Summary, what: &str) -> f64 {
    let events = summary.list("/events");
    let event = events.iter().find(|event| event["what"].as_str().is_some_and(|text| text.contains(what)));
    event.unwrap_or_else(|| panic!("no event says `{what}`: {events:?}"))["at_s"].as_f64().unwrap_or(0.0)
}

#[test]
fn open_load_of_a_killed_worker_is_taken_over() {
    let (target, url) = target(Options::default());
    let mut cluster = Cluster::start(&test(&url, &open(600.0, 14.0)), 3, &[]);
    under_load(&target, 1_200);
    cluster.workers[2].signal(Signal::KILL);
    let killed_at = target.counts().total / 600;
    cluster.master.wait(LIMIT);
    let summary = Summary::read(&cluster.summary_path()).expect("a run that lost a worker has a result");
    summary.check_bounds(target.stop().expect("no log was asked for").total);
    is_back_at_plan(&summary, 600, killed_at + BACK_WITHIN, 14);
    // 1.1 s of its share, and what was open
    let lost = summary.count("/conservation/lost");
    assert!(lost <= 220 + 20, "{lost} lost: {}", summary.0["losses"]);
    assert_eq!(summary.count("/conservation/due"), 600 * 14);
    second_of(&summary, "w3's share goes to w");
}

/// Three workers on hosts of their own, one of which is cut off from the master for a while.
fn cut_off(load: &Value, seconds: Duration) -> (Summary, u64) {
    let hosts = Hosts::new("loss", 3);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut command = command_in(&hosts.hub(), "ld-master", folder.path());
    command.args(["target", "--listen", &format!("{HUB}:8080"), "--latency", "fixed:20ms"]);
    let mut target = Process::start("ld-master target", command);
    target.line_with("listening");
    let mut cluster = Cluster::launch(
        &test(&format!("http://{HUB}:8080/"), load),
        3,
        &format!("{HUB}:5557"),
        &[],
        |state| command_in(&hosts.hub(), "ld-master", state),
        |n, state| command_in(&hosts.worker(n), "ld-worker", state),
    );
    cluster.master.line_with("running");
    pause(Duration::from_secs(4));
    hosts.cut(2, 5557);
    pause(seconds);
    hosts.heal(2);
    let (_, summary) = cluster.finish(LIMIT);
    target.signal(Signal::INT);
    let out = target.wait(PATIENCE).expect_code(0).stdout.clone();
    let counts: Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("counts in JSON");
    (summary, counts["total"].as_u64().expect("a count"))
}

#[test]
fn a_worker_that_is_cut_off_comes_back_with_what_it_measured() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let (summary, seen) = cut_off(&open(600.0, 24.0), Duration::from_secs(8));
    nothing_is_lost(&summary, seen);
    let taken_over = second_of(&summary, "w2's share goes to w");
    let back = second_of(&summary, "worker w2 is back");
    let shares = second_of(&summary, "w2 takes a share");
    assert!(taken_over < back && back <= shares, "{taken_over} {back} {shares}");
    is_back_at_plan(&summary, 600, taken_over as u64 + 2, 24);
    let w2 = summary.list("/workers").iter().find(|w| w["name"] == "w2").expect("w2 took part");
    assert_ne!(w2["state"], "lost");
    assert_eq!(summary.count("/conservation/due"), 600 * 24);
}

#[test]
fn a_frozen_worker_loses_nothing_and_its_share_comes_back() {
    let (target, url) = target(Options::default());
    let mut cluster = Cluster::start(&test(&url, &open(600.0, 18.0)), 3, &[]);
    under_load(&target, 1_200);
    cluster.workers[0].signal(Signal::STOP);
    pause(Duration::from_secs(6));
    cluster.workers[0].signal(Signal::CONT);
    let (_, summary) = cluster.finish(LIMIT);
    let counts = target.stop().expect("no log was asked for");
    nothing_is_lost(&summary, counts.total);
    let most = counts.by_second.iter().max().copied().unwrap_or(0);
    assert!(most <= 800, "{most} arrivals in one second of a plan of 600: {:?}", counts.by_second);
    let taken_over = second_of(&summary, "w1's share goes to w");
    is_back_at_plan(&summary, 600, taken_over as u64 + 2, 18);
}

#[test]
fn users_of_a_killed_worker_begin_anew_on_the_others() {
    let (target, url) = target(Options::default());
    let login = json!([{"method": "get", "request_url": format!("{url}login"), "name": "login"}]);
    let load = and(closed(60, 14.0), &json!({"on_start": login, "wait_time": 0.05}));
    let mut cluster = Cluster::start(&test(&url, &load), 3, &[]);
    under_load(&target, 600);
    let connections = || target.counts().open_connections;
    assert_eq!(wait_for("all users", PATIENCE, || Some(connections()).filter(|n| *n == 60)), 60);
    cluster.workers[1].signal(Signal::KILL);
    wait_for("users that end", PATIENCE, || (connections() < 60).then_some(()));
    for _ in 0..BACK_WITHIN * 50 {
        assert!(connections() <= 60, "{} users live", connections());
        pause(Duration::from_millis(20));
    }
    assert_eq!(connections(), 60);
    cluster.master.wait(LIMIT);
    let summary = Summary::read(&cluster.summary_path()).expect("a run that lost a worker has a result");
    let logins = target.counts().by_path.get("/login").copied().unwrap_or(0);
    assert_eq!(logins, 80, "each replacement logs in");
    summary.check_bounds(target.stop().expect("no log was asked for").total - logins);
}

#[test]
fn a_worker_that_joins_in_mid_run_gets_its_share() {
    let (target, url) = target(Options::default());
    let port = ld_tests::process::free_port();
    let address = format!("127.0.0.1:{port}");
    let mut cluster = Cluster::launch(
        &test(&url, &open(600.0, 12.0)),
        2,
        &address,
        &[],
        |state| command("ld-master", state),
        |_, state| command("ld-worker", state),
    );
    under_load(&target, 600);
    let mut late = command("ld-worker", cluster.folder.path());
    late.args(["--master", &address, "--name", "w3", "--cores", "1"]);
    let mut late = Process::start("ld-worker w3", late);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    late.wait(LIMIT).expect_code(0);
    nothing_is_lost(&summary, target.stop().expect("no log was asked for").total);
    is_back_at_plan(&summary, 600, 1, 12);
    assert_eq!(summary.count("/conservation/due"), 600 * 12);
    let third = summary.list("/workers").iter().find(|w| w["name"] == "w3").expect("w3 took part");
    assert!(third["requests"].as_u64().is_some_and(|n| n > 800), "{third}");
}

#[test]
fn degrade_goes_on_with_less_and_abort_ends_the_test() {
    let run = |policy: &str| {
        let (target, url) = target(Options::default());
        let load = and(open(300.0, 10.0), &json!({"on_worker_loss": policy}));
        let mut cluster = Cluster::start(&test(&url, &load), 3, &[]);
        under_load(&target, 600);
        cluster.workers[0].signal(Signal::KILL);
        let finished = cluster.master.wait(LIMIT);
        let code = finished.code;
        let summary = Summary::read(&cluster.summary_path()).expect("a run that lost a worker has a result");
        summary.check_bounds(target.stop().expect("no log was asked for").total);
        (code, summary)
    };
    let (_, summary) = run("degrade");
    let last = starts(&summary)[8];
    assert!((170..=230).contains(&last), "{last}");
    assert!(summary.count("/conservation/dropped") > 300, "{}", summary.0["conservation"]);
    let (code, summary) = run("abort");
    assert_eq!(code, Some(3), "{}", summary.0["verdict"]);
    assert!(summary.number("/run/duration_s") < 9.0);
}

#[test]
fn rows_that_exist_once_are_used_once_whatever_dies() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let rows: Vec<String> = (0..20_000).map(|n| format!("row{n}")).collect();
    let file = folder.path().join("rows.csv");
    std::fs::write(&file, format!("name\n{}\n", rows.join("\n"))).expect("the temporary folder is writable");
    let (target, url) = target(Options { keep_arrivals: true, ..Options::default() });
    let mut document = test(&format!("{url}${{csv.rows.name}}"), &closed(20, 10.0));
    document["load_density"][0][1]["csv_sources"] =
        json!([{"name": "rows", "file_path": file, "unique": true, "at_end": "stop_user"}]);
    document["load_density"][0][1]["on_missing_workers"] = json!("start");
    let mut cluster = Cluster::start(&document, 3, &[]);
    under_load(&target, 600);
    cluster.workers[2].signal(Signal::KILL);
    pause(Duration::from_secs(1));
    cluster.workers[1].signal(Signal::STOP);
    pause(Duration::from_secs(5));
    cluster.workers[1].signal(Signal::CONT);
    cluster.master.wait(LIMIT);
    let mut paths: Vec<String> = target.arrivals().into_iter().map(|arrival| arrival.path).collect();
    assert!(paths.len() > 1_000, "{}", paths.len());
    let all = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), all, "a row was used twice");
    let summary = Summary::read(&cluster.summary_path()).expect("a run that lost a worker has a result");
    summary.check_bounds(target.stop().expect("no log was asked for").total);
}

/// Kills the master in mid-run and starts the same command again after `away`.
fn killed_master(load: &Value, away: Duration) -> (Summary, ld_master::target::Counts, String) {
    let (target, url) = target(Options::default());
    let port = ld_tests::process::free_port();
    let address = format!("127.0.0.1:{port}");
    let master = |state: &std::path::Path| command("ld-master", state);
    let mut cluster =
        Cluster::launch(&test(&url, load), 3, &address, &[], master, |_, state| command("ld-worker", state));
    under_load(&target, 1_500);
    cluster.master.signal(Signal::KILL);
    cluster.master.wait(LIMIT);
    pause(away);
    let mut again = command("ld-master", cluster.folder.path());
    again.args(["--bind", &address, "--expected-workers", "3", "run", "test.json", "--summary", "summary.json"]);
    cluster.master = Process::start("ld-master", again);
    let (finished, summary) = cluster.finish(LIMIT);
    (summary, target.stop().expect("no log was asked for"), finished.stderr)
}

#[test]
fn a_master_that_is_killed_and_started_again_takes_its_run_up() {
    let (summary, counts, said) = killed_master(&open(600.0, 16.0), Duration::from_secs(2));
    nothing_is_lost(&summary, counts.total);
    assert_eq!(summary.count("/conservation/due"), 600 * 16);
    // it stays at its plan while there is no master, unless the machine has no time for either of them
    let dropped = summary.count("/conservation/dropped");
    assert!(dropped <= 600 * 16 / 50, "{dropped} dropped: {}", summary.0["conservation"]);
    second_of(&summary, "another master takes the run up");
    assert!(summary.list("/workers").iter().all(|worker| worker["state"] != "lost"), "{said}");
}

/// Four workers on hosts of their own. One is killed (if `kills`), one frozen for 10 s, one cut off from
/// the master for 15 s; then the master is killed and started again. `rate` a second for a minute.
fn everything_at_once(rate: f64, kills: bool) {
    let seconds = 60_u32;
    let hosts = Hosts::new("story", 4);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut command = command_in(&hosts.hub(), "ld-master", folder.path());
    command.args(["target", "--listen", &format!("{HUB}:8080"), "--latency", "fixed:20ms"]);
    let mut target = Process::start("ld-master target", command);
    target.line_with("listening");
    let document = test(&format!("http://{HUB}:8080/"), &open(rate, f64::from(seconds)));
    let address = format!("{HUB}:5557");
    let mut cluster = Cluster::launch(
        &document,
        4,
        &address,
        &[],
        |state| command_in(&hosts.hub(), "ld-master", state),
        |n, state| command_in(&hosts.worker(n), "ld-worker", state),
    );
    cluster.master.line_with("running");
    pause(Duration::from_secs(3));
    if kills {
        cluster.workers[0].signal(Signal::KILL);
    }
    pause(Duration::from_secs(6));
    cluster.workers[1].signal(Signal::STOP);
    pause(Duration::from_secs(10));
    cluster.workers[1].signal(Signal::CONT);
    pause(Duration::from_secs(2));
    hosts.cut(3, 5557);
    pause(Duration::from_secs(15));
    hosts.heal(3);
    pause(Duration::from_secs(4));
    cluster.master.signal(Signal::KILL);
    cluster.master.wait(LIMIT);
    pause(Duration::from_secs(2));
    let mut again = command_in(&hosts.hub(), "ld-master", cluster.folder.path());
    again.args(["--bind", &address, "--expected-workers", "4", "run", "test.json", "--summary", "summary.json"]);
    cluster.master = Process::start("ld-master", again);
    let (_, summary) = cluster.finish(LIMIT);
    target.signal(Signal::INT);
    let out = target.wait(PATIENCE).expect_code(0).stdout.clone();
    let counts: Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("counts in JSON");
    let seen = counts["total"].as_u64().expect("a count");
    let share = rate / 4.0;
    assert_eq!(summary.count("/conservation/due"), rate as u64 * u64::from(seconds));
    if kills {
        summary.check_bounds(seen);
        let lost = summary.count("/conservation/lost");
        assert!(lost as f64 <= share * 1.1 + share * 0.2, "{lost} lost of a share of {share}");
        second_of(&summary, "w1's share goes to w");
    } else {
        nothing_is_lost(&summary, seen);
    }
    for worker in ["w2", "w3"] {
        let taken_over = second_of(&summary, &format!("{worker}'s share goes to w"));
        let back = second_of(&summary, &format!("worker {worker} is back"));
        assert!(taken_over < back, "{worker}: {taken_over} {back}");
    }
    second_of(&summary, "another master takes the run up");
    // five faults: at most five seconds each to be back at the plan, and never again away from it
    let starts = starts(&summary);
    let away = (0..seconds as usize).filter(|second| (starts[*second] as f64) < rate * 0.9).count();
    assert!(away <= 15, "{away} seconds below the plan: {starts:?}");
}

#[test]
fn killed_frozen_cut_off_and_without_a_master_for_a_while() {
    if ld_tests::root_or_skip() {
        everything_at_once(600.0, true);
    }
}

#[test]
#[ignore = "two minutes, and more load than an unoptimized build makes: tests/run --long"]
fn the_same_at_4000_a_second_with_and_without_a_killed_worker() {
    if ld_tests::root_or_skip() {
        everything_at_once(4_000.0, true);
        everything_at_once(4_000.0, false);
    }
}
