//! Commands of action documents: the trait, and the table of them.
//!
//! To add one: a file beside this one's children, its `mod` line and its line in [`commands`].
//! Commands of reports come from [`REPORTS`], those of exporters from [`EXPORTERS`]. What an app can run, the table and what was added to
//! it at run time, are its [`Commands`].

mod add_package;
pub mod builtins;
mod clear_records;
mod csv_sources;
mod curl;
mod execute;
mod har;
mod importing;
mod lint;
mod openapi;
mod persist;
mod postman;
mod registry;
mod run_test;
mod sla;
mod socket_server;
pub mod start_test;
mod variables;

pub use execute::Nested;
pub use registry::{Commands, Found, Outside};

use crate::app::App;
use crate::command::start_test::StartTest;
use crate::exporter::{EXPORTERS, Line as Exporter, Start};
use crate::report::{InMemory, Kept, Line, Part, REPORTS, ReportError};
use crate::run::verdict::exit;
use crate::script::CommandSpec;
use ld_shared::fault::{Fault, Seed};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::pin::Pin;

/// A command: a plain struct that serde reads from its named arguments.
pub trait Command: DeserializeOwned + Send + 'static {
    /// Its name, its parameters in positional order, and how documents are checked for them.
    const SPEC: CommandSpec;
    /// What it does, for help.
    const ABOUT: &'static str;
    /// What becomes of it when a master that was killed takes its document up again.
    const RESUME: Resume = Resume::Once;
    /// Whether callers from outside may run it: not what runs programs, opens ports or sends elsewhere.
    const OPEN: bool = true;
    /// Its result.
    type Output: Serialize;

    /// Does it.
    fn run(self, app: &App) -> impl Future<Output = Result<Self::Output, CommandError>> + Send;
}

/// What becomes of an action when a master that was killed takes its document up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It is run again: it only builds what the process knows (variables, sources, packages).
    Replay,
    /// If it was done its result stands. If it was begun it is run again, provided that all it does
    /// is to write a file of its own.
    Once,
    /// It goes on where it was: a test whose workers may still be there.
    Attach,
}

/// An action that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// The seed's class of the error, where it has one.
    pub kind: Cow<'static, str>,
    /// What was tried, on what, what was seen.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
    /// What the process's exit code says if this is the worst that happened.
    pub exit_code: u8,
}

impl CommandError {
    /// An action that failed.
    pub fn failed(kind: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), help: None, exit_code: exit::FAILED }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// An error with its causes, `what: why: why`.
    pub fn of(kind: &'static str, error: &dyn std::error::Error) -> Self {
        Self::failed(kind, with_causes(error))
    }
}

/// An action that failed because of faults; `kind` is the class of those for which the seed has none.
pub(crate) fn refused(kind: impl Into<Cow<'static, str>>, faults: Vec<Fault>) -> CommandError {
    let raised = faults.iter().find_map(|fault| match fault.seed {
        Seed::Raises(class, _) => Some(class.into()),
        Seed::Unlike | Seed::Ignores | Seed::Records => None,
    });
    let kind = raised.unwrap_or_else(|| kind.into());
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

/// A command at work.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Value, CommandError>> + Send + 'a>>;

/// A line of the table.
#[derive(Clone)]
pub struct Entry {
    /// What the checker of documents needs of it.
    pub spec: CommandSpec,
    /// What it does.
    pub about: &'static str,
    /// What becomes of it when its document is taken up again.
    pub resume: Resume,
    /// Whether callers from outside may run it.
    pub open: bool,
    work: Work,
}

#[derive(Clone, Copy)]
enum Work {
    Command(for<'a> fn(Map<String, Value>, &'a App) -> Running<'a>),
    Report(&'static Line),
    Documents(Nested),
    InMemory(&'static Line, &'static InMemory),
    StartExporter(&'static Exporter),
    StopExporter(&'static Exporter),
}

impl Entry {
    fn of<C: Command>() -> Self {
        let work = Work::Command(|arguments, app| Box::pin(run::<C>(arguments, app)));
        Self { spec: C::SPEC, about: C::ABOUT, resume: C::RESUME, open: C::OPEN, work }
    }

    fn documents(nested: Nested) -> Self {
        // what they run says for itself what becomes of it
        Self {
            spec: nested.spec(),
            about: nested.about(),
            resume: Resume::Replay,
            open: true,
            work: Work::Documents(nested),
        }
    }

    /// The commands of a report: the one that writes it, and the one that gives it.
    fn report(line: &'static Line) -> impl Iterator<Item = Self> {
        let spec = CommandSpec { name: line.command, parameters: line.parameters, check: None };
        let in_memory = line.in_memory.as_ref().map(|form| {
            let spec = CommandSpec { name: form.command, parameters: &[], check: None };
            Self { spec, about: form.about, resume: Resume::Once, open: true, work: Work::InMemory(line, form) }
        });
        let written = Self { spec, about: line.about, resume: Resume::Once, open: true, work: Work::Report(line) };
        in_memory.into_iter().chain([written])
    }

    /// The commands of an exporter: callers from outside neither open ports nor send elsewhere.
    fn exporter(line: &'static Exporter) -> [Self; 2] {
        let (resume, open) = (Resume::Replay, false);
        let stopped = "Ends what that command started, after what was measured until now was delivered";
        [
            Self { spec: line.start, about: line.about, resume, open, work: Work::StartExporter(line) },
            Self { spec: line.stop, about: stopped, resume, open, work: Work::StopExporter(line) },
        ]
    }

    /// What it runs documents from, if that is its work: the executor's, which knows how deep it is.
    pub fn nested(&self) -> Option<Nested> {
        match self.work {
            Work::Documents(nested) => Some(nested),
            Work::Command(_)
            | Work::Report(_)
            | Work::InMemory(..)
            | Work::StartExporter(_)
            | Work::StopExporter(_) => None,
        }
    }

    /// Runs it with named arguments that the checker has passed.
    pub async fn run(&self, arguments: Map<String, Value>, app: &App) -> Result<Value, CommandError> {
        match &self.work {
            Work::Command(work) => work(arguments, app).await,
            Work::Report(line) => report(line, &arguments, app),
            Work::Documents(_) => {
                Err(CommandError::failed("LoadDensityTestExecuteException", "run by the executor only"))
            }
            Work::InMemory(line, form) => line.value(&app.findings(), form.parts).map_err(|e| no_report(&e)),
            Work::StartExporter(line) => {
                let started = app.start_exporter(line, Start::Command(arguments)).await;
                started.map_err(|error| CommandError {
                    help: error.help().map(str::to_owned),
                    ..CommandError::of(error.kind(), &error)
                })
            }
            Work::StopExporter(line) => {
                app.stop_exporters(line).await;
                Ok(Value::Null)
            }
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

/// Writes a report. Gives its path, or the pair of them.
fn report(line: &Line, arguments: &Map<String, Value>, app: &App) -> Result<Value, CommandError> {
    let name = arguments.get(line.parameters[0].name).and_then(Value::as_str).unwrap_or(line.default);
    let findings = app.findings();
    let paths = line.write(&findings, name).map_err(|e| no_report(&e))?;
    let mut paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let kept = Kept::of(&findings, Part::All);
    let sample =
        if kept.is_sample() && line.report.lists_requests() { format!(" ({kept} requests)") } else { String::new() };
    app.console.note(&format!("wrote {}{sample}", paths.join(", ")));
    Ok(if paths.len() == 1 { Value::String(paths.remove(0)) } else { Value::from(paths) })
}

fn no_report(error: &ReportError) -> CommandError {
    CommandError::of(error.kind(), error)
}

/// All commands of the table.
pub fn commands() -> Vec<Entry> {
    let mut commands = vec![
        Entry::of::<StartTest>(),
        Entry::of::<socket_server::StartSocketServer>(),
        Entry::documents(Nested::Action),
        Entry::documents(Nested::Files),
        Entry::of::<variables::RegisterVariable>(),
        Entry::of::<variables::RegisterVariables>(),
        Entry::of::<csv_sources::RegisterCsvSource>(),
        Entry::of::<csv_sources::RegisterCsvSources>(),
        Entry::of::<variables::ClearResolver>(),
        Entry::of::<clear_records::ClearRecords>(),
        Entry::of::<persist::PersistRecords>(),
        Entry::of::<persist::ListRuns>(),
        Entry::of::<persist::FetchRunRecords>(),
        Entry::of::<add_package::AddPackage>(),
        Entry::of::<lint::LintAction>(),
        Entry::of::<lint::LintActionFile>(),
        Entry::of::<lint::ExportSchema>(),
        Entry::of::<sla::EvaluateSla>(),
        Entry::of::<sla::AssertSla>(),
        Entry::of::<har::LoadHar>(),
        Entry::of::<har::HarToTasks>(),
        Entry::of::<har::HarToActionJson>(),
        Entry::of::<curl::CurlToTask>(),
        Entry::of::<curl::GenerateFromCurls>(),
        Entry::of::<postman::LoadPostmanCollection>(),
        Entry::of::<postman::PostmanToTasks>(),
        Entry::of::<postman::PostmanToActionJson>(),
        Entry::of::<openapi::LoadOpenapi>(),
        Entry::of::<openapi::OpenapiToTasks>(),
        Entry::of::<openapi::OpenapiToActionJson>(),
        Entry::of::<openapi::GenerateFromOpenapi>(),
    ];
    commands.extend(REPORTS.iter().flat_map(Entry::report));
    commands.extend(EXPORTERS.iter().flat_map(Entry::exporter));
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
