//! One run over the workers that are there: gather, prepare, arm, run, drain, close.
//!
//! A pure state machine: `on(now, event, …, &mut effects)` and `deadline()`. It asks no clock and
//! waits for nothing without a deadline. What was measured is [`Coordinator::measured`].

mod beginning;
mod contract;
mod ending;
mod live;
mod moves;
mod outcome;
mod participant;
mod resume;
mod rules;
#[cfg(test)]
mod tests;
mod view;

pub use contract::{Effect, Event, RunError, Spec};
pub use live::ChangeError;
pub(super) use view::present;

use super::assign::Strength;
use super::handover::Part;
use super::ledger::{Ledger, Put};
use super::membership::Registry;
use super::rule_watch::Watch;
use super::throttles::Dealer;
use crate::journal::{Cause, Control, Entry};
use crate::run::Event as RunEvent;
use ld_shared::frame::Frame;
use ld_shared::id::{Epoch, RunId, SessionId};
use ld_shared::lanes::LaneSet;
use ld_shared::load::Program;
use ld_shared::message::{ToMaster, ToWorker};
use ld_shared::plan::{Plan, Pool};
use ld_shared::record::RecordBatch;
use ld_shared::ticket::Dispenser;
use ld_shared::time::{Mono, RunTime};
use participant::{Absence, Busiest, Participant, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A worker that joined and could not take part may be able to after so long.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// One run.
#[derive(Clone, Debug)]
pub struct Coordinator {
    spec: Spec,
    state: State,
    began: Mono,
    participants: BTreeMap<SessionId, Participant>,
    ledger: Ledger,
    /// When something was counted for the last time.
    counted_at: Mono,
    /// Whose frames were counted since the last [`Self::fold`].
    unacknowledged: BTreeSet<SessionId>,
    tickets: Dispenser,
    throttles: Dealer,
    /// A source whose end is the end of the test: when it was first found empty, and by whom.
    empty: Option<Empty>,
    events: Vec<RunEvent>,
    /// Rules, and what they have seen up to second `judged_to`.
    watch: Watch,
    judged_to: u32,
    /// Run time at which somebody, or a rule, stopped it.
    stopped_at: Option<RunTime>,
    aborted: bool,
    closed_at: Option<Mono>,
    /// The newest assignment's number.
    epoch: Epoch,
    /// Parts that change hands once those who give them up have confirmed it.
    handover: Option<Handover>,
    /// Those that joined in mid-run and could not take part, and when they are asked again.
    unable: BTreeMap<SessionId, Mono>,
    /// Those that are gone, and whose parts nobody was given yet.
    gone: Vec<SessionId>,
    /// A part that nobody owns.
    unowned: Part,
    /// Users on it for whom nobody has room, as was last said.
    without_room: u64,
    /// What was as even as it could be when that was looked at last.
    balanced: Option<Balanced>,
    /// Why the run ends early, if not because somebody asked for it.
    cause: Option<Cause>,
    /// Changes of the load, and the plan with them.
    program: Program,
    load: Arc<Plan>,
    /// It was taken up from a journal.
    resuming: Option<Resuming>,
}

/// The begin of a run that is taken up.
#[derive(Clone, Debug)]
struct Resuming {
    /// Workers are waited for, and nothing moves.
    until: Mono,
    /// Somebody of those who took part before is back.
    somebody: bool,
}

/// While this stays the same nothing has to be evened out anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Balanced {
    epoch: Epoch,
    takers: usize,
    newest: Option<SessionId>,
    free: usize,
    changes: usize,
}

/// Parts on their way from some workers to others.
#[derive(Clone, Debug)]
struct Handover {
    from: RunTime,
    /// Whose confirmation of which assignment is awaited, and what it gives up.
    donors: BTreeMap<SessionId, (Epoch, Part)>,
    /// What was given up, and confirmed.
    free: Part,
}

/// A source that ends the test has no row left for somebody's users.
#[derive(Clone, Debug)]
struct Empty {
    pool: Pool,
    /// The others have until then to use up what they were given.
    until: Mono,
    said: BTreeSet<SessionId>,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Gathering {
        until: Mono,
    },
    Preparing {
        until: Mono,
    },
    Arming {
        attempt: u32,
        t0: Mono,
        until: Mono,
        /// Who have not confirmed it.
        missing: usize,
    },
    Running {
        t0: Mono,
    },
    Draining {
        t0: Mono,
        until: Mono,
    },
    /// All load is accounted for; records are still on their way.
    Collecting {
        t0: Mono,
        until: Mono,
    },
    Closed {
        t0: Option<Mono>,
        error: Option<RunError>,
    },
}

/// What became of a worker that said goodbye too early.
fn left_early(text: &str) -> String {
    format!("it left without its last frame: {text}")
}

impl Coordinator {
    /// A run that waits for its workers.
    pub fn new(now: Mono, spec: Spec) -> Self {
        let state = State::Gathering { until: now.after(spec.wait) };
        let ledger = Ledger::new(spec.run.clone(), spec.plan.records.keep);
        let tickets = Dispenser::new(spec.plan.pools());
        let participants = BTreeMap::new();
        let watch = Watch::new(&spec.thresholds, spec.plan.warmup);
        Self {
            state,
            began: now,
            participants,
            ledger,
            counted_at: Mono(0),
            unacknowledged: BTreeSet::new(),
            tickets,
            events: Vec::new(),
            watch,
            judged_to: 0,
            stopped_at: None,
            aborted: false,
            throttles: Dealer::default(),
            empty: None,
            closed_at: None,
            epoch: Epoch(1),
            handover: None,
            unable: BTreeMap::new(),
            gone: Vec::new(),
            unowned: Part::default(),
            without_room: 0,
            balanced: None,
            cause: None,
            program: Program::default(),
            resuming: None,
            load: Arc::clone(&spec.plan),
            spec,
        }
    }

    /// The run's id.
    pub fn run(&self) -> &RunId {
        &self.spec.run
    }

    /// Whether a session has a part in the run, which goes on: it may come back to it.
    pub fn may_return(&self, session: SessionId) -> bool {
        let participant = self.participants.get(&session).filter(|p| p.tenures.newest().is_some());
        let began = matches!(self.state, State::Running { .. } | State::Draining { .. } | State::Collecting { .. });
        began && participant.is_some_and(|p| !matches!(p.stage, Stage::Left { .. }))
    }

    /// When [`Event::Tick`] is due; `None` once closed.
    ///
    /// While a test without planned end runs there is no instant of its own to wait for: the
    /// registry's deadlines watch over its workers.
    pub fn deadline(&self) -> Option<Mono> {
        match &self.state {
            State::Gathering { until } | State::Preparing { until } | State::Arming { until, .. } => Some(*until),
            State::Draining { until, .. } | State::Collecting { until, .. } => Some(self.quiet_after(*until)),
            State::Running { t0 } => {
                let empty = self.empty.as_ref().map(|empty| empty.until);
                let close = self.planned_close(*t0).map(|until| self.quiet_after(until));
                close.into_iter().chain(empty).chain(self.nobody_back_by()).min()
            }
            State::Closed { .. } => None,
        }
    }

    /// The master itself slept for `lag`: what it waits for gets that much longer.
    pub fn extend(&mut self, lag: Duration) {
        match &mut self.state {
            State::Gathering { until }
            | State::Preparing { until }
            | State::Draining { until, .. }
            | State::Collecting { until, .. } => {
                *until = until.after(lag);
            }
            // a start instant that was slept through must not move: it is armed anew
            State::Arming { .. } | State::Running { .. } | State::Closed { .. } => {}
        }
    }

    /// Whether the run is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Takes an event.
    pub fn on(&mut self, now: Mono, event: Event, registry: &Registry, effects: &mut Vec<Effect>) {
        if self.is_closed() {
            return;
        }
        if !matches!(event, Event::Message(_, ToMaster::Frame { .. } | ToMaster::Beat(_))) {
            self.fold(now, effects);
        }
        // of a large cluster messages come thousands of times a second, and half of its workers may be lost at once: what
        // looks at every worker waits for the next tick
        let has_time = !matches!(event, Event::Change(..) | Event::Stop | Event::Abort | Event::Tick);
        match event {
            Event::Message(session, message) => self.on_message(now, session, message, effects),
            Event::Lost { session, until, silent, how } => self.on_lost(now, session, (until, silent, how), effects),
            Event::Returned(session) => self.on_returned(now, session, registry, effects),
            Event::LastWord(session, word) => self.on_heir(now, session, word),
            Event::Change(what, by) => self.on_change(now, what, &by, effects),
            Event::Stop => self.on_stop(now, effects),
            Event::Abort => self.on_abort(now, effects),
            Event::Joined | Event::Tick => {}
        }
        if has_time {
            return;
        }
        self.give_away(now, effects);
        self.watch_late(now, registry);
        self.judge(now, effects);
        self.advance(now, registry, effects);
    }

    fn run_now(&self, now: Mono) -> RunTime {
        self.t0().map_or(RunTime(0), |t0| now.since(t0).into())
    }

    /// The start instant, once it is certain.
    pub fn t0(&self) -> Option<Mono> {
        match &self.state {
            State::Gathering { .. } | State::Preparing { .. } | State::Arming { .. } => None,
            State::Running { t0 } | State::Draining { t0, .. } | State::Collecting { t0, .. } => Some(*t0),
            State::Closed { t0, .. } => *t0,
        }
    }

    /// Why the run ends early, if not because somebody asked for it.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// What people and policies did so far.
    pub fn events(&self) -> &[RunEvent] {
        &self.events
    }

    pub(super) fn note(&mut self, now: Mono, what: impl Into<String>, by: &str) {
        // people and policies act a few times a run; should anything ever flood this, it stays bounded
        if self.events.len() < 1_000 {
            let event = RunEvent { at_s: self.run_now(now).as_secs(), what: what.into(), by: by.into() };
            self.events.push(event);
        }
    }

    fn on_message(&mut self, now: Mono, session: SessionId, message: ToMaster, effects: &mut Vec<Effect>) {
        let ours = |run: &RunId| *run == self.spec.run;
        let started = self.t0();
        let Some(participant) = self.participants.get_mut(&session) else { return };
        match message {
            ToMaster::NeedBlobs { run, digests } if ours(&run) => {
                let known = digests.iter().all(|digest| self.spec.blobs.contains(digest));
                if participant.asked_blobs || !known {
                    effects
                        .push(Effect::Hangup(session, "it asked twice, or for blobs that are not the plan's".into()));
                } else {
                    participant.asked_blobs = true;
                    effects.push(Effect::SendBlobs(session, digests));
                }
            }
            ToMaster::Ready { run, cores, capacity } if ours(&run) && participant.stage == Stage::Asked => {
                participant.cores = cores.max(1);
                participant.strength = Strength { cores: cores.max(1), capacity };
                participant.stage = Stage::Ready;
                let ready = Control::Ready { session, capacity };
                effects.push(Effect::Journal(Box::new(Entry::Control(ready))));
            }
            ToMaster::CannotPrepare { run, text }
                if ours(&run) && matches!(participant.stage, Stage::Asked | Stage::Ready) =>
            {
                let worker = participant.name.to_string();
                if self.t0().is_some() {
                    self.dismiss(session);
                    // it may have been busy with the run before
                    if self.unable.insert(session, now.after(ASKED_AGAIN_AFTER)).is_none() {
                        self.note(now, format!("worker {worker} joined and cannot take part: {text}"), &worker);
                    }
                } else {
                    self.close(now, Some(RunError::CannotPrepare { worker, text }), effects);
                }
            }
            ToMaster::Armed { run, attempt } if ours(&run) => self.on_armed(session, attempt),
            ToMaster::Beat(beat) => {
                participant.clock = beat.clock.unwrap_or(participant.clock);
                let report = beat.run.filter(|run| run.run == self.spec.run);
                if let (Some(report), Some(t0)) = (report, started) {
                    self.throttles.report(session, report.at, report.throttles.clone());
                    participant.take_report(report, now.since(t0).into());
                }
            }
            ToMaster::WantTickets { run, pool, want } if ours(&run) => {
                let workers = self.participants.values().filter(|p| p.makes_load()).count() as u64;
                let grant = self.tickets.grant(pool, session, want, workers);
                let (tickets, exhausted) = (grant.tickets, grant.exhausted);
                effects.push(Effect::Send(session, ToWorker::Tickets { run, pool, tickets, exhausted }));
            }
            ToMaster::PoolEmpty { run, pool } if ours(&run) => self.on_empty(now, session, pool),
            ToMaster::ThrottlesSet { run, number } if ours(&run) => self.throttles.confirm(session, number),
            ToMaster::Assigned { run, epoch } if ours(&run) => self.on_assigned(now, session, epoch, effects),
            ToMaster::Frame { frame, sealed_at } => self.on_frame(now, session, &frame, sealed_at, effects),
            ToMaster::Records(batch) => self.on_records(now, session, *batch, effects),
            ToMaster::Goodbye { text } => {
                self.ledger.end_records(session);
                if participant.stage == Stage::Finished {
                    self.on_left(now, session, &text, effects);
                } else {
                    self.on_lost(now, session, (now, false, left_early(&text)), effects);
                }
            }
            // messages of another run are late, and a second hello is nothing to us
            ToMaster::Hello(_)
            | ToMaster::NeedBlobs { .. }
            | ToMaster::Ready { .. }
            | ToMaster::CannotPrepare { .. }
            | ToMaster::Armed { .. }
            | ToMaster::PoolEmpty { .. }
            | ToMaster::Assigned { .. }
            | ToMaster::ThrottlesSet { .. }
            | ToMaster::WantTickets { .. } => {}
        }
    }

    fn on_frame(
        &mut self,
        now: Mono,
        session: SessionId,
        frame: &Frame,
        sealed_at: RunTime,
        effects: &mut Vec<Effect>,
    ) {
        if frame.key.session != session {
            effects.push(Effect::Hangup(session, "it sent a frame of another session".into()));
            return;
        }
        if frame.key.run != self.spec.run {
            // of a run that was closed while it travelled: `RunClosed` has told the worker
            return;
        }
        if self.participants.get(&session).is_some_and(|p| matches!(p.stage, Stage::Asked | Stage::Ready)) {
            effects.push(Effect::Hangup(session, "it sent a frame before it was told to start".into()));
            return;
        }
        let part = self.watch.part(frame, sealed_at);
        let put = self.ledger.put(frame, sealed_at, self.run_now(now));
        if put == Put::New {
            self.counted_at = now;
            if let Some(part) = part {
                self.watch.add(part);
            }
        }
        match put {
            Put::New | Put::Duplicate => self.unacknowledged.extend([session]),
            Put::Refused(fault) => effects.push(Effect::Hangup(session, format!("it sent a {fault}"))),
        }
    }

    /// What follows from frames that were counted since the last time: they are summed up, journaled, acknowledged, and
    /// a worker whose last one is among them has finished.
    fn fold(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        if let Some(group) = self.ledger.fold() {
            effects.push(Effect::Journal(Box::new(Entry::Frames(Box::new(group)))));
        }
        let (record_limits, at) = (self.ledger.record_limits(), self.run_now(now));
        for session in std::mem::take(&mut self.unacknowledged) {
            let Some((seq, _)) = self.ledger.counted(session) else { continue };
            let run = self.spec.run.clone();
            effects.push(Effect::Send(session, ToWorker::FrameAck { run, seq, record_limits }));
            let Some(participant) = self.participants.get_mut(&session) else { continue };
            if let Some(died) = &mut participant.died {
                died.heard = at;
            }
            if !self.ledger.has_finished(session) {
                continue;
            }
            if participant.makes_load() {
                participant.stage = Stage::Finished;
                self.on_finished(now, session, effects);
            } else if participant.return_from_loss(at, true) {
                // by its heir, which has no records
                self.ledger.end_records(session);
            }
        }
    }

    fn on_records(&mut self, now: Mono, session: SessionId, mut batch: RecordBatch, effects: &mut Vec<Effect>) {
        let seq = batch.seq;
        if batch.session != session {
            effects.push(Effect::Hangup(session, "it sent records of another session".into()));
            return;
        }
        if batch.run != self.spec.run {
            return;
        }
        let Some(participant) = self.participants.get(&session) else { return };
        let worker = Arc::clone(&participant.name.0);
        for record in &mut batch.body.kept {
            record.worker = Arc::clone(&worker);
        }
        let lines = std::mem::take(&mut batch.body.lines);
        let put = self.ledger.put_records(&batch);
        if put == Put::New {
            self.counted_at = now;
            effects.push(Effect::Journal(Box::new(Entry::Records(Box::new(batch)))));
            if !lines.is_empty() {
                effects.push(Effect::WriteLines(worker, lines));
            }
        }
        match put {
            Put::New | Put::Duplicate => {
                let (run, record_limits) = (self.spec.run.clone(), self.ledger.record_limits());
                effects.push(Effect::Send(session, ToWorker::RecordAck { run, seq, record_limits }));
            }
            Put::Refused(fault) => effects.push(Effect::Hangup(session, format!("it sent a {fault}"))),
        }
    }

    /// A worker has delivered everything and is gone: if that is before the end, others take over.
    fn on_left(&mut self, now: Mono, session: SessionId, text: &str, effects: &mut Vec<Effect>) {
        let at = self.run_now(now);
        let planned_end = at >= self.spec.plan.end() || self.stopped_at.is_some();
        let Some(participant) = self.participants.get_mut(&session).filter(|_| !planned_end) else { return };
        participant.stage = Stage::Left { at };
        let name = participant.name.to_string();
        self.note(now, format!("worker {name} left: {text}"), &name);
        self.on_gone(now, session, effects);
    }

    fn on_lost(
        &mut self,
        now: Mono,
        session: SessionId,
        (until, silent, how): (Mono, bool, String),
        effects: &mut Vec<Effect>,
    ) {
        let at = self.run_now(now);
        let started = self.t0();
        self.ledger.end_records(session);
        self.unable.remove(&session);
        let Some(participant) = self.participants.get_mut(&session) else { return };
        let worker = participant.name.to_string();
        let Some(t0) = started else {
            self.close(now, Some(RunError::LostBeforeStart { worker, how }), effects);
            return;
        };
        if participant.makes_load() {
            participant.lose(at, until.since(t0).into(), silent, how.clone());
            self.throttles.lose(now, session);
            self.note(now, format!("worker {worker} was lost: {how}"), &worker);
            self.on_gone(now, session, effects);
        } else if !matches!(participant.stage, Stage::Finished | Stage::Left { .. } | Stage::Lost { .. }) {
            // joined in mid-run and owns nothing yet
            self.dismiss(session);
        } else if participant.stage == Stage::Finished && self.spec.plan.iterations.is_none() {
            // it ended before the test did, and its goodbye was lost with its connection
            self.on_left(now, session, &how, effects);
        }
    }

    /// A worker that owned nothing takes no part.
    fn dismiss(&mut self, session: SessionId) {
        self.participants.remove(&session);
        self.ledger.dismiss(session);
    }

    /// Sends new shares of the limits on the rate of requests, if there are any.
    fn deal_throttles(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        for order in self.throttles.turn(now) {
            let (run, number, parts) = (self.spec.run.clone(), order.number, order.parts);
            effects.push(Effect::Send(order.session, ToWorker::Throttles { run, number, parts }));
        }
    }

    fn tell_all(&self, effects: &mut Vec<Effect>, message: impl Fn(SessionId, RunId) -> ToWorker) {
        for (session, participant) in &self.participants {
            if !matches!(participant.stage, Stage::Lost { .. } | Stage::Left { .. }) || participant.died.is_some() {
                effects.push(Effect::Send(*session, message(*session, self.spec.run.clone())));
            }
        }
    }

    fn watch_late(&mut self, now: Mono, registry: &Registry) {
        for (session, participant) in &mut self.participants {
            participant.was_late |= registry.is_late(*session, now);
        }
    }

    /// Goes to the next state if its time or its condition has come.
    fn advance(&mut self, now: Mono, registry: &Registry, effects: &mut Vec<Effect>) {
        match self.state.clone() {
            State::Gathering { until } => self.gather(now, until, registry, effects),
            State::Preparing { until } => self.await_ready(now, until, registry, effects),
            State::Arming { attempt, until, .. } => self.await_armed(now, (attempt, until), registry, effects),
            State::Running { t0 } => {
                if self.nobody_back_by().is_some_and(|until| now >= until) {
                    self.close(now, Some(RunError::NobodyBack), effects);
                } else if self.nobody_works(now) {
                    self.collect(now, t0, effects);
                } else if self.planned_close(t0).is_some_and(|until| now >= self.quiet_after(until)) {
                    self.close(now, None, effects);
                } else {
                    self.invite(now, registry, effects);
                    self.balance(now, effects);
                    self.deal_throttles(now, effects);
                    self.end_with_source(now, t0, effects);
                }
            }
            State::Draining { t0, until } => {
                if self.nobody_works(now) {
                    self.collect(now, t0, effects);
                } else if now >= self.quiet_after(until) {
                    self.close(now, None, effects);
                }
            }
            State::Collecting { until, .. } => {
                let until = self.quiet_after(until);
                let missing = self.ledger.awaits_records();
                if missing && now >= until {
                    self.note(now, "closed before every kept record had arrived", "records");
                }
                if !missing || now >= until {
                    self.close(now, None, effects);
                }
            }
            State::Closed { .. } => {}
        }
    }

    /// Lanes that a worker owns by its newest assignment; none once it is gone.
    pub fn lanes_of(&self, session: SessionId) -> Option<&LaneSet> {
        let participant = self.participants.get(&session).filter(|participant| participant.makes_load())?;
        participant.tenures.newest().map(|tenure| &tenure.part.lanes)
    }
}
