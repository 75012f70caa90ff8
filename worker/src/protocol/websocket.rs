//! WebSocket users (RFC 6455): steps over sockets that live as long as the user.

mod counted;
mod failure;
mod fields;
mod socket;

use super::expect::{Expect, Expected};
use super::text::Text;
use super::{CoreContext, Fault, PrepareError, Protocol, Want};
use crate::dial::{Dialer, Host, Stamps, TlsSettings};
use crate::messages::MessageSeries;
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
use socket::Socket;
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

/// WebSockets on one core, for one scenario.
pub struct WebSocket {
    core: Rc<CoreContext>,
    scenario: ScenarioPlan,
    dialer: Dialer,
    tls: TlsSettings,
}

/// What a user keeps.
#[derive(Default)]
pub struct Session {
    sockets: Vec<Socket>,
    /// The URL used last.
    last: Option<Box<str>>,
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
    messages: MessageSeries,
}

enum Body {
    Text(Text),
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
    headers: Vec<(HeaderName, HeaderValue)>,
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
        Ok(Self { core, scenario: scenario.clone(), dialer: Dialer::default(), tls })
    }

    fn compile(&self, task: &TaskPlan) -> Result<Task, PrepareError> {
        let fields = fields::parse(&task.fields, &self.scenario).map_err(|faults| PrepareError::of(&faults))?;
        let bindings = &self.core.bindings;
        let default = fields.url.as_ref().map_or_else(|| fields.method.name(), |(written, _)| written);
        let default = Template::compile_name(default, bindings);
        let shown = task.name.as_deref().map_or_else(|| default.clone(), |name| Template::compile_name(name, bindings));
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
            messages: self.core.messages.series(fields.socket.as_deref().unwrap_or(&shown), KIND, &self.scenario.name),
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
            session.sockets.clear();
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
        let before = session.find(task).map_or(0, Socket::received);
        let outcome = self.step(task, session, &step, probe).await;
        let after = session.find(task).map_or(before, Socket::received);
        probe.end(after.saturating_sub(before));
        let is_over = |socket: &mut Socket| socket.name == task.socket && socket.end().is_some();
        if outcome.is_err() {
            // a socket that ended says so once; the next step opens a new one
            session.sockets.retain_mut(|socket| !is_over(socket));
        }
        if self.scenario.connections == Connections::PerRequest && task.method != Method::Connect {
            session.sockets.retain(|socket| socket.name != task.socket);
        }
        outcome
    }

    async fn step(
        &self,
        task: &Task,
        session: &mut Session,
        step: &Step<'_>,
        probe: &mut Probe,
    ) -> Result<Reply, Failure> {
        if task.method == Method::Close {
            if let Some(at) = session.sockets.iter().position(|socket| socket.name == task.socket) {
                let frame = CloseFrame { code: task.close.0.into(), reason: step.close.clone() };
                // gone from the user's sockets whatever becomes of it
                session.sockets.swap_remove(at).close(frame, probe).await?;
            }
            return Ok(Reply::default());
        }
        let mut reply = Reply::default();
        match self.ready(task, session, step, probe).await {
            Ok(opened) => {
                if let Some(opened) = opened.filter(|_| task.method == Method::Connect) {
                    reply = opened;
                }
            }
            Err(Unopened::Failed(failure)) => return Err(failure),
            Err(Unopened::Refused(refused)) if task.method == Method::Connect => return Ok(*refused),
            Err(Unopened::Refused(refused)) => {
                return Err(refused.refusal.unwrap_or_else(|| Failure::new(FailureKind::Status, "handshake refused")));
            }
        }
        let socket = session.find(task).ok_or_else(not_established)?;
        let received = match task.method {
            // one that was open already says so
            Method::Connect | Method::Close => return Ok(Reply { status: Some(101), ..reply }),
            Method::Send => {
                socket.send(step.message.clone(), probe).await?;
                return Ok(Reply { body_bytes: step.length, ..reply });
            }
            Method::Ping => {
                let payload = probe.started_at().to_be_bytes();
                socket.send(Message::Ping(Bytes::copy_from_slice(&payload)), probe).await?;
                socket.pong(&payload, probe).await?;
                return Ok(reply);
            }
            Method::Recv => socket.recv(probe).await?,
            Method::SendRecv => {
                socket.send(step.message.clone(), probe).await?;
                reply.body_bytes = step.length;
                // what came before it was sent is no answer to it
                socket.next(probe).await?
            }
        };
        if let Some(expected) = &step.expected {
            expected.check(&received)?;
        }
        reply.body_bytes += length(&received);
        let wanted = step.want.body.min(received.len());
        reply.body = received[..wanted].to_vec();
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
        let at = session.sockets.iter().position(|socket| socket.name == task.socket);
        if let Some(at) = at {
            let socket = &session.sockets[at];
            let is_other = step.url.as_ref().is_some_and(|url| **url != *socket.url);
            match socket.end() {
                // what ended while nobody looked has been recorded: connecting mends it
                Some(_) if task.method == Method::Connect => {}
                Some(end) => return Err(end.into()),
                None if !is_other => return Ok(None),
                None => {}
            }
            session.sockets.swap_remove(at);
        }
        let url = step.url.as_deref().or(session.last.as_deref()).or(task.host.as_deref());
        let url: Box<str> = url.ok_or_else(not_established)?.into();
        session.last = Some(url.clone());
        let (socket, reply) = Box::pin(self.open(task, step, &url, probe)).await?;
        session.sockets.push(socket);
        Ok(Some(reply))
    }

    async fn open(
        &self,
        task: &Task,
        step: &Step<'_>,
        url: &str,
        probe: &mut Probe,
    ) -> Result<(Socket, Reply), Unopened> {
        let place =
            fields::parse_url(url).map_err(|why| Failure::new(FailureKind::Request, format!("unusable URL: {why}")))?;
        let unwritable = |_| Failure::new(FailureKind::Request, "the handshake cannot be written");
        let scheme = if place.is_https { "wss" } else { "ws" };
        let mut request =
            format!("{scheme}://{}{}", place.host_header(), place.target).into_client_request().map_err(unwritable)?;
        for (name, value) in &step.headers {
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
            if !is_written && count.sent.get() > 0 {
                is_written = true;
                probe.written(count.sent.get());
            }
            polled
        })
        .await;
        probe.received();
        match shaken {
            Ok((stream, answer)) => {
                let reply = self.handshake(step, answer.status(), answer.headers());
                let names = (task.socket.clone(), url.into());
                Ok((Socket::new(stream, count, names, self.core.messages.clone(), task.messages), reply))
            }
            Err(Error::Http(answer)) => {
                let mut reply = self.handshake(step, answer.status(), answer.headers());
                reply.body = answer.body().clone().unwrap_or_default();
                reply.body.truncate(step.want.failed_body);
                reply.refusal = Some(failure::of(&Error::Http(answer)));
                Err(Unopened::Refused(Box::new(reply)))
            }
            Err(error) => Err(failure::of(&error).into()),
        }
    }

    /// What a handshake was answered.
    fn handshake(&self, step: &Step<'_>, status: StatusCode, headers: &http::HeaderMap) -> Reply {
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
    fn find(&self, task: &Task) -> Option<&Socket> {
        self.sockets.iter().find(|socket| socket.name == task.socket)
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
            headers,
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
            Self::Binary(text) => Message::binary(text.render(bindings, scope)?.into_owned().into_bytes()),
            Self::Bytes(bytes) => Message::Binary(bytes.clone()),
        };
        let length = match &message {
            Message::Text(text) => length(text.as_ref()),
            other => other.len() as u64,
        };
        Ok((message, length))
    }
}

/// Length of a message as records count it: characters, or bytes of what is no text.
fn length(message: &[u8]) -> u64 {
    std::str::from_utf8(message).map_or(message.len(), |text| text.chars().count()) as u64
}

fn not_established() -> Failure {
    Failure::new(FailureKind::Request, "websocket connection not established")
}
