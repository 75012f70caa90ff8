//! One worker's side of the cluster: joins, prepares, starts, beats, holds a lease, drains.
//!
//! A pure state machine: `on(now, event, &mut effects)` and `deadline()`. The shell in
//! [`crate::link`] moves bytes, stamps the clock and drives the engine.

mod delivery;
mod link;
mod run;

use crate::spool::Shelves;
use bytes::Bytes;
use ld_shared::clock_estimate::ClockEstimate;
use ld_shared::frame::FrameBody;
use ld_shared::id::{Digest, RunId};
use ld_shared::load::Program;
use ld_shared::message::{BEAT_EVERY, Hello, Returning, RunBeat, ToMaster, ToWorker};
use ld_shared::plan::{MasterLoss, Pool};
use ld_shared::record::RecordBody;
use ld_shared::shard::Shard;
use ld_shared::targets::TargetList;
use ld_shared::time::Mono;
use link::{Absence, Link};
use run::Run;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// After an abort, how long the engine may take for its last span, and the master to count it.
const ABORT_WITHIN: Duration = Duration::from_secs(3);

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it says of itself.
    pub hello: Hello,
    /// Open files that load may use.
    pub capacity: u64,
    /// It outlives its master.
    pub stay: bool,
    /// How long it goes without hearing from a master.
    pub master_timeout: Duration,
    /// The master, as messages name it.
    pub master: String,
    /// Which targets it dials, whatever a plan allows; `None`: any.
    pub targets: Option<TargetList>,
    /// Where frames lie that the master has not counted yet, beside memory.
    pub spool: Option<Arc<dyn Shelves>>,
}

/// What happens to a worker.
#[derive(Debug)]
pub enum Event {
    /// A connection stands.
    Connected,
    /// There is no connection, or none any more.
    Disconnected(Unreached),
    /// The master said something; replies to beats with the instant at which they were read.
    Message(ToWorker),
    /// The engine of this run is ready, or cannot be.
    Prepared(RunId, Result<Ready, String>),
    /// The engine completed a span.
    Span(Box<FrameBody>),
    /// The engine hands out single requests.
    Records(Box<RecordBody>),
    /// Users will soon need tickets.
    WantTickets(Pool, u64),
    /// A user found no ticket.
    PoolEmpty(Pool),
    /// Somebody asked the worker to end (the second time: at once).
    Signal,
    /// A deadline passed.
    Tick,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// The master's machine answered that nobody listens there.
    pub refused: bool,
    /// A connection came about, and was reset or closed before the master said anything.
    pub reset: bool,
    /// Trying again cannot help, and `seen` says what can: a worker that makes no load gives up.
    pub hopeless: bool,
    /// What was seen.
    pub seen: String,
}

impl Unreached {
    /// Anything but a refusal.
    pub fn seen(seen: impl Into<String>) -> Self {
        Self { refused: false, reset: false, hopeless: false, seen: seen.into() }
    }
}

/// What the membership must know of a plan that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What to do when the master is gone for good.
    pub on_master_loss: MasterLoss,
    /// Its share goes to others if it is lost: then the target must not see its users twice.
    pub is_replaced: bool,
    /// How long open requests may take at the end.
    pub graceful_stop: Duration,
}

/// What is to be done.
#[expect(clippy::large_enum_variant, reason = "passed on at once by value; nothing is kept")]
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open a connection.
    Dial,
    /// Close it.
    Hangup,
    /// Send a message.
    Send(ToMaster),
    /// Stamp and send a beat of this number, with the odometers of the run, if there is one.
    Beat {
        /// Its number.
        number: u64,
        /// The run and its start instant on the own clock.
        run: Option<(RunId, Mono)>,
    },
    /// Prepare an engine.
    Prepare {
        /// The run.
        run: RunId,
        /// Digest of the plan.
        plan: Digest,
        /// Every blob, the plan's among them.
        blobs: BTreeMap<Digest, Bytes>,
    },
    /// Start the engine.
    Start {
        /// What to run.
        shard: Box<Shard>,
        /// The start instant on the own clock.
        t0: Mono,
    },
    /// Own other lanes.
    Assign(Box<Shard>),
    /// Make what these changes make of the plan.
    Change(Program),
    /// Users may start requests until then.
    Lease(Mono),
    /// The lease is over, and the share is given to others.
    LeaseLost,
    /// Let the engine drain.
    StopLoad,
    /// Cut the engine off.
    AbortLoad,
    /// Forget the engine.
    DropLoad,
    /// Hand tickets to the engine.
    Grant(Pool, Range<u64>, bool),
    /// Hand parts of the limits on the rate of requests to the engine.
    Throttles(Vec<u32>),
    /// Hand record limits to the engine.
    RecordLimits([u64; 2]),
    /// Tell the engine that so many more batches of records are counted.
    RecordsAcknowledged(u64),
    /// Tell people: a state changed.
    Say(String),
    /// The worker is done.
    Exit(Exit),
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As it should: its master is done, or somebody ended it while it made no load.
    Done(String),
    /// Somebody ended it while it made load.
    Interrupted,
    /// It could not do its work: why, and what to do.
    Failed(String),
}

/// One worker.
#[derive(Debug)]
pub struct Membership {
    options: Options,
    link: Link,
    heard: Mono,
    clock: ClockEstimate,
    lease: Option<Mono>,
    beats: u64,
    next_beat: Mono,
    /// As far apart as the master asks for.
    beat_every: Duration,
    run: Option<Run>,
    ending: Ending,
    /// Why the newest connection ended or did not come about.
    seen: String,
    /// What people were last told of a master that cannot be reached: they hear it once.
    told: String,
    /// The session of the newest welcome, to come back to.
    home: Option<Returning>,
    /// The lease may be renewed: the master has said what is owned since the connection stands.
    attached: bool,
    /// What the absence of a connection looks like.
    absence: Absence,
    /// Since when the attempt to reach the master goes on.
    trying: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Not,
    /// Once this run is over.
    Asked {
        made_load: bool,
    },
    /// Once this run is over: the master is gone for good.
    Abandoned,
    Aborted {
        until: Mono,
    },
}

impl Membership {
    /// A worker that dials at once.
    pub fn new(now: Mono, options: Options) -> Self {
        Self {
            options,
            link: Link::Down { redial: now },
            heard: now,
            clock: ClockEstimate::default(),
            lease: None,
            beats: 0,
            next_beat: now,
            beat_every: BEAT_EVERY,
            run: None,
            ending: Ending::Not,
            seen: String::new(),
            told: String::new(),
            home: None,
            attached: true,
            absence: Absence::Silent,
            trying: None,
        }
    }

    /// When [`Event::Tick`] is due. There is always such an instant.
    pub fn deadline(&self) -> Mono {
        let ending = match self.ending {
            Ending::Aborted { until } => until,
            _ if self.lease_may_end() => self.lease.unwrap_or(Mono(u64::MAX)),
            Ending::Not | Ending::Asked { .. } | Ending::Abandoned => Mono(u64::MAX),
        };
        let run = self.run.as_ref().and_then(Run::deadline).unwrap_or(Mono(u64::MAX));
        self.link_deadline().min(run).min(ending)
    }

    /// Takes an event.
    pub fn on(&mut self, now: Mono, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Connected => self.on_connected(now, effects),
            Event::Disconnected(why) => self.on_disconnected(now, why, effects),
            Event::Message(message) => self.on_message(now, message, effects),
            Event::Prepared(run, result) => self.on_prepared(&run, result, effects),
            Event::Span(body) => self.on_span(now, body, effects),
            Event::Records(body) => self.on_records(*body, effects),
            Event::WantTickets(pool, want) => self.on_want_tickets(pool, want, effects),
            Event::PoolEmpty(pool) => self.on_pool_empty(pool, effects),
            Event::Signal => self.on_signal(now, effects),
            Event::Tick => {}
        }
        self.advance(now, effects);
    }

    fn on_message(&mut self, now: Mono, message: ToWorker, effects: &mut Vec<Effect>) {
        self.heard = now;
        let ours = |run: &RunId| self.run.as_ref().is_some_and(|have| have.run == *run && !have.orphaned);
        match message {
            ToWorker::Welcome { session, secret, name } => self.on_welcome(now, (session, secret), &name, effects),
            ToWorker::Refused(refusal) => self.on_refused(now, &refusal, effects),
            ToWorker::Prepare { run, plan, blobs } => self.on_prepare(run, plan, blobs, effects),
            ToWorker::Blob { digest, total, offset, data } => {
                self.on_blob(&digest, total, offset, &data, effects);
            }
            ToWorker::Arm { run, attempt, t0, shard } if ours(&run) => self.on_arm(now, attempt, t0, shard, effects),
            ToWorker::Assign { run, shard, earlier } if ours(&run) => self.on_assign(shard, earlier, effects),
            ToWorker::Program { run, program } if ours(&run) => self.on_program(program, effects),
            ToWorker::Stop { run } if ours(&run) => self.stop_load(now, effects),
            ToWorker::Abort { run } if ours(&run) => self.abort_load(now, effects),
            ToWorker::RunClosed { run, frames } if ours(&run) => self.on_run_closed(frames, effects),
            ToWorker::BeatReply(reply) => self.on_beat_reply(now, &reply, effects),
            ToWorker::Tickets { run, pool, tickets, exhausted } if ours(&run) => {
                self.on_tickets(pool, tickets, exhausted, effects);
            }
            ToWorker::Throttles { run, number, parts } if ours(&run) => {
                // in this order: what is confirmed is in force
                effects.push(Effect::Throttles(parts));
                effects.push(Effect::Send(ToMaster::ThrottlesSet { run, number }));
            }
            ToWorker::FrameAck { run, seq, record_limits } if ours(&run) => {
                effects.push(Effect::RecordLimits(record_limits));
                self.on_frame_ack(seq, effects);
            }
            ToWorker::RecordAck { run, seq, record_limits } if ours(&run) => {
                effects.push(Effect::RecordLimits(record_limits));
                self.on_record_ack(seq, effects);
            }
            ToWorker::Goodbye { text } => self.on_goodbye(now, &text, effects),
            // late messages of a run that is over here
            ToWorker::Arm { .. }
            | ToWorker::Assign { .. }
            | ToWorker::Program { .. }
            | ToWorker::Stop { .. }
            | ToWorker::Abort { .. }
            | ToWorker::RunClosed { .. }
            | ToWorker::Tickets { .. }
            | ToWorker::Throttles { .. }
            | ToWorker::FrameAck { .. }
            | ToWorker::RecordAck { .. } => {}
        }
    }

    fn on_signal(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        match self.ending {
            Ending::Not | Ending::Abandoned => {
                let made_load = self.run.as_ref().is_some_and(|run| run.t0().is_some());
                self.ending = Ending::Asked { made_load };
                if made_load {
                    effects.push(Effect::Say("ending: open requests may finish; once more aborts".into()));
                }
                self.stop_load(now, effects);
            }
            Ending::Asked { .. } => {
                self.ending = Ending::Aborted { until: now.after(ABORT_WITHIN) };
                self.abort_load(now, effects);
            }
            Ending::Aborted { .. } => effects.push(Effect::Exit(Exit::Interrupted)),
        }
    }

    fn advance(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        self.advance_run(now, effects);
        self.advance_link(now, effects);
        if self.ending == Ending::Abandoned && (self.absence == Absence::Silent || !self.holds_lease(now)) {
            // whoever finishes alone does so while it is certain that the master's process is gone
            self.lose_run(now, effects);
        }
        let delivered = self.run.as_ref().is_none_or(Run::is_delivered);
        match self.ending {
            Ending::Asked { made_load } if delivered => self.leave(made_load, effects),
            Ending::Aborted { until } if delivered || now >= until => self.leave(true, effects),
            Ending::Abandoned if self.run.is_none() => effects.push(Effect::Exit(Exit::Failed(self.lost_master()))),
            Ending::Not | Ending::Asked { .. } | Ending::Aborted { .. } | Ending::Abandoned => {}
        }
    }

    fn leave(&mut self, made_load: bool, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Joined { .. }) {
            effects.push(Effect::Send(ToMaster::Goodbye { text: "ended by the user".into() }));
        }
        let done = Exit::Done("ended by the user".into());
        effects.push(Effect::Exit(if made_load { Exit::Interrupted } else { done }));
    }

    /// The run, and its start instant on the own clock, of which [`Self::note`] wants to be told how it stands.
    pub fn notes(&self) -> Option<(RunId, Mono)> {
        let run = self.run.as_ref().filter(|run| run.spool.has_shelf() && run.makes_load())?;
        Some((run.run.clone(), run.t0()?))
    }

    /// How the load stands: should this process die, it is the last that will be known of it.
    pub fn note(&mut self, stands: &RunBeat) {
        if let Some(run) = self.run.as_mut().filter(|run| run.run == stands.run) {
            run.spool.note(stands);
        }
    }

    /// What is known of the master's clock.
    pub fn clock(&self) -> Option<ld_shared::message::ClockReport> {
        self.clock.report()
    }
}
