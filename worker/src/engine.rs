//! The engine: a shard's users, dealt over one single-threaded runtime per core.
//!
//! A user never leaves its core. Cores share only a few atomics: the lease, the end, caps and
//! tickets. What they measure goes to the aggregator's thread and leaves as [`EngineEvent::Span`]s.

mod closed;
pub(crate) mod core;
mod open;
mod pacer;
mod throttle;
mod tickets;

use crate::aggregator::Aggregator;
use crate::protocol::PrepareError;
use crate::recorder::{ChunkPool, LineBacklog, Odometer, Part};
use crate::sampler::RecordLimits;
use crate::series::SeriesTable;
use crate::shipper::{Shipper, Shipping};
use bytes::Bytes;
use ld_shared::boot::clock::mono;
use ld_shared::frame::{FrameBody, Odometers};
use ld_shared::id::Digest;
use ld_shared::plan::{Plan, Pool, SourceRows};
use ld_shared::record::RecordBody;
use ld_shared::secrets::{SecretBlob, Secrets};
use ld_shared::shard::Shard;
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::{Mono, RunTime};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use throttle::Throttles;
use tickets::Tickets;
use tokio::sync::{mpsc, watch};

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
    /// A span is complete. Spans come in order and without gaps; the last one has `last` set, and
    /// says whether records follow it.
    Span(Box<FrameBody>),
    /// Single requests. At most [`ld_shared::message::RECORD_WINDOW`] come before
    /// [`Engine::records_acknowledged`]; the last one has `last` set, if there is one.
    Records(Box<RecordBody>),
    /// Users will soon need tickets of a pool: at least `want` more.
    WantTickets {
        /// The pool.
        pool: Pool,
        /// How many.
        want: u64,
    },
    /// A user found no ticket left in the cluster. Once a pool.
    PoolEmpty(Pool),
}

/// Until when starts are allowed. Checked at every start, against the reading that becomes `started`.
#[derive(Debug)]
pub(crate) struct Limits {
    lease: AtomicU64,
    end: AtomicU64,
}

impl Limits {
    pub(crate) fn new() -> Self {
        Self { lease: AtomicU64::new(0), end: AtomicU64::new(u64::MAX) }
    }

    pub(crate) fn may_start(&self, now: u64) -> bool {
        now < self.lease.load(Ordering::Relaxed) && now < self.end.load(Ordering::Relaxed)
    }

    /// Whether the lease is over at `now` (the test may go on elsewhere).
    pub(crate) fn lease_over(&self, now: u64) -> bool {
        now >= self.lease.load(Ordering::Relaxed)
    }

    /// Nothing starts after `now` any more.
    pub(crate) fn end_now(&self, now: u64) {
        self.end.fetch_min(now, Ordering::Relaxed);
    }

    /// The end of starting, ns of this node's clock.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }
}

/// What the cores of one engine share.
pub(crate) struct Shared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) blobs: Arc<BTreeMap<Digest, Bytes>>,
    pub(crate) rows: Vec<Arc<SourceRows>>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) series: Arc<SeriesTable>,
    pub(crate) secrets: Secrets,
    pub(crate) tickets: Tickets,
    pub(crate) throttles: Arc<Throttles>,
    /// Open iterations and their cap, one a scenario.
    pub(crate) in_flight: Vec<(AtomicI64, AtomicI64)>,
    pub(crate) record_limits: RecordLimits,
}

/// What the engine tells its cores.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Stand ready.
    Wait,
    /// Run these lanes (one list a core) from run time 0 = `t0`.
    Run { lanes: Arc<Vec<Arc<[u16]>>>, from: RunTime, t0: Mono },
    /// Start nothing more; end when the open requests have, or after the grace.
    Drain,
    /// End now.
    Abort,
}

/// A prepared engine: its threads stand ready. Dropping it aborts its users.
pub struct Engine {
    shared: Arc<Shared>,
    orders: watch::Sender<Order>,
    odometers: Vec<Arc<Odometer>>,
    to_aggregator: Sender<(usize, Part)>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Compiles the plan on every core and makes the threads ready. Takes milliseconds; call it
    /// on a blocking thread.
    pub fn prepare(spec: EngineSpec, events: mpsc::UnboundedSender<EngineEvent>) -> Result<Self, PrepareError> {
        let EngineSpec { plan, blobs, cores } = spec;
        let cores = cores.max(1);
        let rows = source_rows(&plan, &blobs)?;
        let series = Arc::new(SeriesTable::new());
        let details = plan.details.clone();
        let in_flight = plan.scenarios.iter().map(|_| (AtomicI64::new(0), AtomicI64::new(i64::MAX))).collect();
        let shared = Arc::new(Shared {
            secrets: secrets(&plan, &blobs)?,
            tickets: Tickets::new(&plan, events.clone()),
            throttles: Arc::new(Throttles::new(&plan)),
            plan,
            blobs,
            rows,
            limits: Arc::new(Limits::new()),
            series: Arc::clone(&series),
            in_flight,
            record_limits: Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]),
        });
        let (orders, _) = watch::channel(Order::Wait);
        let (parts, input) = std::sync::mpsc::channel();
        let pool: ChunkPool = Arc::new(Mutex::new(Vec::new()));
        let backlog = LineBacklog::default();
        let odometers: Vec<_> = (0..cores).map(|_| Arc::new(Odometer::default())).collect();
        let (ready, prepared) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        for (index, odometer) in odometers.iter().enumerate() {
            let seat = core::Seat {
                index,
                shared: Arc::clone(&shared),
                odometer: Arc::clone(odometer),
                pool: Arc::clone(&pool),
                backlog: Arc::clone(&backlog),
                parts: parts.clone(),
                orders: orders.subscribe(),
            };
            let ready = ready.clone();
            threads.push(spawn_thread(&format!("core-{index}"), move || core::run(seat, &ready))?);
        }
        drop(ready);
        let shipper = Shipper::new(shared.plan.records);
        let shipping = Shipping { shipper, limits: Arc::clone(&shared.record_limits), backlog };
        let aggregator = Aggregator::new(cores, input, events, series, details, pool, shipping);
        threads.push(spawn_thread("aggregator", move || aggregator.run())?);
        let engine = Self { shared, orders, odometers, to_aggregator: parts, threads };
        for _ in 0..cores {
            // a core that panics drops its end of the channel
            prepared.recv().map_err(|_| PrepareError("a load core stopped while it compiled the plan".into()))??;
        }
        Ok(engine)
    }

    /// Starts the shard's users, run time 0 being `t0` on this node's clock. May start nothing
    /// while the lease ([`Self::set_lease`]) is over.
    pub fn start(&self, shard: &Shard, t0: Mono) {
        for ((_, cap), share) in self.shared.in_flight.iter().zip(&shard.max_in_flight) {
            cap.store(i64::try_from(*share).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
        self.shared.limits.end.store(t0.0.saturating_add(self.shared.plan.end().0), Ordering::Relaxed);
        self.shared.throttles.start(&shard.throttles, t0.0);
        let lanes = shard.lanes.deal_to_cores(self.odometers.len()).into_iter().map(Into::into).collect();
        self.orders.send_replace(Order::Run { lanes: Arc::new(lanes), from: shard.from, t0 });
    }

    /// Users may start requests until `until` on this node's clock. Never moves back.
    pub fn set_lease(&self, until: Mono) {
        self.shared.limits.lease.fetch_max(until.0, Ordering::Relaxed);
    }

    /// Starts nothing more; open requests may take the plan's `graceful_stop`.
    pub fn stop(&self) {
        self.shared.limits.end_now(mono().0);
        self.orders.send_if_modified(|order| {
            let running = !matches!(order, Order::Abort);
            if running {
                *order = Order::Drain;
            }
            running
        });
    }

    /// Cuts off open requests at once; they count as in flight. The last span still comes.
    pub fn abort(&self) {
        self.shared.limits.end_now(mono().0);
        self.orders.send_replace(Order::Abort);
    }

    /// Where the counters stand now, summed over cores.
    pub fn odometers(&self) -> Odometers {
        let mut sum = Odometers::default();
        self.odometers.iter().for_each(|o| sum.add(&o.read()));
        sum
    }

    /// Tickets of a pool. `exhausted`: there are none after these.
    pub fn grant(&self, pool: Pool, tickets: Range<u64>, exhausted: bool) {
        self.shared.tickets.grant(pool, tickets, exhausted);
    }

    /// The master has counted a batch of records: another one may leave.
    pub fn records_acknowledged(&self) {
        // the aggregator is gone once everything has left
        self.to_aggregator.send((0, Part::Acknowledged)).ok();
    }

    /// Limits on the rate of requests go by these parts from now on.
    pub fn set_throttles(&self, parts: &[u32]) {
        self.shared.throttles.set_parts(parts);
    }

    /// How much of each limit on the rate of requests is used.
    pub fn throttle_use(&self) -> Vec<ThrottleUse> {
        self.shared.throttles.used()
    }

    /// Records with a priority (successes, failures) at or above these need not be kept.
    pub fn set_record_limits(&self, limits: [u64; 2]) {
        for (have, new) in self.shared.record_limits.iter().zip(limits) {
            have.fetch_min(new, Ordering::Relaxed);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.orders.send_replace(Order::Abort);
        self.to_aggregator.send((0, Part::Close)).ok();
        for thread in self.threads.drain(..) {
            // a panic of the thread was reported where it happened
            thread.join().ok();
        }
    }
}

fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PrepareError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| PrepareError(format!("could not start thread `{name}`: {error}")))
}

fn secrets(plan: &Plan, blobs: &BTreeMap<Digest, Bytes>) -> Result<Secrets, PrepareError> {
    let Some(digest) = &plan.secrets else { return Ok(Secrets::default()) };
    let blob = blobs.get(digest).ok_or_else(|| PrepareError("the secrets did not come with the plan".into()))?;
    // the parser's error would quote what it read
    let blob: SecretBlob =
        serde_json::from_slice(blob).map_err(|_| PrepareError("the secrets of the plan are malformed".into()))?;
    Ok(blob.values.into())
}

fn source_rows(plan: &Plan, blobs: &BTreeMap<Digest, Bytes>) -> Result<Vec<Arc<SourceRows>>, PrepareError> {
    let rows = |source: &ld_shared::plan::SourcePlan| {
        let blob = blobs
            .get(&source.blob)
            .ok_or_else(|| PrepareError(format!("rows of data source `{}` did not come with the plan", source.name)))?;
        let rows: SourceRows = serde_json::from_slice(blob)
            .map_err(|error| PrepareError(format!("rows of data source `{}` are malformed: {error}", source.name)))?;
        Ok(Arc::new(rows))
    };
    plan.sources.iter().map(rows).collect()
}
