//! `LD_execute_action`, `LD_execute_files`: documents within documents. [`crate::executor`] runs them.

use super::CommandError;
use crate::script::{self, CommandSpec, Document, Kind, Parameter, Strictness};
use serde_json::{Map, Value};
use std::path::Path;

/// A command that runs documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nested {
    /// One that stands in the action.
    Action,
    /// Those of files, one after another.
    Files,
}

const ACTION: &str = "action_list";
const FILES: &str = "execute_files_list";

impl Nested {
    pub(super) const fn spec(self) -> CommandSpec {
        const DOCUMENT: &[Parameter] = &[Parameter::new(ACTION, Kind::Document).required()];
        const PATHS: &[Parameter] = &[Parameter::new(FILES, Kind::List).required().file()];
        match self {
            Self::Action => CommandSpec { name: "LD_execute_action", parameters: DOCUMENT, check: None },
            Self::Files => CommandSpec { name: "LD_execute_files", parameters: PATHS, check: None },
        }
    }

    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Action => "Runs the document that it is given",
            Self::Files => "Runs the documents of files, one after another",
        }
    }

    /// What is to be run, in its order. Each is read when its turn comes: an earlier one may have
    /// written it.
    pub(crate) fn orders(self, arguments: &Map<String, Value>) -> Vec<Order> {
        match self {
            Self::Action => arguments.get(ACTION).map(|document| Order::Given(document.clone())).into_iter().collect(),
            Self::Files => {
                let files = arguments.get(FILES).and_then(Value::as_array);
                files.into_iter().flatten().map(|file| Order::File(file.clone())).collect()
            }
        }
    }

    /// Its result: of one document its records, of files a list of them.
    pub(crate) fn result(self, mut records: Vec<Value>) -> Value {
        match self {
            Self::Action => records.pop().unwrap_or_default(),
            Self::Files => Value::Array(records),
        }
    }
}

/// One document to run.
pub(crate) enum Order {
    /// This.
    Given(Value),
    /// That of the file of this path.
    File(Value),
}

impl Order {
    /// Reads it.
    pub(crate) fn read(&self, strictness: Strictness) -> Result<Document, CommandError> {
        let path = match self {
            Self::Given(value) => {
                return script::from_value(value, strictness)
                    .map_err(|faults| super::refused(script::EXECUTE_EXCEPTION, faults));
            }
            Self::File(Value::String(path)) => path,
            Self::File(other) => {
                let message = format!("the path of a document is a text, found {}", script::spec::shown(other));
                return Err(CommandError::failed("TypeError", message));
            }
        };
        let class = "LoadDensityTestJsonException";
        let text = std::fs::read(Path::new(path))
            .map_err(|error| CommandError::failed(class, format!("can't find JSON file: `{path}`: {error}")))?;
        script::parse(&text, strictness).map_err(|faults| {
            let error = super::refused(class, faults);
            CommandError { message: format!("`{path}`: {}", error.message), ..error }
        })
    }
}
