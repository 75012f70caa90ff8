//! The worker's shell: moves messages, stamps the clock, drives the engine.
//!
//! It runs on a thread and runtime of its own, never on a load core, so that a full load delays
//! no heartbeat. All decisions are [`Membership`]'s.

pub mod grpc;
pub mod heir;
pub mod socket;
pub mod trust;

use crate::engine::{Engine, EngineEvent, EngineSpec};
use crate::health::Standing;
use crate::membership::{Effect, Event, Exit, Membership, Options, Ready, Unreached};
use crate::protocol::PrepareError;
use bytes::Bytes;
use ld_shared::boot::clock;
use ld_shared::frame::Odometers;
use ld_shared::id::{Digest, RunId};
use ld_shared::load::Program;
use ld_shared::message::{Beat, LINK_QUEUE, RunBeat, ToMaster, ToWorker};
use ld_shared::plan::{Plan, Pool, WorkerLoss};
use ld_shared::shard::Shard;
use ld_shared::targets::TargetList;
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::{Mono, RunTime};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

/// So often a spool on a disk is told how the load stands.
const NOTE_EVERY: Duration = Duration::from_millis(10);

/// What makes the load: the engine, or a double of it in tests.
pub trait LoadMaker: Sized + Send + 'static {
    /// [`Engine::prepare`].
    fn prepare(spec: EngineSpec, events: mpsc::UnboundedSender<EngineEvent>) -> Result<Self, PrepareError>;
    /// [`Engine::start`].
    fn start(&self, shard: Shard, t0: Mono);
    /// [`Engine::assign`].
    fn assign(&self, shard: Shard);
    /// [`Engine::change`].
    fn change(&self, program: &Program);
    /// [`Engine::set_lease`].
    fn set_lease(&self, until: Mono);
    /// [`Engine::lease_lost`].
    fn lease_lost(&self);
    /// [`Engine::stop`].
    fn stop(&self);
    /// [`Engine::abort`].
    fn abort(&self);
    /// [`Engine::odometers`].
    fn odometers(&self) -> Odometers;
    /// [`Engine::grant`].
    fn grant(&self, pool: Pool, tickets: Range<u64>, exhausted: bool);
    /// [`Engine::records_acknowledged`].
    fn records_acknowledged(&self);
    /// [`Engine::set_record_limits`].
    fn set_record_limits(&self, limits: [u64; 2]);
    /// [`Engine::set_throttles`].
    fn set_throttles(&self, parts: &[u32]);
    /// [`Engine::throttle_use`].
    fn throttle_use(&self) -> Vec<ThrottleUse>;
}

impl LoadMaker for Engine {
    fn prepare(spec: EngineSpec, events: mpsc::UnboundedSender<EngineEvent>) -> Result<Self, PrepareError> {
        Self::prepare(spec, events)
    }
    fn start(&self, shard: Shard, t0: Mono) {
        self.start(&shard, t0);
    }
    fn assign(&self, shard: Shard) {
        self.assign(&shard);
    }
    fn change(&self, program: &Program) {
        self.change(program);
    }
    fn set_lease(&self, until: Mono) {
        self.set_lease(until);
    }
    fn lease_lost(&self) {
        self.lease_lost();
    }
    fn stop(&self) {
        self.stop();
    }
    fn abort(&self) {
        self.abort();
    }
    fn odometers(&self) -> Odometers {
        self.odometers()
    }
    fn grant(&self, pool: Pool, tickets: Range<u64>, exhausted: bool) {
        self.grant(pool, tickets, exhausted);
    }
    fn records_acknowledged(&self) {
        self.records_acknowledged();
    }
    fn set_record_limits(&self, limits: [u64; 2]) {
        self.set_record_limits(limits);
    }
    fn set_throttles(&self, parts: &[u32]) {
        self.set_throttles(parts);
    }
    fn throttle_use(&self) -> Vec<ThrottleUse> {
        self.throttle_use()
    }
}

/// Both directions of a connection, as bounded channels of typed messages. Dropping it closes it.
#[derive(Debug)]
pub struct Channel {
    /// To the master.
    pub up: mpsc::Sender<ToMaster>,
    /// From the master. Its end, or an error, is the end of the connection.
    pub down: mpsc::Receiver<Result<ToWorker, Unreached>>,
}

/// A way to the master.
pub trait Dial {
    /// Opens a connection, in bounded time. To be waited for to its end.
    fn dial(&mut self) -> impl Future<Output = Result<Channel, Unreached>>;
}

/// Runs a worker until it is done. `signals`: each one is a request to end, the second time at once. `standing` is
/// told whether it has joined.
pub async fn run<L: LoadMaker>(
    options: Options,
    dial: impl Dial,
    mut signals: mpsc::Receiver<()>,
    standing: watch::Sender<Standing>,
) -> Exit {
    let cores = options.hello.cores as usize;
    let targets = options.targets.clone();
    let mut membership = Membership::new(clock::mono(), options);
    let mut shell = Shell::<L>::new(cores, targets);
    let mut effects = Vec::new();
    // what happens meanwhile does not end an attempt to dial
    let attempt = |mut dial: _| {
        Box::pin(async move {
            let result = Dial::dial(&mut dial).await;
            (dial, result)
        })
    };
    let (mut idle, mut dialing) = (Some(dial), None);
    let mut signals_open = true;
    let mut note = tokio::time::interval(NOTE_EVERY);
    note.set_missed_tick_behavior(MissedTickBehavior::Delay);
    membership.on(clock::mono(), Event::Tick, &mut effects);
    loop {
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Dial => dialing = idle.take().map(attempt).or(dialing),
                Effect::Exit(exit) => {
                    shell.flush().await;
                    return exit;
                }
                effect => {
                    if let Some(event) = shell.carry_out(effect, &membership) {
                        membership.on(clock::mono(), event, &mut effects);
                    }
                }
            }
        }
        if !effects.is_empty() {
            continue;
        }
        standing.send_if_modified(|known| {
            let now = membership.joined();
            let changed = *known != now;
            *known = now;
            changed
        });
        let wake = tokio::time::sleep(membership.deadline().since(clock::mono()));
        let notes = membership.notes();
        let event = tokio::select! {
            _ = note.tick(), if notes.is_some() => {
                if let Some((run, t0)) = notes {
                    membership.note(&shell.stands(run, t0));
                }
                continue;
            }
            (dial, result) = finished(&mut dialing) => {
                (idle, dialing) = (Some(dial), None);
                match result {
                    Ok(channel) => {
                        shell.channel = Some(channel);
                        Event::Connected
                    }
                    Err(why) => {
                        tracing::debug!(refused = why.refused, reset = why.reset, "no connection: {}", why.seen);
                        Event::Disconnected(why)
                    }
                }
            }
            event = shell.next() => event,
            signal = signals.recv(), if signals_open => {
                signals_open = signal.is_some();
                if signals_open { Event::Signal } else { Event::Tick }
            }
            () = wake => Event::Tick,
        };
        membership.on(clock::mono(), event, &mut effects);
    }
}

/// For workers of whom nobody asks whether they have joined.
pub fn unwatched() -> watch::Sender<Standing> {
    watch::channel(Ok(())).0
}

/// The connection and the engine.
struct Shell<L> {
    cores: usize,
    targets: Option<TargetList>,
    channel: Option<Channel>,
    load: Option<L>,
    lease: Option<Mono>,
    /// The run that an engine is prepared for; any other that gets ready is of no use.
    wanted: Option<RunId>,
    events: Option<mpsc::UnboundedReceiver<EngineEvent>>,
    prepared: mpsc::Receiver<(RunId, Result<Prepared<L>, String>)>,
    preparing: mpsc::Sender<(RunId, Result<Prepared<L>, String>)>,
    newest: Newest,
}

struct Prepared<L> {
    load: L,
    events: mpsc::UnboundedReceiver<EngineEvent>,
    ready: Ready,
}

/// How the generator fared in the newest span.
#[derive(Default)]
struct Newest {
    users: u64,
    cpu_permille: u32,
    lag_us: u64,
}

impl<L: LoadMaker> Shell<L> {
    fn new(cores: usize, targets: Option<TargetList>) -> Self {
        let (preparing, prepared) = mpsc::channel(4);
        let newest = Newest::default();
        Self {
            cores,
            targets,
            channel: None,
            load: None,
            lease: None,
            wanted: None,
            events: None,
            prepared,
            preparing,
            newest,
        }
    }

    /// The next thing that happens. Cancel safe.
    async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            message = receive(&mut self.channel) => match message {
                Some(Ok(message)) => Event::Message(message),
                Some(Err(why)) => {
                    self.channel = None;
                    Event::Disconnected(why)
                }
                None => {
                    self.channel = None;
                    Event::Disconnected(Unreached::seen("it was closed"))
                }
            },
            event = receive_engine(&mut self.events) => match event {
                EngineEvent::Span(body) => {
                    self.newest = Newest {
                        users: body.generator.users_max,
                        cpu_permille: body.generator.cpu_max_permille,
                        lag_us: body.generator.scheduler_lag.percentile(99.0),
                    };
                    Event::Span(body)
                }
                EngineEvent::Records(body) => Event::Records(body),
                EngineEvent::WantTickets { pool, want } => Event::WantTickets(pool, want),
                EngineEvent::PoolEmpty(pool) => Event::PoolEmpty(pool),
            },
            Some((run, result)) = self.prepared.recv() => match result {
                Ok(prepared) if self.wanted.as_ref() == Some(&run) => {
                    if let Some(until) = self.lease {
                        prepared.load.set_lease(until);
                    }
                    self.load = Some(prepared.load);
                    self.events = Some(prepared.events);
                    Event::Prepared(run, Ok(prepared.ready))
                }
                Ok(late) => {
                    discard(late.load);
                    Event::Tick
                }
                Err(text) => Event::Prepared(run, Err(text)),
            },
        }
    }

    /// Carries an effect out; what comes of it at once is an event.
    fn carry_out(&mut self, effect: Effect, membership: &Membership) -> Option<Event> {
        match effect {
            Effect::Send(message) => return self.send(message, true),
            Effect::Beat { number, run } => {
                let run = run.map(|(run, t0)| RunBeat {
                    throttles: self.load.as_ref().map(LoadMaker::throttle_use).unwrap_or_default(),
                    ..self.stands(run, t0)
                });
                let beat = Beat { number, sent_at: clock::mono(), clock: membership.clock(), run };
                return self.send(ToMaster::Beat(beat), false);
            }
            Effect::Hangup => self.channel = None,
            Effect::Prepare { run, plan, blobs } => {
                self.wanted = Some(run.clone());
                self.prepare(run, plan, blobs);
            }
            Effect::Lease(until) => {
                self.lease = Some(until);
                if let Some(load) = &self.load {
                    load.set_lease(until);
                }
            }
            Effect::DropLoad => {
                if let Some(load) = self.load.take() {
                    discard(load);
                }
                (self.events, self.wanted) = (None, None);
                self.newest = Newest::default();
            }
            Effect::Say(text) => tracing::info!("{text}"),
            Effect::Start { shard, t0 } => self.with_load(|load| load.start(*shard, t0)),
            Effect::Change(program) => self.with_load(|load| load.change(&program)),
            Effect::LeaseLost => self.with_load(LoadMaker::lease_lost),
            Effect::Assign(shard) => self.with_load(|load| load.assign(*shard)),
            Effect::StopLoad => self.with_load(LoadMaker::stop),
            Effect::AbortLoad => self.with_load(LoadMaker::abort),
            Effect::Grant(pool, tickets, exhausted) => self.with_load(|load| load.grant(pool, tickets, exhausted)),
            Effect::RecordsAcknowledged(batches) => {
                self.with_load(|load| (0..batches).for_each(|_| load.records_acknowledged()));
            }
            Effect::Throttles(parts) => self.with_load(|load| load.set_throttles(&parts)),
            Effect::RecordLimits(limits) => self.with_load(|load| load.set_record_limits(limits)),
            Effect::Dial | Effect::Exit(_) => {}
        }
        None
    }

    fn stands(&self, run: RunId, t0: Mono) -> RunBeat {
        RunBeat {
            run,
            // read first: an odometer that is newer than its instant only widens a bound
            at: RunTime::from(clock::mono().since(t0)),
            odometers: self.load.as_ref().map(LoadMaker::odometers).unwrap_or_default(),
            users: self.newest.users,
            cpu_permille: self.newest.cpu_permille,
            lag_us: self.newest.lag_us,
            throttles: Vec::new(),
        }
    }

    fn with_load(&self, act: impl FnOnce(&L)) {
        if let Some(load) = &self.load {
            act(load);
        }
    }

    /// `must`: a message without which the master would wait for ever. A beat may be left out.
    fn send(&mut self, message: ToMaster, must: bool) -> Option<Event> {
        let full = self.channel.as_ref().is_some_and(|channel| channel.up.try_send(message).is_err());
        if full && must {
            self.channel = None;
            let seen = format!("more than {LINK_QUEUE} messages wait to be sent");
            return Some(Event::Disconnected(Unreached::seen(seen)));
        }
        None
    }

    fn prepare(&self, run: RunId, plan: Digest, mut blobs: BTreeMap<Digest, Bytes>) {
        let (done, cores, targets) = (self.preparing.clone(), self.cores, self.targets.clone());
        tokio::task::spawn_blocking(move || {
            let json = blobs.remove(&plan).unwrap_or_default();
            let result = serde_json::from_slice::<Plan>(&json)
                .map_err(|error| format!("its release does not understand the plan: {error}"))
                .and_then(|mut plan| {
                    plan.allow_targets.extend(targets);
                    let graceful_stop = Duration::from_nanos(plan.graceful_stop.0);
                    let is_replaced = plan.on_worker_loss == WorkerLoss::Redistribute;
                    let ready = Ready { on_master_loss: plan.on_master_loss, is_replaced, graceful_stop };
                    let (sender, events) = mpsc::unbounded_channel();
                    let spec = EngineSpec { plan: Arc::new(plan), blobs: Arc::new(blobs), cores };
                    let load = L::prepare(spec, sender).map_err(|error| error.to_string())?;
                    Ok(Prepared { load, events, ready })
                });
            // the shell is gone only when the process ends
            drop(done.blocking_send((run, result)));
        });
    }

    /// Lets what is already queued leave, for a moment.
    async fn flush(&mut self) {
        let Some(channel) = self.channel.take() else { return };
        let Channel { up, mut down } = channel;
        drop(up);
        let closed = async { while down.recv().await.is_some() {} };
        // a master that does not close its side is left
        drop(tokio::time::timeout(Duration::from_millis(500), closed).await);
    }
}

/// The end of an attempt, if there is one. Cancel safe.
async fn finished<F: Future + Unpin>(attempt: &mut Option<F>) -> F::Output {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

/// Ends an engine, which may wait for its threads: not on the thread of the beats.
fn discard<L: LoadMaker>(load: L) {
    drop(tokio::task::spawn_blocking(move || drop(load)));
}

async fn receive(channel: &mut Option<Channel>) -> Option<Result<ToWorker, Unreached>> {
    match channel {
        Some(channel) => channel.down.recv().await,
        None => std::future::pending().await,
    }
}

async fn receive_engine(events: &mut Option<mpsc::UnboundedReceiver<EngineEvent>>) -> EngineEvent {
    if let Some(receiver) = events {
        if let Some(event) = receiver.recv().await {
            return event;
        }
        // the engine has said everything
        *events = None;
    }
    std::future::pending().await
}
