//! One virtual user: pick → prepare → exchange → check → record, task after task.

mod hooks;
mod retry;
mod scenario;

pub(crate) use hooks::Began;
pub(crate) use scenario::{Name, Scenario, Task};

use crate::engine::core::{Core, Waited};
use crate::engine::holding::Tenure;
use crate::kept::Kept;
use crate::probe::{Fate, Probe, Purpose};
use crate::protocol::Want;
use crate::recorder::Line;
use crate::sampler::Ticket;
use crate::series::OTHER_ID;
use ld_shared::boot::clock::mono;
use ld_shared::plan::{Mode, Pool, StatusCheck};
use ld_shared::record::Answer;
use ld_shared::reply::Reply;
use ld_shared::rng::KeyedRng;
use ld_shared::sample::{Failure, FailureKind, Phase};
use ld_shared::scope::{Row, Scope};
use ld_shared::secrets::{MASK, Secrets, is_credential, mask_passwords};
use ld_shared::template::{Escape, Template};
use ld_shared::time::SECOND;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

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

    /// Closes idle connections if there is no lease and others do the work.
    fn hang_up_without_lease(&mut self) {
        if self.core.recorder.holding().is_hung_up(mono().0) {
            for (users, session) in self.scenario.protocols().zip(&mut self.sessions) {
                if let Some(session) = session {
                    users.hang_up(session.as_mut());
                }
            }
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

    fn record(&mut self, task: &Task, outcome: Result<Reply, Failure>, keep: &Ticket) {
        let bindings = &self.core.context.bindings;
        let status = outcome.as_ref().ok().and_then(|reply| reply.status);
        let (reply, failure) = match outcome {
            Ok(reply) => {
                let failure = task.checks.run(&reply, bindings, &mut self.scope, task.status_check).err();
                (Some(reply), failure)
            }
            Err(failure) => {
                // the seed lets a `status_code` assertion of 0 accept that there was no answer
                let none = Reply { status: task.no_answer, ..Reply::default() };
                let accepted = task.no_answer.is_some()
                    && task.checks.may_accept_no_answer()
                    && task.checks.run(&none, bindings, &mut self.scope, StatusCheck::Assertions).is_ok();
                (None, (!accepted).then_some(failure))
            }
        };
        let failure = failure.map(|failure| masked(failure, bindings.secrets()));
        let series = match &task.name {
            Name::Fixed(series) => *series,
            Name::Rendered(template, numbers) => self.rendered_series(task, template, numbers),
        };
        let sample = self.probe.sample(series);
        self.core.recorder.record(&sample, failure.as_ref());
        if let Some(Failure { kind, reason }) = &failure {
            self.failed = Some(Failed { kind: *kind, status, reason: Arc::clone(reason) });
        }
        if sample.phase == Phase::Main {
            self.list(task, &sample, reply, failure, keep);
        }
    }

    /// Hands the request over to those who list requests one by one.
    fn list(
        &mut self,
        task: &Task,
        sample: &crate::recorder::Sample,
        reply: Option<Reply>,
        failure: Option<Failure>,
        keep: &Ticket,
    ) {
        let mut sampler = self.core.sampler.borrow_mut();
        let (keeps, all) = (sampler.keeps(keep, failure.is_some()), sampler.wants_all());
        drop(sampler);
        if !keeps && !all {
            return;
        }
        let url = task.users.url(task.compiled.as_ref(), &mut self.scope);
        let url = masked_text(&url, self.core.context.bindings.secrets()).unwrap_or(url);
        let failure = failure.map(|failure| self.told(task, sample, reply.as_ref(), failure, &url));
        if all {
            self.core.recorder.list(Line {
                series: sample.series,
                status: reply.as_ref().map_or(task.no_answer, |r| r.status),
                started_at: sample.started.saturating_sub(self.core.recorder.t0()),
                response_us: response_us(sample),
                body_bytes: reply.as_ref().map_or(0, |r| r.body_bytes),
                url: Arc::clone(&url),
                error: failure.as_ref().map(|f| Arc::clone(&f.reason)),
            });
        }
        if keeps {
            self.core.recorder.keep(self.kept(task, sample, reply, failure, keep, url));
        }
    }

    /// A failure as its record tells it.
    fn told(
        &self,
        task: &Task,
        sample: &crate::recorder::Sample,
        reply: Option<&Reply>,
        failure: Failure,
        url: &str,
    ) -> Failure {
        // the seed's texts, which are those of its language
        let seeds = match &*failure.reason {
            "connection refused" => Some("[Errno 111] Connection refused"),
            "name not resolved" => Some("[Errno -2] Name or service not known"),
            _ => None,
        };
        if let Some(text) = seeds {
            return Failure::new(failure.kind, text);
        }
        let Some(status) = reply.and_then(|r| r.status).filter(|_| failure.kind == FailureKind::Status) else {
            return failure;
        };
        let name = self.scenario.name_of(sample.series);
        let text = task.users.status_error(task.compiled.as_ref(), status, url, &name);
        text.map_or(failure, |text| Failure::new(FailureKind::Status, text))
    }

    fn rendered_series(&mut self, task: &Task, template: &Template, numbers: &RefCell<HashMap<Box<str>, u16>>) -> u16 {
        let mut name = Vec::new();
        let rendered = template.render(&self.core.context.bindings, &mut self.scope, Escape::None, &mut name);
        let (Ok(()), Ok(name)) = (rendered, String::from_utf8(name)) else { return OTHER_ID };
        if let Some(id) = numbers.borrow().get(name.as_str()) {
            return *id;
        }
        let shown = masked_text(&name, self.core.context.bindings.secrets());
        let id = self.scenario.series(shown.as_deref().unwrap_or(&name), &task.request_type);
        if id != OTHER_ID {
            // the table's limit bounds this map too
            numbers.borrow_mut().insert(name.into(), id);
        }
        id
    }

    fn kept(
        &self,
        task: &Task,
        sample: &crate::recorder::Sample,
        reply: Option<Reply>,
        failure: Option<Failure>,
        keep: &Ticket,
        url: Arc<str>,
    ) -> Kept {
        let cap = keep.body[usize::from(failure.is_some())];
        let status = reply.as_ref().map_or(task.no_answer, |r| r.status);
        let body_bytes = reply.as_ref().map_or(0, |r| r.body_bytes);
        let answer = reply.filter(|_| cap > 0).map(|reply| {
            let mut body = reply.body;
            let is_cut = body.len() >= cap;
            body.truncate(cap);
            let secrets = self.core.context.bindings.secrets();
            if !secrets.is_empty() {
                body = secrets.mask_bytes(&body).into_owned();
                if is_cut {
                    secrets.mask_cut(&mut body);
                }
            }
            let shown = |(name, value): (String, String)| {
                let value = if is_credential(&name) { MASK.into() } else { secrets.mask(&value).into_owned() };
                (name, value)
            };
            Arc::new(Answer { headers: reply.headers.iter().map(shown).collect(), body })
        });
        Kept {
            priority: keep.priority,
            ended_at: sample.ended.saturating_sub(self.core.recorder.t0()),
            started_at: sample.started.saturating_sub(self.core.recorder.t0()),
            response_us: response_us(sample),
            body_bytes,
            url,
            error: failure.map(|f| f.reason),
            answer,
            status,
            series: sample.series,
            origin: task.origin,
        }
    }
}

/// A failure without secrets in its reason.
pub(crate) fn masked(failure: Failure, secrets: &Secrets) -> Failure {
    match masked_text(&failure.reason, secrets) {
        Some(reason) => Failure { reason, ..failure },
        None => failure,
    }
}

/// The text without secrets and passwords, if it had any.
pub(crate) fn masked_text(text: &str, secrets: &Secrets) -> Option<Arc<str>> {
    let plain = mask_passwords(text);
    let masked = secrets.mask(&plain);
    (*masked != *text).then(|| masked.into())
}

/// Response time as histograms count it.
fn response_us(sample: &crate::recorder::Sample) -> u64 {
    (sample.ended.saturating_sub(sample.intended) + 500) / 1000
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

/// Ends exchanges at their deadlines: one timer a user, re-armed only when it fires early, so that a
/// request costs no timer operation.
pub(crate) struct Timer {
    deadline: Rc<Cell<u64>>,
    /// When `sleep` fires; `u64::MAX`: not armed.
    armed: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// A timer of the deadline in this cell, ns of this node's clock; `u64::MAX`: none.
    pub(crate) fn new(deadline: Rc<Cell<u64>>) -> Self {
        Self { deadline, armed: u64::MAX, sleep: None }
    }

    async fn limit(
        &mut self,
        mut exchange: Pin<Box<dyn Future<Output = Result<Reply, Failure>> + '_>>,
    ) -> Result<Reply, Failure> {
        poll_fn(|context| {
            if let Poll::Ready(outcome) = exchange.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            if self.is_over(context) {
                return Poll::Ready(Err(Failure::new(FailureKind::Timeout, "timed out")));
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the deadline has passed; else the task is woken when it does.
    pub(crate) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let deadline = self.deadline.get();
        if deadline == u64::MAX {
            return false;
        }
        loop {
            if deadline < self.armed || self.sleep.is_none() {
                let left = Duration::from_nanos(deadline.saturating_sub(mono().0));
                let at = Instant::now() + left;
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(at),
                    None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
                }
                self.armed = deadline;
            }
            let Some(sleep) = &mut self.sleep else { return false };
            if sleep.as_mut().poll(context).is_pending() {
                return false;
            }
            self.armed = u64::MAX;
            if mono().0 >= deadline {
                return true;
            }
        }
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
