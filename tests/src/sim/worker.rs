//! A model of the worker's shell (`ld_worker::link`): carries out what [`Membership`] decides.

use super::Sabotage;
use super::disk::Disk;
use super::engine::{Engine, Said};
use super::net::{ConnectionId, MS, Packet, Side};
use super::setup::Setup;
use super::tickets::Say;
use super::world::{Context, Happening};
use ld_shared::frame::Frame;
use ld_shared::id::RunId;
use ld_shared::message::{Beat, Hello, LEASE, PROTOCOL_VERSION, RunBeat, ToMaster, ToWorker};
use ld_shared::plan::WorkerLoss;
use ld_shared::time::{Mono, RunTime, SECOND};
use ld_worker::heir::Heir;
use ld_worker::membership::{Effect, Event, Membership, Options, Ready, Unreached};
use ld_worker::spool::Shelves;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What a dial sees of a machine on which nobody listens.
pub(crate) const REFUSED: &str = "connection refused";
/// For how long a worker may go on after that.
const ORPHAN_LEASE: Duration = LEASE;

/// A spool is told so often how the load stands, if something happens at all.
const NOTE_EVERY: Duration = Duration::from_millis(10);

/// A worker's host.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    /// How many processes there were before and are.
    pub(crate) life: u32,
    pub(crate) process: Option<Process>,
    disk: Disk,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Exits,
    /// `kill -9`: the kernel closes its connection.
    Dies,
    /// Its machine is gone with it: nobody closes anything.
    Vanishes,
}

/// A worker's process.
#[derive(Debug)]
pub(crate) struct Process {
    membership: Membership,
    connection: Option<ConnectionId>,
    engine: Option<Engine>,
    lease: Option<Mono>,
    wanted: Option<RunId>,
    users: u64,
    /// When it last told its spool how the load stands.
    noted: Mono,
    /// Of processes that died here; the first one delivers.
    heirs: VecDeque<Heir>,
    heir_link: Option<ConnectionId>,
    own: Hello,
    /// Offered and not acknowledged: what a planted fault goes by.
    offered: VecDeque<Frame>,
}

impl Worker {
    pub(crate) fn new(index: usize) -> Self {
        Self { index, life: 0, process: None, disk: Disk::default() }
    }

    fn now(&self, context: &Context) -> Mono {
        context.mono(self.index)
    }

    /// A process begins.
    pub(crate) fn begin(&mut self, setup: &Setup, context: &mut Context) {
        self.life += 1;
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            build: "sim".into(),
            name: format!("w{}", self.index),
            cores: setup.cores[self.index],
            returning: None,
        };
        let heirs = if setup.spools { self.disk.heirs().into() } else { VecDeque::new() };
        let disk = setup.spools.then(|| Arc::new(self.disk.clone()) as Arc<dyn Shelves>);
        let options = Options {
            hello: hello.clone(),
            capacity: setup.capacity[self.index],
            stay: false,
            master_timeout: setup.master_timeout,
            master: "master".into(),
            targets: None,
            spool: disk,
        };
        let membership = Membership::new(self.now(context), options);
        self.process = Some(Process {
            membership,
            connection: None,
            engine: None,
            lease: None,
            wanted: None,
            users: 0,
            noted: Mono(0),
            heirs,
            heir_link: None,
            own: hello,
            offered: VecDeque::new(),
        });
        context.truth.process(self.index);
        self.feed(setup, context, Event::Tick);
    }

    /// The process is gone.
    pub(crate) fn end(&mut self, context: &mut Context, how: End) {
        let Some(process) = self.process.take() else { return };
        if let Some(engine) = &process.engine {
            context.truth.dropped(engine.who);
        }
        context.truth.process(self.index);
        for connection in process.connection.into_iter().chain(process.heir_link) {
            match how {
                End::Exits => context.close(connection, Side::Worker, false),
                End::Dies => context.close(connection, Side::Worker, true),
                End::Vanishes => context.net.forget(connection, Side::Worker),
            }
        }
    }

    /// The attempt to dial came to this.
    pub(crate) fn dialed(&mut self, setup: &Setup, context: &mut Context, result: Result<(), &'static str>) {
        let now = self.now(context);
        let Some(process) = &mut self.process else { return };
        let event = match result {
            Ok(()) => {
                process.connection = Some(context.net.open((self.index, self.life)));
                process.send_heir((self.index, self.life), context);
                Event::Connected
            }
            Err(seen) => {
                let refused = seen == REFUSED;
                if refused {
                    // the master's process is gone: it gives nothing away
                    context.truth.leased(self.index, now.after(ORPHAN_LEASE));
                }
                Event::Disconnected(Unreached { refused, ..Unreached::seen(seen) })
            }
        };
        self.feed(setup, context, event);
    }

    /// Something came over a connection.
    pub(crate) fn receive(&mut self, setup: &Setup, context: &mut Context, connection: ConnectionId, packet: Packet) {
        let now = self.now(context);
        if let Some(process) = self.process.as_mut().filter(|p| p.heir_link == Some(connection)) {
            process.heir_hears((self.index, self.life), (now, &self.disk), context, &packet);
            return;
        }
        let Some(process) = self.process.as_mut().filter(|p| p.connection == Some(connection)) else { return };
        let event = match packet {
            Packet::Down(message) => {
                match &message {
                    ToWorker::BeatReply(reply) => context.truth.answered(self.index, reply.sent_at),
                    ToWorker::Welcome { session, .. } => context.truth.welcome(self.index, *session),
                    ToWorker::Arm { shard, .. } | ToWorker::Assign { shard, .. } => {
                        context.truth.given(&setup.plan, &shard.lanes, setup.capacity[self.index]);
                    }
                    ToWorker::FrameAck { seq, .. } | ToWorker::RunClosed { frames: seq, .. } => {
                        process.offered.retain(|frame| frame.key.seq > *seq);
                    }
                    _ => {}
                }
                Event::Message(message)
            }
            Packet::End(seen) => {
                process.connection = None;
                Event::Disconnected(Unreached::seen(seen))
            }
            Packet::Up(_) => return,
        };
        self.feed(setup, context, event);
    }

    /// An engine is ready.
    pub(crate) fn prepared(&mut self, setup: &Setup, context: &mut Context, run: RunId) {
        let now = self.now(context);
        let Some(process) = self.process.as_mut().filter(|p| p.wanted.as_ref() == Some(&run)) else { return };
        let who = context.truth.new_engine(self.index);
        let lawless = context.sabotage == Sabotage::SkipLease;
        let rng = context.fork(who.engine);
        let mut engine = Engine::new(Arc::clone(&setup.plan), who, setup.service, lawless, rng);
        if let Some(until) = process.lease {
            engine.set_lease(now.0, until);
        }
        process.engine = Some(engine);
        let graceful_stop = Duration::from_nanos(setup.plan.graceful_stop.0);
        let is_replaced = setup.plan.on_worker_loss == WorkerLoss::Redistribute;
        let ready = Ready { on_master_loss: setup.plan.on_master_loss, is_replaced, graceful_stop };
        self.feed(setup, context, Event::Prepared(run, Ok(ready)));
    }

    /// Deadlines of the machine and of the engine.
    pub(crate) fn wake(&mut self, setup: &Setup, context: &mut Context) {
        self.run_engine(setup, context);
        let now = self.now(context);
        if self.process.as_ref().is_some_and(|p| p.membership.deadline() <= now) {
            self.feed(setup, context, Event::Tick);
        }
    }

    /// When it wants to be woken, in true time.
    pub(crate) fn deadline(&self, context: &Context) -> Option<u64> {
        let process = self.process.as_ref()?;
        let engine = process.engine.as_ref().and_then(Engine::deadline);
        let clock = context.clock(self.index);
        [Some(process.membership.deadline()), engine].into_iter().flatten().filter_map(|at| clock.when(at)).min()
    }

    /// Somebody sends SIGTERM.
    pub(crate) fn signal(&mut self, setup: &Setup, context: &mut Context) {
        self.feed(setup, context, Event::Signal);
    }

    fn feed(&mut self, setup: &Setup, context: &mut Context, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now(context);
            let Some(process) = &mut self.process else { return };
            let mut effects = Vec::new();
            process.membership.on(now, event, &mut effects);
            for effect in effects {
                self.carry_out(context, effect);
            }
        }
        self.run_engine(setup, context);
    }

    /// Lets the engine do what is due, and hands on what it says.
    fn run_engine(&mut self, setup: &Setup, context: &mut Context) {
        let now = self.now(context);
        let Some(process) = &mut self.process else { return };
        if now >= process.noted.after(NOTE_EVERY)
            && let Some((run, t0)) = process.membership.notes()
        {
            process.noted = now;
            let stands = RunBeat { throttles: Vec::new(), ..process.report(now, run, t0) };
            process.membership.note(&stands);
        }
        let Some(engine) = &mut process.engine else { return };
        for said in engine.run(now.0, &mut context.truth) {
            let event = match said {
                Said::Span(body) => {
                    if let Some(process) = &mut self.process {
                        process.users = body.generator.users_max;
                    }
                    Event::Span(body)
                }
                Said::Tickets(Say::Want(pool, want)) => Event::WantTickets(pool, want),
                Said::Tickets(Say::Empty(pool)) => Event::PoolEmpty(pool),
            };
            self.feed(setup, context, event);
        }
    }

    fn carry_out(&mut self, context: &mut Context, effect: Effect) {
        let now = self.now(context);
        let Some(process) = &mut self.process else { return };
        match effect {
            Effect::Dial => context.dial(self.index, self.life),
            Effect::Hangup => {
                if let Some(connection) = process.connection.take() {
                    context.close(connection, Side::Worker, false);
                }
            }
            Effect::Send(message) => process.send(context, message),
            Effect::Beat { number, run } => {
                let run = run.map(|(run, t0)| process.report(now, run, t0));
                let beat = Beat { number, sent_at: now, clock: process.membership.clock(), run };
                process.send(context, ToMaster::Beat(beat));
            }
            Effect::Prepare { run, .. } => {
                process.wanted = Some(run.clone());
                let slow = if context.rng.below(20) == 0 { 3 * SECOND } else { 200 * MS };
                let at = context.now + MS + context.rng.below(slow);
                context.schedule(at, Happening::Prepared { worker: self.index, life: self.life, run });
            }
            Effect::Start { shard, t0 } => {
                if let Some(engine) = &mut process.engine {
                    engine.start(now.0, &shard, t0, &mut context.truth);
                }
            }
            Effect::Assign(shard) => {
                if let Some(engine) = &mut process.engine {
                    engine.assign(now.0, &shard, &mut context.truth);
                }
            }
            Effect::Lease(until) => {
                context.truth.believes(self.index, until);
                process.lease = Some(until);
                process.with_engine(|engine| engine.set_lease(now.0, until));
            }
            Effect::StopLoad => process.with_engine(|engine| engine.stop(now.0)),
            Effect::AbortLoad => process.with_engine(|engine| engine.abort(now.0)),
            Effect::DropLoad => process.drop_engine(context),
            Effect::Grant(pool, tickets, exhausted) => {
                process.with_engine(|engine| engine.grant(now.0, pool, tickets, exhausted));
            }
            Effect::Throttles(parts) => {
                if let Some(engine) = &mut process.engine {
                    engine.set_limits(&parts, &mut context.truth);
                }
            }
            // connections of idle users are not modelled
            Effect::RecordLimits(_) | Effect::RecordsAcknowledged(_) | Effect::LeaseLost | Effect::Change(_) => {}
            Effect::Say(text) => context.note(|| format!("worker {}: {text}", self.index)),
            Effect::Exit(exit) => {
                context.note(|| format!("worker {} exits: {exit:?}", self.index));
                self.end(context, End::Exits);
            }
        }
    }
}

impl Process {
    fn with_engine(&mut self, act: impl FnOnce(&mut Engine)) {
        if let Some(engine) = &mut self.engine {
            act(engine);
        }
    }

    fn drop_engine(&mut self, context: &mut Context) {
        if let Some(engine) = self.engine.take() {
            context.truth.dropped(engine.who);
        }
        (self.wanted, self.users) = (None, 0);
        self.offered.clear();
    }

    /// The heir of a process that died here opens a connection, if there is one and it has none.
    fn send_heir(&mut self, owner: (usize, u32), context: &mut Context) {
        if let Some(heir) = self.heirs.front().filter(|_| self.heir_link.is_none()) {
            let connection = context.net.open(owner);
            self.heir_link = Some(connection);
            let hello = ToMaster::Hello(heir.hello(&self.own));
            context.send(connection, Side::Master, Packet::Up(hello));
        }
    }

    /// Something came over the heir's connection; one that ends is opened again with the worker's own.
    fn heir_hears(&mut self, owner: (usize, u32), (now, disk): (Mono, &Disk), context: &mut Context, packet: &Packet) {
        let (Some(connection), Some(heir)) = (self.heir_link, self.heirs.front_mut()) else { return };
        let mut refused = false;
        let messages = match packet {
            Packet::Down(ToWorker::Welcome { .. }) => heir.begin(now),
            Packet::Down(ToWorker::BeatReply(_)) => {
                heir.heard();
                Vec::new()
            }
            Packet::Down(ToWorker::FrameAck { seq, .. }) => {
                let before = heir.frames();
                let messages = heir.acknowledge(*seq);
                context.truth.inherited += (before - heir.frames()) as u64;
                messages
            }
            Packet::Down(ToWorker::Refused(_)) => {
                refused = true;
                Vec::new()
            }
            Packet::End(_) => {
                self.heir_link = None;
                return;
            }
            Packet::Down(_) | Packet::Up(_) => Vec::new(),
        };
        let is_over = refused || heir.is_done();
        for message in messages {
            if let ToMaster::Frame { frame, .. } = &message {
                context.truth.offer(frame);
            }
            context.send(connection, Side::Master, Packet::Up(message));
        }
        if is_over {
            context.close(connection, Side::Worker, false);
            disk.clear(heir.session());
            self.heirs.pop_front();
            self.heir_link = None;
            self.send_heir(owner, context);
        }
    }

    fn report(&mut self, now: Mono, run: RunId, t0: Mono) -> RunBeat {
        RunBeat {
            run,
            at: RunTime::from(now.since(t0)),
            odometers: self.engine.as_ref().map(Engine::odometers).unwrap_or_default(),
            users: self.users,
            cpu_permille: 0,
            lag_us: 0,
            throttles: self.engine.as_mut().map(Engine::throttle_use).unwrap_or_default(),
        }
    }

    fn send(&mut self, context: &mut Context, mut message: ToMaster) {
        let Some(connection) = self.connection else { return };
        if let ToMaster::Frame { frame, .. } = &mut message {
            if context.sabotage == Sabotage::MergeOffered {
                self.merge_offered(frame);
            }
            context.truth.offer(frame);
        }
        context.send(connection, Side::Master, Packet::Up(message));
    }

    /// A planted fault: the newest frame that was offered and not acknowledged is taken into this one.
    fn merge_offered(&mut self, frame: &mut Frame) {
        if let Some(before) = self.offered.back() {
            frame.body.from_second = before.body.from_second;
            frame.body.counts.merge(&before.body.counts);
        }
        self.offered.push_back(frame.clone());
    }
}
