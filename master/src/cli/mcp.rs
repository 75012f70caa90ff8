//! `mcp`: tools for assistants over stdin and stdout.

use super::{Global, environment, open};
use crate::console::Console;
use crate::mcp::Server;
use crate::run::verdict::exit;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

/// How assistants are served.
#[derive(Args, Debug)]
pub(super) struct Mcp {
    /// Files that assistants name lie below it; else `JE_LOAD_DENSITY_MCP_ROOT`, else the working folder
    #[arg(long, value_name = "DIR", env = "LD_MASTER_MCP_ROOT")]
    root: Option<PathBuf>,
    /// Log of every call, JSON lines; without it mcp-audit.jsonl in the data folder
    #[arg(long, value_name = "FILE", env = "LD_MASTER_MCP_AUDIT")]
    audit: Option<PathBuf>,
}

pub(super) fn run(global: &Global, console: Console, mcp: &Mcp) -> u8 {
    // stdout is the protocol's alone
    let console = console.with_lines_on_stdout();
    let root = mcp.root.clone().or_else(|| environment("JE_LOAD_DENSITY_MCP_ROOT").map(PathBuf::from));
    let audit = mcp.audit.clone().or_else(|| global.data_dir().map(|dir| dir.root().join("mcp-audit.jsonl")));
    open::with_app(global, global.cluster(), console, None, async |app, mut signals| {
        if audit.is_none() {
            app.console.note("warning: calls are not written down: neither HOME, --data-dir nor --audit says where");
        }
        let mut policy = app.state().policy.as_deref().cloned();
        if let (Some(policy), Some(root)) = (&mut policy, root) {
            policy.root = root;
        }
        let server = match Server::new(app, policy.map(Arc::new), audit) {
            Ok(server) => server,
            Err(error) => {
                app.console.error(&format!("error: cannot write the log of calls: {error}"));
                return exit::NOT_RUN;
            }
        };
        let ending = server.ending();
        let serving = server.serve(tokio::io::stdin(), tokio::io::stdout());
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            _ = signals.beyond(0) => {
                ending.cancel();
                serving.await
            }
        };
        match served {
            Ok(()) => exit::PASSED,
            Err(error) => {
                app.console.error(&format!("error: {error}"));
                exit::NOT_RUN
            }
        }
    })
}
