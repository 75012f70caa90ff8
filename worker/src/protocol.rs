//! How one kind of virtual user talks to its target: the trait, and the table of protocols.
//!
//! The engine owns pacing, checks and recording; a protocol owns bytes. To add one: a file beside
//! this one's children, its `mod` line and its line in [`PROTOCOLS`].

use crate::probe::Probe;
use ld_shared::plan::{Plan, ScenarioPlan, TaskPlan};
use ld_shared::reply::Reply;
use ld_shared::sample::Failure;
use ld_shared::scope::{Bindings, Scope};
use serde_json::{Map, Value};
use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// What a protocol may use of the load core that it works on. One a core.
pub struct CoreContext {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What placeholders resolve to.
    pub bindings: Rc<Bindings>,
    /// Blobs of the plan by digest: certificates and the like.
    pub blobs: Arc<BTreeMap<ld_shared::id::Digest, bytes::Bytes>>,
    /// Read buffer of the core, lent for the length of one poll: users keep none.
    pub scratch: std::cell::RefCell<Vec<u8>>,
}

/// A fault of a task's fields, found before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer from the task's object: `/method`.
    pub pointer: String,
    /// What was seen and what would be accepted: a lowercase fragment without final dot.
    pub message: String,
    /// The remedy, if there is an obvious one: "did you mean `sendrecv`?".
    pub help: Option<String>,
}

/// Why a plan cannot run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PrepareError(pub String);

/// What the engine wants to see of an answer. What it does not want is read and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Headers.
    pub headers: bool,
    /// At most so many bytes of the decoded body, if the answer's status is below 400.
    pub body: usize,
    /// At most so many bytes of the decoded body, if it is 400 or more.
    pub failed_body: usize,
}

/// One kind of virtual user.
pub trait Protocol: Sized + 'static {
    /// Keys by which documents name it.
    const KEYS: &'static [&'static str];
    /// Names of its task fields, besides those that every task has.
    const FIELDS: &'static [&'static str];
    /// A task, compiled for one core.
    type Task: 'static;
    /// A task with every placeholder filled in.
    type Call: 'static;
    /// Kept by one user: connections, cookies, topics.
    type Session: 'static;

    /// Every fault of a task's fields, without running anything.
    fn check(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Vec<Fault>;
    /// The protocol on one core, for one scenario.
    fn new(core: Rc<CoreContext>, scenario: &ScenarioPlan) -> Result<Self, PrepareError>;
    /// Compiles a task: everything that is the same for each of its requests is done here.
    fn compile(&self, task: &TaskPlan) -> Result<Self::Task, PrepareError>;
    /// A new user's session. Opens nothing.
    fn session(&self) -> Self::Session;
    /// `GET`, `WS`, …, as records show it.
    fn request_type<'a>(&self, task: &'a Self::Task) -> &'a str;
    /// Name in the statistics of a task that has none of its own. Of placeholders only `env` and
    /// registered variables are filled in, so that names stay few.
    fn default_name(&self, task: &Self::Task) -> Arc<str>;
    /// URL or target as records show it. Called only for requests that are kept.
    fn url(&self, task: &Self::Task, call: &Self::Call) -> Arc<str>;
    /// Fills in every placeholder. Pure and untimed.
    fn prepare(&self, task: &Self::Task, scope: &mut Scope) -> Result<Self::Call, Failure>;
    /// Sends and awaits. This, and only this, is service time: the implementation calls
    /// [`Probe::start`] as the last thing before its first system call, [`Probe::written`] when
    /// the request has been handed to the socket, [`Probe::first_byte`] and [`Probe::end`] right
    /// after the reads that brought the answer's first and last byte.
    ///
    /// Cancel safe: a dropped exchange leaves a session that opens a new connection.
    fn exchange<'a>(
        &'a self,
        task: &'a Self::Task,
        session: &'a mut Self::Session,
        call: Self::Call,
        probe: &'a mut Probe,
        want: Want,
    ) -> impl Future<Output = Result<Reply, Failure>> + 'a;
    /// The iteration ended: policies like `per_iteration` close what they opened.
    fn end_iteration(&self, session: &mut Self::Session);
}
