//! Fields of WebSocket steps: read into one type, every fault found on the way.

use crate::protocol::Fault;
use crate::protocol::expect::{self, ExpectField};
use crate::protocol::http::url::{self, Url};
use crate::protocol::reader::{Reader, escape, scalar};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ld_shared::json_schema::{about, boolean, choice, default, examples, or_null, positive, text};
use ld_shared::plan::ScenarioPlan;
use serde_json::{Map, Value, json};

pub(super) const FIELDS: &[&str] = &[
    "method",
    "request_url",
    "url",
    "payload",
    "binary",
    "headers",
    "subprotocol",
    "expect",
    "socket",
    "timeout",
    "close_code",
    "close_reason",
];

/// Seconds for connecting and receiving unless the task has its own.
pub(super) const TIMEOUT: f64 = 5.0;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Connect,
    Send,
    Recv,
    SendRecv,
    Ping,
    Close,
}

const METHODS: [(&str, Method); 6] = [
    ("connect", Method::Connect),
    ("send", Method::Send),
    ("recv", Method::Recv),
    ("sendrecv", Method::SendRecv),
    ("ping", Method::Ping),
    ("close", Method::Close),
];

impl Method {
    /// As documents write it.
    pub(super) fn name(self) -> &'static str {
        METHODS.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }
}

/// A step's fields. Texts may hold placeholders.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) method: Method,
    /// As written, and joined to the test's host.
    pub(super) url: Option<(String, String)>,
    pub(super) payload: Payload,
    pub(super) headers: Vec<(String, String)>,
    pub(super) subprotocol: Option<String>,
    pub(super) expect: Option<ExpectField>,
    pub(super) socket: Option<String>,
    pub(super) timeout: f64,
    pub(super) close: (u16, String),
}

#[derive(Clone, Debug)]
pub(super) enum Payload {
    Text(String),
    /// The JSON text of a value.
    Json(Value),
    /// A binary frame that is always the same.
    Bytes(Vec<u8>),
    /// A binary frame of a text.
    Binary(String),
}

/// Reads the fields; `Err` holds every fault.
pub(super) fn parse(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Result<Fields, Vec<Fault>> {
    let mut reader = Reader::new(fields);
    let method = method(&mut reader);
    let parsed = Fields {
        method,
        url: given_url(&mut reader, scenario),
        payload: payload(&mut reader),
        headers: headers(&mut reader),
        subprotocol: subprotocol(&mut reader),
        expect: ExpectField::read(&mut reader, "expect"),
        socket: reader.scalar("socket"),
        timeout: reader.seconds("timeout").unwrap_or(TIMEOUT),
        close: (close_code(&mut reader), reader.scalar("close_reason").unwrap_or_default()),
    };
    if method == Method::Connect && parsed.url.is_none() && scenario.host.is_none() {
        let fault = Fault::new("/request_url", "connect without request_url");
        reader.fault(fault.help("give the URL: \"ws://…\"").seed("websocket connection not established"));
    }
    if parsed.expect.is_some() && !matches!(method, Method::Recv | Method::SendRecv) {
        let fault = Fault::new("/expect", format!("`{}` receives nothing that could be expected", method.name()));
        reader.fault(fault.help("use sendrecv, or recv in a step of its own"));
    }
    if parsed.close.1.len() > 123 {
        reader.fault(Fault::new("/close_reason", "a close reason longer than 123 bytes"));
    }
    reader.finish(parsed)
}

fn method(reader: &mut Reader<'_>) -> Method {
    let Some(name) = reader.scalar("method") else { return Method::Send };
    let lower = name.trim().to_ascii_lowercase();
    if let Some((_, method)) = METHODS.iter().find(|(known, _)| *known == lower) {
        return *method;
    }
    let fault = Fault::new("/method", format!("unknown method `{name}` for websocket_user"));
    let help = crate::protocol::reader::nearest(&lower, &METHODS.map(|(known, _)| known));
    reader.fault(fault.help(help).seed(format!("unsupported websocket method: {lower}")));
    Method::Send
}

fn given_url(reader: &mut Reader<'_>, scenario: &ScenarioPlan) -> Option<(String, String)> {
    for key in ["request_url", "url"] {
        let Some(url) = reader.text(key).map(str::trim).filter(|url| !url.is_empty()) else { continue };
        let Some(joined) = url::join(scenario.host.as_deref(), url).or_else(|| placeholder(url)) else {
            let fault = Fault::new(format!("/{key}"), format!("relative URL `{url}` without a host"));
            reader.fault(fault.help("give `host` on the test, or a URL that begins with ws:// or wss://"));
            return None;
        };
        if !joined.contains("${")
            && let Err(why) = parse_url(&joined)
        {
            reader.fault(Fault::new(format!("/{key}"), format!("unusable URL `{url}`: {why}")));
        }
        return Some((url.to_owned(), joined));
    }
    None
}

/// What begins with a placeholder may turn out to be absolute.
fn placeholder(url: &str) -> Option<String> {
    url.starts_with("${").then(|| url.to_owned())
}

/// A `ws` or `wss` URL (`http` and `https` mean the same).
pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let Some((scheme, rest)) = url::split_scheme(text) else {
        return Err("not an absolute URL; expected ws:// or wss://".to_owned());
    };
    match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" => Url::parse(&format!("http://{rest}")),
        "wss" | "https" => Url::parse(&format!("https://{rest}")),
        other => Err(format!("unsupported scheme `{other}`; expected ws or wss")),
    }
}

fn payload(reader: &mut Reader<'_>) -> Payload {
    let binary = reader.flag("binary").unwrap_or(false);
    let value = reader.get("payload");
    if let (Some(value @ (Value::Object(_) | Value::Array(_))), false) = (value, binary) {
        return Payload::Json(value.clone());
    }
    let text = match value {
        Some(Value::Bool(flag)) => flag.to_string(),
        _ => reader.scalar("payload").unwrap_or_default(),
    };
    if !binary {
        return Payload::Text(text);
    }
    if text.contains("${") {
        return Payload::Binary(text);
    }
    match decode(&text) {
        Ok(bytes) => Payload::Bytes(bytes),
        Err(why) => {
            reader.fault(Fault::new("/payload", why));
            Payload::Bytes(Vec::new())
        }
    }
}

/// The bytes of a binary payload: `hex:…`, `base64:…`, or the text as it is.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    if let Some(digits) = text.strip_prefix("hex:") {
        hex(digits).ok_or("expected pairs of hexadecimal digits after `hex:`")
    } else if let Some(encoded) = text.strip_prefix("base64:") {
        BASE64_STANDARD.decode(encoded.trim()).map_err(|_| "expected base64 after `base64:`")
    } else {
        Ok(text.as_bytes().to_vec())
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if !digits.iter().all(u8::is_ascii_hexdigit) || digits.len() % 2 == 1 {
        return None;
    }
    digits.chunks(2).map(pair).collect()
}

/// Headers of the handshake that are its own.
const OWN: [&str; 6] =
    ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"];

fn headers(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let Some(value) = reader.get("headers") else { return Vec::new() };
    let Value::Object(object) = value else {
        reader.wrong_type("/headers", value, "an object");
        return Vec::new();
    };
    let mut headers = Vec::new();
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let pointer = format!("/headers/{}", escape(name));
        let lower = name.to_ascii_lowercase();
        if OWN.contains(&lower.as_str()) {
            reader.fault(Fault::new(pointer, format!("`{name}` belongs to the handshake")));
        } else if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            reader.fault(Fault::new(pointer, format!("`{name}` cannot be a header's name")));
        } else if let Some(text) = scalar(value) {
            headers.push((name.clone(), text));
        } else {
            reader.wrong_type(pointer, value, "a text");
        }
    }
    headers
}

fn subprotocol(reader: &mut Reader<'_>) -> Option<String> {
    match reader.get("subprotocol")? {
        Value::Array(items) => {
            let names: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            if names.is_none() {
                reader.fault(Fault::new("/subprotocol", "expected a text or a list of texts"));
            }
            Some(names.unwrap_or_default().join(", "))
        }
        _ => reader.text("subprotocol").map(str::to_owned),
    }
}

fn close_code(reader: &mut Reader<'_>) -> u16 {
    const NORMAL: u16 = 1000;
    let code = reader.whole("close_code", 1000, 4999).unwrap_or(u64::from(NORMAL)) as u16;
    // RFC 6455, 7.4: these are never sent
    if matches!(code, 1004..=1006 | 1015..=2999) {
        reader
            .fault(Fault::new("/close_code", format!("{code} cannot be sent")).help("accepted: 1000, 3000 to 4999, …"));
    }
    code
}

/// What a step is.
pub(super) fn schema() -> Value {
    let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> = FIELDS
        .iter()
        .map(|name| {
            let url = || examples(text(), json!(["wss://host/path"]));
            let schema = match *name {
                "method" => about(default(choice(&names), "send"), "What the step does"),
                "request_url" | "url" => about(url(), "The socket's URL; default: the last one, then `host`"),
                "payload" => about(json!({}), "What is sent; an object or list: its JSON text"),
                "binary" => about(boolean(), "Sent as a binary frame; the payload may begin with hex: or base64:"),
                "headers" => about(json!({"type": "object"}), "Headers of the handshake"),
                "subprotocol" => about(json!({"type": ["string", "array"]}), "Subprotocols that are offered"),
                "expect" => expect::schema("What the received message must hold"),
                "socket" => about(json!({"type": ["string", "number"]}), "Name of the socket, if the user has several"),
                "timeout" => {
                    about(json!({"anyOf": [positive(), text()]}), "Seconds for connecting and receiving; default 5")
                }
                "close_code" => about(json!({"type": ["integer", "string"]}), "Close code that is sent; default 1000"),
                _ => about(json!({"type": ["string", "number"]}), "Close reason that is sent"),
            };
            ((*name).to_owned(), or_null(schema))
        })
        .collect();
    json!({"properties": properties})
}
