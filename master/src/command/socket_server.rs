//! `LD_start_socket_server`: the control socket from within a document.

use super::{Command, CommandError, Resume};
use crate::app::App;
use crate::remote::Policy;
use crate::script::{CommandSpec, Kind, Parameter};
use crate::socket::{ControlSocket, Framing, Settings};
use ld_shared::handshake::Token;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Serves the control socket until a client asks for its end, or the user does.
#[derive(Deserialize)]
pub(super) struct StartSocketServer {
    #[serde(default = "localhost")]
    host: String,
    #[serde(default = "port")]
    port: u16,
    #[serde(default)]
    framed: bool,
    token: Option<String>,
    certfile: Option<PathBuf>,
    keyfile: Option<PathBuf>,
}

impl Command for StartSocketServer {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_start_socket_server",
        parameters: &[
            Parameter::new("host", Kind::Text)
                .about("Address or name to listen at (localhost); a name: all of its addresses"),
            Parameter::new("port", Kind::Integer).about("Port (9940)"),
            Parameter::new("framed", Kind::Boolean)
                .about("true: requests and replies have a length of 4 bytes before them"),
            Parameter::new("token", Kind::OrNull(&Kind::Text)).about("What clients must know"),
            Parameter::new("certfile", Kind::OrNull(&Kind::Text)).file().about("Certificate in PEM: then it is TLS"),
            Parameter::new("keyfile", Kind::OrNull(&Kind::Text)).file().about("Its private key in PEM"),
        ],
        check: None,
    };
    const ABOUT: &'static str = "Serves the control socket until a client sends quit, or Ctrl-C";
    const RESUME: Resume = Resume::Replay;
    // it would wait for itself: documents from outside run one at a time
    const OPEN: bool = false;
    type Output = Value;

    async fn run(self, app: &App) -> Result<Value, CommandError> {
        let (policy, token) = {
            let state = app.state();
            (state.policy.clone(), state.token.clone())
        };
        let policy = match policy {
            Some(policy) => policy,
            None => Arc::new(Policy::narrow(std::env::current_dir().map_err(|e| CommandError::of("OSError", &e))?)),
        };
        let settings = Settings {
            host: self.host,
            port: self.port,
            framing: if self.framed { Framing::Prefixed } else { Framing::Raw },
            token: self.token.as_deref().and_then(Token::new).or(token),
            cert: self.certfile,
            key: self.keyfile,
            policy: Some(policy),
            ..Settings::default()
        };
        let socket = ControlSocket::open(app, settings).await.map_err(|error| CommandError::of("OSError", &error))?;
        app.console.notes(&socket.notes());
        let addresses: Vec<String> = socket.addresses().iter().map(ToString::to_string).collect();
        let quit = socket.quit();
        let mut signals = app.later_signals();
        let served = socket.serve();
        tokio::pin!(served);
        tokio::select! {
            () = &mut served => {}
            _ = signals.recv() => {
                quit.cancel();
                served.await;
            }
        }
        app.console.note("control socket: shut down");
        Ok(json!({"status": "stopped", "addresses": addresses}))
    }
}

fn localhost() -> String {
    Settings::default().host
}

fn port() -> u16 {
    Settings::default().port
}
