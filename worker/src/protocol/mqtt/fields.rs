//! Fields of MQTT steps, as documents write them.

use super::packet::{self, Version};
use crate::protocol::Fault;
use crate::protocol::expect::{self, ExpectField};
use crate::protocol::reader::{Reader, kind, nearest, scalar};
use crate::protocol::target::{Scheme, Target};
use ld_shared::json_schema::{about, boolean, choice, default, examples, or_null};
use serde_json::{Map, Value, json};

pub(super) const FIELDS: &[&str] = &[
    "method",
    "broker",
    "host",
    "topic",
    "payload",
    "qos",
    "retain",
    "timeout",
    "expect",
    "stamp",
    "username",
    "password",
    "client_id",
    "keepalive",
    "version",
    "clean_start",
    "session_expiry",
    "will",
    "properties",
    "abrupt",
];

/// Methods by name; the last two are aliases.
const METHODS: &[(&str, Method)] = &[
    ("publish", Method::Publish),
    ("connect", Method::Connect),
    ("subscribe", Method::Subscribe),
    ("receive", Method::Receive),
    ("unsubscribe", Method::Unsubscribe),
    ("disconnect", Method::Disconnect),
    ("recv", Method::Receive),
    ("expect", Method::Receive),
];

/// Fields that say how to connect, beside `broker`.
const LOGIN: &[&str] =
    &["username", "password", "client_id", "keepalive", "version", "clean_start", "session_expiry", "will"];

const PROPERTIES: &[&str] =
    &["user_properties", "message_expiry", "content_type", "response_topic", "correlation_data"];

pub(super) const SCHEMES: [Scheme; 4] = [
    Scheme { name: "mqtt", is_tls: false, port: 1883 },
    Scheme { name: "tcp", is_tls: false, port: 1883 },
    Scheme { name: "mqtts", is_tls: true, port: 8883 },
    Scheme { name: "ssl", is_tls: true, port: 8883 },
];

/// Where to connect if nothing says otherwise.
pub(super) const DEFAULT_BROKER: &str = "127.0.0.1:1883";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Connect,
    Subscribe,
    Publish,
    Receive,
    Unsubscribe,
    Disconnect,
}

/// A step.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of documents")]
pub(super) struct Step {
    pub(super) method: Method,
    pub(super) broker: Option<String>,
    pub(super) topic: String,
    pub(super) payload: Payload,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) timeout: Option<f64>,
    pub(super) expect: Option<ExpectField>,
    pub(super) stamp: bool,
    pub(super) abrupt: bool,
    /// The step says itself how to connect.
    pub(super) has_login: bool,
    pub(super) login: LoginFields,
    pub(super) properties: Option<Properties>,
}

#[derive(Debug)]
pub(super) struct LoginFields {
    pub(super) version: Version,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) client_id: Option<String>,
    pub(super) keepalive: u16,
    pub(super) clean_start: bool,
    pub(super) session_expiry: Option<u32>,
    pub(super) will: Option<WillFields>,
}

#[derive(Debug)]
pub(super) struct WillFields {
    pub(super) topic: String,
    pub(super) payload: Payload,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

/// Properties of a message (MQTT 5).
#[derive(Debug, Default)]
pub(super) struct Properties {
    pub(super) user: Vec<(String, String)>,
    pub(super) message_expiry: Option<u32>,
    pub(super) content_type: Option<String>,
    pub(super) response_topic: Option<String>,
    pub(super) correlation_data: Option<String>,
}

#[derive(Debug)]
pub(super) enum Payload {
    Text(String),
    Json(Value),
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        METHODS.iter().find(|(_, method)| *method == self).map_or("publish", |(name, _)| name)
    }

    fn of(name: &str) -> Option<Self> {
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }
}

/// Reads a step's fields, or tells every fault.
pub(super) fn parse(fields: &Map<String, Value>) -> Result<Step, Vec<Fault>> {
    let mut reader = Reader::new(fields);
    let method = read_method(&mut reader);
    let known = method.unwrap_or(Method::Publish);
    let broker = read_broker(&mut reader);
    let topic = reader.text("topic").unwrap_or_default().to_owned();
    if let Some(method) = method {
        check_topic(&mut reader, method, &topic);
    }
    let has_login = LOGIN.iter().any(|key| reader.get(key).is_some());
    let step = Step {
        method: known,
        broker,
        topic,
        payload: payload(&mut reader),
        qos: reader.whole("qos", 0, 2).unwrap_or(0) as u8,
        retain: reader.flag("retain").unwrap_or(false),
        timeout: reader.seconds("timeout"),
        expect: ExpectField::read(&mut reader, "expect"),
        stamp: reader.flag("stamp").unwrap_or(false),
        abrupt: reader.flag("abrupt").unwrap_or(false),
        has_login,
        login: read_login(&mut reader),
        properties: read_properties(&mut reader),
    };
    if step.expect.is_some() && known != Method::Receive {
        reader
            .fault(Fault::new("/expect", format!("`{}` receives nothing", known.name())).help("use method `receive`"));
    }
    if step.stamp && !matches!(known, Method::Publish | Method::Subscribe) {
        reader.fault(Fault::new("/stamp", "only `publish` and `subscribe` have stamps"));
    }
    reader.finish(step)
}

fn read_method(reader: &mut Reader<'_>) -> Option<Method> {
    let text = match reader.get("method") {
        None => return Some(Method::Publish),
        Some(Value::String(text)) => text.clone(),
        Some(other) => scalar(other).unwrap_or_else(|| other.to_string()),
    };
    let lower = text.trim().to_ascii_lowercase();
    let method = Method::of(&lower);
    if method.is_none() {
        let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        let fault = Fault::new("/method", format!("unknown method `{text}` for mqtt_user"));
        reader.fault(fault.help(nearest(&lower, &names)).seed(format!("unsupported mqtt method: {lower}")));
    }
    method
}

fn read_broker(reader: &mut Reader<'_>) -> Option<String> {
    let key = if reader.get("broker").is_some() { "broker" } else { "host" };
    let text = reader.text(key)?;
    if !text.contains("${")
        && let Err(why) = Target::parse(text, &SCHEMES)
    {
        reader.fault(Fault::new(format!("/{key}"), why));
    }
    Some(text.to_owned())
}

fn check_topic(reader: &mut Reader<'_>, method: Method, topic: &str) {
    let fault = match method {
        Method::Connect | Method::Disconnect => return,
        Method::Receive if topic.is_empty() => return,
        _ if topic.contains("${") => return,
        Method::Publish => packet::topic_fault(topic),
        Method::Subscribe | Method::Receive | Method::Unsubscribe => packet::filter_fault(topic),
    };
    if let Some(fault) = fault {
        reader.fault(Fault::new("/topic", fault).seed("Invalid topic."));
    }
}

fn payload(reader: &mut Reader<'_>) -> Payload {
    match reader.get("payload") {
        None => Payload::Text(String::new()),
        Some(value) => scalar(value).map_or_else(|| Payload::Json(value.clone()), Payload::Text),
    }
}

fn read_login(reader: &mut Reader<'_>) -> LoginFields {
    let version = match reader.get("version").map(|value| scalar(value).unwrap_or_default()).as_deref() {
        None | Some("3.1.1" | "4" | "311") => Version::V4,
        Some("5" | "5.0") => Version::V5,
        Some(other) => {
            let fault = Fault::new("/version", format!("unknown version `{other}` of MQTT"));
            reader.fault(fault.help("accepted: 3.1.1, 5"));
            Version::V5
        }
    };
    let login = LoginFields {
        version,
        username: reader.scalar("username").unwrap_or_default(),
        password: reader.scalar("password").unwrap_or_default(),
        client_id: reader.scalar("client_id"),
        keepalive: reader.whole("keepalive", 0, u64::from(u16::MAX)).unwrap_or(60) as u16,
        clean_start: reader.flag("clean_start").unwrap_or(true),
        session_expiry: reader.whole("session_expiry", 0, u64::from(u32::MAX)).map(|seconds| seconds as u32),
        will: read_will(reader),
    };
    if version == Version::V4 && login.session_expiry.is_some() {
        let fault = Fault::new("/session_expiry", "MQTT 3.1.1 has no session expiry");
        reader.fault(fault.help("set `version` to \"5\""));
    }
    if version == Version::V4 && login.username.is_empty() && !login.password.is_empty() {
        reader.fault(Fault::new("/password", "MQTT 3.1.1 has no password without a username"));
    }
    login
}

/// Reads an object's fields with a reader of their own; its faults move to `reader`.
fn object<T>(
    reader: &mut Reader<'_>,
    key: &str,
    accepted: &[&str],
    read: impl FnOnce(&mut Reader<'_>) -> T,
) -> Option<T> {
    let value = reader.get(key)?;
    let Value::Object(fields) = value else {
        reader.fault(Fault::new(format!("/{key}"), format!("expected an object, found {}", kind(value))));
        return None;
    };
    let mut inner = Reader::new(fields);
    let parsed = read(&mut inner);
    for name in fields.keys().filter(|name| !accepted.contains(&name.as_str())) {
        let pointer = format!("/{}", crate::protocol::reader::escape(name));
        inner.fault(Fault::new(pointer, format!("unknown key `{name}`")).help(nearest(name, accepted)));
    }
    match inner.finish(parsed) {
        Ok(parsed) => Some(parsed),
        Err(faults) => {
            for fault in faults {
                reader.fault(Fault { pointer: format!("/{key}{}", fault.pointer), ..fault });
            }
            None
        }
    }
}

fn read_will(reader: &mut Reader<'_>) -> Option<WillFields> {
    object(reader, "will", &["topic", "payload", "qos", "retain"], |inner| {
        let topic = inner.text("topic").unwrap_or_default().to_owned();
        if let Some(fault) = packet::topic_fault(&topic).filter(|_| !topic.contains("${")) {
            inner.fault(Fault::new("/topic", fault));
        }
        let qos = inner.whole("qos", 0, 2).unwrap_or(0) as u8;
        WillFields { topic, payload: payload(inner), qos, retain: inner.flag("retain").unwrap_or(false) }
    })
}

fn read_properties(reader: &mut Reader<'_>) -> Option<Properties> {
    object(reader, "properties", PROPERTIES, |inner| Properties {
        user: inner.pairs("user_properties"),
        message_expiry: inner.whole("message_expiry", 0, u64::from(u32::MAX)).map(|seconds| seconds as u32),
        content_type: inner.scalar("content_type"),
        response_topic: inner.scalar("response_topic"),
        correlation_data: inner.scalar("correlation_data"),
    })
}

/// Name of a malformed step in records: as the seed makes it.
pub(super) fn label(fields: &Map<String, Value>) -> String {
    let text = |key: &str| fields.get(key).and_then(scalar);
    let method = text("method").map_or_else(|| "publish".to_owned(), |text| text.to_ascii_lowercase());
    format!("{method}:{}", text("topic").unwrap_or_default())
}

/// JSON Schema of a step.
pub(super) fn schema() -> Value {
    let properties: Map<String, Value> = FIELDS.iter().map(|name| ((*name).to_owned(), field(name))).collect();
    json!({"properties": properties})
}

fn field(name: &str) -> Value {
    let text = || json!({"type": ["string", "number", "boolean"]});
    let whole = |most: u64| json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": most}, {"type": "string", "pattern": "^\\s*[0-9]+\\s*$"}]});
    let (schema, words) = match name {
        "method" => {
            let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
            (default(choice(&names), "publish"), "What to do")
        }
        "broker" | "host" => (
            examples(json!({"type": "string"}), json!(["127.0.0.1:1883", "mqtts://broker.example"])),
            "host:port; mqtts:// or ssl:// for TLS. Else the user's open connection, else the test's host",
        ),
        "topic" => (json!({"type": "string"}), "Topic of the message, or topic filter"),
        "payload" => (json!({}), "Text or number; an object or list is sent as JSON"),
        "qos" => (default(whole(2), 0), "Quality of service of the message or the subscription"),
        "retain" => (default(boolean(), false), "The broker keeps the message for later subscribers"),
        "timeout" => (
            default(
                json!({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^\\s*[0-9.eE+-]+\\s*$"}]}),
                5,
            ),
            "Seconds",
        ),
        "expect" => return expect::schema("What a received message must hold"),
        "stamp" => {
            (default(boolean(), false), "publish: put a stamp in front of the payload; subscribe: measure by it")
        }
        "username" => (text(), "User name"),
        "password" => (text(), "Password"),
        "client_id" => (text(), "Client id; default `loaddensity-` and 11 hex digits, each user its own"),
        "keepalive" => (default(whole(65_535), 60), "Seconds without a packet after which a ping is sent; 0: never"),
        "version" => (default(json!({"enum": ["3.1.1", "5", 5]}), "3.1.1"), "Version of MQTT"),
        "clean_start" => (default(boolean(), true), "false: go on with the session that the broker keeps"),
        "session_expiry" => (whole(u64::from(u32::MAX)), "Seconds that the broker keeps the session (MQTT 5)"),
        "will" => (
            json!({"type": "object", "properties": {"topic": {"type": "string"}, "payload": {}, "qos": whole(2), "retain": boolean()}, "required": ["topic"], "additionalProperties": false}),
            "Message that the broker publishes when the connection breaks",
        ),
        "properties" => (
            json!({"type": "object", "properties": {"user_properties": {"type": "object"}, "message_expiry": whole(u64::from(u32::MAX)), "content_type": text(), "response_topic": text(), "correlation_data": text()}, "additionalProperties": false}),
            "Properties of the message (MQTT 5)",
        ),
        _ => {
            (default(boolean(), false), "disconnect: close without saying so, upon which the broker publishes the will")
        }
    };
    about(or_null(schema), words)
}
