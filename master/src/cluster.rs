//! The cluster: workers that make load, and the runs over them.
//!
//! What decides is pure: [`membership`] (who is there), [`coordinator`] (one run), [`assign`] (who
//! makes what), [`handover`] (how parts change hands), [`ledger`] (what was measured), [`loss`] (what
//! nobody will know), [`promises`] (what waits for the journal). The shell is thin:
//! `driver` (one thread that owns them), `port` and `service` (gRPC, on other threads), `local` (the worker in this
//! process).

pub mod assign;
pub mod coordinator;
mod door;
mod driver;
mod greeter;
pub mod handover;
pub mod join;
pub mod ledger;
mod local;
pub mod loss;
pub mod membership;
mod port;
pub mod promises;
pub mod rule_watch;
pub mod security;
mod service;
pub mod throttles;
pub mod view;

pub use coordinator::{ChangeError, RunError};
pub use security::{Security, SecurityError, TlsMode};

use crate::journal::{JournalOrder, Unfinished};
use crate::record_file::LineSink;
use crate::run::{Measured, Progress, attic};
use bytes::Bytes;
use driver::{Driver, Input, Received, RunRequest};
use ld_shared::handshake::Fingerprint;
use ld_shared::id::{Digest, RunId};
use ld_shared::load::What;
use ld_shared::plan::Plan;
use ld_shared::threshold::Threshold;
use ld_worker::engine::Engine;
use ld_worker::link::LoadMaker;
use ld_worker::link::socket::Listen;
use port::Port;
use security::Credentials;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use view::{Look, View};

/// Connections that wait to be accepted: all workers of a large cluster dial at once when a master comes back.
const BACKLOG: i32 = 4096;

/// What a cluster is made from.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where workers join; `None`: no port, only the worker in this process.
    pub bind: Option<SocketAddr>,
    /// Load cores of a worker in this process; `None`: there is none.
    pub local_cores: Option<usize>,
    /// Workers that a run waits for. Without a port it is one.
    pub expected_workers: u32,
    /// How long a run waits for them.
    pub wait: Duration,
    /// What the port is protected by. Without a port it is of no matter.
    pub security: Security,
}

/// What to run.
#[derive(Debug)]
pub struct RunOrder {
    /// Its id; a run that is taken up keeps the one that it has.
    pub run: RunId,
    /// The plan.
    pub plan: Arc<Plan>,
    /// Digest of its canonical JSON.
    pub digest: Digest,
    /// Its blobs by digest: data rows, certificates.
    pub blobs: BTreeMap<Digest, Bytes>,
    /// Rules that are judged while it runs; one that aborts ends it.
    pub thresholds: Vec<Threshold>,
    /// Start with those workers that are there when the wait is over.
    pub allow_missing_workers: bool,
    /// One worker is enough: start with whoever is there.
    pub any_worker: bool,
    /// Where every request of the main phase goes, if the plan asks for that.
    pub lines: Option<LineSink>,
    /// Its journal; `None`: it dies with the process.
    pub journal: Option<JournalOrder>,
    /// The run of another master that is taken up instead of a new one.
    pub resumes: Option<Box<Unfinished>>,
}

/// How a run can be ended early. Cancelling is final.
#[derive(Clone, Debug, Default)]
pub struct RunControl {
    /// Start nothing more, let open requests finish.
    pub stop: CancellationToken,
    /// Cut open requests off.
    pub abort: CancellationToken,
}

/// Why a cluster cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The port for workers is not to be had.
    #[error("cannot listen for workers on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine gives no thread.
    #[error("cannot start the coordinator's thread")]
    Thread(#[source] io::Error),
    /// The port cannot be protected as it should be.
    #[error("cannot let workers join")]
    Security(#[from] SecurityError),
}

impl ClusterError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program, perhaps another ld-master, has that port: choose another with --bind".into())
            }
            Self::Security(error) => error.help(),
            Self::Bind { .. } | Self::Thread(_) => None,
        }
    }
}

/// A cluster that is open: several runs may go over it, one after another.
#[derive(Debug)]
pub struct Cluster {
    inputs: mpsc::Sender<Input>,
    options: ClusterOptions,
    bound: Option<SocketAddr>,
    fingerprint: Option<Fingerprint>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Cluster {
    /// Opens a cluster: binds its port and starts the worker in this process, as far as options ask for them.
    pub async fn open(options: ClusterOptions) -> Result<Self, ClusterError> {
        Self::open_with::<Engine>(options).await
    }

    /// [`Self::open`] with another maker of load in this process.
    #[expect(clippy::unused_async, reason = "opening is I/O; callers must not depend on it being quick")]
    pub async fn open_with<L: LoadMaker>(options: ClusterOptions) -> Result<Self, ClusterError> {
        let (ways, received) = driver::inputs();
        let inputs = ways.first.clone();
        let kept = options.clone();
        // before the port: nobody finds it open and unprotected
        let credentials = match options.bind {
            Some(_) => Credentials::load(&options.security)?,
            None => Credentials::of_nobody(),
        };
        if let Some(folder) = &options.security.data_dir {
            attic::open(folder);
        }
        let fingerprint = credentials.acceptor.as_ref().map(|_| credentials.fingerprint);
        let key = credentials.key.clone();
        let bound = |address| {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            socket2::SockRef::from(&listener).listen(BACKLOG)?;
            Ok((listener.local_addr()?, Port::open(listener, credentials, ways)?))
        };
        let port = options
            .bind
            .map(|address| bound(address).map_err(|source: io::Error| ClusterError::Bind { address, source }));
        let (bound, port) = port.transpose()?.unzip();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClusterError::Thread)?;
        let mut threads = Vec::new();
        if let Some(cores) = options.local_cores {
            let worker = local::spawn::<L>(
                cores,
                ld_worker::limits::load_files(),
                options.security.targets.clone(),
                inputs.clone(),
            );
            let worker = worker.map_err(ClusterError::Thread)?;
            threads.push(std::thread::spawn(move || drop(worker.join())));
        }
        let driver = Driver::new(options, key, inputs.downgrade());
        let coordinator = std::thread::Builder::new().name("ld-coordinator".into());
        let coordinator = coordinator.spawn(move || runtime.block_on(Box::pin(drive(driver, received, port))));
        threads.push(coordinator.map_err(ClusterError::Thread)?);
        Ok(Self { inputs, options: kept, bound, fingerprint, threads: Mutex::new(threads) })
    }

    /// A cluster without a thread of its own, on a network of the caller's: for simulations. It lives while the
    /// future is run, which ends after [`Self::close`].
    pub fn simulated(
        options: ClusterOptions,
        listener: impl Listen,
    ) -> Result<(Self, impl Future<Output = ()>), ClusterError> {
        let (ways, received) = driver::inputs();
        let inputs = ways.first.clone();
        let credentials = Credentials::load(&options.security)?;
        let fingerprint = credentials.acceptor.as_ref().map(|_| credentials.fingerprint);
        let driver = Driver::new(options.clone(), credentials.key.clone(), inputs.downgrade());
        let driving = async move {
            let port = Port::open_on(&Handle::current(), listener, credentials, (ways, 1));
            Box::pin(drive(driver, received, Some(port))).await;
        };
        let cluster = Self { inputs, bound: options.bind, options, fingerprint, threads: Mutex::default() };
        Ok((cluster, driving))
    }

    /// What it was opened with.
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// Where workers join: the port that was really taken.
    pub fn bound_addr(&self) -> Option<SocketAddr> {
        self.bound
    }

    /// Fingerprint of the certificate that workers see; `None`: there is no port, or no TLS on it.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// What whoever starts workers must know: how they join, and what is open to whom.
    pub fn notes(&self) -> Vec<String> {
        let Some(bound) = self.bound else { return Vec::new() };
        let mut notes = Vec::new();
        let Security { token, client_ca, data_dir, .. } = &self.options.security;
        let master =
            if bound.ip().is_unspecified() { format!("THIS-HOST:{}", bound.port()) } else { bound.to_string() };
        match self.fingerprint {
            Some(fingerprint) => notes.push(format!(
                "workers join over TLS:\n  ld-worker --master {master} --ca-fingerprint {fingerprint}{}",
                if client_ca.is_some() { " --tls-cert CERT,KEY" } else { "" }
            )),
            None => notes.push(format!(
                "warning: --tls off: whoever sees the traffic of {bound} reads plans and results, and can change them; \
                 workers join by `ld-worker --master {master} --tls off`"
            )),
        }
        if self.fingerprint.is_some() && data_dir.is_none() && self.options.security.tls == TlsMode::Auto {
            notes.push(
                "warning: neither HOME nor --data-dir says where to keep the certificate: the next start has another"
                    .into(),
            );
        }
        match token {
            None if !bound.ip().is_loopback() && client_ca.is_none() => notes.push(format!(
                "warning: no token: anyone who reaches {bound} gets the plan, and may report results; \
                 give master and workers the same LD_TOKEN or --token-file"
            )),
            None => {}
            Some(token) => notes.extend(token.weakness().map(|weakness| format!("warning: {weakness}"))),
        }
        notes
    }

    /// Runs a plan over the workers. Ends in bounded time after a stop or an abort. Dropping the
    /// future aborts the run.
    pub async fn run(
        &self,
        order: RunOrder,
        control: RunControl,
        progress: watch::Sender<Arc<Progress>>,
    ) -> Result<Measured, RunError> {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(RunRequest { order, control, progress, reply });
        self.inputs.send(Input::Run(request)).await.map_err(|_| RunError::Closed)?;
        answer.await.map_err(|_| RunError::Closed)?
    }

    /// Changes the load of the run that goes on: users, rate, pause. It holds half a second from now,
    /// on every worker at one instant, and stands in the result's events as done `by` somebody.
    pub async fn change(&self, what: What, by: &str) -> Result<(), ChangeError> {
        let (reply, answer) = oneshot::channel();
        let input = Input::Change { what, by: by.to_owned(), reply };
        self.inputs.send(input).await.map_err(|_| ChangeError::NotRunning)?;
        answer.await.map_err(|_| ChangeError::NotRunning)?
    }

    /// What can be seen of it now. An empty view: it is closed.
    pub async fn look(&self, look: Look) -> View {
        let (reply, answer) = oneshot::channel();
        if self.inputs.send(Input::Look { look, reply }).await.is_err() {
            return View::default();
        }
        answer.await.unwrap_or_default()
    }

    /// Says goodbye to the workers, so that they end (unless `--stay`), and closes the port.
    /// Takes at most about three seconds.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.inputs.send(Input::Close(done)).await.is_ok() {
            // an error means that the thread has ended already
            drop(closed.await);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                drop(thread.join());
            }
        });
        drop(tokio::time::timeout(Duration::from_secs(1), joined).await);
    }
}

/// Runs the driver, then closes the port by which workers reached it.
async fn drive(driver: Driver, received: Received, port: Option<Port>) {
    driver.run(received).await;
    if let Some(port) = port {
        port.close().await;
    }
}
