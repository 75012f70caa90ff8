//! LoadDensity from Rust: every name of the seed's Core API as a method of [`App`].
//!
//! Each is a command of documents with Rust arguments, checked as documents are. `docs/rust.md` lists
//! the seed's names beside these.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ld_master::app::App;
//! use ld_master::target::{Options, Target};
//! use serde_json::json;
//!
//! let target = Target::start(Options::default())?;
//! let app = App::local().await?;
//! app.register_variable("base", format!("http://{}", target.addr())).await?;
//! app.start_test(json!({
//!     "user_detail_dict": {"user": "fast_http_user"},
//!     "user_count": 2, "spawn_rate": 10, "test_time": 0.5,
//!     "tasks": [{"method": "get", "request_url": "${var.base}/", "name": "home"}],
//! })).await?;
//! let summary = app.build_summary();
//! assert!(summary.totals.requests > 0 && summary.totals.failures == 0);
//! app.close().await;
//! # Ok(()) }
//! ```

use crate::app::App;
use crate::cluster::{Cluster, ClusterError, ClusterOptions, Security};
use crate::command::{CommandError, Outside, Running, refused};
use crate::console::Console;
use crate::executor::{Outcome, records};
use crate::report::{self, REPORTS};
use crate::run::result::RunResult;
use crate::script::{Arguments, Strictness};
use ld_shared::boot::signal::Signals;
use ld_shared::plan::Plan;
use ld_shared::record::Record;
use ld_shared::rng::KeyedRng;
use ld_shared::scope::{Bindings, Scope};
use ld_shared::template::Template;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

impl App {
    /// An app whose tests run in this process, on all cores, without a word on the terminal. Signals
    /// stay the host program's.
    ///
    /// # Errors
    ///
    /// The machine gives no threads.
    pub async fn local() -> Result<Self, ClusterError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let options = ClusterOptions {
            bind: None,
            local_cores: Some(cores),
            expected_workers: 1,
            wait: Duration::from_mins(1),
            security: Security::default(),
        };
        Self::open(options).await
    }

    /// An app over a cluster of other shape: workers that join over the network, fewer cores.
    ///
    /// # Errors
    ///
    /// The port is not to be had, or the machine gives no threads.
    pub async fn open(options: ClusterOptions) -> Result<Self, ClusterError> {
        let (_, nobody) = watch::channel(0);
        Ok(Self::new(Cluster::open(options).await?, Console::silent(), Signals::from_channel(nobody), None))
    }

    /// Lets exporters deliver their last, says goodbye to workers and ends.
    pub async fn close(self) {
        self.end_exporters().await.finished().await;
        self.cluster.close().await;
    }

    /// Runs one command with arguments by name (an object) or by position (a list); null is none.
    ///
    /// # Errors
    ///
    /// An unknown command, arguments that it does not take, and what it fails by.
    pub async fn call(&self, command: &str, arguments: Value) -> Result<Value, CommandError> {
        let action = if arguments.is_null() { json!([[command]]) } else { json!([[command, arguments]]) };
        let mut outcomes = self.run_document(&action).await?;
        outcomes.pop().map_or(Ok(Value::Null), |outcome| outcome.result)
    }

    /// The seed's `start_test`: runs a test to its end and gives the arguments that it ran with.
    ///
    /// # Errors
    ///
    /// Arguments with faults, and tests that could not be run. A test whose thresholds failed is none:
    /// see [`RunResult::verdict`].
    pub async fn start_test(&self, arguments: Value) -> Result<Value, CommandError> {
        self.call("LD_start_test", arguments).await
    }

    /// The seed's `execute_action`: runs a document (a list of actions, or an object that holds one)
    /// and gives a record an action. Actions that fail stop nothing: their record is the error.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ld_master::app::App;
    /// # use serde_json::json;
    /// let app = App::local().await?;
    /// let records = app.execute_action(&json!([["LD_register_variable", {"name": "a", "value": 1}], ["LD_clear_records"]])).await?;
    /// assert_eq!(records["execute: ['LD_clear_records']"], json!({"status": "cleared"}));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// A document with faults; nothing of it is run then.
    pub async fn execute_action(&self, document: &Value) -> Result<Map<String, Value>, CommandError> {
        Ok(records::map(&self.run_document(document).await?))
    }

    /// The seed's `execute_files`: [`Self::execute_action`] of each file, in order.
    ///
    /// # Errors
    ///
    /// The first file that cannot be read or has faults; those before it have run.
    pub async fn execute_files<P: AsRef<Path>>(&self, files: &[P]) -> Result<Vec<Map<String, Value>>, CommandError> {
        let mut maps = Vec::with_capacity(files.len());
        for file in files {
            maps.push(self.execute_action(&read_action_json(file)?).await?);
        }
        Ok(maps)
    }

    async fn run_document(&self, document: &Value) -> Result<Vec<Outcome>, CommandError> {
        let text = document.to_string();
        let document = self.read(text.as_bytes(), Strictness::Strict);
        let document = document.map_err(|faults| refused("LoadDensityTestExecuteException", faults))?;
        Ok(self.execute(&document).await)
    }

    /// The seed's `add_command_to_executor`: documents may name the closure from now on.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ld_master::app::App;
    /// # use serde_json::json;
    /// let app = App::local().await?;
    /// app.add_command_to_executor("LD_slack_notify", |arguments, _app| {
    ///     Box::pin(async move { Ok(json!(format!("told them {arguments:?}"))) })
    /// })?;
    /// app.execute_action(&json!([["LD_slack_notify", {"message": "done"}]])).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Types that implement [`Command`](crate::command::Command) are checked and described like
    /// built-in ones: [`App::register`].
    ///
    /// # Errors
    ///
    /// The name of a built-in command.
    pub fn add_command_to_executor(
        &self,
        name: &str,
        command: impl for<'a> Fn(Arguments, &'a Self) -> Running<'a> + Send + Sync + 'static,
    ) -> Result<(), CommandError> {
        self.register_outside(name, Outside::new("", "the host program", command))
    }

    /// The seed's `register_variable`: what `${var.NAME}` gives in later tests.
    ///
    /// # Errors
    ///
    /// None that a name and a value can cause.
    pub async fn register_variable(&self, name: &str, value: impl Into<Value>) -> Result<(), CommandError> {
        self.call("LD_register_variable", json!({"name": name, "value": value.into()})).await.map(drop)
    }

    /// The seed's `register_variables`.
    ///
    /// # Errors
    ///
    /// As [`Self::register_variable`].
    pub async fn register_variables(&self, variables: Map<String, Value>) -> Result<(), CommandError> {
        self.call("LD_register_variables", json!({"variables": variables})).await.map(drop)
    }

    /// The seed's `register_csv_source`: what `${csv.NAME.COLUMN}` gives in later tests.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub async fn register_csv_source(&self, name: &str, file_path: &str, cycle: bool) -> Result<(), CommandError> {
        let source = json!({"name": name, "file_path": file_path, "cycle": cycle});
        self.call("LD_register_csv_source", source).await.map(drop)
    }

    /// The seed's `test_record_instance`: kept requests since `LD_clear_records`, successes and failures
    /// apart, in order of their ends.
    pub fn test_records(&self) -> (Vec<Record>, Vec<Record>) {
        let runs = self.state().runs.since_clear.clone();
        let records = runs.iter().flat_map(|run| run.measured.records.iter()).cloned();
        records.partition(|record| record.error.is_none())
    }

    /// The seed's `build_summary`: totals, percentiles and all else of every test since
    /// `LD_clear_records`.
    pub fn build_summary(&self) -> RunResult {
        self.findings().result
    }

    /// The seed's `resolve`: fills the placeholders of every text in `value` in, as a task's would be
    /// for one user: registered variables, the environment, made-up values. What has no value stays.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ld_master::app::App;
    /// # use serde_json::json;
    /// let app = App::local().await?;
    /// app.register_variable("base", "http://h").await?;
    /// assert_eq!(app.resolve(&json!({"url": "${var.base}/${nope}"})), json!({"url": "http://h/${nope}"}));
    /// # Ok(()) }
    /// ```
    pub fn resolve(&self, value: &Value) -> Value {
        let text = value.to_string();
        let set = |name: &str| Some((name.to_owned(), self.environment(name)?));
        let env = Template::env_names(&text).filter_map(set).collect();
        let plan = Plan { variables: self.state().variables.clone(), env, ..Plan::default() };
        let bindings = Bindings::new(&plan, Vec::new());
        let mut scope = Scope::new(&bindings);
        scope.begin_iteration(KeyedRng::new(rand::random(), 0, 0), 0);
        filled(value, &bindings, &mut scope)
    }

    /// The seed's report functions: writes the report of a format (`html`, `json`, `xml`, `csv`, `junit`,
    /// `summary`) on every test since `LD_clear_records` to files of that name without ending. Gives
    /// their paths.
    ///
    /// # Errors
    ///
    /// An unknown format, a format that has nothing to say without a test, a file that cannot be written.
    pub async fn generate_report(&self, format: &str, name: &str) -> Result<Value, CommandError> {
        let Some(line) = report::named(format) else {
            let known: Vec<_> = REPORTS.iter().map(|line| line.report.format()).collect();
            let message = format!("unknown report format `{format}`; accepted: {}", known.join(", "));
            return Err(CommandError::failed("ValueError", message));
        };
        self.call(line.command, json!([name])).await
    }

    /// The seed's `persist_records`: saves the kept requests, plan and result of every test since
    /// `LD_clear_records` in a database, a file's path or a `postgres://` URL. Gives the run's number.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ld_master::app::App;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("runs.db").display().to_string();
    /// let app = App::local().await?;
    /// let number = app.persist_records(&path, Some("nightly")).await?;
    /// assert_eq!(app.call("LD_list_runs", serde_json::json!([path])).await?[0]["id"], number);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// A database that cannot be opened or written.
    pub async fn persist_records(&self, database: &str, label: Option<&str>) -> Result<Value, CommandError> {
        self.call("LD_persist_records", json!({"database_path": database, "label": label})).await
    }

    /// The seed's `callback_executor`: runs a command, then hands its result to `callback`, and gives it
    /// back.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ld_master::app::App;
    /// # use serde_json::json;
    /// let app = App::local().await?;
    /// let mut seen = None;
    /// app.callback_function("LD_clear_records", json!({}), |result| seen = Some(result.clone())).await?;
    /// assert_eq!(seen, Some(json!({"status": "cleared"})));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What the command fails by; `callback` is not called then.
    pub async fn callback_function(
        &self,
        trigger: &str,
        arguments: Value,
        callback: impl FnOnce(&Value),
    ) -> Result<Value, CommandError> {
        let result = self.call(trigger, arguments).await?;
        callback(&result);
        Ok(result)
    }
}

/// `value` with its texts (not its keys) filled in.
fn filled(value: &Value, bindings: &Bindings, scope: &mut Scope) -> Value {
    match value {
        Value::String(text) => {
            let rendered = Template::compile(text, bindings).render_text(bindings, scope);
            // what can never be filled in stays as written
            Value::String(rendered.unwrap_or_else(|_| text.clone()))
        }
        Value::Array(items) => items.iter().map(|item| filled(item, bindings, scope)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, item)| (key.clone(), filled(item, bindings, scope))).collect::<Map<_, _>>().into()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// The seed's `read_action_json`: a document from a file.
///
/// # Errors
///
/// A file that cannot be read or holds no JSON.
pub fn read_action_json(file: impl AsRef<Path>) -> Result<Value, CommandError> {
    let class = "LoadDensityTestJsonException";
    let file = file.as_ref();
    let text = std::fs::read(file).map_err(|error| {
        CommandError::failed(class, format!("cannot read the document `{}`: {error}", file.display()))
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| CommandError::failed(class, format!("`{}` is no JSON: {error}", file.display())))
}
