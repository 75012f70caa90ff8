//! The embedded truth target: an HTTP/1.1 server that answers with a stated latency law, and logs
//! and counts what arrived. What a run reports is held against it.
//!
//! It runs on threads of its own, so that a load generator in the same process shares none of its
//! runtimes with it.

mod args;
mod law;
mod ledger;
mod log;
mod server;
mod tls;

pub use args::{TargetArgs, run};
pub use law::{Law, ParseError, Stall, parse_duration};
pub use ledger::{Arrival, Counts, Held};

use bytes::Bytes;
use ld_shared::boot::clock;
use ledger::Ledger;
use log::Log;
use server::Server;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// How a target behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Delay of answers.
    pub latency: Law,
    /// Spans without answers.
    pub stalls: Vec<Stall>,
    /// Share of requests answered with 503, 0..=1.
    pub fail: f64,
    /// Share of requests whose connection is reset instead of an answer, 0..=1.
    pub reset: f64,
    /// Size of answers in bytes.
    pub body_bytes: usize,
    /// Requests after which a connection is closed.
    pub close_after: Option<u64>,
    /// Clients that wait longer, and how much.
    pub slow_clients: Vec<(IpAddr, Duration)>,
    /// Log of arrivals.
    pub log: Option<PathBuf>,
    /// Log of answers.
    pub answers: Option<PathBuf>,
    /// Speaks TLS, with a certificate made at start.
    pub tls: bool,
    /// Keeps every arrival for [`Target::arrivals`]; takes about 150 bytes each.
    pub keep_arrivals: bool,
    /// Seed of the latency law.
    pub seed: u64,
    /// Threads; 0: one a core.
    pub threads: usize,
}

impl Default for Options {
    /// Answers at once, on a free port of 127.0.0.1.
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            latency: Law::Zero,
            stalls: Vec::new(),
            fail: 0.0,
            reset: 0.0,
            body_bytes: 2,
            close_after: None,
            slow_clients: Vec::new(),
            log: None,
            answers: None,
            tls: false,
            keep_arrivals: false,
            seed: 1,
            threads: 0,
        }
    }
}

/// Why a target could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A log that cannot be created or written.
    #[error("cannot write the log {}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No threads or no certificate.
    #[error("cannot start the target")]
    Start(#[source] io::Error),
}

/// A running target. Dropping it stops it; only [`Target::stop`] tells whether its logs are complete.
pub struct Target {
    addresses: Vec<SocketAddr>,
    certificate: Option<String>,
    server: Arc<Server>,
    runtime: Option<Runtime>,
    logs: Vec<(PathBuf, Log)>,
}

impl Target {
    /// Listens, then returns. Must not be called from a task: the sockets belong to its own runtime.
    pub fn start(options: Options) -> Result<Self, TargetError> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if options.threads > 0 {
            runtime.worker_threads(options.threads);
        }
        let runtime = runtime.thread_name("target").enable_all().build().map_err(TargetError::Start)?;
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for &address in &options.listen {
            let fail = |source| TargetError::Listen { address, source };
            let listener = listen(&runtime, address).map_err(fail)?;
            addresses.push(listener.local_addr().map_err(fail)?);
            listeners.push(listener);
        }
        let mut logs = Vec::new();
        let mut open = |path: &Option<PathBuf>| -> Result<Option<log::Lines>, TargetError> {
            let Some(path) = path.clone() else { return Ok(None) };
            let log = Log::create(&path).map_err(|source| TargetError::Log { path: path.clone(), source })?;
            let lines = log.lines();
            logs.push((path, log));
            Ok(Some(lines))
        };
        let (arrivals, answers) = (open(&options.log)?, open(&options.answers)?);
        let (tls, certificate) = if options.tls {
            let ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
            let (config, pem) = tls::self_signed(&ips).map_err(TargetError::Start)?;
            (Some(config.into()), Some(pem))
        } else {
            (None, None)
        };
        let server = Arc::new(Server {
            ledger: Mutex::new(Ledger::new(options.keep_arrivals)),
            started: clock::mono(),
            arrivals,
            answers,
            tls,
            body: Bytes::from(vec![b'x'; options.body_bytes]),
            options,
        });
        for listener in listeners {
            runtime.spawn(Arc::clone(&server).accept(listener));
        }
        Ok(Self { addresses, certificate, server, runtime: Some(runtime), logs })
    }

    /// The first address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses it listens on, in the order of [`Options::listen`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its certificate as PEM, if it speaks TLS.
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// What arrived so far.
    pub fn counts(&self) -> Counts {
        self.server.ledger().counts()
    }

    /// Every arrival so far, in order; none unless [`Options::keep_arrivals`].
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.server.ledger().arrivals()
    }

    /// Closes all connections, completes the logs, and returns what arrived. Blocks for at most a
    /// second; not from a task.
    pub fn stop(mut self) -> Result<Counts, TargetError> {
        self.halt();
        for (path, log) in std::mem::take(&mut self.logs) {
            log.finish().map_err(|source| TargetError::Log { path, source })?;
        }
        Ok(self.counts())
    }

    fn halt(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(runtime: &Runtime, address: SocketAddr) -> io::Result<TcpListener> {
    let _entered = runtime.enter();
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}
