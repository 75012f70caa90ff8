//! HTTP users: `http_user`, `fast_http_user` and `http3_user`, one engine.
//!
//! HTTP/1.1 first. A task is compiled once into a [`recipe::Recipe`]; if nothing in it changes, into the bytes of its
//! request. An exchange is one write and, for a small answer, one read into the core's buffer; an
//! [`answer::Answer`] takes the bytes as they come. [`session::Session`] holds what a user keeps.
//!
//! HTTP/2 and HTTP/3 ([`many`]) send what the same recipe makes, translated into a
//! [`message::Message`], over a [`link::Link`]; their answers fill the same [`answer::Answer`].

mod answer;
mod chunked;
mod cookies;
mod decode;
mod fields;
mod link;
mod many;
mod message;
mod origin;
mod recipe;
mod redirect;
pub(crate) mod requests;
mod schema;
mod session;
mod streams;
pub(crate) mod url;
mod version;
mod wire;

#[cfg(test)]
mod tests;

use super::{CoreContext, Fault, PrepareError, Protocol, Want};
use crate::dial::{Dialer, Stamps, TlsSettings};
use crate::probe::Probe;
use answer::Answer;
use ld_shared::plan::{Connections, HttpVersion, ScenarioPlan, TaskPlan};
use ld_shared::reply::{Headers, Reply};
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::Scope;
use ld_shared::template::Template;
use link::Quic;
use many::Sending;
use message::Message;
use origin::{Origin, Origins};
use recipe::{Fill, Recipe};
use redirect::Sent;
use serde_json::{Map, Value};
use session::{Connection, Pool};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use streams::Streams;
use version::{HTTP3_USER, Way};

pub use session::Session;

/// Most request buffers that a core keeps for the next ones, and the largest that it keeps.
const SPARE_BUFFERS: (usize, usize) = (64, 64 * 1024);

/// HTTP on one core, for one scenario.
pub struct Http {
    core: Rc<CoreContext>,
    scenario: ScenarioPlan,
    dialer: Dialer,
    origins: Origins,
    tls: TlsSettings,
    /// Connections that users share: made at the first exchange, when the core knows its share.
    pool: OnceCell<Option<Pool>>,
    /// The same for connections that may carry many streams.
    streams: OnceCell<Option<Rc<Streams>>>,
    quic: Quic,
    /// Buffers for requests, used again and again.
    spare: RefCell<Vec<Vec<u8>>>,
}

/// A task, compiled.
pub struct Task {
    recipe: Recipe,
    /// The whole request, if it is always the same (but for cookies that answers set).
    fixed: Option<(Rc<Origin>, Box<[u8]>)>,
    /// That in the terms of HTTP/2 and HTTP/3, made when first needed.
    message: OnceCell<Message>,
    version: HttpVersion,
    method: &'static str,
    name: Arc<str>,
    /// A task of `http_user`, whose errors read otherwise.
    is_plain: bool,
    /// Its URL as records show it, if that is always the same.
    fixed_url: Option<Arc<str>>,
    /// The URL as written, for users whose records show it so.
    written: Arc<str>,
    timeout: Option<f64>,
    follows: bool,
    /// The task asks the peer to close.
    closes: bool,
}

/// A request, ready to be sent.
struct Request<'a> {
    origin: Rc<Origin>,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Fixed(&'a [u8]),
    Filled(Vec<u8>),
}

impl Bytes<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Filled(bytes) => bytes,
        }
    }
}

impl Protocol for Http {
    const KEYS: &'static [&'static str] = &["fast_http_user", "http_user", HTTP3_USER];
    const FIELDS: &'static [&'static str] = fields::FIELDS;
    const OPTIONS: &'static [&'static str] = &["streams"];
    const NO_ANSWER: Option<u16> = Some(0);
    type Task = Task;
    type Session = Session;

    fn schema() -> Value {
        schema::task()
    }

    fn options_schema() -> Map<String, Value> {
        schema::options()
    }

    fn check(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Vec<Fault> {
        fields::parse(fields, scenario, &scenario.user).err().unwrap_or_default()
    }

    fn check_options(options: &Map<String, Value>) -> Vec<Fault> {
        fields::option_faults(options)
    }

    fn label(_fields: &Map<String, Value>, _scenario: &ScenarioPlan) -> Option<(String, String)> {
        // the seed's HTTP users skip what they do not understand
        None
    }

    fn new(core: Rc<CoreContext>, scenario: &ScenarioPlan) -> Result<Self, PrepareError> {
        let tls = TlsSettings::new(&scenario.tls, &core.blobs).map_err(|error| PrepareError(error.to_string()))?;
        Ok(Self {
            scenario: scenario.clone(),
            dialer: Dialer::of(&core.plan),
            origins: Origins::default(),
            tls,
            pool: OnceCell::new(),
            streams: OnceCell::new(),
            quic: Quic::default(),
            spare: RefCell::default(),
            core,
        })
    }

    fn compile(&self, task: &TaskPlan) -> Result<Task, PrepareError> {
        let user = task.user.as_deref().unwrap_or(&self.scenario.user);
        let fields = fields::parse(&task.fields, &self.scenario, user).map_err(|faults| PrepareError::of(&faults))?;
        let bindings = &self.core.bindings;
        let verify = fields.verify.unwrap_or(self.tls.verify());
        let host = self.scenario.host.as_deref();
        let recipe = Recipe::compile(&fields, host, verify, bindings, &self.origins).map_err(PrepareError)?;
        let mut fixed_url = None;
        let fixed = match recipe.fixed_origin() {
            None => None,
            Some(origin) => {
                let mut bytes = Vec::new();
                let mut scope = Scope::new(bindings);
                let mut fill = Fill { bindings, scope: &mut scope, origins: &self.origins };
                recipe.fill(&mut fill, None, &mut bytes).map_err(|failure| PrepareError(failure.to_string()))?;
                fixed_url = recipe.url(&mut fill).map(Arc::from);
                Some((origin.clone(), bytes.into_boxed_slice()))
            }
        };
        let is_plain = user == "http_user";
        let written = Template::compile_name(&fields.url, bindings);
        let name = if is_plain { recipe::shown_target(&fields, bindings) } else { written.clone() };
        let closes = fields.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("connection")
                && value.as_ref().is_some_and(|value| value.to_ascii_lowercase().contains("close"))
        });
        Ok(Task {
            recipe,
            fixed,
            message: OnceCell::new(),
            version: version::of(user, &self.scenario),
            method: fields.method,
            name: name.into(),
            is_plain,
            fixed_url,
            written: written.into(),
            timeout: fields.timeout,
            follows: fields.follows,
            closes,
        })
    }

    fn session(&self) -> Session {
        Session::default()
    }

    fn request_type<'a>(&self, task: &'a Task) -> &'a str {
        task.method
    }

    fn default_name(&self, task: &Task) -> Arc<str> {
        task.name.clone()
    }

    fn sources(&self, task: &Task) -> Vec<u32> {
        task.recipe.sources()
    }

    fn timeout(&self, task: &Task) -> Option<f64> {
        task.timeout
    }

    fn url(&self, task: &Task, scope: &mut Scope) -> Arc<str> {
        if let Some(url) = &task.fixed_url {
            return Arc::clone(url);
        }
        let mut fill = Fill { bindings: &self.core.bindings, scope, origins: &self.origins };
        match task.recipe.url(&mut fill) {
            Some(url) => url.into(),
            None => task.written.clone(),
        }
    }

    fn status_error(&self, task: &Task, status: u16, url: &str, name: &str) -> Option<String> {
        if !task.is_plain {
            return Some(format!("URL {url}: code={status}"));
        }
        let whose = if status < 500 { "Client" } else { "Server" };
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Some(format!("{status} {whose} Error: {} for url: {name}", reason.unwrap_or_default()))
    }

    fn begin<'a>(
        &'a self,
        task: &'a Task,
        session: &'a mut Session,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<impl Future<Output = Result<Reply, Failure>> + use<'a>, Failure> {
        let request = match &task.fixed {
            Some((origin, bytes)) if session.jar.is_none() => {
                Request { origin: origin.clone(), bytes: Bytes::Fixed(bytes) }
            }
            _ => {
                let mut bytes = self.spare.borrow_mut().pop().unwrap_or_default();
                let mut fill = Fill { bindings: &self.core.bindings, scope, origins: &self.origins };
                let origin = task.recipe.fill(&mut fill, session.jar.as_deref(), &mut bytes)?;
                Request { origin, bytes: Bytes::Filled(bytes) }
            }
        };
        Ok(self.exchange(task, session, request, probe, want))
    }

    fn end_iteration(&self, session: &mut Session) {
        if self.scenario.connections == Connections::PerIteration {
            *session = Session::default();
        }
    }

    fn hang_up(&self, session: &mut Session) {
        // its cookies stay
        session.kept.clear();
        session.links.clear();
        if let Some(Some(pool)) = self.pool.get() {
            pool.close_idle();
        }
    }
}

impl Http {
    async fn exchange(
        &self,
        task: &Task,
        session: &mut Session,
        request: Request<'_>,
        probe: &mut Probe,
        want: Want,
    ) -> Result<Reply, Failure> {
        let (_permit, lease) = match (Way::to(&request.origin, task.version), self.pool()) {
            (Way::H1, Some(pool)) => (Some(pool.permit().await), None),
            (Way::H1, None) => (None, None),
            (way, _) => (None, self.lease(&request.origin, way).await),
        };
        probe.start()?;
        let mut answer = Answer::new(task.method == "HEAD", want);
        let fixed = matches!(request.bytes, Bytes::Fixed(_)).then_some(task);
        let sending = Sending { bytes: request.bytes.as_slice(), fixed, closes: task.closes };
        let stamps = &mut Stamps(Some(probe));
        let mut outcome = match Way::to(&request.origin, task.version) {
            Way::H1 => self.hop(session, &request.origin, &sending, &mut answer, stamps).await,
            way => {
                let place = (&request.origin, way);
                Box::pin(self.hop_many(session, place, &sending, lease, &mut answer, stamps)).await
            }
        };
        let mut received = answer.received;
        if outcome.is_ok() && task.follows && answer.leads_on() {
            outcome = Box::pin(self.follow(task, session, &request, &mut answer, want, &mut received)).await;
            // later hops take no stamps of their own: the chain is one record
            probe.received();
        }
        probe.end(received);
        if !answer.cookies.is_empty() {
            store(session, &request.url(), &mut answer);
        }
        if let Bytes::Filled(buffer) = request.bytes {
            self.give_back(buffer);
        }
        outcome?;
        finish(answer)
    }

    /// This core's part of the connections that users share, if they do: connection `k` of all
    /// belongs to lane `k`, so that parts are disjoint and add up.
    fn pool(&self) -> Option<&Pool> {
        let make = || match self.scenario.connections {
            Connections::Shared(size) => Some(Pool::new(self.share(size))),
            Connections::PerUser | Connections::PerIteration | Connections::PerRequest => None,
        };
        self.pool.get_or_init(make).as_ref()
    }

    /// This core's part of `size` shared connections.
    fn share(&self, size: u64) -> usize {
        self.core.lanes.borrow().iter().filter(|lane| u64::from(**lane) < size).count().max(1)
    }

    /// One request and its answer over a connection to `origin`, by HTTP/1.1.
    async fn hop(
        &self,
        session: &mut Session,
        origin: &Rc<Origin>,
        sending: &Sending<'_>,
        answer: &mut Answer,
        stamps: &mut Stamps<'_>,
    ) -> Result<(), Failure> {
        let idle = match self.pool() {
            Some(pool) => pool.take(origin).await,
            None => session.take(origin).await,
        };
        let mut connection = match idle {
            Some(connection) => connection,
            None => Box::pin(self.open(origin, stamps)).await?,
        };
        let keeps = wire::round_trip(&mut connection, sending.bytes, answer, &self.core.scratch, stamps).await?;
        if keeps && !sending.closes && self.scenario.connections != Connections::PerRequest {
            connection.is_reused = true;
            match self.pool() {
                Some(pool) => pool.give(connection),
                None => session.give(connection),
            }
        }
        Ok(())
    }

    /// Opens a connection.
    async fn open(&self, origin: &Rc<Origin>, stamps: &mut Stamps<'_>) -> Result<Connection, Failure> {
        let config = if origin.is_https { Some(self.tls.config(origin.verify, Way::H1.alpn())?) } else { None };
        let limit = self.scenario.connect_timeout;
        let stream = self.dialer.open(&origin.dialled, origin.port, config, limit, stamps).await?;
        Ok(Connection { stream, origin: origin.clone(), is_reused: false })
    }

    /// Follows redirects until an answer is none; `answer` is the first one, then the last.
    async fn follow(
        &self,
        task: &Task,
        session: &mut Session,
        request: &Request<'_>,
        answer: &mut Answer,
        want: Want,
        received: &mut u64,
    ) -> Result<(), Failure> {
        // the chain's permit is for HTTP/1.1
        let holds_permit = Way::to(&request.origin, task.version) == Way::H1;
        let mut url = request.url();
        let mut bytes = request.bytes.as_slice().to_vec();
        for _ in 0..redirect::MAX_REDIRECTS {
            store(session, &url, answer);
            let Some(location) = answer.location.as_deref().filter(|_| answer.leads_on()) else {
                return Ok(());
            };
            let next = url
                .resolve(location)
                .map_err(|why| Failure::new(FailureKind::Protocol, format!("unusable redirect: {why}")))?;
            let cookies = task.recipe.cookies_at(&next, &request.origin, &bytes, session.jar.as_deref());
            bytes = redirect::next(&Sent { bytes: &bytes, url: &url }, answer.status, &next, &cookies);
            url = next;
            let origin = self.origins.get(&url, request.origin.verify);
            *answer = Answer::new(task.method == "HEAD", want);
            let sending = Sending { bytes: &bytes, fixed: None, closes: task.closes };
            let outcome = match Way::to(&origin, task.version) {
                Way::H1 => {
                    let _permit = match self.pool() {
                        Some(pool) if !holds_permit => Some(pool.permit().await),
                        _ => None,
                    };
                    self.hop(session, &origin, &sending, answer, &mut Stamps(None)).await
                }
                way => self.hop_many(session, (&origin, way), &sending, None, answer, &mut Stamps(None)).await,
            };
            *received += answer.received;
            outcome?;
        }
        store(session, &url, answer);
        if answer.leads_on() {
            return Err(Failure::new(FailureKind::Protocol, "more than 30 redirects"));
        }
        Ok(())
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS.0 && buffer.capacity() <= SPARE_BUFFERS.1 {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

impl Request<'_> {
    /// Where it goes.
    fn url(&self) -> url::Url {
        let target = self.bytes.as_slice().split(|b| *b == b' ').nth(1).unwrap_or(b"/");
        self.origin.url(&String::from_utf8_lossy(target))
    }
}

/// Moves the answer's cookies into the user's jar.
fn store(session: &mut Session, url: &url::Url, answer: &mut Answer) {
    for cookie in answer.cookies.drain(..) {
        session.jar.get_or_insert_default().store(&cookie, url);
    }
}

/// The answer in no protocol's terms.
fn finish(answer: Answer) -> Result<Reply, Failure> {
    let wanted = answer.wanted();
    let mut reply = Reply {
        status: Some(answer.status),
        headers: Headers::from_lines(answer.headers),
        body: answer.body,
        body_bytes: answer.body_bytes,
        refusal: None,
    };
    if answer.coding != decode::Coding::Identity && wanted > 0 {
        (reply.body, reply.body_bytes) = answer.coding.decode(reply.body, wanted)?;
    }
    Ok(reply)
}
