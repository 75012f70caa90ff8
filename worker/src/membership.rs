//! One worker's side of the cluster: joins, prepares, starts, beats, holds a lease, drains.
//!
//! A pure state machine: `on(now, event, &mut effects)` and `deadline()`. The shell in
//! [`crate::link`] moves bytes, stamps the clock and drives the engine.

use crate::spool::{Folder, Shelf, Spool};
use bytes::{Bytes, BytesMut};
use ld_shared::clock_estimate::ClockEstimate;
use ld_shared::frame::{Frame, FrameBody, FrameKey};
use ld_shared::id::{Digest, Epoch, RunId, SessionId};
use ld_shared::load::Program;
use ld_shared::message::{BEAT_EVERY, GONE_AFTER, Hello, LEASE, Returning, ToMaster, ToWorker};
use ld_shared::plan::{MasterLoss, Pool};
use ld_shared::record::{RecordBatch, RecordBody};
use ld_shared::shard::Shard;
use ld_shared::targets::TargetList;
use ld_shared::time::{Mono, RunTime};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Between two attempts to reach the master.
const REDIAL_EVERY: Duration = Duration::from_millis(500);
/// The first beats come faster, so that the clock is known before the first run.
const QUICK_BEATS: u64 = 8;
const QUICK_BEAT_EVERY: Duration = Duration::from_millis(20);
/// How long the master may take to answer the hello.
const GREET_WITHIN: Duration = Duration::from_secs(5);
/// The engine is started so long before the start instant: later, the instant could not be
/// replaced by a new one; earlier is of no use.
const START_AHEAD: Duration = Duration::from_millis(50);
/// After `graceful_stop`, how long the engine may take for its last span.
const DRAIN_SLACK: Duration = Duration::from_secs(2);
/// A master that is dialled and does not answer for so long may live: it is not its process that is gone.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long load goes on without a master after its machine said that nobody listens: several
/// attempts to reach it lie within.
const ORPHAN_LEASE: Duration = LEASE;
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
    pub spool: Option<PathBuf>,
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
    /// Trying again cannot help, and `seen` says what can: a worker that makes no load gives up.
    pub hopeless: bool,
    /// What was seen.
    pub seen: String,
}

impl Unreached {
    /// Anything but a refusal.
    pub fn seen(seen: impl Into<String>) -> Self {
        Self { refused: false, hopeless: false, seen: seen.into() }
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
    run: Option<Run>,
    ending: Ending,
    /// Why the newest connection ended or did not come about.
    seen: String,
    /// The session of the newest welcome, to come back to.
    home: Option<Returning>,
    /// The lease may be renewed: the master has said what is owned since the connection stands.
    attached: bool,
    /// What the absence of a connection looks like.
    absence: Absence,
    /// Since when the attempt to reach the master goes on.
    trying: Option<Mono>,
}

/// What the absence of a master looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// Nothing is heard: cut off, perhaps, while the master gives the share away.
    Silent,
    /// The connection ended, and the master was not dialled since.
    Ended,
    /// The connection ended, and whenever it was dialled since, its machine said that nobody listens:
    /// the master's process is gone, and gives nothing away.
    Gone,
}

#[derive(Clone, Debug, PartialEq)]
enum Link {
    /// Nothing is there; dial then.
    Down {
        redial: Mono,
    },
    Dialing,
    /// The hello is sent.
    Greeting {
        until: Mono,
    },
    Joined {
        session: SessionId,
    },
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

#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "its id is called run wherever it goes")]
struct Run {
    run: RunId,
    stage: Stage,
    spool: Spool,
    records: Shipped,
    ready: Ready,
    /// The newest assignment that is in force.
    epoch: Epoch,
    /// Changes of the load that came before it began here.
    program: Option<Program>,
    /// Tickets that were asked for and have not come, and pools without any: said again to a master
    /// that is there again.
    wanted: BTreeMap<Pool, u64>,
    empty: BTreeSet<Pool>,
    /// The master of this run is lost for good: what it measures goes nowhere.
    orphaned: bool,
}

/// Batches of records, as far as they have come.
#[derive(Debug, Default)]
struct Shipped {
    /// Batches that wait for the frames before them: what is listed is counted first. The engine
    /// hands out no more than a window of them.
    waiting: VecDeque<RecordBody>,
    /// Sent and not acknowledged.
    offered: VecDeque<RecordBody>,
    sent: u64,
    acknowledged: u64,
    /// The last frame said that more follow, and the last batch has not come.
    open: bool,
}

#[derive(Debug)]
enum Stage {
    Fetching {
        plan: Digest,
        missing: VecDeque<Digest>,
        blobs: BTreeMap<Digest, Bytes>,
        partial: BytesMut,
    },
    Preparing,
    Ready,
    /// Armed: the engine is started a moment before `t0`.
    Armed {
        shard: Box<Shard>,
        t0: Mono,
    },
    Running {
        t0: Mono,
    },
    /// Nothing starts any more; the engine is cut off at `until`, forgotten later.
    Draining {
        t0: Mono,
        until: Mono,
        aborted: bool,
    },
    /// The last span is here: what remains is to deliver it.
    Spent {
        t0: Mono,
    },
}

impl Run {
    /// Whether the master has counted everything.
    fn is_delivered(&self) -> bool {
        let records = &self.records;
        self.spool.is_done() && !records.open && records.waiting.is_empty() && records.acknowledged == records.sent
    }

    fn t0(&self) -> Option<Mono> {
        match &self.stage {
            Stage::Running { t0 } | Stage::Draining { t0, .. } | Stage::Spent { t0 } => Some(*t0),
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready | Stage::Armed { .. } => None,
        }
    }
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
            run: None,
            ending: Ending::Not,
            seen: String::new(),
            home: None,
            attached: true,
            absence: Absence::Silent,
            trying: None,
        }
    }

    /// When [`Event::Tick`] is due. There is always such an instant.
    pub fn deadline(&self) -> Mono {
        let link = match self.link {
            Link::Down { redial } => redial.min(self.gives_up_at()),
            // dialling is bounded by the shell, which dials with a time-out
            Link::Dialing => self.gives_up_at(),
            Link::Greeting { until } => until.min(self.gives_up_at()),
            Link::Joined { .. } => self.next_beat.min(self.heard.after(self.patience())),
        };
        let unanswered =
            self.trying.filter(|_| self.absence != Absence::Silent).map(|since| since.after(ANSWER_WITHIN));
        let link = link.min(unanswered.unwrap_or(Mono(u64::MAX)));
        let run = self.run.as_ref().map(|run| match &run.stage {
            Stage::Armed { t0, shard } => start_at(*t0, shard),
            Stage::Draining { until, .. } => *until,
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready | Stage::Running { .. } | Stage::Spent { .. } => {
                Mono(u64::MAX)
            }
        });
        let ending = match self.ending {
            Ending::Aborted { until } => until,
            _ if self.lease_may_end() => self.lease.unwrap_or(Mono(u64::MAX)),
            Ending::Not | Ending::Asked { .. } | Ending::Abandoned => Mono(u64::MAX),
        };
        link.min(run.unwrap_or(Mono(u64::MAX))).min(ending)
    }

    /// Whether the end of the lease is to be said.
    fn lease_may_end(&self) -> bool {
        let running = |run: &Run| run.ready.is_replaced && matches!(run.stage, Stage::Running { .. });
        self.lease.is_some() && self.run.as_ref().is_some_and(running)
    }

    /// How long a connection may be silent. Never shorter than a lease, or a busy master would be given
    /// up; while load is made no longer than after which it has given this worker up.
    fn patience(&self) -> Duration {
        let patience = self.options.master_timeout.max(LEASE);
        if self.run.is_some() { patience.min(GONE_AFTER) } else { patience }
    }

    /// When a master that is not there is given up for good.
    fn gives_up_at(&self) -> Mono {
        let for_ever = self.options.stay && self.run.is_none() || self.ending == Ending::Abandoned;
        if for_ever { Mono(u64::MAX) } else { self.heard.after(self.options.master_timeout) }
    }

    /// Takes an event.
    pub fn on(&mut self, now: Mono, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Connected => {
                self.link = Link::Greeting { until: now.after(GREET_WITHIN) };
                let returning = self.home.clone().filter(|_| self.run.as_ref().is_some_and(|run| !run.orphaned));
                let hello = Hello { returning, ..self.options.hello.clone() };
                effects.push(Effect::Send(ToMaster::Hello(hello)));
            }
            Event::Disconnected(why) => self.on_disconnected(now, why, effects),
            Event::Message(message) => self.on_message(now, message, effects),
            Event::Prepared(run, result) => self.on_prepared(&run, result, effects),
            Event::Span(body) => self.on_span(now, body, effects),
            Event::Records(body) => self.on_records(*body, effects),
            Event::WantTickets(pool, want) => {
                if let Some(run) = self.run.as_mut().filter(|run| !run.orphaned) {
                    run.wanted.insert(pool, want);
                    effects.push(Effect::Send(ToMaster::WantTickets { run: run.run.clone(), pool, want }));
                }
            }
            Event::PoolEmpty(pool) => {
                if let Some(run) = self.run.as_mut().filter(|run| !run.orphaned) {
                    run.empty.insert(pool);
                    effects.push(Effect::Send(ToMaster::PoolEmpty { run: run.run.clone(), pool }));
                }
            }
            Event::Signal => self.on_signal(now, effects),
            Event::Tick => {}
        }
        self.advance(now, effects);
    }

    /// There is no connection. Load that is being made goes on for as long as its lease; what it
    /// measures waits for the master to be there again.
    fn on_disconnected(&mut self, now: Mono, why: Unreached, effects: &mut Vec<Effect>) {
        let Unreached { refused, hopeless, seen } = why;
        if hopeless && self.run.is_none() {
            effects.push(Effect::Exit(Exit::Failed(seen)));
            return;
        }
        let was_joined = matches!(self.link, Link::Joined { .. });
        if was_joined {
            effects.push(Effect::Say(format!("connection to the master {} ended: {seen}", self.options.master)));
            self.absence = Absence::Ended;
        } else if !refused {
            self.absence = Absence::Silent;
        } else if self.absence == Absence::Ended {
            self.absence = Absence::Gone;
        }
        self.seen = seen;
        self.trying = None;
        self.link = Link::Down { redial: if was_joined { now } else { now.after(REDIAL_EVERY) } };
        self.clock = ClockEstimate::default();
        self.attached = false;
        let makes_load = self.run.as_ref().is_some_and(|run| run.t0().is_some());
        if !makes_load {
            self.lease = None;
            self.drop_run(effects);
        } else if refused && self.absence == Absence::Gone {
            // nobody is there who could give the share away
            self.extend_lease(now.after(ORPHAN_LEASE), effects);
        }
    }

    fn extend_lease(&mut self, until: Mono, effects: &mut Vec<Effect>) {
        if self.lease.is_none_or(|have| have < until) {
            self.lease = Some(until);
            effects.push(Effect::Lease(until));
        }
    }

    /// The master of the run is lost for good: users stop, what is open ends, nothing can be delivered.
    fn lose_run(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        run.orphaned = true;
        match run.stage {
            Stage::Running { .. } => self.stop_load(now, effects),
            Stage::Draining { .. } => {}
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready | Stage::Armed { .. } | Stage::Spent { .. } => {
                self.drop_run(effects);
            }
        }
    }

    fn drop_run(&mut self, effects: &mut Vec<Effect>) {
        if self.run.take().is_some() {
            effects.push(Effect::DropLoad);
        }
    }

    fn stop_load(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        match run.stage {
            Stage::Running { t0 } => {
                let until = now.after(run.ready.graceful_stop).after(DRAIN_SLACK);
                run.stage = Stage::Draining { t0, until, aborted: false };
                effects.push(Effect::StopLoad);
            }
            Stage::Draining { .. } | Stage::Spent { .. } => {}
            Stage::Armed { t0, .. } => self.start_nothing(t0, effects),
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready => self.drop_run(effects),
        }
    }

    /// The run ends before it began here: the master is told, and waits for nothing.
    fn start_nothing(&mut self, t0: Mono, effects: &mut Vec<Effect>) {
        if let Some(run) = &mut self.run {
            run.stage = Stage::Spent { t0 };
            run.spool.put(Box::new(FrameBody { last: true, ..FrameBody::default() }), RunTime(0));
            effects.push(Effect::DropLoad);
            self.offer(effects);
        }
    }

    fn abort_load(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        match run.stage {
            Stage::Running { t0 } | Stage::Draining { t0, aborted: false, .. } => {
                run.stage = Stage::Draining { t0, until: now.after(ABORT_WITHIN), aborted: true };
                effects.push(Effect::AbortLoad);
            }
            Stage::Draining { aborted: true, .. } | Stage::Spent { .. } => {}
            Stage::Armed { t0, .. } => self.start_nothing(t0, effects),
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready => self.drop_run(effects),
        }
    }

    fn on_message(&mut self, now: Mono, message: ToWorker, effects: &mut Vec<Effect>) {
        self.heard = now;
        let ours = |run: &RunId| self.run.as_ref().is_some_and(|have| have.run == *run && !have.orphaned);
        match message {
            ToWorker::Welcome { session, secret, name } => self.on_welcome(now, (session, secret), &name, effects),
            ToWorker::Refused(refusal) => {
                let text = format!("the master {} refused this worker: {}", self.options.master, refusal.text);
                effects.push(Effect::Hangup);
                if refusal.retry {
                    effects.push(Effect::Say(text));
                    self.link = Link::Down { redial: now.after(REDIAL_EVERY) };
                } else {
                    effects.push(Effect::Exit(Exit::Failed(text)));
                }
            }
            ToWorker::Prepare { run, plan, blobs } => self.on_prepare(run, plan, blobs, effects),
            ToWorker::Blob { digest, total, offset, data } => {
                self.on_blob(&digest, total, offset, &data, effects);
            }
            ToWorker::Arm { run, attempt, t0, shard } if ours(&run) => self.on_arm(now, attempt, t0, shard, effects),
            ToWorker::Assign { run, shard } if ours(&run) => self.on_assign(shard, effects),
            ToWorker::Program { run, program } if ours(&run) => self.on_program(program, effects),
            ToWorker::Stop { run } if ours(&run) => self.stop_load(now, effects),
            ToWorker::Abort { run } if ours(&run) => self.abort_load(now, effects),
            ToWorker::RunClosed { run } if ours(&run) => self.drop_run(effects),
            ToWorker::BeatReply(reply) => {
                self.clock.add(&reply, now);
                if self.attached {
                    self.extend_lease(reply.sent_at.after(LEASE), effects);
                }
            }
            ToWorker::Tickets { run, pool, tickets, exhausted } if ours(&run) => {
                if let Some(run) = &mut self.run {
                    run.wanted.remove(&pool);
                }
                effects.push(Effect::Grant(pool, tickets, exhausted));
            }
            ToWorker::Throttles { run, number, parts } if ours(&run) => {
                // in this order: what is confirmed is in force
                effects.push(Effect::Throttles(parts));
                effects.push(Effect::Send(ToMaster::ThrottlesSet { run, number }));
            }
            ToWorker::FrameAck { run, seq, record_limits } if ours(&run) => {
                if let Some(run) = &mut self.run {
                    run.spool.acknowledge(seq);
                }
                effects.push(Effect::RecordLimits(record_limits));
                self.offer(effects);
            }
            ToWorker::RecordAck { run, seq, record_limits } if ours(&run) => {
                effects.push(Effect::RecordLimits(record_limits));
                if let Some(run) = &mut self.run {
                    let seq = seq.min(run.records.sent);
                    let more = seq.saturating_sub(run.records.acknowledged);
                    run.records.acknowledged += more;
                    run.records.offered.drain(..(more as usize).min(run.records.offered.len()));
                    effects.push(Effect::RecordsAcknowledged(more));
                }
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

    fn on_welcome(&mut self, now: Mono, (session, secret): (SessionId, Bytes), name: &str, effects: &mut Vec<Effect>) {
        let same = self.home.as_ref().is_some_and(|home| home.session == session);
        self.home = Some(Returning { session, secret });
        self.link = Link::Joined { session };
        self.trying = None;
        (self.beats, self.next_beat) = (0, now);
        let master = &self.options.master;
        if same && self.run.is_some() {
            effects.push(Effect::Say(format!("back at the master {master} as {name}")));
        } else {
            effects.push(Effect::Say(format!("joined the master {master} as {name}")));
            self.attached = true;
            // a master that does not know this session does not know the run
            self.lose_run(now, effects);
        }
        if let Some(run) = self.run.as_mut().filter(|run| !run.orphaned) {
            run.spool.reconnect();
            let records = &mut run.records;
            records.sent = records.acknowledged;
            while let Some(body) = records.offered.pop_back() {
                records.waiting.push_front(body);
            }
            self.offer(effects);
        }
    }

    /// The master says what is owned. After a new connection that is what load waits for.
    fn on_assign(&mut self, shard: Box<Shard>, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        let (id, epoch) = (run.run.clone(), shard.epoch);
        if !std::mem::replace(&mut self.attached, true) {
            for (pool, want) in &run.wanted {
                effects.push(Effect::Send(ToMaster::WantTickets { run: id.clone(), pool: *pool, want: *want }));
            }
            for pool in &run.empty {
                effects.push(Effect::Send(ToMaster::PoolEmpty { run: id.clone(), pool: *pool }));
            }
        }
        effects.push(Effect::Throttles(shard.throttles.iter().map(|share| share.parts).collect()));
        if epoch > run.epoch {
            run.epoch = epoch;
            if let Stage::Armed { t0, .. } = run.stage {
                // the engine begins what it was armed with, and changes at once
                let armed = std::mem::replace(&mut run.stage, Stage::Running { t0 });
                if let Stage::Armed { shard, .. } = armed {
                    effects.push(Effect::Start { shard, t0 });
                    effects.extend(run.program.take().map(Effect::Change));
                }
            }
            effects.push(Effect::Assign(shard));
        }
        effects.push(Effect::Send(ToMaster::Assigned { run: id, epoch }));
    }

    /// The load changes while it is made.
    fn on_program(&mut self, program: Program, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        let (id, changes) = (run.run.clone(), program.changes().len() as u32);
        match run.stage {
            // the engine takes it once it runs
            Stage::Armed { .. } => run.program = Some(program),
            Stage::Running { .. } => effects.push(Effect::Change(program)),
            _ => {}
        }
        effects.push(Effect::Send(ToMaster::ProgramSet { run: id, changes }));
    }

    fn on_goodbye(&mut self, now: Mono, text: &str, effects: &mut Vec<Effect>) {
        if self.options.stay {
            effects.push(Effect::Say(format!("the master {} said goodbye: {text}", self.options.master)));
            effects.push(Effect::Hangup);
            self.link = Link::Down { redial: now.after(REDIAL_EVERY) };
            self.lease = None;
            self.lose_run(now, effects);
        } else {
            self.drop_run(effects);
            effects.push(Effect::Exit(Exit::Done(format!("the master said goodbye: {text}"))));
        }
    }

    fn on_prepare(&mut self, run: RunId, plan: Digest, blobs: Vec<Digest>, effects: &mut Vec<Effect>) {
        if self.ending != Ending::Not {
            return;
        }
        if self.run.as_ref().is_some_and(|run| run.orphaned) {
            let text = "it still drains a run whose master was lost".into();
            effects.push(Effect::Send(ToMaster::CannotPrepare { run, text }));
            return;
        }
        self.drop_run(effects);
        let mut missing: VecDeque<Digest> = VecDeque::new();
        for digest in blobs {
            if !missing.contains(&digest) {
                missing.push_back(digest);
            }
        }
        let digests = missing.iter().cloned().collect();
        effects.push(Effect::Send(ToMaster::NeedBlobs { run: run.clone(), digests }));
        let stage = Stage::Fetching { plan, missing, blobs: BTreeMap::new(), partial: BytesMut::new() };
        let folder = |dir: &PathBuf| Some(Folder::new(dir, &run, self.home.as_ref()?.session));
        let shelf = self.options.spool.as_ref().and_then(folder).map(|folder| Box::new(folder) as Box<dyn Shelf>);
        self.run = Some(Run {
            run,
            stage,
            spool: Spool::new(shelf),
            records: Shipped::default(),
            ready: Ready { on_master_loss: MasterLoss::Stop, is_replaced: false, graceful_stop: Duration::ZERO },
            epoch: Epoch(0),
            program: None,
            wanted: BTreeMap::new(),
            empty: BTreeSet::new(),
            orphaned: false,
        });
    }

    fn on_blob(&mut self, digest: &Digest, total: u64, offset: u64, data: &Bytes, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        let Stage::Fetching { plan, missing, blobs, partial } = &mut run.stage else { return };
        let expected = missing.front() == Some(digest) && offset == partial.len() as u64;
        if !expected || offset + data.len() as u64 > total {
            let text = format!("blob {digest} arrived out of order");
            effects.push(Effect::Send(ToMaster::CannotPrepare { run: run.run.clone(), text }));
            self.drop_run(effects);
            return;
        }
        partial.extend_from_slice(data);
        if (partial.len() as u64) < total {
            return;
        }
        let blob = std::mem::take(partial).freeze();
        missing.pop_front();
        if Digest::of(&blob) != *digest {
            let text = format!("blob {digest} arrived damaged");
            effects.push(Effect::Send(ToMaster::CannotPrepare { run: run.run.clone(), text }));
            self.drop_run(effects);
            return;
        }
        blobs.insert(digest.clone(), blob);
        if missing.is_empty() {
            let (plan, blobs) = (plan.clone(), std::mem::take(blobs));
            run.stage = Stage::Preparing;
            effects.push(Effect::Prepare { run: run.run.clone(), plan, blobs });
        }
    }

    fn on_prepared(&mut self, id: &RunId, result: Result<Ready, String>, effects: &mut Vec<Effect>) {
        let preparing = |run: &&mut Run| run.run == *id && matches!(run.stage, Stage::Preparing);
        let Some(run) = self.run.as_mut().filter(preparing) else { return };
        match result {
            Ok(ready) => {
                run.ready = ready;
                run.stage = Stage::Ready;
                let (cores, capacity) = (self.options.hello.cores, self.options.capacity);
                effects.push(Effect::Send(ToMaster::Ready { run: id.clone(), cores, capacity }));
            }
            Err(text) => {
                effects.push(Effect::Send(ToMaster::CannotPrepare { run: id.clone(), text }));
                self.drop_run(effects);
            }
        }
    }

    fn on_arm(&mut self, now: Mono, attempt: u32, t0: Mono, shard: Box<Shard>, effects: &mut Vec<Effect>) {
        let Some(t0) = self.clock.to_own(t0) else { return };
        let Some(run) = &mut self.run else { return };
        // an instant that has passed, or comes after the engine was started, is not confirmed; whoever
        // joins in mid-run starts as soon as it can
        let in_time = t0 > now || shard.from > RunTime(0);
        if in_time && matches!(run.stage, Stage::Ready | Stage::Armed { .. }) {
            run.epoch = shard.epoch;
            run.stage = Stage::Armed { shard, t0 };
            effects.push(Effect::Send(ToMaster::Armed { run: run.run.clone(), attempt }));
        }
    }

    fn on_span(&mut self, now: Mono, body: Box<FrameBody>, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        let last = body.last;
        run.records.open = body.records_follow;
        if run.orphaned {
            if last {
                self.drop_run(effects);
            }
            return;
        }
        let Some(t0) = run.t0() else { return };
        run.spool.put(body, RunTime::from(now.since(t0)));
        if last {
            run.stage = Stage::Spent { t0 };
        }
        self.offer(effects);
    }

    fn on_records(&mut self, body: RecordBody, effects: &mut Vec<Effect>) {
        let Some(run) = self.run.as_mut().filter(|run| !run.orphaned) else { return };
        run.records.open &= !body.last;
        run.records.waiting.push_back(body);
        self.offer(effects);
    }

    fn offer(&mut self, effects: &mut Vec<Effect>) {
        let Link::Joined { session } = self.link else { return };
        let Some(run) = &mut self.run else { return };
        while let Some((seq, body, sealed_at)) = run.spool.offer() {
            let key = FrameKey { run: run.run.clone(), session, seq };
            let frame = Box::new(Frame { key, body: *body });
            effects.push(Effect::Send(ToMaster::Frame { frame, sealed_at }));
        }
        if run.spool.is_waiting() {
            return;
        }
        while let Some(body) = run.records.waiting.pop_front() {
            run.records.sent += 1;
            run.records.offered.push_back(body.clone());
            let batch = RecordBatch { run: run.run.clone(), session, seq: run.records.sent, body };
            effects.push(Effect::Send(ToMaster::Records(Box::new(batch))));
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
        if self.ending == Ending::Abandoned && self.absence == Absence::Silent {
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

    fn advance_run(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        match &run.stage {
            Stage::Armed { t0, shard } if now >= start_at(*t0, shard) => {
                let t0 = *t0;
                let armed = std::mem::replace(&mut run.stage, Stage::Running { t0 });
                if let Stage::Armed { shard, .. } = armed {
                    effects.push(Effect::Start { shard, t0 });
                    effects.extend(run.program.take().map(Effect::Change));
                }
            }
            Stage::Running { .. } if run.ready.is_replaced && self.lease.is_some_and(|until| now >= until) => {
                self.lease = None;
                effects.push(Effect::LeaseLost);
            }
            Stage::Draining { until, aborted, .. } if now >= *until => {
                if *aborted {
                    // even the last span did not come: there is nothing to wait for
                    self.drop_run(effects);
                } else {
                    self.abort_load(now, effects);
                }
            }
            Stage::Fetching { .. }
            | Stage::Preparing
            | Stage::Ready
            | Stage::Armed { .. }
            | Stage::Running { .. }
            | Stage::Draining { .. }
            | Stage::Spent { .. } => {}
        }
    }

    fn advance_link(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let joined = matches!(self.link, Link::Joined { .. });
        if joined && now >= self.heard.after(self.patience()) {
            let seconds = self.patience().as_secs_f64();
            effects.push(Effect::Hangup);
            self.on_disconnected(now, Unreached::seen(format!("nothing was heard of it for {seconds} s")), effects);
            // that is no proof that its process is gone
            self.absence = Absence::Silent;
        }
        if !joined && now >= self.gives_up_at() {
            self.give_up(now, effects);
        }
        if self.trying.is_some_and(|since| now >= since.after(ANSWER_WITHIN)) {
            self.absence = Absence::Silent;
        }
        match self.link {
            Link::Down { redial } if now >= redial => {
                self.link = Link::Dialing;
                self.trying = Some(now);
                effects.push(Effect::Dial);
            }
            Link::Greeting { until } if now >= until => {
                effects.push(Effect::Hangup);
                self.on_disconnected(now, Unreached::seen("it did not answer the hello"), effects);
            }
            Link::Joined { .. } if now >= self.next_beat => {
                self.beats += 1;
                let every = if self.beats < QUICK_BEATS { QUICK_BEAT_EVERY } else { BEAT_EVERY };
                self.next_beat = now.after(every);
                let run = self.run.as_ref().filter(|run| !run.orphaned);
                let run = run.and_then(|run| Some((run.run.clone(), run.t0()?)));
                effects.push(Effect::Beat { number: self.beats, run });
            }
            Link::Down { .. } | Link::Dialing | Link::Greeting { .. } | Link::Joined { .. } => {}
        }
    }

    /// The master has not been there for too long.
    fn give_up(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        if self.options.stay {
            effects.push(Effect::Say(format!("{}: its run is given up", self.lost_master())));
            self.heard = now;
            self.lose_run(now, effects);
            return;
        }
        self.ending = Ending::Abandoned;
        let Some(run) = &mut self.run else { return };
        let makes_load = matches!(run.stage, Stage::Running { .. } | Stage::Draining { .. });
        if run.ready.on_master_loss == MasterLoss::Finish && self.absence == Absence::Gone && makes_load {
            run.orphaned = true;
            effects.push(Effect::Say(format!("{}: the test is run to its end", self.lost_master())));
        } else {
            self.lose_run(now, effects);
        }
    }

    fn lost_master(&self) -> String {
        let seconds = self.options.master_timeout.as_secs_f64();
        let why = if self.seen.is_empty() { String::new() } else { format!(" ({})", self.seen) };
        format!("nothing was heard of the master {} for {seconds} s{why}", self.options.master)
    }

    /// What is known of the master's clock.
    pub fn clock(&self) -> Option<ld_shared::message::ClockReport> {
        self.clock.report()
    }
}

fn start_at(t0: Mono, shard: &Shard) -> Mono {
    Mono((t0.0 + shard.from.0).saturating_sub(START_AHEAD.as_nanos() as u64))
}
