//! `--web`: where the HTTP API is served.

use super::{Global, Web};
use crate::app::App;
use crate::command::with_causes;
use crate::remote::Access;
use crate::run::verdict::exit;
use crate::web::{Options, Server};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

/// Where a master that stays up serves it, unless a flag says otherwise.
pub(super) const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8089);

/// What the API of a master that runs documents of its command line says to whoever brings another.
pub(super) const BUSY: &str =
    "this master runs the documents of its command line and takes no others: start one without a document";

/// Serves the API where the flag says, else at `default`. `Err`: it cannot be, which has been told; the
/// exit code.
pub(super) fn serve(
    global: &Global,
    app: &App,
    default: Option<SocketAddr>,
    starts_nothing: Option<&'static str>,
) -> Result<Option<Server>, u8> {
    let cannot = |text: &str, code| {
        app.console.error(&format!("error: {text}"));
        code
    };
    let options = match options(global, starts_nothing) {
        Ok(options) => options,
        Err(error) => return Err(cannot(&format!("cannot tell the working folder: {error}"), exit::NOT_RUN)),
    };
    let address = match global.web {
        Some(Web::Off) => return Ok(None),
        Some(Web::At(address)) => address,
        None => {
            let Some(default) = default else {
                // a test may ask for one by `web_ui_dict`
                app.state().web_of_tests = Some(options);
                return Ok(None);
            };
            default
        }
    };
    let served = TcpListener::bind(address).and_then(|listener| Server::start(listener, app.clone(), options));
    let server = served.map_err(|error| {
        let help = "\n help: choose another place with --web, or --web off";
        cannot(&format!("cannot serve the HTTP API at {address}: {}{help}", with_causes(&error)), exit::NOT_RUN)
    })?;
    app.console.notes(&server.notes());
    Ok(Some(server))
}

fn options(global: &Global, starts_nothing: Option<&'static str>) -> std::io::Result<Options> {
    Ok(Options {
        access: Access { token: global.token(), viewer: Global::viewer_token() },
        policy: Arc::new(global.policy()?),
        starts_nothing,
        names: Vec::new(),
        expected_workers: global.expected_workers,
    })
}
