//! MQTT users, versions 3.1.1 and 5: `mqtt_user`.
//!
//! A step is compiled once into a [`task::Task`]. A user has one connection at a time, a
//! [`link::Link`]; every acknowledgement is awaited, and the exchange itself reads it. What arrives by
//! subscription goes through the [`inbox::Inbox`]; [`stamp`] measures the way from publisher to
//! subscriber.

mod fields;
mod inbox;
mod link;
mod packet;
mod session;
mod stamp;
mod task;

#[cfg(test)]
mod tests;

use super::{CoreContext, Fault, PrepareError, Protocol, Want};
use crate::dial::{Dialer, Stamps, TlsSettings};
use crate::probe::Probe;
use bytes::{Bytes, BytesMut};
use fields::Method;
use inbox::Inbox;
use ld_shared::plan::{Connections, ScenarioPlan, TaskPlan};
use ld_shared::reply::{Headers, Reply};
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::Scope;
use link::Link;
use packet::{Accepted, AckKind, Publish, Version};
use serde_json::{Map, Value};
use session::Connection;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use task::{Request, Ways};

pub use session::Session;
pub use task::Task;

/// Seconds of a step that has no time-out of its own: the seed's.
const TIMEOUT: f64 = 5.0;
/// How long a broker may take to close a connection after DISCONNECT.
const CLOSING: Duration = Duration::from_millis(500);
/// Largest buffer for packets that a core keeps for the next one.
const MAX_SPARE: usize = 64 * 1024;

/// MQTT on one core, for one scenario.
pub struct Mqtt {
    core: Rc<CoreContext>,
    scenario: ScenarioPlan,
    dialer: Dialer,
    tls: TlsSettings,
    /// Some step receives: deliveries are kept for it.
    receives: Cell<bool>,
    /// Buffer for the next packet.
    spare: RefCell<BytesMut>,
}

impl Protocol for Mqtt {
    const KEYS: &'static [&'static str] = &["mqtt_user"];
    const FIELDS: &'static [&'static str] = fields::FIELDS;
    type Task = Task;
    type Session = Session;

    fn schema() -> Value {
        fields::schema()
    }

    fn check(fields: &Map<String, Value>, _scenario: &ScenarioPlan) -> Vec<Fault> {
        fields::parse(fields).err().unwrap_or_default()
    }

    fn label(fields: &Map<String, Value>, _scenario: &ScenarioPlan) -> Option<(String, String)> {
        Some(("MQTT".to_owned(), fields::label(fields)))
    }

    fn new(core: Rc<CoreContext>, scenario: &ScenarioPlan) -> Result<Self, PrepareError> {
        let tls = TlsSettings::new(&scenario.tls, &core.blobs).map_err(|error| PrepareError(error.to_string()))?;
        Ok(Self {
            scenario: scenario.clone(),
            dialer: Dialer::of(&core.plan),
            tls,
            receives: Cell::new(false),
            spare: RefCell::default(),
            core,
        })
    }

    fn compile(&self, task: &TaskPlan) -> Result<Task, PrepareError> {
        let step = fields::parse(&task.fields).map_err(|faults| {
            let told = |fault: &Fault| format!("{} at {}", fault.message, fault.pointer);
            PrepareError(faults.first().map_or_else(String::new, told))
        })?;
        if step.method == Method::Receive {
            self.receives.set(true);
        }
        Ok(Task::compile(&step, task.name.as_deref(), &self.core.bindings))
    }

    fn session(&self) -> Session {
        Session::default()
    }

    fn request_type<'a>(&self, _task: &'a Task) -> &'a str {
        "MQTT"
    }

    fn default_name(&self, task: &Task) -> Arc<str> {
        Arc::clone(&task.default_name)
    }

    fn sources(&self, task: &Task) -> Vec<u32> {
        task.sources()
    }

    fn timeout(&self, task: &Task) -> Option<f64> {
        Some(task.timeout.unwrap_or(TIMEOUT))
    }

    fn url(&self, task: &Task, scope: &mut Scope) -> Arc<str> {
        let named = task.shown_broker(&self.core.bindings, scope);
        named.or_else(|| self.scenario.host.clone()).unwrap_or_else(|| fields::DEFAULT_BROKER.into())
    }

    fn begin<'a>(
        &'a self,
        task: &'a Task,
        session: &'a mut Session,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<impl Future<Output = Result<Reply, Failure>> + use<'a>, Failure> {
        if self.scenario.connections == Connections::PerRequest {
            // that of a step that timed out
            session.connection = None;
        }
        let ways = self.ways(task, session, scope)?;
        let request = task.fill(ways, &self.core.bindings, scope)?;
        Ok(self.exchange(task, session, request, probe, want))
    }

    fn end_iteration(&self, session: &mut Session) {
        if self.scenario.connections == Connections::PerIteration {
            (session.connection, session.last) = (None, None);
        }
    }
}

impl Mqtt {
    /// How to connect before the step; `None`: the open connection serves, or none is needed.
    fn ways(&self, task: &Task, session: &mut Session, scope: &mut Scope) -> Result<Option<Rc<Ways>>, Failure> {
        if task.method == Method::Disconnect {
            return Ok(None);
        }
        let bindings = &self.core.bindings;
        let target = task.target(bindings, scope)?;
        let is_same = |ways: &Ways| target.as_deref().is_none_or(|target| *target == ways.target);
        let is_connect = task.method == Method::Connect;
        if !(is_connect && task.has_login) {
            if session.open().is_some_and(|connection| is_same(&connection.ways)) {
                return Ok(None);
            }
            if let Some(last) = session.last.as_ref().filter(|last| !task.has_login && is_same(last)) {
                return Ok(Some(Rc::clone(last)));
            }
        }
        let target = match (target, &session.last) {
            (Some(target), _) => target.into_owned(),
            (None, Some(last)) => last.target.clone(),
            (None, None) => task::default_target(self.scenario.host.as_deref())?,
        };
        let own_id = || session.client_id.get_or_insert_with(|| self.client_id().into()).to_string();
        let ways = task.ways(target, own_id, bindings, scope)?;
        let is_open = session.open().is_some_and(|connection| *connection.ways == ways);
        Ok((!is_open).then(|| Rc::new(ways)))
    }

    /// A client id that no other user of the test has: the core's first lane, which no other core of
    /// the cluster owns now, a mark of this process, for lanes may move to another one, and a count of
    /// it, shuffled by the test's seed.
    fn client_id(&self) -> String {
        // every broker takes 23 bytes
        const BITS: u64 = (1 << 44) - 1;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static PROCESS: LazyLock<u16> = LazyLock::new(rand::random);
        let lane = u64::from(self.core.lanes.borrow().first().copied().unwrap_or(0));
        let count = u64::from(COUNT.fetch_add(1, Ordering::Relaxed) & 0xffff);
        let number = lane << 30 | u64::from(*PROCESS & 0x3fff) << 16 | count;
        // each step can be undone, so that different numbers stay different
        let mut id = (number ^ self.core.plan.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) & BITS;
        id ^= id >> 22;
        format!("loaddensity-{:011x}", id.wrapping_mul(0xbf58_476d_1ce4_e5b9) & BITS)
    }

    async fn exchange(
        &self,
        task: &Task,
        session: &mut Session,
        request: Request<'_>,
        probe: &mut Probe,
        want: Want,
    ) -> Result<Reply, Failure> {
        probe.start()?;
        let mut received = 0;
        let outcome = self.step(task, session, request, probe, want, &mut received).await;
        probe.end(received);
        let is_over = session.connection.as_ref().is_some_and(|connection| !connection.link.is_open());
        if is_over || self.scenario.connections == Connections::PerRequest {
            session.connection = None;
        }
        outcome
    }

    async fn step(
        &self,
        task: &Task,
        session: &mut Session,
        request: Request<'_>,
        probe: &mut Probe,
        want: Want,
        received: &mut u64,
    ) -> Result<Reply, Failure> {
        let mut accepted = None;
        if let Some(ways) = &request.ways {
            session.connection = None;
            session.last = Some(Rc::clone(ways));
            let is_connect = task.method == Method::Connect;
            let (connection, answer) = Box::pin(self.open(ways, is_connect, probe, received)).await?;
            (session.connection, accepted) = (Some(connection), Some(answer));
        }
        if task.method == Method::Disconnect {
            session.last = None;
            let Some(connection) = session.connection.take() else { return Ok(Reply::default()) };
            return disconnect(task, &connection.link, probe).await;
        }
        let Some(connection) = &session.connection else {
            return Err(Failure::new(FailureKind::Closed, "connection closed"));
        };
        let link = &connection.link;
        match task.method {
            Method::Connect => Ok(connected(accepted, want)),
            Method::Publish => {
                let numbers = task.stamp.then(|| session.numbers.get_or_insert_default());
                let stamp = numbers.map(|numbers| numbers.next(&request.topic));
                self.publish(task, link, request, stamp, probe, want, received).await
            }
            Method::Receive => receive(link, &request, probe, want, received).await,
            Method::Subscribe | Method::Unsubscribe | Method::Disconnect => {
                self.subscribe(task, link, &request, probe, want, received).await
            }
        }
    }

    /// Opens a connection and waits until the broker accepts it.
    async fn open(
        &self,
        ways: &Rc<Ways>,
        is_connect: bool,
        probe: &mut Probe,
        received: &mut u64,
    ) -> Result<(Connection, Accepted), Failure> {
        let (target, login) = (&ways.target, &ways.login);
        let config = if target.is_tls {
            let config = self.tls.config(self.tls.verify(), &[]);
            Some(config.map_err(|error| Failure::new(FailureKind::Tls, error.to_string()))?)
        } else {
            None
        };
        let limit = self.scenario.connect_timeout;
        let stream = self.dialer.open(&target.host, target.port, config, limit, &mut Stamps(Some(&mut *probe))).await?;
        let inbox = Inbox::new(self.core.messages.clone(), Arc::clone(&self.scenario.name), self.receives.get());
        let link = Rc::new(Link::new(Rc::clone(&self.core), login.version, stream, inbox));
        let attending = link.attend();
        link.expect_connack();
        self.send(&link, probe, |out| packet::connect(login, out)).await?;
        // within another step the first byte is that of its own answer
        let mut on_read = || {
            if is_connect {
                probe.received();
            }
        };
        let (bytes, accepted) = link.connected(&mut on_read).await;
        *received += bytes;
        let accepted = accepted?;
        if let Some(refusal) = packet::refusal(login.version, accepted.code, true) {
            return Err(refusal);
        }
        drop(attending);
        let keepalive = accepted.keepalive.unwrap_or(login.keepalive);
        let every = (keepalive > 0).then(|| Duration::from_millis(u64::from(keepalive) * 500));
        let keeper = tokio::task::spawn_local(Rc::clone(&link).keep(every)).abort_handle();
        Ok((Connection { link, ways: Rc::clone(ways), keeper }, accepted))
    }

    /// Writes one packet.
    async fn send(
        &self,
        link: &Link,
        probe: &mut Probe,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut buffer = self.spare.take();
        let mut outcome = encode(&mut buffer);
        if outcome.is_ok() {
            outcome = link.send(&buffer).await;
        }
        if outcome.is_ok() {
            probe.written(buffer.len() as u64);
        }
        if buffer.capacity() <= MAX_SPARE {
            buffer.clear();
            self.spare.replace(buffer);
        }
        outcome
    }

    #[expect(clippy::too_many_arguments, reason = "they are the exchange")]
    async fn publish(
        &self,
        task: &Task,
        link: &Link,
        request: Request<'_>,
        stamp: Option<stamp::Stamp>,
        probe: &mut Probe,
        want: Want,
        received: &mut u64,
    ) -> Result<Reply, Failure> {
        if request.properties.is_some() && link.version == Version::V4 {
            return Err(Failure::new(FailureKind::Request, "properties need a connection of version 5"));
        }
        let attending = link.attend();
        let body_bytes = characters(&request.payload);
        let headers = wanted(want, || headers(&request.topic, task.qos, task.retain, request.properties.as_deref()));
        let payload = match stamp {
            None => request.payload,
            Some(stamp) => {
                let mut stamped = Vec::with_capacity(64 + request.payload.len());
                stamp.write(&mut stamped);
                stamped.extend_from_slice(&request.payload);
                stamped.into()
            }
        };
        let id = match task.qos {
            0 => 0,
            1 => link.expect(AckKind::PubAck),
            _ => link.expect(AckKind::PubRec),
        };
        let (topic, properties) = (request.topic.into_owned(), request.properties);
        let (qos, retain) = (task.qos, task.retain);
        let publish = Publish { topic, payload, qos, retain, id, properties };
        self.send(link, probe, |out| packet::send(link.version, publish, out)).await?;
        let mut refusal = None;
        if qos > 0 {
            let (bytes, ack) = link.acknowledged(&mut || probe.received()).await;
            *received += bytes;
            refusal = packet::refusal(link.version, ack?.code, false);
        }
        drop(attending);
        Ok(Reply { headers, body_bytes, refusal, ..Reply::default() })
    }

    /// Subscribes or unsubscribes.
    async fn subscribe(
        &self,
        task: &Task,
        link: &Link,
        request: &Request<'_>,
        probe: &mut Probe,
        want: Want,
        received: &mut u64,
    ) -> Result<Reply, Failure> {
        let _attending = link.attend();
        let (version, filter) = (link.version, &*request.topic);
        let subscribes = task.method == Method::Subscribe;
        if subscribes {
            // what it brings may come before its acknowledgement
            link.inbox.borrow_mut().subscribe(filter, &task.messages_name, task.stamp);
            let id = link.expect(AckKind::SubAck);
            self.send(link, probe, |out| packet::subscribe(version, filter, task.qos, id, out)).await?;
        } else {
            let id = link.expect(AckKind::UnsubAck);
            self.send(link, probe, |out| packet::unsubscribe(version, filter, id, out)).await?;
        }
        let (bytes, ack) = link.acknowledged(&mut || probe.received()).await;
        *received += bytes;
        let ack = ack?;
        let refusal = packet::refusal(version, ack.code, false);
        if subscribes == refusal.is_some() {
            link.inbox.borrow_mut().unsubscribe(filter);
        }
        // the acknowledgement of a subscription grants a quality
        let qos = if subscribes { ack.code.min(2) } else { 0 };
        Ok(Reply { headers: wanted(want, || headers(filter, qos, false, None)), refusal, ..Reply::default() })
    }
}

/// Waits for a delivery.
async fn receive(
    link: &Link,
    request: &Request<'_>,
    probe: &mut Probe,
    want: Want,
    received: &mut u64,
) -> Result<Reply, Failure> {
    let _attending = link.attend();
    let filter = if request.topic.is_empty() { "#" } else { &request.topic };
    let (bytes, delivered) = link.delivered(&mut || probe.received(), |inbox| inbox.take(filter)).await;
    *received += bytes;
    let publish = delivered?;
    let payload: &Bytes = &publish.payload;
    Ok(Reply {
        headers: wanted(want, || headers(&publish.topic, publish.qos, publish.retain, publish.properties.as_deref())),
        body: payload.slice(..payload.len().min(want.body)).into(),
        body_bytes: payload.len() as u64,
        refusal: request.expected.as_ref().and_then(|expected| expected.check(payload).err()),
        status: None,
    })
}

/// Takes leave and closes. The step ends when DISCONNECT is written.
async fn disconnect(task: &Task, link: &Link, probe: &mut Probe) -> Result<Reply, Failure> {
    let _attending = link.attend();
    if !task.abrupt && link.is_open() {
        let sent = link.send(&packet::DISCONNECT).await;
        if sent.is_ok() {
            probe.written(packet::DISCONNECT.len() as u64);
        }
        probe.end(0);
        sent?;
        // closing with something unread would reset the connection, perhaps before the broker has
        // read DISCONNECT; and it publishes the will then
        let patience = CLOSING.min(Duration::from_secs_f64(task.timeout.unwrap_or(TIMEOUT).min(3600.0) / 4.0));
        tokio::time::timeout(patience, link.drained()).await.ok();
    }
    link.close(false);
    Ok(Reply::default())
}

fn connected(accepted: Option<Accepted>, want: Want) -> Reply {
    let headers = wanted(want, || {
        let mut headers = Headers::default();
        let accepted = accepted.unwrap_or_default();
        headers.push("session_present", if accepted.session_present { "true" } else { "false" });
        if let Some(id) = &accepted.client_id {
            headers.push("client_id", id);
        }
        headers
    });
    Reply { headers, ..Reply::default() }
}

fn wanted(want: Want, make: impl FnOnce() -> Headers) -> Headers {
    if want.headers { make() } else { Headers::default() }
}

/// What is told of a message beside its payload.
fn headers(
    topic: &str,
    qos: u8,
    retain: bool,
    properties: Option<&rumqttc::v5::mqttbytes::v5::PublishProperties>,
) -> Headers {
    let mut headers = Headers::default();
    // a header is a line
    let mut push = |name: &str, value: &str| headers.push(name, &value.replace(['\r', '\n'], " "));
    push("topic", topic);
    push("qos", &qos.to_string());
    push("retain", if retain { "true" } else { "false" });
    if let Some(properties) = properties {
        if let Some(seconds) = properties.message_expiry_interval {
            push("message_expiry", &seconds.to_string());
        }
        let data = properties.correlation_data.as_ref().map(|data| String::from_utf8_lossy(data));
        let named = [
            ("content_type", properties.content_type.as_deref()),
            ("response_topic", properties.response_topic.as_deref()),
            ("correlation_data", data.as_deref()),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                push(name, value);
            }
        }
        for (name, value) in &properties.user_properties {
            push(&name.replace([':', '\r', '\n'], "_"), value);
        }
    }
    headers
}

/// Characters of a text; bytes that go on with one don't count.
fn characters(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u64
}
