//! JSON Schema of socket steps.

use super::fields::FIELDS;
use super::framing::MAX_REPLY;
use super::place::KINDS;
use ld_shared::json_schema::{about, boolean, choice, default, examples, or_null, text};
use serde_json::{Map, Value, json};

/// What a step is.
pub(super) fn step() -> Value {
    let properties: Map<String, Value> = FIELDS.iter().map(|name| ((*name).to_owned(), field(name))).collect();
    json!({"properties": properties})
}

fn field(name: &str) -> Value {
    let (schema, words) = match name {
        "protocol" => (default(choice(&KINDS.map(|(word, _)| word)), "tcp"), "What to speak"),
        "target" => (
            examples(text(), json!(["127.0.0.1:9000", "[::1]:9000", "tls://db.test:9443", "unix:/run/app.sock"])),
            "Where to; without it `host`, then the test's `host`, then 127.0.0.1:9000",
        ),
        "host" => (text(), "The same as `target`"),
        "payload" => (
            examples(json!({"type": ["string", "number", "boolean"]}), json!(["PING\n", "hex:DE AD BE EF"])),
            "What is sent: a text, or bytes as `hex:` and digits",
        ),
        "expect_bytes" => (
            default(json!({"type": ["integer", "string"], "minimum": 0, "maximum": MAX_REPLY}), 0),
            "Bytes to read, fewer if the peer closes; 0: none are read",
        ),
        "expect_substring" => (
            json!({"type": ["string", "number", "boolean"]}),
            "Must occur in the reply; over a stream it needs `expect_bytes` or `framing`",
        ),
        "expect_reply" => (boolean(), "UDP: wait for a datagram; with `framing`: false sends only"),
        "timeout" => (
            default(
                json!({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^\\s*[0-9.eE+-]+\\s*$"}]}),
                5,
            ),
            "Seconds",
        ),
        "tls" => (boolean(), "TLS over TCP, by the test's `tls`"),
        "verify" => (default(boolean(), true), "Whether the target's certificate is checked"),
        "keep" => (default(boolean(), false), "Keep the connection for the user's next steps to this target"),
        _ => (framing(), "One reply is one frame, and what is sent is made one"),
    };
    about(or_null(schema), words)
}

fn framing() -> Value {
    let form = |properties: Value, required: &str| json!({"type": "object", "properties": properties, "required": [required], "additionalProperties": false});
    json!({"anyOf": [
        form(json!({"delimiter": {"type": "string", "minLength": 1}}), "delimiter"),
        form(
            json!({"length_prefix": {"enum": [1, 2, 4, 8, "1", "2", "4", "8"]}, "order": choice(&["big", "little"]), "includes_header": boolean()}),
            "length_prefix",
        ),
        form(json!({"fixed": {"type": ["integer", "string"], "minimum": 1, "maximum": MAX_REPLY}}), "fixed"),
    ]})
}
