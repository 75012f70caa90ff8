//! What began before: a run of another master's, workers who come back to a run, and heirs of those that died.

use super::inputs::{ConnectionId, INPUTS, RunRequest};
use super::journaling::Journaling;
use super::{Active, Driver};
use crate::cluster::coordinator::{Coordinator, Event, Spec};
use crate::journal::{self, JournalOrder, Unfinished};
use bytes::Bytes;
use ld_shared::boot::clock;
use ld_shared::id::SessionId;
use ld_shared::message::{Hello, Returning, ToMaster, ToWorker};
use ld_shared::time::Mono;
use std::sync::Arc;
use std::time::Duration;

/// A master that was started anew knows after so long whether there is a run to take up.
const KNOWS_ITS_RUN_WITHIN: Duration = Duration::from_secs(1);

impl Driver {
    /// Whether a worker had a part in the run that goes on, and proves that it is the same.
    pub(super) fn is_returning(&self, hello: &Hello) -> bool {
        let Some(Returning { session, secret, heir_of }) = &hello.returning else { return false };
        let in_run = |run: &Coordinator| heir_of.as_ref().is_none_or(|of| of == run.run()) && run.may_return(*session);
        self.active.as_ref().is_some_and(|active| in_run(&active.coordinator))
            && self.secrets.get(session) == Some(secret)
    }

    /// Whether a worker comes back before this master knows whether it takes a run up.
    pub(super) fn is_early(&self, at: Mono, hello: &Hello) -> bool {
        hello.returning.is_some() && self.active.is_none() && self.is_young(at) && self.early.len() < INPUTS
    }

    fn is_young(&self, now: Mono) -> bool {
        now < self.opened.after(KNOWS_ITS_RUN_WITHIN)
    }

    /// Workers that came back early are strangers if there is no run to take up.
    pub(super) fn look_for_early(&mut self, now: Mono) {
        if self.active.is_none() && !self.early.is_empty() && !self.is_young(now) {
            self.let_in();
            self.carry_out();
        }
    }

    /// Workers that said they come back, and to what was not known: now it is.
    pub(super) fn let_in(&mut self) {
        for (id, at, hello) in std::mem::take(&mut self.early) {
            self.on_message(id, at, ToMaster::Hello(hello));
        }
    }

    /// A worker of the run is there again over another connection, which replaces the one it had; or its heir is.
    pub(super) fn take_back(&mut self, id: ConnectionId, at: Mono, hello: &Hello) {
        let Some(Returning { session, secret, heir_of }) = hello.returning.clone() else { return };
        if heir_of.is_some() {
            return self.let_heir_in(id, at, (session, secret), hello.name.clone());
        }
        self.connections.belongs(id, session, &secret, false);
        let name = self.registry.rejoin(at, session, hello);
        tracing::info!(worker = %name, "worker is back");
        self.send(session, ToWorker::Welcome { session, secret, name: name.to_string() });
        self.tell(Event::Returned(session));
    }

    /// Somebody delivers what a worker of the run had measured when its process died. The registry learns of that only.
    fn let_heir_in(&mut self, id: ConnectionId, at: Mono, (session, secret): (SessionId, Bytes), name: String) {
        if self.connections.has_worker(session) {
            self.registry.disconnect(session, at, "its process died".into());
        }
        self.connections.belongs(id, session, &secret, true);
        self.send(session, ToWorker::Welcome { session, secret, name });
    }

    /// What an heir may say: the last word of the one that died, and what that one had measured.
    pub(super) fn on_heir(&mut self, session: SessionId, at: Mono, message: ToMaster) {
        match message {
            ToMaster::Beat(beat) => {
                self.answer(session, at, &beat);
                self.tell(Event::LastWord(session, beat.run));
            }
            frame @ ToMaster::Frame { .. } => self.tell(Event::Message(session, frame)),
            _ => {}
        }
    }

    /// Takes a run up that another master began: its workers, which make load all the while, come back.
    pub(super) fn take_up(&mut self, request: RunRequest, unfinished: Unfinished, journal: JournalOrder) {
        let now = clock::mono();
        let (recovered, journaling) = Journaling::resume(journal, unfinished, self.inputs.clone());
        let order = recovered.order.clone();
        let mut blobs = recovered.blobs.clone();
        blobs.insert(order.digest.clone(), Bytes::from(order.plan.to_json()));
        let spec = Spec {
            run: order.run,
            plan: Arc::clone(&order.plan),
            digest: order.digest,
            blobs: blobs.keys().cloned().collect(),
            expected: order.expected,
            wait: order.wait,
            allow_missing: order.allow_missing,
            thresholds: request.order.thresholds.clone(),
            local: false,
            // secrets are not in the journal: who joins anew could not have them
            one_worker: order.one_worker || order.plan.secrets.is_some(),
        };
        let started = recovered.started.clone().unwrap_or_default();
        let t0 = journal::t0(&started, now, clock::wall());
        for (session, member) in &recovered.sessions {
            self.registry.reserve(*session);
            self.secrets.insert(*session, member.secret.clone());
        }
        let coordinator = Coordinator::resume(now, spec, t0, recovered);
        for (session, name, cores) in coordinator.awaited() {
            self.registry.expect(now, session, name.clone(), cores);
        }
        tracing::info!(run = %coordinator.run(), "the run is taken up where the other master left it");
        self.active = Some(Active {
            coordinator,
            request,
            blobs: Arc::new(blobs),
            started_at: Some(started.wall),
            stopping: false,
            aborting: false,
            journaling: Some(journaling),
        });
    }
}
