//! Makes frames of what the cores log, on a thread of its own.
//!
//! A second is complete when every core has rolled past it. Frames leave in order and without gaps.

use crate::engine::EngineEvent;
use crate::recorder::{ANSWERED, ChunkPool, CoreSecond, Entry, FAILED, Line, LineBacklog, Part};
use crate::sampler::RecordLimits;
use crate::selfwatch::Throttle;
use crate::series::{Names, SeriesTable};
use crate::shipper::{Shipper, Shipping};
use ld_shared::frame::{Collected, FrameBody, Generator, Odometers};
use ld_shared::latency::Latency;
use ld_shared::record::RequestLine;
use ld_shared::sample::{Phase, SeriesKey, TimingPart};
use ld_shared::snapshot::{DropReason, FailureCount, PhaseSnapshot, Row, Series, Snapshot};
use ld_shared::threshold::Selector;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc::UnboundedSender;

/// Chunk buffers kept for reuse, per core: one is filled while another is counted. A burst's are given back.
const POOLED: usize = 2;

/// The aggregator of one engine.
pub(crate) struct Aggregator {
    input: Receiver<(usize, Part)>,
    events: UnboundedSender<EngineEvent>,
    names: Names,
    /// Series of which service time and lag are kept apart, and by number which ones they are.
    details: Vec<Selector>,
    detailed: Vec<bool>,
    pool: ChunkPool,
    throttle: Throttle,
    /// Per core: the second that it fills, and whether it is done.
    cores: Vec<(u32, bool)>,
    odometers: Vec<Odometers>,
    building: BTreeMap<u32, Building>,
    next: u32,
    shipper: Shipper,
    record_limits: RecordLimits,
    backlog: LineBacklog,
    collected: Option<Box<Collected>>,
    /// Users, records seen and start skew by core, as last heard.
    users: Vec<u64>,
    seen: Vec<[u64; 2]>,
    skew: Vec<Option<u64>>,
    /// A core has closed a second: the run has begun.
    started: bool,
}

/// A second that is being put together.
#[derive(Default)]
struct Building {
    phases: [PhaseBuild; Phase::COUNT],
    row: Row,
    due: u64,
    scheduler_lag: Latency,
    cpu_max_permille: u32,
    bound_cores: u64,
    failures: Vec<(u16, Phase, Arc<str>, FailureCount)>,
    finished: usize,
}

#[derive(Default)]
struct PhaseBuild {
    series: Vec<Option<Box<Series>>>,
    service: Latency,
    lag: Latency,
    timing: [Latency; 6],
}

impl PhaseBuild {
    fn series(&mut self, id: u16) -> &mut Series {
        let id = usize::from(id);
        if self.series.len() <= id {
            self.series.resize_with(id + 1, || None);
        }
        self.series[id].get_or_insert_default()
    }
}

impl Aggregator {
    pub(crate) fn new(
        cores: usize,
        input: Receiver<(usize, Part)>,
        events: UnboundedSender<EngineEvent>,
        table: Arc<SeriesTable>,
        details: Vec<Selector>,
        pool: ChunkPool,
        shipping: Shipping,
    ) -> Self {
        Self {
            input,
            events,
            names: Names::new(table),
            details,
            detailed: Vec::new(),
            pool,
            throttle: Throttle::find(),
            cores: vec![(0, false); cores],
            odometers: vec![Odometers::default(); cores],
            building: BTreeMap::new(),
            next: 0,
            shipper: shipping.shipper,
            record_limits: shipping.limits,
            backlog: shipping.backlog,
            collected: None,
            users: vec![0; cores],
            seen: vec![[0; 2]; cores],
            skew: vec![None; cores],
            started: false,
        }
    }

    /// Works until every core is done.
    pub(crate) fn run(mut self) {
        crate::selfwatch::yield_to_load();
        while let Ok((core, part)) = self.input.recv() {
            match part {
                Part::Chunk(entries) => {
                    let second = self.cores[core].0;
                    self.count(second, entries);
                }
                Part::Second(second) => self.second(core, *second),
                Part::Kept(kept) => self.shipper.offer(self.cores[core].0, kept),
                Part::Lines(lines) => self.list(self.cores[core].0, lines),
                Part::Collected(collected) => self.collected = Some(collected),
                Part::Done => self.cores[core].1 = true,
                Part::Begin(second) => self.begin(second),
                Part::Acknowledged => self.shipper.acknowledge(),
                Part::Close => return,
            }
            self.emit();
            self.ship();
            if self.cores.iter().all(|(_, done)| *done) {
                break;
            }
        }
        self.finish();
    }

    /// The run goes on in this second, before which this worker was not there.
    fn begin(&mut self, second: u32) {
        self.next = second;
        self.cores.iter_mut().for_each(|core| core.0 = second);
    }

    fn list(&mut self, second: u32, lines: Vec<Line>) {
        self.backlog.fetch_sub(lines.len(), Ordering::Relaxed);
        for line in lines {
            let key = self.names.key(line.series);
            self.shipper.list(
                second,
                &RequestLine {
                    started_at: line.started_at,
                    request_type: key.request_type,
                    url: line.url,
                    name: key.name,
                    status: line.status,
                    response_us: line.response_us,
                    body_bytes: line.body_bytes,
                    error: line.error,
                },
            );
        }
    }

    /// Sends what single requests may leave now; the cores learn what nobody needs.
    fn ship(&mut self) {
        for (mine, limit) in self.record_limits.iter().zip(self.shipper.limits()) {
            mine.fetch_min(limit, Ordering::Relaxed);
        }
        self.shipper.thin([0, 1].map(|kind| self.record_limits[kind].load(Ordering::Relaxed)));
        let names = &mut self.names;
        while let Some(body) = self.shipper.next(|kept| names.spell(kept)) {
            // nobody listens any more: the engine is being torn down
            self.events.send(EngineEvent::Records(Box::new(body))).ok();
        }
    }

    fn count(&mut self, second: u32, mut entries: Vec<Entry>) {
        self.choose_details(&entries);
        let building = self.building.entry(second).or_default();
        for entry in &entries {
            let phase = &mut building.phases[usize::from(entry.flags & 3)];
            let response = u64::from(entry.response);
            let lag = u64::from(entry.lag);
            let series = phase.series(entry.series);
            if entry.flags & FAILED == 0 {
                series.succeeded.record(response);
            } else {
                series.failed.record(response);
            }
            if self.detailed.get(usize::from(entry.series)) == Some(&true) {
                series.service.record(response.saturating_sub(lag));
                series.lag.record(lag);
            }
            phase.lag.record(lag);
            phase.service.record(response.saturating_sub(lag));
            phase.timing[TimingPart::Send.index()].record(u64::from(entry.send));
            if entry.flags & ANSWERED != 0 {
                phase.timing[TimingPart::FirstByte.index()].record(u64::from(entry.first_byte));
                phase.timing[TimingPart::Receive.index()].record(u64::from(entry.receive));
            }
        }
        if let Ok(mut pool) = self.pool.lock()
            && pool.len() < POOLED * self.cores.len()
        {
            entries.clear();
            pool.push(entries);
        }
    }

    /// Finds out about series that were not seen before.
    fn choose_details(&mut self, entries: &[Entry]) {
        let known = self.detailed.len();
        if self.details.is_empty() || entries.iter().all(|entry| usize::from(entry.series) < known) {
            return;
        }
        self.names.refresh();
        let details = &self.details;
        let chosen = |key: &SeriesKey| details.iter().any(|selector| selector.matches(key));
        self.detailed.extend(self.names.keys().iter().skip(known).map(chosen));
    }

    fn second(&mut self, core: usize, mut part: CoreSecond) {
        self.started = true;
        let second = part.second;
        self.cores[core].0 = second + 1;
        self.odometers[core] = part.odometers;
        self.users[core] = part.users;
        self.seen[core] = part.records_seen;
        self.skew[core] = part.start_skew;
        self.count(second, std::mem::take(&mut part.entries));
        let building = self.building.entry(second).or_default();
        building.finished += 1;
        for (phase, setup) in part.setups {
            let timing = &mut building.phases[phase.index()].timing;
            for (latency, ns) in timing.iter_mut().zip(setup).filter(|(_, ns)| *ns != u64::MAX) {
                latency.record(u64::from(crate::recorder::micros(ns)));
            }
        }
        for (id, phases) in part.traffic.iter().enumerate() {
            for (index, traffic) in phases.iter().enumerate().filter(|(_, t)| t.first_at > 0) {
                let series = building.phases[index].series(id as u16);
                series.bytes_sent += traffic.sent;
                series.bytes_received += traffic.received;
                series.first_at = series.first_at.min(traffic.first_at);
            }
        }
        // order does not matter: every entry is merged by key
        building.failures.extend(part.failures.into_iter().map(|((id, phase, reason), span)| {
            let count =
                FailureCount { kind: span.kind, count: span.count, first_at: span.first_at, last_at: span.last_at };
            (id, phase, reason, count)
        }));
        building.row.merge(&part.row);
        building.due += part.due;
        // milliseconds of CPU in a second are thousandths of a core
        building.cpu_max_permille = building.cpu_max_permille.max(part.row.cpu_ms as u32);
        building.scheduler_lag.merge(&part.scheduler_lag);
        if was_limit(building, &part.dispatch_lag, &part.scheduler_lag, &part.row, part.due) {
            building.bound_cores += 1;
        }
    }

    /// Sends the seconds that every core has left behind.
    fn emit(&mut self) {
        while self.started && self.cores.iter().all(|(second, done)| *done || *second > self.next) {
            let all_done = self.cores.iter().all(|(_, done)| *done);
            if all_done && self.building.keys().all(|s| *s < self.next) {
                return;
            }
            let building = self.building.remove(&self.next).unwrap_or_default();
            let body = self.body(building);
            self.send(body);
            self.shipper.second(self.next);
            self.next += 1;
        }
    }

    fn body(&mut self, mut building: Building) -> FrameBody {
        let throttled_ms = self.throttle.take_ms();
        if throttled_ms > 50 {
            building.bound_cores = building.bound_cores.max(self.cores.len() as u64);
        }
        let mut row = building.row;
        row.bound_cores = building.bound_cores;
        let failures = building.failures;
        let mut counts = Snapshot { phases: building.phases.map(|phase| self.phase(phase)), ..Snapshot::default() };
        for (id, phase, reason, count) in failures {
            let key = self.names.key(id);
            counts.phase_mut(phase).fail(&key, &reason, count);
        }
        counts.rows.insert(self.next, row);
        FrameBody {
            from_second: self.next,
            to_second: self.next + 1,
            counts,
            odometers: self.odometers_now(),
            generator: Generator {
                cores: self.cores.len() as u32,
                cpu_max_permille: building.cpu_max_permille,
                scheduler_lag: building.scheduler_lag,
                throttled_ms,
                ..self.generator()
            },
            collected: None,
            last: false,
            records_follow: false,
        }
    }

    fn phase(&mut self, build: PhaseBuild) -> PhaseSnapshot {
        let mut phase =
            PhaseSnapshot { service: build.service, lag: build.lag, timing: build.timing, ..PhaseSnapshot::default() };
        for (id, series) in build.series.into_iter().enumerate() {
            if let Some(series) = series {
                let key = self.names.key(id as u16);
                phase.series.insert(key, *series);
            }
        }
        phase
    }

    fn odometers_now(&self) -> Odometers {
        let mut sum = Odometers::default();
        self.odometers.iter().for_each(|o| sum.add(o));
        sum
    }

    fn generator(&self) -> Generator {
        Generator {
            cores: self.cores.len() as u32,
            users_max: self.users.iter().sum(),
            records_seen: [0, 1].map(|i| self.seen.iter().map(|s| s[i]).sum()),
            start_skew: self.skew.iter().flatten().min().copied(),
            ..Generator::default()
        }
    }

    fn send(&self, body: FrameBody) {
        // nobody listens any more: the engine is being torn down
        self.events.send(EngineEvent::Span(Box::new(body))).ok();
    }

    /// Sends the last frame, then what is left of records as fast as the master takes it.
    fn finish(mut self) {
        let records_follow = self.shipper.end();
        let collected = self.collected.take();
        self.send(FrameBody { collected, ..self.last_frame(records_follow) });
        loop {
            self.ship();
            if self.shipper.is_done() {
                return;
            }
            match self.input.recv() {
                Ok((_, Part::Acknowledged)) => self.shipper.acknowledge(),
                Ok((_, Part::Close)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// The frame after the last second.
    fn last_frame(&self, records_follow: bool) -> FrameBody {
        FrameBody {
            from_second: self.next,
            to_second: self.next,
            counts: Snapshot::default(),
            odometers: self.odometers_now(),
            generator: self.generator(),
            collected: None,
            last: true,
            records_follow,
        }
    }
}

/// Whether a core was the limit in a second (ENGINEERING E7). CPU share alone never says so: a core
/// that wakes for each arrival is busy long before it is late.
fn was_limit(building: &Building, dispatch: &Latency, scheduler: &Latency, row: &Row, due: u64) -> bool {
    let late = dispatch.percentile(99.0);
    let allowed = || {
        let mut response = Latency::default();
        for series in building.phases[..Phase::LEAST].iter().flat_map(|phase| phase.series.iter().flatten()) {
            response.merge(&series.succeeded);
            response.merge(&series.failed);
        }
        response.percentile(50.0) / 10
    };
    let own = row.dropped[DropReason::GeneratorLate.index()] + row.dropped[DropReason::LocalError.index()];
    (late > 1_000 && late > allowed()) || scheduler.percentile(99.0) > 5_000 || own * 1_000 > due
}
