//! The wheel: what happens next, happens.

use super::clock::Clock;
use super::master::Master;
use super::net::{Arrival, ConnectionId, MS, Net, Packet, Side, lane_of};
use super::setup::{Fault, Setup, WAIT};
use super::truth::Truth;
use super::worker::{End, REFUSED, Worker};
use super::{Outcome, Sabotage, Violation};
use ld_master::journal::book::Image;
use ld_master::run::Ending;
use ld_shared::id::RunId;
use ld_shared::message::{PREPARE_WITHIN, ToMaster, ToWorker};
use ld_shared::rng::KeyedRng;
use ld_shared::time::{Mono, SECOND};
use std::collections::{BTreeMap, VecDeque};

/// Events that a trace keeps.
const TRACE: usize = 120;
/// More than any run needs: beyond it somebody goes round in circles.
const MOST_STEPS: u64 = 400_000;
/// A dial that nobody answers is given up.
const DIAL_WITHIN: u64 = 3 * SECOND;

/// Something that will happen.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most of them are arrivals")]
pub(crate) enum Happening {
    Arrival(Arrival),
    Dialed {
        worker: usize,
        life: u32,
        result: Result<(), &'static str>,
    },
    Prepared {
        worker: usize,
        life: u32,
        run: RunId,
    },
    /// A node's deadline.
    Wake(usize),
    Begin {
        worker: usize,
    },
    Fault(Fault),
    Heal {
        worker: usize,
        up: bool,
        down: bool,
    },
    Ease {
        worker: usize,
    },
    Thaw(usize),
    /// The master's disk has it.
    Commit {
        life: u64,
    },
    /// Commits are fast again.
    EaseDisk,
    /// A master takes up what another one left.
    MasterReturns,
    /// The master says goodbye, then it ends.
    Goodbye,
    MasterEnds,
}

/// What everybody shares.
#[derive(Debug)]
pub(crate) struct Context {
    /// True time.
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    number: u64,
    seed: u64,
    pub(crate) rng: KeyedRng,
    pub(crate) net: Net,
    pub(crate) truth: Truth,
    pub(crate) sabotage: Sabotage,
    clocks: Vec<Clock>,
    master_lives: bool,
    /// How many masters there were.
    master_life: u64,
    /// A commit is under way; how long it takes at least.
    commits: bool,
    disk: u64,
    trace: Option<VecDeque<String>>,
}

impl Context {
    pub(crate) fn schedule(&mut self, at: u64, happening: Happening) {
        self.number += 1;
        self.queue.insert((at.max(self.now), self.number), happening);
    }

    pub(crate) fn clock(&self, node: usize) -> Clock {
        self.clocks[node]
    }

    pub(crate) fn mono(&self, node: usize) -> Mono {
        self.clocks[node].mono(self.now)
    }

    /// The master's wall clock, which jumps as it likes.
    pub(crate) fn wall(&mut self) -> u64 {
        self.rng.below(1 << 60)
    }

    /// A stream of random numbers of its own.
    pub(crate) fn fork(&mut self, name: u64) -> KeyedRng {
        KeyedRng::new(self.seed, 2, name)
    }

    /// Tells the trace, if there is one.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:9.6} {}", self.now as f64 / 1e9, what()));
        }
    }

    pub(crate) fn send(&mut self, connection: ConnectionId, to: Side, packet: Packet) {
        let lane = lane_of(&packet);
        let arrival = self.net.send(self.now, connection, to, lane, packet);
        self.expect(arrival);
    }

    pub(crate) fn close(&mut self, connection: ConnectionId, side: Side, dies: bool) {
        let arrivals = self.net.close(self.now, connection, side, dies);
        self.expect(arrivals);
    }

    fn expect(&mut self, arrivals: impl IntoIterator<Item = Arrival>) {
        for arrival in arrivals {
            self.schedule(arrival.at, Happening::Arrival(arrival));
        }
    }

    /// Something waits for the disk.
    pub(crate) fn commit(&mut self) {
        if !std::mem::replace(&mut self.commits, true) {
            let tail = if self.rng.below(6) == 0 { self.rng.below(400 * MS) } else { 0 };
            let at = self.now + MS / 2 + self.disk + self.rng.below(20 * MS) + tail;
            self.schedule(at, Happening::Commit { life: self.master_life });
        }
    }

    /// A worker dials the master.
    pub(crate) fn dial(&mut self, worker: usize, life: u32) {
        let cut = self.net.paths[worker].cut != [0; 2];
        let round_trip = self.net.delay(worker) + self.net.delay(worker);
        let (after, result) = match (cut, self.master_lives) {
            (true, _) => (DIAL_WITHIN, Err("no answer within 3 s")),
            (false, false) => (round_trip, Err(REFUSED)),
            (false, true) => (round_trip, Ok(())),
        };
        self.schedule(self.now + after, Happening::Dialed { worker, life, result });
    }
}

/// A node's standstill.
#[derive(Debug, Default)]
struct Node {
    frozen: Option<u64>,
    missed: VecDeque<Happening>,
    wakes: u64,
}

/// The cluster and its surroundings.
pub(crate) struct World {
    setup: Setup,
    context: Context,
    master: Option<Master>,
    workers: Vec<Worker>,
    nodes: Vec<Node>,
    steps: u64,
    /// What a master that was killed has left.
    image: Option<Image>,
    /// For how long the master stood still.
    slept: u64,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage, traced: bool) -> Self {
        let setup = Setup::new(seed);
        let mut context = Context {
            now: 0,
            queue: BTreeMap::new(),
            number: 0,
            seed,
            rng: KeyedRng::new(seed, 3, 0),
            net: Net::new(setup.workers, setup.delay, KeyedRng::new(seed, 4, 0)),
            truth: Truth::new(setup.clocks.clone(), &setup.plan, setup.delay),
            sabotage,
            clocks: setup.clocks.clone(),
            master_lives: true,
            master_life: 1,
            commits: false,
            disk: 0,
            trace: traced.then(VecDeque::new),
        };
        let master = Master::new(&setup, &context);
        for (worker, at) in setup.begins.iter().enumerate() {
            context.schedule(*at, Happening::Begin { worker });
        }
        for (at, fault) in &setup.faults {
            context.schedule(*at, Happening::Fault(*fault));
        }
        context.schedule(0, Happening::Wake(setup.workers));
        let workers = (0..setup.workers).map(Worker::new).collect();
        let nodes = (0..=setup.workers).map(|_| Node::default()).collect();
        Self { context, master: Some(master), workers, nodes, steps: 0, image: None, slept: 0, setup }
    }

    /// Turns the wheel until nobody is left.
    pub(crate) fn run(mut self) -> Result<Outcome, Box<Violation>> {
        while let Some(((at, _), happening)) = self.context.queue.pop_first() {
            self.context.now = at;
            self.context.truth.now = at;
            self.steps += 1;
            self.happen(happening);
            self.check_time();
            if self.context.truth.broken().is_some() {
                return Err(self.violation());
            }
            if self.is_over() {
                break;
            }
        }
        let undisturbed = !self.setup.faults.iter().any(|(_, fault)| fault.disturbs());
        self.context.truth.finish(&self.setup.plan, undisturbed);
        if self.context.truth.broken().is_some() { Err(self.violation()) } else { Ok(self.outcome()) }
    }

    #[expect(clippy::unnecessary_box_returns, reason = "errors are boxed: they are large")]
    fn violation(&mut self) -> Box<Violation> {
        Box::new(Violation {
            seed: self.context.seed,
            what: self.context.truth.broken().unwrap_or_default().to_owned(),
            story: self.setup.story(),
            trace: self.context.trace.take().unwrap_or_default().into(),
        })
    }

    fn outcome(&self) -> Outcome {
        let result = self.master.as_ref().and_then(|master| master.result.as_ref());
        let (ending, lost, losses) = match result {
            Some(Ok(measured)) => {
                let ending = match &measured.ending {
                    Ending::Completed => "completed",
                    Ending::Stopped => "stopped",
                    Ending::Breached => "breached",
                    Ending::Failed(_) => "failed",
                };
                (ending.to_owned(), measured.lost, measured.losses.len())
            }
            Some(Err(error)) => (error.to_string(), 0, 0),
            None => ("the master was killed".to_owned(), 0, 0),
        };
        let target = self.context.truth.target;
        let inherited = self.context.truth.inherited;
        Outcome { ending, target, lost, losses, inherited, steps: self.steps, story: self.setup.story() }
    }

    /// Everybody has ended.
    fn is_over(&self) -> bool {
        let master_ended = !self.context.master_lives;
        let begun = self.context.now > SECOND;
        master_ended && begun && self.workers.iter().all(|worker| worker.process.is_none()) && !self.somebody_comes()
    }

    fn somebody_comes(&self) -> bool {
        self.context
            .queue
            .values()
            .any(|happening| matches!(happening, Happening::Begin { .. } | Happening::MasterReturns))
    }

    /// Every wait has an end.
    fn check_time(&mut self) {
        let plan = &self.setup.plan;
        let most = (WAIT + PREPARE_WITHIN).as_nanos() as u64 + plan.end().0 + plan.graceful_stop.0 + 30 * SECOND;
        let (now, steps) = (self.context.now, self.steps);
        let closed = self.master.as_ref().is_none_or(Master::is_closed);
        let truth = &mut self.context.truth;
        truth.check(closed || now < most + self.slept, || "the run does not end".into());
        truth.check(now < most + self.slept + 60 * SECOND, || "a worker does not end".into());
        truth.check(steps < MOST_STEPS, || "somebody goes round in circles".into());
    }

    /// The node to which something happens, if it can sleep through it.
    fn node_of(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Arrival(arrival) => Some(match arrival.to {
                Side::Master => self.setup.workers,
                Side::Worker => self.context.net.owner_of(arrival.connection).0,
            }),
            Happening::Dialed { worker, .. } | Happening::Prepared { worker, .. } => Some(*worker),
            Happening::Wake(node) => Some(*node),
            Happening::Goodbye | Happening::MasterEnds | Happening::Commit { .. } => Some(self.setup.workers),
            Happening::Begin { .. }
            | Happening::Fault(_)
            | Happening::Heal { .. }
            | Happening::Ease { .. }
            | Happening::EaseDisk
            | Happening::MasterReturns
            | Happening::Thaw(_) => None,
        }
    }

    fn happen(&mut self, happening: Happening) {
        let node = self.node_of(&happening);
        if let Some(node) = node {
            if self.nodes[node].frozen.is_some() {
                // deadlines are looked at when it thaws
                if !matches!(happening, Happening::Wake(_)) {
                    self.nodes[node].missed.push_back(happening);
                }
                return;
            }
            if matches!(happening, Happening::Wake(_)) && self.nodes[node].wakes != self.context.now {
                return;
            }
        }
        // what comes all the time would push out of the trace what matters
        let routine = match &happening {
            Happening::Wake(_) | Happening::Dialed { .. } | Happening::Commit { .. } => true,
            Happening::Arrival(arrival) => matches!(
                arrival.packet,
                Packet::Up(ToMaster::Beat(_)) | Packet::Down(ToWorker::BeatReply(_) | ToWorker::FrameAck { .. })
            ),
            _ => false,
        };
        if !routine {
            self.context.note(|| summary(&happening));
        }
        self.carry_out(happening);
        if let Some(node) = node {
            self.set_alarm(node);
        }
    }

    fn carry_out(&mut self, happening: Happening) {
        let Self { setup, context, workers, .. } = self;
        match happening {
            Happening::Arrival(arrival) => self.arrive(arrival),
            Happening::Dialed { worker, life, result } => {
                if workers[worker].life == life {
                    // the master may have ended while it was dialled
                    let result = if context.master_lives { result } else { result.and(Err(REFUSED)) };
                    workers[worker].dialed(setup, context, result);
                }
            }
            Happening::Prepared { worker, life, run } => {
                if workers[worker].life == life {
                    workers[worker].prepared(setup, context, run);
                }
            }
            Happening::Wake(node) => self.wake(node),
            Happening::Begin { worker } => {
                if workers[worker].process.is_none() {
                    workers[worker].begin(setup, context);
                    self.set_alarm(worker);
                }
            }
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal { worker, up, down } => {
                let cut = &mut context.net.paths[worker].cut;
                *cut = [cut[0] - u32::from(up), cut[1] - u32::from(down)];
                let arrivals = context.net.flush(context.now, worker);
                context.expect(arrivals);
            }
            Happening::Ease { worker } => {
                let path = &mut context.net.paths[worker];
                (path.slow, path.slow_results) = (0, 0);
            }
            Happening::Thaw(node) => self.thaw(node),
            Happening::Commit { life } => {
                if let Some(master) = self.master.as_mut().filter(|_| context.master_life == life) {
                    context.commits = false;
                    let whole = context.rng.below(8) == 0;
                    master.committed(context, whole);
                    self.after_master();
                }
            }
            Happening::EaseDisk => context.disk = 0,
            Happening::MasterReturns => self.take_up(),
            Happening::Goodbye => {
                if let Some(master) = &mut self.master {
                    master.close(context);
                }
                context.schedule(context.now + 2 * SECOND, Happening::MasterEnds);
            }
            Happening::MasterEnds => self.end_master(false),
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let lane = lane_of(&arrival.packet);
        if !self.context.net.take(&arrival, lane) {
            return;
        }
        let Arrival { connection, packet, .. } = arrival;
        match arrival.to {
            Side::Master => {
                if let Some(master) = self.master.as_mut().filter(|_| self.context.master_lives) {
                    master.receive(&mut self.context, connection, packet);
                }
                self.after_master();
            }
            Side::Worker => {
                let (worker, life) = self.context.net.owner_of(connection);
                if self.workers[worker].life == life {
                    self.workers[worker].receive(&self.setup, &mut self.context, connection, packet);
                }
            }
        }
    }

    fn wake(&mut self, node: usize) {
        if let Some(worker) = self.workers.get_mut(node) {
            worker.wake(&self.setup, &mut self.context);
        } else if let Some(master) = self.master.as_mut().filter(|_| self.context.master_lives) {
            master.wake(&mut self.context);
            self.after_master();
        }
    }

    /// Once the run is over its result is judged, and the master says goodbye.
    fn after_master(&mut self) {
        let Some(result) = self.master.as_ref().and_then(|master| master.result.as_ref()) else { return };
        let said = self.nodes[self.setup.workers].wakes == u64::MAX;
        if said {
            return;
        }
        if let Ok(measured) = result {
            self.context.truth.judge(&self.setup.plan, measured);
        }
        // it needs no alarm any more
        self.nodes[self.setup.workers].wakes = u64::MAX;
        self.context.note(|| "the run is closed".into());
        let at = self.context.now + 300 * MS;
        self.context.schedule(at, Happening::Goodbye);
    }

    /// Makes sure that a node is woken at its deadline.
    fn set_alarm(&mut self, node: usize) {
        let deadline = match self.workers.get(node) {
            Some(worker) => worker.deadline(&self.context),
            None if self.nodes[node].wakes == u64::MAX => None,
            None => self.master.as_ref().and_then(|master| master.deadline(&self.context)),
        };
        let Some(at) = deadline.filter(|at| *at < u64::MAX / 2) else { return };
        // timers are a little late
        let at = at.max(self.context.now + 1) + self.context.rng.below(MS / 2);
        if self.nodes[node].wakes > at || self.nodes[node].wakes <= self.context.now {
            self.nodes[node].wakes = at;
            self.context.schedule(at, Happening::Wake(node));
        }
    }

    fn fault(&mut self, fault: Fault) {
        let Self { setup, context, workers, .. } = self;
        match fault {
            Fault::Cut { worker, up, down, length } => {
                let cut = &mut context.net.paths[worker].cut;
                *cut = [cut[0] + u32::from(up), cut[1] + u32::from(down)];
                context.schedule(context.now + length, Happening::Heal { worker, up, down });
            }
            Fault::Slow { worker, all, results, length } => {
                let path = &mut context.net.paths[worker];
                (path.slow, path.slow_results) = (all, results);
                context.schedule(context.now + length, Happening::Ease { worker });
            }
            Fault::Reset { worker, late } => {
                for connection in context.net.of_worker(worker) {
                    let arrivals = context.net.reset(context.now, connection, late);
                    context.expect(arrivals);
                }
            }
            Fault::Freeze { node, length } => {
                let index = node.unwrap_or(setup.workers);
                let until = context.now + length;
                if node.is_none() {
                    self.slept += length;
                }
                let frozen = &mut self.nodes[index].frozen;
                *frozen = Some(frozen.map_or(until, |before| before.max(until)));
                context.schedule(until, Happening::Thaw(index));
            }
            Fault::Kill { worker, vanish, back } => {
                workers[worker].end(context, if vanish { End::Vanishes } else { End::Dies });
                self.revive(worker);
                if let Some(after) = back {
                    let at = self.context.now + after;
                    self.context.schedule(at, Happening::Begin { worker });
                }
            }
            Fault::KillMaster { back } => {
                if self.master.as_ref().is_some_and(|master| !master.is_closed()) {
                    let killed = self.master.take();
                    if let (Some(after), Some(master)) = (back, killed) {
                        self.image = Some(master.image());
                        self.slept += after + 30 * SECOND;
                        self.context.schedule(self.context.now + after, Happening::MasterReturns);
                    }
                }
                self.end_master(true);
                self.revive(self.setup.workers);
            }
            Fault::SlowDisk { delay, length } => {
                context.disk = delay;
                self.slept += delay + length;
                context.schedule(context.now + length, Happening::EaseDisk);
            }
            Fault::Stop | Fault::Abort => {
                // somebody asks a master that sleeps, later
                let awake = self.nodes[setup.workers].frozen.is_none();
                if let Some(master) = self.master.as_mut().filter(|master| awake && !master.is_closed()) {
                    master.end(context, matches!(fault, Fault::Abort));
                    self.after_master();
                    self.set_alarm(self.setup.workers);
                }
            }
            Fault::Signal { worker } => {
                if self.nodes[worker].frozen.is_none() {
                    workers[worker].signal(setup, context);
                    self.set_alarm(worker);
                }
            }
        }
    }

    fn take_up(&mut self) {
        let Some(image) = self.image.take() else { return };
        let Self { setup, context, .. } = self;
        context.master_life += 1;
        context.commits = false;
        let Some(master) = Master::resume(setup, context, image, context.master_life) else { return };
        context.note(|| "a master takes the run up".into());
        context.master_lives = true;
        self.master = Some(master);
        let node = self.setup.workers;
        self.nodes[node] = Node::default();
        self.wake(node);
        self.set_alarm(node);
    }

    /// What stood still is gone.
    fn revive(&mut self, node: usize) {
        self.nodes[node].frozen = None;
        self.nodes[node].missed.clear();
    }

    fn end_master(&mut self, dies: bool) {
        self.context.master_lives = false;
        for connection in self.context.net.of_master() {
            self.context.close(connection, Side::Master, dies);
        }
    }

    fn thaw(&mut self, node: usize) {
        let Some(until) = self.nodes[node].frozen else { return };
        if self.context.now < until {
            return;
        }
        self.nodes[node].frozen = None;
        // threads run in any order: the engine, or a timer, before what has come, or after
        if self.context.rng.below(2) == 0 {
            self.wake(node);
        }
        for happening in std::mem::take(&mut self.nodes[node].missed) {
            self.happen(happening);
        }
        self.wake(node);
        self.nodes[node].wakes = if self.nodes[node].wakes == u64::MAX { u64::MAX } else { 0 };
        self.set_alarm(node);
    }
}

/// What a seed describes, for people.
pub(crate) fn story(seed: u64) -> Vec<String> {
    Setup::new(seed).story()
}

fn summary(happening: &Happening) -> String {
    let text = match happening {
        Happening::Arrival(Arrival { connection, to, packet, .. }) => {
            let packet = match packet {
                Packet::Up(message) => format!("{message:?}"),
                Packet::Down(message) => format!("{message:?}"),
                Packet::End(seen) => format!("end: {seen}"),
            };
            format!("connection {connection} to the {to:?}: {packet}")
        }
        other => format!("{other:?}"),
    };
    text.chars().take(240).collect()
}
