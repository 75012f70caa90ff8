//! What a call asks for in terms of documents: pure.

use crate::command::CommandError;
use serde_json::{Map, Value, json};

/// Reports that can be asked for.
pub(super) const FORMATS: [&str; 6] = ["html", "json", "xml", "csv", "junit", "summary"];

/// A command that answers a call as it is; `None`: there is none.
pub(super) fn command(tool: &str, arguments: &Map<String, Value>) -> Option<(&'static str, Value)> {
    let given = || Value::Object(arguments.clone());
    Some(match tool {
        "generate_from_openapi" => ("LD_generate_from_openapi", given()),
        "generate_from_curls" => ("LD_generate_from_curls", given()),
        "summary" => ("LD_summary", Value::Null),
        "persist_records" => ("LD_persist_records", given()),
        "list_runs" => ("LD_list_runs", given()),
        "fetch_run" => ("LD_fetch_run_records", given()),
        "clear_records" => ("LD_clear_records", Value::Null),
        _ => return None,
    })
}

/// The result of that command as the tool gives it: always an object.
pub(super) fn result(tool: &str, value: Value) -> Value {
    match tool {
        "persist_records" => json!({"run_id": value}),
        "list_runs" => json!({"runs": value}),
        "fetch_run" => json!({"records": value}),
        _ if value.is_array() => json!({"load_density": value}),
        _ => value,
    }
}

/// The document of a call: what `actions` holds, or its text.
pub(super) fn document(arguments: &Map<String, Value>) -> Vec<u8> {
    match arguments.get("actions") {
        Some(Value::String(text)) => text.clone().into_bytes(),
        Some(other) => other.to_string().into_bytes(),
        None => Vec::new(),
    }
}

/// The document of one test.
pub(super) fn test(arguments: &Map<String, Value>) -> Vec<u8> {
    json!([["LD_start_test", arguments]]).to_string().into_bytes()
}

/// The commands that write reports: format, command, its argument.
pub(super) fn reports(
    arguments: &Map<String, Value>,
) -> Result<Vec<(&'static str, &'static str, Value)>, CommandError> {
    let base = arguments.get("base_name").and_then(Value::as_str).unwrap_or("loaddensity");
    let wanted: Vec<&str> = match arguments.get("formats") {
        None | Some(Value::Null) => FORMATS.to_vec(),
        Some(Value::Array(formats)) => formats.iter().map(|format| format.as_str().unwrap_or_default()).collect(),
        Some(_) => return Err(CommandError::failed("TypeError", "`formats` is a list")),
    };
    let line = |format: &str| {
        let format = FORMATS.iter().find(|known| **known == format).ok_or_else(|| {
            let message = format!("unknown report format `{format}`; accepted: {}", FORMATS.join(", "));
            CommandError::failed("ValueError", message)
        })?;
        let line = crate::report::named(format).expect("the table has these formats");
        // those of one ending with another report's have a name of their own
        let name = if ["junit", "summary"].contains(format) { format!("{base}-{format}") } else { base.to_owned() };
        Ok((*format, line.command, json!([name])))
    };
    wanted.into_iter().map(line).collect()
}

/// Paths of files, from the root of the file system.
pub(super) fn absolute(value: &Value) -> Value {
    match value {
        Value::String(path) => {
            std::path::absolute(path).map_or_else(|_| value.clone(), |path| path.display().to_string().into())
        }
        Value::Array(paths) => paths.iter().map(absolute).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn documents_as_values_and_as_texts() {
        assert_eq!(document(&map(&json!({"actions": [["abs", [-1]]]}))), br#"[["abs",[-1]]]"#);
        assert_eq!(document(&map(&json!({"actions": "[[]"}))), b"[[]");
        assert_eq!(test(&map(&json!({"user_count": 1}))), br#"[["LD_start_test",{"user_count":1}]]"#);
    }

    #[test]
    fn reports_have_the_seeds_names() {
        let all = reports(&Map::new()).unwrap();
        let names: Vec<_> = all.iter().map(|(format, _, argument)| (*format, argument[0].as_str().unwrap())).collect();
        assert_eq!(names[0], ("html", "loaddensity"));
        assert_eq!(names[4..], [("junit", "loaddensity-junit"), ("summary", "loaddensity-summary")]);
        let some = reports(&map(&json!({"base_name": "m", "formats": ["csv"]}))).unwrap();
        assert_eq!(some, [("csv", "LD_generate_csv_report", json!(["m"]))]);
        for formats in [json!(["pdf"]), json!([5]), json!("csv")] {
            assert!(reports(&map(&json!({"formats": formats}))).is_err());
        }
    }

    #[test]
    fn results_are_objects() {
        for tool in ["persist_records", "list_runs", "fetch_run", "import_har"] {
            assert!(result(tool, json!([1])).is_object(), "{tool}");
        }
        assert_eq!(result("summary", json!({"totals": {}})), json!({"totals": {}}));
    }
}
