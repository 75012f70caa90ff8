//! Errors of QUIC and HTTP/3 as failures: short reasons without addresses, so that they group.

use super::super::{closed, reset};
use crate::dial::DialError;
use crate::protocol::http::answer::malformed;
use h3::error::{ConnectionError, LocalError, StreamError};
use ld_shared::sample::{Failure, FailureKind};
use quinn::ConnectionError as Quic;

/// Codes of QUIC that carry an alert of TLS in their last byte.
const ALERTS: std::ops::Range<u64> = 0x100..0x200;
/// The alert of a peer that has no protocol in common with us.
const NO_PROTOCOL: u64 = 0x178;
/// The peer's QUIC takes no connection.
const REFUSED: u64 = 0x2;

pub(super) fn of_dial(failure: Failure) -> DialError {
    DialError { failure, is_local: false }
}

/// The handshake failed.
pub(super) fn of_handshake(error: &Quic) -> Failure {
    match error {
        Quic::TransportError(error) if ALERTS.contains(&error.code.into()) => {
            Failure::new(FailureKind::Tls, untrusted(&error.reason))
        }
        Quic::ConnectionClosed(close) => match close.error_code.into() {
            NO_PROTOCOL => Failure::new(FailureKind::Protocol, "the target does not speak HTTP/3"),
            REFUSED => Failure::new(FailureKind::Connect, "connection refused"),
            alert if ALERTS.contains(&alert) => {
                let alert = u8::try_from(alert - ALERTS.start).unwrap_or_default();
                let alert = rustls::AlertDescription::from(alert);
                Failure::new(FailureKind::Tls, format!("tls: refused by the peer ({alert:?})"))
            }
            _ => of_quic(error),
        },
        _ => of_quic(error),
    }
}

/// What the TLS library says of a certificate, in the words of other connections.
fn untrusted(reason: &str) -> String {
    let why = [
        ("UnknownIssuer", "unknown issuer or self-signed"),
        ("not valid for", "not for this host name"),
        ("NotValidForName", "not for this host name"),
        ("not valid yet", "not valid yet"),
        ("xpired", "expired"),
        ("Revoked", "revoked"),
        ("BadSignature", "bad signature"),
    ];
    if !reason.contains("certificate") {
        return "tls: handshake failed".to_owned();
    }
    let why =
        why.iter().find(|(text, _)| reason.contains(text)).map_or("malformed or of the wrong kind", |(_, why)| why);
    format!("tls: certificate not trusted ({why})")
}

/// The connection ended.
fn of_quic(error: &Quic) -> Failure {
    match error {
        Quic::VersionMismatch => Failure::new(FailureKind::Protocol, "no version of QUIC in common"),
        Quic::TransportError(error) => malformed(&format!("QUIC {:?}", error.code)),
        Quic::ConnectionClosed(close) => closed(format!("{:?}", close.error_code)),
        Quic::ApplicationClosed(close) => closed(h3::error::Code::from(close.error_code.into_inner())),
        Quic::Reset => Failure::new(FailureKind::Closed, "connection reset by peer"),
        Quic::TimedOut => Failure::new(FailureKind::Timeout, "connection timed out"),
        Quic::LocallyClosed => Failure::new(FailureKind::Closed, "connection closed"),
        Quic::CidsExhausted => Failure::new(FailureKind::Connect, "no more connections of this socket"),
    }
}

/// The connection ended, or HTTP/3 over it.
pub(super) fn of_connection(error: &ConnectionError, quic: &quinn::Connection) -> Failure {
    if let ConnectionError::Local { error: LocalError::Application { code, .. }, .. } = error {
        return malformed(&format!("HTTP/3 {code}"));
    }
    match quic.close_reason() {
        Some(why) => of_quic(&why),
        None if matches!(error, ConnectionError::Timeout { .. }) => of_quic(&Quic::TimedOut),
        None => of_quic(&Quic::LocallyClosed),
    }
}

/// A request's stream ended before its answer did.
pub(super) fn of_stream(error: &StreamError, quic: &quinn::Connection) -> Failure {
    match error {
        StreamError::StreamError { code, .. } => malformed(&format!("HTTP/3 {code}")),
        StreamError::RemoteTerminate { code, .. } => reset(code),
        StreamError::ConnectionError { 0: error, .. } => of_connection(error, quic),
        StreamError::HeaderTooBig { .. } => malformed("the head is longer than 256 KiB"),
        StreamError::RemoteClosing { .. } => closed("GOAWAY"),
        _ => match quic.close_reason() {
            Some(why) => of_quic(&why),
            None => malformed("HTTP/3 stream failed"),
        },
    }
}
