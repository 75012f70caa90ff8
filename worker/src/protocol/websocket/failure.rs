//! What went wrong on a WebSocket, as a failure.

use crate::dial;
use ld_shared::sample::{Failure, FailureKind};
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Most characters of a peer's close reason that are shown.
const SHOWN: usize = 60;

/// An error of an open socket or of its handshake.
pub(super) fn of(error: &Error) -> Failure {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => closed("connection closed"),
        Error::Io(error) => dial::of_io(error, FailureKind::Closed),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            closed("connection closed without a close frame")
        }
        Error::Protocol(ProtocolError::HandshakeIncomplete) => closed("connection closed in the handshake"),
        Error::Protocol(
            ProtocolError::UnknownControlFrameType(_)
            | ProtocolError::UnknownDataFrameType(_)
            | ProtocolError::InvalidOpcode(_),
        ) => broken("unknown frame type"),
        Error::Protocol(error) => broken(&lower(&error.to_string())),
        Error::Capacity(_) => broken("message too large"),
        Error::Utf8(_) => broken("text that is not UTF-8"),
        Error::Http(answer) => {
            let status = answer.status().as_u16();
            Failure::new(FailureKind::Status, format!("handshake refused: HTTP {status}"))
        }
        Error::HttpFormat(_) | Error::Url(_) => Failure::new(FailureKind::Request, "the handshake cannot be written"),
        Error::WriteBufferFull(_) => closed("the peer does not read"),
        Error::Tls(_) => Failure::new(FailureKind::Tls, "tls: handshake failed"),
        Error::AttackAttempt => broken("an attack was suspected in the handshake"),
    }
}

/// A close frame of the peer.
pub(super) fn close(frame: Option<&CloseFrame>) -> Failure {
    let Some(frame) = frame else { return closed("closed by peer") };
    let reason = match frame.reason.char_indices().nth(SHOWN) {
        None => frame.reason.to_string(),
        Some((end, _)) => format!("{}…", frame.reason.get(..end).unwrap_or_default()),
    };
    let code = u16::from(frame.code);
    if reason.is_empty() {
        closed(&format!("closed by peer: {code}"))
    } else {
        closed(&format!("closed by peer: {code} ({reason})"))
    }
}

fn closed(reason: &str) -> Failure {
    Failure::new(FailureKind::Closed, reason)
}

fn broken(reason: &str) -> Failure {
    Failure::new(FailureKind::Protocol, format!("websocket: {reason}"))
}

fn lower(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
