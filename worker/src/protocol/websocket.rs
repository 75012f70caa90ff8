//! WebSocket users (RFC 6455): steps over sockets that live as long as the user.

mod counted;
mod failure;
mod fields;
mod socket;

use super::expect::{Expect, Expected};
use super::text::Text;
use super::{CoreContext, Fault, PrepareError, Protocol, Want};
use crate::dial::{Dialer, Host, Stamps, TlsSettings};
use crate::probe::Probe;
use bytes::Bytes;
use counted::Counted;
use fields::{Method, Payload};
use http::{HeaderName, HeaderValue, StatusCode};
use ld_shared::plan::{Connections, ScenarioPlan, TaskPlan};
use ld_shared::reply::{Headers, Reply};
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::{Bindings, Scope};
use ld_shared::template::Template;
use serde_json::{Map, Value};
use socket::{Received, Socket};
use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// Read buffer of a socket: idle sockets are many, and messages small.
const BUFFER: usize = 2 * 1024;
/// Largest message that is received.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Kind of messages that nobody awaited.
const KIND: &str = "WS message";

/// `WebSockets` on one core, for one scenario.
pub struct WebSocket {
    core: Rc<CoreContext>,
    scenario: ScenarioPlan,
    dialer: Dialer,
    tls: TlsSettings,
    /// Some step asks for messages.
    keeps: bool,
}

/// What a user keeps: its sockets by name.
#[derive(Default)]
pub struct Session {
    places: Vec<Place>,
}

/// A socket of one name, and how it was opened last: it is opened so again if it broke.
struct Place {
    name: Option<Rc<str>>,
    url: Box<str>,
    headers: Rc<[(HeaderName, HeaderValue)]>,
    socket: Option<Socket>,
}

/// A step, compiled.
pub struct Task {
    method: Method,
    /// The URL that it names.
    url: Option<Text>,
    /// The test's host as a URL.
    host: Option<Box<str>>,
    payload: Body,
    headers: Vec<(HeaderName, Text)>,
    subprotocol: Option<Text>,
    expect: Option<Expect>,
    socket: Option<Rc<str>>,
    timeout: f64,
    close: (u16, Text),
    name: Arc<str>,
}

enum Body {
    Text(Text),
    /// A binary frame; what it holds may be encoded.
    Binary(Text),
    Bytes(Bytes),
    /// A text that is always the same.
    Fixed(Utf8Bytes),
}

/// A step with its placeholders filled in.
struct Step<'a> {
    url: Option<Cow<'a, str>>,
    message: Message,
    /// Its length as records count it: characters of a text, bytes else.
    length: u64,
    headers: Rc<[(HeaderName, HeaderValue)]>,
    expected: Option<Expected<'a>>,
    close: Utf8Bytes,
    want: Want,
}

/// A socket that did not open.
enum Unopened {
    Failed(Failure),
    /// The peer answered the handshake with another status.
    Refused(Box<Reply>),
}

impl From<Failure> for Unopened {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Protocol for WebSocket {
    const KEYS: &'static [&'static str] = &["websocket_user"];
    const FIELDS: &'static [&'static str] = fields::FIELDS;
    type Task = Task;
    type Session = Session;

    fn schema() -> Value {
        fields::schema()
    }

    fn check(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Vec<Fault> {
        fields::parse(fields, scenario).err().unwrap_or_default()
    }

    fn label(fields: &Map<String, Value>, _scenario: &ScenarioPlan) -> Option<(String, String)> {
        let text = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let name = text("request_url").or(text("url")).or(text("method")).unwrap_or("send");
        Some(("WS".to_owned(), name.to_owned()))
    }

    fn new(core: Rc<CoreContext>, scenario: &ScenarioPlan) -> Result<Self, PrepareError> {
        let tls = TlsSettings::new(&scenario.tls, &core.blobs).map_err(|error| PrepareError(error.to_string()))?;
        let receives = |task: &TaskPlan| {
            let parsed = fields::parse(&task.fields, scenario);
            parsed.is_ok_and(|fields| matches!(fields.method, Method::Recv | Method::SendRecv))
        };
        let keeps = scenario.all_tasks().any(receives);
        Ok(Self { scenario: scenario.clone(), dialer: Dialer::of(&core.plan), tls, keeps, core })
    }

    fn compile(&self, task: &TaskPlan) -> Result<Task, PrepareError> {
        let fields = fields::parse(&task.fields, &self.scenario).map_err(|faults| PrepareError::of(&faults))?;
        let bindings = &self.core.bindings;
        let default = fields.url.as_ref().map_or_else(|| fields.method.name(), |(written, _)| written);
        let default = Template::compile_name(default, bindings);
        let payload = match fields.payload {
            Payload::Text(text) => Body::of(Text::compile(&text, bindings)),
            Payload::Json(value) => Body::of(Text::compile_json(&value, bindings)),
            Payload::Binary(text) => Body::Binary(Text::compile(&text, bindings)),
            Payload::Bytes(bytes) => Body::Bytes(bytes.into()),
        };
        let header = |(name, value): &(String, String)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| PrepareError(error.to_string()))?;
            Ok((name, Text::compile(value, bindings)))
        };
        Ok(Task {
            method: fields.method,
            url: fields.url.as_ref().map(|(_, joined)| Text::compile(joined, bindings)),
            host: super::http::url::join(self.scenario.host.as_deref(), "/").map(Into::into),
            payload,
            headers: fields.headers.iter().map(header).collect::<Result<_, PrepareError>>()?,
            subprotocol: fields.subprotocol.map(|names| Text::compile(&names, bindings)),
            expect: fields.expect.map(|expect| expect.compile(bindings)),
            socket: fields.socket.map(Rc::from),
            timeout: fields.timeout,
            close: (fields.close.0, Text::compile(&fields.close.1, bindings)),
            name: default.into(),
        })
    }

    fn session(&self) -> Session {
        Session::default()
    }

    fn request_type<'a>(&self, _task: &'a Task) -> &'a str {
        "WS"
    }

    fn default_name(&self, task: &Task) -> Arc<str> {
        Arc::clone(&task.name)
    }

    fn sources(&self, task: &Task) -> Vec<u32> {
        let payload = match &task.payload {
            Body::Text(text) | Body::Binary(text) => Some(text),
            Body::Bytes(_) | Body::Fixed(_) => None,
        };
        let texts = task.url.iter().chain(payload).chain(task.headers.iter().map(|(_, value)| value));
        let texts = texts.chain(&task.subprotocol).chain([&task.close.1]);
        texts.flat_map(Text::sources).chain(task.expect.iter().flat_map(Expect::sources)).collect()
    }

    fn timeout(&self, task: &Task) -> Option<f64> {
        Some(task.timeout)
    }

    fn url(&self, task: &Task, scope: &mut Scope) -> Arc<str> {
        let url = task.url.as_ref().and_then(|url| url.render(&self.core.bindings, scope).ok());
        url.as_deref().or(task.host.as_deref()).unwrap_or_default().into()
    }

    fn begin<'a>(
        &'a self,
        task: &'a Task,
        session: &'a mut Session,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<impl Future<Output = Result<Reply, Failure>> + use<'a>, Failure> {
        let step = task.fill(&self.core.bindings, scope, want)?;
        Ok(self.exchange(task, session, step, probe))
    }

    fn end_iteration(&self, session: &mut Session) {
        if self.scenario.connections == Connections::PerIteration {
            session.places.clear();
        }
    }
}

impl WebSocket {
    async fn exchange(
        &self,
        task: &Task,
        session: &mut Session,
        step: Step<'_>,
        probe: &mut Probe,
    ) -> Result<Reply, Failure> {
        probe.start()?;
        let mut received = 0;
        let outcome = self.step(task, session, &step, probe, &mut received).await;
        probe.end(received);
        if let Some(place) = session.find(task) {
            let is_over = outcome.is_err() && place.socket.as_ref().is_some_and(|socket| socket.end().is_some());
            if is_over {
                // a socket that ended says so once; the next step opens a new one
                place.socket.take().iter().for_each(Socket::tell);
            }
            if self.scenario.connections == Connections::PerRequest && task.method != Method::Connect {
                place.socket = None;
            }
        }
        outcome
    }

    /// `received`: bytes that came for it.
    async fn step(
        &self,
        task: &Task,
        session: &mut Session,
        step: &Step<'_>,
        probe: &mut Probe,
        received: &mut u64,
    ) -> Result<Reply, Failure> {
        if task.method == Method::Close {
            if let Some(socket) = session.find(task).and_then(|place| place.socket.take()) {
                let frame = CloseFrame { code: task.close.0.into(), reason: step.close.clone() };
                // gone from the user's sockets whatever becomes of it
                socket.close(frame, probe).await?;
            }
            return Ok(Reply::default());
        }
        // one that was open already says so
        let mut reply = Reply { status: (task.method == Method::Connect).then_some(101), ..Reply::default() };
        let mut before = 0;
        match self.ready(task, session, step, probe).await {
            Ok(Some(opened)) if task.method == Method::Connect => reply = opened,
            Ok(Some(_)) => {}
            Ok(None) => before = session.socket(task).map_or(0, Socket::received),
            Err(Unopened::Failed(failure)) => return Err(failure),
            Err(Unopened::Refused(refused)) if task.method == Method::Connect => return Ok(*refused),
            Err(Unopened::Refused(refused)) => {
                return Err(refused.refusal.unwrap_or_else(|| Failure::new(FailureKind::Status, "handshake refused")));
            }
        }
        let socket = session.socket(task).ok_or_else(not_established)?;
        let outcome = Self::talk(task, socket, step, reply, probe).await;
        *received = socket.received() - before;
        outcome
    }

    /// What a step does over its open socket.
    async fn talk(
        task: &Task,
        socket: &Socket,
        step: &Step<'_>,
        mut reply: Reply,
        probe: &mut Probe,
    ) -> Result<Reply, Failure> {
        match task.method {
            Method::Connect | Method::Close => return Ok(reply),
            Method::Ping => {
                let payload = probe.started_at().to_be_bytes();
                socket.send(Message::Ping(Bytes::copy_from_slice(&payload)), probe).await?;
                socket.pong(&payload, probe).await?;
                return Ok(reply);
            }
            Method::Send | Method::SendRecv => {
                socket.send(step.message.clone(), probe).await?;
                reply.body_bytes = step.length;
            }
            Method::Recv => {}
        }
        if task.method == Method::Send {
            return Ok(reply);
        }
        let message = socket.recv(probe).await?;
        if let Some(expected) = &step.expected {
            expected.check(&message.bytes)?;
        }
        reply.body_bytes += message.length();
        let wanted = step.want.body.min(message.bytes.len());
        reply.body = message.bytes[..wanted].to_vec();
        Ok(reply)
    }

    /// Sees to it that the step's socket is open; what the handshake was answered, if it opened now.
    async fn ready(
        &self,
        task: &Task,
        session: &mut Session,
        step: &Step<'_>,
        probe: &mut Probe,
    ) -> Result<Option<Reply>, Unopened> {
        let place = session.find(task);
        if let Some(place) = &place
            && let Some(socket) = &place.socket
        {
            let is_other = step.url.as_ref().is_some_and(|url| **url != *place.url);
            match socket.end() {
                Some(_) if task.method == Method::Recv && socket.has_unread() => return Ok(None),
                // connecting mends what broke while nobody looked
                Some(_) if task.method == Method::Connect || is_other => {}
                Some(end) => return Err(end.into()),
                None if !is_other => return Ok(None),
                None => {}
            }
        }
        let known = place.as_ref().map(|place| (place.url.clone(), Rc::clone(&place.headers)));
        let url = step.url.as_deref().or(known.as_ref().map(|(url, _)| &**url)).or(task.host.as_deref());
        let url: Box<str> = url.ok_or_else(not_established)?.into();
        let again = known.filter(|(known, _)| step.headers.is_empty() && *known == url);
        let headers = again.map_or_else(|| Rc::clone(&step.headers), |(_, headers)| headers);
        let (socket, reply) = Box::pin(self.open(task, step, &url, &headers, probe)).await?;
        match place {
            Some(place) => (place.url, place.headers, place.socket) = (url, headers, Some(socket)),
            None => {
                session.places.push(Place { name: task.socket.clone(), url, headers, socket: Some(socket) });
            }
        }
        Ok(Some(reply))
    }

    async fn open(
        &self,
        task: &Task,
        step: &Step<'_>,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        probe: &mut Probe,
    ) -> Result<(Socket, Reply), Unopened> {
        let place =
            fields::parse_url(url).map_err(|why| Failure::new(FailureKind::Request, format!("unusable URL: {why}")))?;
        let unwritable = |_| Failure::new(FailureKind::Request, "the handshake cannot be written");
        let scheme = if place.is_https { "wss" } else { "ws" };
        let mut request =
            format!("{scheme}://{}{}", place.host_header(), place.target).into_client_request().map_err(unwritable)?;
        if let Some(own) = place.authorization().and_then(|text| HeaderValue::from_str(&text).ok()) {
            request.headers_mut().insert(http::header::AUTHORIZATION, own);
        }
        for (name, value) in headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let config = if place.is_https {
            Some(self.tls.config(self.tls.verify(), &[b"http/1.1"]).map_err(Failure::from)?)
        } else {
            None
        };
        let limit = self.scenario.connect_timeout;
        let mut stamps = Stamps(Some(&mut *probe));
        let stream = self.dialer.open(&Host::new(&place.host), place.port, config, limit, &mut stamps).await?;
        let count = Rc::<counted::Bytes>::default();
        let stream = Counted { stream, bytes: Rc::clone(&count) };
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let mut handshake = pin!(tokio_tungstenite::client_async_with_config(request, stream, Some(config)));
        let mut is_written = false;
        let shaken = poll_fn(|context| {
            let polled = handshake.as_mut().poll(context);
            // the request goes out with the first poll
            if task.method == Method::Connect && !is_written && count.sent.get() > 0 {
                is_written = true;
                probe.written(count.sent.get());
            }
            polled
        })
        .await;
        match task.method {
            Method::Connect => probe.received(),
            _ => probe.upgraded(),
        }
        match shaken {
            Ok((stream, answer)) => {
                let reply = Self::handshake(step, answer.status(), answer.headers());
                // of placeholders names hold only what is the same for all users
                let name = task.socket.as_deref().unwrap_or(&task.name);
                let series = self.core.messages.series(name, KIND, &self.scenario.name);
                Ok((Socket::new(stream, count, self.keeps, (self.core.messages.clone(), series)), reply))
            }
            Err(Error::Http(answer)) => {
                let mut reply = Self::handshake(step, answer.status(), answer.headers());
                reply.body = answer.body().clone().unwrap_or_default();
                reply.body.truncate(step.want.failed_body);
                reply.refusal = Some(failure::of(&Error::Http(answer)));
                Err(Unopened::Refused(Box::new(reply)))
            }
            Err(error) => Err(failure::of(&error).into()),
        }
    }

    /// What a handshake was answered.
    fn handshake(step: &Step<'_>, status: StatusCode, headers: &http::HeaderMap) -> Reply {
        let mut shown = Headers::default();
        if step.want.headers {
            for (name, value) in headers {
                shown.push(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
            }
        }
        Reply { status: Some(status.as_u16()), headers: shown, ..Reply::default() }
    }
}

impl Session {
    fn find(&mut self, task: &Task) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.name == task.socket)
    }

    fn socket(&mut self, task: &Task) -> Option<&Socket> {
        self.find(task)?.socket.as_ref()
    }
}

impl Received {
    /// Its length as records count it: characters of a text, bytes else.
    fn length(&self) -> u64 {
        if self.is_text { String::from_utf8_lossy(&self.bytes).chars().count() as u64 } else { self.bytes.len() as u64 }
    }
}

impl Task {
    fn fill(&self, bindings: &Bindings, scope: &mut Scope, want: Want) -> Result<Step<'_>, Failure> {
        let mut headers = Vec::new();
        let subprotocol = self.subprotocol.iter().map(|names| (http::header::SEC_WEBSOCKET_PROTOCOL, names));
        for (name, value) in self.headers.iter().map(|(name, value)| (name.clone(), value)).chain(subprotocol) {
            let value = value.render(bindings, scope)?;
            let value = HeaderValue::from_str(&value)
                .map_err(|_| Failure::new(FailureKind::Request, "a placeholder put a line break into a header"))?;
            headers.push((name, value));
        }
        let (message, length) = self.payload.fill(bindings, scope)?;
        Ok(Step {
            url: self.url.as_ref().map(|url| url.render(bindings, scope)).transpose()?,
            message,
            length,
            headers: headers.into(),
            expected: self.expect.as_ref().map(|expect| expect.fill(bindings, scope)).transpose()?,
            close: (&*self.close.1.render(bindings, scope)?).into(),
            want,
        })
    }
}

impl Body {
    fn of(text: Text) -> Self {
        match text.literal() {
            Some(fixed) => Self::Fixed(fixed.into()),
            None => Self::Text(text),
        }
    }

    fn fill(&self, bindings: &Bindings, scope: &mut Scope) -> Result<(Message, u64), Failure> {
        let message = match self {
            Self::Fixed(text) => Message::Text(text.clone()),
            Self::Text(text) => Message::text(text.render(bindings, scope)?.into_owned()),
            Self::Binary(text) => {
                let text = text.render(bindings, scope)?;
                let bytes = fields::decode(&text).map_err(|why| Failure::new(FailureKind::Request, why))?;
                Message::binary(bytes)
            }
            Self::Bytes(bytes) => Message::Binary(bytes.clone()),
        };
        let length = match &message {
            Message::Text(text) => text.chars().count() as u64,
            other => other.len() as u64,
        };
        Ok((message, length))
    }
}

fn not_established() -> Failure {
    Failure::new(FailureKind::Request, "websocket connection not established")
}
