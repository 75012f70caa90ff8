//! One load core: a thread with a single-threaded runtime and the users that live on it.

use super::throttle::Gates;
use super::{Order, Shared, closed, open};
use crate::messages::Messages;
use crate::protocol::{CoreContext, PrepareError};
use crate::recorder::{ChunkPool, LineBacklog, Odometer, Part, Recorder};
use crate::sampler::Sampler;
use crate::user::Scenario;
use ld_shared::boot::clock::mono;
use ld_shared::scope::Bindings;
use ld_shared::time::RunTime;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Size of the core's read buffer: one read brings all that the kernel holds of most answers.
const SCRATCH: usize = 64 * 1024;
/// How often a core looks how long it waits to be polled.
const PROBE: Duration = Duration::from_millis(5);

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
    /// Starting is over, and users are told so.
    over: Cell<bool>,
    told: Notify,
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

    /// Run time at `now`.
    pub(crate) fn run_time(&self, now: u64) -> RunTime {
        RunTime(now.saturating_sub(self.recorder.t0()))
    }

    /// Pauses, at most until starting is over.
    pub(crate) async fn pause(&self, pause: Duration) {
        self.unless_over(tokio::time::sleep(pause)).await;
    }

    /// What comes of `work`; `None` if starting comes to its end before.
    pub(crate) async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        if self.over.get() {
            return None;
        }
        tokio::select! {
            done = work => Some(done),
            () = self.told.notified() => None,
        }
    }

    /// Tells users that starting is over.
    fn tell_over(&self) {
        self.over.set(true);
        self.told.notify_waiters();
    }

    /// Waits until run time `t`, to the timer's millisecond.
    pub(crate) async fn sleep_until(&self, t: RunTime) {
        let at = self.recorder.t0().saturating_add(t.0);
        tokio::time::sleep(Duration::from_nanos(at.saturating_sub(mono().0))).await;
    }
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
        gates: Gates::new(&shared.throttles),
        shared,
        recorder: Rc::clone(&recorder),
        context,
        sampler: RefCell::new(sampler),
        users: RefCell::new(JoinSet::new()),
        open: Cell::new(0),
        owing: Cell::new(0),
        over: Cell::new(false),
        told: Notify::new(),
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
    if let Order::Run { lanes, from, t0 } = order {
        let lanes = lanes.get(index).cloned().unwrap_or_else(|| Arc::from([]));
        core.context.lanes.replace(Arc::clone(&lanes));
        recorder.start(t0.0, plan.warmup.0);
        let housekeeping = tokio::task::spawn_local(keep_house(Rc::clone(&core)));
        live(&core, &scenarios, &lanes, from, &mut orders).await;
        housekeeping.abort();
    }
    recorder.finish(mono().0);
}

/// Runs the users until the test is over for this core and its requests have ended or been cut off.
async fn live(
    core: &Rc<Core>,
    scenarios: &[Rc<Scenario>],
    lanes: &Arc<[u16]>,
    from: RunTime,
    orders: &mut watch::Receiver<Order>,
) {
    let mut starters = JoinSet::new();
    let mut pools = Vec::new();
    for scenario in scenarios {
        match &scenario.plan().load {
            ld_shared::load::Load::Closed(load) => {
                starters.spawn_local(closed::start_users(
                    Rc::clone(core),
                    Rc::clone(scenario),
                    load.clone(),
                    Arc::clone(lanes),
                    from,
                ));
            }
            ld_shared::load::Load::Open(load) => {
                pools.push(open::Pool::new(core, scenario, load, lanes, from));
            }
        }
    }
    if !pools.is_empty() {
        starters.spawn_local(open::pace(Rc::clone(core), pools.clone()));
    }
    let aborted = until_over(core, &mut starters, orders).await;
    for pool in &pools {
        pool.close(core, mono().0);
    }
    starters.abort_all();
    if !aborted {
        core.tell_over();
        for pool in pools.iter().filter(|pool| pool.owes()) {
            pool.retire();
        }
        drain(core, orders).await;
    }
    let mut users = std::mem::take(&mut *core.users.borrow_mut());
    users.shutdown().await;
    while starters.join_next().await.is_some() {}
}

/// Waits for the end of starting: the plan's, an order, or everybody done. Returns whether it was
/// an abort.
async fn until_over(core: &Core, starters: &mut JoinSet<()>, orders: &mut watch::Receiver<Order>) -> bool {
    loop {
        let now = mono().0;
        if core.is_over(now) {
            return matches!(*orders.borrow(), Order::Abort);
        }
        // the clock's end may be moved by an order, never by a timer: an hour is as good as for ever
        let left = Duration::from_nanos((core.shared.limits.end() - now).min(3_600 * ld_shared::time::SECOND));
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            changed = orders.changed() => match (changed, &*orders.borrow()) {
                (Err(_), _) | (_, Order::Abort) => return true,
                (_, Order::Drain) => return false,
                _ => {}
            },
            Some(_) = starters.join_next(), if !starters.is_empty() => {
                if starters.is_empty() {
                    // nobody will be started any more: over when those that live have ended
                    return wait_for_users(core, orders).await;
                }
            }
        }
    }
}

/// All starters have ended: waits for their users (iterations used up, say), the end or an order.
async fn wait_for_users(core: &Core, orders: &mut watch::Receiver<Order>) -> bool {
    loop {
        let now = mono().0;
        core.users.borrow_mut().try_join_next();
        if core.is_over(now) || core.users.borrow().is_empty() {
            return matches!(*orders.borrow(), Order::Abort);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {
                while core.users.borrow_mut().try_join_next().is_some() {}
            }
            changed = orders.changed() => match (changed, &*orders.borrow()) {
                (Err(_), _) | (_, Order::Abort) => return true,
                (_, Order::Drain) => return false,
                _ => {}
            },
        }
    }
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
