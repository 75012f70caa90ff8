//! One run over the workers that are there: gather, prepare, arm, run, drain, close.
//!
//! A pure state machine: `on(now, event, …, &mut effects)` and `deadline()`. It asks no clock and
//! waits for nothing without a deadline. What was measured is [`Coordinator::measured`].

mod live;
mod moves;
mod outcome;
mod resume;
mod rules;
#[cfg(test)]
mod tests;

pub use live::ChangeError;

use super::assign::{AssignError, Share, Strength, assign};
use super::handover::{Part, Tenures};
use super::ledger::{Ledger, Put};
use super::membership::Registry;
use super::rule_watch::Watch;
use super::throttles::Dealer;
use crate::journal::Entry;
use crate::run::{Event as RunEvent, Progress};
use bytes::Bytes;
use ld_shared::frame::Frame;
use ld_shared::id::{Digest, Epoch, RunId, SessionId, WorkerName};
use ld_shared::lanes::LaneSet;
use ld_shared::load::{Program, What};
use ld_shared::message::{PREPARE_WITHIN, RunBeat, ToMaster, ToWorker};
use ld_shared::plan::{AtEnd, Dealing, Plan, Pool};
use ld_shared::record::RecordBatch;
use ld_shared::threshold::Threshold;
use ld_shared::throttle::ThrottleShare;
use ld_shared::ticket::Dispenser;
use ld_shared::time::{Mono, RunTime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Attempts to start everybody at one instant.
const ARM_ATTEMPTS: u32 = 3;
/// After the planned end and `graceful_stop`, how long last frames may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// After an abort, how long last frames may take.
const ABORT_WITHIN: Duration = Duration::from_secs(5);

/// After the first worker found a source empty, how long others may use up the rows that they have.
const USE_UP_WITHIN: Duration = Duration::from_secs(1);
/// After everybody's last frame, how long records that are left may take.
const RECORDS_WITHIN: Duration = Duration::from_secs(10);
/// The same after an abort.
const ABORTED_RECORDS_WITHIN: Duration = Duration::from_secs(2);

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
#[expect(clippy::large_enum_variant, reason = "beats pass through by value; nothing is kept")]
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

/// One run.
#[derive(Clone, Debug)]
pub struct Coordinator {
    spec: Spec,
    state: State,
    began: Mono,
    participants: BTreeMap<SessionId, Participant>,
    ledger: Ledger,
    tickets: Dispenser,
    throttles: Dealer,
    /// A source whose end is the end of the test: when it was first found empty, and by whom.
    empty: Option<Empty>,
    /// The plan itself ended the test early.
    used_up: bool,
    events: Vec<RunEvent>,
    /// Rules, and what they have seen up to second `judged_to`.
    watch: Watch,
    judged_to: u32,
    /// Run time at which somebody, or a rule, stopped it.
    stopped_at: Option<RunTime>,
    aborted: bool,
    stopped_by_rule: bool,
    closed_at: Option<Mono>,
    /// The newest assignment's number.
    epoch: Epoch,
    /// Parts that change hands once those who give them up have confirmed it.
    handover: Option<Handover>,
    /// A part that nobody owns.
    unowned: Part,
    /// Why the run was ended as a failure.
    failed: Option<String>,
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

#[derive(Clone, Debug)]
struct Participant {
    name: WorkerName,
    cores: u32,
    stage: Stage,
    asked_blobs: bool,
    strength: Strength,
    /// What it owns, and since when.
    tenures: Tenures,
    /// Its shares of limits at the start.
    throttles: Vec<ThrottleShare>,
    /// Spans in which it was lost before it came back.
    absences: Vec<Absence>,
    beat: Option<RunBeat>,
    top_rate: f64,
    clock: ld_shared::message::ClockReport,
    was_late: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    /// Got the plan.
    Asked,
    /// Can start.
    Ready,
    /// Will start at the instant of this attempt.
    Armed(u32),
    /// Its last frame is in.
    Finished,
    /// Said goodbye after its last frame, before the others ended.
    Left { at: RunTime },
    /// Gone: it started nothing after `until`. `silent`: it may come back.
    Lost { at: RunTime, until: RunTime, silent: bool, how: String },
}

/// A worker was lost, and came back.
#[derive(Clone, Debug)]
struct Absence {
    from: RunTime,
    to: RunTime,
    how: String,
}

impl Participant {
    fn makes_load(&self) -> bool {
        matches!(self.stage, Stage::Armed(_))
    }
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
            tickets,
            events: Vec::new(),
            watch,
            judged_to: 0,
            stopped_at: None,
            aborted: false,
            stopped_by_rule: false,
            throttles: Dealer::default(),
            empty: None,
            used_up: false,
            closed_at: None,
            epoch: Epoch(1),
            handover: None,
            unowned: Part::default(),
            failed: None,
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
            State::Gathering { until }
            | State::Preparing { until }
            | State::Arming { until, .. }
            | State::Draining { until, .. }
            | State::Collecting { until, .. } => Some(*until),
            State::Running { t0 } => {
                let empty = self.empty.as_ref().map(|empty| empty.until);
                self.planned_close(*t0).into_iter().chain(empty).chain(self.nobody_back_by()).min()
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
        match event {
            Event::Message(session, message) => self.on_message(now, session, message, effects),
            Event::Lost { session, until, silent, how } => self.on_lost(now, session, (until, silent, how), effects),
            Event::Returned(session) => self.on_returned(now, session, registry, effects),
            Event::Change(what, by) => self.on_change(now, what, &by, effects),
            Event::Stop => self.on_stop(now, effects),
            Event::Abort => self.on_abort(now, effects),
            Event::Joined | Event::Tick => {}
        }
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

    fn planned_close(&self, t0: Mono) -> Option<Mono> {
        let plan = &self.spec.plan;
        let end = plan.test_time?.0.saturating_add(plan.graceful_stop.0);
        Some(t0.after(Duration::from_nanos(end)).after(CLOSE_WITHIN))
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
            }
            ToMaster::CannotPrepare { run, text } if ours(&run) && !participant.makes_load() => {
                let worker = participant.name.to_string();
                if self.t0().is_some() {
                    self.participants.remove(&session);
                    self.note(now, format!("worker {worker} joined and cannot take part: {text}"), &worker);
                } else {
                    self.close(now, Some(RunError::CannotPrepare { worker, text }), effects);
                }
            }
            ToMaster::Armed { run, attempt } if ours(&run) => {
                if matches!(participant.stage, Stage::Ready | Stage::Armed(_)) {
                    participant.stage = Stage::Armed(attempt);
                }
            }
            ToMaster::Beat(beat) => {
                participant.clock = beat.clock.unwrap_or(participant.clock);
                let report = beat.run.filter(|run| run.run == self.spec.run);
                if let Some(report) = report {
                    self.throttles.report(session, report.at, report.throttles.clone());
                    participant.take_report(report);
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
            ToMaster::Frame { frame, sealed_at } => self.on_frame(now, session, *frame, sealed_at, effects),
            ToMaster::Records(batch) => self.on_records(session, *batch, effects),
            ToMaster::Goodbye { text } => {
                self.ledger.end_records(session);
                if participant.stage == Stage::Finished {
                    self.on_left(now, session, &text, effects);
                } else {
                    let how = format!("it left without its last frame: {text}");
                    self.on_lost(now, session, (now, false, how), effects);
                }
            }
            // messages of another run are late, and a second hello is nothing to us
            ToMaster::Hello(_)
            | ToMaster::ProgramSet { .. }
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

    fn on_frame(&mut self, now: Mono, session: SessionId, frame: Frame, sealed_at: RunTime, effects: &mut Vec<Effect>) {
        let seq = frame.key.seq;
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
        let part = self.watch.part(&frame, sealed_at);
        let put = self.ledger.put(&frame, sealed_at, self.run_now(now));
        if let (Put::New, Some(part)) = (&put, part) {
            self.watch.add(part);
        }
        if put == Put::New {
            effects.push(Effect::Journal(Box::new(Entry::Frame { frame: Box::new(frame), sealed_at })));
        }
        match put {
            Put::New | Put::Duplicate => {
                let record_limits = self.ledger.record_limits();
                let run = self.spec.run.clone();
                effects.push(Effect::Send(session, ToWorker::FrameAck { run, seq, record_limits }));
            }
            Put::Refused(fault) => effects.push(Effect::Hangup(session, format!("it sent a {fault}"))),
        }
        let finished = self.ledger.session(session).is_some_and(|ledger| ledger.finished);
        if let Some(participant) = self.participants.get_mut(&session)
            && finished
            && participant.makes_load()
        {
            participant.stage = Stage::Finished;
            self.on_finished(now, session, effects);
        }
    }

    fn on_records(&mut self, session: SessionId, mut batch: RecordBatch, effects: &mut Vec<Effect>) {
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
        let Some(participant) = self.participants.get_mut(&session) else { return };
        let worker = participant.name.to_string();
        let Some(t0) = started else {
            self.close(now, Some(RunError::LostBeforeStart { worker, how }), effects);
            return;
        };
        if participant.makes_load() {
            // clocks may differ by the error of their comparison
            let until = until.since(t0) + Duration::from_nanos(participant.clock.error);
            participant.stage = Stage::Lost { at, until: until.into(), silent, how: how.clone() };
            self.throttles.lose(now, session);
            self.note(now, format!("worker {worker} was lost: {how}"), &worker);
            self.on_gone(now, session, effects);
        } else if !matches!(participant.stage, Stage::Finished | Stage::Left { .. } | Stage::Lost { .. }) {
            // joined in mid-run and owns nothing yet
            self.participants.remove(&session);
        } else if participant.stage == Stage::Finished && self.spec.plan.iterations.is_none() {
            // it ended before the test did, and its goodbye was lost with its connection
            self.on_left(now, session, &how, effects);
        }
    }

    fn on_stop(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Gathering { .. } | State::Preparing { .. } | State::Arming { .. } => {
                self.close(now, Some(RunError::Stopped), effects);
            }
            State::Running { t0 } => self.drain(now, *t0, "stopped", "user", effects),
            State::Draining { .. } | State::Collecting { .. } | State::Closed { .. } => {}
        }
    }

    /// Lets everybody start nothing more.
    fn drain(&mut self, now: Mono, t0: Mono, what: &str, by: &str, effects: &mut Vec<Effect>) {
        self.stopped_at = Some(self.run_now(now));
        self.note(now, what, by);
        self.tell_all(effects, |run| ToWorker::Stop { run });
        self.state = State::Draining { t0, until: self.drained_by(now) };
    }

    /// A worker's users find no row in a source. If that ends the test, those workers that were
    /// given rows of it may use them up first, for a moment.
    fn on_empty(&mut self, now: Mono, session: SessionId, pool: Pool) {
        let Pool::Source(index) = pool else { return };
        let dealing = self.spec.plan.sources.get(index as usize).map(|source| source.dealing);
        if dealing != Some(Dealing::Once(AtEnd::StopTest)) {
            return;
        }
        let until = now.after(USE_UP_WITHIN);
        let empty = self.empty.get_or_insert_with(|| Empty { pool, until, said: BTreeSet::new() });
        if empty.pool == pool {
            empty.said.insert(session);
        }
    }

    /// Ends the test if a source that is to end it is used up.
    fn end_with_source(&mut self, now: Mono, t0: Mono, effects: &mut Vec<Effect>) {
        let Some(Empty { pool: pool @ Pool::Source(index), until, said }) = &self.empty else { return };
        let uses_up = |(session, p): (&SessionId, &Participant)| {
            p.makes_load() && !said.contains(session) && self.tickets.granted(*pool, *session) > 0
        };
        if now < *until && self.participants.iter().any(uses_up) {
            return;
        }
        let name = self.spec.plan.sources.get(*index as usize).map(|source| source.name.to_string());
        self.used_up = true;
        let what = format!("ended: the data source `{}` has no row left", name.unwrap_or_default());
        self.drain(now, t0, &what, "at_end", effects);
    }

    /// Sends new shares of the limits on the rate of requests, if there are any.
    fn deal_throttles(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        for order in self.throttles.turn(now) {
            let (run, number, parts) = (self.spec.run.clone(), order.number, order.parts);
            effects.push(Effect::Send(order.session, ToWorker::Throttles { run, number, parts }));
        }
    }

    fn on_abort(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Gathering { .. } | State::Preparing { .. } | State::Arming { .. } => {
                self.close(now, Some(RunError::Stopped), effects);
            }
            State::Running { t0 } | State::Draining { t0, .. } => {
                let t0 = *t0;
                self.stopped_at = self.stopped_at.or(Some(self.run_now(now)));
                self.aborted = true;
                self.note(now, "aborted", "user");
                self.tell_all(effects, |run| ToWorker::Abort { run });
                self.state = State::Draining { t0, until: now.after(ABORT_WITHIN) };
            }
            State::Collecting { .. } => self.close(now, None, effects),
            State::Closed { .. } => {}
        }
    }

    fn tell_all(&self, effects: &mut Vec<Effect>, message: impl Fn(RunId) -> ToWorker) {
        for (session, participant) in &self.participants {
            if !matches!(participant.stage, Stage::Lost { .. } | Stage::Left { .. }) {
                effects.push(Effect::Send(*session, message(self.spec.run.clone())));
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
            State::Arming { attempt, t0, until } => self.await_armed(now, (attempt, t0, until), registry, effects),
            State::Running { t0 } => {
                if self.nobody_back_by().is_some_and(|until| now >= until) {
                    self.close(now, Some(RunError::NobodyBack), effects);
                } else if self.nobody_works(now) {
                    self.collect(now, t0, effects);
                } else if self.planned_close(t0).is_some_and(|until| now >= until) {
                    self.close(now, None, effects);
                } else {
                    self.invite(registry, effects);
                    self.balance(now, effects);
                    self.deal_throttles(now, effects);
                    self.end_with_source(now, t0, effects);
                }
            }
            State::Draining { t0, until } => {
                if self.nobody_works(now) {
                    self.collect(now, t0, effects);
                } else if now >= until {
                    self.close(now, None, effects);
                }
            }
            State::Collecting { until, .. } => {
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

    /// Everything is counted; only records may still be missing.
    fn collect(&mut self, now: Mono, t0: Mono, effects: &mut Vec<Effect>) {
        if self.ledger.awaits_records() {
            let within = if self.aborted { ABORTED_RECORDS_WITHIN } else { RECORDS_WITHIN };
            self.state = State::Collecting { t0, until: now.after(within) };
        } else {
            self.close(now, None, effects);
        }
    }

    fn gather(&mut self, now: Mono, until: Mono, registry: &Registry, effects: &mut Vec<Effect>) {
        let expected = self.spec.expected.max(1);
        if registry.len() < expected {
            if now < until {
                return;
            }
            if !self.spec.allow_missing || registry.is_empty() {
                let names: Vec<String> = registry.members().map(|(_, member)| member.name.to_string()).collect();
                let (present, waited) = (registry.len(), self.spec.wait);
                self.close(now, Some(RunError::MissingWorkers { present, expected, waited, names }), effects);
                return;
            }
            self.note(now, format!("started with {} of {expected} workers", registry.len()), "on_missing_workers");
        }
        self.take_in(registry, effects);
        self.state = State::Preparing { until: now.after(PREPARE_WITHIN) };
    }

    fn await_ready(&mut self, now: Mono, until: Mono, registry: &Registry, effects: &mut Vec<Effect>) {
        let strength = |p: &Participant| (p.stage == Stage::Ready).then_some(p.strength);
        let strengths: Option<Vec<Strength>> = self.participants.values().map(strength).collect();
        let Some(strengths) = strengths else {
            if now >= until {
                let late = self.participants.values().filter(|p| p.stage == Stage::Asked);
                let workers = late.map(|p| p.name.to_string()).collect();
                self.close(now, Some(RunError::NotReady { workers, waited: PREPARE_WITHIN }), effects);
            }
            return;
        };
        match assign(&self.spec.plan, &strengths) {
            Err(error) => self.close(now, Some(error.into()), effects),
            Ok(shares) => {
                let wanted: u64 = shares.iter().map(|share| share.wanted_in_flight).sum();
                let given: u64 = shares.iter().flat_map(|share| &share.max_in_flight).sum();
                if given < wanted {
                    let what = format!("max_in_flight lowered from {wanted} to {given}: open-file limits");
                    self.note(now, what, "preflight");
                }
                let parts = |share: &Share| share.throttles.iter().map(|throttle| throttle.parts).collect();
                let held = self.participants.keys().copied().zip(shares.iter().map(parts)).collect();
                self.throttles = Dealer::new(&self.spec.plan.limits(), held);
                for (participant, share) in self.participants.values_mut().zip(shares) {
                    let Share { lanes, max_in_flight, throttles, .. } = share;
                    participant.tenures = Tenures::first(Part { lanes, caps: max_in_flight });
                    participant.throttles = throttles;
                }
                self.arm(now, 1, registry, effects);
            }
        }
    }

    /// Sets a start instant far enough off that everybody can confirm it.
    fn arm(&mut self, now: Mono, attempt: u32, registry: &Registry, effects: &mut Vec<Effect>) {
        let error = registry.members().filter_map(|(_, member)| member.clock).map(|clock| clock.error).max();
        let round_trip = Duration::from_nanos(2 * error.unwrap_or(0));
        let (t0, until) = if self.spec.local {
            // nothing but threads between us. The one worker confirms an instant that it can keep, and
            // keeps it however late its word is read; one that came too late for it is set anew
            let t0 = now.after(Duration::from_millis(2 * 10_u64.pow(attempt)));
            (t0, t0.after(Duration::from_secs(1)))
        } else {
            let t0 = now.after((round_trip * 4 + Duration::from_millis(250)).max(Duration::from_secs(1)));
            // a new instant must reach everybody before the old one comes
            let margin = (round_trip * 2 + Duration::from_millis(100)).as_nanos();
            (t0, Mono(t0.0 - margin.min(u128::from(t0.0)) as u64))
        };
        for (session, participant) in &self.participants {
            let (run, shard) = (self.spec.run.clone(), Box::new(self.shard(*session, participant)));
            effects.push(Effect::Send(*session, ToWorker::Arm { run, attempt, t0, shard }));
        }
        self.state = State::Arming { attempt, t0, until };
    }

    fn await_armed(
        &mut self,
        now: Mono,
        (attempt, t0, until): (u32, Mono, Mono),
        registry: &Registry,
        effects: &mut Vec<Effect>,
    ) {
        let late = self.participants.values().filter(|p| p.stage != Stage::Armed(attempt));
        let late: Vec<String> = late.map(|p| p.name.to_string()).collect();
        if late.is_empty() {
            self.state = State::Running { t0 };
        } else if now >= until {
            if attempt == ARM_ATTEMPTS {
                self.close(now, Some(RunError::NotArmed { workers: late }), effects);
            } else {
                self.arm(now, attempt + 1, registry, effects);
            }
        }
    }

    fn close(&mut self, now: Mono, error: Option<RunError>, effects: &mut Vec<Effect>) {
        self.tell_all(effects, |run| ToWorker::RunClosed { run });
        let t0 = self.t0();
        if t0.is_some() {
            self.settle_silent(now);
        }
        self.ledger.close();
        self.closed_at = Some(now);
        self.state = State::Closed { t0, error };
        effects.push(Effect::Closed);
    }

    /// Whoever has not sent its last frame by now counts as lost.
    fn settle_silent(&mut self, now: Mono) {
        let at = self.run_now(now);
        for participant in self.participants.values_mut().filter(|p| p.makes_load()) {
            let how = "no last frame by the end of the run".to_owned();
            participant.stage = Stage::Lost { at, until: at, silent: true, how };
        }
    }

    /// Lanes that a worker owns by its newest assignment; none once it is gone.
    pub fn lanes_of(&self, session: SessionId) -> Option<&LaneSet> {
        let participant = self.participants.get(&session).filter(|participant| participant.makes_load())?;
        participant.tenures.newest().map(|tenure| &tenure.part.lanes)
    }

    /// Where the run stands.
    pub fn progress(&self, now: Mono, registry: &Registry) -> Progress {
        let state = match &self.state {
            State::Gathering { .. } => "waiting",
            State::Preparing { .. } | State::Arming { .. } => "preparing",
            State::Running { t0 } if now.since(*t0) > Duration::from_nanos(self.spec.plan.end().0) => "draining",
            State::Running { .. } => "running",
            State::Draining { .. } | State::Collecting { .. } => "draining",
            State::Closed { .. } => "done",
        };
        let waiting = matches!(self.state, State::Gathering { .. });
        let present = registry.members().map(|(_, member)| member.name.to_string()).collect();
        let working = || self.participants.iter().filter(|(_, p)| p.makes_load());
        let row = self.ledger.newest_common_row(working().map(|(session, _)| *session));
        let response = self.ledger.response();
        let total = self.ledger.total();
        let there = if waiting { registry.len() } else { working().count() };
        Progress {
            state,
            elapsed_s: self.t0().map_or_else(|| now.since(self.began), |t0| now.since(t0)).as_secs_f64(),
            planned_s: self.spec.plan.test_time.map(RunTime::as_secs),
            users: row.map_or(0, |(_, row)| (row.user_ms + 500) / 1_000),
            rate: row.map_or(0.0, |(_, row)| row.requests_started as f64),
            percentiles: [50.0, 95.0, 99.0].map(|p| response.percentile(p)),
            requests: response.count(),
            failures: total.phases[0].failed() + total.phases[1].failed(),
            workers: [there as u32, self.spec.expected as u32],
            present: if waiting { present } else { Vec::new() },
        }
    }
}

impl Participant {
    fn take_report(&mut self, report: RunBeat) {
        if let Some(before) = &self.beat {
            if report.at <= before.at || !report.odometers.is_after(&before.odometers) {
                return;
            }
            let started = |beat: &RunBeat| beat.odometers.of_requests().iter().map(|p| p.requests_started).sum::<u64>();
            let seconds = RunTime(report.at.0 - before.at.0).as_secs();
            self.top_rate = self.top_rate.max((started(&report) - started(before)) as f64 / seconds);
        }
        self.beat = Some(report);
    }
}
