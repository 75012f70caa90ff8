//! This process as a worker of another master.

use super::security::{Security, TlsMode};
use ld_shared::message::{Hello, PROTOCOL_VERSION};
use ld_worker::engine::Engine;
use ld_worker::limits::load_files;
use ld_worker::link;
use ld_worker::link::grpc::{Credentials, GrpcDial};
use ld_worker::link::socket::Tcp;
use ld_worker::membership::{Exit, Options};
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a master may be silent, or not there yet.
const MASTER_TIMEOUT: Duration = Duration::from_mins(1);

/// Joins the master at `HOST:PORT` and makes load for it until it says goodbye. Each of `requests`
/// asks it to end, the second time at once. Of `security` it takes the token, the
/// targets, and whether there is TLS.
///
/// # Errors
///
/// The machine gives no thread.
pub async fn join(master: String, cores: usize, security: &Security, requests: mpsc::Receiver<()>) -> io::Result<Exit> {
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        build: concat!("ld-master ", env!("CARGO_PKG_VERSION")).into(),
        name: ld_worker::cli::host_name(),
        cores: cores as u32,
        returning: None,
    };
    let options = Options {
        hello,
        capacity: load_files(),
        stay: false,
        master_timeout: MASTER_TIMEOUT,
        master: master.clone(),
        targets: security.targets.clone(),
        spool: None,
    };
    let first = Credentials::first_use();
    let tls = first.tls.filter(|_| security.tls != TlsMode::Off);
    let dial = GrpcDial { master, credentials: Credentials { tls, token: security.token.clone() }, connect: Tcp };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, exit) = oneshot::channel();
    std::thread::Builder::new().name("ld-link".into()).spawn(move || {
        let exit = runtime.block_on(link::run::<Engine>(options, dial, requests, link::unwatched()));
        runtime.shutdown_background();
        // nobody waits any more if the process ends
        drop(done.send(exit));
    })?;
    exit.await.map_err(|_| io::Error::other("the thread of the worker ended"))
}
