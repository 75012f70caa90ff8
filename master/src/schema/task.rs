//! Tasks: what every task may have, the fields of the protocols, assertions, extractors, conditions.

use super::reference;
use super::start_test::{retry, status_check, throttle};
use super::value::{about, any_case, choice, default, examples, object, or_null, pause, text};
use crate::command::start_test::COMMON;
use ld_worker::protocol::{Driver, PROTOCOLS};
use serde_json::{Map, Value, json};

const TEXTS: &str = "Texts may hold placeholders: ${var.x}, ${csv.source.column}, ${uuid()}, ${randint(1,9)}, …";

/// Definitions that the schema of a test refers to.
pub(super) fn define(definitions: &mut Map<String, Value>) {
    for driver in PROTOCOLS {
        definitions.insert(step_of(driver), of_protocol(driver, false));
        definitions.insert(task_of(driver), of_protocol(driver, true));
    }
    lists(definitions, "", |name| PROTOCOLS.iter().map(|driver| reference(&name(driver))).collect());
    for own in PROTOCOLS {
        // steps of another protocol name its user
        let one = |driver: &Driver, name: &str| {
            if driver.keys == own.keys {
                return reference(name);
            }
            json!({"allOf": [reference(name), {"required": ["user"], "properties": {"user": {"type": "string"}}}]})
        };
        lists(definitions, &suffix(own), |name| PROTOCOLS.iter().map(|driver| one(driver, &name(driver))).collect());
    }
    definitions.insert("assertion".into(), assertion());
    definitions.insert("extractor".into(), extractor());
    definitions.insert("predicate".into(), predicate());
}

fn task_of(driver: &Driver) -> String {
    format!("task{}", suffix(driver))
}

/// The same where the key is the method.
fn step_of(driver: &Driver) -> String {
    format!("step{}", suffix(driver))
}

fn suffix(driver: &Driver) -> String {
    format!("_of_{}", driver.keys[0])
}

/// Lists of tasks; `which`: the definitions of tasks that may stand in them.
fn lists(definitions: &mut Map<String, Value>, suffix: &str, which: impl Fn(&dyn Fn(&Driver) -> String) -> Vec<Value>) {
    let task = json!({"description": TEXTS, "anyOf": which(&task_of)});
    let (some, any) = (json!({"type": "array", "minItems": 1, "items": task}), json!({"type": "array", "items": task}));
    let by_method = json!({
        "type": "object", "minProperties": 1,
        // a task of its own is none
        "propertyNames": {"not": {"enum": ["mode", "tasks", "method", "request_url"]}},
        "additionalProperties": {"description": TEXTS, "anyOf": which(&step_of)},
    });
    let scenario = json!({
        "type": "object",
        "properties": {
            "mode": about(default(choice(&["sequence", "weighted", "conditional"]), "sequence"), "All tasks in order, or one by weight"),
            "tasks": {"anyOf": [some, by_method]},
        },
        "required": ["tasks"],
        "additionalProperties": false,
    });
    definitions.insert(format!("hook{suffix}"), json!({"anyOf": [any, by_method]}));
    definitions.insert(format!("tasks{suffix}"), json!({"anyOf": [some, scenario, by_method]}));
}

/// What is known of tasks when it is known whose they are.
pub(super) fn by_user() -> Value {
    let one = |driver: &Driver| {
        let tasks = or_null(reference(&format!("tasks{}", suffix(driver))));
        let hook = or_null(reference(&format!("hook{}", suffix(driver))));
        json!({
            "if": {
                "required": ["user_detail_dict"],
                "properties": {"user_detail_dict": {"type": "object", "required": ["user"], "properties": {"user": {"enum": driver.keys}}}},
            },
            "then": {"properties": {"tasks": tasks, "on_start": hook, "on_stop": hook}},
        })
    };
    PROTOCOLS.iter().map(one).collect()
}

/// A task of one protocol; `with_method`: it names its method itself if it must have one.
fn of_protocol(driver: &Driver, with_method: bool) -> Value {
    let mut task = (driver.schema)();
    let fields = std::mem::take(&mut task["properties"]);
    let mut properties = common(driver);
    properties.extend(fields.as_object().cloned().unwrap_or_default());
    task["type"] = "object".into();
    task["properties"] = properties.into();
    task["additionalProperties"] = false.into();
    if let Some(required) = task.get_mut("required").and_then(Value::as_array_mut).filter(|_| !with_method) {
        required.retain(|key| key != "method");
    }
    task
}

/// What every task may have.
fn common(driver: &Driver) -> Map<String, Value> {
    let field = |name: &'static str| (name.to_owned(), if name == "user" { user(driver) } else { field(name) });
    COMMON.into_iter().map(field).collect()
}

fn user(driver: &Driver) -> Value {
    let keys = json!({"type": "string", "enum": driver.keys});
    about(or_null(keys), "Key of another kind of users: this step speaks its protocol")
}

fn field(name: &str) -> Value {
    let (schema, words) = match name {
        "name" => (json!({"type": ["string", "number", "boolean"]}), "Its name in all statistics"),
        "weight" => (
            default(json!({"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^\\s*[+-]?[0-9]+\\s*$"}]}), 1),
            "How often it is chosen with mode weighted, against the other weights",
        ),
        "run_if" => (reference("predicate"), "Runs only if this holds"),
        "skip_if" => (reference("predicate"), "Does not run if this holds"),
        "assertions" => (json!({"type": "array", "items": reference("assertion")}), "What must hold of the answer"),
        "extract" => (json!({"type": "array", "items": reference("extractor")}), "Variables to take from the answer"),
        "think_time" => {
            (examples(pause(), json!([0.5, [0.1, 0.2], "200ms"])), "Pause after the task: seconds or [min, max]")
        }
        "status_check" => (status_check(), "Whether a status of 400 or more fails beside assertions"),
        "throttle" => (throttle(), "Requests per second, over the whole cluster: {key, rps, burst}"),
        "retry" => (retry(), "How often it is tried again when it fails"),
        other => unreachable!("`{other}` is not among the keys that every task may have"),
    };
    about(or_null(schema), words)
}

fn assertion() -> Value {
    let one = |kind: &str, words: &str, keys: Value, required: &[&str]| {
        let mut assertion = object(json!({"type": about(choice(&[kind]), words)}));
        for (key, schema) in keys.as_object().into_iter().flatten() {
            assertion["properties"][key] = schema.clone();
        }
        let required: Vec<&str> = std::iter::once("type").chain(required.iter().copied()).collect();
        assertion["required"] = json!(required);
        assertion
    };
    let status = json!({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^\\s*[+-]?[0-9]+\\s*$|\\$\\{"}]});
    let part = json!({"type": ["string", "number", "boolean", "array", "object"]});
    let header = json!({"type": ["string", "null"]});
    json!({"anyOf": [
        one("status_code", "The status is this", json!({"value": status}), &["value"]),
        one("contains", "The body contains this", json!({"value": part}), &["value"]),
        one("not_contains", "The body does not contain this", json!({"value": part}), &["value"]),
        one("json_path", "The value at this path equals this", json!({"path": path(), "value": {}}), &["path"]),
        one("header", "The header has this value", json!({"name": text(), "value": header}), &["name"]),
    ]})
}

fn path() -> Value {
    examples(
        about(text(), "A dotted path, or a JSONPath that begins with $"),
        json!(["data.token", "items.0.id", "$.items[0].id"]),
    )
}

fn extractor() -> Value {
    let one = |from: &str, key: Option<(&str, Value)>, is_default: bool| {
        let mut extractor = object(json!({
            "var": about(json!({"type": "string", "pattern": "^[^}]+$"}), "The variable to set"),
            "from": or_null(choice(&[from])),
            "scope": or_null(choice(&["var"])),
        }));
        let mut required = vec!["var"];
        if !is_default {
            required.push("from");
            extractor["properties"]["from"] = choice(&[from]);
        }
        if let Some((key, schema)) = key {
            extractor["properties"][key] = schema;
            required.push(key);
        }
        extractor["required"] = json!(required);
        extractor
    };
    json!({"anyOf": [
        one("json_path", Some(("path", path())), true),
        one("header", Some(("name", about(text(), "The header"))), false),
        one("status_code", None, false),
    ]})
}

fn predicate() -> Value {
    let pair = json!({"type": "array", "minItems": 2, "maxItems": 2});
    let operators = [("equals", &pair), ("not_equals", &pair), ("in", &pair), ("truthy", &Value::Bool(true))];
    let mut properties = Map::new();
    let mut patterns = Map::new();
    for (name, operand) in operators {
        properties.insert(name.into(), operand.clone());
        patterns.insert(format!("^{}$", any_case(name)), operand.clone());
    }
    json!({"anyOf": [
        {"type": ["boolean", "integer"]},
        {"type": "string", "description": "A text that counts as true unless it is empty, false, 0, no, none or null", "examples": ["${var.logged_in}"]},
        {"type": "object", "properties": properties, "patternProperties": patterns, "additionalProperties": false, "minProperties": 1, "maxProperties": 1},
    ]})
}
