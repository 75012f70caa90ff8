//! Task fields: read into one type, every fault found on the way.

use super::descriptors::Rpc;
use super::place;
use crate::protocol::Fault;
use crate::protocol::reader::{Reader, escape, nearest, scalar};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderName, HeaderValue};
use ld_shared::plan::ScenarioPlan;
use ld_shared::pytext::Repr;
use serde_json::{Map, Value};

/// Names of the fields.
pub(super) const FIELDS: &[&str] = &[
    "target",
    "host",
    "service",
    "method",
    "stub_path",
    "request_path",
    "payload",
    "metadata",
    "timeout",
    "rpc",
    "max_message",
];

/// Seconds that a call may take: the seed's.
const TIMEOUT: f64 = 10.0;
/// Bytes of the largest message that is taken: gRPC's.
const MOST_MESSAGE: u64 = 4 * 1024 * 1024;

/// Any base64 that people write.
const BASE64: [GeneralPurpose; 2] = {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    [GeneralPurpose::new(&alphabet::STANDARD, config), GeneralPurpose::new(&alphabet::URL_SAFE, config)]
};

/// A task's fields. Texts may hold placeholders.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) target: String,
    pub(super) wanted: Wanted,
    /// Simple name of the message that the method takes, if the task says it.
    pub(super) request: Option<String>,
    pub(super) payload: Payload,
    /// Names and values; those of names that end in `-bin` are base64.
    pub(super) metadata: Vec<(HeaderName, String)>,
    /// Seconds.
    pub(super) timeout: f64,
    pub(super) rpc: Option<Rpc>,
    pub(super) max_message: usize,
    pub(super) default_name: String,
}

/// Which method is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The full name, or only the last part of it.
    pub(super) service: String,
    pub(super) method: String,
    /// Name of the seed's stub, if it was named by that.
    pub(super) stub: Option<String>,
    /// The field that names the service.
    pub(super) pointer: &'static str,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    One(Value),
    Many(Vec<Value>),
}

impl Wanted {
    /// Whether a placeholder stands in it.
    pub(super) fn is_open(&self) -> bool {
        self.service.contains("${") || self.method.contains("${")
    }
}

impl Payload {
    /// Each message with its pointer.
    pub(super) fn each(&self, mut with: impl FnMut(&Value, &str)) {
        match self {
            Self::One(message) => with(message, "/payload"),
            Self::Many(messages) => {
                for (i, message) in messages.iter().enumerate() {
                    with(message, &format!("/payload/{i}"));
                }
            }
        }
    }
}

/// Reads the fields; `Err` holds every fault.
pub(super) fn parse(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Result<Fields, Vec<Fault>> {
    let mut reader = Reader::new(fields);
    let parsed = Fields {
        target: target(&mut reader, scenario),
        wanted: wanted(&mut reader),
        request: dotted(&mut reader, "request_path").map(|path| last(path).to_owned()),
        payload: payload(&mut reader),
        metadata: metadata(&mut reader),
        timeout: reader.seconds("timeout").unwrap_or(TIMEOUT),
        rpc: reader.choice("rpc", &Rpc::NAMES).and_then(Rpc::named),
        max_message: reader.whole("max_message", 1, u64::from(u32::MAX)).unwrap_or(MOST_MESSAGE) as usize,
        default_name: default_name(fields),
    };
    reader.finish(parsed)
}

/// The name of a task that has none: `stub_path.method`, as the seed has it, else `service.method`.
pub(super) fn default_name(fields: &Map<String, Value>) -> String {
    let text = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let method = text("method").map(|method| method.trim_start_matches('/').replace('/', "."));
    let service = text("stub_path").or(text("service"));
    match (service, method) {
        (Some(service), Some(method)) => format!("{service}.{}", last(&method)),
        (Some(one), None) => one.to_owned(),
        (None, Some(one)) => one,
        (None, None) => "GRPC".to_owned(),
    }
}

fn target(reader: &mut Reader<'_>, scenario: &ScenarioPlan) -> String {
    for key in ["target", "host"] {
        let Some(text) = reader.text(key) else { continue };
        if !text.contains("${")
            && let Err(why) = place::parse(text)
        {
            reader.fault(Fault::new(format!("/{key}"), format!("unusable target: {why}")).help(EXAMPLE));
        }
        return text.to_owned();
    }
    scenario.host.as_deref().unwrap_or(place::DEFAULT).to_owned()
}

const EXAMPLE: &str = "write host:port, or grpcs://host:port for TLS";

fn wanted(reader: &mut Reader<'_>) -> Wanted {
    let method = reader.text("method").map(str::trim).unwrap_or_default();
    if reader.get("method").is_none_or(|method| method.as_str().is_some_and(|text| text.trim().is_empty())) {
        reader.fault(Fault::new("/method", "missing method").help("name it, like \"SayHello\""));
    }
    let service = reader.text("service").map(str::trim).filter(|service| !service.is_empty());
    let stub = dotted(reader, "stub_path");
    // package.Service/Method, also as the path of a request has it
    let (inner, method) = match method.trim_start_matches('/').rsplit_once('/') {
        Some((service, method)) => (Some(service), method),
        None => (None, method),
    };
    if let (Some(outer), Some(inner)) = (service, inner)
        && outer != inner
    {
        let fault = Fault::new("/service", format!("two services: `{outer}`, and `{inner}` in `method`"));
        reader.fault(fault.help("name it once"));
    }
    let (service, stub, pointer) = match (service, inner, stub) {
        (Some(service), ..) => (service.to_owned(), None, "/service"),
        (None, Some(service), _) => (service.to_owned(), None, "/method"),
        (None, None, Some(path)) => {
            let stub = last(path);
            let service = stub.strip_suffix("Stub").filter(|service| !service.is_empty()).unwrap_or(stub);
            (service.to_owned(), Some(stub.to_owned()), "/stub_path")
        }
        (None, None, None) => {
            if reader.get("service").is_none() && reader.get("stub_path").is_none() {
                let fault = Fault::new("/service", "it is not said which service's method is called");
                reader.fault(fault.help(r#"add "service": "package.Service""#));
            }
            (String::new(), None, "/service")
        }
    };
    Wanted { service, method: method.to_owned(), stub, pointer }
}

/// A dotted path to something of the seed's language.
fn dotted<'a>(reader: &mut Reader<'a>, key: &str) -> Option<&'a str> {
    let path = reader.text(key)?;
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if path.contains("${") || path.contains('.') && path.split('.').all(is_name) {
        return Some(path);
    }
    let seed = format!("invalid dotted import path: {}", Repr(&path.into()));
    let fault = Fault::new(format!("/{key}"), format!("`{path}` is no dotted path"));
    reader.fault(fault.help(r#"write it like "pkg.greeter_pb2_grpc.GreeterStub""#).seed(seed));
    None
}

/// The last part of a dotted path.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn payload(reader: &mut Reader<'_>) -> Payload {
    let accepted = "an object: the message's fields; or a list of such objects";
    match reader.get("payload") {
        None => Payload::One(Value::Object(Map::new())),
        Some(message @ Value::Object(_)) => Payload::One(message.clone()),
        Some(Value::Array(messages)) => {
            for (i, message) in messages.iter().enumerate().filter(|(_, message)| !message.is_object()) {
                reader.wrong_type(format!("/payload/{i}"), message, "an object: the message's fields");
            }
            Payload::Many(messages.clone())
        }
        Some(other) => {
            reader.wrong_type("/payload", other, accepted);
            Payload::Many(Vec::new())
        }
    }
}

fn metadata(reader: &mut Reader<'_>) -> Vec<(HeaderName, String)> {
    let mut pairs: Vec<(String, &str, &Value)> = Vec::new();
    match reader.get("metadata") {
        None => {}
        Some(Value::Object(object)) => {
            pairs.extend(
                object.iter().map(|(name, value)| (format!("/metadata/{}", escape(name)), name.as_str(), value)),
            );
        }
        Some(Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                let pointer = format!("/metadata/{i}");
                match item.as_array().map(Vec::as_slice) {
                    Some([Value::String(name), value]) => pairs.push((pointer, name, value)),
                    _ => reader.wrong_type(pointer, item, "a pair [\"name\", \"value\"]"),
                }
            }
        }
        Some(other) => reader.wrong_type("/metadata", other, "a list of pairs, or an object"),
    }
    let mut metadata = Vec::new();
    for (pointer, name, value) in pairs {
        let Some(text) = scalar(value) else {
            reader.wrong_type(pointer, value, "a text or number");
            continue;
        };
        let lower = name.to_ascii_lowercase();
        let is_ours = lower.starts_with("grpc-") || ["te", "content-type", "user-agent"].contains(&lower.as_str());
        let header = HeaderName::from_bytes(lower.as_bytes()).ok();
        let Some(header) = header.filter(|_| !is_ours && is_key(&lower)) else {
            let why = if is_ours { "belongs to gRPC itself" } else { "is no name of metadata" };
            let fault = Fault::new(pointer, format!("`{name}` {why}"));
            reader.fault(fault.help("accepted: letters, digits, `-`, `_` and `.`; names in grpc- are taken"));
            continue;
        };
        if !text.contains("${")
            && let Err(why) = value_of(&header, &text)
        {
            reader.fault(Fault::new(pointer, why));
            continue;
        }
        metadata.push((header, text));
    }
    metadata
}

fn is_key(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A value as it is sent.
pub(super) fn value_of(name: &HeaderName, text: &str) -> Result<HeaderValue, String> {
    if name.as_str().ends_with("-bin") {
        let decoded = BASE64.iter().find_map(|engine| engine.decode(text.trim()).ok());
        let decoded = decoded.ok_or_else(|| format!("the value of `{name}` is no base64"))?;
        let encoded = base64::prelude::BASE64_STANDARD_NO_PAD.encode(decoded);
        return Ok(HeaderValue::try_from(encoded).expect("base64 is ASCII"));
    }
    let is_text = text.bytes().all(|b| matches!(b, b' '..=b'~'));
    let value = HeaderValue::from_str(text).ok().filter(|_| is_text);
    value.ok_or_else(|| format!("the value of `{name}` is not printable ASCII; a name that ends in -bin takes base64"))
}

/// Names of the options, which stand in `user_detail_dict`.
pub(super) const OPTIONS: &[&str] = &["proto", "import_paths", "descriptor_set", "channels"];

/// Who shares channels, as the options say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    PerUser,
    /// So many over the cluster.
    Pool(u64),
}

/// What the options say of channels; `None`: nothing.
pub(super) fn channels(options: &Map<String, Value>) -> Option<Channels> {
    let text: String = options.get("channels")?.as_str()?.split_whitespace().collect();
    if text == "per_user" {
        return Some(Channels::PerUser);
    }
    let size = text.strip_prefix("pool(")?.strip_suffix(')')?.parse().ok()?;
    (size > 0).then_some(Channels::Pool(size))
}

/// Every fault of the options.
pub(super) fn check_options(options: &Map<String, Value>) -> Vec<Fault> {
    let mut reader = Reader::new(options);
    for key in ["proto", "import_paths"] {
        match reader.get(key) {
            None | Some(Value::String(_)) => {}
            Some(Value::Array(items)) => {
                for (i, item) in items.iter().enumerate().filter(|(_, item)| !item.is_string()) {
                    reader.wrong_type(format!("/{key}/{i}"), item, "a path");
                }
            }
            Some(other) => reader.wrong_type(format!("/{key}"), other, "a path or a list of paths"),
        }
    }
    reader.text("descriptor_set");
    if reader.get("import_paths").is_some() && reader.get("proto").is_none() {
        let fault = Fault::new("/import_paths", "`import_paths` without `proto`");
        reader.fault(fault.help("add `proto`, the file that describes the service"));
    }
    if let Some(text) = reader.text("channels")
        && channels(options).is_none()
    {
        let fault = Fault::new("/channels", format!("unknown channels `{text}`"));
        let help = nearest(text, &["per_user", "pool(N)"]);
        reader.fault(fault.help(format!("{help}; N counts over the cluster")));
    }
    reader.finish(()).err().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(task: &Value) -> Vec<String> {
        let scenario = crate::protocol::grpc::tests::plan(&json!({})).scenarios.remove(0);
        let faults = parse(task.as_object().unwrap(), &scenario).err().unwrap_or_default();
        faults.into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.message)).collect()
    }

    fn wanted_of(task: &Value) -> (String, String) {
        let mut reader = Reader::new(task.as_object().unwrap());
        let wanted = wanted(&mut reader);
        (wanted.service, wanted.method)
    }

    #[test]
    fn methods_are_named_in_four_ways() {
        let service = |service: &str, method: &str| (service.to_owned(), method.to_owned());
        for (task, expected) in [
            (json!({"service": "a.B", "method": "M"}), service("a.B", "M")),
            (json!({"method": "a.B/M"}), service("a.B", "M")),
            (json!({"method": "/a.B/M"}), service("a.B", "M")),
            (json!({"stub_path": "pkg.greeter_pb2_grpc.GreeterStub", "method": "M"}), service("Greeter", "M")),
        ] {
            assert_eq!(wanted_of(&task), expected, "{task}");
        }
        for (task, name) in [
            (json!({"stub_path": "p.q.GreeterStub", "method": "M"}), "p.q.GreeterStub.M"),
            (json!({"method": "/a.B/M"}), "a.B.M"),
            (json!({"service": "a.B", "method": "M"}), "a.B.M"),
        ] {
            assert_eq!(default_name(task.as_object().unwrap()), name);
        }
    }

    #[test]
    fn every_malformed_field_is_found() {
        let whole = |more: &Value| {
            let mut task = json!({"service": "S", "method": "M"});
            for (key, value) in more.as_object().unwrap() {
                task[key] = value.clone();
            }
            faults(&task)
        };
        assert_eq!(whole(&json!({"metadata": [["X-Token", 7]], "payload": {"a": 1}, "target": "h:1"})), [""; 0]);
        assert_eq!(
            whole(&json!({"target": "ftp://h", "payload": 1, "timeout": 0, "rpc": "stream", "max_message": 0})),
            [
                "/target: unusable target: unsupported scheme `ftp`; expected one of grpc, grpcs, http, https",
                "/payload: expected an object: the message's fields; or a list of such objects, found a number",
                "/timeout: expected seconds above 0, found 0",
                "/rpc: unknown rpc `stream`",
                "/max_message: expected a whole number from 1 to 4294967295, found 0",
            ]
        );
        assert_eq!(
            whole(&json!({"metadata": [["a b", "x"], ["grpc-x", "x"], ["x-bin", "!"], ["x"], ["y", "\n"]]})),
            [
                "/metadata/3: expected a pair [\"name\", \"value\"], found a list",
                "/metadata/0: `a b` is no name of metadata",
                "/metadata/1: `grpc-x` belongs to gRPC itself",
                "/metadata/2: the value of `x-bin` is no base64",
                "/metadata/4: the value of `y` is not printable ASCII; a name that ends in -bin takes base64",
            ]
        );
        assert_eq!(
            faults(&json!({})),
            ["/method: missing method", "/service: it is not said which service's method is called",]
        );
        assert_eq!(
            faults(&json!({"stub_path": "../evil.Stub", "method": "M"})),
            ["/stub_path: `../evil.Stub` is no dotted path",]
        );
    }

    #[test]
    fn binary_values_are_sent_without_padding() {
        let name = HeaderName::from_static("x-bin");
        for text in ["AQID_w==", "AQID/w", "AQID/w=="] {
            assert_eq!(value_of(&name, text).unwrap(), "AQID/w");
        }
    }

    #[test]
    fn options_are_checked() {
        let pointers = |options: &Value| {
            let faults = check_options(options.as_object().unwrap());
            faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        assert!(pointers(&json!({"proto": ["a"], "import_paths": "b", "channels": "pool(3)"})).is_empty());
        assert_eq!(
            pointers(&json!({"proto": [1], "descriptor_set": 2, "channels": "pool(0)"})),
            ["/proto/0", "/descriptor_set", "/channels"]
        );
        assert_eq!(pointers(&json!({"import_paths": "b"})), ["/import_paths"]);
        assert_eq!(channels(json!({"channels": "pool( 4 )"}).as_object().unwrap()), Some(Channels::Pool(4)));
    }
}
