//! `LD_lint_action`, `LD_lint_action_file`, `LD_export_schema`: documents looked at by documents.

use super::{Command, CommandError};
use crate::app::App;
use crate::import;
use crate::lint::{self, Finding};
use crate::report::files;
use crate::schema;
use crate::script::{CommandSpec, Kind, Parameter};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

const KNOWN: Parameter = Parameter::new("known_commands", Kind::OrNull(&Kind::List))
    .about("Names of commands that are added elsewhere, so that they are not unknown");

/// Gives findings about a document.
#[derive(Deserialize)]
pub(super) struct LintAction {
    actions: Value,
    known_commands: Option<Vec<String>>,
}

impl Command for LintAction {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_lint_action",
        // not `Document`: its faults are what is asked for
        parameters: &[Parameter::new("actions", Kind::Any).required().about("The document"), KNOWN],
        check: None,
    };
    const ABOUT: &'static str = "Gives findings about a document: {rule, severity, message, location}";
    type Output = Vec<Finding>;

    async fn run(self, app: &App) -> Result<Self::Output, CommandError> {
        Ok(lint::findings(&self.actions, &*app.commands(), &self.known_commands.unwrap_or_default()))
    }
}

/// Gives findings about the document of a file.
#[derive(Deserialize)]
pub(super) struct LintActionFile {
    path: PathBuf,
    known_commands: Option<Vec<String>>,
}

impl Command for LintActionFile {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_lint_action_file",
        parameters: &[Parameter::new("path", Kind::Text).required().file().about("The document's file"), KNOWN],
        check: None,
    };
    const ABOUT: &'static str = "Gives findings about the document of a file";
    type Output = Vec<Finding>;

    async fn run(self, app: &App) -> Result<Self::Output, CommandError> {
        let document = import::load(&self.path)?;
        Ok(lint::findings(&document, &*app.commands(), &self.known_commands.unwrap_or_default()))
    }
}

/// Writes the JSON Schema of documents.
#[derive(Deserialize)]
pub(super) struct ExportSchema {
    path: PathBuf,
}

impl Command for ExportSchema {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_export_schema",
        parameters: &[
            Parameter::new("path", Kind::Text).required().file().about("The file to write"),
            Parameter::new("known_commands", Kind::OrNull(&Kind::List))
                .about("Not needed: packages' commands are allowed"),
        ],
        check: None,
    };
    const ABOUT: &'static str = "Writes the JSON Schema of documents to a file and gives its path";
    type Output = String;

    async fn run(self, app: &App) -> Result<String, CommandError> {
        let schema = schema::text(&app.commands());
        files::write(&self.path, schema.as_bytes()).map_err(|error| CommandError::of("OSError", &error))?;
        Ok(self.path.display().to_string())
    }
}
