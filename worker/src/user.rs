//! One virtual user: pick → prepare → exchange → check → record, task after task.

mod hooks;
mod recording;
mod retry;
mod scenario;
mod timer;

pub(crate) use hooks::Began;
pub(crate) use recording::{masked, masked_text};
pub(crate) use scenario::{Name, Scenario, Task};
pub(crate) use timer::Timer;

use crate::engine::core::{Core, Waited};
use crate::engine::holding::Tenure;
use crate::probe::{Fate, Probe, Purpose};
use crate::protocol::Want;
use crate::sampler::Ticket;
use ld_shared::boot::clock::mono;
use ld_shared::plan::{Mode, Pool};
use ld_shared::reply::Reply;
use ld_shared::rng::KeyedRng;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::{Row, Scope};
use ld_shared::time::SECOND;
use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// One virtual user.
pub(crate) struct User {
    core: Rc<Core>,
    scenario: Rc<Scenario>,
    scope: Scope,
    /// What the scope was before the first iteration: where each arrival of the open model starts.
    base: Option<Box<Scope>>,
    /// One session a protocol of the scenario, opened on first use.
    sessions: Vec<Option<Box<dyn Any>>>,
    probe: Probe,
    timer: Timer,
    rng: KeyedRng,
    /// What its requests are for now.
    purpose: Purpose,
    /// The newest request failed.
    failed: Option<Failed>,
    sent: bool,
    /// The newest iteration ended because there was no lease (open model).
    lacked_lease: bool,
    /// Set while there is no lease and others do the work: there is no such user then.
    away: Option<Away>,
}

/// What is known of a failed request when it has been recorded.
struct Failed {
    kind: FailureKind,
    /// Of the answer, if there was one.
    status: Option<u16>,
    reason: Arc<str>,
}

impl User {
    /// A user that may start requests while it holds its tenure (open model: none).
    pub(crate) fn new(core: &Rc<Core>, scenario: &Rc<Scenario>, tenure: Option<Rc<Tenure>>) -> Self {
        let probe = Probe::new(Rc::clone(&core.recorder), tenure);
        Self {
            core: Rc::clone(core),
            scenario: Rc::clone(scenario),
            scope: Scope::new(&core.context.bindings),
            base: None,
            sessions: scenario.protocols().map(|_| None).collect(),
            timer: Timer::new(probe.deadline()),
            probe,
            rng: KeyedRng::new(0, 0, 0),
            purpose: Purpose::Load,
            failed: None,
            sent: false,
            lacked_lease: false,
            away: None,
        }
    }

    /// Uniform between both ends, from this iteration's random numbers.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        self.rng.between(low, high)
    }

    /// Whether the last iteration sent any request.
    pub(crate) fn sent_something(&self) -> bool {
        self.sent
    }

    /// Whether the last iteration ended because there was no lease: the user itself may go on.
    pub(crate) fn lacked_lease(&self) -> bool {
        self.lacked_lease
    }

    /// Whether the last iteration ended before anything of it started.
    pub(crate) fn was_refused(&self) -> bool {
        self.probe.was_refused()
    }

    /// The latest instant that this user knows of, ns of this node's clock.
    pub(crate) fn last_instant(&self) -> u64 {
        if self.sent { self.probe.ended_at() } else { mono().0 }
    }

    /// An iteration begins at `now`, ns of this node's clock. `number`: its number among all of the
    /// scenario; `due`: when it was due (open model).
    pub(crate) fn begin_iteration(&mut self, rng: KeyedRng, number: u64, due: Option<u64>, now: u64) {
        if due.is_some() {
            // open model: extracts don't leak into the next arrival
            match &self.base {
                Some(base) => self.scope.clone_from(base),
                None if self.scenario.extracts() => self.base = Some(Box::new(self.scope.clone())),
                None => {}
            }
        }
        self.draw_from(rng, number);
        self.purpose = Purpose::Load;
        let recorder = &self.core.recorder;
        let phase = recorder.phase_at(due.unwrap_or(now));
        self.probe.begin_iteration(phase, due);
    }

    /// Random numbers come from `rng` from now on, and rows of sources that cycle from `number`.
    fn draw_from(&mut self, rng: KeyedRng, number: u64) {
        // one stream for choices and pauses, another for what placeholders draw
        self.scope.begin_iteration(rng.clone(), number);
        self.rng = rng;
        self.rng.next_u64();
        self.rng = KeyedRng::new(self.rng.next_u64(), 1, 0);
        self.sent = false;
        self.lacked_lease = false;
    }

    /// The iteration is over.
    pub(crate) fn end_iteration(&mut self) {
        self.probe.iteration_started();
        self.end_sessions();
    }

    /// Closes what lasts for one iteration.
    fn end_sessions(&mut self) {
        for (users, session) in self.scenario.protocols().zip(&mut self.sessions) {
            if let Some(session) = session {
                users.end_iteration(session.as_mut());
            }
        }
    }

    /// Runs one iteration's tasks. `intended`: when its first request was due, ns of this node's
    /// clock; without it requests are intended when they start. Breaks when the user must end.
    pub(crate) async fn iterate(&mut self, intended: Option<u64>) -> ControlFlow<()> {
        let scenario = Rc::clone(&self.scenario);
        let open_model = intended.is_some();
        let mut intended = intended;
        match scenario.plan().mode {
            Mode::Sequence => {
                for task in scenario.tasks() {
                    self.step(task, &mut intended).await?;
                    if !open_model {
                        intended = None;
                    }
                }
            }
            Mode::Weighted => {
                if let Some(task) = scenario.pick(&mut self.rng) {
                    self.step(task, &mut intended).await?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Runs one task if its conditions hold.
    async fn step(&mut self, task: &Task, intended: &mut Option<u64>) -> ControlFlow<()> {
        // whose requests all fail at once would else have the core for itself, and no timer would fire
        tokio::task::consume_budget().await;
        self.failed = None;
        for source in &task.once_sources {
            if !self.scope.has_row(*source) {
                let core = Rc::clone(&self.core);
                if let Some(row) = self.wait(core.shared.tickets.take(Pool::Source(*source))).await? {
                    self.scope.set_row(*source, Row::At(row));
                    continue;
                }
                self.scope.set_row(*source, Row::Exhausted);
                if self.scenario.at_end(*source).is_break() {
                    self.probe.iteration_refused();
                    return ControlFlow::Break(());
                }
            }
        }
        if !task.may_run(&self.core.context.bindings, &mut self.scope) {
            return ControlFlow::Continue(());
        }
        let (mut first, mut retries) = (*intended, 0);
        let ended = loop {
            let ended = self.request(task, first).await?;
            let Some(pause) = self.retry_after(task, retries) else { break ended };
            self.pause(pause).await;
            // a retry is intended when it starts
            (first, retries) = (None, retries + 1);
        };
        if let Some((low, high)) = task.think_time {
            let pause = self.rng.between(low, high);
            self.pause(Duration::from_secs_f64(pause)).await;
            *intended = intended.map(|_| ended.saturating_add((pause * SECOND as f64) as u64));
        } else {
            *intended = intended.map(|_| ended);
        }
        ControlFlow::Continue(())
    }

    /// Pauses. The end of starting, or of the user's tenure, ends pauses, but for those of what is
    /// done after it.
    pub(crate) async fn pause(&mut self, pause: Duration) {
        self.unless_over(tokio::time::sleep(pause)).await;
    }

    /// Waits for what a request needs before it starts. Breaks if starting ends before.
    async fn wait<T>(&mut self, work: impl Future<Output = T>) -> ControlFlow<(), T> {
        if let Some(done) = self.unless_over(work).await {
            return ControlFlow::Continue(done);
        }
        self.probe.iteration_refused();
        ControlFlow::Break(())
    }

    /// What comes of `work`; `None` if the user has to end before (unless it is at its end).
    pub(crate) async fn unless_over<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        if self.purpose == Purpose::Stop {
            return Some(work.await);
        }
        let mut work = std::pin::pin!(work);
        loop {
            match self.core.wait(work.as_mut(), self.probe.tenure().map(|tenure| &**tenure)).await {
                Waited::Done(done) => return Some(done),
                Waited::Over => return None,
                Waited::Told => self.hang_up_without_lease(),
            }
        }
    }

    /// Pauses, at most until something changes. Returns whether that was why it ended.
    pub(crate) async fn sleep(&mut self, pause: Duration) -> bool {
        let sleep = std::pin::pin!(tokio::time::sleep(pause));
        let waited = self.core.wait(sleep, self.probe.tenure().map(|tenure| &**tenure)).await;
        self.hang_up_without_lease();
        matches!(waited, Waited::Told)
    }

    /// Waits until there is a lease. Breaks if the user has to end before.
    pub(crate) async fn lease(&mut self) -> ControlFlow<()> {
        while self.core.recorder.holding().lease_over(mono().0) {
            self.hang_up_without_lease();
            let tenure = self.probe.tenure().map(|tenure| &**tenure);
            if let Waited::Over = self.core.wait(std::pin::pin!(std::future::pending::<()>()), tenure).await {
                self.probe.iteration_refused();
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Waits until there is a lease again, although others may have this user's work by now. Breaks if
    /// starting ends before.
    async fn until_lease(&mut self) -> ControlFlow<()> {
        while self.core.recorder.holding().lease_over(mono().0) {
            self.hang_up_without_lease();
            if let Waited::Over = self.core.wait(std::pin::pin!(std::future::pending::<()>()), None).await {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Closes idle connections if there is no lease and others do the work, who have these users now.
    fn hang_up_without_lease(&mut self) {
        if self.core.recorder.holding().is_hung_up(mono().0) {
            if self.probe.tenure().is_some() {
                self.away.get_or_insert_with(|| Away::new(&self.core));
            }
            for (users, session) in self.scenario.protocols().zip(&mut self.sessions) {
                if let Some(session) = session {
                    users.hang_up(session.as_mut());
                }
            }
        } else {
            self.away = None;
        }
    }

    /// Sends one request and records it; gives the instant of its end.
    async fn request(&mut self, task: &Task, intended: Option<u64>) -> ControlFlow<(), u64> {
        for limit in &task.limits {
            let core = Rc::clone(&self.core);
            // boxed: few tasks have a limit, and every user would be larger for it
            Box::pin(self.wait(core.gates.pass(*limit))).await?;
        }
        let keep = self.core.sampler.borrow_mut().draw();
        loop {
            let (fate, outcome) = self.exchange(task, intended, &keep).await;
            match fate {
                Fate::Ended => {
                    self.record(task, outcome, &keep);
                    return ControlFlow::Continue(self.probe.ended_at());
                }
                Fate::NoLease if self.probe.tenure().is_some() => self.lease().await?,
                Fate::NoLease => {
                    self.lacked_lease = true;
                    return ControlFlow::Break(());
                }
                Fate::Refused => return ControlFlow::Break(()),
                Fate::Unsent | Fate::NotStarted => {
                    if self.purpose != Purpose::Load {
                        self.failed = Some(Failed::here());
                    }
                    return ControlFlow::Continue(mono().0);
                }
            }
        }
    }

    /// One exchange, and what became of it.
    async fn exchange(&mut self, task: &Task, intended: Option<u64>, keep: &Ticket) -> (Fate, Result<Reply, Failure>) {
        let want = want(task, keep);
        let session = self.sessions[task.protocol].get_or_insert_with(|| task.users.session());
        self.probe.arm(intended, task.timeout, self.purpose);
        self.failed = None;
        let (users, compiled) = (&task.users, task.compiled.as_ref());
        let outcome = {
            match users.begin(compiled, session.as_mut(), &mut self.scope, &mut self.probe, want) {
                Ok(exchange) => {
                    let _open = Open::new(&self.core.open);
                    Ok(self.timer.limit(exchange).await)
                }
                Err(failure) => Err(failure),
            }
        };
        let has_begun = outcome.is_ok();
        let outcome = outcome.unwrap_or_else(Err);
        if outcome.is_err() {
            // what fails before it starts (a placeholder that cannot be filled in) is a request all the same
            self.probe.start_if_idle();
        }
        let fate = self.probe.finish();
        // what fails before it begins waits for nothing: an iteration of only such requests must not spin
        self.sent |= has_begun && fate == Fate::Ended;
        (fate, outcome)
    }
}

impl Failed {
    /// A limit of this machine.
    fn here() -> Self {
        let reason = "this machine has no more files or ports for it".into();
        Self { kind: FailureKind::Request, status: None, reason }
    }
}

/// What the engine has to see of an answer: what checks and kept records need.
fn want(task: &Task, keep: &Ticket) -> Want {
    let mut want = task.want;
    let [body, failed] = keep.body;
    want.body = want.body.max(body);
    want.failed_body = want.failed_body.max(failed);
    if task.checks.has_assertions() {
        // an answer below 400 may become a failure
        want.body = want.body.max(failed);
    }
    want.headers |= body > 0 || failed > 0 && keep.keep[1] && want.body > 0;
    want
}

/// Counts a user that is alive as none for as long as it exists.
struct Away {
    core: Rc<Core>,
}

impl Away {
    fn new(core: &Rc<Core>) -> Self {
        core.away.set(core.away.get() + 1);
        core.recorder.users_changed(-1, mono().0);
        Self { core: Rc::clone(core) }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.core.away.set(self.core.away.get() - 1);
        self.core.recorder.users_changed(1, mono().0);
    }
}

/// Counts an open exchange for as long as it exists.
struct Open<'a>(&'a Cell<u64>);

impl<'a> Open<'a> {
    fn new(open: &'a Cell<u64>) -> Self {
        open.set(open.get() + 1);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_small() {
        assert!(size_of::<User>() <= 512, "{}", size_of::<User>());
    }
}
