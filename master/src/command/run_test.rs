//! `LD_start_test`: compiles the test and runs it to its end.

use super::{Command, CommandError, Resume, refused};
use crate::app::App;
use crate::cluster::{Cluster, ClusterError, ClusterOptions, join};
use crate::command::start_test::{self, CompileContext, Compiled, Runner, StartTest};
use crate::run::verdict::exit;
use crate::script::CommandSpec;
use crate::web::Server;
use ld_worker::membership::Exit;
use serde_json::Value;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

impl Command for StartTest {
    const SPEC: CommandSpec = start_test::SPEC;
    const ABOUT: &'static str = "Runs a load test to its end";
    const RESUME: Resume = Resume::Attach;
    /// The arguments that it ran with, as the seed returns them.
    type Output = Value;

    async fn run(self, app: &App) -> Result<Value, CommandError> {
        let outcome = self.outcome();
        let page = match self.web() {
            Some((host, port)) => served(host, *port, app).await?,
            None => None,
        };
        let ran = Box::pin(self.run_where_it_says(app)).await;
        if let Some(page) = page {
            page.close().await;
        }
        ran.map(|()| outcome)
    }
}

impl StartTest {
    async fn run_where_it_says(self, app: &App) -> Result<(), CommandError> {
        match self.runner().clone() {
            Runner::Local => {
                app.run_test(compiled(self, app)?).await?;
            }
            Runner::Master { bind, workers } => {
                let test = compiled(self, app)?;
                Box::pin(run_as_master(bind, workers, test, app)).await?;
            }
            Runner::Worker { master } => run_as_worker(&self, master, app).await?,
        }
        Ok(())
    }
}

/// The HTTP API for the time of a test.
async fn served(host: &str, port: u16, app: &App) -> Result<Option<Server>, CommandError> {
    let Some(mut options) = app.state().web_of_tests.clone() else {
        app.console
            .note("warning: `web_ui_dict` has no effect: how this process was started says where the API is served");
        return Ok(None);
    };
    options.names.push(host.to_owned());
    let address = address_of(host, port).await;
    let started =
        address.and_then(TcpListener::bind).and_then(|listener| Server::start(listener, app.clone(), options));
    let server = started.map_err(|error| {
        let message = format!("cannot serve the HTTP API at {host}:{port}, as `web_ui_dict` says: {error}");
        CommandError { exit_code: exit::NOT_RUN, ..CommandError::failed("OSError", message) }
    })?;
    app.console.notes(&server.notes());
    Ok(Some(server))
}

async fn address_of(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host((host, port)).await?;
    found.next().ok_or_else(|| io::Error::other("it has no address"))
}

/// The test with its files read.
fn compiled(test: StartTest, app: &App) -> Result<Compiled, CommandError> {
    let (variables, sources, secrets) = {
        let state = app.state();
        (state.variables.clone(), state.sources.values().cloned().collect::<Vec<_>>(), state.secrets.clone())
    };
    let context = CompileContext {
        pointer: "",
        variables: &variables,
        sources: &sources,
        env: &|name| app.environment(name),
        secrets: &secrets,
        files: &app.files(),
        seed: rand::random(),
    };
    // faults that show only now, like a file that is missing: the action fails, later ones run
    start_test::compile(test, &context).map_err(|faults| refused("ValueError", faults))
}

/// Runs a test on workers that join for it.
async fn run_as_master(
    (host, port): (String, u16),
    workers: u32,
    test: Compiled,
    app: &App,
) -> Result<(), CommandError> {
    if let Some(address) = app.cluster.bound_addr() {
        let seen = format!("workers join at {address}, as the command line says");
        app.console.note(&format!("warning: `runner_mode` `master` has no effect: {seen}"));
        app.run_test(test).await?;
        return Ok(());
    }
    let address = address_of(&host, port).await.map_err(|error| {
        let message = format!("cannot listen for workers on {host}:{port}: {error}");
        CommandError { exit_code: exit::NOT_RUN, ..CommandError::failed("OSError", message) }
    })?;
    let options = ClusterOptions {
        bind: Some(address),
        local_cores: None,
        expected_workers: workers,
        ..app.cluster.options().clone()
    };
    let cluster = Arc::new(Cluster::open(options).await.map_err(|error| not_opened(&error))?);
    app.console.note(&format!("listening for workers on {address}"));
    app.console.notes(&cluster.notes());
    let outcome = Box::pin(app.run_test_on(&cluster, test)).await;
    // goodbye: workers end
    cluster.close().await;
    outcome.map(drop)
}

fn not_opened(error: &ClusterError) -> CommandError {
    let failed = CommandError { exit_code: exit::NOT_RUN, ..CommandError::of("OSError", error) };
    CommandError { help: error.help(), ..failed }
}

/// Makes load for another master until it says goodbye.
async fn run_as_worker(test: &StartTest, (host, port): (String, u16), app: &App) -> Result<(), CommandError> {
    let master = format!("{host}:{port}");
    for warning in test.warnings() {
        app.console.note(&format!("warning: {warning}"));
    }
    app.console.note(&format!(
        "warning: joining the master at {master} as a worker: its plan counts, the tasks and the load given here do not"
    ));
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = app.cluster.options().local_cores.unwrap_or(all);
    let ended = join::join(master, cores, &app.cluster.options().security, app.later_signals()).await;
    let failed = |message: String, exit_code| {
        Err(CommandError { exit_code, ..CommandError::failed("ConnectionError", message) })
    };
    match ended {
        Ok(Exit::Done(text)) => {
            app.console.note(&text);
            Ok(())
        }
        Ok(Exit::Interrupted) => failed("ended by the user while it made load".into(), exit::ENDED_BY_USER),
        Ok(Exit::Failed(text)) => failed(text, exit::NOT_RUN),
        Err(error) => failed(format!("cannot start: {error}"), exit::NOT_RUN),
    }
}
