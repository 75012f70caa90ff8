//! The HTTP API: a surface, without logic of its own.
//!
//! One table ([`routes`]) says what there is: paths, values, bodies, answers, refusals. Requests are
//! checked by it, and the `OpenAPI` document and the page at `/` are made of it, so that nothing is
//! answered that is not told of. Before any route stands the [`guard`]; below it [`connection`] keeps
//! slow, silent and numerous clients from mattering.
//!
//! To add a route: a line in [`routes`], a function beside those that are there, and the schema of its
//! answer in [`schemas`] if there is none.

mod connection;
mod control;
mod field;
mod guard;
mod kept;
mod live;
mod look;
mod openapi;
mod page;
mod place;
mod problem;
mod reports;
mod route;
mod routes;
mod runs;
mod schemas;
mod session;

use crate::app::App;
use crate::remote::{Access, Policy};
use guard::Guard;
use ld_shared::boot::task;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How it is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may do what.
    pub access: Access,
    /// What documents that come this way may do.
    pub policy: Arc<Policy>,
    /// Why none are taken; `None`: they are.
    pub starts_nothing: Option<&'static str>,
    /// Names of this server, beside its addresses and `localhost`.
    pub names: Vec<String>,
    /// Workers without which it is not ready.
    pub expected_workers: u32,
}

/// Most live streams at once.
const MOST_READERS: usize = 64;

/// What routes stand on.
struct Web {
    app: App,
    options: Options,
    guard: Guard,
    readers: Arc<Semaphore>,
    /// A page of metrics copies all histograms: one at a time.
    scrape: tokio::sync::Mutex<()>,
    /// The process is about to end: streams say what there is to say.
    ending: CancellationToken,
}

/// The API, while it is served.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Nobody is asked for a token.
    is_open: bool,
    ending: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `app` on a bound listener. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// The listener cannot be used.
    pub fn start(listener: std::net::TcpListener, app: App, options: Options) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (ending, is_open) = (CancellationToken::new(), options.access.token.is_none());
        let guard = Guard::new(options.access.clone(), options.names.clone());
        let readers = Arc::new(Semaphore::new(MOST_READERS));
        let web = Arc::new(Web {
            app,
            options,
            guard,
            readers,
            scrape: tokio::sync::Mutex::default(),
            ending: ending.clone(),
        });
        let task = task::spawn("web", connection::serve(listener, web));
        Ok(Self { address, is_open, ending, task })
    }

    /// Where it is served: the port that was really taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What whoever started it must know: where it is, and what is open to whom.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!("HTTP API at http://{}/", self.address)];
        if !self.address.ip().is_loopback() {
            let warning = if self.is_open {
                "warning: no token: anyone who reaches the HTTP API starts and ends tests; set LD_TOKEN or --token-file"
            } else {
                "warning: the HTTP API is not encrypted: whoever sees its traffic reads the token; \
                 put a proxy with TLS before it"
            };
            notes.push(warning.to_owned());
        }
        notes
    }

    /// Lets requests end and live streams say how it went. Takes at most about two seconds.
    pub async fn close(self) {
        self.ending.cancel();
        // a task that panicked serves nothing any more
        drop(self.task.await);
    }
}
