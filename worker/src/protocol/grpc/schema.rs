//! JSON Schema of gRPC tasks and options.

use super::descriptors::Rpc;
use super::fields::FIELDS;
use ld_shared::json_schema::{about, choice, default, examples, or_null, text, whole};
use serde_json::{Map, Value, json};

/// What a task is.
pub(super) fn task() -> Value {
    let properties: Map<String, Value> = FIELDS.iter().map(|name| ((*name).to_owned(), field(name))).collect();
    json!({
        "properties": properties,
        "required": ["method"],
        "anyOf": [
            {"required": ["service"]},
            {"required": ["stub_path"]},
            {"required": ["method"], "properties": {"method": {"type": "string", "pattern": "/"}}},
        ],
    })
}

fn field(name: &str) -> Value {
    let scalar = json!({"type": ["string", "number", "boolean"]});
    let object = json!({"type": "object"});
    let (schema, words) = match name {
        "target" | "host" => (
            examples(text(), json!(["localhost:50051", "grpcs://api.example.com:443"])),
            "Where to call; grpcs:// or https:// for TLS; else the test's `host`",
        ),
        "service" => (examples(text(), json!(["greeter.Greeter"])), "The service, in full or its last part"),
        "method" => {
            (examples(text(), json!(["SayHello", "greeter.Greeter/SayHello"])), "The method; also with its service")
        }
        "stub_path" => (text(), "The service as a dotted path to its Python stub"),
        "request_path" => (text(), "The request message as a dotted path to its Python class"),
        "payload" => (
            json!({"anyOf": [object, {"type": "array", "items": object}]}),
            "Fields of the message; a list of messages for client streams",
        ),
        "metadata" => (
            json!({"anyOf": [
                {"type": "object", "additionalProperties": scalar},
                {"type": "array", "items": {"type": "array", "prefixItems": [{"type": "string"}, scalar], "items": false, "minItems": 2}},
            ]}),
            "Names and values; base64 for names that end in -bin",
        ),
        "timeout" => (
            json!({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^\\s*[0-9.eE+-]+\\s*$"}]}),
            "Deadline in seconds, 10 if left out",
        ),
        "rpc" => (choice(&Rpc::NAMES), "Kind of call, as a check: the descriptor knows it"),
        _ => (default(whole(1), 4 * 1024 * 1024), "Bytes of the largest message that is taken"),
    };
    about(or_null(schema), words)
}

/// What the options are.
pub(super) fn options() -> Map<String, Value> {
    let paths = || json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    let option = |name: &str, schema, words| (name.to_owned(), about(schema, words));
    [
        option("proto", paths(), "The .proto file, or files, that describe the service; else it is asked itself"),
        option("import_paths", paths(), "Folders in which `proto` and what it imports are looked for"),
        option("descriptor_set", text(), "A file of descriptors, as `protoc --descriptor_set_out` writes it"),
        option(
            "channels",
            json!({"type": "string", "anyOf": [{"enum": ["per_user"]}, {"pattern": "^\\s*pool\\s*\\(\\s*[1-9][0-9]*\\s*\\)\\s*$"}]}),
            "per_user, or pool(N): N channels over the cluster that users share",
        ),
    ]
    .into_iter()
    .collect()
}
