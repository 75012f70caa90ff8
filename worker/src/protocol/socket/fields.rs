//! Fields of a step: read into one type, every fault found on the way.

use super::framing::{Framing, MAX_REPLY};
use super::place::{KINDS, Kind, Place};
use crate::protocol::Fault;
use crate::protocol::reader::{Reader, kind, nearest, scalar};
use ld_shared::plan::ScenarioPlan;
use ld_shared::pytext::Repr;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Where steps go that say nothing, as the seed has it.
const DEFAULT_TARGET: &str = "127.0.0.1:9000";
/// Most bytes of a datagram over IPv4.
const MAX_DATAGRAM: usize = 65_507;

/// Names of the fields.
pub(super) const FIELDS: &[&str] = &[
    "protocol",
    "target",
    "host",
    "payload",
    "expect_bytes",
    "expect_substring",
    "expect_reply",
    "timeout",
    "tls",
    "verify",
    "keep",
    "framing",
];

/// A step's fields. Texts may hold placeholders.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) kind: Kind,
    pub(super) target: String,
    pub(super) verify: Option<bool>,
    /// `None`: nothing is sent over a stream.
    pub(super) payload: Option<String>,
    pub(super) reads: Reads,
    pub(super) framing: Option<Framing>,
    pub(super) expect: Option<String>,
    pub(super) timeout: Option<f64>,
    pub(super) keeps: bool,
}

/// What a step waits for after it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Nothing,
    /// So many bytes, or fewer if the peer closes.
    Bytes(u64),
    /// One frame.
    Frame,
    /// One datagram, cut to so many bytes.
    Datagram(usize),
}

/// The word that `protocol` holds, and what it means, if it is one.
pub(super) fn protocol(fields: &Map<String, Value>) -> (String, Option<Kind>) {
    let word = match fields.get("protocol").filter(|value| !value.is_null()) {
        None => target(fields, None).and_then(Kind::of_target).unwrap_or(Kind::Tcp).key().to_owned(),
        Some(value) => scalar(value).unwrap_or_else(|| value.to_string()).trim().to_ascii_lowercase(),
    };
    let kind = KINDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind);
    (word, kind)
}

/// The target, as a text.
pub(super) fn target<'a>(fields: &'a Map<String, Value>, host: Option<&'a str>) -> Option<&'a str> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("target").or_else(|| text("host")).or(host)
}

/// The target of a step, or where it goes by default.
pub(super) fn target_or_default<'a>(fields: &'a Map<String, Value>, scenario: &'a ScenarioPlan) -> &'a str {
    target(fields, scenario.host.as_deref()).unwrap_or(DEFAULT_TARGET)
}

/// Reads the fields; `Err` holds every fault.
pub(super) fn parse(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Result<Fields, Vec<Fault>> {
    let mut reader = Reader::new(fields);
    let kind = kind_of(&mut reader, fields);
    for key in ["target", "host"] {
        reader.text(key);
    }
    let target = target_or_default(fields, scenario).to_owned();
    let framing = framing(&mut reader, kind);
    let payload = payload(&mut reader, kind, framing.as_ref());
    let expect = reader.scalar("expect_substring").filter(|text| !text.is_empty());
    let reads = reads(&mut reader, kind, framing.is_some(), expect.as_deref());
    let parsed = Fields {
        kind,
        verify: reader.flag("verify"),
        payload,
        reads,
        framing,
        expect,
        timeout: reader.seconds("timeout"),
        keeps: reader.flag("keep").unwrap_or(false),
        target,
    };
    if !parsed.target.contains("${")
        && let Err(why) = Place::parse(kind, &parsed.target, true)
    {
        let key = if target_key(fields) { "/target" } else { "/host" };
        let fault = Fault::new(key, format!("unusable target `{}`: {why}", parsed.target));
        let fault = match seed_target(&parsed.target) {
            Some(text) => fault.seed(text),
            None => fault,
        };
        reader
            .fault(fault.help("accepted: host:port, [::1]:port, unix:/path, with tcp://, tls:// or udp:// before it"));
    }
    reader.finish(parsed)
}

fn target_key(fields: &Map<String, Value>) -> bool {
    target(fields, None).is_none() || fields.get("target").and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}

/// What the seed says of a target that it cannot use: without a port it dials port 0.
fn seed_target(target: &str) -> Option<String> {
    match target.split_once(':') {
        None => Some("[Errno 111] Connection refused".to_owned()),
        Some((_, port)) if port.trim().parse::<i64>().is_err() => {
            Some(format!("invalid literal for int() with base 10: {}", Repr(&Value::from(port))))
        }
        Some(_) => None,
    }
}

fn kind_of(reader: &mut Reader<'_>, fields: &Map<String, Value>) -> Kind {
    let (word, kind) = protocol(fields);
    if kind.is_none() {
        let words = KINDS.map(|(word, _)| word);
        let fault = Fault::new("/protocol", format!("unsupported protocol `{word}`")).help(nearest(&word, &words));
        reader.fault(fault.seed(format!("unsupported protocol: {word}")));
    }
    let kind = kind.unwrap_or(Kind::Tcp);
    match (reader.flag("tls"), kind) {
        (Some(true), Kind::Tcp | Kind::Tls) => Kind::Tls,
        (Some(true), Kind::Udp | Kind::Unix) => {
            let fault = Fault::new("/tls", format!("no TLS over `{}`", kind.key()));
            reader.fault(fault.help("TLS runs over TCP: leave `protocol` out, or write `tls`"));
            kind
        }
        (Some(false), Kind::Tls) => {
            let fault = Fault::new("/tls", "`tls` is false, but the protocol is `tls`");
            reader.fault(fault.help("write `\"protocol\": \"tcp\"`, or leave `tls` out"));
            kind
        }
        _ if kind == Kind::Tcp && target(fields, None).and_then(Kind::of_target) == Some(Kind::Tls) => Kind::Tls,
        _ => kind,
    }
}

fn payload(reader: &mut Reader<'_>, kind: Kind, framing: Option<&Framing>) -> Option<String> {
    let value = reader.get("payload")?;
    let Some(text) = scalar(value) else {
        reader.wrong_type("/payload", value, "a text, a number or null");
        return None;
    };
    if !text.contains("${") {
        let sent = bytes_of(&text).map_err(|at| {
            let fault = Fault::new(
                "/payload",
                format!("`hex:` takes pairs of hexadecimal digits, found another thing at digit {at}"),
            );
            fault.seed(format!("non-hexadecimal number found in fromhex() arg at position {at}"))
        });
        let sent = sent.and_then(|bytes| match framing {
            Some(framing) => framing.wrap(bytes).map_err(|why| Fault::new("/payload", why)),
            None => Ok(bytes),
        });
        match sent {
            Ok(bytes) if kind == Kind::Udp && bytes.len() > MAX_DATAGRAM => {
                let message = format!("{} bytes do not fit into a datagram; at most {MAX_DATAGRAM} do", bytes.len());
                reader.fault(Fault::new("/payload", message));
            }
            Ok(_) => {}
            Err(fault) => reader.fault(fault),
        }
    }
    Some(text)
}

/// What a payload's text stands for: itself, or the bytes whose digits follow `hex:`. `Err`: where
/// what is no digit, or half a pair, stands.
pub(super) fn bytes_of(text: &str) -> Result<Cow<'_, [u8]>, usize> {
    let Some(digits) = text.strip_prefix("hex:") else { return Ok(Cow::Borrowed(text.as_bytes())) };
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut half = None;
    for (at, character) in digits.chars().enumerate().filter(|(_, c)| !c.is_ascii_whitespace()) {
        let digit = character.to_digit(16).ok_or(at)? as u8;
        match half.take() {
            None => half = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    if half.is_some() { Err(digits.chars().count()) } else { Ok(Cow::Owned(bytes)) }
}

fn reads(reader: &mut Reader<'_>, kind: Kind, is_framed: bool, expect: Option<&str>) -> Reads {
    let bytes = reader.whole("expect_bytes", 0, MAX_REPLY).unwrap_or(0);
    let wanted = reader.flag("expect_reply");
    if wanted == Some(false) && (bytes > 0 || expect.is_some()) {
        reader.fault(Fault::new("/expect_reply", "`expect_reply` is false, but an answer is expected"));
    }
    if is_framed && bytes > 0 {
        let fault = Fault::new("/expect_bytes", "`framing` says where the reply ends");
        reader.fault(fault.help("leave `expect_bytes` out"));
    }
    match kind {
        Kind::Udp if bytes > 0 => Reads::Datagram(usize::try_from(bytes).unwrap_or(usize::MAX)),
        Kind::Udp if wanted.unwrap_or(expect.is_some()) => Reads::Datagram(usize::MAX),
        _ if is_framed && wanted != Some(false) => Reads::Frame,
        _ if bytes > 0 => Reads::Bytes(bytes),
        Kind::Udp => Reads::Nothing,
        Kind::Tcp | Kind::Tls | Kind::Unix => {
            let help = "give `expect_bytes`, or `framing`: a stream has no messages of its own";
            if let Some(text) = expect.filter(|_| wanted != Some(false)) {
                let fault = Fault::new("/expect_substring", "`expect_substring` without `expect_bytes` or `framing`");
                let seed = format!("expected {} in response", Repr(&Value::from(text)));
                reader.fault(fault.help(help).seed(seed));
            } else if wanted == Some(true) {
                reader.fault(Fault::new("/expect_reply", "nothing says where the reply ends").help(help));
            }
            Reads::Nothing
        }
    }
}

fn framing(reader: &mut Reader<'_>, step: Kind) -> Option<Framing> {
    let value = reader.get("framing")?;
    let help = r#"accepted: {"delimiter": "\n"}, {"length_prefix": 4}, {"fixed": 16}"#;
    let Value::Object(object) = value else {
        reader.fault(Fault::new("/framing", format!("expected an object, found {}", kind(value))).help(help));
        return None;
    };
    if step == Kind::Udp {
        let fault = Fault::new("/framing", "a datagram is a frame of its own");
        reader.fault(fault.help("leave `framing` out, or use `\"protocol\": \"tcp\"`"));
        return None;
    }
    let mut inner = Reader::new(object);
    let framing = read_framing(&mut inner, object, help);
    match inner.finish(framing) {
        Ok(framing) => framing,
        Err(faults) => {
            for fault in faults {
                reader.fault(Fault { pointer: format!("/framing{}", fault.pointer), ..fault });
            }
            None
        }
    }
}

fn read_framing(reader: &mut Reader<'_>, object: &Map<String, Value>, help: &str) -> Option<Framing> {
    let accepted: &[&str] = if object.contains_key("length_prefix") {
        &["length_prefix", "order", "includes_header"]
    } else if object.contains_key("fixed") {
        &["fixed"]
    } else {
        &["delimiter"]
    };
    for key in object.keys().filter(|key| !accepted.contains(&key.as_str())) {
        let fault = Fault::new(format!("/{}", crate::protocol::reader::escape(key)), format!("unexpected `{key}`"));
        reader.fault(fault.help(help));
    }
    match accepted[0] {
        "length_prefix" => {
            let size = reader.whole("length_prefix", 1, 8).filter(|size| {
                let is_power = size.is_power_of_two();
                if !is_power {
                    reader.fault(Fault::new("/length_prefix", format!("expected 1, 2, 4 or 8 bytes, found {size}")));
                }
                is_power
            });
            let is_little = reader.choice("order", &["big", "little"]) == Some("little");
            let includes_header = reader.flag("includes_header").unwrap_or(false);
            Some(Framing::Length { size: size? as usize, is_little, includes_header })
        }
        "fixed" => Some(Framing::Fixed(reader.whole("fixed", 1, MAX_REPLY)?)),
        _ => match reader.text("delimiter").map(bytes_of) {
            Some(Ok(bytes)) if !bytes.is_empty() => Some(Framing::Delimiter(bytes.into())),
            Some(Ok(_)) => {
                reader.fault(Fault::new("/delimiter", "an empty delimiter"));
                None
            }
            Some(Err(_)) => {
                reader.fault(Fault::new("/delimiter", "`hex:` takes pairs of hexadecimal digits"));
                None
            }
            None => {
                if !object.contains_key("delimiter") {
                    reader.fault(Fault::new("", "no framing in it").help(help));
                }
                None
            }
        },
    }
}
