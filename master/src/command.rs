//! Commands of action documents: the trait, and the table of them.
//!
//! To add one: a file beside this one's children, its `mod` line and its line in [`commands`].
//! Commands of reports come from [`REPORTS`].

mod clear_records;
mod csv_sources;
mod persist;
mod run_test;
pub mod start_test;
mod summary;
mod variables;

use crate::app::App;
use crate::command::start_test::StartTest;
use crate::report::{Line, REPORTS};
use crate::run::verdict::exit;
use crate::script::CommandSpec;
use ld_shared::fault::Fault;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::pin::Pin;

/// A command: a plain struct that serde reads from its named arguments.
pub trait Command: DeserializeOwned + Send + 'static {
    /// Its name, its parameters in positional order, and how documents are checked for them.
    const SPEC: CommandSpec;
    /// What it does, for help.
    const ABOUT: &'static str;
    /// Its result.
    type Output: Serialize;

    /// Does it.
    fn run(self, app: &App) -> impl Future<Output = Result<Self::Output, CommandError>> + Send;
}

/// An action that failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// The seed's class of the error, where it has one.
    pub kind: &'static str,
    /// What was tried, on what, what was seen.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
    /// What the process's exit code says if this is the worst that happened.
    pub exit_code: u8,
}

impl CommandError {
    /// An action that failed.
    pub fn failed(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None, exit_code: exit::FAILED }
    }

    /// An error with its causes, `what: why: why`.
    pub fn of(kind: &'static str, error: &dyn std::error::Error) -> Self {
        Self::failed(kind, with_causes(error))
    }
}

/// An action that failed because of faults that only running it could show.
fn refused(kind: &'static str, faults: Vec<Fault>) -> CommandError {
    let text = |fault: &Fault| {
        let place = if fault.pointer.is_empty() { String::new() } else { format!(" at {}", fault.pointer) };
        format!("{}{place}", fault.message)
    };
    let message = faults.iter().map(text).collect::<Vec<_>>().join("; ");
    CommandError { help: faults.into_iter().find_map(|f| f.help), ..CommandError::failed(kind, message) }
}

/// An error and its causes in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Value, CommandError>> + Send + 'a>>;

/// A line of the table.
pub struct Entry {
    /// What the checker of documents needs of it.
    pub spec: CommandSpec,
    /// What it does.
    pub about: &'static str,
    work: Work,
}

enum Work {
    Command(for<'a> fn(Map<String, Value>, &'a App) -> Running<'a>),
    Report(&'static Line),
}

impl Entry {
    fn of<C: Command>() -> Self {
        let work = Work::Command(|arguments, app| Box::pin(run::<C>(arguments, app)));
        Self { spec: C::SPEC, about: C::ABOUT, work }
    }

    fn report(line: &'static Line) -> Self {
        let spec = CommandSpec { name: line.command, parameters: line.parameters, check: None };
        Self { spec, about: line.about, work: Work::Report(line) }
    }

    /// Runs it with named arguments that the checker has passed.
    pub async fn run(&self, arguments: Map<String, Value>, app: &App) -> Result<Value, CommandError> {
        match &self.work {
            Work::Command(work) => work(arguments, app).await,
            Work::Report(line) => report(line, &arguments, app),
        }
    }
}

async fn run<C: Command>(arguments: Map<String, Value>, app: &App) -> Result<Value, CommandError> {
    let command: C = serde_json::from_value(Value::Object(arguments)).map_err(|e| {
        CommandError::failed("TypeError", format!("cannot read the arguments of {}: {e}", C::SPEC.name))
    })?;
    let output = command.run(app).await?;
    Ok(serde_json::to_value(output).expect("results of commands hold only types with a JSON form"))
}

fn report(line: &Line, arguments: &Map<String, Value>, app: &App) -> Result<Value, CommandError> {
    let name = arguments.get(line.parameters[0].name).and_then(Value::as_str).unwrap_or(line.default);
    let kind = if line.report.format() == "html" { "LoadDensityHTMLException" } else { "OSError" };
    let path = line.write(&app.findings(), name).map_err(|e| CommandError::of(kind, &e))?;
    app.console.note(&format!("wrote {}", path.display()));
    Ok(Value::String(path.display().to_string()))
}

/// All commands.
pub fn commands() -> Vec<Entry> {
    let mut commands = vec![
        Entry::of::<StartTest>(),
        Entry::of::<variables::RegisterVariable>(),
        Entry::of::<variables::RegisterVariables>(),
        Entry::of::<csv_sources::RegisterCsvSource>(),
        Entry::of::<csv_sources::RegisterCsvSources>(),
        Entry::of::<variables::ClearResolver>(),
        Entry::of::<clear_records::ClearRecords>(),
        Entry::of::<summary::Summary>(),
        Entry::of::<persist::PersistRecords>(),
        Entry::of::<persist::ListRuns>(),
        Entry::of::<persist::FetchRunRecords>(),
    ];
    commands.extend(REPORTS.iter().map(Entry::report));
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_seeds_and_unique() {
        let names: Vec<_> = commands().iter().map(described).collect();
        insta::assert_snapshot!("commands", names.join("\n"));
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }

    fn described(entry: &Entry) -> String {
        let parameters: Vec<_> = entry.spec.parameters.iter().filter(|p| p.positional).map(|p| p.name).collect();
        format!("{}({})", entry.spec.name, parameters.join(", "))
    }
}
