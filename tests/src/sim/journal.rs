//! What the master's shell journals, and what it holds back until that is committed: the rules of
//! `ld_master`'s driver over its real journal, whose disk is a model.

use super::Sabotage;
use chrono::DateTime;
use ld_master::cluster::coordinator::{Coordinator, Effect, Event};
use ld_master::cluster::membership::Registry;
use ld_master::journal::{Control, Entry, Gate, Journal, MemoryJournal, Order, Recovered, Started};
use ld_shared::id::{Digest, SessionId};
use ld_shared::message::{ToMaster, ToWorker};
use ld_shared::time::{Mono, RunTime};

/// The journal of a run, and what waits for it.
#[derive(Debug)]
pub(crate) struct Log {
    /// The disk that outlives the master.
    pub(crate) disk: MemoryJournal,
    gate: Gate<Effect>,
    newest: u64,
    events: usize,
    started: bool,
    stopping: Option<bool>,
    sabotage: Sabotage,
}

/// What proves a session.
pub(crate) fn secret(session: SessionId) -> Vec<u8> {
    session.0.to_le_bytes().to_vec()
}

impl Log {
    pub(crate) fn new(order: Order, sabotage: Sabotage) -> Self {
        let disk = MemoryJournal::new(&order);
        let mut log =
            Self { disk, gate: Gate::default(), newest: 0, events: 0, started: false, stopping: None, sabotage };
        log.append(Entry::Order(Box::new(order), std::collections::BTreeMap::new()));
        log.control(Control::Term(1));
        log
    }

    /// Over what another master left.
    pub(crate) fn resume(disk: MemoryJournal, recovered: &Recovered, sabotage: Sabotage) -> Self {
        let mut log = Self {
            newest: disk.committed(),
            disk,
            gate: Gate::default(),
            events: recovered.events.len(),
            started: true,
            stopping: recovered.stopping.map(|(_, abort)| abort),
            sabotage,
        };
        log.control(Control::Term(recovered.term + 1));
        log
    }

    fn append(&mut self, entry: Entry) {
        self.newest = self.disk.append(entry);
    }

    fn control(&mut self, control: Control) {
        self.append(Entry::Control(control));
    }

    /// Whether something waits for the disk.
    pub(crate) fn is_behind(&self) -> bool {
        self.disk.committed() < self.newest
    }

    /// Journals what an effect depends on. Gives it back if it may be carried out now.
    pub(crate) fn pass(&mut self, now: Mono, ran: RunTime, effect: Effect, registry: &Registry) -> Option<Effect> {
        let waits = match &effect {
            Effect::Journal(entry) => {
                self.append((**entry).clone());
                return None;
            }
            Effect::Closed => {
                self.control(Control::Closed);
                true
            }
            Effect::Send(session, message) => self.promise(*session, message, ran, registry),
            Effect::SendBlobs(..) | Effect::WriteLines(..) | Effect::Hangup(..) => false,
        };
        // planted faults: said before it is on the disk
        let early = match &effect {
            Effect::Send(_, ToWorker::FrameAck { .. }) => self.sabotage == Sabotage::AcknowledgeEarly,
            Effect::Send(_, ToWorker::Tickets { .. }) => self.sabotage == Sabotage::GrantEarly,
            _ => false,
        };
        if waits && !early { self.gate.hold(now, self.newest, effect) } else { Some(effect) }
    }

    fn promise(&mut self, session: SessionId, message: &ToWorker, ran: RunTime, registry: &Registry) -> bool {
        match message {
            ToWorker::Prepare { .. } => {
                let member = registry.member(session);
                self.control(Control::Joined {
                    session,
                    name: member.map(|member| member.name.0.clone()).unwrap_or_default(),
                    cores: member.map_or(1, |member| member.cores),
                    secret: secret(session),
                });
                false
            }
            ToWorker::Arm { shard, .. } | ToWorker::Assign { shard, .. } => {
                self.control(Control::assigned(session, shard));
                true
            }
            ToWorker::Tickets { pool, tickets, .. } => {
                if !tickets.is_empty() {
                    self.append(Entry::Granted { pool: *pool, session, tickets: tickets.clone() });
                }
                true
            }
            ToWorker::Stop { .. } => self.stopping(ran, false),
            ToWorker::Abort { .. } => self.stopping(ran, true),
            // shares: an assignment that waits, and was made before, must not undo them afterwards
            ToWorker::FrameAck { .. }
            | ToWorker::RecordAck { .. }
            | ToWorker::Throttles { .. }
            | ToWorker::RunClosed { .. } => true,
            ToWorker::Program { .. }
            | ToWorker::Welcome { .. }
            | ToWorker::Refused(_)
            | ToWorker::Blob { .. }
            | ToWorker::BeatReply(_)
            | ToWorker::Goodbye { .. } => false,
        }
    }

    fn stopping(&mut self, at: RunTime, abort: bool) -> bool {
        if self.stopping.is_none_or(|known| abort && !known) {
            self.stopping = Some(abort);
            self.control(Control::Stopping { at, abort });
        }
        false
    }

    /// Journals what an event tells before the coordinator acts on it.
    pub(crate) fn hear(&mut self, event: &Event, t0: Mono, now: Mono) {
        let at = now.since(t0).into();
        match event {
            Event::Lost { session, until, silent, how } => {
                let until = until.since(t0).into();
                self.control(Control::Lost { session: *session, at, until, silent: *silent, how: how.clone() });
            }
            Event::Returned(session) => self.control(Control::Returned { session: *session, at }),
            Event::Message(session, ToMaster::Goodbye { text }) => {
                self.control(Control::Left { session: *session, at, text: text.clone() });
            }
            Event::Message(..) | Event::Change(..) | Event::Joined | Event::Stop | Event::Abort | Event::Tick => {}
        }
    }

    /// Journals what came of it.
    pub(crate) fn note(&mut self, coordinator: &Coordinator) {
        if let Some(mono) = coordinator.t0().filter(|_| !self.started) {
            self.started = true;
            self.control(Control::Started(Started { boot: "sim".into(), mono, wall: DateTime::UNIX_EPOCH }));
        }
        let events = coordinator.events();
        for event in events.iter().skip(self.events) {
            self.append(Entry::Control(Control::event(event)));
        }
        self.events = events.len();
    }

    /// What may be carried out now.
    pub(crate) fn release(&mut self) -> Vec<Effect> {
        self.gate.release(self.disk.committed())
    }
}

/// What the journal of a run begins with.
pub(crate) fn order(spec: &ld_master::cluster::coordinator::Spec) -> Order {
    Order {
        run: spec.run.clone(),
        command: Digest::of(b"command"),
        label: None,
        plan: spec.plan.clone(),
        digest: spec.digest.clone(),
        given: None,
        rules: Vec::new(),
        expected: spec.expected,
        wait: spec.wait,
        allow_missing: spec.allow_missing,
        local: false,
        one_worker: false,
    }
}
