//! One log of samples a core, swapped each second: no lock and no channel per sample.
//!
//! The core appends a few words a sample; the [`crate::aggregator`] makes histograms of them on
//! its own thread. Counters of starts live in [`Odometer`]s beside the log: they and the histograms
//! are the two independent paths of conservation.

use crate::engine::holding::{Holding, May, Tenure};
use crate::engine::limits::Limits;
use crate::kept::Kept;
use ld_shared::frame::{Collected, Odometers, PhaseOdometer};
use ld_shared::latency::Latency;
use ld_shared::sample::{Failure, FailureKind, Phase};
use ld_shared::snapshot::{DropReason, Row};
use ld_shared::time::SECOND;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

/// Samples in a chunk of the log.
const CHUNK: usize = 32 * 1024;
/// Kept requests that a core hands over at once.
const KEPT: usize = 256;
/// Lines that a core hands over at once.
const LINES: usize = 1_024;
/// Lines that may wait for the aggregator: about 20 MB. It is behind when there are more, and further
/// ones are left out.
const MOST_LINES: usize = 256 * 1024;

/// A finished request. Instants and spans in ns of this node's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) series: u16,
    pub(crate) phase: Phase,
    pub(crate) intended: u64,
    pub(crate) started: u64,
    pub(crate) ended: u64,
    /// DNS, connect, TLS; `u64::MAX`: not done.
    pub(crate) setup: Option<[u64; 3]>,
    pub(crate) send: u64,
    pub(crate) first_byte: Option<u64>,
    pub(crate) receive: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

/// What the log keeps of a sample: 24 bytes, times in µs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) series: u16,
    /// Bits 0–1 phase, bit 2 failed, bit 3 there was a first byte.
    pub(crate) flags: u16,
    pub(crate) response: u32,
    pub(crate) lag: u32,
    pub(crate) send: u32,
    pub(crate) first_byte: u32,
    pub(crate) receive: u32,
}

pub(crate) const FAILED: u16 = 4;
pub(crate) const ANSWERED: u16 = 8;

/// Nanoseconds as µs, to the nearest; more than 71 minutes count as 71 minutes.
pub(crate) fn micros(ns: u64) -> u32 {
    ((ns + 500) / 1000).min(u64::from(u32::MAX)) as u32
}

/// Traffic of one series in one second and core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Run-clock instant of the first end; 0: none.
    pub(crate) first_at: u64,
}

/// Failures of one series for one reason in one second and core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailureSpan {
    pub(crate) kind: FailureKind,
    pub(crate) count: u64,
    pub(crate) first_at: u64,
    pub(crate) last_at: u64,
}

/// What a core hands to the aggregator.
pub(crate) enum Part {
    /// Samples of the second that is being filled.
    Chunk(Vec<Entry>),
    /// A second is over: everything else of it.
    Second(Box<CoreSecond>),
    /// Kept requests.
    Kept(Vec<Kept>),
    /// Every request of a stretch.
    Lines(Vec<Line>),
    /// What a setup brought about.
    Collected(Box<Collected>),
    /// The core is done; nothing follows.
    Done,
    /// The first second is this one (from the engine, before any core).
    Begin(u32),
    /// The master has counted a batch of records (from the engine, not from a core).
    Acknowledged,
    /// The engine is dropped: nobody needs anything any more.
    Close,
}

/// One request of those that are all wanted, as the core knows it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) series: u16,
    pub(crate) status: Option<u16>,
    /// Run clock, ns.
    pub(crate) started_at: u64,
    pub(crate) response_us: u64,
    pub(crate) body_bytes: u64,
    pub(crate) url: Arc<str>,
    pub(crate) error: Option<Arc<str>>,
}

/// How many lines wait for the aggregator.
pub(crate) type LineBacklog = Arc<AtomicUsize>;

/// One core's second.
#[derive(Debug, Default)]
pub(crate) struct CoreSecond {
    pub(crate) second: u32,
    pub(crate) entries: Vec<Entry>,
    pub(crate) setups: Vec<(Phase, [u64; 3])>,
    pub(crate) traffic: Vec<[Traffic; Phase::COUNT]>,
    pub(crate) failures: HashMap<(u16, Phase, Arc<str>), FailureSpan>,
    pub(crate) row: Row,
    pub(crate) due: u64,
    pub(crate) odometers: Odometers,
    /// Start of an iteration − its due instant, µs (open model).
    pub(crate) dispatch_lag: Latency,
    pub(crate) scheduler_lag: Latency,
    pub(crate) users: u64,
    pub(crate) records_seen: [u64; 2],
    pub(crate) start_skew: Option<u64>,
}

/// Empty chunk buffers that the aggregator gave back.
pub(crate) type ChunkPool = Arc<Mutex<Vec<Vec<Entry>>>>;

/// Cumulative counters of one core, stored by the core alone and readable by anybody.
#[derive(Debug, Default)]
pub(crate) struct Odometer {
    phases: [PhaseAtomics; Phase::COUNT],
}

#[derive(Debug, Default)]
struct PhaseAtomics {
    due: AtomicU64,
    iterations: AtomicU64,
    dropped: [AtomicU64; 4],
    started: AtomicU64,
    written: AtomicU64,
    ended: AtomicU64,
    unsent: AtomicU64,
    in_flight: AtomicU64,
}

/// Adds one; only the owner stores, so no read-modify-write is needed.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
}

impl Odometer {
    /// Where the counters stand. Ends are read before starts: an end without its start is never seen.
    pub(crate) fn read(&self) -> Odometers {
        let read = |p: &PhaseAtomics| {
            let get = |c: &AtomicU64| c.load(Ordering::Acquire);
            let (ended, in_flight, unsent, written) =
                (get(&p.ended), get(&p.in_flight), get(&p.unsent), get(&p.written));
            let dropped = [0, 1, 2, 3].map(|i| get(&p.dropped[i]));
            let iterations = get(&p.iterations);
            PhaseOdometer {
                due: get(&p.due),
                iterations,
                dropped,
                requests_started: get(&p.started),
                requests_written: written,
                requests_ended: ended,
                requests_unsent: unsent,
                requests_in_flight: in_flight,
            }
        };
        Odometers { phases: std::array::from_fn(|i| read(&self.phases[i])) }
    }
}

/// The recorder of one core.
pub(crate) struct Recorder {
    limits: Arc<Limits>,
    holding: Rc<Holding>,
    odometer: Arc<Odometer>,
    out: Sender<(usize, Part)>,
    pool: ChunkPool,
    backlog: LineBacklog,
    core: usize,
    /// Run time 0, ns of this node's clock; `u64::MAX` before the start.
    t0: Cell<u64>,
    warmup_end: Cell<u64>,
    /// When the first start is due, ns of this node's clock.
    from: Cell<u64>,
    second_end: Cell<u64>,
    users: Cell<u64>,
    users_since: Cell<u64>,
    /// Lived by users and not yet in a row.
    user_ns: Cell<u64>,
    inner: RefCell<Inner>,
}

struct Inner {
    now: CoreSecond,
    cpu_before: u64,
    start_skew: Option<u64>,
    records_seen: [u64; 2],
    kept: Vec<Kept>,
    lines: Vec<Line>,
}

impl Recorder {
    pub(crate) fn new(
        core: usize,
        limits: Arc<Limits>,
        odometer: Arc<Odometer>,
        pool: ChunkPool,
        backlog: LineBacklog,
        out: Sender<(usize, Part)>,
    ) -> Self {
        let inner = Inner {
            now: CoreSecond::default(),
            cpu_before: 0,
            start_skew: None,
            records_seen: [0; 2],
            kept: Vec::new(),
            lines: Vec::new(),
        };
        Self {
            holding: Rc::new(Holding::new(Arc::clone(&limits), core)),
            limits,
            odometer,
            out,
            pool,
            backlog,
            core,
            t0: Cell::new(u64::MAX),
            warmup_end: Cell::new(0),
            from: Cell::new(0),
            second_end: Cell::new(u64::MAX),
            users: Cell::new(0),
            users_since: Cell::new(0),
            user_ns: Cell::new(0),
            inner: RefCell::new(inner),
        }
    }

    /// Run time 0 is `t0`; seconds begin to count with the run-clock second `second`. Starts are
    /// due from `from` on, ns of this node's clock.
    pub(crate) fn start(&self, t0: u64, warmup: u64, second: u32, from: u64) {
        let begin = t0 + u64::from(second) * SECOND;
        self.t0.set(t0);
        self.warmup_end.set(t0.saturating_add(warmup));
        self.from.set(from);
        self.second_end.set(begin + SECOND);
        self.users_since.set(begin);
        let mut inner = self.inner.borrow_mut();
        inner.now.second = second;
        inner.cpu_before = crate::selfwatch::thread_cpu();
        inner.now.entries = self.buffer();
    }

    /// Run time 0, ns of this node's clock.
    pub(crate) fn t0(&self) -> u64 {
        self.t0.get()
    }

    /// What the core holds.
    pub(crate) fn holding(&self) -> &Rc<Holding> {
        &self.holding
    }

    /// Whether something of a tenure (open model: none) may start at `now`: inside the lease, before
    /// the end, and on a lane that this core holds.
    pub(crate) fn may_start(&self, now: u64, tenure: Option<&Tenure>) -> May {
        self.holding.may_start(now, tenure)
    }

    /// Whether what users do last may start at `now`: inside the lease.
    pub(crate) fn may_finish(&self, now: u64) -> bool {
        !self.limits.lease_over(now)
    }

    /// Phase of what is intended at `t`, ns of this node's clock.
    pub(crate) fn phase_at(&self, t: u64) -> Phase {
        if t < self.warmup_end.get() { Phase::Warmup } else { Phase::Main }
    }

    fn atomics(&self, phase: Phase) -> &PhaseAtomics {
        &self.odometer.phases[phase.index()]
    }

    /// Closes seconds that are over at `now`.
    pub(crate) fn roll(&self, now: u64) {
        while now >= self.second_end.get() {
            self.close_second();
        }
    }

    fn close_second(&self) {
        let end = self.second_end.get();
        self.count_users(end);
        let cpu = crate::selfwatch::thread_cpu();
        let mut inner = self.inner.borrow_mut();
        let next = CoreSecond { second: inner.now.second + 1, entries: self.buffer(), ..CoreSecond::default() };
        let mut done = std::mem::replace(&mut inner.now, next);
        done.row.cpu_ms = cpu.saturating_sub(inner.cpu_before) / 1_000_000;
        inner.cpu_before += done.row.cpu_ms * 1_000_000;
        done.row.user_ms = self.user_ns.get() / 1_000_000;
        self.user_ns.set(self.user_ns.get() % 1_000_000);
        done.odometers = self.odometer.read();
        done.users = done.users.max(self.users.get());
        done.records_seen = inner.records_seen;
        done.start_skew = inner.start_skew;
        inner.now.traffic = vec![Default::default(); done.traffic.len()];
        self.second_end.set(end + SECOND);
        let (kept, lines) = (std::mem::take(&mut inner.kept), std::mem::take(&mut inner.lines));
        drop(inner);
        if !kept.is_empty() {
            self.send(Part::Kept(kept));
        }
        self.send_lines(lines);
        self.send(Part::Second(Box::new(done)));
    }

    fn buffer(&self) -> Vec<Entry> {
        self.pool.lock().ok().and_then(|mut pool| pool.pop()).unwrap_or_default()
    }

    fn send(&self, part: Part) {
        // the aggregator outlives the cores; if it is gone the engine is being torn down
        self.out.send((self.core, part)).ok();
    }

    fn send_lines(&self, lines: Vec<Line>) {
        if !lines.is_empty() && self.backlog.load(Ordering::Relaxed) < MOST_LINES {
            self.backlog.fetch_add(lines.len(), Ordering::Relaxed);
            self.send(Part::Lines(lines));
        }
    }

    /// Gives a kept request away.
    pub(crate) fn keep(&self, one: Kept) {
        let kept = &mut self.inner.borrow_mut().kept;
        if kept.capacity() == 0 {
            // growing would copy; so little at once is never missed
            kept.reserve_exact(KEPT);
        }
        kept.push(one);
        if kept.len() == KEPT {
            self.send(Part::Kept(std::mem::take(kept)));
        }
    }

    /// Gives one request of those that are all wanted away.
    pub(crate) fn list(&self, line: Line) {
        let lines = &mut self.inner.borrow_mut().lines;
        lines.reserve_exact(LINES - lines.len());
        lines.push(line);
        if lines.len() == LINES {
            self.send_lines(std::mem::take(lines));
        }
    }

    /// The core's last second (even if it is not over), and the end.
    pub(crate) fn finish(&self, now: u64) {
        if self.t0.get() != u64::MAX {
            self.roll(now);
            self.second_end.set(now.max(self.second_end.get() - SECOND));
            self.close_second();
        }
        self.send(Part::Done);
    }

    /// A setup is over.
    pub(crate) fn collected(&self, collected: Collected) {
        self.send(Part::Collected(Box::new(collected)));
    }

    /// An iteration is due.
    pub(crate) fn iteration_due(&self, phase: Phase) {
        bump(&self.atomics(phase).due);
        self.inner.borrow_mut().now.due += 1;
    }

    /// An iteration was started at `now`; `was_due`: it was counted as due before.
    pub(crate) fn iteration_started(&self, phase: Phase, was_due: bool, now: u64) {
        self.roll(now);
        if !was_due {
            self.iteration_due(phase);
        }
        bump(&self.atomics(phase).iterations);
        let mut inner = self.inner.borrow_mut();
        inner.now.row.iterations += 1;
        if inner.start_skew.is_none() {
            inner.start_skew = Some(now.saturating_sub(self.from.get()));
        }
    }

    /// An iteration that was due was dropped.
    pub(crate) fn iteration_dropped(&self, phase: Phase, reason: DropReason, now: u64) {
        self.roll(now);
        bump(&self.atomics(phase).dropped[reason.index()]);
        self.inner.borrow_mut().now.row.dropped[reason.index()] += 1;
    }

    /// An iteration that was due at `due` (ns of this node's clock) never started: its time or its
    /// lease ran out.
    pub(crate) fn iteration_refused(&self, phase: Phase, due: u64, now: u64) {
        self.iteration_dropped(phase, self.holding.reason_at_end(due, now), now);
    }

    /// An iteration could not start for a limit of this machine.
    pub(crate) fn iteration_lost_here(&self, phase: Phase, was_due: bool, now: u64) {
        if !was_due {
            self.iteration_due(phase);
        }
        self.iteration_dropped(phase, DropReason::LocalError, now);
    }

    /// An iteration of the open model begins so many ns after it was due.
    pub(crate) fn dispatched(&self, lag: u64) {
        self.inner.borrow_mut().now.dispatch_lag.record(u64::from(micros(lag)));
    }

    /// This core waited so many ns to be polled.
    pub(crate) fn scheduler_lag(&self, lag: u64) {
        self.inner.borrow_mut().now.scheduler_lag.record(u64::from(micros(lag)));
    }

    /// A request starts at `now`.
    pub(crate) fn request_started(&self, phase: Phase, now: u64) {
        if now >= self.second_end.get() {
            self.roll(now);
        }
        bump(&self.atomics(phase).started);
        if phase.is_load() {
            // rows are of the load: what hooks do lies beside it
            self.inner.borrow_mut().now.row.requests_started += 1;
        }
    }

    /// A message arrived: begun and ended in one.
    pub(crate) fn message_started(&self) {
        bump(&self.atomics(Phase::Messages).started);
    }

    /// A request reached the socket.
    pub(crate) fn request_written(&self, phase: Phase) {
        bump(&self.atomics(phase).written);
    }

    /// A started request sent nothing for a limit of this machine.
    pub(crate) fn request_unsent(&self, phase: Phase) {
        bump(&self.atomics(phase).unsent);
    }

    /// A request was cut off at the end.
    pub(crate) fn request_cut_off(&self, phase: Phase) {
        bump(&self.atomics(phase).in_flight);
    }

    /// Users now alive on this core (open model: open iterations) change by `change`.
    pub(crate) fn users_changed(&self, change: i64, now: u64) {
        self.roll(now);
        self.count_users(now);
        let users = self.users.get().saturating_add_signed(change);
        self.users.set(users);
        let mut inner = self.inner.borrow_mut();
        inner.now.users = inner.now.users.max(users);
    }

    /// Users now alive on this core (open model: open iterations).
    pub(crate) fn users(&self) -> u64 {
        self.users.get()
    }

    /// Adds the user-nanoseconds lived since the last change.
    fn count_users(&self, now: u64) {
        let since = self.users_since.replace(now);
        // after a freeze the lease may have been over for long
        let lived = now.min(self.holding.users_until()).saturating_sub(since);
        self.user_ns.set(self.user_ns.get() + lived * self.users.get());
    }

    /// Records a finished request.
    pub(crate) fn record(&self, sample: &Sample, failure: Option<&Failure>) {
        if sample.ended >= self.second_end.get() {
            self.roll(sample.ended);
        }
        bump(&self.atomics(sample.phase).ended);
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if sample.phase == Phase::Main {
            inner.records_seen[usize::from(failure.is_some())] += 1;
        }
        let now = &mut inner.now;
        let at = sample.ended.saturating_sub(self.t0.get());
        let phase = sample.phase.index();
        let loads = u64::from(sample.phase.is_load());
        let mut flags = phase as u16;
        if let Some(failure) = failure {
            flags |= FAILED;
            now.row.failed += loads;
            now.failures
                .entry((sample.series, sample.phase, Arc::clone(&failure.reason)))
                .and_modify(|span| {
                    span.count += 1;
                    span.last_at = at;
                })
                .or_insert(FailureSpan { kind: failure.kind, count: 1, first_at: at, last_at: at });
        } else {
            now.row.succeeded += loads;
        }
        if sample.first_byte.is_some() {
            flags |= ANSWERED;
        }
        if let Some(setup) = sample.setup {
            now.setups.push((sample.phase, setup));
        }
        let series = usize::from(sample.series);
        if now.traffic.len() <= series {
            now.traffic.resize(series + 1, Default::default());
        }
        let traffic = &mut now.traffic[series][phase];
        traffic.sent += sample.bytes_sent;
        traffic.received += sample.bytes_received;
        if traffic.first_at == 0 {
            traffic.first_at = at.max(1);
        }
        now.entries.push(Entry {
            series: sample.series,
            flags,
            response: micros(sample.ended.saturating_sub(sample.intended)),
            lag: micros(sample.started.saturating_sub(sample.intended)),
            send: micros(sample.send),
            first_byte: micros(sample.first_byte.unwrap_or(0)),
            receive: micros(sample.receive),
        });
        if now.entries.len() >= CHUNK {
            let full = std::mem::replace(&mut now.entries, self.buffer());
            self.send(Part::Chunk(full));
        }
    }
}
