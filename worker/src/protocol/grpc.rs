//! gRPC users: `grpc_user`. No generated code: messages are JSON, and descriptors say what they are.
//!
//! Descriptors come with the plan (the master reads `proto` and `descriptor_set`), else the target
//! is asked for them, once a core ([`reflection`]). An exchange is one [`call`] over a
//! [`channel::Channel`], which its user has for itself or shares ([`place::Pool`]).

mod answer;
mod call;
mod channel;
mod descriptors;
mod fields;
mod frames;
mod place;
mod reflection;
mod schema;
mod status;
mod task;

#[cfg(test)]
pub(crate) mod tests;

use super::{CoreContext, Fault, PrepareError, Protocol, Want};
use crate::dial::{Dialer, Stamps, TlsSettings};
use crate::probe::Probe;
use crate::user::Timer;
use answer::Answer;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use call::Status;
use channel::{Channel, Lease, Opener};
use descriptors::Descriptors;
use fields::Channels;
use futures_util::FutureExt as _;
use http::uri::{Parts, PathAndQuery, Scheme};
use http::{HeaderMap, Method as HttpMethod, Request, Uri, Version};
use ld_shared::boot::clock::mono;
use ld_shared::id::Digest;
use ld_shared::plan::{Connections, ScenarioPlan, TaskPlan};
use ld_shared::reply::Reply;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::Scope;
use place::{Known, Place, Places, Pool, Turn, Unmet};
use serde_json::{Map, Value};
use status::Trouble;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use task::Task;

/// Option under which the checker of documents finds the descriptors that `proto` and
/// `descriptor_set` name: an encoded `FileDescriptorSet` in base64. Documents cannot give it.
pub const DESCRIPTORS: &str = "(descriptors)";
/// Option under which workers find them: the digest of a blob.
pub const DESCRIPTORS_BLOB: &str = "(descriptors blob)";

/// The engine's time-out is this much later than the call's own deadline, which it only backs up.
const GRACE: f64 = 1.0;

/// gRPC on one core, for one scenario.
pub struct Grpc {
    core: Rc<CoreContext>,
    scenario: ScenarioPlan,
    opener: Rc<Opener>,
    /// Descriptors that came with the plan.
    given: Option<Rc<Descriptors>>,
    sharing: Connections,
    /// This core's part of the channels that users share: known at the first exchange.
    share: Cell<Option<usize>>,
    places: Places,
}

/// What one user keeps. Small while the user is idle.
pub struct Session {
    channel: Option<Rc<Channel>>,
    deadline: Rc<Cell<u64>>,
    timer: Timer,
}

/// A call, ready to be sent but for what only the target can say.
struct Prepared {
    place: Rc<Place>,
    headers: HeaderMap,
    content: Content,
}

enum Content {
    Encoded(Rc<task::Method>, Bytes),
    /// JSON texts of messages whose types are not known yet.
    Texts(Vec<String>),
}

/// The descriptors that `set` (an encoded `FileDescriptorSet`) holds can be used. Says why if not.
pub fn check_descriptors(set: &[u8]) -> Result<(), String> {
    Descriptors::decode(set).map(drop)
}

impl Protocol for Grpc {
    const KEYS: &'static [&'static str] = &["grpc_user"];
    const FIELDS: &'static [&'static str] = fields::FIELDS;
    const OPTIONS: &'static [&'static str] = fields::OPTIONS;
    type Task = Task;
    type Session = Session;

    fn schema() -> Value {
        schema::task()
    }

    fn options_schema() -> Map<String, Value> {
        schema::options()
    }

    fn check(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Vec<Fault> {
        let parsed = match fields::parse(fields, scenario) {
            Ok(parsed) => parsed,
            Err(faults) => return faults,
        };
        let set = scenario.options.get(DESCRIPTORS).and_then(Value::as_str);
        let known = set.and_then(descriptors_of);
        known.map_or_else(Vec::new, |known| known.faults(&parsed))
    }

    fn check_options(options: &Map<String, Value>) -> Vec<Fault> {
        fields::check_options(options)
    }

    fn label(fields: &Map<String, Value>, _scenario: &ScenarioPlan) -> Option<(String, String)> {
        Some((task::REQUEST_TYPE.to_owned(), fields::default_name(fields)))
    }

    fn new(core: Rc<CoreContext>, scenario: &ScenarioPlan) -> Result<Self, PrepareError> {
        let tls = TlsSettings::new(&scenario.tls, &core.blobs).map_err(|error| PrepareError(error.to_string()))?;
        let given = match scenario.options.get(DESCRIPTORS_BLOB).and_then(Value::as_str) {
            None => None,
            Some(digest) => {
                let missing = || PrepareError("grpc: the plan's descriptors are not among its blobs".to_owned());
                let set = core.blobs.get(&Digest(digest.into())).ok_or_else(missing)?;
                let unusable = |why| PrepareError(format!("grpc: unusable descriptors: {why}"));
                Some(Rc::new(Descriptors::decode(set).map_err(unusable)?))
            }
        };
        let sharing = match fields::channels(&scenario.options) {
            Some(Channels::PerUser) => Connections::PerUser,
            Some(Channels::Pool(size)) => Connections::Shared(size),
            None => scenario.connections,
        };
        let opener = Opener { dialer: Dialer::of(&core.plan), tls, connect_timeout: scenario.connect_timeout };
        Ok(Self {
            scenario: scenario.clone(),
            opener: Rc::new(opener),
            given,
            sharing,
            share: Cell::new(None),
            places: Places::default(),
            core,
        })
    }

    fn compile(&self, task: &TaskPlan) -> Result<Task, PrepareError> {
        Task::compile(task, self)
    }

    fn session(&self) -> Session {
        let deadline = Rc::new(Cell::new(u64::MAX));
        Session { channel: None, timer: Timer::new(Rc::clone(&deadline)), deadline }
    }

    fn request_type<'a>(&self, _task: &'a Task) -> &'a str {
        task::REQUEST_TYPE
    }

    fn default_name(&self, task: &Task) -> Arc<str> {
        Arc::clone(&task.default_name)
    }

    fn sources(&self, task: &Task) -> Vec<u32> {
        task.sources()
    }

    fn timeout(&self, task: &Task) -> Option<f64> {
        Some(task.timeout.as_secs_f64() + GRACE)
    }

    fn url(&self, task: &Task, scope: &mut Scope) -> Arc<str> {
        // a target that cannot be filled in was never called
        task.place(self, scope).map_or_else(|_| Arc::from(""), |place| Arc::clone(&place.text))
    }

    fn begin<'a>(
        &'a self,
        task: &'a Task,
        session: &'a mut Session,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<impl Future<Output = Result<Reply, Failure>> + use<'a>, Failure> {
        let place = task.place(self, scope)?;
        let headers = task.headers(self, scope)?;
        let content = match self.known(&place) {
            Some(descriptors) => {
                let method = task.method(self, &descriptors?)?;
                let body = match &method.body {
                    Some(body) => body.clone(),
                    None => descriptors::encode(task.texts(self, scope)?, &method.input)?,
                };
                Content::Encoded(method, body)
            }
            None => Content::Texts(task.texts(self, scope)?),
        };
        Ok(self.exchange(task, session, Prepared { place, headers, content }, probe, want))
    }

    fn end_iteration(&self, session: &mut Session) {
        if self.sharing == Connections::PerIteration {
            session.channel = None;
        }
    }
}

impl Grpc {
    async fn exchange(
        &self,
        task: &Task,
        session: &mut Session,
        prepared: Prepared,
        probe: &mut Probe,
        want: Want,
    ) -> Result<Reply, Failure> {
        let Prepared { place, headers, content } = prepared;
        let before = async {
            let encoded = match content {
                Content::Encoded(method, body) => (method, body),
                Content::Texts(texts) => {
                    let method = task.method(self, &self.ask(&place, &headers).await?).map_err(unsendable)?;
                    let body = descriptors::encode(texts, &method.input).map_err(unsendable)?;
                    (method, body)
                }
            };
            let shared = match self.pool(&place) {
                Some(pool) => {
                    let index = pool.next();
                    Some(Shared { pool, index, turn: Some(pool.turn(index, &place).await?) })
                }
                None => None,
            };
            Ok::<_, Unmet>((encoded, shared))
        };
        let ((method, body), shared) = match within(task.timeout, before).await {
            Ok(met) => met,
            Err(unmet) => {
                probe.start()?;
                if unmet.is_local {
                    probe.local_error();
                }
                probe.end(0);
                return refused(unmet.trouble);
            }
        };
        probe.start()?;
        session.deadline.set(mono().0.saturating_add(task.timeout.as_nanos() as u64));
        let mut answer = Answer::new(&self.core, &method, want);
        let (channel, timer) = (&mut session.channel, &mut session.timer);
        let outcome = {
            let order = Order { place: &place, headers: &headers, path: &method.path, body: &body };
            let mut call = pin!(self.call(&order, channel, shared, task.max_message, probe, &mut answer));
            poll_fn(|context| match call.as_mut().poll(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if timer.is_over(context) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        session.deadline.set(u64::MAX);
        if self.sharing == Connections::PerRequest {
            session.channel = None;
        }
        let outcome = outcome.unwrap_or_else(|| {
            // it ends now, whatever came before
            probe.received();
            Err(Trouble::deadline())
        });
        probe.end(answer.received());
        Ok(answer.reply(outcome))
    }

    /// Sends a call over a channel, which is opened first if need be.
    async fn call(
        &self,
        order: &Order<'_>,
        own: &mut Option<Rc<Channel>>,
        mut shared: Option<Shared<'_>>,
        most: usize,
        probe: &mut Probe,
        answer: &mut Answer<'_>,
    ) -> Result<Status, Trouble> {
        let stamps = &mut Stamps(Some(probe));
        let mut again = true;
        loop {
            let lease = match &mut shared {
                Some(shared) => self.shared(order.place, shared, stamps).await?,
                None => self.own(order.place, own, stamps).await?,
            };
            let outcome = call::call(&lease, order.head(), order.body.clone(), most, stamps, answer).await;
            // what the server has not looked at may be sent again (gRPC: "transparent retries"), once
            match outcome {
                Err(trouble) if trouble.is_unseen && again => again = false,
                outcome => return outcome,
            }
        }
    }

    /// A channel that users share.
    async fn shared(
        &self,
        place: &Rc<Place>,
        shared: &mut Shared<'_>,
        stamps: &mut Stamps<'_>,
    ) -> Result<Lease, Trouble> {
        let turn = match shared.turn.take() {
            Some(turn) => turn,
            None => shared.pool.turn(shared.index, place).await.map_err(|unmet| unmet.trouble)?,
        };
        match turn {
            Turn::Ready(lease) => Ok(lease),
            Turn::First(opening) => {
                let opened = Box::pin(self.opener.open(place, stamps)).await;
                let is_local = stamps.0.as_ref().is_some_and(|probe| probe.is_unsent());
                opening.done(opened.clone().map_err(|trouble| Unmet { is_local, ..trouble.into() }));
                Ok(opened?.lease_now())
            }
        }
    }

    /// A user's own channel.
    async fn own(
        &self,
        place: &Rc<Place>,
        own: &mut Option<Rc<Channel>>,
        stamps: &mut Stamps<'_>,
    ) -> Result<Lease, Trouble> {
        if let Some(channel) = own.as_ref().filter(|channel| channel.serves(place)) {
            return Ok(channel.lease_now());
        }
        // a channel to another target is closed first, as in the seed
        *own = None;
        let channel = Box::pin(self.opener.open(place, stamps)).await?;
        Ok(own.insert(channel).lease_now())
    }

    /// The channels to `place` that users share, if they do: channel `k` of all belongs to lane `k`,
    /// so that parts are disjoint and add up.
    fn pool<'a>(&self, place: &'a Place) -> Option<&'a Pool> {
        let Connections::Shared(size) = self.sharing else { return None };
        let share = self.share.get().unwrap_or_else(|| {
            let own = self.core.lanes.borrow().iter().filter(|lane| u64::from(**lane) < size).count().max(1);
            self.share.set(Some(own));
            own
        });
        Some(place.pool(share))
    }

    /// What is known of the services of `place`, if it is.
    fn known(&self, place: &Place) -> Option<Result<Rc<Descriptors>, Failure>> {
        if let Some(given) = &self.given {
            return Some(Ok(Rc::clone(given)));
        }
        match &*place.known.borrow() {
            Known::Services(services) => Some(Ok(Rc::clone(services))),
            Known::Silent(failure) => Some(Err(failure.clone())),
            Known::Nothing | Known::Asked(_) => None,
        }
    }

    /// Asks `place` for its services, together with everybody who wants to know them now. The question
    /// carries the metadata of the call that is the first to need it: servers may ask for a token.
    async fn ask(&self, place: &Rc<Place>, headers: &HeaderMap) -> Result<Rc<Descriptors>, Unmet> {
        let asked = {
            let mut known = place.known.borrow_mut();
            match &*known {
                Known::Services(services) => return Ok(Rc::clone(services)),
                Known::Asked(asked) => asked.clone(),
                Known::Nothing | Known::Silent(_) => {
                    let mut headers = headers.clone();
                    headers.remove(task::TIMEOUT);
                    let question = reflection::ask(Rc::clone(&self.opener), Rc::clone(place), headers);
                    let asked = (Box::pin(question) as std::pin::Pin<Box<dyn Future<Output = _>>>).shared();
                    *known = Known::Asked(asked.clone());
                    asked
                }
            }
        };
        let answer = asked.clone().await;
        let mut known = place.known.borrow_mut();
        if matches!(&*known, Known::Asked(other) if other.ptr_eq(&asked)) {
            *known = match &answer {
                Ok(services) => Known::Services(Rc::clone(services)),
                Err(unmet) if unmet.is_final => Known::Silent(unmet.trouble.failure.clone()),
                // the next one who wants to know asks anew
                Err(_) => Known::Nothing,
            };
        }
        answer
    }
}

/// The part of a pool that a call uses.
struct Shared<'a> {
    pool: &'a Pool,
    index: usize,
    /// What it got of it before it started.
    turn: Option<Turn<'a>>,
}

/// A call as it is sent.
struct Order<'a> {
    place: &'a Rc<Place>,
    headers: &'a HeaderMap,
    path: &'a PathAndQuery,
    body: &'a Bytes,
}

impl Order<'_> {
    fn head(&self) -> Request<()> {
        head(self.place, self.path, self.headers.clone())
    }
}

/// The head of a call.
fn head(place: &Place, path: &PathAndQuery, headers: HeaderMap) -> Request<()> {
    let mut parts = Parts::default();
    parts.scheme = Some(if place.target.is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(place.authority.clone());
    parts.path_and_query = Some(path.clone());
    let mut head = Request::new(());
    *head.method_mut() = HttpMethod::POST;
    *head.version_mut() = Version::HTTP_2;
    *head.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are all there");
    *head.headers_mut() = headers;
    head
}

/// Ends what a call waits for before it starts, when it takes as long as the call may.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Unmet>>) -> Result<T, Unmet> {
    let mut work = pin!(work);
    // nearly always there is nothing to wait for, and no timer is needed
    if let Some(done) = work.as_mut().now_or_never() {
        return done;
    }
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Trouble::deadline().into()))
}

/// A call that cannot be made.
fn unsendable(failure: Failure) -> Unmet {
    Unmet { trouble: Trouble { status: 0, failure, is_unseen: true }, is_local: false, is_final: true }
}

/// The end of a call that was never sent.
fn refused(trouble: Trouble) -> Result<Reply, Failure> {
    if trouble.failure.kind == FailureKind::Request {
        return Err(trouble.failure);
    }
    Ok(Reply { status: Some(trouble.status), refusal: Some(trouble.failure), ..Reply::default() })
}

/// Descriptors in base64. The last ones are kept: all tasks of a document ask for the same.
fn descriptors_of(set: &str) -> Option<Rc<Descriptors>> {
    thread_local! {
        static LAST: RefCell<Option<(Digest, Option<Rc<Descriptors>>)>> = const { RefCell::new(None) };
    }
    let digest = Digest::of(set.as_bytes());
    LAST.with_borrow_mut(|last| match last {
        Some((of, known)) if *of == digest => known.clone(),
        _ => {
            let bytes = BASE64_STANDARD.decode(set).ok();
            let known = bytes.and_then(|bytes| Descriptors::decode(&bytes).ok()).map(Rc::new);
            *last = Some((digest, known.clone()));
            known
        }
    })
}
