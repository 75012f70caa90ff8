//! What one request was, and how it ended.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Which part of the run a sample belongs to: that of its intended instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Counts in totals and thresholds.
    Main,
    /// Measured apart.
    Warmup,
    /// `on_start`, `on_stop`, `setup`, `teardown`: measured apart.
    Hooks,
    /// No requests at all but what arrives by itself: pushed messages, messages of streams, events,
    /// deliveries. Each is a sample of its own that counts in no total of requests.
    Messages,
}

impl Phase {
    /// All phases, in the order of their indices.
    pub const ALL: [Self; Self::COUNT] = [Self::Main, Self::Warmup, Self::Hooks, Self::Messages];
    /// How many there are.
    pub const COUNT: usize = 4;
    /// Fewest phases that a peer must know: messages came later.
    pub const LEAST: usize = 3;

    /// Index into arrays that hold one entry a phase.
    pub fn index(self) -> usize {
        match self {
            Self::Main => 0,
            Self::Warmup => 1,
            Self::Hooks => 2,
            Self::Messages => 3,
        }
    }

    /// Whether its samples are the load: requests of iterations.
    pub fn is_load(self) -> bool {
        matches!(self, Self::Main | Self::Warmup)
    }
}

/// Why a request failed: the class by which failures can be grouped over protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The name did not resolve.
    Dns,
    /// The connection was refused or the target unreachable.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The peer closed or reset the connection.
    Closed,
    /// No answer within the time-out.
    Timeout,
    /// The answer breaks the protocol.
    Protocol,
    /// The answer's status says failure.
    Status,
    /// An assertion did not hold.
    Assertion,
    /// The request could not be rendered or a rule of the test forbids it.
    Request,
}

impl FailureKind {
    /// Key of results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Status => "status",
            Self::Assertion => "assertion",
            Self::Request => "request",
        }
    }
}

/// A failed request: its class and the short, groupable text that reports show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// The class.
    pub kind: FailureKind,
    /// Normalised so that reasons stay few: no ports of our own, no addresses, no counters.
    pub reason: Arc<str>,
}

impl Failure {
    /// A failure of class `kind`.
    pub fn new(kind: FailureKind, reason: impl Into<Arc<str>>) -> Self {
        let reason = reason.into();
        let reason = if reason.len() > MAX_TEXT { cut(&reason).into() } else { reason };
        Self { kind, reason }
    }
}

/// At most [`MAX_TEXT`] bytes of a name or a reason.
pub fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(MAX_TEXT - '…'.len_utf8());
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// What all samples of a series have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeriesKey {
    /// The name under which statistics are kept.
    pub name: Arc<str>,
    /// `GET`, `WS`, `GRPC`, …
    pub request_type: Arc<str>,
    /// The scenario.
    pub scenario: Arc<str>,
}

/// Names beyond the limit are counted under this one.
pub const OTHER: &str = "(other)";
/// Most names a cluster keeps apart.
pub const MAX_NAMES: usize = 1_000;
/// Most failure reasons a name keeps apart.
pub const MAX_REASONS: usize = 200;
/// Most bytes of a name or a reason. A target may answer with megabytes, and documents may make a name of them.
pub const MAX_TEXT: usize = 2_048;

/// Parts of an exchange that are timed apart, in the order of their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimingPart {
    /// Resolving the name (new connections only).
    Dns,
    /// Connecting (new connections only).
    Connect,
    /// The TLS handshake (new connections only).
    Tls,
    /// Writing the request.
    Send,
    /// From the request's last byte written to the answer's first byte read.
    FirstByte,
    /// From the first byte to the last.
    Receive,
}

impl TimingPart {
    /// All parts, in the order of their indices.
    pub const ALL: [Self; 6] = [Self::Dns, Self::Connect, Self::Tls, Self::Send, Self::FirstByte, Self::Receive];

    /// Index into arrays that hold one entry a part.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Key of results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Send => "send",
            Self::FirstByte => "first_byte",
            Self::Receive => "receive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_a_character_ends() {
        let long = "é".repeat(MAX_TEXT);
        let Failure { reason, .. } = Failure::new(FailureKind::Assertion, long.as_str());
        assert!(reason.len() <= MAX_TEXT && reason.len() > MAX_TEXT - 4 && reason.ends_with("é…"));
        assert_eq!(cut(&reason), &*reason);
    }
}
