//! Packets of MQTT 3.1.1 and 5, as far as a client needs them: one thin layer over both.
//!
//! The codec is that of `rumqttc`. Acknowledgements are read here: their reason codes stay numbers,
//! so that one that we do not know is still told.

use bytes::{Buf as _, Bytes, BytesMut};
use ld_shared::sample::{Failure, FailureKind};
use rumqttc::mqttbytes::{self, v4};
use rumqttc::v5::mqttbytes::{self as bytes5, v5};

/// Largest packet that is read, bytes.
pub(super) const MAX_PACKET: usize = 16 * 1024 * 1024;
/// Longest text that a packet can hold, bytes.
pub(super) const MAX_TEXT: usize = u16::MAX as usize;

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V5,
}

/// What a broker sends.
#[derive(Debug)]
pub(super) enum Incoming {
    ConnAck(Accepted),
    Publish(Publish),
    Ack(Ack),
    PingResp,
    Disconnect { code: u8 },
}

/// The broker's answer to CONNECT.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted {
    pub(super) code: u8,
    pub(super) session_present: bool,
    /// The broker's own keep-alive, seconds, which takes the place of ours.
    pub(super) keepalive: Option<u16>,
    pub(super) client_id: Option<String>,
}

/// A message, in either direction.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) id: u16,
    pub(super) properties: Option<Box<v5::PublishProperties>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) kind: AckKind,
    pub(super) id: u16,
    pub(super) code: u8,
}

/// Packet types that carry a packet id and a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckKind {
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    SubAck = 9,
    UnsubAck = 11,
}

/// Where a packet ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) header: usize,
    pub(super) length: usize,
}

pub(super) fn malformed() -> Failure {
    Failure::new(FailureKind::Protocol, "malformed mqtt packet")
}

/// The frame at the start of `bytes`; `None`: more bytes are needed to tell.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<Frame>, Failure> {
    if bytes.first().is_some_and(|first| !is_possible(*first)) {
        return Err(malformed());
    }
    let Some((remaining, size)) = bytes.get(1..).map_or(Ok(None), varint)? else { return Ok(None) };
    if remaining > MAX_PACKET {
        return Err(Failure::new(FailureKind::Protocol, "mqtt packet too large"));
    }
    Ok(Some(Frame { header: 1 + size, length: 1 + size + remaining }))
}

/// Whether a broker may send a packet that begins with this byte: garbage is known at once by it.
fn is_possible(first: u8) -> bool {
    match first >> 4 {
        3 => true,
        6 => first & 0xf == 2,
        2 | 4 | 5 | 7 | 9 | 11 | 13 | 14 => first.trailing_zeros() >= 4,
        _ => false,
    }
}

/// A variable byte integer and its size; `None`: it goes on.
fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, Failure> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(malformed()) }
}

/// Reads one whole packet.
pub(super) fn decode(version: Version, packet: &[u8], frame: Frame) -> Result<Incoming, Failure> {
    let body = &packet[frame.header..];
    let ack = |kind| Ok(Incoming::Ack(acknowledgement(version, kind, body)?));
    match packet[0] >> 4 {
        2 => connected(version, body),
        3 => publish(version, packet, frame),
        4 => ack(AckKind::PubAck),
        5 => ack(AckKind::PubRec),
        6 => ack(AckKind::PubRel),
        7 => ack(AckKind::PubComp),
        9 => ack(AckKind::SubAck),
        11 => ack(AckKind::UnsubAck),
        13 if body.is_empty() => Ok(Incoming::PingResp),
        14 if version == Version::V5 => Ok(Incoming::Disconnect { code: body.first().copied().unwrap_or(0) }),
        _ => Err(malformed()),
    }
}

fn connected(version: Version, body: &[u8]) -> Result<Incoming, Failure> {
    let [flags, code, rest @ ..] = body else { return Err(malformed()) };
    let mut accepted = Accepted { code: *code, session_present: flags & 1 == 1, ..Accepted::default() };
    if version == Version::V5 && !rest.is_empty() {
        let mut rest = Bytes::copy_from_slice(rest);
        let properties = v5::ConnAckProperties::read(&mut rest).map_err(|_| malformed())?;
        if let Some(properties) = properties {
            accepted.keepalive = properties.server_keep_alive;
            accepted.client_id = properties.assigned_client_identifier;
        }
    }
    Ok(Incoming::ConnAck(accepted))
}

fn acknowledgement(version: Version, kind: AckKind, body: &[u8]) -> Result<Ack, Failure> {
    let [high, low, rest @ ..] = body else { return Err(malformed()) };
    let id = u16::from_be_bytes([*high, *low]);
    if id == 0 {
        return Err(malformed());
    }
    let code = match kind {
        AckKind::SubAck | AckKind::UnsubAck => {
            let mut codes = rest;
            if version == Version::V5 {
                let (length, size) = varint(rest)?.ok_or_else(malformed)?;
                codes = rest.get(size + length..).ok_or_else(malformed)?;
            }
            match codes.iter().max() {
                Some(code) => *code,
                None if kind == AckKind::UnsubAck && version == Version::V4 => 0,
                None => return Err(malformed()),
            }
        }
        AckKind::PubAck | AckKind::PubRec | AckKind::PubRel | AckKind::PubComp => rest.first().copied().unwrap_or(0),
    };
    Ok(Ack { kind, id, code })
}

fn publish(version: Version, packet: &[u8], frame: Frame) -> Result<Incoming, Failure> {
    let bytes = Bytes::copy_from_slice(packet);
    let (first, size, remaining) = (packet[0], frame.header - 1, frame.length - frame.header);
    let publish = match version {
        Version::V4 => {
            let read = v4::Publish::read(mqttbytes::FixedHeader::new(first, size, remaining), bytes);
            let read = read.map_err(|_| malformed())?;
            let (topic, payload) = (read.topic, read.payload);
            Publish { topic, payload, qos: read.qos as u8, retain: read.retain, id: read.pkid, properties: None }
        }
        Version::V5 => {
            let read = v5::Publish::read(v5::FixedHeader::new(first, size, remaining), bytes);
            let read = read.map_err(|_| malformed())?;
            let topic = String::from_utf8(read.topic.into()).map_err(|_| malformed())?;
            let (payload, properties) = (read.payload, read.properties.map(Box::new));
            Publish { topic, payload, qos: read.qos as u8, retain: read.retain, id: read.pkid, properties }
        }
    };
    if publish.topic.is_empty() || publish.topic.contains(['#', '+', '\0']) {
        return Err(malformed());
    }
    Ok(Incoming::Publish(publish))
}

/// A connection as CONNECT asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) keepalive: u16,
    pub(super) clean_start: bool,
    pub(super) session_expiry: Option<u32>,
    pub(super) will: Option<Will>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

fn qos4(qos: u8) -> mqttbytes::QoS {
    match qos {
        0 => mqttbytes::QoS::AtMostOnce,
        1 => mqttbytes::QoS::AtLeastOnce,
        _ => mqttbytes::QoS::ExactlyOnce,
    }
}

fn qos5(qos: u8) -> bytes5::QoS {
    match qos {
        0 => bytes5::QoS::AtMostOnce,
        1 => bytes5::QoS::AtLeastOnce,
        _ => bytes5::QoS::ExactlyOnce,
    }
}

fn written<E>(result: Result<usize, E>) -> Result<(), Failure> {
    result.map(drop).map_err(|_| Failure::new(FailureKind::Request, "mqtt packet too large"))
}

/// CONNECT.
pub(super) fn connect(login: &Login, out: &mut BytesMut) -> Result<(), Failure> {
    let will = login.will.clone();
    let has_login = !login.username.is_empty() || !login.password.is_empty();
    let (username, password) = (login.username.clone(), login.password.clone());
    match login.version {
        Version::V4 => {
            let mut packet = v4::Connect::new(login.client_id.as_str());
            packet.keep_alive = login.keepalive;
            packet.clean_session = login.clean_start;
            packet.login = has_login.then_some(v4::Login { username, password });
            packet.last_will =
                will.map(|will| v4::LastWill::new(will.topic, will.payload, qos4(will.qos), will.retain));
            written(packet.write(out))
        }
        Version::V5 => {
            let mut properties = v5::ConnectProperties::new();
            properties.session_expiry_interval = login.session_expiry;
            let packet = v5::Connect {
                keep_alive: login.keepalive,
                client_id: login.client_id.clone(),
                clean_start: login.clean_start,
                properties: Some(properties),
            };
            let will = will.map(|will| v5::LastWill::new(will.topic, will.payload, qos5(will.qos), will.retain, None));
            written(packet.write(&will, &has_login.then_some(v5::Login { username, password }), out))
        }
    }
}

/// PUBLISH.
pub(super) fn send(version: Version, publish: Publish, out: &mut BytesMut) -> Result<(), Failure> {
    match version {
        Version::V4 => {
            let mut packet = v4::Publish::from_bytes(publish.topic, qos4(publish.qos), publish.payload);
            (packet.retain, packet.pkid) = (publish.retain, publish.id);
            written(packet.write(out))
        }
        Version::V5 => {
            let properties = publish.properties.map(|properties| *properties);
            let mut packet = v5::Publish { topic: publish.topic.into(), properties, ..v5::Publish::default() };
            (packet.qos, packet.payload) = (qos5(publish.qos), publish.payload);
            (packet.retain, packet.pkid) = (publish.retain, publish.id);
            written(packet.write(out))
        }
    }
}

/// SUBSCRIBE to one filter.
pub(super) fn subscribe(version: Version, filter: &str, qos: u8, id: u16, out: &mut BytesMut) -> Result<(), Failure> {
    match version {
        Version::V4 => {
            let mut packet = v4::Subscribe::new(filter, qos4(qos));
            packet.pkid = id;
            written(packet.write(out))
        }
        Version::V5 => {
            let mut packet = v5::Subscribe::new(v5::Filter::new(filter, qos5(qos)), None);
            packet.pkid = id;
            written(packet.write(out))
        }
    }
}

/// UNSUBSCRIBE from one filter.
pub(super) fn unsubscribe(version: Version, filter: &str, id: u16, out: &mut BytesMut) -> Result<(), Failure> {
    match version {
        Version::V4 => {
            let mut packet = v4::Unsubscribe::new(filter);
            packet.pkid = id;
            written(packet.write(out))
        }
        Version::V5 => {
            let mut packet = v5::Unsubscribe::new(filter, None);
            packet.pkid = id;
            written(packet.write(out))
        }
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP that says success, the same in both versions.
pub(super) fn acknowledge(kind: AckKind, id: u16) -> [u8; 4] {
    // PUBREL alone has a reserved bit set (MQTT 3.1.1, 2.2.2)
    let flags = if kind == AckKind::PubRel { 2 } else { 0 };
    let [high, low] = id.to_be_bytes();
    [(kind as u8) << 4 | flags, 2, high, low]
}

pub(super) const PING: [u8; 2] = [0xc0, 0];
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// The name of a reason that says failure; `None`: it says none.
pub(super) fn refusal(version: Version, code: u8, is_connect: bool) -> Option<Failure> {
    let name = match (version, code) {
        (_, 0) => return None,
        (Version::V4, code) if is_connect => match code {
            1 => "unacceptable protocol version",
            2 => "client identifier rejected",
            3 => "server unavailable",
            4 => "bad user name or password",
            5 => "not authorized",
            _ => "unknown return code",
        },
        (_, 1..=0x7f) => return None,
        (Version::V4, _) => "subscription refused",
        (Version::V5, code) => reason(code),
    };
    Some(Failure::new(FailureKind::Status, format!("{name} (0x{code:02x})")))
}

/// Name of a reason code (MQTT 5, 2.4).
pub(super) fn reason(code: u8) -> &'static str {
    match code {
        0x00 => "normal disconnection",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "unsupported protocol version",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8a => "banned",
        0x8b => "server shutting down",
        0x8c => "bad authentication method",
        0x8d => "keep alive timeout",
        0x8e => "session taken over",
        0x8f => "topic filter invalid",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x92 => "packet identifier not found",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "payload format invalid",
        0x9a => "retain not supported",
        0x9b => "qos not supported",
        0x9c => "use another server",
        0x9d => "server moved",
        0x9e => "shared subscriptions not supported",
        0x9f => "connection rate exceeded",
        0xa0 => "maximum connect time",
        0xa1 => "subscription identifiers not supported",
        0xa2 => "wildcard subscriptions not supported",
        _ => "unknown reason",
    }
}

/// Whether a topic falls under a filter (MQTT 3.1.1, 4.7).
pub(super) fn matches(topic: &str, filter: &str) -> bool {
    // a shared subscription receives what falls under the filter behind its group
    let filter = filter.strip_prefix("$share/").map_or(filter, |rest| rest.split_once('/').map_or(rest, |(_, f)| f));
    if topic.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let (mut levels, mut wanted) = (topic.split('/'), filter.split('/'));
    loop {
        match (levels.next(), wanted.next()) {
            (_, Some("#")) | (None, None) => return true,
            (Some(_), Some("+")) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}

/// What is wrong with the topic of a message, if anything.
pub(super) fn topic_fault(topic: &str) -> Option<&'static str> {
    match topic {
        "" => Some("no topic"),
        _ if topic.len() > MAX_TEXT => Some("a topic above 65535 bytes"),
        _ if topic.contains(['#', '+']) => Some("a wildcard in the topic of a message"),
        _ if topic.contains('\0') => Some("a zero character in a topic"),
        _ => None,
    }
}

/// What is wrong with a topic filter, if anything.
pub(super) fn filter_fault(filter: &str) -> Option<&'static str> {
    match filter {
        "" => Some("no topic"),
        _ if filter.len() > MAX_TEXT => Some("a topic above 65535 bytes"),
        _ if filter.contains('\0') => Some("a zero character in a topic"),
        _ if !mqttbytes::valid_filter(filter) => Some("misplaced wildcard in a topic filter"),
        _ => None,
    }
}

/// Skips what was read. `bytes` may be part of a larger buffer.
pub(super) fn without_stamp(mut payload: Bytes, length: usize) -> Bytes {
    payload.advance(length.min(payload.len()));
    payload
}
