//! What a run is made from, what happens to it, and what it asks for.

use super::beginning::ARM_ATTEMPTS;
use crate::cluster::assign::AssignError;
use crate::journal::Entry;
use bytes::Bytes;
use ld_shared::id::{Digest, RunId, SessionId};
use ld_shared::load::What;
use ld_shared::message::{RunBeat, ToMaster, ToWorker};
use ld_shared::plan::Plan;
use ld_shared::threshold::Threshold;
use ld_shared::time::Mono;
use std::sync::Arc;
use std::time::Duration;

/// What a run is made from.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its id.
    pub run: RunId,
    /// The plan.
    pub plan: Arc<Plan>,
    /// Digest of the plan's canonical JSON.
    pub digest: Digest,
    /// Digests of every blob, the plan's among them.
    pub blobs: Vec<Digest>,
    /// Workers to wait for.
    pub expected: usize,
    /// How long to wait for them.
    pub wait: Duration,
    /// Start with those that are there when the wait is over.
    pub allow_missing: bool,
    /// Rules that are judged while it runs.
    pub thresholds: Vec<Threshold>,
    /// The only worker lives in this process: no network to allow for.
    pub local: bool,
    /// One worker makes all of it: whoever joins gets no part.
    pub one_worker: bool,
}

/// What happens to a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// A worker joined (it is in the registry).
    Joined,
    /// A worker said something.
    Message(SessionId, ToMaster),
    /// A worker is gone without goodbye (it is still in the registry).
    Lost {
        /// Who.
        session: SessionId,
        /// It started nothing after this instant.
        until: Mono,
        /// It fell silent: it may live, and come back.
        silent: bool,
        /// What was seen.
        how: String,
    },
    /// A worker of this run is there again, over a new connection (it is in the registry).
    Returned(SessionId),
    /// The heir of a worker of this run is there, which has died: the newest that is known of its load. Frames may follow.
    LastWord(SessionId, Option<RunBeat>),
    /// Somebody changes the load.
    Change(What, String),
    /// Somebody asked the run to end.
    Stop,
    /// Somebody asked the run to end at once.
    Abort,
    /// A deadline passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send(SessionId, ToWorker),
    /// Send blobs, in chunks.
    SendBlobs(SessionId, Vec<Digest>),
    /// Write encoded lines of requests that this worker sent.
    WriteLines(Arc<str>, Bytes),
    /// End the connection of a worker that breaks the contract.
    Hangup(SessionId, String),
    /// Journal what was counted: what follows depends on it.
    Journal(Box<Entry>),
    /// The run is over: take its result.
    Closed,
}

/// Why a run could not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Too few workers.
    #[error("{present} of {expected} workers joined within {waited:?}{}", named(.names))]
    MissingWorkers {
        /// How many came.
        present: usize,
        /// How many were expected.
        expected: usize,
        /// How long was waited.
        waited: Duration,
        /// Who came.
        names: Vec<String>,
    },
    /// A worker cannot run the plan.
    #[error("worker {worker} cannot run the plan: {text}")]
    CannotPrepare {
        /// Who.
        worker: String,
        /// Why.
        text: String,
    },
    /// Workers did not get ready.
    #[error("not ready within {waited:?} after the plan was sent: {}", .workers.join(", "))]
    NotReady {
        /// Who.
        workers: Vec<String>,
        /// How long was waited.
        waited: Duration,
    },
    /// Workers did not confirm the start instant.
    #[error("start instant not confirmed in {ARM_ATTEMPTS} attempts by {}", .workers.join(", "))]
    NotArmed {
        /// Who.
        workers: Vec<String>,
    },
    /// The plan cannot be dealt.
    #[error(transparent)]
    Assign(#[from] AssignError),
    /// A worker was lost before the start.
    #[error("worker {worker} was lost before the start: {how}")]
    LostBeforeStart {
        /// Who.
        worker: String,
        /// What was seen.
        how: String,
    },
    /// Somebody ended it before it began.
    #[error("stopped before the start")]
    Stopped,
    /// None of the workers of a run that was taken up is back.
    #[error("none of its workers came back")]
    NobodyBack,
    /// Another run is going on.
    #[error("another run is going on over the same workers")]
    Busy,
    /// The cluster is closed.
    #[error("the cluster is closed")]
    Closed,
}

fn named(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}
