//! An app: for a document, and for those who come from outside (`serve`, `mcp`).

use super::{Global, session, web};
use crate::app::App;
use crate::cluster::{Cluster, ClusterOptions};
use crate::command::with_causes;
use crate::console::Console;
use crate::run::verdict::exit;
use ld_shared::boot::signal::Signals;
use std::net::SocketAddr;
use std::sync::Arc;

/// An app with its cluster and its store. `Err`: one cannot be opened, which has been told; the exit code.
pub(super) async fn app(
    global: &Global,
    options: ClusterOptions,
    console: Console,
    signals: Signals,
) -> Result<App, u8> {
    let history = session::history(global, &console).await.map_err(|error| {
        console.error(&format!("error: {error}"));
        exit::NOT_RUN
    })?;
    let cluster = Cluster::open(options).await.map_err(|error| {
        let help = error.help().map(|help| format!("\n help: {help}")).unwrap_or_default();
        console.error(&format!("error: {}{help}", with_causes(&error)));
        exit::NOT_RUN
    })?;
    console.notes(&cluster.notes());
    Ok(App::new(cluster, console, signals, history))
}

/// Opens cluster and store, does `work` on an app, and says goodbye to the workers. Without a flag the API
/// is served at `web`, if anywhere.
pub(super) fn with_app(
    global: &Global,
    options: ClusterOptions,
    console: Console,
    web: Option<SocketAddr>,
    work: impl AsyncFnOnce(&App, Signals) -> u8,
) -> u8 {
    let policy = match global.policy() {
        Ok(policy) => policy,
        Err(error) => {
            console.error(&format!("error: cannot tell the working folder, below which files must lie: {error}"));
            return exit::NOT_RUN;
        }
    };
    session::block_on(&Console::new(global.quiet), async |signals| {
        let app = match app(global, options, console, signals.clone()).await {
            Ok(app) => app,
            Err(code) => return code,
        };
        {
            let mut state = app.state();
            state.policy = Some(Arc::new(policy));
            state.token = global.token();
        }
        if let Err(code) = session::start_exporters(global, &app).await {
            app.close().await;
            return code;
        }
        let code = match web::serve(global, &app, web, None) {
            Ok(server) => {
                let code = work(&app, signals).await;
                if let Some(server) = server {
                    server.close().await;
                }
                code
            }
            Err(code) => code,
        };
        let exporters = app.end_exporters().await;
        tokio::join!(exporters.finished(), app.cluster.close());
        code
    })
}
