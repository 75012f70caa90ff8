//! Closed model: a core's users, started when the plan wants them.

use super::core::{Core, Owing, Starting};
use super::holding::{Batch, Tenure};
use crate::user::{Began, Scenario, User};
use ld_shared::boot::clock::mono;
use ld_shared::lanes::LANES;
use ld_shared::load::{Closed, Life, Load};
use ld_shared::plan::Pool;
use ld_shared::rng::KeyedRng;
use ld_shared::time::{RunTime, SECOND};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

/// Users who lived already when their lanes came are new users, and begin within this time.
const MOVED_WITHIN: u64 = SECOND;
/// None of them before this: until then those of before, on another worker, end their requests and log out.
const ROOM: u64 = SECOND / 5;
/// How often a user looks whether the one before with its number has ended: at first, and at last.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// A life that is to begin on a lane of a batch.
struct Due {
    user: u64,
    /// Its lives before this one.
    turn: u64,
    life: Life,
    /// Position of its lane in the batch.
    place: usize,
}

/// Starts the users whose numbers fall on lanes that came at once, as the load wants them from then
/// on, for as long as these lanes are held.
pub(crate) async fn start_users(core: Rc<Core>, scenario: Rc<Scenario>, batch: Rc<Batch>) {
    let mut starting = Starting::new(&core);
    // what was said late begins late
    let from = batch.from.max(core.run_time(mono().0));
    let (mut last, mut begun) = (None, 0);
    loop {
        let version = core.holding().version();
        let Some(Load::Closed(load)) = core.holding().load(scenario.index()) else { return };
        let mut dues = dues(&core, &scenario, &load, &batch);
        dues.retain(|due| last.is_none_or(|last| (due.life.start, due.user) > last));
        let living = begun + dues.iter().filter(|due| due.life.start < batch.from).count() as u64;
        starting.rest(dues.is_empty());
        for due in dues {
            let at = if due.life.start < batch.from {
                RunTime(from.0.saturating_add(ROOM + (MOVED_WITHIN - ROOM) * begun / living))
            } else {
                due.life.start
            };
            while core.run_time(mono().0) < at || mono().0 < core.recorder.t0() {
                core.sleep_until(at).await;
                if core.holding().version() != version {
                    break;
                }
            }
            if core.holding().version() != version {
                break;
            }
            last = Some((due.life.start, due.user));
            begun += u64::from(due.life.start < batch.from);
            start(&core, &scenario, &batch, &due);
        }
        starting.rest(true);
        while core.holding().version() == version {
            if batch.lanes.iter().all(|(_, tenure)| tenure.strong_count() == 0) {
                return;
            }
            core.holding().told().await;
        }
    }
}

/// The lives on lanes of `batch`, in order, that are not over when they come.
fn dues(core: &Core, scenario: &Scenario, load: &Closed, batch: &Batch) -> Vec<Due> {
    let end = core.shared.plan.end();
    let first = scenario.plan().first_number;
    let mut dues = Vec::new();
    for number in first..first + load.peak(end) {
        let lane = (number % LANES as u64) as u16;
        let Ok(place) = batch.lanes.binary_search_by_key(&lane, |(lane, _)| *lane) else { continue };
        let user = number - first;
        let lives = (0..).zip(load.lives(user)).filter(|(_, life)| life.start < end && life.end > batch.from);
        dues.extend(lives.map(|(turn, life)| Due { user, turn, life, place }));
    }
    dues.sort_by_key(|due| (due.life.start, due.user));
    dues
}

/// Starts a user, unless its lane has been given away meanwhile.
fn start(core: &Rc<Core>, scenario: &Rc<Scenario>, batch: &Batch, due: &Due) {
    let Some(tenure) = batch.lanes[due.place].1.upgrade().filter(|tenure| !tenure.is_over(mono().0)) else { return };
    let alive = Alive::new(core);
    let numbers = Numbers { number: due.user, turn: due.turn };
    let work = live(Rc::clone(core), Rc::clone(scenario), numbers, tenure, alive);
    let mut set = core.users.borrow_mut();
    while set.try_join_next().is_some() {}
    set.spawn_local(work);
}

/// Which user it is.
#[derive(Clone, Copy)]
struct Numbers {
    /// Its number in the scenario.
    number: u64,
    /// Its lives before this one.
    turn: u64,
}

/// When a life ends by the load, as far as is known now.
struct End {
    number: u64,
    version: Option<u64>,
    at: RunTime,
    /// Most users of the scenario.
    users: u64,
}

impl End {
    fn look(&mut self, core: &Core, scenario: &Scenario, now: RunTime) {
        let version = core.holding().version();
        if self.version.replace(version) == Some(version) {
            return;
        }
        if let Some(Load::Closed(load)) = core.holding().load(scenario.index()) {
            let life = load.lives(self.number).into_iter().find(|life| life.start <= now && now < life.end);
            self.at = life.map_or(now, |life| life.end);
            self.users = load.peak(core.shared.plan.end());
        }
    }
}

/// One user's life: its begin, iteration after iteration, its end.
async fn live(core: Rc<Core>, scenario: Rc<Scenario>, numbers: Numbers, tenure: Rc<Tenure>, alive: Alive) {
    let _alive = alive;
    let mut user = User::new(&core, &scenario, Some(Rc::clone(&tenure)));
    let mut look = LOOK[0];
    while tenure.must_wait() {
        user.pause(look).await;
        look = (look * 2).min(LOOK[1]);
        if tenure.is_over(mono().0) || core.is_over(mono().0) {
            return;
        }
    }
    let Numbers { number, turn } = numbers;
    let mut end = End { number, version: None, at: RunTime(0), users: 0 };
    let now = mono().0;
    end.look(&core, &scenario, core.run_time(now));
    if core.is_over(now) || core.run_time(now) >= end.at || user.lease().await.is_break() {
        return;
    }
    while let Some(until) = core.holding().paused_until(core.run_time(mono().0)) {
        pause(&core, &mut user, until).await;
        let now = mono().0;
        end.look(&core, &scenario, core.run_time(now));
        if core.is_over(now) || tenure.is_over(now) || core.run_time(now) >= end.at {
            return;
        }
    }
    let _owing = Owing::new(&core, &scenario);
    let id = scenario.plan().first_number + number;
    // numbers that no iteration has
    let hook = |which: u64| KeyedRng::new(core.shared.plan.seed, id, u64::MAX - (turn << 1 | which));
    // rows as in the user's first iteration
    match user.start(hook(0), number).await {
        Began::Ready => {
            iterate(&core, &scenario, &mut user, numbers, &tenure, &mut end).await.is_break();
        }
        Began::Over => {}
        Began::Never => return,
    }
    user.stop(hook(1), number).await;
}

/// Iteration after iteration until the user's end.
async fn iterate(
    core: &Core,
    scenario: &Scenario,
    user: &mut User,
    Numbers { number, turn }: Numbers,
    tenure: &Tenure,
    end: &mut End,
) -> ControlFlow<()> {
    let limited = core.shared.plan.iterations.is_some();
    let seed = core.shared.plan.seed;
    let mut iteration = 0_u64;
    let mut is_idle = false;
    let mut now = mono().0;
    loop {
        end.look(core, scenario, core.run_time(now));
        if core.is_over(now) || tenure.is_over(now) || core.run_time(now) >= end.at {
            return ControlFlow::Break(());
        }
        if let Some(until) = core.holding().paused_until(core.run_time(now)) {
            pause(core, user, until).await;
            now = mono().0;
            continue;
        }
        let mut ticket = None;
        if limited && !is_idle {
            // a ticket is for who may use it
            user.lease().await?;
            ticket = user.unless_over(core.shared.tickets.take(Pool::Iterations)).await.flatten();
            if ticket.is_none() {
                return ControlFlow::Break(());
            }
            now = mono().0;
        }
        if scenario.is_empty() {
            is_idle = true;
            now = rest(core, scenario, user, end, u64::MAX).await;
            continue;
        }
        let rng = KeyedRng::new(seed, scenario.plan().first_number + number, turn << 40 | iteration);
        // numbers of all users' iterations together are 0, 1, 2, …: a cycling source is dealt evenly
        user.begin_iteration(rng, number + iteration * end.users, None, now);
        let flow = user.iterate(None).await;
        if let Some(ticket) = ticket.filter(|_| user.was_refused()) {
            core.shared.tickets.give_back(Pool::Iterations, ticket);
        }
        flow?;
        user.end_iteration();
        iteration += 1;
        now = user.last_instant();
        let pause = match scenario.plan().wait_time {
            Some((low, high)) => Duration::from_secs_f64(user.between(low, high)),
            None if user.sent_something() => continue,
            // conditions let nothing through: don't spin
            None => Duration::from_millis(1),
        };
        now = rest(core, scenario, user, end, now.saturating_add(pause.as_nanos() as u64)).await;
    }
}

/// Waits for the end of a pause, at most until something changes.
async fn pause(core: &Core, user: &mut User, until: RunTime) {
    let until = until.min(core.shared.plan.end());
    let left = until.0.saturating_sub(core.run_time(mono().0).0);
    user.sleep(Duration::from_nanos(left)).await;
}

/// Waits until `until`, ns of this node's clock, or the user's end; gives the time then.
async fn rest(core: &Core, scenario: &Scenario, user: &mut User, end: &mut End, until: u64) -> u64 {
    loop {
        let now = mono().0;
        end.look(core, scenario, core.run_time(now));
        let last = end.at.min(core.shared.plan.end());
        let left = core.recorder.t0().saturating_add(last.0).min(until).saturating_sub(now);
        if left == 0 || !user.sleep(Duration::from_nanos(left)).await {
            return mono().0;
        }
    }
}

/// Counts a user as alive for as long as it exists.
pub(crate) struct Alive {
    core: Rc<Core>,
}

impl Alive {
    pub(crate) fn new(core: &Rc<Core>) -> Self {
        core.recorder.users_changed(1, mono().0);
        Self { core: Rc::clone(core) }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.core.recorder.users_changed(-1, mono().0);
    }
}
