//! What others wrote down of a service's traffic, as tasks: HAR recordings, curl commands, Postman
//! collections, OpenAPI descriptions.
//!
//! Pure but for [`load`]: each importer is a function from what was read to tasks, and to sentences
//! about what could not be taken over. [`document`] makes a document of them.

mod credentials;
mod curl;
mod har;
mod openapi;
mod postman;
mod words;

pub use credentials::Credentials;
pub use curl::{Command as CurlCommand, complete as complete_curl, task as curl_task};
pub use har::{Filter, HarOptions, tasks as har_tasks};
pub use openapi::{OpenApi, read_openapi, tasks as openapi_tasks};
pub use postman::{complete as complete_postman, tasks as postman_tasks};

use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A task as documents write it.
pub type Task = Map<String, Value>;

/// What came of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// The tasks, in the source's order.
    pub tasks: Vec<Task>,
    /// Variables that the tasks name and whose values the source gives.
    pub variables: Map<String, Value>,
    /// Names of placeholders that stand for credentials: they need values before a run.
    pub credentials: Vec<String>,
    /// What could not be taken over, and what is left to do: sentences for people.
    pub notes: Vec<String>,
}

/// Why a source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file that is missing or unreadable.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that is larger than is sane.
    #[error("`{}` is larger than {} MiB", path.display(), MOST_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not JSON.
    #[error("`{}` is no JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A file that is not YAML.
    #[error("`{}` is no YAML", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: yaml_serde::Error,
    },
    /// A regular expression that is none.
    #[error("`{pattern}` is no regular expression: {reason}")]
    Pattern {
        /// As it was given.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// Something that is not what it is said to be.
    #[error("{0}")]
    Shape(String),
}

impl ImportError {
    /// The seed's class of the error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => "FileNotFoundError",
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => "PermissionError",
            Self::Read { .. } => "OSError",
            Self::Json { .. } => "JSONDecodeError",
            Self::Yaml { .. } => "YAMLError",
            Self::Pattern { .. } => "error",
            Self::TooLarge { .. } | Self::Shape(_) => "ValueError",
        }
    }
}

/// Recordings of long sessions have some hundred MB; more would not fit into memory as values.
const MOST_BYTES: u64 = 1 << 30;

/// Reads a JSON file: UTF-8, with or without byte order mark.
///
/// # Errors
///
/// A file that is missing, unreadable, too large or no JSON.
pub fn load(path: &Path) -> Result<Value, ImportError> {
    let bytes = read_file(path)?;
    serde_json::from_slice(&bytes).map_err(|source| ImportError::Json { path: path.into(), source })
}

/// The bytes of a file without its byte order mark.
fn read_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    let failed = |source| ImportError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(ImportError::TooLarge { path: path.into() });
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// Who runs the tasks, how many, how long: keys of `LD_start_test` as they will be written.
#[derive(Clone, Debug)]
pub struct Load {
    /// User key.
    pub user: String,
    /// `user_count`.
    pub user_count: Value,
    /// `spawn_rate`.
    pub spawn_rate: Value,
    /// `test_time`.
    pub test_time: Value,
}

/// A document of one test that runs the tasks in order.
///
/// Variables whose values the source gave stand in its `variables`; `metadata` names placeholders
/// that need a value before it runs.
pub fn document(imported: &Imported, load: &Load) -> Value {
    let mut test = json!({
        "user_detail_dict": {"user": load.user},
        "tasks": {"mode": "sequence", "tasks": imported.tasks},
        "user_count": load.user_count,
        "spawn_rate": load.spawn_rate,
        "test_time": load.test_time,
    });
    if !imported.variables.is_empty() {
        test["variables"] = Value::Object(imported.variables.clone());
    }
    let mut document = Map::new();
    if !imported.credentials.is_empty() {
        document.insert("metadata".into(), json!({"credentials": imported.credentials}));
    }
    document.insert("load_density".into(), json!([["LD_start_test", test]]));
    Value::Object(document)
}

/// A document as the seed's generators write it: variables, test, summary report.
pub fn generated(imported: &Imported, load: &Load) -> Value {
    let mut actions = Vec::new();
    if !imported.variables.is_empty() {
        actions.push(json!(["LD_register_variables", {"variables": imported.variables}]));
    }
    let test = json!({
        "user_detail_dict": {"user": load.user},
        "user_count": load.user_count,
        "spawn_rate": load.spawn_rate,
        "test_time": load.test_time,
        "tasks": imported.tasks,
    });
    actions.push(json!(["LD_start_test", test]));
    actions.push(json!(["LD_generate_summary_report", {"report_name": "summary"}]));
    json!({"load_density": actions})
}

/// The text of `key`; `None` if it is absent, of another type or empty.
fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The list under `key`; empty if it is absent or no list.
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Adds a value to an object whose lists repeat their key.
fn add_repeated(object: &mut Map<String, Value>, key: &str, value: Value) {
    match object.get_mut(key) {
        None => {
            object.insert(key.into(), value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
}

/// Adds a header, unless there is one of that name in any case.
fn default_header(task: &mut Task, name: &str, value: &str) {
    let headers = task.entry("headers").or_insert_with(|| json!({}));
    let Some(headers) = headers.as_object_mut() else { return };
    if !headers.keys().any(|known| known.eq_ignore_ascii_case(name)) {
        headers.insert(name.into(), value.into());
    }
}

/// JSON of a body, if writing it again gives the same values: whole numbers that no type holds would
/// come out rounded.
fn exact_json(text: &str) -> Option<Value> {
    fn is_exact(value: &Value) -> bool {
        match value {
            Value::Number(number) if number.is_f64() => {
                number.as_f64().is_none_or(|n| n.fract() != 0.0 || n.abs() < 9_007_199_254_740_992.0)
            }
            Value::Array(items) => items.iter().all(is_exact),
            Value::Object(map) => map.values().all(is_exact),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
    }
    serde_json::from_str(text).ok().filter(is_exact)
}

#[cfg(test)]
mod tests;
