//! Schemas of bodies.

use super::problem::Code;
use serde_json::{Value, json};

/// A reference to one.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn nullable(schema: &Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

/// An object: properties, all of them required; others may be there.
fn object(properties: &Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// All of them, by name.
pub(super) fn all() -> Value {
    let (text, number, count) = (json!({"type": "string"}), json!({"type": "number"}), json!({"type": "integer"}));
    let (flag, any) = (json!({"type": "boolean"}), json!({"type": "object"}));
    let maybe = nullable(&text);
    let mut job = object(&json!({
        "id": text, "label": maybe, "by": text, "state": {"enum": ["queued", "running", "finished"]},
        "taken_at": {"type": "string", "format": "date-time"}, "finished_at": maybe, "exit_code": nullable(&count),
        "runs": list(&text),
    }));
    job["description"] = "A document that was taken. `runs` are ids of its tests that are over".into();
    let mut problem = object(&json!({
        "type": text, "title": text, "status": count, "code": {"enum": Code::ALL.map(Code::name)}, "detail": text,
        "params": any,
    }));
    problem["properties"]["pointer"] = json!({
        "type": "string",
        "description": "JSON pointer into the body; `#path/NAME`, `#query/NAME`, `#header/NAME`: what stands there",
    });
    problem["properties"]["help"] = json!({"type": "string", "description": "The remedy"});
    problem["properties"]["errors"] = list(&named("Fault"));
    let mut fault = object(&json!({"code": text, "pointer": text, "detail": text, "template": text, "params": any}));
    fault["description"] =
        "`template` is `detail` with {0}, {1} for the words in backticks, `params` are those words".into();
    json!({
        "Text": text,
        "Object": any,
        "Health": object(&json!({"status": text})),
        "Ready": object(&json!({"ready": flag, "workers": count, "expected_workers": count, "reason": maybe})),
        "Token": {
            "type": "object", "required": ["token"],
            "properties": {"token": {"type": "string", "format": "password"}},
        },
        "Login": object(&json!({"level": {"enum": ["full", "viewer"]}})),
        "Document": {
            "description": "An action document, as /api/v1/schema has it: a list of actions, or an object whose \
                            `load_density` is that list; an action is [name], [name, {arguments}] or [name, [arguments]]",
            "anyOf": [named("Actions"), {
                "type": "object", "required": ["load_density"], "properties": {"load_density": named("Actions")},
            }],
            // harmless, since tools send it: a test would make load
            "examples": [[["LD_register_variable", {"name": "base", "value": "http://127.0.0.1:8080"}], ["LD_summary"]]],
        },
        // what an action is, the schema of documents says; taken leniently, it is anything
        "Actions": {"type": "array", "minItems": 1},
        "Job": job,
        "Test": object(&json!({
            "run": text, "label": maybe, "by": text, "state": text, "elapsed_s": number, "planned_s": nullable(&number),
            "users": count, "requests_per_s": number, "p50_ms": number, "p95_ms": number, "p99_ms": number,
            "requests": count, "failures": count, "workers": count, "expected_workers": count, "present": list(&text),
            "scenarios": list(&object(&json!({"index": count, "name": text, "user": text, "model": text}))),
        })),
        "Runs": object(&json!({
            "current": nullable(&named("Test")), "jobs": list(&named("Job")),
            "kept": list(&object(&json!({"id": count, "label": maybe, "started_at": text}))),
        })),
        "Run": object(&json!({
            "id": text, "kind": {"enum": ["job", "run", "kept"]}, "label": maybe,
            "state": {"enum": ["queued", "running", "finished"]}, "test": nullable(&named("Test")),
            "result": {"anyOf": [any, {"type": "null"}], "description": "loaddensity.run/1"},
        })),
        "Comparison": object(&json!({
            "schema": text, "a": any, "b": any, "threshold": number, "confidence": number, "plans_differ": flag,
            "regression": flag,
        })),
        "Worker": object(&json!({
            "name": text, "cores": count, "late": flag, "takes_part": flag, "users": count, "requests": count,
            "cpu_max": number, "lag_p99_ms": number, "clock_offset_ms": nullable(&number),
        })),
        "Workers": object(&json!({"expected": count, "workers": list(&named("Worker"))})),
        "Validation": object(&json!({
            "valid": flag, "faults": list(&named("Fault")), "warnings": list(&text),
            "findings": list(&object(&json!({
                "rule": text, "severity": {"enum": ["error", "warning"]}, "message": text, "location": text,
            }))),
        })),
        "Fault": fault,
        "Problem": problem,
    })
}
