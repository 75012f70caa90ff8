//! gRPC users against scripted peers.

use ld_shared::plan::Plan;
use serde_json::{Value, json};

pub(crate) fn plan(scenario: &Value) -> Plan {
    let mut whole = json!({
        "name": "s", "user": "grpc_user", "load": {"closed": {"users": {"segments": [], "tail": 1.0}}},
        "first_number": 0, "mode": "sequence", "tasks": [], "wait_time": null, "host": null,
        "connections": "per_user", "connect_timeout": 5.0, "request_timeout": 5.0,
        "tls": {"verify": true, "ca": null, "certificate": null, "key": null}, "status_check": "always"
    });
    for (key, value) in scenario.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "seed": 0, "scenarios": [whole], "env": {"E": "e"}, "variables": {"name": "bob", "n": 7}, "sources": [],
        "test_time": null, "warmup": 0, "graceful_stop": 0, "iterations": null,
        "records": {"keep": 0, "bodies": "none"}
    }))
    .unwrap()
}
