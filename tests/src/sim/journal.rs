//! What the master's shell journals, and what it holds back until that is committed: the real
//! [`Promises`] over the real journal, whose disk is a model.

use super::Sabotage;
use chrono::DateTime;
use ld_master::cluster::coordinator::{Coordinator, Effect, Event};
use ld_master::cluster::membership::Registry;
use ld_master::cluster::promises::{Joined, Promise, Promises, follows};
use ld_master::journal::{Control, Entry, Gate, Journal, MemoryJournal, Order, Recovered, Started};
use ld_shared::id::{Digest, SessionId};
use ld_shared::message::ToWorker;
use ld_shared::time::{Mono, RunTime};

/// The journal of a run, and what waits for it.
#[derive(Debug)]
pub(crate) struct Log {
    /// The disk that outlives the master.
    pub(crate) disk: MemoryJournal,
    gate: Gate<Effect>,
    newest: u64,
    promises: Promises,
    sabotage: Sabotage,
}

/// What proves a session.
pub(crate) fn secret(session: SessionId) -> Vec<u8> {
    session.0.to_le_bytes().to_vec()
}

impl Log {
    pub(crate) fn new(order: Order, sabotage: Sabotage) -> Self {
        let disk = MemoryJournal::new(&order);
        let mut log = Self { disk, gate: Gate::default(), newest: 0, promises: Promises::default(), sabotage };
        log.append(Entry::Order(Box::new(order), std::collections::BTreeMap::new()));
        log.control(Control::Term(1));
        log
    }

    /// Over what another master left.
    pub(crate) fn resume(disk: MemoryJournal, recovered: &Recovered, sabotage: Sabotage) -> Self {
        let mut log =
            Self { newest: disk.committed(), disk, gate: Gate::default(), promises: Promises::of(recovered), sabotage };
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
        if let Effect::Journal(entry) = effect {
            self.append(*entry);
            return None;
        }
        let joined = |session| Joined::of(registry, session, secret(session));
        let Promise { entries, waits } = self.promises.of_effect(&effect, ran, joined);
        for entry in entries {
            self.append(entry);
        }
        // planted faults: said before it is on the disk
        let early = match &effect {
            Effect::Send(_, ToWorker::FrameAck { .. } | ToWorker::RunClosed { .. }) => {
                self.sabotage == Sabotage::AcknowledgeEarly
            }
            Effect::Send(_, ToWorker::Tickets { .. }) => self.sabotage == Sabotage::GrantEarly,
            _ => false,
        };
        let waits = waits || follows(&effect, &self.gate);
        if waits && !early { self.gate.hold(now, self.newest, effect) } else { Some(effect) }
    }

    /// Journals what an event tells before the coordinator acts on it.
    pub(crate) fn hear(&mut self, event: &Event, t0: Mono, now: Mono) {
        if let Some(control) = Promises::of_event(event, t0, now) {
            self.control(control);
        }
    }

    /// Journals what came of it.
    pub(crate) fn note(&mut self, coordinator: &Coordinator) {
        let started = |mono| Started { boot: "sim".into(), mono, wall: DateTime::UNIX_EPOCH };
        for control in self.promises.of_outcome(coordinator, coordinator.t0().map(started)) {
            self.control(control);
        }
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
