//! Closed model: a core's users, started when the plan wants them.

use super::core::{Core, Owing};
use crate::user::{Began, Scenario, User};
use ld_shared::boot::clock::mono;
use ld_shared::lanes::LANES;
use ld_shared::load::{Closed, Life};
use ld_shared::plan::Pool;
use ld_shared::rng::KeyedRng;
use ld_shared::time::RunTime;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Starts the users whose numbers fall on `lanes` and who live at or after `from`.
pub(crate) async fn start_users(
    core: Rc<Core>,
    scenario: Rc<Scenario>,
    load: Closed,
    lanes: Arc<[u16]>,
    from: RunTime,
) {
    let end = core.shared.plan.end();
    let first = scenario.plan().first_number;
    let users = load.peak(end);
    let own = (first..first + users)
        .filter(|number| lanes.binary_search(&((number % LANES as u64) as u16)).is_ok())
        .map(|number| number - first);
    let mut lives: Vec<(u64, u64, Life)> = own
        .flat_map(|user| load.lives(user).into_iter().enumerate().map(move |(turn, life)| (user, turn as u64, life)))
        .filter(|(_, _, life)| life.start < end && life.end > from)
        .collect();
    lives.sort_by_key(|(user, _, life)| (life.start, *user));
    for (user, turn, life) in lives {
        if life.start > core.run_time(mono().0) || mono().0 < core.recorder.t0() {
            core.sleep_until(life.start).await;
        }
        let work = live(Rc::clone(&core), Rc::clone(&scenario), user, turn, life.end, users);
        let mut set = core.users.borrow_mut();
        while set.try_join_next().is_some() {}
        set.spawn_local(work);
    }
}

/// One user's life: its begin, iteration after iteration, its end.
async fn live(core: Rc<Core>, scenario: Rc<Scenario>, number: u64, turn: u64, end: RunTime, users: u64) {
    let _alive = Alive::new(&core);
    let now = mono().0;
    if core.is_over(now) || core.run_time(now) >= end {
        return;
    }
    let _owing = Owing::new(&core, &scenario);
    let mut user = User::new(&core, &scenario);
    let id = scenario.plan().first_number + number;
    // numbers that no iteration has
    let hook = |which: u64| KeyedRng::new(core.shared.plan.seed, id, u64::MAX - (turn << 1 | which));
    // rows as in the user's first iteration
    match user.start(hook(0), number).await {
        Began::Ready => iterate(&core, &scenario, &mut user, Numbers { number, turn, users }, end).await,
        Began::Over => {}
        Began::Never => return,
    }
    user.stop(hook(1), number).await;
}

/// Which user it is.
#[derive(Clone, Copy)]
struct Numbers {
    /// Its number in the scenario.
    number: u64,
    /// Its lives before this one.
    turn: u64,
    /// Most users of the scenario.
    users: u64,
}

/// Iteration after iteration until the user's end.
async fn iterate(core: &Core, scenario: &Scenario, user: &mut User, numbers: Numbers, end: RunTime) {
    let Numbers { number, turn, users } = numbers;
    let limited = core.shared.plan.iterations.is_some();
    let seed = core.shared.plan.seed;
    let mut iteration = 0_u64;
    let mut now = mono().0;
    loop {
        if core.is_over(now) || core.run_time(now) >= end {
            return;
        }
        if limited {
            let ticket = core.unless_over(core.shared.tickets.take(Pool::Iterations)).await;
            if ticket.flatten().is_none() {
                return;
            }
            now = mono().0;
        }
        if scenario.is_empty() {
            core.unless_over(core.sleep_until(end.min(core.shared.plan.end()))).await;
            return;
        }
        let rng = KeyedRng::new(seed, scenario.plan().first_number + number, turn << 40 | iteration);
        // numbers of all users' iterations together are 0, 1, 2, …: a cycling source is dealt evenly
        user.begin_iteration(rng, number + iteration * users, None, now);
        if user.iterate(None).await.is_break() {
            return;
        }
        user.end_iteration();
        iteration += 1;
        now = user.last_instant();
        let pause = match scenario.plan().wait_time {
            Some((low, high)) => Duration::from_secs_f64(user.between(low, high)),
            None if user.sent_something() => continue,
            // conditions let nothing through: don't spin
            None => Duration::from_millis(1),
        };
        let left = end.min(core.shared.plan.end()).0.saturating_sub(core.run_time(now).0);
        core.pause(pause.min(Duration::from_nanos(left))).await;
        now = mono().0;
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
