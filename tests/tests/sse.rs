//! `sse_user` against a Python server of events that counts for itself, well-meaning and hostile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_tests::cluster::{run, run_with};
use ld_tests::document::{and, closed};
use ld_tests::peer::Peer;
use ld_tests::summary::Summary;
use serde_json::{Value, json};

fn peer() -> Option<Peer> {
    Peer::start("sse_target.py", &[])
}

/// A document of these tasks.
fn document(tasks: &Value, load: &Value) -> Value {
    let test = and(json!({"user_detail_dict": {"user": "sse_user"}, "tasks": tasks}), load);
    json!({"load_density": [["LD_start_test", test]]})
}

fn task(peer: &Peer, name: &str, target: &str, more: &Value) -> Value {
    and(json!({"name": name, "request_url": format!("http://127.0.0.1:{}{target}", peer.port("http"))}), more)
}

#[track_caller]
fn ran(tasks: &Value, load: &Value, workers: usize, code: i32) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let (finished, summary) = run(folder.path(), &document(tasks, load), workers);
    finished.expect_code(code);
    assert_eq!(summary.count("/conservation/lost"), 0);
    assert_eq!(summary.count("/conservation/in_flight"), 0);
    summary
}

/// Each task once, by one user.
fn once() -> Value {
    json!({"user_count": 1, "iterations": 1, "test_time": 20})
}

fn count(summary: &Summary, name: &str) -> u64 {
    summary.0["per_name"][name]["count"].as_u64().unwrap_or(0)
}

/// Messages of a name.
fn events(summary: &Summary, name: &str) -> u64 {
    summary.0["messages"]["per_name"][name]["count"].as_u64().unwrap_or(0)
}

#[track_caller]
fn every_event_counts(workers: usize) {
    let Some(peer) = peer() else { return };
    let tasks = json!([
        task(&peer, "five", "/count?n=5&gap=20", &json!({})),
        task(&peer, "to close", "/close", &json!({"events": 3})),
    ]);
    let summary = ran(&tasks, &and(closed(6, 2.0), &json!({"wait_time": 0.02})), workers, 0);
    let seen = peer.stop();
    let (five, close) = (count(&summary, "five"), count(&summary, "to close"));
    assert!(five > 20, "{five}");
    assert_eq!([&seen["/count"], &seen["/close"], &seen["accepts"]], [five, close, five + close]);
    assert_eq!(summary.count("/messages/received"), seen["events"].as_u64().unwrap());
    assert_eq!(events(&summary, "five (first)"), five);
    assert_eq!(events(&summary, "five"), 4 * five);
    assert_eq!(events(&summary, "to close (first)") + events(&summary, "to close"), 3 * close);
    let kinds = ["five (first)", "five"].map(|name| summary.0["messages"]["per_name"][name]["request_type"].clone());
    assert_eq!(kinds, ["SSE first event", "SSE event"]);
    // four gaps that the server made, and a task that lasts as long as its stream
    let gap = summary.number("/messages/per_name/five/p50_ms");
    assert!((19.0..60.0).contains(&gap), "{gap} ms between events 20 ms apart");
    let whole = summary.number("/per_name/five/min_ms");
    assert!(whole >= 79.0, "{whole} ms for four gaps of 20 ms");
    let first = summary.number("/messages/per_name/five (first)/p50_ms");
    assert!(first < summary.number("/per_name/five/p50_ms") / 2.0, "{first} ms to the first event");
}

#[test]
fn every_event_counts_in_one_process() {
    every_event_counts(0);
}

#[test]
fn every_event_counts_over_three_workers() {
    every_event_counts(3);
}

#[test]
fn a_task_ends_with_what_it_waits_for() {
    let Some(peer) = peer() else { return };
    let body = |value: Value| json!({"type": "contains", "value": value});
    let tasks = json!([
        task(&peer, "text", "/ticks", &json!({"until": "\"n\": 5}", "assertions": [body(json!("5"))]})),
        task(
            &peer,
            "json",
            "/ticks",
            &json!({"until": {"json_path": "at.n", "value": 4},
            "extract": [{"var": "n", "from": "json_path", "path": "at.n"}]})
        ),
        task(&peer, "pattern", "/ticks", &json!({"until": {"pattern": "\"n\": [2-9]"}})),
        task(
            &peer,
            "third",
            "/ticks",
            &json!({"events": 2, "event": "third", "assertions": [body(json!("\"n\": 6"))]})
        ),
        task(&peer, "duration", "/ticks", &json!({"duration": 0.3})),
        task(
            &peer,
            "echo",
            "/echo",
            &json!({"method": "post", "data": "user ${var.n}\nend", "events": 1,
            "assertions": [body(json!("user 4\nend")), {"type": "status_code", "value": 200}]})
        ),
        task(&peer, "never", "/ticks", &json!({"until": "never", "duration": 0.3})),
        task(&peer, "no answer", "/stall", &json!({"duration": 0.3})),
    ]);
    let summary = ran(&tasks, &once(), 0, 1);
    let seen: Vec<u64> = ["text", "json", "pattern", "third", "echo"]
        .iter()
        .map(|name| events(&summary, name) + events(&summary, &format!("{name} (first)")))
        .collect();
    assert_eq!(seen, [5, 4, 2, 6, 1]);
    let lasted = summary.number("/per_name/duration/p50_ms");
    assert!((299.0..600.0).contains(&lasted), "{lasted} ms of a duration of 300");
    let failed: Vec<_> =
        summary.list("/failures").iter().map(|row| [&row["name"], &row["class"], &row["reason"]]).collect();
    assert_eq!(
        json!(failed),
        json!([
            ["never", "timeout", "the event that was waited for did not come within the duration"],
            ["no answer", "timeout", "no answer within the duration"],
        ])
    );
    assert_eq!(summary.count("/conservation/succeeded"), 6);
    drop(peer.stop());
}

#[test]
fn a_stream_is_resumed_after_its_last_id() {
    let Some(peer) = peer() else { return };
    let tasks = json!([
        task(&peer, "resumed", "/count?n=3", &json!({"resume": true})),
        task(&peer, "anew", "/count?n=2", &json!({})),
    ]);
    let summary = ran(&tasks, &json!({"user_count": 1, "iterations": 3, "test_time": 20}), 0, 0);
    assert_eq!(summary.count("/messages/received"), 15);
    assert_eq!(peer.stop()["ids"], json!([0, 0, 0, 0, 3, 6]));
}

#[test]
fn hostile_servers_fail_in_their_class() {
    let Some(peer) = peer() else { return };
    let one = json!({"until": "never", "timeout": 0.4});
    let patient = json!({"until": "never", "timeout": 10});
    let tasks = json!([
        task(&peer, "truncated", "/truncated", &patient),
        task(&peer, "truncated, nothing awaited", "/truncated", &json!({})),
        task(&peer, "too few", "/count?n=2", &json!({"events": 3})),
        task(&peer, "html", "/html", &patient),
        task(&peer, "redirect", "/redirect", &patient),
        task(&peer, "503", "/503", &patient),
        task(
            &peer,
            "503 accepted",
            "/503",
            &json!({"assertions": [{"type": "status_code", "value": 503}], "status_check": "assertions"})
        ),
        task(&peer, "stall", "/stall", &one),
        task(&peer, "silent", "/silent", &one),
        task(&peer, "huge", "/huge", &patient),
        task(&peer, "reset", "/reset", &patient),
        task(&peer, "garbage", "/garbage", &patient),
    ]);
    let summary = ran(&tasks, &once(), 0, 1);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let mut failed: Vec<_> = summary
        .list("/failures")
        .iter()
        .map(|row| (text(row, "name"), text(row, "class"), text(row, "reason")))
        .collect();
    failed.sort();
    let mut wanted = [
        ("truncated", "closed", "connection closed in mid-answer"),
        ("truncated, nothing awaited", "closed", "connection closed in mid-answer"),
        ("too few", "closed", "the stream ended before the event that was waited for"),
        ("html", "protocol", "the answer is not an event stream"),
        ("redirect", "protocol", "the answer is not an event stream"),
        ("503", "status", "HTTP 503"),
        ("stall", "timeout", "timed out"),
        ("silent", "timeout", "timed out"),
        ("huge", "protocol", "an event longer than 1 MiB"),
        ("reset", "closed", "connection reset by peer"),
        ("garbage", "protocol", "malformed answer: invalid HTTP version"),
    ]
    .map(|(name, class, reason)| (name.to_owned(), class.to_owned(), reason.to_owned()));
    wanted.sort();
    assert_eq!(failed, wanted);
    assert_eq!(summary.count("/conservation/succeeded"), 1, "what accepts a 503");
    assert_eq!(peer.stop()["requests"], 12);
}

#[test]
fn malformed_tasks_are_refused_before_the_test() {
    let tasks = json!([{"url": "http://127.0.0.1:1/", "untill": "x"}, {"url": "http://127.0.0.1:1/", "until": {"pattern": "("}}]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = ld_tests::process::command("ld-master", folder.path());
    command.args(["run-str", &document(&tasks, &once()).to_string()]);
    let finished = ld_tests::process::Process::start("ld-master", command).wait(ld_tests::wait::PATIENCE);
    finished.expect_code(2);
    finished.expect_said("until");
    finished.expect_said("tasks/1/until/pattern");
    let (finished, summary) = run_with(folder.path(), &document(&json!([tasks[1]]), &once()), 0, &["--lenient"]);
    finished.expect_code(1);
    assert_eq!(summary.list("/failures")[0]["request_type"], "SSE");
}
