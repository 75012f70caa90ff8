//! One virtual user that mixes protocols: it logs in over HTTP and carries its token to a WebSocket, a
//! gRPC call and an MQTT broker. The peers, none of ours, see to it that no token meets a foreign id.

use ld_tests::cluster::run;
use ld_tests::mosquitto::Broker;
use ld_tests::peer::Peer;
use serde_json::{Value, json};

/// A user that logs in anew in each iteration.
fn document(peer: &Peer, broker: u16) -> Value {
    let [http, ws, grpc] = ["http", "ws", "grpc"].map(|key| peer.port(key));
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

#[test]
fn no_token_ever_crosses_users() {
    let Some(broker) = Broker::start() else { return };
    for workers in [0, 3] {
        let folder = tempfile::tempdir().unwrap();
        let Some(peer) = Peer::start("mixed_target.py", &[&broker.port.to_string()]) else { return };
        let (finished, summary) = run(folder.path(), &document(&peer, broker.port), workers);
        finished.expect_code(0);
        let seen = peer.stop();
        assert_eq!(seen["crossed"], json!([]), "{seen}");
        // the peers' own counts are the names' counts
        for (peer, name) in [("logins", "login"), ("ws", "talk"), ("mqtt", "tell"), ("grpc", "greet")] {
            let ours = &summary.0["per_name"][name]["successes"];
            assert_eq!((name, &seen[peer]), (name, ours), "{workers} workers: {seen}");
            assert!(ours.as_u64().unwrap() >= 100, "{name}: {ours}");
        }
    }
}
