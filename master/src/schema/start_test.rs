//! What `LD_start_test` takes, key by key.
//!
//! The table of commands says which keys there are in this version; here stands what each takes and
//! what it is for. A test sees to it that no key lacks its line.

use super::reference;
use super::value::{
    about, amount, boolean, choice, default, duration, examples, object, or_null, pause, positive, text, whole,
};
use ld_worker::protocol::PROTOCOLS;
use serde_json::{Map, Value, json};

/// The command.
pub(super) const NAME: &str = "LD_start_test";

/// Keys that a scenario may have besides `name`.
const OF_SCENARIOS: [&str; 21] = [
    "user_detail_dict",
    "tasks",
    "user_count",
    "spawn_rate",
    "arrival_rate",
    "max_in_flight",
    "arrivals",
    "load_shape",
    "shape_config",
    "host",
    "wait_time",
    "connections",
    "timeouts",
    "tls",
    "http_version",
    "status_check",
    "retry",
    "throttle",
    "on_start",
    "on_stop",
    "proxy",
];

/// What a key takes; `None`: there is no such key.
pub(super) fn key(name: &str) -> Option<Value> {
    let (schema, words) = match name {
        "user_detail_dict" => (
            examples(object(user_detail().into()), json!([{"user": "fast_http_user"}])),
            "Which kind of users: {\"user\": KEY}, and options of its protocol",
        ),
        "user_count" => (default(whole(1), 50), "Users to reach, over the whole cluster"),
        "spawn_rate" => (default(positive(), 10), "Users started per second, fractions allowed"),
        "test_time" => (
            examples(default(duration(false), 60), json!([60, "10s", "5m", null])),
            "Length of the test: seconds, or a text like \"10s\"; null: until it is stopped",
        ),
        "web_ui_dict" => (
            object(json!({"host": text(), "port": json!({"type": "integer", "minimum": 0, "maximum": 65535})})),
            "Opens the web surface for this test: {host, port}",
        ),
        "runner_mode" => (
            default(choice(&["local", "master", "worker"]), "local"),
            "Where the load is made: in this process, by workers that join it, or as a worker of another master",
        ),
        "tasks" => {
            (reference("tasks"), "What each user does: a list of tasks, {\"mode\", \"tasks\"}, or {\"get\": {…}, …}")
        }
        "variables" => (json!({"type": "object"}), "Variables for ${var.NAME}"),
        "csv_sources" => (json!({"type": "array", "items": csv_source()}), "CSV files for ${csv.NAME.COLUMN}"),
        "host" => (
            examples(text(), json!(["https://shop.example", "http://127.0.0.1:8080"])),
            "Default target: relative URLs are joined to it",
        ),
        "arrival_rate" => {
            (positive(), "Iterations started per second, whatever the target does (open model), instead of users")
        }
        "max_in_flight" => {
            (whole(1), "Most open iterations; arrivals beyond it are dropped and counted. Default: rate × 10 s")
        }
        "arrivals" => (default(choice(&["constant", "poisson"]), "constant"), "How arrivals are spread over time"),
        "load_shape" => (choice(&["stages", "spike", "soak"]), "Load over time, described by `shape_config`"),
        "shape_config" => (shape_config(), "The shape: stages, spike or soak"),
        "iterations" => {
            (whole(1), "Ends the test after so many iterations over the cluster, if that is before `test_time`")
        }
        "warmup" => (
            default(duration(true), 0),
            "Time at the beginning that is measured apart and kept out of totals and thresholds",
        ),
        "wait_time" => {
            (examples(pause(), json!([0.5, [0.1, 0.2], "200ms"])), "Pause after each iteration: seconds or [min, max]")
        }
        "thresholds" => (
            examples(json!({"type": "array", "items": threshold()}), json!([["p95 < 200ms", "failure_rate < 1%"]])),
            "Rules that decide whether the test passes: METRIC OP NUMBER [for …] [over …]",
        ),
        "connections" => (
            examples(
                default(
                    json!({"type": "string", "anyOf": [{"enum": ["per_user", "per_iteration", "per_request"]}, {"pattern": "^shared: *[1-9][0-9]*$"}]}),
                    "per_user",
                ),
                json!(["per_user", "shared:100"]),
            ),
            "Who shares connections: per_user, shared:N (over the cluster), per_iteration or per_request",
        ),
        "timeouts" => (
            object(
                json!({"connect": about(or_null(default(duration(false), 60)), "Time for connecting"), "request": about(or_null(default(duration(false), 60)), "Time for a request")}),
            ),
            "Time-outs of connecting and of requests; default 60 s each",
        ),
        "tls" => (
            object(json!({
                "ca": about(or_null(text()), "PEM file of trusted authorities"),
                "cert": about(or_null(text()), "PEM file of the client certificate"),
                "key": about(or_null(text()), "PEM file of its key"),
                "verify": about(or_null(default(boolean(), true)), "Whether the target's certificate is checked"),
            })),
            "Certificates",
        ),
        "http_version" => {
            (default(choice(&["auto", "1.1", "2", "3"]), "auto"), "Version of HTTP; auto: what the target offers")
        }
        "graceful_stop" => (default(duration(true), 5), "How long open requests may finish at the end"),
        "on_missing_workers" => {
            (default(choice(&["refuse", "start"]), "refuse"), "What happens if workers are missing at the start")
        }
        "records" => (records(), "Which requests are kept one by one; \"none\": no one"),
        "seed" => (whole(0), "The same plan with the same seed makes the same requests"),
        "status_check" => {
            (status_check(), "Whether a status of 400 or more fails beside assertions; `assertions` is the seed's rule")
        }
        "expected_workers" => (whole(0), "With runner_mode master: how many workers to wait for"),
        "master_bind_host" => (text(), "With runner_mode master: where workers connect; * is every address"),
        "master_bind_port" | "master_port" => {
            (json!({"type": "integer", "minimum": 0, "maximum": 65535}), "Port for workers; default 5557")
        }
        "master_host" => (text(), "With runner_mode worker: the master's host"),
        "scenarios" => (
            json!({"type": "array", "minItems": 1, "items": reference("scenario")}),
            "Several kinds of users at once; what one leaves out it takes from the test",
        ),
        "on_start" => (reference("hook"), "Tasks that each user runs before its first iteration"),
        "on_stop" => (reference("hook"), "Tasks that each user runs after its last iteration"),
        "setup" => {
            (reference("hook"), "Tasks that one worker runs once before the test; what they extract goes to all")
        }
        "teardown" => (reference("hook"), "Tasks that one worker runs once after the test"),
        "throttle" => (throttle(), "Requests per second, over the whole cluster: {key, rps, burst}"),
        "retry" => (retry(), "How often failed requests are tried again"),
        "proxy" => (json!({"type": ["string", "object"]}), "Proxy for HTTP users"),
        "on_worker_loss" => (
            default(choice(&["redistribute", "degrade", "abort"]), "redistribute"),
            "What happens when a worker is lost",
        ),
        "on_master_loss" => (default(choice(&["stop", "finish"]), "stop"), "What workers do when the master is gone"),
        "allow_targets" => {
            (json!({"type": "array", "items": text()}), "Targets that may be loaded: HOST[:PORT] with *, or CIDR")
        }
        _ => return None,
    };
    Some(about(or_null(schema), words))
}

/// What the arguments must have as a whole.
pub(super) fn complete(named: &mut Value) {
    named["anyOf"] = json!([{"required": ["user_detail_dict", "tasks"]}, {"required": ["scenarios"]}]);
    named["allOf"] = super::task::by_user();
}

/// Definitions that keys refer to.
pub(super) fn define(definitions: &mut Map<String, Value>) {
    let mut properties = Map::new();
    properties.insert("name".into(), about(text(), "Its name in reports and rules"));
    for name in OF_SCENARIOS {
        if let Some(schema) = key(name) {
            properties.insert(name.into(), schema);
        }
    }
    let mut scenario = object(properties.into());
    scenario["description"] = "One kind of users".into();
    scenario["allOf"] = super::task::by_user();
    definitions.insert("scenario".into(), scenario);
}

/// The key, and the options of every protocol.
fn user_detail() -> Map<String, Value> {
    let options = PROTOCOLS.iter().flat_map(|driver| (driver.options_schema)());
    std::iter::once(("user".to_owned(), user_key())).chain(options).collect()
}

/// Key of a kind of users.
pub(super) fn user_key() -> Value {
    let keys: Vec<&str> = PROTOCOLS.iter().flat_map(|driver| driver.keys.iter().copied()).collect();
    about(default(json!({"type": "string", "enum": keys}), "fast_http_user"), "Key of a kind of users")
}

/// A data source.
pub(super) fn csv_source() -> Value {
    let mut source = object(json!({
        "name": about(json!({"type": "string", "pattern": "^[^.}]*$"}), "Its name in ${csv.NAME.COLUMN}"),
        "file_path": about(text(), "The file; its first row names the columns"),
        "cycle": about(or_null(default(boolean(), true)), "true: rows start again after the last"),
        "unique": about(or_null(boolean()), "true: no row is used twice over the whole cluster"),
        "at_end": about(or_null(choice(&["placeholder", "stop_user", "stop_test"])), "What happens when no row is left"),
    }));
    source["required"] = json!(["name", "file_path"]);
    source
}

/// Whether a status counts: of a test or a task.
pub(super) fn status_check() -> Value {
    default(choice(&["always", "assertions"]), "always")
}

/// How a request is tried again: of a test or a task.
pub(super) fn retry() -> Value {
    object(json!({
        "transient": about(or_null(default(whole(0), 5)), "Retries of transport errors and of 408, 425, 429, 502, 503, 504"),
        "flaky": about(or_null(default(whole(0), 2)), "Retries of other statuses from 500 on, and of failed assertions"),
        "permanent": about(or_null(default(whole(0), 0)), "Retries of all other failures"),
        "base_delay": about(or_null(default(duration(true), 0.1)), "First pause, seconds"),
        "max_delay": about(or_null(default(duration(true), 5)), "Longest pause, seconds"),
        "backoff_factor": about(or_null(default(positive(), 2)), "Factor from one pause to the next"),
        "jitter": about(or_null(default(json!({"type": "number", "minimum": 0, "maximum": 1}), 0.25)), "Share of the pause by which it varies"),
    }))
}

/// A limit of requests: of a test or a task.
pub(super) fn throttle() -> Value {
    let object = json!({
        "type": "object",
        "properties": {
            "key": about(text(), "Tasks with the same key share the limit"),
            "rps": about(positive(), "Requests per second over the cluster"),
            "burst": about(json!({"type": ["number", "null"], "minimum": 0}), "Requests that may follow one another at once"),
        },
    });
    json!({"anyOf": [object, positive()]})
}

fn threshold() -> Value {
    let rule = examples(
        text(),
        json!([
            "p95 < 200ms",
            "p99 of service <= 1s for name:checkout over 30s",
            "failure_rate < 1%",
            "rate >= 100/s",
            "dropped == 0"
        ]),
    );
    let mut object = object(json!({
        "rule": about(rule.clone(), "METRIC [of response|service|lag] OP NUMBER [for …] [over …]"),
        "abort": about(or_null(default(boolean(), false)), "Ends the test when the rule is broken"),
        "after": about(or_null(duration(true)), "Not before so much of the test has passed"),
    }));
    object["required"] = json!(["rule"]);
    json!({"anyOf": [rule, object]})
}

fn records() -> Value {
    let object = object(json!({
        "keep": about(or_null(default(whole(0), 100_000)), "So many successes and so many failures, a uniform sample over the run"),
        "bodies": about(
            or_null(examples(default(json!({"type": "string", "pattern": "^(none|(failed|all)\\s*(:\\s*[0-9.]+\\s*[a-zA-Z]*\\s*)?)$"}), "failed:1KiB"), json!(["none", "failed:1KiB", "all:4KiB"]))),
            "Whose bodies are kept, and how much of each: none, failed[:SIZE] or all[:SIZE]",
        ),
        "all": about(or_null(examples(text(), json!(["all.csv.zst"]))), "File to which every request is written"),
    }));
    json!({"anyOf": [choice(&["none"]), object]})
}

fn shape_config() -> Value {
    let spawn = about(or_null(positive()), "How many more (or fewer) per second");
    let users = about(or_null(whole(0)), "Users");
    let rate = about(or_null(amount()), "Iterations per second, instead of users");
    let mut stage = object(json!({
        "duration": about(duration(false), "Length of the stage, seconds"), "users": users, "rate": rate, "spawn_rate": spawn,
    }));
    stage["required"] = json!(["duration"]);
    let mut stages = object(json!({"stages": {"type": "array", "minItems": 1, "items": stage}}));
    stages["required"] = json!(["stages"]);
    let seconds = |default_value: u64| or_null(default(duration(true), default_value));
    let spike = object(json!({
        "baseline_users": users, "baseline_rate": rate, "spike_users": users, "spike_rate": rate, "spawn_rate": spawn,
        "pre_seconds": about(seconds(30), "Time at the baseline before"), "spike_seconds": about(seconds(30), "Time at the spike"),
        "post_seconds": about(seconds(30), "Time at the baseline after"),
    }));
    let soak = object(json!({
        "users": users, "rate": rate, "spawn_rate": spawn, "ramp_seconds": about(seconds(60), "Time to get there"),
        "hold_seconds": about(seconds(600), "Time to stay"), "cooldown_seconds": about(seconds(60), "Time to go back"),
    }));
    json!({"anyOf": [stages, spike, soak]})
}
