//! The tools: names, arguments, results.

use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A tool.
pub(super) struct Line {
    /// Its name.
    pub name: &'static str,
    about: &'static str,
    /// Its arguments: properties and those that are required.
    input: fn() -> (Value, &'static [&'static str]),
    /// Properties of its result, and those that are always there.
    output: fn() -> (Value, &'static [&'static str]),
    /// Changes nothing.
    only_looks: bool,
}

/// Prefix of the seed's names.
const PREFIX: &str = "load_density.";

/// The tool of that name, with the seed's prefix or without it.
pub(super) fn named(name: &str) -> Option<&'static Line> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    TOOLS.iter().find(|line| line.name == name)
}

impl Line {
    /// As clients see it.
    pub(super) fn tool(&self) -> Tool {
        let (properties, required) = (self.input)();
        let input = object(&properties, required, false);
        let (properties, required) = (self.output)();
        let output = object(&properties, required, true);
        let annotations =
            ToolAnnotations::new().read_only(self.only_looks).destructive(false).open_world(!self.only_looks);
        Tool::new(self.name, self.about, Arc::new(input)).with_raw_output_schema(Arc::new(output)).annotate(annotations)
    }

    /// What of the arguments it does not take, or lacks.
    pub(super) fn fault(&self, arguments: &Map<String, Value>) -> Option<String> {
        let (properties, required) = (self.input)();
        let known: Vec<&str> = properties.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
        if let Some(key) = required.iter().find(|key| arguments.get(**key).is_none_or(Value::is_null)) {
            return Some(format!("TypeError: {} needs `{key}`", self.name));
        }
        // tests take all keys of `LD_start_test`, which the checker of documents knows
        let unknown = arguments.keys().find(|key| self.name != "run_test" && !known.contains(&key.as_str()))?;
        let accepted = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Some(format!("TypeError: {} has no argument `{unknown}`; accepted: {accepted}", self.name))
    }
}

fn object(properties: &Value, required: &[&str], open: bool) -> Map<String, Value> {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    if open {
        schema.insert("additionalProperties".into(), true.into());
    }
    schema
}

fn nothing() -> (Value, &'static [&'static str]) {
    (json!({}), &[])
}

fn document() -> (Value, &'static [&'static str]) {
    (
        json!({"load_density": {"type": "array", "description": "Actions, to be run by run_action_json"}}),
        &["load_density"],
    )
}

fn job() -> (Value, &'static [&'static str]) {
    let properties = json!({
        "job": {"type": "integer", "description": "Its number, for status and stop"},
        "state": {"type": "string", "enum": ["queued", "running", "finished"]},
        "exit_code": {"type": ["integer", "null"], "description": "0 passed, 1 failed, 3 could not run, 4 inconclusive, 130 stopped"},
        "runs": {"type": "array", "items": {"type": "object"}, "description": "Verdict and totals of its tests that are over"},
        "actions": {"type": "array", "items": {"type": "object"}, "description": "What became of each action"},
    });
    (properties, &["job", "state"])
}

fn importer(file: &str, more: Value) -> Value {
    let mut properties = json!({
        "user": {"type": "string", "default": "fast_http_user"},
        "user_count": {"type": "integer"},
        "spawn_rate": {"type": "integer"},
        "test_time": {"type": "integer"},
    });
    if !file.is_empty() {
        properties[file] = json!({"type": "string", "description": "A file below the root"});
    }
    if let (Some(properties), Value::Object(more)) = (properties.as_object_mut(), more) {
        properties.extend(more);
    }
    properties
}

const DATABASE: &[&str] = &["database_path"];

/// All tools: the seed's first.
pub(super) const TOOLS: &[Line] = &[
    Line {
        name: "run_test",
        about: "Runs a load test to its end and gives its verdict. Arguments are those of LD_start_test: beside these e.g. arrival_rate, thresholds, host, load_shape",
        input: || {
            let properties = json!({
                "user_detail_dict": {"type": "object", "description": "{\"user\": \"fast_http_user\"}, or another kind of user"},
                "user_count": {"type": "integer", "default": 50},
                "spawn_rate": {"type": "number", "default": 10},
                "test_time": {"type": "number", "default": 60, "description": "Seconds"},
                "tasks": {"description": "List of {method, request_url, name, assertions, …}, or an object by method"},
                "variables": {"type": "object"},
                "csv_sources": {"type": "array"},
                "thresholds": {"type": "array", "description": "Such as \"p95 < 200ms\", \"failure_rate < 1%\""},
                "runner_mode": {"type": "string", "default": "local"},
                "web_ui_dict": {"type": "object", "description": "Not open to assistants"},
            });
            (properties, &["user_detail_dict"])
        },
        output: || {
            let properties = json!({
                "user_detail": {"type": "object"},
                "user_count": {},
                "run": {"type": "string", "description": "Its id, for compare and reports"},
                "verdict": {"type": "object", "description": "outcome and its reasons"},
                "totals": {"type": "object"},
                "latency_overall": {"type": "object"},
            });
            (properties, &["run", "verdict", "totals"])
        },
        only_looks: false,
    },
    Line {
        name: "run_action_json",
        about: "Runs an action document (a list, an object with load_density, or text of one) to its end. Gives a record per action; an action that failed has its error as its record",
        input: || {
            (
                json!({"actions": {"description": "The document; its schema is the resource loaddensity://schema"}}),
                &["actions"],
            )
        },
        output: nothing,
        only_looks: false,
    },
    Line {
        name: "create_project",
        about: "Makes a project that runs below a folder: documents, data, scripts, schema. Overwrites nothing",
        input: || (json!({"path": {"type": "string", "description": "A folder below the root"}}), &["path"]),
        output: || (json!({"path": {"type": "string"}, "status": {"type": "string"}}), &["path", "status"]),
        only_looks: false,
    },
    Line {
        name: "list_executor_commands",
        about: "Lists the commands of action documents",
        input: nothing,
        output: || (json!({"commands": {"type": "array", "items": {"type": "string"}}}), &["commands"]),
        only_looks: true,
    },
    Line {
        name: "import_har",
        about: "Makes a document of a HAR recording",
        input: || {
            let list =
                json!({"type": "array", "items": {"type": "string"}, "description": "Regular expressions on URLs"});
            (importer("file_path", json!({"include": list, "exclude": list})), &["file_path"])
        },
        output: document,
        only_looks: true,
    },
    Line {
        name: "generate_reports",
        about: "Writes reports on every test since clear_records and gives their paths",
        input: || {
            let formats = json!({"type": "array", "items": {"type": "string", "enum": super::calls::FORMATS}});
            (json!({"base_name": {"type": "string", "default": "loaddensity"}, "formats": formats}), &[])
        },
        output: nothing,
        only_looks: false,
    },
    Line {
        name: "summary",
        about: "Gives the result of every test since clear_records: totals, percentiles, names, verdict",
        input: nothing,
        output: || {
            let properties = json!({
                "totals": {"type": "object"}, "latency_overall": {"type": "object"}, "per_name": {"type": "object"},
            });
            (properties, &["totals", "latency_overall", "per_name"])
        },
        only_looks: true,
    },
    Line {
        name: "persist_records",
        about: "Keeps requests, plan and result of every test since clear_records in a SQLite file",
        input: || {
            let properties = json!({"database_path": {"type": "string"}, "label": {"type": "string"}, "metadata": {"type": "object"}});
            (properties, DATABASE)
        },
        output: || (json!({"run_id": {"type": "integer"}}), &["run_id"]),
        only_looks: false,
    },
    Line {
        name: "list_runs",
        about: "Lists runs kept in a SQLite file, the newest first",
        input: || (json!({"database_path": {"type": "string"}, "limit": {"type": "integer", "default": 20}}), DATABASE),
        output: || (json!({"runs": {"type": "array", "items": {"type": "object"}}}), &["runs"]),
        only_looks: true,
    },
    Line {
        name: "fetch_run",
        about: "Gives the requests of a run kept in a SQLite file",
        input: || {
            (json!({"database_path": {"type": "string"}, "run_id": {"type": "integer"}}), &["database_path", "run_id"])
        },
        output: || (json!({"records": {"type": "array", "items": {"type": "object"}}}), &["records"]),
        only_looks: true,
    },
    Line {
        name: "clear_records",
        about: "Forgets the requests so far, so that summary and reports begin anew",
        input: nothing,
        output: || (json!({"status": {"type": "string"}}), &["status"]),
        only_looks: false,
    },
    Line {
        name: "generate_from_openapi",
        about: "Makes a document of an OpenAPI description",
        input: || {
            let more = json!({"variables": {"type": "object"}, "base_url": {"type": "string"}});
            (importer("openapi_path", more), &["openapi_path"])
        },
        output: document,
        only_looks: true,
    },
    Line {
        name: "generate_from_curls",
        about: "Makes a document of curl commands",
        input: || {
            let more =
                json!({"curls": {"type": "array", "items": {"type": "string"}}, "variables": {"type": "object"}});
            (importer("", more), &["curls"])
        },
        output: document,
        only_looks: true,
    },
    Line {
        name: "validate",
        about: "Says every fault of a document, also what assistants may not do, without running it",
        input: || (json!({"actions": {"description": "The document, or text of one"}}), &["actions"]),
        output: || {
            let fault = json!({"type": "object", "properties": {
                "pointer": {"type": "string"}, "message": {"type": "string"}, "help": {"type": ["string", "null"]},
            }});
            (json!({"valid": {"type": "boolean"}, "faults": {"type": "array", "items": fault}}), &["valid", "faults"])
        },
        only_looks: true,
    },
    Line {
        name: "start",
        about: "Starts a document and returns at once; status, adjust and stop go on from there",
        input: || {
            let properties =
                json!({"actions": {"description": "The document, or text of one"}, "label": {"type": "string"}});
            (properties, &["actions"])
        },
        output: job,
        only_looks: false,
    },
    Line {
        name: "status",
        about: "Says where the test that goes on stands, and every document that was started; with a job, what became of it",
        input: || (json!({"job": {"type": "integer"}}), &[]),
        output: || {
            let properties = json!({
                "test": {"type": ["object", "null"], "description": "The test that goes on"},
                "jobs": {"type": "array", "items": {"type": "object"}},
            });
            (properties, &["test", "jobs"])
        },
        only_looks: true,
    },
    Line {
        name: "adjust",
        about: "Changes the load of the test that goes on: users, or rate, or pause (true), or its end (false). Holds from half a second later",
        input: || {
            let properties = json!({
                "users": {"type": "integer", "minimum": 0},
                "rate": {"type": "number", "minimum": 0},
                "pause": {"type": "boolean"},
                "scenario": {"type": "integer", "default": 0, "description": "Its number in the plan"},
            });
            (properties, &[])
        },
        output: || (json!({"test": {"type": ["object", "null"]}}), &["test"]),
        only_looks: false,
    },
    Line {
        name: "stop",
        about: "Ends a started document (without a job: all): open requests may finish, the result is as usual",
        input: || (json!({"job": {"type": "integer"}, "abort": {"type": "boolean", "default": false}}), &[]),
        output: || (json!({"jobs": {"type": "array", "items": {"type": "object"}}}), &["jobs"]),
        only_looks: false,
    },
    Line {
        name: "compare",
        about: "Says which metrics of which names moved beyond noise from run a to run b",
        input: || {
            let run = json!({"type": "string", "description": "Number, id or label of a kept run, latest, previous"});
            let least = json!({"type": "number", "default": 5, "description": "Least change that counts"});
            (json!({"a": run, "b": run, "threshold_percent": least}), &["a", "b"])
        },
        output: || {
            (
                json!({"a": {"type": "object"}, "b": {"type": "object"}, "regression": {"type": "boolean"}}),
                &["a", "b", "regression"],
            )
        },
        only_looks: true,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_seeds_and_more() {
        let golden = [
            "run_test",
            "run_action_json",
            "create_project",
            "list_executor_commands",
            "import_har",
            "generate_reports",
            "summary",
            "persist_records",
            "list_runs",
            "fetch_run",
            "clear_records",
            "generate_from_openapi",
            "generate_from_curls",
        ];
        for name in golden {
            assert!(named(name).is_some() && named(&format!("load_density.{name}")).is_some(), "{name}");
        }
        assert!(named("load_density.nope").is_none());
        let names: std::collections::BTreeSet<_> = TOOLS.iter().map(|line| line.name).collect();
        assert_eq!(names.len(), TOOLS.len());
    }

    #[test]
    fn arguments_that_are_missing_or_unknown() {
        let fault = |name: &str, arguments: Value| named(name).unwrap().fault(arguments.as_object().unwrap());
        assert!(fault("summary", json!({})).is_none());
        assert!(fault("run_test", json!({"user_detail_dict": {}, "arrival_rate": 5})).is_none());
        assert!(fault("run_test", json!({})).unwrap().contains("user_detail_dict"));
        assert!(fault("status", json!({"jbo": 1})).unwrap().contains("accepted: job"));
        assert!(fault("summary", json!({"x": 1})).unwrap().contains("accepted: none"));
    }

    #[test]
    fn every_tool_has_schemas_of_objects() {
        for line in TOOLS {
            let tool = json!(line.tool());
            assert_eq!(
                (&tool["inputSchema"]["type"], &tool["outputSchema"]["type"]),
                (&json!("object"), &json!("object"))
            );
            for schema in ["inputSchema", "outputSchema"] {
                for key in tool[schema]["required"].as_array().unwrap() {
                    assert!(tool[schema]["properties"].get(key.as_str().unwrap()).is_some(), "{} {key}", line.name);
                }
            }
        }
    }
}
