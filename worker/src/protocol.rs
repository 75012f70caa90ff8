//! How one kind of virtual user talks to its target: the trait, and the table of protocols.
//!
//! The engine owns pacing, checks and recording; a protocol owns bytes. To add one: a file beside
//! this one's children, its `mod` line and its line in [`PROTOCOLS`].

mod expect;
pub mod grpc;
pub mod http;
pub mod mqtt;
mod reader;
mod refused;
pub mod socket;
pub mod sse;
mod target;
mod text;
pub mod websocket;

pub(crate) use refused::RefusedSteps;

use crate::messages::Messages;
use crate::probe::Probe;
use ld_shared::plan::{Plan, Refused, ScenarioPlan, TaskPlan};
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
    /// Lanes of this core, ascending: they say which part of what is split over the cluster is its
    /// own. Set before the first exchange.
    pub lanes: std::cell::RefCell<Arc<[u16]>>,
    /// Where what arrives by itself is recorded: pushed messages, messages of streams, events.
    pub messages: Messages,
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
    /// What the seed's record of such a step says, if that is another text than `message`.
    pub seed: Option<String>,
}

impl Fault {
    /// A fault at `pointer`, from the task's object.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into(), help: None, seed: None }
    }

    /// With a remedy.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// With the text of the seed's record.
    #[must_use]
    pub fn seed(self, text: impl Into<String>) -> Self {
        Self { seed: Some(text.into()), ..self }
    }
}

/// Why a plan cannot run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PrepareError(pub String);

impl PrepareError {
    /// Of a task whose fields are faulty.
    pub fn of(faults: &[Fault]) -> Self {
        Self(faults.first().map_or_else(String::new, |fault| format!("{} at {}", fault.message, fault.pointer)))
    }
}

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
    /// Names of its options: what may stand in `user_detail_dict` beside `user`.
    const OPTIONS: &'static [&'static str] = &[];
    /// The status by which records and `status_code` assertions know that there was no answer;
    /// `None`: a request without an answer cannot be accepted.
    const NO_ANSWER: Option<u16> = None;
    /// A task, compiled for one core.
    type Task: 'static;
    /// Kept by one user: connections, cookies, topics.
    type Session: 'static;

    /// JSON Schema of what a task is, its fields alone: `properties` with one entry each of
    /// [`Self::FIELDS`], with a `description` each, `required`, `anyOf` and the like.
    fn schema() -> Value;
    /// JSON Schema of its options by name.
    fn options_schema() -> Map<String, Value> {
        Map::new()
    }
    /// Every fault of a task's fields, without running anything.
    fn check(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Vec<Fault>;
    /// Every fault of its options, pointers from `user_detail_dict`.
    fn check_options(_options: &Map<String, Value>) -> Vec<Fault> {
        Vec::new()
    }
    /// Request type and name, in records, of a task whose fields are faulty (`--lenient` runs it as
    /// a failure); the name that documents may give is not looked at. `None`: the seed records
    /// nothing of such a task.
    fn label(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Option<(String, String)>;
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
    /// Indices in [`Plan::sources`] of the data sources that its placeholders name.
    fn sources(&self, task: &Self::Task) -> Vec<u32>;
    /// The task's own time-out, seconds; `None`: the scenario's holds.
    fn timeout(&self, task: &Self::Task) -> Option<f64>;
    /// URL or target as records show it, passwords left out. Called only for requests that are kept.
    fn url(&self, task: &Self::Task, scope: &mut Scope) -> Arc<str>;
    /// What the record of one request says of its failed status; `None`: what statistics say. There
    /// reasons must stay few, here the seed's text names the URL.
    fn status_error(&self, _task: &Self::Task, _status: u16, _url: &str, _name: &str) -> Option<String> {
        None
    }
    /// Fills in every placeholder (untimed), then returns the exchange: it sends and awaits. This,
    /// and only this, is service time: the exchange calls [`Probe::start`] as the last thing before
    /// its first system call, [`Probe::written`] when the request has been handed to the socket,
    /// [`Probe::received`] right after each read, before anything is made of what it brought, and
    /// [`Probe::end`] when it is over, well or not.
    ///
    /// Cancel safe: a dropped exchange leaves a session that opens a new connection.
    fn begin<'a>(
        &'a self,
        task: &'a Self::Task,
        session: &'a mut Self::Session,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<impl Future<Output = Result<Reply, Failure>> + use<'a, Self>, Failure>;
    /// The iteration ended: policies like `per_iteration` close what they opened.
    fn end_iteration(&self, session: &mut Self::Session);
    /// Closes the connections of a user that waits; what else it knows of its target may stay.
    fn hang_up(&self, session: &mut Self::Session) {
        *session = self.session();
    }
}

/// An exchange in progress.
pub type Exchange<'a> = Pin<Box<dyn Future<Output = Result<Reply, Failure>> + 'a>>;

/// A [`Protocol`] of one core and scenario, its types erased: what the engine drives. Tasks and
/// sessions are those that the same object made; others are a bug and panic.
pub trait Users {
    /// See [`Protocol::compile`].
    fn compile(&self, task: &TaskPlan) -> Result<Box<dyn Any>, PrepareError>;
    /// See [`Protocol::session`].
    fn session(&self) -> Box<dyn Any>;
    /// See [`Protocol::request_type`].
    fn request_type<'a>(&self, task: &'a dyn Any) -> &'a str;
    /// See [`Protocol::default_name`].
    fn default_name(&self, task: &dyn Any) -> Arc<str>;
    /// See [`Protocol::sources`].
    fn sources(&self, task: &dyn Any) -> Vec<u32>;
    /// See [`Protocol::timeout`].
    fn timeout(&self, task: &dyn Any) -> Option<f64>;
    /// See [`Protocol::url`].
    fn url(&self, task: &dyn Any, scope: &mut Scope) -> Arc<str>;
    /// See [`Protocol::status_error`].
    fn status_error(&self, task: &dyn Any, status: u16, url: &str, name: &str) -> Option<String>;
    /// See [`Protocol::begin`].
    fn begin<'a>(
        &'a self,
        task: &'a dyn Any,
        session: &'a mut dyn Any,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<Exchange<'a>, Failure>;
    /// See [`Protocol::end_iteration`].
    fn end_iteration(&self, session: &mut dyn Any);
    /// See [`Protocol::hang_up`].
    fn hang_up(&self, session: &mut dyn Any);
}

struct Erased<P>(P);

impl<P: Protocol> Erased<P> {
    fn task(task: &dyn Any) -> &P::Task {
        task.downcast_ref().expect("the task was compiled by this protocol")
    }

    fn open(session: &mut dyn Any) -> &mut P::Session {
        session.downcast_mut().expect("the session was made by this protocol")
    }
}

impl<P: Protocol> Users for Erased<P> {
    fn compile(&self, task: &TaskPlan) -> Result<Box<dyn Any>, PrepareError> {
        Ok(Box::new(self.0.compile(task)?))
    }

    fn session(&self) -> Box<dyn Any> {
        Box::new(self.0.session())
    }

    fn request_type<'a>(&self, task: &'a dyn Any) -> &'a str {
        self.0.request_type(Self::task(task))
    }

    fn default_name(&self, task: &dyn Any) -> Arc<str> {
        self.0.default_name(Self::task(task))
    }

    fn sources(&self, task: &dyn Any) -> Vec<u32> {
        self.0.sources(Self::task(task))
    }

    fn timeout(&self, task: &dyn Any) -> Option<f64> {
        self.0.timeout(Self::task(task))
    }

    fn url(&self, task: &dyn Any, scope: &mut Scope) -> Arc<str> {
        self.0.url(Self::task(task), scope)
    }

    fn status_error(&self, task: &dyn Any, status: u16, url: &str, name: &str) -> Option<String> {
        self.0.status_error(Self::task(task), status, url, name)
    }

    fn begin<'a>(
        &'a self,
        task: &'a dyn Any,
        session: &'a mut dyn Any,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<Exchange<'a>, Failure> {
        Ok(Box::pin(self.0.begin(Self::task(task), Self::open(session), scope, probe, want)?))
    }

    fn end_iteration(&self, session: &mut dyn Any) {
        self.0.end_iteration(Self::open(session));
    }

    fn hang_up(&self, session: &mut dyn Any) {
        self.0.hang_up(Self::open(session));
    }
}

/// A line of the table of protocols.
pub struct Driver {
    /// Keys by which documents name it.
    pub keys: &'static [&'static str],
    /// Names of its task fields.
    pub fields: &'static [&'static str],
    /// Names of its options.
    pub options: &'static [&'static str],
    /// See [`Protocol::NO_ANSWER`].
    pub no_answer: Option<u16>,
    /// See [`Protocol::schema`].
    pub schema: fn() -> Value,
    /// See [`Protocol::options_schema`].
    pub options_schema: fn() -> Map<String, Value>,
    /// See [`Protocol::check`].
    pub check: fn(&Map<String, Value>, &ScenarioPlan) -> Vec<Fault>,
    /// See [`Protocol::check_options`].
    pub check_options: fn(&Map<String, Value>) -> Vec<Fault>,
    /// See [`Protocol::label`].
    pub label: Label,
    /// See [`Protocol::new`].
    pub new: NewUsers,
}

/// Request type and name of a faulty task ([`Protocol::label`]).
pub type Label = fn(&Map<String, Value>, &ScenarioPlan) -> Option<(String, String)>;

/// Makes a protocol of one core and scenario.
pub type NewUsers = fn(Rc<CoreContext>, &ScenarioPlan) -> Result<Rc<dyn Users>, PrepareError>;

impl Driver {
    /// The line of a protocol.
    pub const fn of<P: Protocol>() -> Self {
        Self {
            keys: P::KEYS,
            fields: P::FIELDS,
            options: P::OPTIONS,
            no_answer: P::NO_ANSWER,
            schema: P::schema,
            options_schema: P::options_schema,
            check: P::check,
            check_options: P::check_options,
            label: P::label,
            new: |core, scenario| Ok(Rc::new(Erased(P::new(core, scenario)?))),
        }
    }
}

impl Driver {
    /// What is recorded of a task with `faults`; `None`: nothing.
    pub fn refused(&self, fields: &Map<String, Value>, scenario: &ScenarioPlan, faults: &[Fault]) -> Option<Refused> {
        let first = faults.iter().find(|fault| fault.seed.is_some()).or(faults.first())?;
        let (request_type, name) = (self.label)(fields, scenario)?;
        let reason = first.seed.as_deref().unwrap_or(&first.message);
        Some(Refused { request_type: request_type.into(), name: name.into(), reason: reason.into() })
    }
}

/// Every protocol there is.
pub const PROTOCOLS: &[Driver] = &[
    Driver::of::<http::Http>(),
    Driver::of::<websocket::WebSocket>(),
    Driver::of::<grpc::Grpc>(),
    Driver::of::<mqtt::Mqtt>(),
    Driver::of::<socket::Socket>(),
    Driver::of::<sse::Sse>(),
];

/// The protocol that a document names by this key.
pub fn driver(user_key: &str) -> Option<&'static Driver> {
    PROTOCOLS.iter().find(|driver| driver.keys.contains(&user_key))
}
