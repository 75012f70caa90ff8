//! [`App`]: all that a command may touch.

mod runs;
mod stages;

use crate::cluster::{Cluster, RunControl, RunError, RunOrder};
use crate::command::start_test::{Compiled, CsvSource, Files};
use crate::command::{Command, CommandError, Commands, Outside};
use crate::console::Console;
use crate::exporter::Exporters;
use crate::journal::{JournalOrder, Unfinished};
use crate::live;
use crate::record_file::RecordFile;
use crate::remote::desk::Desk;
use crate::remote::now::{Seconds, Unjudged};
use crate::remote::{Caller, Feed, Now, Policy};
use crate::report::Findings;
use crate::run::result::RunResult;
use crate::run::thresholds;
use crate::run::verdict::{Verdict, exit};
use crate::run::{AllRecords, Measured, Progress, Run};
use crate::secrets::{SecretStore, open_to_others};
use crate::store::history::History;
use crate::table;
use crate::web;
use ld_shared::boot::signal::Signals;
use ld_shared::boot::task;
use ld_shared::handshake::Token;
use ld_shared::id::{Digest, RunId};
use ld_shared::plan::Plan;
use runs::Runs;
use serde_json::{Map, Value};
use stages::SetUp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{mpsc, watch};

/// All that a command may touch: a handle, which costs nothing to clone. Every handle is on behalf of
/// somebody ([`Caller`]); what they share is one state, one cluster.
#[derive(Clone)]
pub struct App {
    /// The cluster that tests run on.
    pub cluster: Arc<Cluster>,
    /// Where people read.
    pub console: Arc<Console>,
    shared: Arc<Shared>,
    caller: Arc<Caller>,
}

/// What all handles share.
struct Shared {
    signals: Signals,
    history: Option<History>,
    commands: RwLock<Arc<Commands>>,
    state: Mutex<State>,
    desk: Desk,
    exporters: Exporters,
    /// The test that goes on.
    now: watch::Sender<Option<Now>>,
    /// Whoever holds it may run a test.
    turn: tokio::sync::Mutex<()>,
}

/// What outlives an action.
#[derive(Default)]
pub struct State {
    /// Registered variables.
    pub variables: Map<String, Value>,
    /// Registered data sources.
    pub sources: BTreeMap<String, CsvSource>,
    /// Where `${secret.NAME}` comes from.
    pub secrets: SecretStore,
    /// How the HTTP API is served for a test that asks for it; `None`: it is not.
    pub(crate) web_of_tests: Option<web::Options>,
    /// What callers from outside may do; `None`: nobody has said.
    pub policy: Option<Arc<Policy>>,
    /// What callers from outside must know.
    pub token: Option<Token>,
    /// Label of the runs to come: which document they are from.
    pub label: Option<String>,
    /// Runs that are over.
    pub runs: Runs,
    /// What all of them measured together.
    pub(crate) past: Feed,
    /// Files of all requests that tests of this process have written.
    record_files: BTreeSet<PathBuf>,
    /// What a run measured that is over, but not judged yet: it is not among the others.
    pub(crate) unjudged: Option<Arc<Unjudged>>,
    /// Tests that were begun.
    tests: u32,
    /// Signals that were the normal end of an open-ended test.
    signals_spent: u32,
}

/// The load of a test.
struct Load<'a> {
    plan: Arc<Plan>,
    file: Option<&'a RecordFile>,
    journal: Option<JournalOrder>,
    resumes: Option<Box<Unfinished>>,
}

/// Why there is no load to be measured.
enum Unrun {
    /// None of the workers of a run that was taken up is there.
    NobodyBack,
    Error(Box<CommandError>),
}

impl Unrun {
    fn into_error(self) -> CommandError {
        match self {
            Self::NobodyBack => CommandError::of("LoadDensityTestException", &RunError::NobodyBack),
            Self::Error(error) => *error,
        }
    }
}

/// A test that goes on is shown to surfaces as long as this lives.
struct Shown<'a>(&'a watch::Sender<Option<Now>>);

impl<'a> Shown<'a> {
    fn new(shown: &'a watch::Sender<Option<Now>>, now: Now) -> Self {
        shown.send_replace(Some(now));
        Self(shown)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

impl App {
    /// An app without any state.
    ///
    /// Every run is kept in `history`.
    pub fn new(cluster: Cluster, console: Console, signals: Signals, history: Option<History>) -> Self {
        let shared = Shared {
            signals,
            history,
            commands: RwLock::default(),
            state: Mutex::default(),
            desk: Desk::default(),
            exporters: Exporters::default(),
            now: watch::Sender::default(),
            turn: tokio::sync::Mutex::default(),
        };
        let (cluster, console) = (Arc::new(cluster), Arc::new(console));
        Self { cluster, console, shared: Arc::new(shared), caller: Arc::default() }
    }

    /// Another handle, on behalf of `caller`.
    #[must_use]
    pub fn on_behalf_of(&self, caller: Arc<Caller>) -> Self {
        Self { caller, ..self.clone() }
    }

    /// On whose behalf it acts.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The queue of documents from outside.
    pub(crate) fn desk(&self) -> &Desk {
        &self.shared.desk
    }

    /// What sends metrics elsewhere while tests run.
    pub fn exporters(&self) -> &Exporters {
        &self.shared.exporters
    }

    /// Where runs are kept by themselves, if anywhere.
    pub fn history(&self) -> Option<&History> {
        self.shared.history.as_ref()
    }

    /// The commands that there are now.
    pub fn commands(&self) -> Arc<Commands> {
        // as with the state: a value is set in one go
        Arc::clone(&self.shared.commands.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a command type: documents may name it from now on. One of the same name gives way.
    pub fn register<C: Command>(&self) {
        Arc::make_mut(&mut self.shared.commands.write().unwrap_or_else(PoisonError::into_inner)).add::<C>();
    }

    /// Adds a command from outside: a closure, or one of a package.
    ///
    /// # Errors
    ///
    /// [`Commands::add_outside`].
    pub fn register_outside(&self, name: impl Into<String>, command: Outside) -> Result<(), CommandError> {
        Arc::make_mut(&mut self.shared.commands.write().unwrap_or_else(PoisonError::into_inner))
            .add_outside(name, command)
    }

    /// The state. Not to be held over an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        // a command that panicked leaves whole values behind: each is set in one go
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What reports are made from: everything since `LD_clear_records`.
    pub fn findings(&self) -> Findings {
        let runs = self.state().runs.since_clear.clone();
        let verdict = runs.last().map_or_else(Verdict::nothing, |run| run.verdict.clone());
        Findings { result: RunResult::of(&runs, verdict), runs }
    }

    /// What `--summary` and `--html` are made from: every test, under the verdict on all actions.
    pub fn findings_of_all(&self, verdict: Verdict) -> Findings {
        let runs = self.state().runs.own.clone();
        Findings { result: RunResult::of(&runs, verdict), runs }
    }

    /// How often the user has asked the process to end.
    fn signals_seen(&self) -> u32 {
        self.shared.signals.count()
    }

    /// Whether the user has asked the process to end.
    pub fn ended_by_user(&self) -> bool {
        self.signals_seen() > self.state().signals_spent || self.caller.control.stop.is_cancelled()
    }

    /// The test that goes on, to be waited for.
    pub fn now_watch(&self) -> watch::Receiver<Option<Now>> {
        self.shared.now.subscribe()
    }

    /// An environment variable of this process, if this handle's caller may read it.
    pub(crate) fn environment(&self, name: &str) -> Option<String> {
        let may = self.caller.policy.as_ref().is_none_or(|policy| policy.may_read(name));
        may.then(|| crate::cli::environment(name)).flatten()
    }

    /// The files that this handle's caller may name.
    pub(crate) fn files(&self) -> Files<'_> {
        Files::of_a_caller(self.caller.policy.as_deref())
    }

    /// Runs a test to its end: setup, live line, teardown, verdict, end table.
    ///
    /// The first signal lets it drain, the second cuts it off. Under `test_time: null` the first is
    /// its normal end, and later actions run as if it had not come.
    pub async fn run_test(&self, test: Compiled) -> Result<Arc<Run>, CommandError> {
        // boxed: the future of a whole test is large
        Box::pin(self.run_test_on(&self.cluster, test)).await
    }

    /// The same on another cluster than the app's own.
    pub async fn run_test_on(&self, cluster: &Arc<Cluster>, mut test: Compiled) -> Result<Arc<Run>, CommandError> {
        if let Some(policy) = &self.caller.policy {
            policy.confine(Arc::make_mut(&mut test.plan))?;
        }
        // tests of different callers are never mixed
        let _turn = self.shared.turn.lock().await;
        if self.ended_by_user() {
            let skipped = CommandError::failed("KeyboardInterrupt", "not started: the user ended the run before it");
            return Err(CommandError { exit_code: exit::ENDED_BY_USER, ..skipped });
        }
        let file = test.records_file.as_deref().map(|path| self.record_file(path)).transpose()?;
        if let Some((message, help)) = test.plan.secrets.as_ref().and_then(|_| open_to_others(cluster.options())) {
            let refused = CommandError::failed("LoadDensityTestException", message).with_help(help);
            return Err(CommandError { exit_code: exit::REFUSED, ..refused });
        }
        for warning in &test.warnings {
            self.console.note(&format!("warning: {warning}"));
        }
        let at_first = self.signals_seen();
        let journal = self.journal_order(&test);
        let mut taken_up = None;
        if cluster.bound_addr().is_some()
            && let Some(unfinished) = self.unfinished(journal.as_ref()).await
        {
            let set_up = SetUp::known(&unfinished);
            let known = unfinished.recovered.order.clone();
            let load =
                Load { plan: known.plan, file: file.as_ref(), journal: journal.clone(), resumes: Some(unfinished) };
            match self.run_load(cluster, &test, load).await {
                Err(Unrun::NobodyBack) => {
                    let run = &known.run;
                    self.console.note(&format!(
                        "none of the workers of run {run} came back: it is left to `ld-master runs rescue {run}`, \
                         and the test starts anew"
                    ));
                }
                outcome => taken_up = Some((set_up, outcome.map_err(Unrun::into_error))),
            }
        }
        let (set_up, outcome) = if let Some(taken_up) = taken_up {
            taken_up
        } else {
            let mut set_up = self.set_up(cluster, &test).await;
            let outcome = if let Some(failure) = set_up.failure.take() {
                Err(failure)
            } else {
                let plan = stages::load(&test, &set_up);
                let load = Load { plan, file: file.as_ref(), journal, resumes: None };
                self.run_load(cluster, &test, load).await.map_err(Unrun::into_error)
            };
            (set_up, outcome)
        };
        let mut torn_down = Ok(None);
        if self.signals_seen() >= at_first + 2 {
            torn_down = Err("the user ended the run at once".to_owned());
        } else if outcome.is_ok() || !set_up.never_began() {
            torn_down = self.tear_down(cluster, &test, &set_up).await;
        }
        // also if there was no run: the file is whole, though empty
        let written = match file {
            Some(file) => Some((file.path().display().to_string(), file.finish().await)),
            None => None,
        };
        let mut doubts = Vec::new();
        match &torn_down {
            Ok(Some(measured)) => {
                doubts.extend(stages::failures(measured).map(|why| format!("teardown failed: {why}")));
            }
            Err(why) if !test.plan.teardown.is_empty() => doubts.push(format!("teardown was not run: {why}")),
            Ok(None) | Err(_) => {}
        }
        for doubt in &doubts {
            self.console.note(&format!("warning: {doubt}"));
        }
        let mut measured = outcome?;
        for stage in set_up.measured.iter().chain(torn_down.iter().flatten()) {
            measured.add_hooks(stage);
        }
        if let Some((file, written)) = written {
            self.tell_written(measured.take_written(file, written));
        }
        let judged = thresholds::judge(&test.thresholds, &measured);
        let mut verdict = Verdict::of(&measured, judged);
        verdict.reasons.extend(doubts.into_iter().map(|doubt| format!("warning: {doubt}")));
        let label = self.state().label.clone();
        let run = Arc::new(Run { measured, verdict, label });
        {
            let state = &mut *self.state();
            state.unjudged = None;
            let told = state.runs.add(&run, self.caller.policy.is_some(), &mut state.past);
            self.console.notes(&told.into_iter().collect::<Vec<_>>());
        }
        self.caller.has_run(Arc::clone(&run));
        let result = RunResult::of(std::slice::from_ref(&run), run.verdict.clone());
        self.console.print(&table::end_table(&result, self.console.width()));
        self.remember(&run).await;
        self.forget_journal(&run.measured.run).await;
        Ok(run)
    }

    /// Runs the load of a test by `plan`, its own plan with what the setup added.
    async fn run_load(&self, cluster: &Arc<Cluster>, test: &Compiled, load: Load<'_>) -> Result<Measured, Unrun> {
        let Load { plan, file, journal, resumes } = load;
        let given = resumes.as_ref().map(|unfinished| {
            let order = &unfinished.recovered.order;
            order.given.clone().unwrap_or_else(|| Arc::clone(&order.plan))
        });
        self.console.note(&live::start_line(&plan));
        let known = self.signals_seen();
        let order = RunOrder {
            run: RunId::random(),
            digest: Digest::of(&plan.to_json()),
            plan,
            blobs: test.blobs.clone(),
            thresholds: test.thresholds.clone(),
            allow_missing_workers: test.allow_missing_workers,
            any_worker: false,
            lines: file.map(RecordFile::sink),
            journal,
            resumes,
        };
        let seconds = Arc::default();
        let outcome = self.run_plan(cluster, order, known, Some(&seconds)).await;
        seconds.complete(outcome.as_ref().ok());
        if test.plan.test_time.is_none() && self.signals_seen() == known + 1 {
            self.state().signals_spent += 1;
        }
        let measured = outcome.map_err(|error| match error {
            RunError::NobodyBack => Unrun::NobodyBack,
            error => Unrun::Error(Box::new(self.not_run(&error))),
        })?;
        // results are of the plan that the document gives: that one is the same each time
        let plan = given.unwrap_or_else(|| Arc::clone(&test.plan));
        Ok(Measured { plan_digest: Digest::of(&plan.to_json()), plan, ..measured })
    }

    /// Runs a plan with its live line; signals beyond the `known` ones end it. With `seconds` surfaces
    /// show it: stages before and after the load are nobody's business.
    async fn run_plan(
        &self,
        cluster: &Arc<Cluster>,
        order: RunOrder,
        known: u32,
        seconds: Option<&Arc<Seconds>>,
    ) -> Result<Measured, RunError> {
        let (progress, seen) = watch::channel(Arc::new(Progress::default()));
        let Caller { control: RunControl { stop, abort }, .. } = &*self.caller;
        let control = RunControl { stop: stop.child_token(), abort: abort.child_token() };
        let now = seconds.map(|seconds| Now {
            cluster: Arc::clone(cluster),
            run: order.resumes.as_ref().map_or(&order.run, |resumed| &resumed.recovered.order.run).clone(),
            label: self.state().label.clone(),
            by: self.caller.shown().to_owned(),
            plan: Arc::clone(&order.plan),
            control: control.clone(),
            progress: seen.clone(),
            seconds: Arc::clone(seconds),
        });
        // gone with this future, however it ends
        let _shown = now.clone().map(|now| Shown::new(&self.shared.now, now));
        let outcome = tokio::select! {
            outcome = cluster.run(order, control.clone(), progress) => outcome,
            never = self.obey(known, &control) => match never {},
            never = live::show(&self.console, seen) => match never {},
            never = self.take_down(now.as_ref()) => match never {},
        };
        if let (Some(_), Ok(measured)) = (&now, &outcome) {
            self.state().unjudged = Some(Arc::new(Unjudged::of(measured)));
        }
        self.console.clear_line();
        outcome
    }

    /// How the load of a test is journaled: below the folder in which runs are kept.
    fn journal_order(&self, test: &Compiled) -> Option<JournalOrder> {
        let folder = self.shared.history.as_ref()?.journals();
        let (label, nth) = {
            let mut state = self.state();
            state.tests += 1;
            (state.label.clone(), state.tests)
        };
        // what a seed is drawn for, and how secrets are enciphered, differs each time
        let plan = Plan { seed: 0, secrets: None, ..(*test.plan).clone() };
        let command = serde_json::json!([label, nth, Digest::of(&plan.to_json()).0]);
        let command = Digest::of(command.to_string().as_bytes());
        Some(JournalOrder { folder, command, label, given: Some(Arc::clone(&test.plan)) })
    }

    /// The run that the same command began in a master that is gone, if its workers may still be there.
    async fn unfinished(&self, journal: Option<&JournalOrder>) -> Option<Box<Unfinished>> {
        let order = journal?;
        match order.folder.open_unfinished(&order.command).await {
            Ok(found) => found.map(Box::new),
            Err(error) => {
                self.console.note(&format!("warning: {}", crate::command::with_causes(&error)));
                None
            }
        }
    }

    /// The result is kept elsewhere, or has been shown: its journal has done its duty.
    async fn forget_journal(&self, run: &RunId) {
        let Some(history) = &self.shared.history else { return };
        if let Err(error) = history.journals().remove_closed(run).await {
            tracing::warn!(%run, "its journal is left: {error}");
        }
    }

    /// Keeps a run for later. A store that cannot be written changes nothing of what was measured.
    async fn remember(&self, run: &Arc<Run>) {
        let Some(history) = &self.shared.history else { return };
        match history.save(run).await {
            Ok(number) => self.console.note(&format!("kept as run {number}: ld-master runs show {number}")),
            Err(error) => self.console.note(&format!("warning: the run is not kept for later: {error}")),
        }
    }

    /// Creates the file of all requests of a test.
    fn record_file(&self, path: &Path) -> Result<RecordFile, CommandError> {
        let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if !self.state().record_files.insert(full) {
            let message = format!("`{}` holds the requests of an earlier test already", path.display());
            let help = Some("give each test a file of its own in `records`".into());
            return Err(CommandError { help, ..CommandError::failed("ValueError", message) });
        }
        RecordFile::create(path).map_err(|error| CommandError::of("OSError", &error))
    }

    fn tell_written(&self, all: &AllRecords) {
        let AllRecords { file, written, missed } = all;
        self.console.note(&format!("wrote {file}: {written} requests"));
        if *missed > 0 {
            self.console.note(&format!("warning: {missed} requests are not in {file}"));
        }
    }

    /// Requests of the user to end that come from now on, one message each.
    pub(crate) fn later_signals(&self) -> mpsc::Receiver<()> {
        let (sender, requests) = mpsc::channel(4);
        let mut signals = self.shared.signals.clone();
        task::spawn("signals of a worker", async move {
            let mut known = signals.count();
            loop {
                known = signals.beyond(known).await;
                if sender.send(()).await.is_err() {
                    return;
                }
            }
        });
        requests
    }

    /// Turns signals into stop and abort. Never returns.
    async fn obey(&self, known: u32, control: &RunControl) -> std::convert::Infallible {
        let mut signals = self.shared.signals.clone();
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
