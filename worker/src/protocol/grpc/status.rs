//! Statuses of calls: their names, and what else than a status says how a call ended.

use ld_shared::sample::{Failure, FailureKind};
use std::borrow::Cow;

pub(super) const OK: u16 = 0;
pub(super) const UNKNOWN: u16 = 2;
pub(super) const DEADLINE_EXCEEDED: u16 = 4;
pub(super) const RESOURCE_EXHAUSTED: u16 = 8;
pub(super) const UNIMPLEMENTED: u16 = 12;
pub(super) const INTERNAL: u16 = 13;
pub(super) const UNAVAILABLE: u16 = 14;

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Most characters of a status's message that a reason shows.
const SHOWN: usize = 100;

/// A call that got no status of the server's, or one that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What the record shows as its status.
    pub(super) status: u16,
    pub(super) failure: Failure,
    /// The server has certainly not looked at the call: it may be sent again.
    pub(super) is_unseen: bool,
}

impl Trouble {
    pub(super) fn new(status: u16, kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { status, failure: Failure::new(kind, reason.into()), is_unseen: false }
    }

    /// The answer breaks the protocol.
    pub(super) fn protocol(reason: impl Into<String>) -> Self {
        Self::new(INTERNAL, FailureKind::Protocol, reason)
    }

    /// The connection cannot be had or is gone.
    pub(super) fn transport(failure: Failure) -> Self {
        Self { status: UNAVAILABLE, failure, is_unseen: false }
    }

    /// The call took too long.
    pub(super) fn deadline() -> Self {
        Self::new(DEADLINE_EXCEEDED, FailureKind::Timeout, NAMES[usize::from(DEADLINE_EXCEEDED)])
    }

    /// An HTTP answer that is no gRPC. Source: gRPC's "HTTP to gRPC Status Code Mapping".
    pub(super) fn http(status: u16) -> Self {
        let mapped = match status {
            400 => INTERNAL,
            401 => 16,
            403 => 7,
            404 => UNIMPLEMENTED,
            429 | 502 | 503 | 504 => UNAVAILABLE,
            _ => UNKNOWN,
        };
        Self::new(mapped, FailureKind::Status, format!("{}: HTTP {status}", name(mapped)))
    }

    /// An error of the HTTP/2 connection or of the call's stream; `broken`: why the connection under
    /// it broke. Source of the statuses: gRPC over HTTP/2, "HTTP2 Transport Mapping, Errors".
    pub(super) fn http2(error: &h2::Error, broken: Option<Failure>) -> Self {
        if error.is_io() {
            let closed = || Failure::new(FailureKind::Closed, "connection closed");
            return Self::transport(broken.unwrap_or_else(closed));
        }
        let Some(reason) = error.reason() else { return Self::protocol("HTTP/2: the call could not be sent") };
        if !error.is_remote() {
            return Self::protocol(format!("HTTP/2: the peer breaks the protocol ({reason:?})"));
        }
        if error.is_go_away() {
            let reason = format!("connection closed by the peer (GOAWAY {reason:?})");
            return Self::new(UNAVAILABLE, FailureKind::Closed, reason);
        }
        let status = match reason {
            h2::Reason::REFUSED_STREAM => UNAVAILABLE,
            h2::Reason::CANCEL => 1,
            h2::Reason::ENHANCE_YOUR_CALM => RESOURCE_EXHAUSTED,
            h2::Reason::INADEQUATE_SECURITY => 7,
            _ => INTERNAL,
        };
        let is_unseen = reason == h2::Reason::REFUSED_STREAM;
        let trouble = Self::new(status, FailureKind::Closed, format!("stream reset by the peer ({reason:?})"));
        Self { is_unseen, ..trouble }
    }
}

/// A status as texts name it.
pub(super) fn name(status: u16) -> Cow<'static, str> {
    match NAMES.get(usize::from(status)) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("status {status}")),
    }
}

/// The status and message that a server gave, as a failure; `None`: all went well.
pub(super) fn refusal(status: u16, message: &str) -> Option<Failure> {
    let kind = match status {
        OK => return None,
        DEADLINE_EXCEEDED => FailureKind::Timeout,
        _ => FailureKind::Status,
    };
    let name = name(status);
    let first = message.lines().next().unwrap_or("").trim();
    // what libraries say of their own accord says no more than the name
    if first.is_empty() || first.eq_ignore_ascii_case(&name.replace('_', " ")) {
        return Some(Failure::new(kind, name.into_owned()));
    }
    let cut = first.char_indices().nth(SHOWN).and_then(|(end, _)| first.get(..end));
    let reason = match cut {
        Some(cut) => format!("{name}: {cut}…"),
        None => format!("{name}: {first}"),
    };
    Some(Failure::new(kind, reason))
}

/// The message of a `grpc-message` header: percent-encoded UTF-8; what is neither stays readable.
pub(super) fn message(header: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(header.len());
    let mut rest = header;
    while let Some((first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, hex(0), hex(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A deadline as the header `grpc-timeout` has it: at most eight digits and a unit.
pub(super) fn timeout(seconds: f64) -> String {
    const MOST: f64 = 99_999_999.0;
    for (per_second, unit) in [(1e6, 'u'), (1e3, 'm'), (1.0, 'S')] {
        let amount = (seconds * per_second).ceil();
        if amount <= MOST {
            return format!("{amount:.0}{unit}");
        }
    }
    format!("{MOST:.0}H")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_decoded_and_cut() {
        assert_eq!(message(b"a%20b%C3%A9%zz%2"), "a b\u{e9}%zz%2");
        assert_eq!(message(b"%ff"), "\u{fffd}");
        let shown = |status, text: &str| refusal(status, text).map(|failure| failure.reason.to_string());
        assert_eq!(shown(0, "well"), None);
        assert_eq!(shown(3, "boom\nsecond line").as_deref(), Some("INVALID_ARGUMENT: boom"));
        assert_eq!(shown(4, "Deadline Exceeded").as_deref(), Some("DEADLINE_EXCEEDED"));
        assert_eq!(shown(99, "").as_deref(), Some("status 99"));
        assert_eq!(shown(5, &"\u{e9}".repeat(200)).unwrap().chars().count(), "NOT_FOUND: …".chars().count() + SHOWN);
    }

    #[test]
    fn deadlines_fit_eight_digits() {
        for (seconds, header) in [
            (0.2, "200000u"),
            (5.0, "5000000u"),
            (100.0, "100000m"),
            (99.9999, "99999900u"),
            (200_000.0, "200000S"),
            (1e-9, "1u"),
            (1e12, "99999999H"),
        ] {
            assert_eq!(timeout(seconds), header);
        }
    }
}
