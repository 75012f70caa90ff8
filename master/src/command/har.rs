//! `LD_load_har`, `LD_har_to_tasks`, `LD_har_to_action_json`: recordings of browsers and proxies.

use super::importing::{LoadArguments, SPAWN_RATE, TEST_TIME, USER, USER_COUNT, tell};
use super::{Command, CommandError};
use crate::app::App;
use crate::import::{self, Credentials, Filter, HarOptions, ImportError, Imported};
use crate::script::reader::Reader;
use crate::script::{CommandSpec, Fault, Kind, Parameter};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

const HAR: Parameter = Parameter::new("har", Kind::Object).required().about("The recording, as LD_load_har gives it");
const INCLUDE: Parameter = Parameter::new("include", Kind::OrNull(&Kind::List))
    .about("Regular expressions, searched anywhere in the URL: a request is taken if any matches");
const EXCLUDE: Parameter = Parameter::new("exclude", Kind::OrNull(&Kind::List))
    .about("Regular expressions, searched anywhere in the URL: a request is left out if any matches");
const THINK_TIME: Parameter =
    Parameter::new("think_time", Kind::Boolean).keyword().about("true: pauses of the recording become `think_time`");
const CREDENTIALS: Parameter = Parameter::new("credentials", Kind::Text)
    .keyword()
    .about("`keep` (default): passwords, tokens and cookies stay as recorded; `secrets`: they become ${secret.NAME}; `variables`: ${var.NAME}");

/// Reads a recording.
#[derive(Deserialize)]
pub(super) struct LoadHar {
    file_path: PathBuf,
}

impl Command for LoadHar {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_load_har",
        parameters: &[Parameter::new("file_path", Kind::Text).required().file().about("The file: UTF-8 JSON")],
        check: None,
    };
    const ABOUT: &'static str = "Reads a HAR recording and gives it as it is";
    type Output = Value;

    async fn run(self, _app: &App) -> Result<Value, CommandError> {
        Ok(import::load(&self.file_path)?)
    }
}

/// What to take of a recording, and how.
#[derive(Deserialize)]
struct Wanted {
    har: Value,
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    #[serde(default)]
    think_time: bool,
    credentials: Option<String>,
}

impl Wanted {
    fn import(self, app: &App) -> Result<Imported, ImportError> {
        let filter = Filter::new(&self.include.unwrap_or_default(), &self.exclude.unwrap_or_default())?;
        let credentials = self.credentials.as_deref().and_then(Credentials::of).unwrap_or_default();
        let imported = import::har_tasks(&self.har, &filter, HarOptions { pauses: self.think_time, credentials })?;
        tell(app, &imported);
        Ok(imported)
    }
}

/// Notes expressions that are none, and unknown words.
fn check(arguments: &Map<String, Value>, pointer: &str, faults: &mut Vec<Fault>) {
    let mut reader = Reader::new(arguments, pointer, faults);
    reader.choice("credentials", &Credentials::WORDS);
    for key in ["include", "exclude"] {
        let base = reader.at(key);
        for (i, pattern) in reader.list(key).unwrap_or_default().iter().enumerate() {
            let pointer = format!("{base}/{i}");
            let error = match pattern.as_str() {
                Some(text) => Filter::new(&[text.to_owned()], &[]).err().map(|error| error.to_string()),
                None => Some("an expression is a text".to_owned()),
            };
            if let Some(error) = error {
                reader.fault(Fault::new(pointer, error).help("for example \"/api/\" or \"\\\\.(png|js)$\""));
            }
        }
    }
}

/// Gives the tasks of a recording.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct HarToTasks(Wanted);

impl Command for HarToTasks {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_har_to_tasks",
        parameters: &[HAR, INCLUDE, EXCLUDE, THINK_TIME, CREDENTIALS],
        check: Some(check),
    };
    const ABOUT: &'static str = "Gives the requests of a HAR recording as tasks";
    type Output = Vec<import::Task>;

    async fn run(self, app: &App) -> Result<Self::Output, CommandError> {
        Ok(self.0.import(app)?.tasks)
    }
}

/// Gives a document that replays a recording.
#[derive(Deserialize)]
pub(super) struct HarToActionJson {
    #[serde(flatten)]
    wanted: Wanted,
    #[serde(flatten)]
    load: LoadArguments,
}

impl Command for HarToActionJson {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_har_to_action_json",
        parameters: &[HAR, USER, USER_COUNT, SPAWN_RATE, TEST_TIME, INCLUDE, EXCLUDE, THINK_TIME, CREDENTIALS],
        check: Some(check),
    };
    const ABOUT: &'static str = "Gives a document that replays a HAR recording";
    type Output = Value;

    async fn run(self, app: &App) -> Result<Value, CommandError> {
        let imported = self.wanted.import(app)?;
        Ok(import::document(&imported, &self.load.with_users(10)))
    }
}
