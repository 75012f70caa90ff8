//! The worker in this process: the same messages over bounded channels, no port.

use super::driver::{ConnectionId, Input};
use ld_shared::boot::clock;
use ld_shared::message::{Hello, LINK_QUEUE, PROTOCOL_VERSION, ToMaster, ToWorker};
use ld_shared::targets::TargetList;
use ld_worker::link::{self, Channel, Dial, LoadMaker};
use ld_worker::membership::{Exit, Options, Unreached};
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

const CONNECTION: ConnectionId = 1;

/// Starts a worker on a thread of its own.
pub(super) fn spawn<L: LoadMaker>(
    cores: usize,
    capacity: u64,
    targets: Option<TargetList>,
    inputs: mpsc::Sender<Input>,
) -> io::Result<JoinHandle<Exit>> {
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        build: concat!("ld-master ", env!("CARGO_PKG_VERSION")).into(),
        name: "local".into(),
        cores: cores as u32,
        returning: None,
    };
    let options = Options {
        hello,
        capacity,
        stay: false,
        // its master is this process: it cannot be gone while this waits
        master_timeout: Duration::from_mins(1),
        master: "in this process".into(),
        targets,
        spool: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("ld-link".into()).spawn(move || {
        let (_signals, signals) = mpsc::channel(1);
        runtime.block_on(link::run::<L>(options, LocalDial { inputs }, signals, link::unwatched()))
    })
}

struct LocalDial {
    inputs: mpsc::Sender<Input>,
}

impl Dial for LocalDial {
    async fn dial(&mut self) -> Result<Channel, Unreached> {
        let (up, mut from_worker) = mpsc::channel::<ToMaster>(LINK_QUEUE);
        let (out, mut to_worker) = mpsc::channel::<ToWorker>(LINK_QUEUE);
        let (down_in, down) = mpsc::channel(LINK_QUEUE);
        let inputs = self.inputs.clone();
        let opened = inputs.send(Input::Opened { connection: CONNECTION, out, open: None }).await;
        opened.map_err(|_| Unreached { refused: true, ..Unreached::seen("the cluster is closed") })?;
        tokio::spawn(async move {
            while let Some(message) = from_worker.recv().await {
                let message = Input::Message { connection: CONNECTION, at: clock::mono(), message };
                if inputs.send(message).await.is_err() {
                    return;
                }
            }
            let seen = "the worker in this process ended".to_owned();
            drop(inputs.send(Input::Closed { connection: CONNECTION, seen }).await);
        });
        tokio::spawn(async move {
            while let Some(message) = to_worker.recv().await {
                if down_in.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Channel { up, down })
    }
}
