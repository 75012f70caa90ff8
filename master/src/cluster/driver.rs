//! The cluster's shell: one thread that owns registry and run, moves messages and keeps time.
//!
//! Everything that decides is in [`Registry`] and [`Coordinator`]; what comes in over gRPC
//! ([`super::service`]) or from the worker in this process ([`super::local`]) is an [`Input`].

mod connections;
mod inputs;
mod journaling;
mod returning;

use super::ClusterOptions;
use super::coordinator::{ChangeError, Coordinator, Effect, Event, RunError, Spec, present};
use super::greeter::NO_HEIR;
use super::membership::Registry;
use super::view::{Look, RunView, View};
use crate::record_file::LineBatch;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use connections::{Connection, Connections};
pub(super) use inputs::{ConnectionId, Input, Inputs, Received, RunRequest, inputs};
use journaling::{Beginning, Journaling};
use ld_shared::boot::clock;
use ld_shared::handshake::SessionKey;
use ld_shared::id::{Digest, SessionId};
use ld_shared::message::{Beat, BeatReply, GONE_AFTER, Hello, Refusal, RefusalCode, Returning, ToMaster, ToWorker};
use ld_shared::time::Mono;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

struct Active {
    coordinator: Coordinator,
    request: RunRequest,
    blobs: Arc<BTreeMap<Digest, Bytes>>,
    /// Wall clock of the start instant: records and the result share it.
    started_at: Option<DateTime<Utc>>,
    stopping: bool,
    aborting: bool,
    /// `None`: nothing of it is journaled.
    journaling: Option<Journaling>,
}

impl Active {
    /// Wall clock of the start instant. Compared once: a clock that is set during the run changes
    /// nothing.
    fn started_at(&mut self, now: Mono) -> Option<DateTime<Utc>> {
        let t0 = self.coordinator.t0()?;
        let since = TimeDelta::nanoseconds(now.0.cast_signed() - t0.0.cast_signed());
        Some(*self.started_at.get_or_insert_with(|| clock::wall() - since))
    }
}

/// The live line is renewed so often; the loop turns at least that often.
const TURN: Duration = Duration::from_millis(200);
/// Whatever came in is followed by a look at deadlines and at every worker, so far apart at least, and further the
/// more there are: of a thousand workers something comes in all the time.
const LOOK_APART: Duration = Duration::from_millis(20);
const LOOK_AT_ONE: Duration = Duration::from_micros(50);
/// A turn that is so much late means that the master itself slept.
const OVERSLEPT: Duration = Duration::from_millis(250);
/// How long workers may take to answer a goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Driver {
    options: ClusterOptions,
    key: SessionKey,
    registry: Registry,
    connections: Connections,
    active: Option<Active>,
    /// Proofs of the sessions that may come back to the run.
    secrets: BTreeMap<SessionId, Bytes>,
    /// Workers that came back before a run had begun.
    early: Vec<(ConnectionId, Mono, Hello)>,
    opened: Mono,
    effects: Vec<Effect>,
    /// Its own inputs, for the journal's thread.
    inputs: mpsc::WeakSender<Input>,
}

impl Driver {
    pub(super) fn new(options: ClusterOptions, key: SessionKey, inputs: mpsc::WeakSender<Input>) -> Self {
        // the key outlives this master, so numbers must not come again
        let last = u64::try_from(clock::wall().timestamp_micros()).unwrap_or(0) << 12;
        Self {
            options,
            key,
            registry: Registry::after(last),
            connections: Connections::default(),
            active: None,
            secrets: BTreeMap::new(),
            early: Vec::new(),
            opened: clock::mono(),
            effects: Vec::new(),
            inputs,
        }
    }

    /// Runs until the cluster is closed or its handle is gone.
    pub(super) async fn run(mut self, mut received: Received) {
        let mut turned = clock::mono();
        let (mut looked, mut silence, mut unseen) = (turned, None, false);
        loop {
            let now = clock::mono();
            let rest = looked.after(if unseen { self.look_apart() } else { TURN });
            let due = self.run_deadline().into_iter().chain(silence).fold(rest, Mono::min);
            let mut next = tokio::select! {
                biased;
                input = received.next() => match input {
                    Some(input) => Some(input),
                    None => return,
                },
                () = tokio::time::sleep(due.since(now)) => None,
            };
            let now = clock::mono();
            let lag = now.since(turned).saturating_sub(TURN);
            if lag > OVERSLEPT {
                tracing::warn!(lag_ms = lag.as_millis() as u64, "the master itself slept: its deadlines move");
                self.registry.extend(lag);
                if let Some(active) = &mut self.active {
                    active.coordinator.extend(lag);
                }
            }
            turned = now;
            // whatever has arrived counts before a deadline does; what goes on arriving does not hold it up
            let (idle, mut arrived) = (next.is_none(), received.waiting());
            while let Some(input) = next.take() {
                if let Input::Close(done) = input {
                    self.close(&mut received).await;
                    // nobody waits: the handle was dropped
                    done.send(()).ok();
                    return;
                }
                self.take(input);
                if arrived > 0 {
                    arrived -= 1;
                    next = received.take();
                }
            }
            self.look_for_early(now);
            let now = clock::mono();
            unseen |= !idle;
            if idle || now >= looked.after(self.look_apart()) {
                self.tick(now);
                // beats only move it away
                (looked, silence, unseen) = (now, self.registry.deadline(), false);
            }
        }
    }

    fn look_apart(&self) -> Duration {
        LOOK_APART.max(LOOK_AT_ONE * self.registry.len() as u32)
    }

    fn run_deadline(&self) -> Option<Mono> {
        self.active.as_ref().and_then(|active| active.coordinator.deadline())
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Opened { connection, out, open } => self.connections.open(connection, out, open),
            Input::Attach { session, secret, out, reply } => {
                // whoever asked may be gone already
                reply.send(self.connections.attach(session, &secret, out)).ok();
            }
            Input::Message { connection, at, message } => self.on_message(connection, at, message),
            Input::Closed { connection, seen } => self.on_closed(connection, &seen),
            Input::Change { what, by, reply } => {
                let active = self.active.as_ref().ok_or(ChangeError::NotRunning);
                let allowed = active.and_then(|active| active.coordinator.may_change(what));
                if allowed.is_ok() {
                    self.tell(Event::Change(what, by));
                }
                // whoever asked may be gone already
                reply.send(allowed).ok();
            }
            Input::Look { look, reply } => {
                // sums are whole after that
                self.tell(Event::Tick);
                let view = self.view(look);
                // whoever asked may be gone already
                reply.send(view).ok();
            }
            Input::Run(request) => self.start(*request),
            Input::Committed => self.on_committed(),
            Input::Close(_) => {}
        }
        self.carry_out();
    }

    fn on_message(&mut self, id: ConnectionId, at: Mono, message: ToMaster) {
        let Some(connection) = self.connections.get(id) else { return };
        match (message, connection.session()) {
            (ToMaster::Hello(hello), None) => self.greet(id, at, hello),
            (_, None) => {
                let text = "its first message must be a hello: see cluster.proto".into();
                self.refuse(id, Refusal { code: RefusalCode::Hello, text, retry: false });
            }
            (message, Some(session)) if connection.is_heir() => self.on_heir(session, at, message),
            (ToMaster::Beat(beat), Some(session)) => {
                self.registry.beat(session, at, beat.clock);
                self.answer(session, at, &beat);
                self.tell(Event::Message(session, ToMaster::Beat(beat)));
            }
            (ToMaster::Goodbye { text }, Some(session)) => {
                self.tell(Event::Message(session, ToMaster::Goodbye { text }));
                self.registry.leave(session);
                self.secrets.remove(&session);
                self.connections.end(id);
            }
            (message, Some(session)) => self.tell(Event::Message(session, message)),
        }
    }

    fn greet(&mut self, id: ConnectionId, at: Mono, hello: Hello) {
        if self.is_returning(&hello) {
            return self.take_back(id, at, &hello);
        }
        if self.is_early(at, &hello) {
            return self.early.push((id, at, hello));
        }
        if matches!(hello.returning, Some(Returning { heir_of: Some(_), .. })) {
            return self.refuse(id, Refusal { code: RefusalCode::Hello, text: NO_HEIR.into(), retry: false });
        }
        match self.registry.join(at, &hello) {
            Ok((session, name)) => {
                let secret = self.key.secret(session);
                self.connections.belongs(id, session, &secret, false);
                self.secrets.insert(session, secret.clone());
                tracing::info!(worker = %name, cores = hello.cores, "worker joined");
                self.send(session, ToWorker::Welcome { session, secret, name: name.to_string() });
                self.tell(Event::Joined);
            }
            Err(refusal) => {
                tracing::warn!(worker = hello.name, "worker refused: {}", refusal.text);
                self.refuse(id, refusal);
            }
        }
    }

    /// Answers a beat that was read at this instant.
    fn answer(&mut self, session: SessionId, received_at: Mono, beat: &Beat) {
        let (number, sent_at) = (beat.number, beat.sent_at);
        let (replied_at, every) = (clock::mono(), self.registry.beat_every());
        self.send(session, ToWorker::BeatReply(BeatReply { number, sent_at, received_at, replied_at, every }));
    }

    fn view(&mut self, look: Look) -> View {
        let now = clock::mono();
        let Some(active) = &mut self.active else {
            return View { workers: present(now, &self.registry), run: None };
        };
        let started_at = active.started_at(now);
        let run = RunView { started_at, ..active.coordinator.view(look) };
        View { workers: active.coordinator.workers(now, &self.registry), run: Some(run) }
    }

    fn refuse(&mut self, id: ConnectionId, refusal: Refusal) {
        if let Some(connection) = self.connections.end(id) {
            connection.send_last(ToWorker::Refused(refusal));
        }
    }

    fn on_closed(&mut self, id: ConnectionId, seen: &str) {
        let closed = self.connections.end(id).filter(|connection| !connection.is_heir());
        let Some(session) = closed.and_then(|connection| connection.session()) else { return };
        let how = format!("its connection ended ({seen})");
        // the end of a connection is no proof that load has stopped: it may come back within its lease
        if self.active.as_ref().is_some_and(|active| active.coordinator.may_return(session)) {
            self.registry.disconnect(session, clock::mono(), how);
        } else {
            self.lose(session, (clock::mono(), false), how);
        }
    }

    /// Ends the connection of a worker that may live, and hold its lease: what it owns is given away after that.
    fn cut_off(&mut self, session: SessionId, how: String) {
        if self.connections.of(session).is_some_and(Connection::is_heir) {
            return self.connections.hang_up(session);
        }
        if self.active.as_ref().is_some_and(|active| active.coordinator.may_return(session)) {
            self.registry.cut_off(session, how);
            self.connections.hang_up(session);
        } else {
            self.lose(session, (clock::mono(), true), how);
        }
    }

    fn lose(&mut self, session: SessionId, (until, silent): (Mono, bool), how: String) {
        if let Some(member) = self.registry.member(session) {
            tracing::warn!(worker = %member.name, "worker lost: {how}");
            self.tell(Event::Lost { session, until, silent, how });
            if self.active.as_ref().is_some_and(|active| active.coordinator.may_return(session)) {
                self.registry.lose(session);
            } else {
                self.registry.leave(session);
                self.secrets.remove(&session);
            }
        }
        if self.connections.has_worker(session) {
            self.connections.hang_up(session);
        }
    }

    fn tell(&mut self, event: Event) {
        self.journal_event(&event);
        if let Some(active) = &mut self.active {
            active.coordinator.on(clock::mono(), event, &self.registry, &mut self.effects);
        }
        self.journal_outcome();
    }

    fn start(&mut self, mut request: RunRequest) {
        if self.active.is_some() {
            drop(request.reply.send(Err(RunError::Busy)));
            return;
        }
        if let Some((unfinished, journal)) = request.order.resumes.take().zip(request.order.journal.clone()) {
            self.take_up(request, *unfinished, journal);
            self.let_in();
            return;
        }
        let order = &request.order;
        let mut blobs = order.blobs.clone();
        blobs.insert(order.digest.clone(), Bytes::from(order.plan.to_json()));
        let spec = Spec {
            run: order.run.clone(),
            plan: order.plan.clone(),
            digest: order.digest.clone(),
            blobs: blobs.keys().cloned().collect(),
            expected: if self.options.bind.is_none() || order.any_worker {
                1
            } else {
                self.options.expected_workers as usize
            },
            wait: self.options.wait,
            allow_missing: order.allow_missing_workers,
            thresholds: order.thresholds.clone(),
            local: self.options.bind.is_none(),
            one_worker: order.any_worker,
        };
        let beginning = Beginning { spec: &spec, blobs: &order.blobs, inputs: self.inputs.clone() };
        let journaling = order.journal.clone().map(|order| Journaling::new(order, beginning));
        let coordinator = Coordinator::new(clock::mono(), spec);
        let blobs = Arc::new(blobs);
        let (started_at, stopping, aborting) = (None, false, false);
        self.active = Some(Active { coordinator, request, blobs, started_at, stopping, aborting, journaling });
        self.let_in();
        self.tell(Event::Tick);
    }

    fn tick(&mut self, now: Mono) {
        for (session, until, how) in self.registry.gone(now) {
            let silent = how.is_none();
            let how = how.unwrap_or_else(|| format!("nothing was heard of it for {GONE_AFTER:?}"));
            self.lose(session, (until, silent), how);
        }
        if let Some(active) = &mut self.active {
            // nobody waits for the result any more: the handle's future was dropped
            let abandoned = active.request.reply.is_closed();
            let control = &active.request.control;
            let abort = !active.aborting && (control.abort.is_cancelled() || abandoned);
            let stop = !active.stopping && control.stop.is_cancelled();
            (active.aborting, active.stopping) = (active.aborting | abort, active.stopping | stop);
            if stop {
                self.tell(Event::Stop);
            }
            if abort {
                self.tell(Event::Abort);
            }
        }
        self.tell(Event::Tick);
        self.on_committed();
        self.carry_out();
        if let Some(active) = &mut self.active {
            active.started_at(now);
            let progress = active.coordinator.progress(clock::mono(), &self.registry);
            active.request.progress.send_replace(Arc::new(progress));
        }
    }

    fn carry_out(&mut self) {
        // a hang-up loses a worker, which may have effects of its own
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                if let Some(effect) = self.journaled(effect) {
                    self.act(effect);
                }
            }
        }
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Send(session, message) => self.send(session, message),
            Effect::SendBlobs(session, digests) => {
                if let Some(active) = &self.active {
                    self.connections.send_blobs(session, digests, Arc::clone(&active.blobs));
                }
            }
            Effect::WriteLines(worker, lines) => self.write_lines(worker, lines),
            Effect::Hangup(session, why) => {
                // it is not taken back
                self.secrets.remove(&session);
                self.cut_off(session, why);
            }
            Effect::Closed => self.finish(),
            // it was journaled when it came
            Effect::Journal(_) => {}
        }
    }

    fn finish(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        let gone = self.registry.forget_lost();
        self.secrets.retain(|session, _| !gone.contains(session));
        let progress = active.coordinator.progress(clock::mono(), &self.registry);
        active.request.progress.send_replace(Arc::new(progress));
        let started_at = active.started_at(clock::mono());
        let mut measured = active.coordinator.measured(clock::wall());
        if let (Ok(measured), Some(started_at)) = (&mut measured, started_at) {
            measured.started_at = started_at;
        }
        if measured.as_ref().is_err_and(|error| *error != RunError::NobodyBack)
            && let Some(journaling) = active.journaling.take()
        {
            journaling.discard();
        }
        // closed before the result is there: then it can be removed
        drop(active.journaling.take());
        // nobody waits: the future of the run was dropped
        drop(active.request.reply.send(measured));
    }

    fn write_lines(&mut self, worker: Arc<str>, lines: Bytes) {
        let Some(active) = &mut self.active else { return };
        let started_at = active.started_at(clock::mono());
        if let (Some(sink), Some(run_started)) = (&active.request.order.lines, started_at) {
            sink.offer(LineBatch { worker, run_started, lines });
        }
    }

    fn send(&mut self, session: SessionId, message: ToWorker) {
        if self.connections.send(session, message).is_err() {
            self.cut_off(session, "it reads nothing of what it is sent".into());
        }
    }

    /// Says goodbye to everybody and waits, a moment, for them to go.
    async fn close(&mut self, received: &mut Received) {
        if self.active.is_some() {
            self.tell(Event::Abort);
            self.carry_out();
            if let Some(active) = self.active.take() {
                drop(active.request.reply.send(Err(RunError::Closed)));
            }
        }
        for connection in self.connections.all() {
            connection.send_last(ToWorker::Goodbye { text: "the master is done".into() });
        }
        let gone = async {
            while self.connections.all().any(|connection| connection.session().is_some()) {
                match received.next().await {
                    Some(
                        Input::Closed { connection, .. }
                        | Input::Message { connection, message: ToMaster::Goodbye { .. }, .. },
                    ) => {
                        self.connections.end(connection);
                    }
                    Some(_) => {}
                    None => return,
                }
            }
        };
        // whoever does not go is left
        drop(tokio::time::timeout(CLOSE_WITHIN, gone).await);
    }
}
