//! `LD_clear_records`: reports and `LD_summary` cover what comes after it.

use super::variables::Cleared;
use super::{Command, CommandError, Resume};
use crate::app::App;
use crate::script::CommandSpec;
use serde::Deserialize;

/// Forgets what reports would cover.
#[derive(Deserialize)]
pub(super) struct ClearRecords {}

impl Command for ClearRecords {
    const SPEC: CommandSpec = CommandSpec { name: "LD_clear_records", parameters: &[], check: None };
    const ABOUT: &'static str = "Lets reports and LD_summary start anew";
    const RESUME: Resume = Resume::Replay;
    type Output = Cleared;

    async fn run(self, app: &App) -> Result<Cleared, CommandError> {
        app.state().runs.since_clear.clear();
        Ok(Cleared::DONE)
    }
}
