//! Tasks: what every task may have, the fields of the protocols, assertions, extractors, conditions.

use super::reference;
use super::start_test::{retry, status_check, throttle, user_key};
use super::value::{about, any_case, boolean, choice, default, examples, object, or_null, pause, text};
use crate::command::start_test::COMMON;
use ld_worker::protocol::PROTOCOLS;
use serde_json::{Map, Value, json};

const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];
const TEXTS: &str = "Texts may hold placeholders: ${var.x}, ${csv.source.column}, ${uuid()}, ${randint(1,9)}, …";

/// Definitions that the schema of a test refers to.
pub(super) fn define(definitions: &mut Map<String, Value>) {
    let properties = properties();
    let body = json!({
        "description": TEXTS,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "anyOf": [{"required": ["request_url"]}, {"required": ["url"]}],
    });
    let mut task = body.clone();
    task["required"] = json!(["method"]);
    definitions.insert("task".into(), task);
    definitions.insert("task_of_method".into(), body);
    definitions.insert("hook".into(), json!({"anyOf": [{"type": "array", "items": reference("task")}, by_method()]}));
    let list = json!({"anyOf": [{"type": "array", "minItems": 1, "items": reference("task")}, by_method()]});
    let scenario = json!({
        "type": "object",
        "properties": {
            "mode": about(default(choice(&["sequence", "weighted", "conditional"]), "sequence"), "All tasks in order, or one by weight"),
            "tasks": list,
        },
        "required": ["tasks"],
        "additionalProperties": false,
    });
    definitions.insert(
        "tasks".into(),
        json!({"anyOf": [{"type": "array", "minItems": 1, "items": reference("task")}, scenario, by_method()]}),
    );
    definitions.insert("assertion".into(), assertion());
    definitions.insert("extractor".into(), extractor());
    definitions.insert("predicate".into(), predicate());
}

/// `{"get": {…}, "post": {…}}`; a task of its own is none.
fn by_method() -> Value {
    let each: Map<String, Value> =
        METHODS.iter().map(|method| ((*method).to_owned(), reference("task_of_method"))).collect();
    json!({
        "type": "object", "minProperties": 1, "properties": each,
        "propertyNames": {"not": {"enum": ["mode", "tasks", "method", "request_url"]}},
        "additionalProperties": reference("task_of_method"),
    })
}

fn properties() -> Map<String, Value> {
    let fields = PROTOCOLS.iter().flat_map(|driver| driver.fields.iter().copied());
    COMMON.into_iter().chain(fields).map(|name| (name.to_owned(), field(name).unwrap_or_else(|| json!({})))).collect()
}

/// What a field of a task takes.
pub(super) fn field(name: &str) -> Option<Value> {
    let pairs =
        json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null", "array"]}});
    let (schema, words) = match name {
        "name" => (json!({"type": ["string", "number", "boolean"]}), "Its name in all statistics"),
        "user" => (user_key(), "Key of another kind of users: this step speaks its protocol"),
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
        "method" => (methods(), "HTTP method"),
        "request_url" | "url" => (
            examples(json!({"type": "string"}), json!(["http://127.0.0.1:8080/", "/path?q=${uuid()}"])),
            "The URL; a relative one is joined to `host`",
        ),
        "params" => (pairs, "Query parameters; lists repeat their key, null drops it"),
        "headers" => (
            json!({"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}}),
            "Headers; null takes a default one away",
        ),
        "cookies" => (json!({"anyOf": [pairs, {"type": "string"}]}), "Cookies: an object, or a text like \"a=1; b=2\""),
        "json" => (json!({}), "JSON body"),
        "data" => (json!({"anyOf": [pairs, {"type": "string"}]}), "An object: a form; a text: the body as it is"),
        "files" => (pairs, "Multipart: names and contents of files"),
        "auth" => (auth(), "Authentication: basic or bearer"),
        "timeout" => (
            json!({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^\\s*[0-9.eE+-]+\\s*$"}]}),
            "Seconds",
        ),
        "allow_redirects" => (default(boolean(), true), "false: a redirect is the answer"),
        "verify" => (default(boolean(), true), "Whether the target's certificate is checked"),
        "cert" | "client_cert" => (json!({"type": "null"}), "Not of a task: use `tls` of the test"),
        _ => return None,
    };
    Some(about(or_null(schema), words))
}

fn methods() -> Value {
    let any = METHODS.iter().map(|word| any_case(word)).collect::<Vec<_>>().join("|");
    json!({"type": "string", "anyOf": [{"enum": METHODS}, {"pattern": format!("^\\s*({any})\\s*$")}]})
}

fn auth() -> Value {
    let scalar = json!({"type": ["string", "number", "boolean", "null"]});
    json!({
        "type": "object",
        "properties": {
            "type": choice(&["basic", "bearer"]), "username": scalar, "password": scalar,
            "token": about(scalar.clone(), "With bearer"),
        },
        "required": ["type"],
    })
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
