//! What the parameters of the smaller commands are for, and their depth where their kind says too
//! little. A parameter's own [`about`](crate::script::Parameter::about) goes before these.

use super::start_test;
use super::value::{about as described, boolean, choice, object, text};
use crate::sla;
use serde_json::{Value, json};

/// What a parameter of this name is for, in whatever command.
pub(super) fn about(name: &str) -> Option<&'static str> {
    Some(match name {
        "name" => "Its name in placeholders",
        "value" => "Its value: any JSON",
        "file_path" => "The file",
        "cycle" => "true (default): rows start again after the last; false: each row once",
        "unique" => "true: no row is used twice over the whole cluster",
        "at_end" => "What happens when no row is left: placeholder, stop_user or stop_test",
        "variables" => "Names and values",
        "sources" => "Data sources: {name, file_path, cycle}",
        "action_list" => "The document to run",
        "execute_files_list" => "The files to run, one after another",
        "package" => "An executable that speaks JSON lines, or the name of a Python package",
        "timeout" => "Seconds",
        "optional" => "true: a failure is a warning",
        "database_path" => "A SQLite file, or a URL of PostgreSQL: postgres://user:password@host/database",
        "label" => "A label to find the run by",
        "metadata" => "Anything to keep with the run",
        "limit" => "Most entries",
        "run_id" => "Number of the run, as LD_persist_records gave it",
        "html_name" | "json_file_name" | "xml_file_name" | "csv_name" | "report_name" => {
            "Name of the file, without its ending"
        }
        _ => return None,
    })
}

/// What a parameter takes, where that is more than its kind.
pub(super) fn deep(command: &str, parameter: &str) -> Option<Value> {
    Some(match (command, parameter) {
        ("LD_register_csv_sources", "sources") => json!({"type": "array", "items": start_test::csv_source()}),
        ("LD_register_csv_source", "at_end") => choice(&["placeholder", "stop_user", "stop_test"]),
        ("LD_execute_files", _) | ("LD_generate_from_curls", "curls") => json!({"type": "array", "items": text()}),
        ("LD_har_to_tasks" | "LD_har_to_action_json", "include" | "exclude") => {
            json!({"type": ["array", "null"], "items": {"type": "string", "format": "regex"}})
        }
        (_, "credentials") => choice(&crate::import::Credentials::WORDS),
        (name, "user") if name.contains("_to_") || name.starts_with("LD_generate_from_") => start_test::user_key(),
        ("LD_evaluate_sla" | "LD_assert_sla", "rules") => json!({"type": "array", "items": rule()}),
        ("LD_add_package_to_executor", "optional") => boolean(),
        _ => return None,
    })
}

/// A rule of `LD_evaluate_sla`.
fn rule() -> Value {
    let mut rule = object(json!({
        "type": described(choice(&sla::TYPES), "What is looked at"),
        "op": described(choice(&sla::OPERATORS), "How it is compared; default lte"),
        "value": described(json!({"type": ["number", "string"]}), "Milliseconds, a share from 0 to 1, or a number of requests"),
        "name": described(json!({"type": ["string", "null"]}), "Only the requests of this name"),
        "note": described(json!({}), "For people"),
        "description": described(json!({}), "For people"),
    }));
    rule["required"] = json!(["type", "value"]);
    rule
}
