//! WebSocket users against the Python library `websockets`, and against servers that misbehave.

use ld_tests::cluster::{run, run_with};
use ld_tests::document::and;
use ld_tests::peer::Peer;
use ld_tests::process::{Process, command};
use ld_tests::summary::Summary;
use serde_json::{Value, json};
use std::time::Duration;

/// A document of one test of WebSocket users.
fn document(load: &Value, tasks: &Value) -> Value {
    let test = json!({
        "user_detail_dict": {"user": "websocket_user"}, "user_count": 1, "spawn_rate": 1000, "test_time": 30,
        "iterations": 1, "tasks": tasks,
    });
    json!([["LD_start_test", and(test, load)]])
}

/// Reasons with their class and count, by name.
fn failures(summary: &Summary) -> Vec<(String, String, String, u64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |f: &Value| (text(&f["name"]), text(&f["class"]), text(&f["reason"]), f["count"].as_u64().unwrap_or(0));
    let mut all: Vec<_> = summary.list("/failures").iter().map(one).collect();
    all.sort();
    all
}

fn count(summary: &Summary, name: &str) -> u64 {
    summary.0["per_name"][name]["successes"].as_u64().unwrap_or(0)
}

#[test]
fn every_step_does_what_it_says() {
    let Some(peer) = Peer::start("ws_target.py", &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = format!("ws://127.0.0.1:{}", peer.port("ws"));
    let tasks = json!([
        {"method": "connect", "request_url": format!("{url}/about"), "headers": {"X-Token": "${var.token}"},
         "subprotocol": ["chat.v1", "chat.v2"], "name": "open",
         "assertions": [{"type": "status_code", "value": 101}, {"type": "header", "name": "sec-websocket-protocol", "value": "chat.v2"}]},
        {"payload": "?", "method": "sendrecv", "name": "about",
         "expect": {"json_path": "subprotocol", "value": "chat.v2"}, "extract": [{"var": "seen", "path": "token"}],
         "assertions": [{"type": "json_path", "path": "token", "value": "s3"}]},
        {"method": "ping", "name": "ping"},
        {"method": "sendrecv", "socket": "other", "request_url": format!("{url}/"), "payload": {"token": "${var.seen}"},
         "expect": {"json_path": "token", "value": "s3"}, "name": "json"},
        {"method": "sendrecv", "socket": "other", "payload": "hex:00 ff", "binary": true, "name": "binary"},
        {"method": "sendrecv", "socket": "other", "payload": "héllo ✓", "expect": {"pattern": "^h.llo"}, "name": "text"},
        {"method": "close", "socket": "other", "name": "close"},
        {"method": "close", "socket": "nobody", "name": "close nothing"},
    ]);
    let load = json!({"user_count": 5, "iterations": 50, "connections": "per_iteration", "variables": {"token": "s3"}});
    let (finished, summary) = run(folder.path(), &document(&load, &tasks), 0);
    finished.expect_code(0);
    for name in ["open", "about", "ping", "json", "binary", "text", "close", "close nothing"] {
        assert_eq!(count(&summary, name), 50, "{name}");
    }
    let seen = peer.stop();
    assert_eq!((&seen["opened"], &seen["messages"], &seen["binary"]), (&100.into(), &200.into(), &50.into()), "{seen}");
}

#[test]
fn counts_are_the_servers_on_one_node_and_on_three() {
    for workers in [0, 3] {
        let Some(peer) = Peer::start("ws_target.py", &[]) else { return };
        let folder = tempfile::tempdir().unwrap();
        let tasks = json!([{"method": "sendrecv", "request_url": format!("ws://127.0.0.1:{}/", peer.port("ws")),
            "payload": "${randint(1,9)}", "name": "echo"}]);
        let load = json!({"user_count": 30, "test_time": 4, "iterations": null, "wait_time": [0, 0.01]});
        let (finished, summary) = run(folder.path(), &document(&load, &tasks), workers);
        finished.expect_code(0);
        let seen = peer.stop();
        assert_eq!(seen["messages"], summary.count("/conservation/succeeded"), "{workers} workers: {seen}");
        assert_eq!(seen["opened"], 30);
        assert!(summary.count("/totals/requests") > 1_000);
    }
}

/// Sockets live while nobody looks: pings are answered, what comes is counted, and `recv` finds it.
#[test]
fn idle_sockets_answer_pings_and_pushed_messages_are_counted() {
    let Some(peer) = Peer::start("ws_target.py", &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = format!("ws://127.0.0.1:{}/push?n=40", peer.port("ws"));
    let tasks = json!([
        {"method": "connect", "request_url": &url, "name": "feed", "think_time": 4},
        {"method": "recv", "expect": "push 0", "name": "first"},
        {"method": "recv", "expect": "push 1", "name": "second"},
        {"method": "sendrecv", "payload": "now", "expect": "push 2", "name": "oldest"},
    ]);
    let (finished, summary) = run(folder.path(), &document(&json!({"user_count": 10, "iterations": 10}), &tasks), 0);
    finished.expect_code(0);
    let seen = peer.stop();
    assert_eq!(seen["pushed"], 400);
    assert_eq!(summary.count("/messages/received"), 400);
    assert_eq!(summary.count("/messages/faults"), 0);
    assert_eq!(summary.0["messages"]["per_name"][&url]["request_type"], "WS message");
    assert_eq!(seen["dropped"], 0, "every ping was answered: {seen}");
}

#[test]
fn a_close_by_the_peer_fails_once_and_the_next_step_opens_anew() {
    let Some(peer) = Peer::start("ws_target.py", &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = format!("ws://127.0.0.1:{}/close?code=4001", peer.port("ws"));
    let tasks = json!([{"method": "sendrecv", "request_url": url, "payload": "x", "name": "closed"}]);
    let (finished, summary) = run(folder.path(), &document(&json!({"iterations": 20}), &tasks), 0);
    finished.expect_code(1);
    let reason = "closed by peer: 4001 (as you wish)".to_owned();
    assert_eq!(failures(&summary), [("closed".to_owned(), "closed".to_owned(), reason, 20)]);
    assert_eq!(peer.stop()["opened"], 20);
}

/// What came before a close is received all the same; a socket that broke is opened again as it was.
#[test]
fn a_socket_that_broke_is_opened_again_as_it_was() {
    let Some(peer) = Peer::start("ws_target.py", &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = format!("ws://u:hunter2@127.0.0.1:{}/about?bye=1", peer.port("ws"));
    let about = json!({"method": "sendrecv", "payload": "x", "name": "about",
        "assertions": [{"type": "json_path", "path": "token", "value": "t1"}, {"type": "json_path", "path": "basic", "value": "Basic dTpodW50ZXIy"}]});
    let tasks = json!([
        {"method": "connect", "request_url": url, "headers": {"X-Token": "t1"}, "think_time": 0.3},
        {"method": "recv", "expect": "bye", "name": "before the close"},
        {"method": "send", "payload": "x", "name": "closed"},
        about, about,
    ]);
    let (finished, summary) = run(folder.path(), &document(&json!({"iterations": 1}), &tasks), 0);
    finished.expect_code(1);
    let reason = "closed by peer: 4000".to_owned();
    assert_eq!(failures(&summary), [("closed".to_owned(), "closed".to_owned(), reason, 1)]);
    assert_eq!((count(&summary, "before the close"), count(&summary, "about")), (1, 2));
    assert_eq!(summary.count("/messages/faults"), 0, "it is said once");
    assert!(!summary.0.to_string().contains("hunter2"), "{}", summary.0["messages"]);
    assert_eq!(peer.stop()["opened"], 2);
}

#[test]
fn servers_that_misbehave_get_the_right_class_and_nobody_hangs() {
    let Some(peer) = Peer::start("hostile_ws.py", &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let base = format!("ws://127.0.0.1:{}", peer.port("ws"));
    let wanted = [
        ("/fragments", "", ""),
        ("/oversized", "protocol", "websocket: message too large"),
        ("/utf8", "protocol", "websocket: text that is not UTF-8"),
        ("/masked", "protocol", "websocket: "),
        ("/opcode", "protocol", "websocket: "),
        ("/reserved", "protocol", "websocket: "),
        ("/noise", "protocol", "websocket: "),
        ("/1011", "closed", "closed by peer: 1011 (boom)"),
        ("/half", "closed", "connection closed without a close frame"),
        ("/eof", "closed", "connection closed without a close frame"),
        ("/reset", "closed", "connection reset by peer"),
        ("/stall", "timeout", "timed out"),
        ("/stalled-handshake", "timeout", "timed out"),
        ("/cut-handshake", "closed", "connection closed in the handshake"),
        ("/garbage", "protocol", "websocket: "),
        ("/wrong-key", "protocol", "websocket: "),
        ("/403", "status", "handshake refused: HTTP 403"),
    ];
    let task = |(path, ..): &(&str, &str, &str)| {
        json!({"method": "sendrecv", "request_url": format!("{base}{path}"), "payload": "hello", "expect": "hello",
            "timeout": 1, "name": path})
    };
    let tasks: Vec<Value> = wanted.iter().map(task).collect();
    let load = json!({"user_count": 2, "iterations": 4});
    let (finished, summary) = run(folder.path(), &document(&load, &tasks.into()), 0);
    finished.expect_code(1);
    let all = failures(&summary);
    for (path, class, reason) in wanted {
        let own: Vec<_> = all.iter().filter(|(name, ..)| name == path).collect();
        match own.as_slice() {
            [] => assert_eq!((class, count(&summary, path)), ("", 4), "{path}"),
            [(_, its, why, 4)] if its == class && why.starts_with(reason) => {}
            other => panic!("{path}: {other:?}"),
        }
    }
    let seen = peer.stop();
    assert!(wanted.iter().all(|(path, ..)| seen[path] == 4), "{seen}");
}

#[test]
fn tls_and_a_dead_port() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = ld_tests::certificates::Certificates::make();
    let [ca, cert, key] = [&certificates.ca, &certificates.cert, &certificates.key].map(|path| path.to_str().unwrap());
    let Some(peer) = Peer::start("ws_target.py", &[cert, key]) else { return };
    let tasks = json!([
        {"method": "sendrecv", "request_url": format!("wss://localhost:{}/", peer.port("ws")), "payload": "x", "expect": "x", "name": "tls"},
        {"method": "sendrecv", "request_url": "ws://127.0.0.1:1/", "payload": "x", "name": "dead", "socket": "dead"},
    ]);
    let load = json!({"tls": {"ca": ca}, "iterations": 3});
    let (_, summary) = run(folder.path(), &document(&load, &tasks), 0);
    assert_eq!(count(&summary, "tls"), 3);
    let refused = ("dead".to_owned(), "connect".to_owned(), "connection refused".to_owned(), 3);
    assert_eq!(failures(&summary), [refused]);
    let (_, summary) = run(folder.path(), &document(&json!({"iterations": 2}), &tasks), 0);
    let untrusted = failures(&summary).into_iter().find(|(name, ..)| name == "tls").unwrap();
    assert_eq!((untrusted.1.as_str(), untrusted.3), ("tls", 2), "{untrusted:?}");
}

/// The seed's document: the failures that its index names, and no other.
#[test]
fn the_seeds_document() {
    let Some(peer) = Peer::start("ws_target.py", &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let text = include_str!("../fixtures/actions/09_websocket.json");
    let text = text.replace("${env.LD_WS_PORT}", &peer.port("ws").to_string());
    let document: Value = serde_json::from_str(&text).unwrap();
    let (finished, summary) = run_with(folder.path(), &document, 0, &["--lenient"]);
    finished.expect_code(1);
    let reasons: Vec<_> = failures(&summary).into_iter().map(|(name, _, reason, _)| (name, reason)).collect();
    let expected = [
        ("bad-method", "unsupported websocket method: bogus"),
        ("expect-fail", "expected 'nope' in response"),
        ("recv-timeout", "timed out"),
    ];
    assert_eq!(reasons, expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    for (name, result) in summary.names() {
        let fails = expected.iter().any(|(failing, _)| *failing == name);
        assert_eq!(result["successes"] == 0, fails, "{name}: {result}");
    }
    let mut strict = command("ld-master", folder.path());
    strict.args(["run-str", &text]);
    let finished = Process::start("ld-master", strict).wait(Duration::from_mins(1));
    finished.expect_code(2).expect_said("/load_density/0/1/tasks/6/method").expect_said("1 fault");
}
