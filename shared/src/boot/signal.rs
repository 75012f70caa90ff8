//! Ctrl-C and SIGTERM, counted: what the first and the second mean is the caller's to say.

use std::io;
use tokio::sync::watch;

/// How often the user has asked the process to end.
#[derive(Clone, Debug)]
pub struct Signals(watch::Receiver<u32>);

impl Signals {
    /// Listens from now on. Must be called on a runtime.
    ///
    /// A third signal ends the process on the spot, with exit code 130: whatever hangs, a user can
    /// always get out.
    pub fn listen() -> io::Result<Self> {
        let (count, signals) = watch::channel(0);
        let mut next = Source::new()?;
        super::task::spawn("signals", async move {
            while next.signal().await {
                count.send_modify(|n| *n += 1);
                if *count.borrow() > 2 {
                    std::process::exit(130);
                }
            }
            // keeps the channel open: a closed one would look like a signal to nobody
            count.closed().await;
        });
        Ok(Self(signals))
    }

    /// Signals that whoever holds the sender counts: for tests.
    pub fn from_channel(signals: watch::Receiver<u32>) -> Self {
        Self(signals)
    }

    /// How many have come.
    pub fn count(&self) -> u32 {
        *self.0.borrow()
    }

    /// Waits until more than `known` have come; returns how many.
    pub async fn beyond(&mut self, known: u32) -> u32 {
        let count = self.0.wait_for(|count| *count > known).await.map(|count| *count);
        match count {
            Ok(count) => count,
            // nobody can signal any more
            Err(_) => std::future::pending().await,
        }
    }
}

/// From now on SIGTERM ends the process on the spot, as a kill would, with exit code 143: for who keeps a journal, and
/// leaves what is under way to a successor. Must be called on a runtime.
#[cfg(unix)]
#[expect(clippy::exit, reason = "it is what it is for")]
pub fn leave_on_terminate() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    super::task::spawn("leave on SIGTERM", async move {
        if terminate.recv().await.is_some() {
            tracing::warn!("SIGTERM: what is under way is left to the next process on this data folder");
            std::process::exit(143);
        }
    });
    Ok(())
}

/// There is no SIGTERM here.
#[cfg(not(unix))]
pub fn leave_on_terminate() -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn signal(&mut self) -> bool {
        tokio::select! {
            got = self.interrupt.recv() => got.is_some(),
            got = self.terminate.recv() => got.is_some(),
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn signal(&mut self) -> bool {
        tokio::signal::ctrl_c().await.is_ok()
    }
}
