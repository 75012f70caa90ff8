//! The engine: a shard's users, dealt over one single-threaded runtime per core.
//!
//! A user never leaves its core. Cores share only a few atomics: the lease, the end, caps and
//! tickets. What they measure goes to the aggregator's thread and leaves as [`EngineEvent::Span`]s.

mod closed;
pub(crate) mod core;
mod dealing;
pub(crate) mod holding;
pub(crate) mod limits;
mod open;
mod pacer;
mod rest;
mod slots;
mod throttle;
mod tickets;

use crate::aggregator::Aggregator;
use crate::limits::load_files;
use crate::protocol::PrepareError;
use crate::recorder::{ChunkPool, LineBacklog, Odometer, Part};
use crate::sampler::RecordLimits;
use crate::series::SeriesTable;
use crate::shipper::{Shipper, Shipping};
use bytes::Bytes;
use dealing::Dealing;
use ld_shared::boot::clock::mono;
use ld_shared::frame::{FrameBody, Odometers};
use ld_shared::id::Digest;
use ld_shared::load::Program;
use ld_shared::plan::{AtEnd, Dealing as RowDealing, Plan, Pool, SourceRows, WorkerLoss};
use ld_shared::record::RecordBody;
use ld_shared::secrets::{SecretBlob, Secrets};
use ld_shared::shard::Shard;
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::{Mono, RunTime};
use limits::{Change, Limits, Loads};
use rest::Rest;
use slots::Slots;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    pub(crate) rest: Rest,
    /// Users may end by themselves before the test does.
    pub(crate) ends_by_itself: bool,
    /// Open iterations and their cap, one a scenario.
    pub(crate) slots: Vec<Slots>,
    pub(crate) record_limits: RecordLimits,
    /// The shards whose shares of caps and limits take effect at instants of this node's clock, ascending; and the first
    /// of these instants.
    next_shares: Mutex<VecDeque<(u64, Shard)>>,
    shares_at: AtomicU64,
}

impl Shared {
    fn next_shares(&self) -> MutexGuard<'_, VecDeque<(u64, Shard)>> {
        self.next_shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `at` on these are the shares, whatever was said of later.
    fn expect_shares(&self, at: u64, shard: &Shard) {
        let mut next = self.next_shares();
        next.retain(|(then, _)| *then < at);
        next.push_back((at, shard.clone()));
        // nobody goes by older ones in between
        self.lower_shares(shard);
        self.shares_at.store(next.front().map_or(u64::MAX, |(at, _)| *at), Ordering::Relaxed);
    }

    /// Goes by the shares of `shard` where they are lower than those in force: what is given to
    /// others is given up first, so that all shares never add up to more than the whole.
    fn lower_shares(&self, shard: &Shard) {
        for (slots, share) in self.slots.iter().zip(&shard.max_in_flight) {
            slots.lower_most(*share);
        }
        self.throttles.lower(&shard.throttles);
    }

    /// Goes by shares whose time has come. Returns when the next ones come, ns of this node's clock.
    pub(crate) fn take_shares(&self, now: u64) -> Option<u64> {
        if now >= self.shares_at.load(Ordering::Relaxed) {
            let mut next = self.next_shares();
            while let Some((_, shard)) = next.pop_front_if(|(at, _)| *at <= now) {
                for (slots, share) in self.slots.iter().zip(&shard.max_in_flight) {
                    slots.set_most(*share);
                }
                self.throttles.set_shares(&shard.throttles);
                // what is given up later is given up already
                next.iter().for_each(|(_, later)| self.lower_shares(later));
            }
            self.shares_at.store(next.front().map_or(u64::MAX, |(at, _)| *at), Ordering::Relaxed);
        }
        Some(self.shares_at.load(Ordering::Relaxed)).filter(|at| *at < u64::MAX)
    }
}

/// What the engine tells its cores.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Stand ready.
    Wait,
    /// Run what you are told of, run time 0 being `t0`, from `from` on, which is in or after this
    /// run-clock second.
    Run { t0: Mono, second: u32, from: RunTime },
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
    assigned: Mutex<Assigned>,
}

/// What the worker owns.
struct Assigned {
    dealing: Dealing,
    t0: u64,
    program: Program,
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
        let is_replaced = plan.on_worker_loss == WorkerLoss::Redistribute;
        let files = load_files();
        let slots = plan.scenarios.iter().map(|_| Slots::new(files)).collect();
        let shared = Arc::new(Shared {
            secrets: secrets(&plan, &blobs)?,
            tickets: Tickets::new(&plan, events.clone()),
            throttles: Arc::new(Throttles::new(&plan)),
            rest: Rest::new(cores),
            ends_by_itself: plan.iterations.is_some()
                || plan.sources.iter().any(|s| matches!(s.dealing, RowDealing::Once(AtEnd::StopUser))),
            plan,
            blobs,
            rows,
            limits: Arc::new(Limits::new(cores, is_replaced)),
            series: Arc::clone(&series),
            slots,
            record_limits: Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]),
            next_shares: Mutex::default(),
            shares_at: AtomicU64::new(u64::MAX),
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
        let assigned = Mutex::new(Assigned { dealing: Dealing::new(cores), t0: 0, program: Program::default() });
        let engine = Self { shared, orders, odometers, to_aggregator: parts, threads, assigned };
        for _ in 0..cores {
            // a core that panics drops its end of the channel
            prepared.recv().map_err(|_| PrepareError("a load core stopped while it compiled the plan".into()))??;
        }
        Ok(engine)
    }

    /// Starts the shard's users, run time 0 being `t0` on this node's clock. May start nothing
    /// while the lease ([`Self::set_lease`]) is over.
    ///
    /// A worker that joins in mid-run starts with a `t0` that has passed: its first second is the
    /// one that runs, and nothing due before `shard.from` is its own.
    pub fn start(&self, shard: &Shard, t0: Mono) {
        let second = mono().since(t0).as_secs() as u32;
        self.assigned().t0 = t0.0;
        self.shared.limits.end_at(t0.0.saturating_add(self.shared.plan.end().0));
        self.shared.throttles.start(&shard.throttles, t0.0);
        self.assign(shard);
        // the aggregator ends only after the cores
        self.to_aggregator.send((0, Part::Begin(second))).ok();
        self.orders.send_replace(Order::Run { t0, second, from: shard.from });
    }

    /// From run time `shard.from` on the worker owns exactly these lanes, and has these shares of
    /// caps and of limits on the rate of requests. To be called any number of times after
    /// [`Self::start`], in order of `from`; what was said before of later times is void.
    ///
    /// `from` may lie in the past: lost lanes then start nothing any more, new ones begin now, and
    /// of them the arrivals due since `from` start up to 1 s late, or are dropped `generator_late`.
    ///
    /// Lanes that are kept stay as they are. On lost ones arrivals due before `from` still start, and
    /// iterations of the open model go on to their end (when all lanes went behind this worker's
    /// back, the cap went with them, and these do not count against it any more); users of the closed model start no request at
    /// or after `from`, run their `on_stop`, and end. On new ones users who live at `from` are new
    /// users, spread evenly over one second but its first 200 ms, in which those elsewhere end; none
    /// begins while one with its number has an open request here.
    ///
    /// # The lease
    ///
    /// While there is no lease nothing starts and no arrival is taken: users wait (an iteration of the
    /// open model that has begun ends before its next request, for that would be late by the wait). An
    /// engine whose test comes to its end meanwhile waits for a new lease, for word of its lanes, or
    /// for an order.
    /// - A new lease finds the same tenure: arrivals that were due without a lease, and those that
    ///   it made more than 1 s late, are counted due and dropped `no_owner`. Users go on.
    /// - An assignment says that the tenure ended at `from`: only what was due before is counted.
    ///   It must come before the lease ([`Self::set_lease`]) that it goes with.
    /// - The end of the engine ([`Self::stop`], [`Self::abort`]): what was due before is counted.
    ///
    /// So due = started + dropped holds of the worker's tenures once its last span is out.
    ///
    /// An engine without any lane waits for some until the test ends.
    pub fn assign(&self, shard: &Shard) {
        let mut assigned = self.assigned();
        let at = assigned.t0.saturating_add(shard.from.0);
        let dealt = assigned.dealing.deal(&shard.lanes);
        let now = mono().0;
        if shard.lanes.is_empty() && (at <= now || self.shared.limits.lease_over(now)) {
            self.shared.slots.iter().for_each(Slots::forget);
        }
        self.shared.rest.tell(Some(!shard.lanes.is_empty()), || {
            for (core, lanes) in dealt.into_iter().enumerate() {
                self.shared.limits.tell(core, at, Change::Lanes { from: shard.from, lanes: lanes.into() });
            }
        });
        self.shared.expect_shares(at, shard);
        self.shared.limits.wake(0);
    }

    /// The load is what `program` makes of the plan. To be called after [`Self::start`], any number of
    /// times, each time with the whole program; what differs from the program before should lie in the
    /// future. Arrivals keep their numbers, so that each starts once; users that both programs want
    /// live on. Caps stay.
    ///
    /// In a pause iterations that began go on to their end, and no user begins one.
    pub fn change(&self, program: &Program) {
        let mut assigned = self.assigned();
        let Some(from) = program.differs_from(&assigned.program) else { return };
        let at = assigned.t0.saturating_add(from.0);
        let plan = self.shared.plan.with(program);
        let loads = Loads {
            each: plan.scenarios.iter().map(|scenario| scenario.load.clone()).collect(),
            most: plan.scenarios.iter().map(|scenario| plan.most_arrivals(scenario)).collect(),
            pauses: program.pauses(),
            // whoever set something to 0 may set it to more again
            waits: !program.changes().is_empty()
                && plan.scenarios.iter().any(|scenario| scenario.load.profile().tail() <= 0.0),
        };
        let loads = Arc::new(loads);
        self.shared.rest.tell(None, || {
            for core in 0..self.odometers.len() {
                self.shared.limits.tell(core, at, Change::Loads { from, loads: Arc::clone(&loads) });
            }
        });
        assigned.program = program.clone();
    }

    fn assigned(&self) -> MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Users may start requests until `until` on this node's clock. Never moves back.
    pub fn set_lease(&self, until: Mono) {
        self.shared.limits.set_lease(until.0, mono().0);
    }

    /// The lease is over and the work is given to others: idle connections are closed at once, so
    /// that the target does not see more users than planned. Open requests drain. A lease that comes
    /// back undoes it.
    pub fn lease_lost(&self) {
        (0..self.odometers.len()).for_each(|core| self.shared.limits.tell(core, u64::MAX, Change::HangUp));
    }

    /// Starts nothing more; open requests may take the plan's `graceful_stop`.
    pub fn stop(&self) {
        self.shared.limits.end_at(mono().0);
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
        self.shared.limits.end_at(mono().0);
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
        // assignments that take effect later were made with older ones
        for (_, shard) in self.shared.next_shares().iter_mut() {
            shard.throttles.iter_mut().zip(parts).for_each(|(share, parts)| share.parts = *parts);
        }
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
