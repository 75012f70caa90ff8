//! `serve`: stays up with the control socket.

use super::{Global, environment, open};
use crate::command::with_causes;
use crate::console::Console;
use crate::run::verdict::exit;
use crate::socket::{ControlSocket, Framing, Settings};
use clap::Args;
use ld_shared::handshake::Token;
use std::path::PathBuf;
use std::time::Duration;

/// How the control socket is served.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Name or address to listen on; localhost is IPv4 and IPv6
    #[arg(long, value_name = "HOST", default_value = "localhost", env = "LD_MASTER_SERVE_HOST")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 9940, env = "LD_MASTER_SERVE_PORT")]
    port: u16,
    /// Requests and reply lines with their length before them, instead of as they are
    #[arg(long, env = "LD_MASTER_SERVE_FRAMED")]
    framed: bool,
    /// What clients must know; else `LOAD_DENSITY_SOCKET_TOKEN`, else `LD_TOKEN`. Others see a flag: prefer those
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Certificate (PEM): clients must use TLS 1.2 or later
    #[arg(long, value_name = "CERT", env = "LD_MASTER_SERVE_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM)
    #[arg(long, value_name = "KEY", env = "LD_MASTER_SERVE_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// How long a client has to say what it wants; its document may take as long as it takes
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = ld_worker::cli::duration, env = "LD_MASTER_SERVE_TIMEOUT")]
    timeout: Duration,
}

pub(super) fn run(global: &Global, console: Console, serve: &Serve) -> u8 {
    let token = serve.token.as_deref().and_then(Token::new);
    let token = token.or_else(|| Token::new(&environment("LOAD_DENSITY_SOCKET_TOKEN")?)).or_else(|| global.token());
    open::with_app(global, global.cluster(), console, None, async |app, mut signals| {
        let settings = Settings {
            host: serve.host.clone(),
            port: serve.port,
            framing: if serve.framed { Framing::Prefixed } else { Framing::Raw },
            token,
            cert: serve.tls_cert.clone(),
            key: serve.tls_key.clone(),
            policy: app.state().policy.clone(),
            patience: serve.timeout,
            ..Settings::default()
        };
        let socket = match ControlSocket::open(app, settings).await {
            Ok(socket) => socket,
            Err(error) => {
                app.console.error(&format!("error: {}", with_causes(&error)));
                return if error.is_input() { exit::REFUSED } else { exit::NOT_RUN };
            }
        };
        app.console.notes(&socket.notes());
        let quit = socket.quit();
        let served = socket.serve();
        tokio::pin!(served);
        tokio::select! {
            () = &mut served => {}
            _ = signals.beyond(0) => {
                quit.cancel();
                served.await;
            }
        }
        app.console.note("control socket: shut down");
        app.end_jobs().await;
        exit::PASSED
    })
}
