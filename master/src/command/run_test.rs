//! `LD_start_test`: compiles the test and runs it to its end.

use super::{Command, CommandError, Resume, refused};
use crate::app::App;
use crate::command::start_test::{self, CompileContext, StartTest};
use crate::script::CommandSpec;
use serde_json::Value;
use std::path::Path;

impl Command for StartTest {
    const SPEC: CommandSpec = start_test::SPEC;
    const ABOUT: &'static str = "Runs a load test to its end";
    const RESUME: Resume = Resume::Attach;
    /// The arguments that it ran with, as the seed returns them.
    type Output = Value;

    async fn run(self, app: &App) -> Result<Value, CommandError> {
        let outcome = self.outcome();
        let (variables, sources) = {
            let state = app.state();
            (state.variables.clone(), state.sources.values().cloned().collect::<Vec<_>>())
        };
        let compiled = {
            let context = CompileContext {
                pointer: "",
                variables: &variables,
                sources: &sources,
                env: &crate::cli::environment,
                base_dir: Path::new(""),
                seed: rand::random(),
            };
            // faults that show only now, like a file that is missing: the action fails, later ones run
            start_test::compile(self, &context).map_err(|faults| refused("ValueError", faults))?
        };
        app.run_test(compiled).await?;
        Ok(outcome)
    }
}
