//! Raw sockets: `socket_user`, over TCP, TLS, UDP and Unix sockets.
//!
//! A step sends its payload and waits for what it expects: so many bytes, a frame, a datagram, or
//! nothing. Its connection is its own, or kept for the user's next steps ([`session::Session`]).

mod fields;
mod framing;
mod place;
mod schema;
mod session;
mod wire;

#[cfg(test)]
mod tests;

use super::text::Text;
use super::{CoreContext, Fault, PrepareError, Protocol, Want};
use crate::dial::{self, Dialer, Stamps, Stream, TlsSettings};
use crate::probe::Probe;
use fields::{Fields, Reads, bytes_of};
use framing::{Framing, MAX_REPLY};
use ld_shared::plan::{Connections, ScenarioPlan, TaskPlan};
use ld_shared::pytext::Repr;
use ld_shared::reply::Reply;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::{Bindings, Scope};
use ld_shared::template::Template;
use memchr::memmem;
use place::{Kind, Place};
use serde_json::{Map, Value};
use session::Connection;
use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::UdpSocket;
use wire::{Answer, Traffic};

pub use session::Session;

/// Seconds for a step that names no time-out, as the seed has it.
const TIMEOUT: f64 = 5.0;

/// Raw sockets on one core, for one scenario.
pub struct Socket {
    core: Rc<CoreContext>,
    scenario: ScenarioPlan,
    dialer: Dialer,
    tls: TlsSettings,
}

/// A step, compiled.
pub struct Step {
    kind: Kind,
    target: Text,
    /// Where it goes, if that is always the same.
    place: Option<Result<Rc<Place>, Failure>>,
    verify: bool,
    payload: Payload,
    reads: Reads,
    framing: Option<Framing>,
    expect: Option<Text>,
    keeps: bool,
    timeout: f64,
    name: Arc<str>,
}

enum Payload {
    /// The same bytes each time, framed.
    Fixed(Result<Box<[u8]>, Failure>),
    Text(Text),
}

/// A step with its placeholders filled in.
struct Call<'a> {
    place: Rc<Place>,
    bytes: Cow<'a, [u8]>,
    expect: Option<Cow<'a, str>>,
}

impl Protocol for Socket {
    const KEYS: &'static [&'static str] = &["socket_user"];
    const FIELDS: &'static [&'static str] = fields::FIELDS;
    type Task = Step;
    type Session = Session;

    fn schema() -> Value {
        schema::step()
    }

    fn check(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Vec<Fault> {
        fields::parse(fields, scenario).err().unwrap_or_default()
    }

    fn label(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Option<(String, String)> {
        let (word, _) = fields::protocol(fields);
        let name = format!("{word}:{}", fields::target_or_default(fields, scenario));
        Some((word.to_ascii_uppercase(), name))
    }

    fn new(core: Rc<CoreContext>, scenario: &ScenarioPlan) -> Result<Self, PrepareError> {
        let tls = TlsSettings::new(&scenario.tls, &core.blobs).map_err(|error| PrepareError(error.to_string()))?;
        Ok(Self { scenario: scenario.clone(), dialer: Dialer::of(&core.plan), tls, core })
    }

    fn compile(&self, task: &TaskPlan) -> Result<Step, PrepareError> {
        let fields = fields::parse(&task.fields, &self.scenario).map_err(|faults| {
            PrepareError(
                faults.first().map_or_else(String::new, |fault| format!("{} at {}", fault.message, fault.pointer)),
            )
        })?;
        Ok(Step::compile(fields, &self.core.bindings, self.tls.verify()))
    }

    fn session(&self) -> Session {
        Session::default()
    }

    fn request_type<'a>(&self, step: &'a Step) -> &'a str {
        step.kind.request_type()
    }

    fn default_name(&self, step: &Step) -> Arc<str> {
        Arc::clone(&step.name)
    }

    fn sources(&self, step: &Step) -> Vec<u32> {
        let payload = match &step.payload {
            Payload::Fixed(_) => None,
            Payload::Text(text) => Some(text),
        };
        let mut sources: Vec<u32> =
            [Some(&step.target), payload, step.expect.as_ref()].into_iter().flatten().flat_map(Text::sources).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    fn timeout(&self, step: &Step) -> Option<f64> {
        Some(step.timeout)
    }

    fn url(&self, step: &Step, scope: &mut Scope) -> Arc<str> {
        match step.place(&self.core.bindings, scope) {
            Ok(place) => place.to_string().into(),
            Err(_) => Arc::clone(&step.name),
        }
    }

    fn begin<'a>(
        &'a self,
        step: &'a Step,
        session: &'a mut Session,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<impl Future<Output = Result<Reply, Failure>> + use<'a>, Failure> {
        let bindings = &self.core.bindings;
        let expect = step.expect.as_ref().map(|text| text.render(bindings, scope)).transpose()?;
        let call = Call { place: step.place(bindings, scope)?, bytes: step.bytes(bindings, scope)?, expect };
        Ok(self.exchange(step, session, call, probe, want))
    }

    fn end_iteration(&self, session: &mut Session) {
        if self.scenario.connections == Connections::PerIteration {
            *session = Session::default();
        }
    }
}

impl Step {
    fn compile(fields: Fields, bindings: &Bindings, verify: bool) -> Self {
        let Fields { kind, target, payload, reads, framing, expect, timeout, keeps, .. } = fields;
        let verify = fields.verify.unwrap_or(verify);
        let shown = Template::compile_name(&target, bindings);
        let shown = shown.split_once("://").map_or(&*shown, |(_, rest)| rest);
        let name = format!("{}:{}", kind.key(), shown.strip_prefix("unix:").unwrap_or(shown));
        let target = Text::compile(&target, bindings);
        let place = target.literal().map(|text| place_of(kind, text, verify));
        let text = payload.map(|payload| Text::compile(&payload, bindings));
        let payload = match text {
            // a datagram is sent in any case; over a stream nothing is nothing
            None => Payload::Fixed(Ok(Box::default())),
            Some(text) => match text.literal() {
                None => Payload::Text(text),
                Some(literal) => Payload::Fixed(framed(framing.as_ref(), Cow::Borrowed(literal)).map(Into::into)),
            },
        };
        Self {
            kind,
            target,
            place,
            verify,
            payload,
            reads,
            framing,
            expect: expect.map(|text| Text::compile(&text, bindings)),
            keeps,
            timeout: timeout.unwrap_or(TIMEOUT),
            name: name.into(),
        }
    }

    fn place(&self, bindings: &Bindings, scope: &mut Scope) -> Result<Rc<Place>, Failure> {
        match &self.place {
            Some(place) => place.clone(),
            None => place_of(self.kind, &self.target.render(bindings, scope)?, self.verify),
        }
    }

    fn bytes(&self, bindings: &Bindings, scope: &mut Scope) -> Result<Cow<'_, [u8]>, Failure> {
        match &self.payload {
            Payload::Fixed(bytes) => bytes.as_deref().map(Cow::Borrowed).map_err(Clone::clone),
            Payload::Text(text) => framed(self.framing.as_ref(), text.render(bindings, scope)?),
        }
    }

    /// How many bytes of a reply are kept.
    fn kept(&self, want: Want) -> usize {
        if self.expect.is_some() { MAX_REPLY as usize } else { want.body }
    }
}

fn place_of(kind: Kind, text: &str, verify: bool) -> Result<Rc<Place>, Failure> {
    let place = Place::parse(kind, text, verify);
    place.map(Rc::new).map_err(|why| Failure::new(FailureKind::Request, format!("unusable target: {why}")))
}

/// The bytes of a payload, framed.
fn framed<'a>(framing: Option<&Framing>, text: Cow<'a, str>) -> Result<Cow<'a, [u8]>, Failure> {
    let refused = |why: String| Failure::new(FailureKind::Request, why);
    let no_digits = |at: usize| refused(format!("non-hexadecimal number found in fromhex() arg at position {at}"));
    let bytes = match text {
        Cow::Borrowed(text) => bytes_of(text).map_err(no_digits)?,
        Cow::Owned(text) if text.starts_with("hex:") => Cow::Owned(bytes_of(&text).map_err(no_digits)?.into_owned()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    match framing {
        None => Ok(bytes),
        Some(framing) => framing.wrap(bytes).map_err(|why| refused(why.to_owned())),
    }
}

impl Socket {
    async fn exchange(
        &self,
        step: &Step,
        session: &mut Session,
        call: Call<'_>,
        probe: &mut Probe,
        want: Want,
    ) -> Result<Reply, Failure> {
        probe.start()?;
        let mut received = 0;
        let outcome = match step.kind {
            Kind::Udp => self.over_datagrams(step, session, &call, probe, want, &mut received).await,
            Kind::Tcp | Kind::Tls | Kind::Unix => {
                self.over_stream(step, session, &call, probe, want, &mut received).await
            }
        };
        let (mut body, closing) = match outcome {
            Ok(outcome) => {
                probe.end(received);
                outcome
            }
            Err(failure) => {
                probe.end(received);
                return Err(failure);
            }
        };
        if let Some(connection) = closing {
            say_goodbye(connection).await;
        }
        if let Some(text) = &call.expect
            && memmem::find(&body, text.as_bytes()).is_none()
        {
            let reason = format!("expected {} in response", Repr(&Value::from(&**text)));
            return Err(Failure::new(FailureKind::Assertion, reason));
        }
        body.truncate(want.body);
        Ok(Reply { body, body_bytes: call.bytes.len() as u64 + received, ..Reply::default() })
    }

    /// One step over a stream: what was kept of its reply, and the connection, if nobody keeps it.
    async fn over_stream(
        &self,
        step: &Step,
        session: &mut Session,
        call: &Call<'_>,
        probe: &mut Probe,
        want: Want,
        received: &mut u64,
    ) -> Result<(Vec<u8>, Option<Connection>), Failure> {
        let scratch = &self.core.scratch;
        let kept =
            if step.keeps { session.stream(&call.place, step.reads != Reads::Nothing, scratch).await } else { None };
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::new(Box::pin(self.open(&call.place, probe)).await?),
        };
        let keep = step.kept(want);
        let mut answer = match (&step.framing, step.reads) {
            (Some(framing), Reads::Frame) => Answer::frame(framing, keep),
            (_, Reads::Bytes(length)) => Answer::bytes(length, keep),
            (_, Reads::Nothing | Reads::Frame | Reads::Datagram(_)) => Answer::Nothing,
        };
        let mut traffic = Traffic::default();
        let outcome = wire::round_trip(&mut connection, &call.bytes, &mut answer, &mut traffic, scratch, probe).await;
        *received = traffic.received;
        outcome?;
        let body = answer.into_body();
        if !step.keeps {
            return Ok((body, Some(connection)));
        }
        if traffic.is_open {
            connection.is_reused = true;
            session.keep_stream(&call.place, connection);
        }
        Ok((body, None))
    }

    async fn open(&self, place: &Place, probe: &mut Probe) -> Result<Stream, Failure> {
        let limit = self.scenario.connect_timeout;
        let mut stamps = Stamps(Some(probe));
        match place {
            Place::Unix(path) => self.dialer.unix(path, limit, &mut stamps).await,
            Place::Tcp { host, port } | Place::Udp { host, port } => {
                self.dialer.open(host, *port, None, limit, &mut stamps).await
            }
            Place::Tls { host, port, verify } => {
                let config = self.tls.config(*verify, &[]);
                let config = config.map_err(|error| Failure::new(FailureKind::Tls, error.to_string()))?;
                self.dialer.open(host, *port, Some(config), limit, &mut stamps).await
            }
        }
    }

    /// One step over UDP: a datagram out, and one in if one is expected.
    async fn over_datagrams(
        &self,
        step: &Step,
        session: &mut Session,
        call: &Call<'_>,
        probe: &mut Probe,
        want: Want,
        received: &mut u64,
    ) -> Result<(Vec<u8>, Option<Connection>), Failure> {
        let scratch = &self.core.scratch;
        let kept = if step.keeps { session.datagrams(&call.place, scratch) } else { None };
        let socket = match (kept, &*call.place) {
            (Some(socket), _) => socket,
            (None, Place::Udp { host, port }) => {
                let limit = self.scenario.connect_timeout;
                Box::pin(self.dialer.udp(host, *port, limit, &mut Stamps(Some(&mut *probe)))).await?
            }
            (None, _) => return Err(Failure::new(FailureKind::Request, "unusable target: not one of UDP")),
        };
        socket.send(&call.bytes).await.map_err(|error| unsent(&error))?;
        probe.written(call.bytes.len() as u64);
        let mut body = Vec::new();
        if let Reads::Datagram(length) = step.reads {
            let datagram = receive(&socket, scratch, probe, |bytes| {
                let bytes = &bytes[..bytes.len().min(length)];
                (bytes.len() as u64, bytes[..bytes.len().min(step.kept(want))].to_vec())
            });
            (*received, body) = datagram.await.map_err(|error| dial::of_io(&error, FailureKind::Closed))?;
        }
        if step.keeps {
            session.keep_datagrams(&call.place, socket);
        }
        Ok((body, None))
    }
}

/// Waits for a datagram, and hands it to `take`. What the peer's machine reports (nobody listens on
/// the port) is an error of the socket, for which tokio's `recv` does not wake.
async fn receive<T>(
    socket: &UdpSocket,
    scratch: &RefCell<Vec<u8>>,
    probe: &mut Probe,
    take: impl FnOnce(&[u8]) -> T,
) -> io::Result<T> {
    loop {
        socket.ready(Interest::READABLE | Interest::ERROR).await?;
        let mut scratch = scratch.borrow_mut();
        match socket.try_recv(&mut scratch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => {
                probe.received();
                return read.map(|length| take(&scratch[..length]));
            }
        }
        if let Some(error) = socket.take_error()? {
            probe.received();
            return Err(error);
        }
        // what `ready` saw is over: without this it would see it for ever
        socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into())).ok();
    }
}

/// A datagram that could not be sent.
fn unsent(error: &io::Error) -> Failure {
    if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::MSGSIZE) {
        return Failure::new(FailureKind::Request, "the payload does not fit into a datagram");
    }
    dial::of_io(error, FailureKind::Connect)
}

/// Ends a TLS stream in the protocol's way, as far as that needs no waiting; others end by being
/// dropped.
async fn say_goodbye(mut connection: Connection) {
    if matches!(connection.stream, Stream::Tls(_)) {
        poll_fn(|context| {
            // sent or not, the stream is closed now
            Poll::Ready(Pin::new(&mut connection.stream).poll_shutdown(context).is_ready())
        })
        .await;
    }
}
