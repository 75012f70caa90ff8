//! One virtual user that mixes protocols: it logs in over HTTP and carries its token to a WebSocket, a
//! gRPC call and an MQTT broker. The peers, none of ours, see to it that no token meets a foreign id.

use ld_tests::binaries::{python, test_file};
use ld_tests::mosquitto::Broker;
use ld_tests::process::{Process, command, free_port};
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// A user that logs in anew in each iteration.
fn document(ports: &Value, broker: u16) -> Value {
    let [http, ws, grpc] = ["http", "ws", "grpc"].map(|key| ports[key].as_u64().unwrap());
    json!([["LD_start_test", {
        "user_detail_dict": {"user": "fast_http_user"},
        "user_count": 100, "spawn_rate": 1000, "test_time": 6, "wait_time": [0.2, 0.6], "graceful_stop": "20s",
        "tasks": [
            {"method": "post", "request_url": format!("http://127.0.0.1:{http}/login"), "name": "login",
             "extract": [{"var": "id", "path": "id"}, {"var": "token", "path": "token"}]},
            {"user": "websocket_user", "method": "connect", "name": "open",
             "request_url": format!("ws://127.0.0.1:{ws}/?id=${{var.id}}"),
             "headers": {"Authorization": "Bearer ${var.token}"}},
            {"user": "websocket_user", "method": "sendrecv", "name": "talk", "payload": "${var.token}",
             "expect": "welcome ${var.id} ${var.token}"},
            {"user": "mqtt_user", "method": "publish", "name": "tell", "broker": format!("127.0.0.1:{broker}"),
             "topic": "mixed/${var.id}", "payload": "${var.token}", "qos": 1},
            {"user": "grpc_user", "name": "greet", "target": format!("127.0.0.1:{grpc}"),
             "service": "greeter.Greeter", "method": "SayHello", "payload": {"name": "${var.id}"},
             "metadata": {"x-token": "${var.token}"},
             "assertions": [{"type": "json_path", "path": "message", "value": "Hello ${var.id}"}]},
        ],
    }]])
}

fn run(folder: &Path, document: &Value, workers: usize) -> Summary {
    let address = format!("127.0.0.1:{}", free_port());
    let mut master = command("ld-master", folder);
    if workers > 0 {
        master.args(["--bind", &address, "--expected-workers", &workers.to_string()]);
    }
    master.args(["run-str", &document.to_string(), "--summary", "summary.json"]);
    let mut master = Process::start("ld-master", master);
    let mut others: Vec<Process> = (0..workers)
        .map(|_| {
            let mut worker = command("ld-worker", folder);
            worker.args(["--master", &address, "--cores", "1"]);
            Process::start("ld-worker", worker)
        })
        .collect();
    master.wait(LIMIT).expect_code(0);
    others.iter_mut().for_each(|worker| drop(worker.wait(LIMIT)));
    let summary = Summary::read(&folder.join("summary.json")).unwrap();
    summary.check_conservation();
    summary
}

#[test]
fn no_token_ever_crosses_users() {
    let Some(python) = python() else { return ld_tests::skip("no Python environment: tests/run makes one") };
    let Some(broker) = Broker::start() else { return };
    for workers in [0, 3] {
        let folder = tempfile::tempdir().unwrap();
        let mut peers = Command::new(&python);
        peers.arg(test_file("py/mixed_target.py")).arg(folder.path()).arg(broker.port.to_string());
        let mut peers = Process::start("mixed_target.py", peers);
        let ports: Value = wait_for("the mixed user's peers", PATIENCE, || {
            assert!(peers.runs(), "{}", peers.stderr());
            serde_json::from_slice(&fs::read(folder.path().join("ports.json")).ok()?).ok()
        });
        let summary = run(folder.path(), &document(&ports, broker.port), workers);
        peers.signal(Signal::TERM);
        peers.wait(PATIENCE).expect_code(0);
        let seen: Value = serde_json::from_slice(&fs::read(folder.path().join("seen.json")).unwrap()).unwrap();
        assert_eq!(seen["crossed"], json!([]), "{seen}");
        assert_eq!(summary.count("/totals/failures"), 0);
        // the peers' own counts are the names' counts
        for (peer, name) in [("logins", "login"), ("ws", "talk"), ("mqtt", "tell"), ("grpc", "greet")] {
            let ours = &summary.0["per_name"][name]["successes"];
            assert_eq!((name, &seen[peer]), (name, ours), "{workers} workers: {seen}");
            assert!(ours.as_u64().unwrap() >= 300, "{name}: {ours}");
        }
    }
}
