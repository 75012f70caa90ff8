//! [`App`]: all that a command may touch.

use crate::cluster::{Cluster, RunControl, RunError, RunOrder};
use crate::command::CommandError;
use crate::command::start_test::{Compiled, CsvSource};
use crate::console::Console;
use crate::live;
use crate::report::Findings;
use crate::run::result::RunResult;
use crate::run::thresholds;
use crate::run::verdict::{Verdict, exit};
use crate::run::{Progress, Run};
use crate::table;
use ld_shared::boot::signal::Signals;
use ld_shared::id::Digest;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// All that a command may touch.
pub struct App {
    /// The cluster that tests run on.
    pub cluster: Cluster,
    /// Where people read.
    pub console: Console,
    signals: Signals,
    state: Mutex<State>,
}

/// What outlives an action.
#[derive(Default)]
pub struct State {
    /// Registered variables.
    pub variables: Map<String, Value>,
    /// Registered data sources.
    pub sources: BTreeMap<String, CsvSource>,
    /// Label of the runs to come: which document they are from.
    pub label: Option<String>,
    /// Runs that reports cover.
    pub since_clear: Vec<Arc<Run>>,
    /// Every run of the process.
    pub all: Vec<Arc<Run>>,
    /// Signals that were the normal end of an open-ended test.
    signals_spent: u32,
}

impl App {
    /// An app without any state.
    pub fn new(cluster: Cluster, console: Console, signals: Signals) -> Self {
        Self { cluster, console, signals, state: Mutex::default() }
    }

    /// The state. Not to be held over an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        // a command that panicked leaves whole values behind: each is set in one go
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What reports are made from: everything since `LD_clear_records`.
    pub fn findings(&self) -> Findings {
        let runs = self.state().since_clear.clone();
        let verdict = runs.last().map_or_else(Verdict::nothing, |run| run.verdict.clone());
        Findings { result: RunResult::of(&runs, verdict), runs }
    }

    /// What `--summary` and `--html` are made from: every test, under the verdict on all actions.
    pub fn findings_of_all(&self, verdict: Verdict) -> Findings {
        let runs = self.state().all.clone();
        Findings { result: RunResult::of(&runs, verdict), runs }
    }

    /// Whether the user has asked the process to end.
    pub fn ended_by_user(&self) -> bool {
        self.signals.count() > self.state().signals_spent
    }

    /// Runs a test to its end: live line, verdict, end table.
    ///
    /// The first signal lets it drain, the second cuts it off. Under `test_time: null` the first is
    /// its normal end, and later actions run as if it had not come.
    pub async fn run_test(&self, test: Compiled) -> Result<Arc<Run>, CommandError> {
        if self.ended_by_user() {
            let skipped = CommandError::failed("KeyboardInterrupt", "not started: the user ended the run before it");
            return Err(CommandError { exit_code: exit::ENDED_BY_USER, ..skipped });
        }
        for warning in &test.warnings {
            self.console.note(&format!("warning: {warning}"));
        }
        self.console.note(&live::start_line(&test.plan));
        let open_ended = test.plan.test_time.is_none();
        let known = self.signals.count();
        let (progress, seen) = watch::channel(Arc::new(Progress::default()));
        let control = RunControl::default();
        let order = RunOrder {
            digest: Digest::of(&test.plan.to_json()),
            plan: test.plan,
            blobs: test.blobs,
            thresholds: test.thresholds.clone(),
            allow_missing_workers: test.allow_missing_workers,
        };
        let outcome = tokio::select! {
            outcome = self.cluster.run(order, control.clone(), progress) => outcome,
            never = self.obey(known, &control) => match never {},
            never = live::show(&self.console, seen) => match never {},
        };
        self.console.clear_line();
        if open_ended && self.signals.count() == known + 1 {
            self.state().signals_spent += 1;
        }
        let measured = outcome.map_err(|error| self.not_run(&error))?;
        let judged = thresholds::judge(&test.thresholds, &measured);
        let verdict = Verdict::of(&measured, judged);
        let label = self.state().label.clone();
        let run = Arc::new(Run { measured, verdict, label });
        {
            let mut state = self.state();
            state.since_clear.push(Arc::clone(&run));
            state.all.push(Arc::clone(&run));
        }
        let result = RunResult::of(std::slice::from_ref(&run), run.verdict.clone());
        self.console.print(&table::end_table(&result, self.console.width()));
        Ok(run)
    }

    /// Turns signals into stop and abort. Never returns.
    async fn obey(&self, known: u32, control: &RunControl) -> std::convert::Infallible {
        let mut signals = self.signals.clone();
        let count = signals.beyond(known).await;
        control.stop.cancel();
        if count == known + 1 {
            self.console.note("ending: open requests may finish; once more ends at once");
            signals.beyond(known + 1).await;
        }
        control.abort.cancel();
        self.console.note("ending at once");
        std::future::pending().await
    }

    fn not_run(&self, error: &RunError) -> CommandError {
        let exit_code = if self.ended_by_user() { exit::ENDED_BY_USER } else { exit::NOT_RUN };
        let missing = matches!(error, RunError::MissingWorkers { .. });
        let help = missing.then(|| {
            "start workers with `ld-worker --master HOST:PORT`, wait longer with --wait, \
             or go on with fewer by \"on_missing_workers\": \"start\""
                .to_owned()
        });
        CommandError { help, exit_code, ..CommandError::of("LoadDensityTestException", error) }
    }
}
