//! `LD_curl_to_task`, `LD_generate_from_curls`: what browsers give by "copy as cURL".

use super::importing::{LoadArguments, SPAWN_RATE, TEST_TIME, USER, USER_COUNT};
use super::{Command, CommandError};
use crate::app::App;
use crate::import::{self, Imported, Task};
use crate::script::reader::Reader;
use crate::script::{CommandSpec, Fault, Kind, Parameter};
use serde::Deserialize;
use serde_json::{Map, Value};

const HELP: &str = "write it like \"curl -X POST -H 'A: b' -d '{}' http://…\"";

/// Gives a task.
#[derive(Deserialize)]
pub(super) struct CurlToTask {
    command: String,
    #[serde(default)]
    complete: bool,
}

impl Command for CurlToTask {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_curl_to_task",
        parameters: &[
            Parameter::new("command", Kind::Text).required().about("The command, as a shell would take it"),
            Parameter::new("complete", Kind::Boolean)
                .keyword()
                .about("true: adds what curl sends by itself (Content-Type of -d, Accept-Encoding of --compressed)"),
        ],
        check: Some(|arguments, pointer, faults| {
            if let Some(Err(error)) = arguments.get("command").and_then(Value::as_str).map(import::curl_task) {
                faults.push(Fault::new(format!("{pointer}/command"), error).help(HELP));
            }
        }),
    };
    const ABOUT: &'static str = "Gives the request of a curl command as a task";
    type Output = Task;

    async fn run(self, _app: &App) -> Result<Task, CommandError> {
        let command = import::curl_task(&self.command).map_err(|error| CommandError::failed("ValueError", error))?;
        Ok(if self.complete { import::complete_curl(command) } else { command.task })
    }
}

/// Gives a document.
#[derive(Deserialize)]
pub(super) struct GenerateFromCurls {
    curls: Vec<String>,
    variables: Option<Map<String, Value>>,
    #[serde(flatten)]
    load: LoadArguments,
}

impl Command for GenerateFromCurls {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_generate_from_curls",
        parameters: &[
            Parameter::new("curls", Kind::List).required().about("The commands"),
            USER,
            USER_COUNT,
            SPAWN_RATE,
            TEST_TIME,
            Parameter::new("variables", Kind::OrNull(&Kind::Object)).about("Variables to register before the test"),
        ],
        check: Some(check),
    };
    const ABOUT: &'static str = "Gives a document of curl commands: variables, a test, a summary report";
    type Output = Value;

    async fn run(self, _app: &App) -> Result<Value, CommandError> {
        let mut imported = Imported { variables: self.variables.unwrap_or_default(), ..Imported::default() };
        for command in &self.curls {
            let command = import::curl_task(command).map_err(|error| CommandError::failed("ValueError", error))?;
            imported.tasks.push(import::complete_curl(command));
        }
        Ok(import::generated(&imported, &self.load.with_users(20)))
    }
}

fn check(arguments: &Map<String, Value>, pointer: &str, faults: &mut Vec<Fault>) {
    let mut reader = Reader::new(arguments, pointer, faults);
    let base = reader.at("curls");
    for (i, command) in reader.list("curls").unwrap_or_default().iter().enumerate() {
        let error = match command.as_str() {
            Some(command) => import::curl_task(command).err(),
            None => Some("a curl command is a text".to_owned()),
        };
        if let Some(error) = error {
            reader.fault(Fault::new(format!("{base}/{i}"), error).help(HELP));
        }
    }
}
