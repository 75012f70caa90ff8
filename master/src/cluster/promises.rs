//! What the journal of a run is told, and what waits until it has it. Pure.
//!
//! A promise is journaled before it is made: lanes and tickets leave once the journal has them. What
//! a worker may forget because it is counted is acknowledged once the journal has it. Everything else
//! goes at once.

use super::coordinator::{Coordinator, Effect, Event};
use super::membership::Registry;
use crate::journal::{Control, Entry, Gate, Recovered, Started};
use ld_shared::id::SessionId;
use ld_shared::message::{ToMaster, ToWorker};
use ld_shared::time::{Mono, RunTime};
use std::sync::Arc;

/// What of a run the journal was told so far.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// How many of the run's events.
    events: usize,
    /// How many changes of the load.
    changes: usize,
    started: bool,
    /// Why it ends early.
    cause: bool,
    /// That nothing starts any more, and whether open requests are cut off.
    stopping: Option<bool>,
}

/// What an effect depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Promise {
    /// To be journaled first.
    pub entries: Vec<Entry>,
    /// The effect waits until the journal has everything that it was told so far.
    pub waits: bool,
}

/// Who takes part.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    /// The name it is shown under.
    pub name: Arc<str>,
    /// Load cores.
    pub cores: u32,
    /// Proves that it is the same when it comes back.
    pub secret: Vec<u8>,
}

impl Joined {
    /// A member of the registry.
    pub fn of(registry: &Registry, session: SessionId, secret: Vec<u8>) -> Self {
        let member = registry.member(session);
        let name = member.map(|member| member.name.0.clone()).unwrap_or_default();
        Self { name, cores: member.map_or(1, |member| member.cores), secret }
    }
}

impl Promise {
    fn waits(entries: Vec<Entry>) -> Self {
        Self { entries, waits: true }
    }

    fn told(control: Control) -> Self {
        Self { entries: vec![Entry::Control(control)], waits: false }
    }
}

/// Whether an effect waits for others although it promises nothing: a worker that is told to stop before it is told to
/// start says nothing to either.
pub fn follows(effect: &Effect, gate: &Gate<Effect>) -> bool {
    let Effect::Send(session, ToWorker::Stop { .. } | ToWorker::Abort { .. }) = effect else { return false };
    gate.holds(|held| matches!(held, Effect::Send(of, ToWorker::Arm { .. }) if of == session))
}

impl Promises {
    /// What the journal of a run that is taken up knows.
    pub fn of(recovered: &Recovered) -> Self {
        Self {
            events: recovered.events.len(),
            changes: recovered.program.changes().len(),
            started: true,
            cause: recovered.cause.is_some(),
            stopping: recovered.stopping.map(|(_, abort)| abort),
        }
    }

    /// What an effect depends on; `ran` is run time. [`Effect::Journal`] is an entry itself, and
    /// depends on nothing.
    pub fn of_effect(&mut self, effect: &Effect, ran: RunTime, joined: impl FnOnce(SessionId) -> Joined) -> Promise {
        match effect {
            Effect::Closed => Promise::waits(vec![Entry::Control(Control::Closed)]),
            Effect::Send(session, message) => self.of_message(*session, message, ran, joined),
            Effect::SendBlobs(..) | Effect::WriteLines(..) | Effect::Hangup(..) | Effect::Journal(_) => {
                Promise::default()
            }
        }
    }

    fn of_message(
        &mut self,
        session: SessionId,
        message: &ToWorker,
        ran: RunTime,
        joined: impl FnOnce(SessionId) -> Joined,
    ) -> Promise {
        match message {
            ToWorker::Prepare { .. } => {
                let Joined { name, cores, secret } = joined(session);
                Promise::told(Control::Joined { session, name, cores, secret })
            }
            ToWorker::Arm { shard, .. } | ToWorker::Assign { shard, .. } => {
                Promise::waits(vec![Entry::Control(Control::assigned(session, shard))])
            }
            ToWorker::Tickets { pool, tickets, .. } => {
                let granted = Entry::Granted { pool: *pool, session, tickets: tickets.clone() };
                Promise::waits(if tickets.is_empty() { Vec::new() } else { vec![granted] })
            }
            ToWorker::Program { program, .. } => {
                let new = program.changes().iter().skip(self.changes);
                let entries = new.map(|change| Entry::Control(Control::Program(*change))).collect();
                self.changes = self.changes.max(program.changes().len());
                Promise::waits(entries)
            }
            ToWorker::Throttles { number, parts, .. } => {
                let (number, parts) = (*number, parts.clone());
                Promise::waits(vec![Entry::Control(Control::Limits { session, number, parts })])
            }
            ToWorker::Stop { .. } => self.stops(ran, false),
            ToWorker::Abort { .. } => self.stops(ran, true),
            ToWorker::FrameAck { .. } | ToWorker::RecordAck { .. } | ToWorker::RunClosed { .. } => {
                Promise::waits(Vec::new())
            }
            ToWorker::Welcome { .. }
            | ToWorker::Refused(_)
            | ToWorker::Blob { .. }
            | ToWorker::BeatReply(_)
            | ToWorker::Goodbye { .. } => Promise::default(),
        }
    }

    /// Goes to every worker, and is journaled once. A slow disk must not delay it.
    fn stops(&mut self, at: RunTime, abort: bool) -> Promise {
        if self.stopping.is_some_and(|known| known || !abort) {
            return Promise::default();
        }
        self.stopping = Some(abort);
        Promise::told(Control::Stopping { at, abort })
    }

    /// What an event tells, to be journaled before the coordinator acts on it.
    pub fn of_event(event: &Event, t0: Mono, now: Mono) -> Option<Control> {
        let at = now.since(t0).into();
        match event {
            Event::Lost { session, until, silent, how } => {
                let until = until.since(t0).into();
                let (silent, how) = (*silent, how.clone());
                Some(Control::Lost { session: *session, at, until, silent, how })
            }
            Event::Returned(session) => Some(Control::Returned { session: *session, at }),
            Event::Message(session, ToMaster::Goodbye { text }) => {
                Some(Control::Left { session: *session, at, text: text.clone() })
            }
            Event::Message(..)
            | Event::LastWord(..)
            | Event::Change(..)
            | Event::Joined
            | Event::Stop
            | Event::Abort
            | Event::Tick => None,
        }
    }

    /// What came of an event. `started` tells the start instant, once it is certain.
    pub fn of_outcome(&mut self, coordinator: &Coordinator, started: Option<Started>) -> Vec<Control> {
        let mut controls = Vec::new();
        if let Some(started) = started.filter(|_| !self.started) {
            self.started = true;
            controls.push(Control::Started(started));
        }
        if let Some(cause) = coordinator.cause().filter(|_| !self.cause) {
            self.cause = true;
            controls.push(Control::Ends(cause.clone()));
        }
        let events = coordinator.events();
        controls.extend(events.iter().skip(self.events).map(Control::event));
        self.events = events.len();
        controls
    }
}
