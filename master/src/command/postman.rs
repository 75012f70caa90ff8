//! `LD_load_postman_collection`, `LD_postman_to_tasks`, `LD_postman_to_action_json`.

use super::importing::{LoadArguments, SPAWN_RATE, TEST_TIME, USER, USER_COUNT, tell};
use super::{Command, CommandError};
use crate::app::App;
use crate::import;
use crate::script::{CommandSpec, Kind, Parameter};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

const COLLECTION: Parameter = Parameter::new("collection", Kind::Object)
    .required()
    .about("The collection (format 2.1), as LD_load_postman_collection gives it");

/// Reads a collection.
#[derive(Deserialize)]
pub(super) struct LoadPostmanCollection {
    file_path: PathBuf,
}

impl Command for LoadPostmanCollection {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_load_postman_collection",
        parameters: &[Parameter::new("file_path", Kind::Text).required().file().about("The file: UTF-8 JSON")],
        check: None,
    };
    const ABOUT: &'static str = "Reads a Postman collection and gives it as it is";
    type Output = Value;

    async fn run(self, _app: &App) -> Result<Value, CommandError> {
        Ok(import::load(&self.file_path)?)
    }
}

/// Gives the tasks of a collection.
#[derive(Deserialize)]
pub(super) struct PostmanToTasks {
    collection: Value,
}

impl Command for PostmanToTasks {
    const SPEC: CommandSpec = CommandSpec { name: "LD_postman_to_tasks", parameters: &[COLLECTION], check: None };
    const ABOUT: &'static str = "Gives the requests of a Postman collection as tasks; {{x}} becomes ${var.x}";
    type Output = Vec<import::Task>;

    async fn run(self, app: &App) -> Result<Self::Output, CommandError> {
        let imported = import::postman_tasks(&self.collection)?;
        tell(app, &imported);
        Ok(imported.tasks)
    }
}

/// Gives a document that runs a collection.
#[derive(Deserialize)]
pub(super) struct PostmanToActionJson {
    collection: Value,
    #[serde(flatten)]
    load: LoadArguments,
}

impl Command for PostmanToActionJson {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_postman_to_action_json",
        parameters: &[COLLECTION, USER, USER_COUNT, SPAWN_RATE, TEST_TIME],
        check: None,
    };
    const ABOUT: &'static str = "Gives a document that runs a Postman collection, with its variables";
    type Output = Value;

    async fn run(self, app: &App) -> Result<Value, CommandError> {
        let mut imported = import::postman_tasks(&self.collection)?;
        import::complete_postman(&mut imported);
        tell(app, &imported);
        Ok(import::document(&imported, &self.load.with_users(10)))
    }
}
