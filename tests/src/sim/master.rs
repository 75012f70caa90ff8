//! A model of the master's shell (`ld_master::cluster`'s driver): carries out what [`Registry`] and
//! [`Coordinator`] decide.

use super::Sabotage;
use super::journal::{Log, order, secret};
use super::net::{ConnectionId, Packet, Side};
use super::setup::{Setup, WAIT};
use super::world::Context;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use ld_master::cluster::coordinator::{Coordinator, Effect, Event, RunError, Spec};
use ld_master::cluster::membership::Registry;
use ld_master::journal::{MemoryJournal, RecoverError, book::Image};
use ld_master::run::Measured;
use ld_shared::id::{RunId, SessionId};
use ld_shared::message::{BeatReply, Hello, Refusal, RefusalCode, Returning, ToMaster, ToWorker};
use ld_shared::plan::Pool;
use ld_shared::time::{Mono, RunTime};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The driver's loop turns at least so often.
const TURN: Duration = Duration::from_millis(200);
const LOOK_APART: Duration = Duration::from_millis(20);
/// A turn that is so much late means that the master itself slept.
const OVERSLEPT: Duration = Duration::from_millis(250);

/// A master's process.
#[derive(Debug)]
pub(crate) struct Master {
    /// The index of its clock.
    index: usize,
    registry: Registry,
    connections: BTreeMap<ConnectionId, Option<SessionId>>,
    /// Those of them that are not the session's worker's.
    heirs: BTreeSet<ConnectionId>,
    coordinator: Coordinator,
    log: Log,
    effects: Vec<Effect>,
    turned: Mono,
    /// It last looked at its deadlines.
    looked: Mono,
    /// Something came since.
    unseen: bool,
    /// What the run came to.
    pub(crate) result: Option<Result<Box<Measured>, RunError>>,
    /// Granted before: what a planted fault goes by.
    granted: BTreeMap<Pool, Range<u64>>,
}

impl Master {
    pub(crate) fn new(setup: &Setup, context: &Context) -> Self {
        let spec = spec(setup);
        let now = context.mono(setup.workers);
        let log = Log::new(order(&spec), context.sabotage);
        Self::with(setup, now, Registry::default(), Coordinator::new(now, spec), log)
    }

    /// Takes up over what another master left; `None`: there is nothing to take up.
    pub(crate) fn resume(setup: &Setup, context: &Context, image: Image, life: u64) -> Option<Self> {
        let (disk, recovered) = match MemoryJournal::resume(image) {
            // killed before it had said what its run is
            Err(RecoverError::Empty) => return None,
            resumed => resumed.expect("what was committed can be read"),
        };
        let t0 = recovered.started.as_ref().filter(|_| !recovered.closed)?.mono;
        let now = context.mono(setup.workers);
        let mut registry = Registry::after(1_000 * life);
        recovered.sessions.keys().for_each(|session| registry.reserve(*session));
        let log = Log::resume(disk, &recovered, context.sabotage);
        let coordinator = Coordinator::resume(now, spec(setup), t0, recovered);
        for (session, name, cores) in coordinator.awaited() {
            registry.expect(now, session, name.clone(), cores);
        }
        Some(Self::with(setup, now, registry, coordinator, log))
    }

    fn with(setup: &Setup, now: Mono, registry: Registry, coordinator: Coordinator, log: Log) -> Self {
        Self {
            index: setup.workers,
            registry,
            connections: BTreeMap::new(),
            heirs: BTreeSet::new(),
            coordinator,
            log,
            effects: Vec::new(),
            turned: now,
            looked: now,
            unseen: false,
            result: None,
            granted: BTreeMap::new(),
        }
    }

    fn now(&self, context: &Context) -> Mono {
        context.mono(self.index)
    }

    /// The loop turns: what it missed while it slept counts for nobody.
    fn turn(&mut self, context: &mut Context) {
        let now = self.now(context);
        let lag = now.since(self.turned).saturating_sub(TURN);
        if lag > OVERSLEPT {
            context.note(|| format!("the master slept for {lag:?}"));
            self.registry.extend(lag);
            self.coordinator.extend(lag);
        }
        self.turned = now;
    }

    /// Something came over a connection.
    pub(crate) fn receive(&mut self, context: &mut Context, connection: ConnectionId, packet: Packet) {
        self.turn(context);
        self.unseen = true;
        match packet {
            Packet::Up(message) => {
                self.connections.entry(connection).or_default();
                self.on_message(context, connection, message);
            }
            Packet::End(seen) => {
                let known = self.connections.remove(&connection).flatten();
                if let Some(session) = known.filter(|_| !self.heirs.remove(&connection)) {
                    let (now, how) = (self.now(context), format!("its connection ended ({seen})"));
                    // the end of a connection is no proof that load has stopped
                    if self.result.is_none() && self.coordinator.may_return(session) {
                        context.truth.disconnected(session);
                        self.registry.disconnect(session, now, how);
                    } else {
                        self.lose(context, session, (now, false), how);
                    }
                }
            }
            Packet::Down(_) => {}
        }
        self.carry_out(context);
    }

    fn on_message(&mut self, context: &mut Context, connection: ConnectionId, message: ToMaster) {
        let at = self.now(context);
        let session = self.connections.get(&connection).copied().flatten();
        match (message, session) {
            (ToMaster::Hello(hello), None) if self.is_returning(&hello) => self.take_back(context, connection, &hello),
            (ToMaster::Hello(Hello { returning: Some(Returning { heir_of: Some(_), .. }), .. }), None) => {
                let refusal = Refusal { code: RefusalCode::Hello, text: String::new(), retry: false };
                context.send(connection, Side::Worker, Packet::Down(ToWorker::Refused(refusal)));
                self.hang_up(context, connection);
            }
            (ToMaster::Hello(hello), None) => match self.registry.join(at, &hello) {
                Ok((session, name)) => {
                    self.connections.insert(connection, Some(session));
                    let secret = Bytes::from(secret(session));
                    self.send(context, session, ToWorker::Welcome { session, secret, name: name.to_string() });
                    self.tell(context, Event::Joined);
                }
                Err(refusal) => {
                    context.send(connection, Side::Worker, Packet::Down(ToWorker::Refused(refusal)));
                    self.hang_up(context, connection);
                }
            },
            (ToMaster::Beat(beat), Some(session)) => {
                let is_heir = self.heirs.contains(&connection);
                if !is_heir {
                    self.registry.beat(session, at, beat.clock);
                }
                let (number, sent_at) = (beat.number, beat.sent_at);
                let every = self.registry.beat_every();
                let reply = BeatReply { number, sent_at, received_at: at, replied_at: at, every };
                self.send(context, session, ToWorker::BeatReply(reply));
                let heard = if is_heir {
                    Event::LastWord(session, beat.run)
                } else {
                    Event::Message(session, ToMaster::Beat(beat))
                };
                self.tell(context, heard);
            }
            (ToMaster::Goodbye { text }, Some(session)) => {
                self.tell(context, Event::Message(session, ToMaster::Goodbye { text }));
                self.registry.leave(session);
                self.hang_up(context, connection);
            }
            (message, Some(session)) => self.tell(context, Event::Message(session, message)),
            (message, None) => {
                context.truth.check(false, || format!("the first message of a connection is {message:?}"));
            }
        }
    }

    fn hang_up(&mut self, context: &mut Context, connection: ConnectionId) {
        self.connections.remove(&connection);
        self.heirs.remove(&connection);
        context.close(connection, Side::Master, false);
    }

    fn is_returning(&self, hello: &Hello) -> bool {
        let returning = hello.returning.as_ref().filter(|_| self.result.is_none());
        returning.is_some_and(|r| self.coordinator.may_return(r.session) && r.secret == *secret(r.session))
    }

    fn take_back(&mut self, context: &mut Context, connection: ConnectionId, hello: &Hello) {
        let Some(Returning { session, secret, heir_of }) = hello.returning.clone() else { return };
        let heir = heir_of.is_some();
        let of = |(_, s): &(&ConnectionId, &Option<SessionId>)| **s == Some(session);
        if let Some((before, _)) = self.connections.iter().find(of).map(|(id, s)| (*id, *s)) {
            if heir && !self.heirs.contains(&before) {
                self.registry.disconnect(session, self.now(context), "its process died".into());
            }
            self.hang_up(context, before);
        }
        self.connections.insert(connection, Some(session));
        if heir {
            self.heirs.insert(connection);
            self.send(context, session, ToWorker::Welcome { session, secret, name: hello.name.clone() });
            return;
        }
        let name = self.registry.rejoin(self.now(context), session, hello);
        self.send(context, session, ToWorker::Welcome { session, secret, name: name.to_string() });
        self.tell(context, Event::Returned(session));
    }

    fn lose(&mut self, context: &mut Context, session: SessionId, (until, silent): (Mono, bool), how: String) {
        context.note(|| format!("the master loses session {session}: {how}"));
        if self.registry.member(session).is_some() {
            self.tell(context, Event::Lost { session, until, silent, how });
            self.registry.lose(session);
        }
        let of = |(_, s): &(&ConnectionId, &Option<SessionId>)| **s == Some(session);
        let connection = self.connections.iter().find(of).map(|(id, _)| *id);
        if let Some(connection) = connection.filter(|connection| !self.heirs.contains(connection)) {
            self.hang_up(context, connection);
        }
    }

    fn tell(&mut self, context: &mut Context, event: Event) {
        let now = self.now(context);
        let beat = matches!(event, Event::Message(_, ToMaster::Beat(_)) | Event::Tick);
        if self.result.is_none()
            && let Some(t0) = self.coordinator.t0()
        {
            self.log.hear(&event, t0, now);
        }
        self.coordinator.on(now, event, &self.registry, &mut self.effects);
        if self.result.is_none() {
            self.log.note(&self.coordinator);
        }
        if !beat && self.result.is_none() {
            let sessions = self.registry.members().map(|(session, _)| session);
            context.truth.owners(sessions.filter_map(|session| self.coordinator.lanes_of(session)));
        }
    }

    /// Deadlines.
    pub(crate) fn wake(&mut self, context: &mut Context) {
        self.turn(context);
        let now = self.now(context);
        (self.looked, self.unseen) = (now, false);
        // a planted fault: gone after 2.4 s instead of 3
        let early =
            if context.sabotage == Sabotage::GiveAwayEarly { Duration::from_millis(600) } else { Duration::ZERO };
        for (session, until, how) in self.registry.gone(now.after(early)) {
            let silent = how.is_none();
            context.truth.gave_away(session);
            self.lose(context, session, (until, silent), how.unwrap_or_else(|| "silent".to_owned()));
        }
        self.tell(context, Event::Tick);
        self.carry_out(context);
    }

    /// Somebody asks the run to end.
    pub(crate) fn end(&mut self, context: &mut Context, abort: bool) {
        self.turn(context);
        self.tell(context, if abort { Event::Abort } else { Event::Stop });
        self.carry_out(context);
    }

    /// When it wants to be woken, in true time.
    pub(crate) fn deadline(&self, context: &Context) -> Option<u64> {
        let run = self.coordinator.deadline();
        let next = [self.registry.deadline(), run].into_iter().flatten().min();
        let turn = self.looked.after(if self.unseen { LOOK_APART } else { TURN });
        context.clock(self.index).when(next.map_or(turn, |next| next.min(turn)))
    }

    fn carry_out(&mut self, context: &mut Context) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                let now = self.now(context);
                let ran = self.coordinator.t0().map_or(RunTime(0), |t0| now.since(t0).into());
                if let Some(effect) = self.log.pass(now, ran, effect, &self.registry) {
                    self.act(context, effect);
                }
            }
        }
        if self.log.is_behind() {
            context.commit();
        }
    }

    /// The disk has everything: what waited for it goes.
    pub(crate) fn committed(&mut self, context: &mut Context, whole: bool) {
        self.turn(context);
        self.log.disk.commit(whole);
        for effect in self.log.release() {
            self.act(context, effect);
        }
        self.carry_out(context);
    }

    /// What a crash leaves.
    pub(crate) fn image(&self) -> Image {
        self.log.disk.image()
    }

    fn act(&mut self, context: &mut Context, effect: Effect) {
        match effect {
            Effect::Send(session, message) => self.send(context, session, message),
            Effect::SendBlobs(session, digests) => {
                for digest in digests {
                    let data = Bytes::from_static(b"plan");
                    let blob = ToWorker::Blob { digest, total: data.len() as u64, offset: 0, data };
                    self.send(context, session, blob);
                }
            }
            Effect::WriteLines(..) | Effect::Journal(_) => {}
            // every worker of the model keeps the contract; one that did not hear that its start instant
            // was replaced starts at the old one, and nothing begins
            Effect::Hangup(session, why) => {
                let began = self.coordinator.t0().is_some();
                context.truth.check(!began, || format!("B2: session {session} is hung up on: {why}"));
                let now = self.now(context);
                self.lose(context, session, (now, true), why);
            }
            Effect::Closed => self.finish(context),
        }
    }

    fn finish(&mut self, context: &mut Context) {
        self.registry.forget_lost();
        let at = TimeDelta::nanoseconds(context.wall().cast_signed());
        let result = self.coordinator.measured(DateTime::UNIX_EPOCH + at);
        self.result = Some(result.map(Box::new));
    }

    fn send(&mut self, context: &mut Context, session: SessionId, mut message: ToWorker) {
        match &mut message {
            ToWorker::FrameAck { seq, .. } | ToWorker::RunClosed { frames: seq, .. } => {
                context.truth.acknowledge(session, *seq);
            }
            ToWorker::Tickets { pool, tickets, .. } => {
                context.truth.granted(*pool, tickets);
                let before = self.granted.insert(*pool, tickets.clone());
                if let Some(before) = before.filter(|_| context.sabotage == Sabotage::TicketTwice) {
                    *tickets = before;
                }
            }
            ToWorker::Throttles { run, number, .. } if context.sabotage == Sabotage::RaiseLimitsFirst => {
                let confirmed = ToMaster::ThrottlesSet { run: run.clone(), number: *number };
                self.tell(context, Event::Message(session, confirmed));
            }
            _ => {}
        }
        let of = |(_, s): &(&ConnectionId, &Option<SessionId>)| **s == Some(session);
        if let Some((connection, _)) = self.connections.iter().find(of) {
            context.send(*connection, Side::Worker, Packet::Down(message));
        }
    }

    /// Says goodbye to everybody.
    pub(crate) fn close(&mut self, context: &mut Context) {
        for (connection, session) in &self.connections {
            if session.is_some() {
                let goodbye = ToWorker::Goodbye { text: "the master is done".into() };
                context.send(*connection, Side::Worker, Packet::Down(goodbye));
            }
        }
    }

    /// Whether the run is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.result.is_some()
    }
}

fn spec(setup: &Setup) -> Spec {
    Spec {
        run: RunId("r".into()),
        plan: Arc::clone(&setup.plan),
        digest: Setup::digest(),
        blobs: vec![Setup::digest()],
        expected: setup.workers,
        wait: WAIT,
        allow_missing: setup.allow_missing,
        thresholds: Vec::new(),
        local: false,
        one_worker: false,
    }
}
