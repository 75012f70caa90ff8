//! The protocols that tasks may use: the one place that names the worker's table.

use crate::script::Fault;
use ld_shared::plan::ScenarioPlan;
use serde_json::{Map, Value};

/// What the checker must know of a protocol.
pub(super) struct Driver {
    /// Keys by which documents name it.
    keys: &'static [&'static str],
    /// Names of its task fields.
    pub(super) fields: &'static [&'static str],
    /// Every fault of a task's fields, pointers from the task.
    check: fn(&Map<String, Value>, &ScenarioPlan) -> Vec<Fault>,
}

/// User keys that come with a later version.
pub(super) const LATER: [&str; 6] =
    ["http3_user", "websocket_user", "grpc_user", "mqtt_user", "socket_user", "sse_user"];

/// The protocol that a document names by this key.
pub(super) fn of(key: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.keys.contains(&key))
}

/// All keys that documents may use.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    DRIVERS.iter().flat_map(|driver| driver.keys.iter().copied())
}

/// Every fault of a task's fields, pointers from the task.
pub(super) fn faults(driver: &Driver, fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Vec<Fault> {
    (driver.check)(fields, scenario)
}

const DRIVERS: &[Driver] = &[Driver {
    keys: &["fast_http_user", "http_user"],
    fields: &[
        "method",
        "request_url",
        "url",
        "params",
        "headers",
        "cookies",
        "json",
        "data",
        "files",
        "auth",
        "timeout",
        "allow_redirects",
        "verify",
        "cert",
        "client_cert",
    ],
    check: |_, _| Vec::new(),
}];
