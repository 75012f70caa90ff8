//! What every run does around its documents: check all of them, open the cluster, run action after
//! action, write results, say how it went.

use super::{Global, OnTerminate, Outputs, open, web};
use crate::app::App;
use crate::cluster::Cluster;
use crate::command::{CommandError, Commands, with_causes};
use crate::console::Console;
use crate::executor::records;
use crate::report::{self, files};
use crate::run::result::RunResult;
use crate::run::verdict::{Verdict, exit};
use crate::script::{self, Document, Strictness};
use crate::secrets::{self, SecretStore};
use crate::store::StoreError;
use crate::store::history::History;
use crate::web::Server;
use ld_shared::boot::signal::{Signals, leave_on_terminate};
use ld_shared::fault::Fault;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

/// A document that has been read, but not checked.
pub(super) struct Source {
    /// What errors call it: a path.
    pub name: String,
    /// What its runs are labelled.
    pub label: Option<String>,
    /// Its bytes.
    pub content: Vec<u8>,
    /// Whether stdout shows what became of its actions.
    pub shown: bool,
}

/// A document that may run.
struct Checked {
    label: Option<String>,
    document: Document,
    shown: bool,
}

/// Runs `work` on a runtime, with signals counted.
pub(super) fn block_on(console: &Console, work: impl AsyncFnOnce(Signals) -> u8) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().thread_name("master").enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            console.error(&format!("error: cannot start threads: {error}"));
            return exit::NOT_RUN;
        }
    };
    let code = runtime.block_on(async {
        match Signals::listen() {
            Ok(signals) => work(signals).await,
            Err(error) => {
                console.error(&format!("error: cannot listen for signals: {error}"));
                exit::NOT_RUN
            }
        }
    });
    // a task that hangs must not keep a process that has said its last word
    runtime.shutdown_background();
    code
}

/// Checks every document, then runs them one after another. Returns the exit code of the worst.
pub(super) fn run(global: &Global, console: Console, sources: Vec<Source>, outputs: &Outputs) -> u8 {
    let Ok(documents) = check(&console, sources, outputs.strictness()) else {
        return exit::REFUSED;
    };
    let Ok(secrets) = secrets(global, &console, outputs, &documents) else {
        return exit::REFUSED;
    };
    let console =
        if outputs.results.as_deref() == Some(Path::new("-")) { console.with_lines_on_stdout() } else { console };
    if global.on_terminate == OnTerminate::Leave && global.data_dir.is_none() {
        console.error("error: --on-terminate leave needs --data-dir: there lies what a successor takes up");
        return exit::REFUSED;
    }
    block_on(&Console::new(global.quiet), async |signals| {
        if global.on_terminate == OnTerminate::Leave
            && let Err(error) = leave_on_terminate()
        {
            console.error(&format!("error: cannot listen for signals: {error}"));
            return exit::NOT_RUN;
        }
        let app = match open::app(global, global.cluster(), console, signals).await {
            Ok(app) => app,
            Err(code) => return code,
        };
        {
            let mut state = app.state();
            state.secrets = secrets;
            state.policy = global.policy().ok().map(Arc::new);
            state.token = global.token();
        }
        if let Err(code) = start_exporters(global, &app).await {
            app.close().await;
            return code;
        }
        let server = match web::serve(global, &app, None, Some(web::BUSY)) {
            Ok(server) => server,
            Err(code) => {
                app.close().await;
                return code;
            }
        };
        let mut session = Session { app, server, failures: Vec::new(), code: exit::PASSED, lines: String::new() };
        // stdout is for people or for programs
        let prints = outputs.results.as_deref() != Some(Path::new("-"));
        for Checked { label, document, shown } in documents {
            session.app.state().label = label;
            session.run(&document, shown && prints).await;
        }
        session.finish(outputs).await
    })
}

/// Starts the exporters that flags ask for. `Err`: one cannot be, which has been told; the exit code.
pub(super) async fn start_exporters(global: &Global, app: &App) -> Result<(), u8> {
    let (access, wanted) = global.exports();
    app.exporters().protect(access);
    app.start_exporters(wanted).await.map_err(|error| {
        let help = error.help().map(|help| format!("\n help: {help}")).unwrap_or_default();
        app.console.error(&format!("error: {}{help}", with_causes(&error)));
        exit::NOT_RUN
    })
}

/// Where runs are kept. A folder that was asked for must be there before anything runs.
pub(super) async fn history(global: &Global, console: &Console) -> Result<Option<History>, StoreError> {
    if global.unsaved {
        return Ok(None);
    }
    let Some(history) = global.history() else {
        console.note("warning: runs are not kept for later: neither HOME nor --data-dir says where");
        return Ok(None);
    };
    if global.data_dir.is_some() {
        history.open().await?.close().await;
    }
    Ok(Some(history))
}

/// Runs a document of our own without a word, and gives its result.
pub(super) fn measure(global: &Global, document: &[u8]) -> Result<RunResult, String> {
    let faults = |faults: Vec<Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let document = script::read(document, Strictness::Strict, &Commands::default()).map_err(faults)?;
    let mut outcome = Err("it did not run".to_owned());
    block_on(&Console::silent(), async |signals| {
        let cluster = match Cluster::open(global.cluster()).await {
            Ok(cluster) => cluster,
            Err(error) => {
                outcome = Err(with_causes(&error));
                return exit::NOT_RUN;
            }
        };
        let app = App::new(cluster, Console::silent(), signals, None);
        let mut session = Session { app, server: None, failures: Vec::new(), code: exit::PASSED, lines: String::new() };
        session.run(&document, false).await;
        let code = session.verdict().exit_code;
        outcome = if session.failures.is_empty() {
            Ok(session.app.findings_of_all(session.verdict()).result)
        } else {
            Err(session.failures.join("; "))
        };
        session.app.cluster.close().await;
        code
    });
    outcome
}

/// Reads and checks all; prints every fault of every document.
fn check(console: &Console, sources: Vec<Source>, strictness: Strictness) -> Result<Vec<Checked>, Refused> {
    let commands = Commands::default();
    let mut documents = Vec::new();
    let mut refused = false;
    for source in sources {
        match script::read(&source.content, strictness, &commands) {
            Ok(document) => documents.push(Checked { label: source.label, document, shown: source.shown }),
            Err(faults) => {
                refused = true;
                for fault in &faults {
                    console.error(&fault.to_string());
                }
                let s = if faults.len() == 1 { "" } else { "s" };
                console.error(&format!("{}: {} fault{s}; nothing was run", source.name, faults.len()));
            }
        }
    }
    if refused { Err(Refused) } else { Ok(documents) }
}

/// Commands whose arguments hold tests.
const TESTS: [&str; 2] = ["LD_start_test", "LD_execute_action"];

/// Opens the secrets, and refuses documents that name others or would send them over an open link.
fn secrets(
    global: &Global,
    console: &Console,
    outputs: &Outputs,
    documents: &[Checked],
) -> Result<SecretStore, Refused> {
    let refuse = |text: &str| {
        console.error(text);
        Refused
    };
    let read = outputs.secrets.as_deref().map(SecretStore::read).transpose();
    let store = read.map_err(|why| refuse(&format!("error: {why}")))?.unwrap_or_default();
    let actions = documents.iter().flat_map(|checked| &checked.document.actions);
    let tests: Vec<_> = actions.filter(|action| TESTS.contains(&action.name.as_str())).collect();
    let missing: Vec<Fault> = tests.iter().flat_map(|test| store.all_missing(&test.source, &test.pointer)).collect();
    if !missing.is_empty() {
        for fault in &missing {
            console.error(&fault.to_string());
        }
        return Err(Refused);
    }
    if tests.iter().any(|test| secrets::uses_secrets(&test.source))
        && let Some((message, help)) = secrets::open_to_others(&global.cluster())
    {
        return Err(refuse(&format!("error: {message}\n help: {help}")));
    }
    Ok(store)
}

/// Documents have faults, and they have been printed.
struct Refused;

/// Documents under way.
struct Session {
    app: App,
    /// Where it is looked at while it goes on.
    server: Option<Server>,
    /// What went wrong beside the runs' own verdicts.
    failures: Vec<String>,
    code: u8,
    /// For `--results`.
    lines: String,
}

impl Session {
    async fn run(&mut self, document: &Document, shown: bool) {
        let outcomes = self.app.execute(document).await;
        if shown {
            self.app.console.print(&records::text(&outcomes));
        }
        for outcome in outcomes {
            for (place, error) in outcome.errors() {
                self.failures.push(format!("{place} failed: {error}"));
                self.code = exit::worse(self.code, error.exit_code);
            }
            writeln!(self.lines, "{}", records::line(&outcome)).expect("writing to a String cannot fail");
        }
    }

    fn failed(&mut self, what: &str, error: &CommandError) {
        let text = format!("{what} failed: {error}");
        let help = error.help.as_ref().map(|help| format!("\n help: {help}")).unwrap_or_default();
        self.app.console.error(&format!("error: {text}{help}"));
        self.failures.push(text);
        self.code = exit::worse(self.code, error.exit_code);
    }

    /// Writes what was asked for and closes the cluster. Returns the exit code.
    async fn finish(mut self, outputs: &Outputs) -> u8 {
        if self.app.ended_by_user() {
            self.code = exit::worse(self.code, exit::ENDED_BY_USER);
        }
        self.write_reports(outputs);
        if let Some(path) = &outputs.results {
            if path == Path::new("-") {
                self.app.console.lines(&self.lines);
            } else if let Err(error) = files::write(path, self.lines.as_bytes()) {
                self.failed("writing --results", &CommandError::of("OSError", &error));
            }
        }
        let code = self.verdict().exit_code;
        let exporters = self.app.end_exporters().await;
        if let Some(server) = self.server.take() {
            server.close().await;
        }
        // workers need not wait for whoever scrapes
        tokio::join!(exporters.finished(), self.app.cluster.close());
        code
    }

    fn write_reports(&mut self, outputs: &Outputs) {
        // the summary last: it then says if the other could not be written
        for (format, path) in [("html", &outputs.files.html), ("summary", &outputs.files.summary)] {
            let Some(path) = path else { continue };
            let line = report::named(format).expect("the table has these formats");
            match line.write_to(&self.app.findings_of_all(self.verdict()), path) {
                Ok(()) => self.app.console.note(&format!("wrote {}", path.display())),
                Err(error) => self.failed(&format!("writing --{format}"), &CommandError::of(error.kind(), &error)),
            }
        }
    }

    /// On everything: each run's verdict, and failed actions.
    fn verdict(&self) -> Verdict {
        let state = self.app.state();
        let code = state.runs.own.iter().map(|run| run.verdict.exit_code).fold(self.code, exit::worse);
        let reasons = state.runs.own.iter().flat_map(|run| run.verdict.reasons.clone());
        let thresholds = state.runs.own.iter().flat_map(|run| run.verdict.thresholds.clone()).collect();
        Verdict::new(code, self.failures.iter().cloned().chain(reasons).collect(), thresholds)
    }
}
