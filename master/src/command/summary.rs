//! `LD_summary`: the result of everything since `LD_clear_records`.

use super::{Command, CommandError};
use crate::app::App;
use crate::run::result::RunResult;
use crate::script::CommandSpec;
use serde::Deserialize;

/// Gives the result.
#[derive(Deserialize)]
pub(super) struct Summary {}

impl Command for Summary {
    const SPEC: CommandSpec = CommandSpec { name: "LD_summary", parameters: &[], check: None };
    const ABOUT: &'static str = "Gives the result of every test since LD_clear_records";
    type Output = RunResult;

    async fn run(self, app: &App) -> Result<RunResult, CommandError> {
        Ok(app.findings().result)
    }
}
