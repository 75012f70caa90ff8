//! The port for workers, on threads of its own: TLS, gRPC and the decoding of what workers send are most of what a
//! large cluster costs its master, and need nothing of what the coordinator owns.

use super::driver::Inputs;
use super::security::Credentials;
use super::service;
use ld_worker::link::socket::Listen;
use std::io;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// With so many the coordinator's one thread is what is full first.
const MOST_THREADS: usize = 4;
/// How long the last words to workers may take; streams of those that do not go are cut.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// A port that is open.
pub(super) struct Port {
    stop: CancellationToken,
    serving: JoinHandle<()>,
    /// Dropped last.
    _threads: Threads,
}

/// Threads of its own, or `None`: it runs on its opener's.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // waiting is not allowed where ports are closed
            runtime.shutdown_background();
        }
    }
}

impl Port {
    /// Lets workers in by `listener`, on threads of its own.
    pub(super) fn open(listener: std::net::TcpListener, credentials: Credentials, inputs: Inputs) -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("ld-port")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let runtime = Threads(Some(runtime));
        let listener = {
            let _within = handle.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        // one thread is left for beats
        let decoding = (threads - 1).max(1);
        Ok(Self { _threads: runtime, ..Self::open_on(&handle, listener, credentials, (inputs, decoding)) })
    }

    /// Lets workers in by `listener`, on the threads of `runtime`; so many of their measurements are decoded at once.
    pub(super) fn open_on(
        runtime: &Handle,
        listener: impl Listen,
        credentials: Credentials,
        (inputs, decoding): (Inputs, usize),
    ) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = runtime.spawn(async move {
            if let Err(error) = service::serve(listener, credentials, (inputs, decoding), stopped.cancelled()).await {
                tracing::error!("serving workers ended: {error}");
            }
        });
        Self { stop, serving, _threads: Threads(None) }
    }

    /// Takes nobody more, and lets last words get through.
    pub(super) async fn close(self) {
        self.stop.cancel();
        drop(tokio::time::timeout(CLOSE_WITHIN, self.serving).await);
    }
}
