//! One load core: a thread with a single-threaded runtime and the users that live on it.

use super::holding::{Holding, Tenure};
use super::slots::Slots;
use super::throttle::Gates;
use super::{Order, Shared, closed, open};
use crate::messages::Messages;
use crate::protocol::{CoreContext, PrepareError};
use crate::recorder::{ChunkPool, LineBacklog, Odometer, Part, Recorder};
use crate::sampler::Sampler;
use crate::user::Scenario;
use ld_shared::boot::clock::mono;
use ld_shared::load::{Agenda, Load};
use ld_shared::scope::Bindings;
use ld_shared::time::RunTime;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Size of the core's read buffer: one read brings all that the kernel holds of most answers.
const SCRATCH: usize = 64 * 1024;
/// How often a core looks how long it waits to be polled.
const PROBE: Duration = Duration::from_millis(5);
/// How often a core looks whether it has anything left to do.
const LOOK: Duration = Duration::from_millis(10);

/// What a core's thread is started with.
pub(crate) struct Seat {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) odometer: Arc<Odometer>,
    pub(crate) pool: ChunkPool,
    pub(crate) backlog: LineBacklog,
    pub(crate) parts: Sender<(usize, Part)>,
    pub(crate) orders: watch::Receiver<Order>,
}

/// What the users of one core share.
pub(crate) struct Core {
    /// Which core of the engine it is.
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) recorder: Rc<Recorder>,
    pub(crate) context: Rc<CoreContext>,
    pub(crate) sampler: RefCell<Sampler>,
    pub(crate) users: RefCell<JoinSet<()>>,
    /// Where users wait for the limits on the rate of requests.
    pub(crate) gates: Gates,
    /// Exchanges that are open now.
    pub(crate) open: Cell<u64>,
    /// Users that will run `on_stop`.
    owing: Cell<u64>,
    /// Users that wait for a lease while others do their work: alive, and counted as none.
    pub(crate) away: Cell<u64>,
    /// Tasks that will yet start users of the closed model.
    starting: Cell<usize>,
    /// Starting is over, and users are told so.
    over: Cell<bool>,
}

/// How waiting ended.
pub(crate) enum Waited<T> {
    /// What was waited for came.
    Done(T),
    /// Starting is over, or the user's tenure is.
    Over,
    /// Something changed: of lanes, the load, or the lease.
    Told,
}

/// A task that will yet start users, for as long as it exists and is not at rest.
pub(crate) struct Starting<'a> {
    core: &'a Core,
    rests: bool,
}

impl<'a> Starting<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        core.starting.set(core.starting.get() + 1);
        Self { core, rests: false }
    }

    /// There is nobody to start, unless the load changes.
    pub(crate) fn rest(&mut self, rests: bool) {
        match (self.rests, rests) {
            (false, true) => self.core.starting.set(self.core.starting.get() - 1),
            (true, false) => self.core.starting.set(self.core.starting.get() + 1),
            _ => {}
        }
        self.rests = rests;
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.rest(true);
    }
}

/// A user that will run `on_stop`, for as long as it exists.
pub(crate) struct Owing {
    core: Option<Rc<Core>>,
}

impl Owing {
    /// A new user of `scenario`.
    pub(crate) fn new(core: &Rc<Core>, scenario: &Scenario) -> Self {
        let core = (!scenario.on_stop().is_empty()).then(|| Rc::clone(core));
        if let Some(core) = &core {
            core.owing.set(core.owing.get() + 1);
        }
        Self { core }
    }
}

impl Drop for Owing {
    fn drop(&mut self) {
        if let Some(core) = &self.core {
            core.owing.set(core.owing.get() - 1);
        }
    }
}

impl Core {
    /// Whether users must start nothing more.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        now >= self.shared.limits.end()
    }

    /// Whether nothing is left to do, and nothing will come.
    fn is_done(&self, now: u64) -> bool {
        let word = self.shared.rest.word();
        self.holding().catch_up();
        let idle = self.shared.slots.iter().all(Slots::is_empty)
            && self.starting.get() == 0
            && self.recorder.users() + self.away.get() == 0
            && !self.holding().has_batches()
            && !self.holding().waits()
            && self.holding().next_arrival().is_none();
        let nothing_comes = now >= self.holding().last_instant();
        idle && nothing_comes || self.shared.ends_by_itself && self.shared.rest.is_over(self.index, idle, word)
    }

    /// Run time at `now`.
    pub(crate) fn run_time(&self, now: u64) -> RunTime {
        RunTime(now.saturating_sub(self.recorder.t0()))
    }

    /// What the core holds.
    pub(crate) fn holding(&self) -> &Holding {
        self.recorder.holding()
    }

    /// Waits for `work`, for the end of the user (whose tenure it is), or for any change.
    pub(crate) async fn wait<T>(&self, work: Pin<&mut impl Future<Output = T>>, tenure: Option<&Tenure>) -> Waited<T> {
        let told = self.holding().told();
        // the end of a tenure is known before it comes; most have none
        let until = tenure.map_or(u64::MAX, Tenure::until);
        if self.over.get() || until != u64::MAX && mono().0 >= until {
            return Waited::Over;
        }
        tokio::select! {
            done = work => Waited::Done(done),
            () = told => if self.over.get() { Waited::Over } else { Waited::Told },
            () = sleep_until(until), if until != u64::MAX => Waited::Over,
        }
    }

    /// Tells users that starting is over.
    fn tell_over(&self) {
        self.over.set(true);
        self.holding().wake_all();
    }

    /// Waits until run time `t`, to the timer's millisecond. Ends early if something changes.
    pub(crate) async fn sleep_until(&self, t: RunTime) {
        let told = self.holding().told();
        tokio::select! {
            () = sleep_until(self.recorder.t0().saturating_add(t.0)) => {}
            () = told => {}
        }
    }
}

/// Waits until an instant of this node's clock, to the timer's millisecond.
async fn sleep_until(at: u64) {
    tokio::time::sleep(Duration::from_nanos(at.saturating_sub(mono().0))).await;
}

/// Says that a core is done, also when its thread panics: the aggregator waits for every core.
struct Farewell(usize, Sender<(usize, Part)>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // the aggregator may have said its last already
        self.1.send((self.0, Part::Done)).ok();
    }
}

/// The thread's work.
pub(crate) fn run(seat: Seat, ready: &Sender<Result<(), PrepareError>>) {
    let _farewell = Farewell(seat.index, seat.parts.clone());
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            ready.send(Err(PrepareError(format!("could not start the runtime of a load core: {error}")))).ok();
            return;
        }
    };
    runtime.block_on(work(seat, ready));
}

async fn work(seat: Seat, ready: &Sender<Result<(), PrepareError>>) {
    let Seat { index, shared, odometer, pool, backlog, parts, mut orders } = seat;
    let recorder = Rc::new(Recorder::new(index, Arc::clone(&shared.limits), odometer, pool, backlog, parts));
    let plan = Arc::clone(&shared.plan);
    let bindings = Rc::new(Bindings::new(&plan, shared.rows.clone()).with_secrets(shared.secrets.clone()));
    let context = Rc::new(CoreContext {
        bindings: Rc::clone(&bindings),
        plan: Arc::clone(&plan),
        blobs: Arc::clone(&shared.blobs),
        scratch: RefCell::new(vec![0; SCRATCH]),
        lanes: RefCell::new(Arc::from([])),
        messages: Messages::new(Rc::clone(&recorder), Arc::clone(&shared.series), bindings),
    });
    // not the plan's seed: cores of other workers would draw the same priorities
    let sampler = Sampler::new(plan.records, Arc::clone(&shared.record_limits), rand::random());
    let core = Rc::new(Core {
        index,
        gates: Gates::new(&shared.throttles),
        shared,
        recorder: Rc::clone(&recorder),
        context,
        sampler: RefCell::new(sampler),
        users: RefCell::new(JoinSet::new()),
        open: Cell::new(0),
        owing: Cell::new(0),
        away: Cell::new(0),
        starting: Cell::new(0),
        over: Cell::new(false),
    });
    let compiled: Result<Vec<Rc<Scenario>>, PrepareError> =
        (0..plan.scenarios.len()).map(|s| Scenario::compile(&core, s).map(Rc::new)).collect();
    let scenarios = match compiled {
        Ok(scenarios) => {
            ready.send(Ok(())).ok();
            scenarios
        }
        Err(error) => {
            // what a template was filled in with may stand in it
            let text = core.context.bindings.secrets().mask(&error.0).into_owned();
            ready.send(Err(PrepareError(text))).ok();
            recorder.finish(mono().0);
            return;
        }
    };
    // a closed channel is an abort: the engine was dropped
    let order = match orders.wait_for(|order| !matches!(order, Order::Wait)).await {
        Ok(order) => order.clone(),
        Err(_) => Order::Abort,
    };
    if let Order::Run { t0, second, from } = order {
        recorder.start(t0.0, plan.warmup.0, second, t0.0.saturating_add(from.0));
        let housekeeping = tokio::task::spawn_local(keep_house(Rc::clone(&core)));
        live(&core, &scenarios, &mut orders).await;
        housekeeping.abort();
    }
    recorder.finish(mono().0);
}

/// Runs the users until the test is over for this core and its requests have ended or been cut off.
async fn live(core: &Rc<Core>, scenarios: &[Rc<Scenario>], orders: &mut watch::Receiver<Order>) {
    let plan = &core.shared.plan;
    let (mut pools, mut agendas) = (Vec::new(), Vec::new());
    for scenario in scenarios {
        if let Load::Open(load) = &scenario.plan().load {
            let (seed, first) = (scenario.plan().arrival_seed(plan), scenario.plan().first_number);
            let most = plan.most_arrivals(scenario.plan());
            let agenda = Agenda::new(Arc::new(load.clone()), seed, first, most, plan.end());
            let agenda = Rc::new(RefCell::new(agenda));
            agendas.push((scenario.index(), Rc::clone(&agenda)));
            pools.push(open::Pool::new(scenario, load, agenda));
        }
    }
    let loads = scenarios.iter().map(|scenario| scenario.plan().load.clone()).collect();
    core.holding().start(core.recorder.t0(), loads, agendas);
    core.holding().catch_up();
    core.context.lanes.replace(core.holding().lanes());
    let mut starters = JoinSet::new();
    starters.spawn_local(follow(Rc::clone(core), scenarios.to_vec(), pools.clone()));
    if !pools.is_empty() {
        starters.spawn_local(open::pace(Rc::clone(core), pools.clone()));
    }
    let aborted = until_over(core, orders).await;
    core.holding().catch_up();
    for pool in &pools {
        pool.close(core, mono().0);
    }
    starters.shutdown().await;
    if !aborted {
        core.tell_over();
        for pool in pools.iter().filter(|pool| pool.owes()) {
            pool.retire();
        }
        drain(core, orders).await;
    }
    let mut users = std::mem::take(&mut *core.users.borrow_mut());
    users.shutdown().await;
}

/// Takes in what the core is told, and has users started on lanes that come.
async fn follow(core: Rc<Core>, scenarios: Vec<Rc<Scenario>>, pools: Vec<Rc<open::Pool>>) {
    let mut starters = JoinSet::new();
    loop {
        core.holding().catch_up();
        core.context.lanes.replace(core.holding().lanes());
        for batch in core.holding().take_batches() {
            for scenario in scenarios.iter().filter(|s| matches!(s.plan().load, Load::Closed(_))) {
                starters.spawn_local(closed::start_users(Rc::clone(&core), Rc::clone(scenario), Rc::clone(&batch)));
            }
        }
        if core.holding().is_hung_up(mono().0) {
            for pool in &pools {
                pool.dismiss();
            }
        }
        let told = core.holding().told();
        let shares = if core.index == 0 { core.shared.take_shares(mono().0) } else { None };
        // who starts something may have taken a change in already: then there is no news
        tokio::select! {
            () = core.shared.limits.news(core.index) => {}
            () = told => {}
            () = sleep_until(shares.unwrap_or(u64::MAX)), if shares.is_some() => {}
        }
    }
}

/// Waits for the end of starting: the plan's, an order, or everybody done. Returns whether it was
/// an abort.
async fn until_over(core: &Core, orders: &mut watch::Receiver<Order>) -> bool {
    loop {
        while core.users.borrow_mut().try_join_next().is_some() {}
        let now = mono().0;
        let is_ordered = !matches!(*orders.borrow(), Order::Run { .. });
        if is_ordered || core.is_over(now) && is_decided(core, now) || core.is_done(now) {
            return matches!(*orders.borrow(), Order::Abort);
        }
        let end = core.shared.limits.end().saturating_sub(now);
        let left = if end == 0 { LOOK } else { LOOK.min(Duration::from_nanos(end)) };
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            changed = orders.changed() => if changed.is_err() { return true },
        }
    }
}

/// Whether at the end of starting it is known what of this core's work is its own: not while its
/// lease is over, unless nothing is left that a new lease could change.
fn is_decided(core: &Core, now: u64) -> bool {
    core.holding().catch_up();
    !core.holding().lease_over(now) || !core.holding().has_work_before(core.shared.limits.end())
}

/// Gives open requests, and what users do last, the plan's grace.
async fn drain(core: &Core, orders: &mut watch::Receiver<Order>) {
    let grace = Duration::from_nanos(core.shared.plan.graceful_stop.0);
    let deadline = tokio::time::Instant::now() + grace;
    while (core.open.get() > 0 || core.owing.get() > 0) && tokio::time::Instant::now() < deadline {
        if orders.has_changed().is_err() || matches!(*orders.borrow(), Order::Abort) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Rolls seconds while nothing ends, and measures how long the core waits to be polled.
async fn keep_house(core: Rc<Core>) {
    loop {
        let due = mono().0 + PROBE.as_nanos() as u64;
        tokio::time::sleep(PROBE).await;
        let now = mono().0;
        if now >= core.recorder.t0() {
            // the timer wheel is 1 ms coarse and rounds up: that part is not waiting
            core.recorder.scheduler_lag(now.saturating_sub(due + 1_000_000));
            core.recorder.roll(now);
        }
    }
}
