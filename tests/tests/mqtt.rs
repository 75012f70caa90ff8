//! MQTT users against Mosquitto, whose counters and clients are the truth, and against a broker that
//! misbehaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_tests::binaries::{python, test_file};
use ld_tests::document::merge;
use ld_tests::mosquitto::Broker;
use ld_tests::process::{Cluster, Finished, Process, command, free_port};
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, pause, wait_for};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

/// A document of `mqtt_user`s.
fn test(tasks: &Value, more: &Value) -> Value {
    let mut test = json!({"user_detail_dict": {"user": "mqtt_user"}, "tasks": tasks, "spawn_rate": 1000});
    merge(&mut test, more);
    json!({"load_density": [["LD_start_test", test]]})
}

fn run(document: &Value, workers: usize) -> (Finished, Summary) {
    let (finished, summary) = Cluster::start(document, workers, &[]).finish(LIMIT);
    summary.check_conservation();
    (finished, summary)
}

/// Successes and failures of a name.
#[track_caller]
fn outcome(summary: &Summary, name: &str) -> (u64, u64) {
    let of = |key: &str| summary.0["per_name"][name][key].as_u64().unwrap_or_else(|| panic!("no {name}"));
    (of("successes"), of("failures"))
}

/// Class and reason of the failures of a name.
fn failures(summary: &Summary, name: &str) -> Vec<(String, String)> {
    let rows = summary.list("/failures").iter().filter(|row| row["name"] == name);
    rows.map(|row| [&row["class"], &row["reason"]].map(|v| v.as_str().unwrap().to_owned()).into()).collect()
}

/// Every message counts once: here, in the broker, at a second subscriber.
fn counts_agree(version: &str, workers: usize) {
    let Some(broker) = Broker::start() else { return };
    let listener = broker.listen("t/#");
    let tasks = json!([
        {"topic": "t/0", "payload": "zero", "qos": 0, "stamp": true, "name": "q0"},
        {"topic": "t/1", "payload": {"user": "${uuid()}"}, "qos": 1, "stamp": true, "name": "q1"},
        {"topic": "t/2", "payload": 2, "qos": 2, "stamp": true, "name": "q2"},
    ]);
    let on_start = json!([
        {"method": "connect", "broker": broker.address(), "version": version, "name": "connect"},
        {"method": "subscribe", "topic": "t/#", "qos": 2, "stamp": true, "name": "e2e"},
    ]);
    let more = json!({"on_start": on_start, "user_count": 6, "test_time": 2, "wait_time": [0.02, 0.04]});
    let (finished, summary) = run(&test(&tasks, &more), workers);
    finished.expect_code(0);
    let mut published = 0;
    let mut counted = 0;
    for (name, topic) in [("q0", "t/0"), ("q1", "t/1"), ("q2", "t/2")] {
        let (successes, failures) = outcome(&summary, name);
        assert!(successes > 100 && failures == 0, "{name}: {successes} + {failures}");
        listener.expect(topic, successes);
        published += successes;
        // the counter of Mosquitto 2.0 leaves out messages of QoS 2 and retained ones; its bytes don't
        counted += if name == "q2" { 0 } else { successes };
    }
    broker.expect_sys("publish/messages/received", counted);
    broker.expect_sys("publish/bytes/received", listener.bytes());
    // six subscribers heard what was sent between their first and last moments, all of it in order
    let (received, faults) = (summary.count("/messages/received"), summary.count("/messages/faults"));
    assert!(received > published * 6 * 8 / 10 && received <= published * 6, "{received} of 6 × {published}");
    assert_eq!(faults, 0, "{:#}", summary.0["messages"]["failures"]);
    assert_eq!(summary.0["messages"]["per_name"]["e2e"]["request_type"], "MQTT delivery");
    assert_eq!(summary.count("/messages/per_name/e2e/count"), received);
}

#[test]
fn counts_agree_in_version_3() {
    counts_agree("3.1.1", 0);
}

#[test]
fn counts_agree_in_version_5_over_three_workers() {
    counts_agree("5", 3);
}

#[test]
fn tls_and_passwords() {
    let Some(broker) = Broker::with_tls() else { return };
    let tasks = json!([{"broker": broker.address(), "topic": "t", "payload": "x", "qos": 1, "name": "hit"}]);
    let mut more = json!({"user_count": 2, "test_time": 1, "tls": {"ca": broker.ca}});
    let (finished, summary) = run(&test(&tasks, &more), 0);
    finished.expect_code(0);
    assert!(outcome(&summary, "hit").0 > 10);
    more["tls"] = json!({});
    let (_, summary) = run(&test(&tasks, &more), 0);
    let reason = "tls: certificate not trusted (unknown issuer or self-signed)";
    assert_eq!(failures(&summary, "hit"), [("tls".to_owned(), reason.to_owned())]);

    let Some(broker) = Broker::with_password("ann", "s3cret") else { return };
    let step = |name: &str, version: &str, password: &str| {
        json!({"method": "connect", "broker": broker.address(), "username": "ann", "password": password,
               "version": version, "name": name})
    };
    let tasks = json!([
        step("good", "3.1.1", "s3cret"),
        step("bad", "3.1.1", "wrong"),
        step("good5", "5", "s3cret"),
        step("bad5", "5", "wrong"),
    ]);
    let (_, summary) = run(&test(&tasks, &json!({"user_count": 2, "test_time": 1})), 0);
    for name in ["good", "good5"] {
        assert_eq!(outcome(&summary, name).1, 0, "{name}: {:?}", failures(&summary, name));
    }
    assert_eq!(failures(&summary, "bad"), [("status".to_owned(), "not authorized (0x05)".to_owned())]);
    assert_eq!(failures(&summary, "bad5"), [("status".to_owned(), "not authorized (0x87)".to_owned())]);
    assert_eq!(outcome(&summary, "bad").0 + outcome(&summary, "bad5").0, 0);
}

#[test]
fn retained_messages_wills_properties_and_expectations() {
    let Some(broker) = Broker::start() else { return };
    let listener = broker.listen("will/#");
    let tasks = json!([
        {"method": "connect", "broker": broker.address(), "version": "5", "name": "in",
         "will": {"topic": "will/me", "payload": "gone", "qos": 1}},
        {"topic": "kept/1", "payload": {"n": [1, 2]}, "retain": true, "qos": 1, "name": "keep",
         "properties": {"content_type": "application/json", "user_properties": {"k": "v"}, "message_expiry": 60}},
        {"method": "subscribe", "topic": "kept/+", "qos": 1, "name": "sub"},
        {"method": "receive", "topic": "kept/#", "name": "got", "expect": {"json_path": "n.1", "value": 2},
         "assertions": [{"type": "header", "name": "retain", "value": "true"},
                        {"type": "header", "name": "k", "value": "v"},
                        {"type": "header", "name": "content_type", "value": "application/json"}],
         "extract": [{"var": "n", "from": "json_path", "path": "n.0"}]},
        {"topic": "kept/1", "payload": "live ${var.n}", "name": "live"},
        {"method": "expect", "topic": "kept/1", "expect": "live 1", "name": "live-got"},
        {"method": "recv", "timeout": 0.05, "name": "nothing"},
        {"method": "unsubscribe", "topic": "kept/+", "name": "unsub"},
        {"method": "disconnect", "name": "polite"},
        {"method": "connect", "broker": broker.address(), "name": "again", "will": {"topic": "will/me", "payload": "x"}},
        {"method": "disconnect", "abrupt": true, "name": "rude"},
    ]);
    let (_, summary) = run(&test(&tasks, &json!({"user_count": 1, "test_time": 2})), 0);
    let (rude, _) = outcome(&summary, "rude");
    assert!(rude > 3, "{rude}");
    for name in ["in", "keep", "sub", "got", "live", "live-got", "unsub", "polite", "again", "rude"] {
        assert_eq!(outcome(&summary, name).1, 0, "{name}: {:?}", failures(&summary, name));
    }
    assert_eq!(failures(&summary, "nothing"), [("timeout".to_owned(), "timed out".to_owned())]);
    // the first will only if the test ended in between; that, too, is said politely
    listener.expect("will/me", rude);
}

#[test]
fn lost_late_and_doubled_messages_are_told_apart() {
    let Some(broker) = Broker::start() else { return };
    let tasks = json!([
        {"method": "subscribe", "broker": broker.address(), "topic": "s/#", "qos": 1, "stamp": true, "name": "e2e",
         "think_time": 9},
    ]);
    let mut cluster = Cluster::start(&test(&tasks, &json!({"user_count": 1, "test_time": 8})), 0, &[]);
    wait_for("the subscription", PATIENCE, || (broker.sys("subscriptions/count") > 0).then_some(()));
    for (sequence, sent_ns) in [(7, 1), (8, 1), (12, 1), (11, 1), (11, 1), (13, u64::MAX)] {
        broker.publish("s/a", &format!("~ld:00000000000000aa:{sequence}:{sent_ns}~x"), &["-q", "1"]);
    }
    broker.publish("s/a", "no stamp", &[]);
    let (_, summary) = cluster.finish(LIMIT);
    summary.check_conservation();
    let rows = summary.list("/messages/failures");
    let mut told: Vec<_> =
        rows.iter().map(|row| (row["reason"].as_str().unwrap(), row["count"].as_u64().unwrap())).collect();
    told.sort_unstable();
    assert_eq!(told, [("clock behind", 1), ("duplicate", 1), ("lost", 2), ("out of order", 1)]);
    // the two that came in order, the one after the gap, the one without a stamp; the rest are faults
    let counts = ["received", "faults"].map(|key| summary.count(&format!("/messages/{key}")));
    assert_eq!(counts, [4, 5], "{:#}", summary.0["messages"]);
}

#[test]
fn a_broker_that_misbehaves_fails_steps_and_nothing_else() {
    let Some(python) = python() else { return ld_tests::skip("no Python environment: tests/run makes one") };
    let port = free_port();
    let mut server = Command::new(python);
    server.arg(test_file("py/mqtt_hostile.py")).arg(port.to_string());
    let server = Process::start("mqtt_hostile.py", server);
    wait_for("mqtt_hostile.py", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
    let modes = [
        ("ok", "", ""),
        ("bytewise", "", ""),
        ("reset", "closed", "connection reset by peer"),
        ("close", "closed", "connection closed"),
        ("garbage", "protocol", "malformed mqtt packet"),
        ("early", "protocol", "unexpected mqtt packet"),
        ("giant-connack", "protocol", "mqtt packet too large"),
        ("refused", "status", "server unavailable (0x03)"),
        ("stall", "timeout", "timed out"),
        ("truncated", "closed", "connection closed"),
        ("wrong-id", "protocol", "acknowledgement of an unknown packet id"),
        ("wrong-kind", "protocol", "acknowledgement of an unknown packet id"),
        ("zero-id", "protocol", "malformed mqtt packet"),
        ("giant", "protocol", "mqtt packet too large"),
        ("endless", "protocol", "malformed mqtt packet"),
        ("mute", "timeout", "timed out"),
        ("goodbye", "status", "disconnected by the broker: server shutting down (0x8b)"),
        ("quota", "status", "quota exceeded (0x97)"),
    ];
    let step = |(mode, class, _): &(&str, &str, &str)| {
        let version = if matches!(*mode, "goodbye" | "quota") { "5" } else { "3.1.1" };
        let timeout = if *class == "timeout" { 0.2 } else { 5.0 };
        json!({"broker": format!("127.0.0.1:{port}"), "client_id": mode, "version": version, "topic": "t", "qos": 1,
               "payload": "x", "timeout": timeout, "name": mode})
    };
    let tasks: Vec<Value> = modes.iter().map(step).collect();
    let more = json!({"user_count": 3, "test_time": 2, "connections": "per_request"});
    let (_, summary) = run(&test(&tasks.into(), &more), 0);
    let log = server.stdout();
    for (mode, class, reason) in modes {
        let (successes, failed) = outcome(&summary, mode);
        assert!(successes + failed > 2, "{mode}: {successes} + {failed}");
        assert_eq!(log.lines().filter(|line| *line == mode).count() as u64, successes + failed, "{mode}");
        if class.is_empty() {
            assert_eq!(failed, 0, "{mode}: {:?}", failures(&summary, mode));
        } else {
            assert_eq!(failures(&summary, mode), [(class.to_owned(), reason.to_owned())], "{mode}");
            assert_eq!(successes, 0, "{mode}");
        }
    }
}

#[test]
fn the_seeds_document_fails_where_it_did() {
    let Some(broker) = Broker::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = |flags: &[&str]| {
        let mut command = command("ld-master", folder.path());
        command.env("LD_MQTT_PORT", broker.port.to_string()).arg("run").args(flags);
        command.arg(test_file("fixtures/actions/11_mqtt.json")).args(["--summary", "summary.json"]);
        Process::start("ld-master run", command).wait(LIMIT)
    };
    let strict = run(&[]);
    strict.expect_code(2).expect_said("tasks/4/topic").expect_said("unknown method `bogus`");
    run(&["--lenient"]);
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    let good = ["connect:", "subscribe:telemetry/in", "publish:telemetry/out", "retained", "bye"];
    for name in good {
        let (successes, failures) = outcome(&summary, name);
        assert!(successes > 3 && failures == 0, "{name}: {successes} + {failures}");
    }
    for (name, reason) in [("empty-topic", "Invalid topic."), ("bogus:", "unsupported mqtt method: bogus")] {
        assert_eq!(outcome(&summary, name).0, 0, "{name}");
        assert_eq!(failures(&summary, name), [("request".to_owned(), reason.to_owned())]);
    }
    assert_eq!(summary.names().len(), good.len() + 2);
}

#[test]
fn the_seeds_readme_example() {
    let Some(broker) = Broker::start() else { return };
    let listener = broker.listen("telemetry/#");
    let tasks = json!([
        {"method": "connect", "broker": broker.address()},
        {"method": "subscribe", "topic": "telemetry/in", "qos": 1},
        {"method": "publish", "topic": "telemetry/out", "payload": "ping", "qos": 1},
        {"method": "disconnect"},
    ]);
    let (finished, summary) = run(&test(&tasks, &json!({"user_count": 10, "spawn_rate": 5, "test_time": 3})), 0);
    finished.expect_code(0);
    let (successes, _) = outcome(&summary, "publish:telemetry/out");
    assert!(successes > 20);
    listener.expect("telemetry/out", successes);
}

#[test]
fn silence_is_kept_alive_and_a_dead_broker_refuses() {
    let Some(broker) = Broker::start() else { return };
    // nobody speaks for 1.5 keep-alives: the broker would close the connection
    let tasks = json!([
        {"broker": broker.address(), "topic": "t", "qos": 1, "keepalive": 1, "name": "hit", "think_time": 2.2},
    ]);
    let mut cluster = Cluster::start(&test(&tasks, &json!({"user_count": 2, "test_time": 5})), 0, &[]);
    wait_for("the users", PATIENCE, || (broker.sys("clients/total") > 1).then_some(()));
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
    pause(Duration::from_millis(1100));
    // one connection each: two users, and those that ask for counters are not counted as sockets of users
    assert_eq!(outcome(&summary, "hit").1, 0);
    let port = broker.port;
    drop(broker);
    let tasks = json!([{"broker": format!("127.0.0.1:{port}"), "topic": "t", "qos": 1, "name": "hit"}]);
    let (_, summary) = run(&test(&tasks, &json!({"user_count": 1, "test_time": 1})), 0);
    assert_eq!(failures(&summary, "hit"), [("connect".to_owned(), "connection refused".to_owned())]);
}
