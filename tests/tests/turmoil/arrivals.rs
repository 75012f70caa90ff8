//! Arrivals of one open scenario, started when they are due by the rules of [`ld_worker::engine::Engine::assign`];
//! each ends 5 ms later with success.

use super::Sabotage;
use super::load::Place;
use ld_shared::boot::clock;
use ld_shared::frame::{FrameBody, Generator, Odometers, PhaseOdometer};
use ld_shared::load::Agenda;
use ld_shared::plan::Plan;
use ld_shared::sample::{Phase, SeriesKey};
use ld_shared::shard::Shard;
use ld_shared::snapshot::{DropReason, Snapshot};
use ld_shared::time::{Mono, RunTime, SECOND};
use ld_worker::engine::EngineEvent;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How long a request takes.
const TAKES: u64 = 5_000_000;

/// Where one engine stands. Instants are ns of this node's clock.
pub(crate) struct State {
    plan: Arc<Plan>,
    place: Place,
    worker: usize,
    events: mpsc::UnboundedSender<EngineEvent>,
    agenda: Agenda,
    t0: Option<u64>,
    lease: u64,
    /// Nothing starts from then on.
    end: u64,
    is_ordered: bool,
    pub(crate) is_aborted: bool,
    pub(crate) is_finished: bool,
    /// Open requests may take until then.
    drain: Option<u64>,
    /// Starts of open requests, by their ends.
    open: BTreeMap<(u64, u64), u64>,
    most_open: u64,
    pub(crate) odometers: Odometers,
    second: u32,
    /// What ended in it.
    counts: Snapshot,
}

impl State {
    pub(crate) fn new(plan: Arc<Plan>, place: Place, events: mpsc::UnboundedSender<EngineEvent>) -> Self {
        let scenario = &plan.scenarios[0];
        let load = Arc::new(scenario.load.open().expect("the load is open").clone());
        let (seed, most) = (scenario.arrival_seed(&plan), plan.most_arrivals(scenario));
        Self {
            agenda: Agenda::new(load, seed, scenario.first_number, most, plan.end()),
            plan,
            place,
            worker: 0,
            events,
            t0: None,
            lease: 0,
            end: u64::MAX,
            is_ordered: false,
            is_aborted: false,
            is_finished: false,
            drain: None,
            open: BTreeMap::new(),
            most_open: 0,
            odometers: Odometers::default(),
            second: 0,
            counts: Snapshot::default(),
        }
    }

    pub(crate) fn start(&mut self, worker: usize, shard: &Shard, t0: Mono) {
        self.worker = worker;
        self.t0 = Some(t0.0);
        self.second = RunTime::from(clock::mono().since(t0)).second();
        self.end = self.end.min(t0.0.saturating_add(self.plan.end().0));
        self.assign(shard);
    }

    pub(crate) fn assign(&mut self, shard: &Shard) {
        let lanes: Arc<[u16]> = shard.lanes.iter().collect();
        self.agenda.assign(shard.from, &lanes);
    }

    /// A lease, which may end a gap: what was due in it is nobody's.
    pub(crate) fn set_lease(&mut self, now: u64, until: u64) {
        let before = self.lease;
        self.lease = before.max(until);
        if now >= before && now < self.lease && self.drain.is_none() {
            self.drop_unleased(now.min(self.end), before);
        }
    }

    pub(crate) fn stop(&mut self, now: u64) {
        self.is_ordered = true;
        self.end = self.end.min(now);
    }

    fn has_lease(&self, now: u64) -> bool {
        now < self.lease || self.place.sabotage == Sabotage::NoLease
    }

    /// When the next arrival is due.
    fn next_due(&self) -> Option<u64> {
        let (_, due) = self.agenda.peek()?;
        Some(self.t0? + due.0)
    }

    fn main(&mut self) -> &mut PhaseOdometer {
        &mut self.odometers.phases[Phase::Main.index()]
    }

    fn drop_next(&mut self, reason: DropReason) {
        self.agenda.take();
        self.main().due += 1;
        self.main().dropped[reason.index()] += 1;
    }

    /// Drops what was due by `to` and was not started for want of a lease since `lapsed`.
    fn drop_unleased(&mut self, to: u64, lapsed: u64) {
        let is_gone = |due: u64| due <= to && (due >= lapsed || to - due > SECOND);
        while self.next_due().is_some_and(is_gone) {
            self.drop_next(DropReason::NoOwner);
        }
    }

    pub(crate) fn step(&mut self, now: u64) {
        let Some(t0) = self.t0.filter(|t0| now >= *t0) else { return };
        while self.second < RunTime(now - t0).second() {
            self.emit(false);
        }
        while let Some(entry) = self.open.first_entry().filter(|entry| entry.key().0 <= now) {
            let started = entry.remove();
            self.end_request(now - started);
        }
        // without a lease it waits for one, or for word of its lanes
        let is_decided = self.has_lease(now) || self.next_due().is_none_or(|due| due >= self.end);
        if now >= self.end && (self.is_ordered || is_decided) {
            self.begin_drain(now);
        }
        while self.drain.is_none() && self.next_due().is_some_and(|due| due <= now) {
            // once an arrival: the thread may have stood still
            let now = clock::mono().0;
            if !self.has_lease(now) || now >= self.end {
                break;
            }
            self.arrive(now);
        }
        if let Some(until) = self.drain
            && (self.open.is_empty() || now >= until || self.is_aborted)
        {
            self.main().requests_in_flight += self.open.len() as u64;
            self.emit(false);
            self.emit(true);
            self.is_finished = true;
        }
    }

    fn arrive(&mut self, now: u64) {
        if self.next_due().is_some_and(|due| now - due > SECOND) {
            self.drop_next(DropReason::GeneratorLate);
            return;
        }
        let Some((id, _)) = self.agenda.take() else { return };
        self.place.truth.lock().start(self.worker, id);
        let main = self.main();
        (main.due, main.iterations) = (main.due + 1, main.iterations + 1);
        if self.place.sabotage == Sabotage::Forget && id.0.is_multiple_of(50) {
            return;
        }
        let main = self.main();
        main.requests_started += 1;
        main.requests_written += 1;
        self.open.insert((now + TAKES, id.0), now);
        self.most_open = self.most_open.max(self.open.len() as u64);
        let row = self.counts.rows.entry(self.second).or_default();
        (row.requests_started, row.iterations) = (row.requests_started + 1, row.iterations + 1);
    }

    fn end_request(&mut self, took: u64) {
        self.main().requests_ended += 1;
        let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
        self.counts.phase_mut(Phase::Main).series_mut(&key).succeeded.record(took / 1_000);
        self.counts.rows.entry(self.second).or_default().succeeded += 1;
    }

    fn begin_drain(&mut self, now: u64) {
        if self.drain.is_some() {
            return;
        }
        let to = now.min(self.end);
        if !self.has_lease(now) {
            self.drop_unleased(to, 0);
        }
        while self.next_due().is_some_and(|due| due <= to) {
            self.drop_next(DropReason::GeneratorLate);
        }
        self.drain = Some(now.saturating_add(self.plan.graceful_stop.0));
    }

    /// Sends the frame of the second that is over, or the last one, which covers none.
    fn emit(&mut self, last: bool) {
        let mut counts = std::mem::take(&mut self.counts);
        let from_second = self.second;
        if !last {
            counts.rows.entry(from_second).or_default();
            self.second += 1;
        }
        let generator = Generator { cores: 1, users_max: self.most_open, ..Generator::default() };
        let (to_second, odometers) = (self.second, self.odometers);
        let body = FrameBody { from_second, to_second, counts, odometers, generator, last, ..FrameBody::default() };
        // an error means that the link has dropped the run
        self.events.send(EngineEvent::Span(Box::new(body))).ok();
    }

    /// When there is something to do, unless something changes.
    pub(crate) fn deadline(&self) -> u64 {
        let Some(t0) = self.t0 else { return u64::MAX };
        let second = t0 + (u64::from(self.second) + 1) * SECOND;
        let now = clock::mono().0;
        let next = self.next_due().filter(|_| self.drain.is_none() && self.has_lease(now));
        let end = Some(self.end).filter(|end| now < *end);
        let answer = self.open.first_key_value().map(|((at, _), _)| *at);
        [next, end, answer, self.drain].into_iter().flatten().fold(second, u64::min).max(t0)
    }
}
