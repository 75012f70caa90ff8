//! What comes in to the driver, and in which order it is taken.

use super::super::coordinator::{ChangeError, RunError};
use super::super::view::{Look, View};
use super::super::{RunControl, RunOrder};
use crate::run::{Measured, Progress};
use bytes::Bytes;
use ld_shared::id::SessionId;
use ld_shared::load::What;
use ld_shared::message::{ToMaster, ToWorker};
use ld_shared::time::Mono;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::DropGuard;

/// Inputs that may wait for the driver; whoever has more waits itself.
pub(super) const INPUTS: usize = 1_024;
/// The same of measurements, which are large.
const MEASURED: usize = 64;

/// Names a connection.
pub(in crate::cluster) type ConnectionId = u64;

/// What comes in.
#[expect(clippy::large_enum_variant, reason = "beats pass through by value; nothing is kept")]
pub(in crate::cluster) enum Input {
    /// A connection stands; what is sent to it goes to `out`.
    /// Once `open` is dropped the connection is closed.
    Opened { connection: ConnectionId, out: mpsc::Sender<ToWorker>, open: Option<DropGuard> },
    /// A second stream wants to belong to a session.
    Attach {
        session: SessionId,
        secret: Bytes,
        out: mpsc::Sender<ToWorker>,
        reply: oneshot::Sender<Option<ConnectionId>>,
    },
    /// A worker said something, read at this instant.
    Message { connection: ConnectionId, at: Mono, message: ToMaster },
    /// A connection ended: what was seen.
    Closed { connection: ConnectionId, seen: String },
    /// Change the load of the run.
    Change { what: What, by: String, reply: oneshot::Sender<Result<(), ChangeError>> },
    /// Somebody wants to see how things stand.
    Look { look: Look, reply: oneshot::Sender<View> },
    /// The journal has more on the disk, or failed.
    Committed,
    /// Start a run.
    Run(Box<RunRequest>),
    /// End the cluster.
    Close(oneshot::Sender<()>),
}

pub(in crate::cluster) struct RunRequest {
    pub(in crate::cluster) order: RunOrder,
    pub(in crate::cluster) control: RunControl,
    pub(in crate::cluster) progress: watch::Sender<Arc<Progress>>,
    pub(in crate::cluster) reply: oneshot::Sender<Result<Measured, RunError>>,
}

/// Where inputs go. A sender that is full makes its own peer wait.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct Inputs {
    /// What is taken first: above all beats.
    pub(in crate::cluster) first: mpsc::Sender<Input>,
    /// Measurements of workers at the port, and the end of a connection, which must not overtake them.
    pub(in crate::cluster) measured: mpsc::Sender<Input>,
}

/// Where they come from.
pub(in crate::cluster) struct Received {
    inputs: mpsc::Receiver<Input>,
    measured: mpsc::Receiver<Input>,
}

impl Received {
    /// The next one; `None`: nobody is left who could send one. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Input> {
        tokio::select! {
            biased;
            input = self.inputs.recv() => input,
            Some(input) = self.measured.recv() => Some(input),
        }
    }

    /// The next one that is there.
    pub(super) fn take(&mut self) -> Option<Input> {
        self.inputs.try_recv().or_else(|_| self.measured.try_recv()).ok()
    }

    /// How many are there.
    pub(super) fn waiting(&self) -> usize {
        self.inputs.len() + self.measured.len()
    }
}

/// The ways of inputs to a driver.
pub(in crate::cluster) fn inputs() -> (Inputs, Received) {
    let (first, inputs) = mpsc::channel(INPUTS);
    let (measures, measured) = mpsc::channel(MEASURED);
    (Inputs { first, measured: measures }, Received { inputs, measured })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(connection: ConnectionId) -> Input {
        Input::Closed { connection, seen: String::new() }
    }

    #[tokio::test]
    async fn measurements_wait_and_beats_do_not() {
        let (Inputs { first, measured }, mut received) = inputs();
        for number in [1, 2] {
            measured.send(closed(number)).await.unwrap();
        }
        first.send(Input::Committed).await.unwrap();
        assert_eq!(received.waiting(), 3);
        assert!(matches!(received.next().await, Some(Input::Committed)));
        assert!(matches!(received.take(), Some(Input::Closed { connection: 1, .. })));
        // without a port there are no measurements, and that is no end
        drop(measured);
        assert!(matches!(received.next().await, Some(Input::Closed { connection: 2, .. })));
        first.send(Input::Committed).await.unwrap();
        assert!(matches!(received.next().await, Some(Input::Committed)));
        drop(first);
        assert!(received.next().await.is_none());
    }
}
