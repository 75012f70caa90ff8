//! `LD_load_openapi`, `LD_openapi_to_tasks`, `LD_openapi_to_action_json`, `LD_generate_from_openapi`.

use super::importing::{LoadArguments, SPAWN_RATE, TEST_TIME, USER, USER_COUNT, tell};
use super::{Command, CommandError};
use crate::app::App;
use crate::import::{self, OpenApi};
use crate::script::{CommandSpec, Kind, Parameter};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

const SPEC: Parameter =
    Parameter::new("spec", Kind::Object).required().about("The description (OpenAPI 3), as LD_load_openapi gives it");
const BASE_URL: Parameter = Parameter::new("base_url", Kind::OrNull(&Kind::Text))
    .about("Start of every URL, instead of the servers that the description names");

/// Reads a description.
#[derive(Deserialize)]
pub(super) struct LoadOpenapi {
    file_path: PathBuf,
}

impl Command for LoadOpenapi {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_load_openapi",
        parameters: &[Parameter::new("file_path", Kind::Text).required().file().about("The file: JSON or YAML")],
        check: None,
    };
    const ABOUT: &'static str = "Reads an OpenAPI description and gives it as it is";
    type Output = Value;

    async fn run(self, _app: &App) -> Result<Value, CommandError> {
        Ok(import::read_openapi(&self.file_path)?)
    }
}

/// Gives the tasks of a description.
#[derive(Deserialize)]
pub(super) struct OpenapiToTasks {
    spec: Value,
    base_url: Option<String>,
}

impl Command for OpenapiToTasks {
    const SPEC: CommandSpec = CommandSpec { name: "LD_openapi_to_tasks", parameters: &[SPEC, BASE_URL], check: None };
    const ABOUT: &'static str = "Gives the operations of an OpenAPI description as tasks";
    type Output = Vec<import::Task>;

    async fn run(self, app: &App) -> Result<Self::Output, CommandError> {
        let imported = import::openapi_tasks(&self.spec, &OpenApi { base_url: self.base_url })?;
        tell(app, &imported);
        Ok(imported.tasks)
    }
}

/// Gives a document that calls every operation.
#[derive(Deserialize)]
pub(super) struct OpenapiToActionJson {
    spec: Value,
    base_url: Option<String>,
    #[serde(flatten)]
    load: LoadArguments,
}

impl Command for OpenapiToActionJson {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_openapi_to_action_json",
        parameters: &[SPEC, USER, USER_COUNT, SPAWN_RATE, TEST_TIME, BASE_URL.keyword()],
        check: None,
    };
    const ABOUT: &'static str = "Gives a document that calls every operation of an OpenAPI description";
    type Output = Value;

    async fn run(self, app: &App) -> Result<Value, CommandError> {
        let imported = import::openapi_tasks(&self.spec, &OpenApi { base_url: self.base_url })?;
        tell(app, &imported);
        Ok(import::document(&imported, &self.load.with_users(10)))
    }
}

/// Gives a document of a file.
#[derive(Deserialize)]
pub(super) struct GenerateFromOpenapi {
    openapi_path: PathBuf,
    variables: Option<Map<String, Value>>,
    base_url: Option<String>,
    #[serde(flatten)]
    load: LoadArguments,
}

impl Command for GenerateFromOpenapi {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_generate_from_openapi",
        parameters: &[
            Parameter::new("openapi_path", Kind::Text).required().file().about("The file: JSON or YAML"),
            USER,
            USER_COUNT,
            SPAWN_RATE,
            TEST_TIME,
            Parameter::new("variables", Kind::OrNull(&Kind::Object)).about("Variables to register before the test"),
            BASE_URL,
        ],
        check: None,
    };
    const ABOUT: &'static str = "Gives a document of an OpenAPI file: variables, a test, a summary report";
    type Output = Value;

    async fn run(self, app: &App) -> Result<Value, CommandError> {
        let spec = import::read_openapi(&self.openapi_path)?;
        let mut imported = import::openapi_tasks(&spec, &OpenApi { base_url: self.base_url })?;
        // what the caller says goes before the description's examples
        imported.variables.extend(self.variables.unwrap_or_default());
        tell(app, &imported);
        Ok(import::generated(&imported, &self.load.with_users(20)))
    }
}
