//! The cluster's shell: one thread that owns registry and run, moves messages and keeps time.
//!
//! Everything that decides is in [`Registry`] and [`Coordinator`]; what comes in over gRPC
//! ([`super::service`]) or from the worker in this process ([`super::local`]) is an [`Input`].

mod inputs;
mod journaling;

use super::ClusterOptions;
use super::coordinator::{ChangeError, Coordinator, Effect, Event, RunError, Spec, present};
use super::greeter::NO_HEIR;
use super::membership::Registry;
use super::view::{Look, RunView, View};
use crate::journal::{self, JournalOrder, Unfinished};
use crate::record_file::LineBatch;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use inputs::INPUTS;
pub(super) use inputs::{ConnectionId, Input, Inputs, Received, RunRequest, inputs};
use journaling::{Beginning, Journaling};
use ld_shared::boot::clock;
use ld_shared::handshake::SessionKey;
use ld_shared::id::{Digest, SessionId};
use ld_shared::message::{
    BLOB_CHUNK, BeatReply, GONE_AFTER, Hello, Refusal, RefusalCode, Returning, ToMaster, ToWorker,
};
use ld_shared::time::Mono;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::DropGuard;

/// What a worker may be behind before it counts as stuck: see [`ld_shared::message::LINK_QUEUE`].
struct Connection {
    out: mpsc::Sender<ToWorker>,
    results: Option<mpsc::Sender<ToWorker>>,
    session: Option<(SessionId, Bytes)>,
    /// It is not the session's worker, which has died, but delivers what that one had measured.
    is_heir: bool,
    /// Dropped with it, it closes the connection.
    _open: Option<DropGuard>,
}

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
/// A master that was started anew knows after so long whether there is a run to take up.
const KNOWS_ITS_RUN_WITHIN: Duration = Duration::from_secs(1);
/// Messages that may wait for a worker when a chunk of a blob is sent after them, and how soon that is looked at.
const CHUNKS_AHEAD: usize = 4;
const CHUNK_APART: Duration = Duration::from_millis(2);
/// How long workers may take to answer a goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Driver {
    options: ClusterOptions,
    key: SessionKey,
    registry: Registry,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Which connection a session has.
    reached_by: BTreeMap<SessionId, ConnectionId>,
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
            connections: BTreeMap::new(),
            reached_by: BTreeMap::new(),
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
            if self.active.is_none() && !self.early.is_empty() && now >= self.opened.after(KNOWS_ITS_RUN_WITHIN) {
                // there is none
                self.let_in();
                self.carry_out();
            }
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
            Input::Opened { connection, out, open } => {
                let new = Connection { out, results: None, session: None, is_heir: false, _open: open };
                self.connections.insert(connection, new);
            }
            Input::Attach { session, secret, out, reply } => {
                let proven = |(_, known): &(SessionId, Bytes)| *known == secret;
                let id = self.reached_by.get(&session).copied();
                let found = id.and_then(|id| self.connections.get_mut(&id).zip(Some(id)));
                let found = found.filter(|(c, _)| c.session.as_ref().is_some_and(proven)).map(|(connection, id)| {
                    connection.results = Some(out);
                    id
                });
                // whoever asked may be gone already
                reply.send(found).ok();
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
        let Some(connection) = self.connections.get(&id) else { return };
        let session = connection.session.as_ref().map(|(session, _)| *session);
        let is_heir = connection.is_heir;
        match (message, session) {
            (ToMaster::Hello(hello), None) if self.is_returning(&hello) => self.take_back(id, at, &hello),
            (ToMaster::Hello(hello), None) if self.is_early(at, &hello) => self.early.push((id, at, hello)),
            (ToMaster::Hello(Hello { returning: Some(Returning { heir_of: Some(_), .. }), .. }), None) => {
                self.refuse(id, Refusal { code: RefusalCode::Hello, text: NO_HEIR.into(), retry: false });
            }
            (ToMaster::Hello(hello), None) => match self.registry.join(at, &hello) {
                Ok((session, name)) => {
                    let secret = self.key.secret(session);
                    self.belongs(id, session, &secret);
                    self.secrets.insert(session, secret.clone());
                    tracing::info!(worker = %name, cores = hello.cores, "worker joined");
                    self.send(session, ToWorker::Welcome { session, secret, name: name.to_string() });
                    self.tell(Event::Joined);
                }
                Err(refusal) => {
                    tracing::warn!(worker = hello.name, "worker refused: {}", refusal.text);
                    self.refuse(id, refusal);
                }
            },
            (ToMaster::Beat(beat), Some(session)) => {
                if !is_heir {
                    self.registry.beat(session, at, beat.clock);
                }
                let (number, sent_at) = (beat.number, beat.sent_at);
                let (replied_at, every) = (clock::mono(), self.registry.beat_every());
                let reply = BeatReply { number, sent_at, received_at: at, replied_at, every };
                self.send(session, ToWorker::BeatReply(reply));
                let heard = if is_heir {
                    Event::LastWord(session, beat.run)
                } else {
                    Event::Message(session, ToMaster::Beat(beat))
                };
                self.tell(heard);
            }
            (message @ ToMaster::Frame { .. }, Some(session)) => self.tell(Event::Message(session, message)),
            // it has nothing else to say
            (_, Some(_)) if is_heir => {}
            (ToMaster::Goodbye { text }, Some(session)) => {
                self.tell(Event::Message(session, ToMaster::Goodbye { text }));
                self.registry.leave(session);
                self.secrets.remove(&session);
                self.disconnect(id);
            }
            (message, Some(session)) => self.tell(Event::Message(session, message)),
            (_, None) => {
                let text = "its first message must be a hello: see cluster.proto".into();
                self.refuse(id, Refusal { code: RefusalCode::Hello, text, retry: false });
            }
        }
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
        if let Some(connection) = self.disconnect(id) {
            // full: then it does not read, and sees the end of the connection instead
            drop(connection.out.try_send(ToWorker::Refused(refusal)));
        }
    }

    /// Whether a worker had a part in the run that goes on, and proves that it is the same.
    fn is_returning(&self, hello: &Hello) -> bool {
        let Some(Returning { session, secret, heir_of }) = &hello.returning else { return false };
        let in_run = |run: &Coordinator| heir_of.as_ref().is_none_or(|of| of == run.run()) && run.may_return(*session);
        self.active.as_ref().is_some_and(|active| in_run(&active.coordinator))
            && self.secrets.get(session) == Some(secret)
    }

    /// Whether a worker comes back before this master knows whether it takes a run up.
    fn is_early(&self, at: Mono, hello: &Hello) -> bool {
        let young = at < self.opened.after(KNOWS_ITS_RUN_WITHIN);
        hello.returning.is_some() && self.active.is_none() && young && self.early.len() < INPUTS
    }

    /// A worker of the run is there again over another connection, which replaces the one it had; or its heir is.
    fn take_back(&mut self, id: ConnectionId, at: Mono, hello: &Hello) {
        let Some(Returning { session, secret, heir_of }) = hello.returning.clone() else { return };
        if heir_of.is_some() {
            return self.let_heir_in(id, at, (session, secret), hello.name.clone());
        }
        self.hang_up(session);
        self.belongs(id, session, &secret);
        let name = self.registry.rejoin(at, session, hello);
        tracing::info!(worker = %name, "worker is back");
        self.send(session, ToWorker::Welcome { session, secret, name: name.to_string() });
        self.tell(Event::Returned(session));
    }

    /// Somebody delivers what a worker of the run had measured when its process died. The registry learns of that only.
    fn let_heir_in(&mut self, id: ConnectionId, at: Mono, (session, secret): (SessionId, Bytes), name: String) {
        if self.connection(session).is_some_and(|connection| !connection.is_heir) {
            self.registry.disconnect(session, at, "its process died".into());
        }
        self.hang_up(session);
        self.belongs(id, session, &secret);
        self.connections.entry(id).and_modify(|connection| connection.is_heir = true);
        self.send(session, ToWorker::Welcome { session, secret, name });
    }

    fn on_closed(&mut self, id: ConnectionId, seen: &str) {
        let closed = self.disconnect(id).filter(|connection| !connection.is_heir);
        let Some(Connection { session: Some((session, _)), .. }) = closed else { return };
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
        if self.connection(session).is_some_and(|connection| connection.is_heir) {
            return self.hang_up(session);
        }
        if self.active.as_ref().is_some_and(|active| active.coordinator.may_return(session)) {
            self.registry.cut_off(session, how);
            self.hang_up(session);
        } else {
            self.lose(session, (clock::mono(), true), how);
        }
    }

    fn lose(&mut self, session: SessionId, (until, silent): (Mono, bool), how: String) {
        if let Some(member) = self.registry.member(session) {
            tracing::warn!(worker = %member.name, "worker lost: {how}");
            self.tell(Event::Lost { session, until, silent, how });
            if self.active.is_some() {
                self.registry.lose(session);
            } else {
                self.registry.leave(session);
                self.secrets.remove(&session);
            }
        }
        if self.connection(session).is_some_and(|connection| !connection.is_heir) {
            self.hang_up(session);
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

    /// Takes a run up that another master began: its workers, which make load all the while, come back.
    fn take_up(&mut self, request: RunRequest, unfinished: Unfinished, journal: JournalOrder) {
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

    /// Workers that said they come back, and to what was not known: now it is.
    fn let_in(&mut self) {
        for (id, at, hello) in std::mem::take(&mut self.early) {
            self.on_message(id, at, ToMaster::Hello(hello));
        }
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
            Effect::SendBlobs(session, digests) => self.send_blobs(session, digests),
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

    fn connection(&self, session: SessionId) -> Option<&Connection> {
        self.connections.get(self.reached_by.get(&session)?)
    }

    /// A connection is that of a session from now on.
    fn belongs(&mut self, id: ConnectionId, session: SessionId, secret: &Bytes) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.session = Some((session, secret.clone()));
            self.reached_by.insert(session, id);
        }
    }

    /// Lets go of a connection, which ends it.
    fn disconnect(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if let Some((session, _)) = &connection.session
            && self.reached_by.get(session) == Some(&id)
        {
            self.reached_by.remove(session);
        }
        Some(connection)
    }

    fn hang_up(&mut self, session: SessionId) {
        if let Some(id) = self.reached_by.get(&session).copied() {
            self.disconnect(id);
        }
    }

    fn send(&mut self, session: SessionId, message: ToWorker) {
        let Some(connection) = self.connection(session) else { return };
        let out = match (&message, &connection.results) {
            (ToWorker::FrameAck { .. } | ToWorker::RecordAck { .. }, Some(results)) => results,
            _ => &connection.out,
        };
        match out.try_send(message) {
            // if its connection has ended, that is on its way to us
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => self.cut_off(session, "it reads nothing of what it is sent".into()),
        }
    }

    /// Chunks of blobs go out as fast as the worker takes them, between other messages: few of them wait at a time, so
    /// that no answer to a beat waits long, nor finds the queue full.
    fn send_blobs(&self, session: SessionId, digests: Vec<Digest>) {
        let (Some(connection), Some(active)) = (self.connection(session), &self.active) else { return };
        let (out, blobs) = (connection.out.clone(), Arc::clone(&active.blobs));
        tokio::spawn(async move {
            for digest in digests {
                let Some(blob) = blobs.get(&digest) else { return };
                let total = blob.len() as u64;
                let mut offset = 0;
                loop {
                    let end = (offset + BLOB_CHUNK).min(blob.len());
                    let data = blob.slice(offset..end);
                    let chunk = ToWorker::Blob { digest: digest.clone(), total, offset: offset as u64, data };
                    while out.capacity() + CHUNKS_AHEAD < out.max_capacity() {
                        tokio::time::sleep(CHUNK_APART).await;
                    }
                    if out.send(chunk).await.is_err() {
                        return;
                    }
                    offset = end;
                    if offset == blob.len() {
                        break;
                    }
                }
            }
        });
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
        for connection in self.connections.values() {
            // full: it does not read, and sees the end of the connection instead
            drop(connection.out.try_send(ToWorker::Goodbye { text: "the master is done".into() }));
        }
        let gone = async {
            while self.connections.values().any(|c| c.session.is_some()) {
                match received.next().await {
                    Some(
                        Input::Closed { connection, .. }
                        | Input::Message { connection, message: ToMaster::Goodbye { .. }, .. },
                    ) => {
                        self.disconnect(connection);
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
