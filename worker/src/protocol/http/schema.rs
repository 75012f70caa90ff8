//! JSON Schema of HTTP tasks.

use super::fields::{FIELDS, MAX_STREAMS, METHODS};
use ld_shared::json_schema::{about, any_case, boolean, choice, default, examples, or_null};
use serde_json::{Map, Value, json};

/// What a task is.
pub(super) fn task() -> Value {
    let properties: Map<String, Value> = FIELDS.iter().map(|name| ((*name).to_owned(), field(name))).collect();
    json!({
        "properties": properties,
        "required": ["method"],
        "anyOf": [{"required": ["request_url"]}, {"required": ["url"]}],
    })
}

pub(super) fn field(name: &str) -> Value {
    let pairs =
        json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null", "array"]}});
    let (schema, words) = match name {
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
        _ => (json!({"type": "null"}), "Not of a task: use `tls` of the test"),
    };
    about(or_null(schema), words)
}

/// The options.
pub(super) fn options() -> Map<String, Value> {
    let most = json!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_STREAMS}, {"type": "string", "pattern": "^\\s*[0-9]+\\s*$"}]});
    let words = "HTTP/2 and HTTP/3 with shared connections: most requests of one connection at a time";
    Map::from_iter([("streams".to_owned(), about(or_null(default(most, super::many::STREAMS)), words))])
}

fn methods() -> Value {
    let lower = METHODS.map(str::to_ascii_lowercase);
    let any = lower.iter().map(|word| any_case(word)).collect::<Vec<_>>().join("|");
    json!({"type": "string", "anyOf": [{"enum": lower}, {"pattern": format!("^\\s*({any})\\s*$")}]})
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
