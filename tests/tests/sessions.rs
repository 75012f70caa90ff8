//! Faults at full size, seen by a server with log-ins: 300 users on three workers, and 100,000 rows
//! that exist once. The server counts sessions, log-ins and rows for itself.

use ld_shared::boot::clock;
use ld_shared::time::Mono;
use ld_tests::document::{and, closed};
use ld_tests::netns::{HUB, Hosts};
use ld_tests::process::{Cluster, Finished, Process, command, command_in, free_port};
use ld_tests::sessions::{Book, Sessions};
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, pause, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(2);
const LATENCY: Duration = Duration::from_millis(20);
const USERS: u64 = 300;
/// The users of one of three workers.
const SHARE: u64 = 100;
/// After a loss all users are there again within this time.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// What was done is counted after this time: the rest of its second, and its frame's way.
const COUNTED: Duration = Duration::from_millis(2_500);
const PORT: u16 = 5557;

/// Users that log in, look at pages for so long, and log out.
fn document(url: &str, seconds: f64, more: &Value) -> Value {
    let authorized = json!({"Authorization": "Bearer ${var.token}"});
    let test = json!({
        "user_detail_dict": {"user": "fast_http_user"},
        "host": url,
        "wait_time": 0.2,
        "on_start": [{"method": "get", "request_url": "/login", "name": "log in",
            "extract": [{"from": "json_path", "path": "token", "var": "token"}]}],
        "on_stop": [{"method": "get", "request_url": "/logout", "name": "log out", "headers": authorized}],
        "tasks": [{"method": "get", "request_url": "/page", "name": "page", "headers": authorized}],
    });
    json!({"load_density": [["LD_start_test", and(and(test, &closed(USERS, seconds)), more)]]})
}

/// Three workers that make load, and the server that they load.
struct Scene {
    hosts: Option<Hosts>,
    server: Sessions,
    cluster: Cluster,
    address: String,
    _files: TempDir,
}

impl Scene {
    /// On loopback; or, by the name of a test, each worker on a host of its own.
    fn start(hosts: Option<&str>, seconds: f64, more: impl FnOnce(&Path) -> Value) -> Self {
        let hosts = hosts.map(|tag| Hosts::new(tag, 3));
        let server = match &hosts {
            Some(hosts) => Sessions::on(hosts.listen(8080), LATENCY),
            None => Sessions::start(LATENCY),
        };
        let address = match &hosts {
            Some(_) => format!("{HUB}:{PORT}"),
            None => format!("127.0.0.1:{}", free_port()),
        };
        let files = tempfile::tempdir().expect("the temporary folder is writable");
        let document = document(&server.url(), seconds, &more(files.path()));
        let cluster = Cluster::launch(
            &document,
            3,
            &address,
            &[],
            |state| Self::command(hosts.as_ref().map(Hosts::hub), "ld-master", state),
            |n, state| {
                let mut worker = Self::command(hosts.as_ref().map(|hosts| hosts.worker(n)), "ld-worker", state);
                worker.args(["--master-timeout", "15s"]);
                worker
            },
        );
        let scene = Self { hosts, server, cluster, address, _files: files };
        wait_for("all users", PATIENCE, || (scene.server.live() == USERS).then_some(()));
        // the second of the last log-in is over and its frame is counted: what a dead worker did after that nobody knows
        pause(COUNTED);
        scene
    }

    fn command(namespace: Option<String>, name: &str, state: &Path) -> std::process::Command {
        namespace.map_or_else(|| command(name, state), |namespace| command_in(&namespace, name, state))
    }

    /// Waits for the end of the run, and holds its counts against the server's.
    #[track_caller]
    fn end(&mut self) -> (Finished, Summary, Book) {
        let finished = self.cluster.master.wait(LIMIT);
        for worker in &mut self.cluster.workers {
            worker.wait(LIMIT);
        }
        let (out, err) = (&finished.stdout, &finished.stderr);
        let summary = Summary::read(&self.cluster.summary_path());
        let summary = summary.unwrap_or_else(|why| panic!("no summary: {why}\n{out}\n{err}"));
        wait_for("ends of all sessions", PATIENCE, || (self.server.live() == 0).then_some(()));
        let book = self.server.book();
        assert_eq!((book.twice, book.strangers), (0, 0), "every user logs in, once\n{out}\n{err}");
        summary.check_bounds(book.pages);
        let hooks = |key: &str| summary.count(&format!("/hooks/{key}"));
        let known = hooks("succeeded") + hooks("failed");
        let most = known + hooks("in_flight") + hooks("lost");
        let seen = book.log_ins + book.log_outs;
        assert!((known..=most).contains(&seen), "{seen} arrived: {}\n{out}\n{err}", summary.0["hooks"]);
        (finished, summary, book)
    }

    /// The timeline never has more users than are planned, nor always fewer. A worker that thaws notices within
    /// milliseconds that its users live elsewhere: until then each of them is one too many.
    #[track_caller]
    fn check_users(summary: &Summary) {
        let rows = summary.list("/timeline");
        let most = rows.iter().filter_map(|row| row["users"].as_f64()).fold(0.0, f64::max);
        assert!(most > USERS as f64 * 0.9 && most < USERS as f64 + SHARE as f64 * 0.25, "{most} users: {rows:#?}");
    }

    /// Waits until `users` live again after `since`, and says how long that took.
    #[track_caller]
    fn back(&self, users: u64, since: Mono) -> Duration {
        wait_for("users that are back", PATIENCE, || (self.server.live() == users).then(|| clock::mono().since(since)))
    }

    /// Looks for a while: never are there other than so many sessions.
    #[track_caller]
    fn stays(&self, users: u64, time: Duration) {
        let until = clock::mono().after(time);
        while clock::mono() < until {
            let live = self.server.live();
            assert_eq!(live, users, "sessions that live");
            pause(Duration::from_millis(20));
        }
    }
}

fn nothing(_: &Path) -> Value {
    json!({})
}

fn policy(name: &str) -> impl FnOnce(&Path) -> Value {
    let policy = json!({"on_worker_loss": name});
    move |_| policy
}

#[test]
fn users_of_a_killed_worker_log_in_anew_and_are_never_too_many() {
    let mut scene = Scene::start(None, 12.0, nothing);
    let killed = clock::mono();
    scene.cluster.workers[1].signal(Signal::KILL);
    wait_for("users that are gone", PATIENCE, || (scene.server.live() == USERS - SHARE).then_some(()));
    let back = scene.back(USERS, killed);
    assert!(back <= BACK_WITHIN, "back after {back:?}");
    scene.stays(USERS, Duration::from_secs(1));
    let (finished, summary, book) = scene.end();
    finished.expect_code(0);
    assert_eq!((book.most(), book.log_ins, book.log_outs), (USERS, USERS + SHARE, USERS));
    Scene::check_users(&summary);
    assert_eq!(summary.count("/hooks/lost"), 0, "all log-ins of the dead worker were counted: {}", summary.0["hooks"]);
}

#[test]
fn users_of_a_killed_worker_are_missing_under_degrade() {
    let mut scene = Scene::start(None, 14.0, policy("degrade"));
    scene.cluster.workers[1].signal(Signal::KILL);
    wait_for("users that are gone", PATIENCE, || (scene.server.live() == USERS - SHARE).then_some(()));
    scene.stays(USERS - SHARE, BACK_WITHIN);
    let (finished, _, book) = scene.end();
    finished.expect_code(0).expect_said("its share was not taken over");
    assert_eq!((book.most(), book.log_ins, book.log_outs), (USERS, USERS, USERS - SHARE));
}

#[test]
fn a_killed_worker_ends_the_test_under_abort() {
    let mut scene = Scene::start(None, 60.0, policy("abort"));
    let killed = clock::mono();
    scene.cluster.workers[1].signal(Signal::KILL);
    let ended = scene.back(0, killed);
    assert!(ended <= BACK_WITHIN, "ended after {ended:?}");
    let (finished, summary, book) = scene.end();
    finished.expect_code(3).expect_said("worker w2 was lost, and `on_worker_loss` is abort");
    assert_eq!((book.most(), book.log_ins), (USERS, USERS));
    assert_eq!(summary.0["verdict"]["outcome"], "error", "{}", summary.0["verdict"]);
}

/// A worker is frozen for 6 s, 3 s into the test. Gives also when it went on.
fn frozen(seconds: f64, name: &str) -> (Scene, Mono) {
    let mut scene = Scene::start(None, seconds, policy(name));
    scene.cluster.workers[0].signal(Signal::STOP);
    pause(Duration::from_secs(6));
    if name == "redistribute" {
        // whoever is frozen closes nothing: its sessions stay beside those of the users in their place
        scene.stays(USERS + SHARE, Duration::from_millis(100));
    }
    let thawed = clock::mono();
    scene.cluster.workers[0].signal(Signal::CONT);
    (scene, thawed)
}

#[test]
fn users_of_a_frozen_worker_move_and_come_back() {
    let (mut scene, thawed) = frozen(18.0, "redistribute");
    let closed = scene.back(USERS, thawed);
    assert!(closed <= Duration::from_secs(1), "too many for {closed:?}");
    let closed = thawed.after(closed);
    // it is a worker like any other, and gets a share
    wait_for("users that move back", PATIENCE, || (scene.server.live() < USERS).then_some(()));
    let back = scene.back(USERS, thawed);
    assert!(back <= BACK_WITHIN, "back after {back:?}");
    let (finished, summary, book) = scene.end();
    finished.expect_code(0);
    assert_eq!((book.most(), book.most_since(closed)), (USERS + SHARE, USERS));
    assert_eq!(summary.count("/conservation/lost") + summary.count("/hooks/lost"), 0, "{}", summary.0["losses"]);
    Scene::check_users(&summary);
    // moved away without a word, moved back with one: all of them log out in the end
    assert!(book.log_ins > USERS + SHARE, "{}", book.log_ins);
    assert_eq!(book.log_outs, book.log_ins);
}

#[test]
fn users_of_a_frozen_worker_stay_under_degrade() {
    let (mut scene, _) = frozen(14.0, "degrade");
    let (finished, summary, book) = scene.end();
    finished.expect_code(0);
    assert_eq!((book.most(), book.log_ins, book.log_outs), (USERS, USERS, USERS));
    assert_eq!(summary.count("/conservation/lost") + summary.count("/hooks/lost"), 0, "{}", summary.0["losses"]);
}

/// The test is over before the worker is there again, and has said so.
#[track_caller]
fn ends_under_abort(mut scene: Scene, ended: Duration, name: &str) {
    assert!(ended <= Duration::from_secs(12), "the master took {ended:?}");
    let (finished, summary, book) = scene.end();
    finished.expect_code(3).expect_said(&format!("worker {name} was lost, and `on_worker_loss` is abort"));
    assert_eq!((book.most(), book.log_ins), (USERS, USERS));
    assert_eq!(summary.0["verdict"]["outcome"], "error", "{}", summary.0["verdict"]);
}

#[test]
fn a_frozen_worker_ends_the_test_under_abort() {
    let mut scene = Scene::start(None, 60.0, policy("abort"));
    let since = clock::mono();
    scene.cluster.workers[0].signal(Signal::STOP);
    scene.cluster.master.wait(LIMIT);
    let ended = clock::mono().since(since);
    let pages = scene.server.pages();
    scene.cluster.workers[0].signal(Signal::CONT);
    scene.cluster.workers[0].wait(LIMIT).expect_code(3);
    assert_eq!(scene.server.pages(), pages, "no request after the end");
    ends_under_abort(scene, ended, "w1");
}

/// A worker on a host of its own is cut off from its master, and not from the server, for 7 s.
fn cut_off(tag: &str, seconds: f64, name: &str) -> (Scene, Mono, Mono) {
    let scene = Scene::start(Some(tag), seconds, policy(name));
    let hosts = scene.hosts.as_ref().expect("they were asked for");
    let cut = clock::mono();
    hosts.cut(2, PORT);
    pause(Duration::from_secs(7));
    let healed = clock::mono();
    hosts.heal(2);
    (scene, cut, healed)
}

#[test]
fn users_of_a_worker_that_is_cut_off_move_and_come_back() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let (mut scene, cut, healed) = cut_off("move", 18.0, "redistribute");
    wait_for("users that move back", PATIENCE, || (scene.server.live() < USERS).then_some(()));
    let back = scene.back(USERS, healed);
    assert!(back <= BACK_WITHIN, "back after {back:?}");
    let (finished, summary, book) = scene.end();
    finished.expect_code(0);
    assert_eq!(book.most(), USERS);
    let mut away = book.history.iter().filter(|(at, live)| *at > cut && *at < healed && *live < USERS);
    let away = away.next_back().map_or(Duration::ZERO, |(at, _)| at.since(cut));
    assert!(away > Duration::ZERO && away <= BACK_WITHIN, "too few for {away:?}");
    assert_eq!(summary.count("/conservation/lost") + summary.count("/hooks/lost"), 0, "{}", summary.0["losses"]);
    Scene::check_users(&summary);
    assert!(book.log_ins > USERS + SHARE, "{}", book.log_ins);
    assert_eq!(book.log_outs, book.log_ins);
}

#[test]
fn users_of_a_worker_that_is_cut_off_stay_under_degrade() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let (mut scene, ..) = cut_off("stay", 14.0, "degrade");
    let (finished, summary, book) = scene.end();
    finished.expect_code(0);
    assert_eq!((book.most(), book.log_ins, book.log_outs), (USERS, USERS, USERS));
    assert_eq!(summary.count("/conservation/lost") + summary.count("/hooks/lost"), 0, "{}", summary.0["losses"]);
}

#[test]
fn a_worker_that_is_cut_off_ends_the_test_under_abort() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let mut scene = Scene::start(Some("stop"), 60.0, policy("abort"));
    let since = clock::mono();
    scene.hosts.as_ref().expect("they were asked for").cut(2, PORT);
    scene.cluster.master.wait(LIMIT);
    let ended = clock::mono().since(since);
    let pages = scene.server.pages();
    scene.cluster.workers[1].wait(LIMIT).expect_code(3);
    assert_eq!(scene.server.pages(), pages, "no request after the end");
    ends_under_abort(scene, ended, "w2");
}

const ROWS: u64 = 100_000;

/// Keys of a test whose requests use one row each, of those that exist once.
fn rows(folder: &Path, policy: &str) -> Value {
    let file = folder.join("rows.csv");
    let lines: Vec<String> = (0..ROWS).map(|n| format!("row{n}\n")).collect();
    std::fs::write(&file, format!("name\n{}", lines.concat())).expect("the temporary folder is writable");
    json!({
        "wait_time": 0.03,
        "on_worker_loss": policy,
        "csv_sources": [{"name": "rows", "file_path": file, "unique": true, "at_end": "stop_user"}],
        "tasks": [{"method": "get", "request_url": "/row/${csv.rows.name}", "name": "row",
            "headers": {"Authorization": "Bearer ${var.token}"}}],
    })
}

impl Scene {
    /// The end of a test with rows: none was used twice, and what is said to have been used was.
    #[track_caller]
    fn end_of_rows(&mut self) -> (Finished, Summary, Book) {
        let (finished, summary, book) = self.end();
        let twice: Vec<_> = book.rows.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "used more than once: {twice:?}");
        assert_eq!(book.rows.len() as u64, book.pages, "a row for each request");
        assert!(book.pages <= ROWS);
        (finished, summary, book)
    }
}

/// One worker is cut off for a while, then another frozen.
fn cut_and_freeze(scene: &mut Scene) {
    let hosts = scene.hosts.as_ref().expect("they were asked for");
    hosts.cut(1, PORT);
    pause(Duration::from_secs(5));
    hosts.heal(1);
    pause(Duration::from_secs(1));
    scene.cluster.workers[1].signal(Signal::STOP);
    pause(Duration::from_secs(5));
    scene.cluster.workers[1].signal(Signal::CONT);
    pause(Duration::from_secs(1));
}

#[test]
fn all_rows_are_used_once_whatever_dies() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let mut scene = Scene::start(Some("rows"), 120.0, |files| rows(files, "redistribute"));
    scene.cluster.workers[2].signal(Signal::KILL);
    pause(Duration::from_secs(1));
    cut_and_freeze(&mut scene);
    scene.cluster.master.signal(Signal::KILL);
    scene.cluster.master.wait(LIMIT);
    assert!(scene.server.pages() < ROWS * 95 / 100, "{} rows are gone too early", scene.server.pages());
    pause(Duration::from_secs(1));
    let mut again = Scene::command(scene.hosts.as_ref().map(Hosts::hub), "ld-master", scene.cluster.folder.path());
    again.args(["--bind", &scene.address, "--expected-workers", "3", "run", "test.json", "--summary", "summary.json"]);
    scene.cluster.master = Process::start("ld-master", again);
    let (finished, summary, book) = scene.end_of_rows();
    finished.expect_code(0);
    assert!(summary.list("/events").iter().any(|event| event["by"] == "journal"), "{:#}", summary.0["events"]);
    // the others have all but what was dealt to the dead one
    assert!(book.pages >= ROWS * 9 / 10, "{} of {ROWS} rows were used", book.pages);
}

#[test]
fn rows_are_used_once_under_degrade_and_abort() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let mut scene = Scene::start(Some("less"), 22.0, |files| rows(files, "degrade"));
    cut_and_freeze(&mut scene);
    scene.cluster.workers[2].signal(Signal::KILL);
    let (finished, _, book) = scene.end_of_rows();
    finished.expect_code(0);
    assert!(book.pages > ROWS / 20, "{} rows in 22 s", book.pages);

    let mut scene = Scene::start(None, 60.0, |files| rows(files, "abort"));
    scene.cluster.workers[2].signal(Signal::KILL);
    scene.end_of_rows().0.expect_code(3);
}
