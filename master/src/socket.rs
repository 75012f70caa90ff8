//! The control socket: documents over TCP, one a connection, as IDEs send them to the seed.
//!
//! The bytes are the seed's (framing, envelope, values in Python notation, end line, refusals); what
//! was wrong with it is not: a silent client has [`Settings::patience`], clients do not wait for each
//! other's words, refusals are read before the connection closes, the port is free again at once.
//! Documents of all clients, and of other surfaces, run one at a time in the order in which they came.
//! `docs/control-socket.md` tells clients all of it.

mod client;
pub mod framing;
mod listen;
mod protocol;
pub mod reply;

pub use framing::Framing;

use crate::app::App;
use crate::remote::Policy;
use ld_shared::boot::task;
use ld_shared::handshake::Token;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a client has to say what it wants.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Clients at once.
const MOST_CLIENTS: usize = 1_000;
/// Clients at once that are told that there are too many.
const MOST_TURNED_AWAY: usize = 64;
/// Documents at once in the queue that all surfaces share.
const PLACES: usize = 16;
/// After an error of `accept`, as of too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// How the control socket is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name or address to listen on; `localhost` is IPv4 and IPv6.
    pub host: String,
    /// Port; 0 is a free one.
    pub port: u16,
    /// How requests and replies are framed.
    pub framing: Framing,
    /// What clients must know; `None`: nothing.
    pub token: Option<Token>,
    /// Certificate, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// What documents may do; `None`: everything.
    pub policy: Option<Arc<Policy>>,
    /// How long a client has to say what it wants. Its document may take as long as it takes.
    pub patience: Duration,
    /// Clients at once.
    pub most_clients: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 9940,
            framing: Framing::Raw,
            token: None,
            cert: None,
            key: None,
            policy: None,
            patience: PATIENCE,
            most_clients: MOST_CLIENTS,
        }
    }
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The address is not to be had.
    #[error("cannot serve the control socket on {host}:{port}")]
    Listen {
        /// Host asked for.
        host: String,
        /// Port asked for.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// TLS wants two files.
    #[error("TLS of the control socket has a {given}, but no {missing}: both are needed, or neither")]
    HalfTls {
        /// What was given.
        given: &'static str,
        /// What was not.
        missing: &'static str,
    },
    /// A file of TLS is not usable.
    #[error("cannot use `{}` for TLS of the control socket", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SocketError {
    /// Whether other flags would do.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::HalfTls { .. } | Self::Certificate { .. })
    }
}

/// A control socket that listens.
pub struct ControlSocket {
    listeners: Vec<TcpListener>,
    server: Arc<Server>,
}

/// What its clients share.
struct Server {
    app: App,
    settings: Settings,
    acceptor: Option<TlsAcceptor>,
    places: Semaphore,
    /// It is to end.
    quit: CancellationToken,
    /// Nobody listens any more.
    closed: CancellationToken,
}

impl ControlSocket {
    /// Listens.
    ///
    /// # Errors
    ///
    /// An address that is not to be had, files of TLS that are not usable.
    pub async fn open(app: &App, settings: Settings) -> Result<Self, SocketError> {
        let acceptor = listen::acceptor(settings.cert.as_deref(), settings.key.as_deref())?;
        let listeners = listen::listen(&settings.host, settings.port).await?;
        let server = Server {
            app: app.clone(),
            settings,
            acceptor,
            places: Semaphore::new(PLACES),
            quit: CancellationToken::new(),
            closed: CancellationToken::new(),
        };
        Ok(Self { listeners, server: Arc::new(server) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        // a bound socket has an address
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Ends it when cancelled: documents that run are drained.
    pub fn quit(&self) -> CancellationToken {
        self.server.quit.clone()
    }

    /// What to tell whoever starts it.
    pub fn notes(&self) -> Vec<String> {
        let Settings { token, framing, .. } = &self.server.settings;
        let tls = self.server.acceptor.is_some();
        let addresses = self.addresses();
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let how = [(*framing == Framing::Prefixed, "length-prefixed"), (tls, "TLS"), (token.is_some(), "token")];
        let how: Vec<&str> = how.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        let how = if how.is_empty() { String::new() } else { format!(" ({})", how.join(", ")) };
        let mut notes = vec![format!("control socket on {}{how}", shown.join(" and "))];
        if addresses.iter().any(|address| !address.ip().is_loopback()) {
            if token.is_none() {
                notes.push("warning: the control socket has no token: whoever reaches it may start tests; set --token or LD_TOKEN".into());
            }
            if !tls {
                notes.push("warning: the control socket has no TLS: documents and the token travel in the clear; set --tls-cert and --tls-key".into());
            }
        }
        notes
    }

    /// Serves until somebody asks for its end, and every client has its last reply.
    pub async fn serve(self) {
        let Self { listeners, server } = self;
        let doors: Vec<_> = listeners
            .into_iter()
            .map(|listener| task::spawn("control socket", take(listener, Arc::clone(&server))))
            .collect();
        let mut clients = Vec::with_capacity(doors.len());
        for door in doors {
            // a panic of ours is logged by its task
            clients.extend(door.await);
        }
        server.closed.cancel();
        for mut clients in clients {
            while clients.join_next().await.is_some() {}
        }
    }
}

/// Takes connections until the end; those that are still there then.
async fn take(listener: TcpListener, server: Arc<Server>) -> JoinSet<()> {
    let room = Arc::new(Semaphore::new(server.settings.most_clients));
    let away = Arc::new(Semaphore::new(MOST_TURNED_AWAY));
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.quit.cancelled() => return clients,
            // each that is over makes room in the set
            Some(_) = clients.join_next(), if !clients.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (tcp, from): (TcpStream, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot take a connection of the control socket: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let server = Arc::clone(&server);
        if let Ok(place) = Arc::clone(&room).try_acquire_owned() {
            clients.spawn(async move {
                client::attend(tcp, from, &server).await;
                drop(place);
            });
        } else if let Ok(place) = Arc::clone(&away).try_acquire_owned() {
            clients.spawn(async move {
                client::turn_away(tcp, &server).await;
                drop(place);
            });
        }
    }
}
