//! The engine: a shard's users, dealt over one single-threaded runtime per core.

use bytes::Bytes;
use ld_shared::frame::{FrameBody, Odometers};
use ld_shared::id::Digest;
use ld_shared::plan::{Plan, Pool};
use ld_shared::shard::Shard;
use ld_shared::time::Mono;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What an engine is made from.
pub struct EngineSpec {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its blobs by digest: data rows, certificates.
    pub blobs: Arc<BTreeMap<Digest, Bytes>>,
    /// Load cores to use, at least 1.
    pub cores: usize,
}

/// What an engine tells the link.
#[derive(Debug)]
pub enum EngineEvent {
    /// A span is complete. Spans come in order and without gaps; the last one has `last` set and
    /// is the last event.
    Span(Box<FrameBody>),
    /// Users will soon need tickets of a pool: at least `want` more.
    WantTickets {
        /// The pool.
        pool: Pool,
        /// How many.
        want: u64,
    },
}

/// A prepared engine: its threads stand ready. Dropping it aborts its users.
pub struct Engine {}

impl Engine {
    /// Compiles the plan on every core and makes the threads ready. Takes milliseconds; call it
    /// on a blocking thread.
    pub fn prepare(
        _spec: EngineSpec,
        _events: mpsc::UnboundedSender<EngineEvent>,
    ) -> Result<Self, crate::protocol::PrepareError> {
        Ok(Self {})
    }

    /// Starts the shard's users, run time 0 being `t0` on this node's clock. May start nothing
    /// while the lease ([`Self::set_lease`]) is over.
    pub fn start(&self, _shard: Shard, _t0: Mono) {}

    /// Users may start requests until `until` on this node's clock. Never moves back.
    pub fn set_lease(&self, _until: Mono) {}

    /// Starts nothing more; open requests may take the plan's `graceful_stop`.
    pub fn stop(&self) {}

    /// Cuts off open requests at once; they count as in flight. The last span still comes.
    pub fn abort(&self) {}

    /// Where the counters stand now, summed over cores.
    pub fn odometers(&self) -> Odometers {
        Odometers::default()
    }

    /// Tickets of a pool. `exhausted`: there are none after these.
    pub fn grant(&self, _pool: Pool, _tickets: Range<u64>, _exhausted: bool) {}

    /// Records with a priority (successes, failures) at or above these need not be kept.
    pub fn set_record_limits(&self, _limits: [u64; 2]) {}
}
