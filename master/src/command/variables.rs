//! `LD_register_variable`, `LD_register_variables`, `LD_clear_resolver`: what `${var.NAME}` gives.

use super::{Command, CommandError, Resume};
use crate::app::App;
use crate::script::{CommandSpec, Kind, Parameter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Registers one variable.
#[derive(Deserialize)]
pub(super) struct RegisterVariable {
    name: String,
    value: Value,
}

impl Command for RegisterVariable {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_register_variable",
        parameters: &[Parameter::new("name", Kind::Text).required(), Parameter::new("value", Kind::Any).required()],
        check: None,
    };
    const ABOUT: &'static str = "Registers a variable: ${var.NAME} in the tasks of later tests";
    const RESUME: Resume = Resume::Replay;
    type Output = ();

    async fn run(self, app: &App) -> Result<(), CommandError> {
        app.state().variables.insert(self.name, self.value);
        Ok(())
    }
}

/// Registers several.
#[derive(Deserialize)]
pub(super) struct RegisterVariables {
    variables: Map<String, Value>,
}

impl Command for RegisterVariables {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_register_variables",
        parameters: &[Parameter::new("variables", Kind::Object).required()],
        check: None,
    };
    const ABOUT: &'static str = "Registers several variables";
    const RESUME: Resume = Resume::Replay;
    type Output = ();

    async fn run(self, app: &App) -> Result<(), CommandError> {
        app.state().variables.extend(self.variables);
        Ok(())
    }
}

/// Forgets variables and data sources.
#[derive(Deserialize)]
pub(super) struct ClearResolver {}

/// `{"status": "cleared"}`.
#[derive(Serialize)]
pub(super) struct Cleared {
    status: &'static str,
}

impl Cleared {
    pub(super) const DONE: Self = Self { status: "cleared" };
}

impl Command for ClearResolver {
    const SPEC: CommandSpec = CommandSpec { name: "LD_clear_resolver", parameters: &[], check: None };
    const ABOUT: &'static str = "Forgets registered variables and data sources";
    const RESUME: Resume = Resume::Replay;
    type Output = Cleared;

    async fn run(self, app: &App) -> Result<Cleared, CommandError> {
        let mut state = app.state();
        state.variables.clear();
        state.sources.clear();
        Ok(Cleared::DONE)
    }
}
