//! Errors of sockets and TLS as failures: short reasons without addresses, so that they group.

use ld_shared::sample::{Failure, FailureKind};
use rustix::io::Errno;
use std::io;

/// Why a connection could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct DialError {
    /// The class and the reason.
    pub failure: Failure,
    /// A limit of this machine, not the target, was the cause; no byte was sent.
    pub is_local: bool,
}

impl DialError {
    fn remote(kind: FailureKind, reason: &str) -> Self {
        Self { failure: Failure::new(kind, reason), is_local: false }
    }

    /// The name has no address.
    pub fn unresolved() -> Self {
        Self::remote(FailureKind::Dns, "name not resolved")
    }

    /// The address is not among the targets that may be dialled.
    pub fn forbidden() -> Self {
        Self::remote(FailureKind::Request, "target not allowed")
    }

    /// The handshake cannot even begin.
    pub fn tls(reason: &str) -> Self {
        Self::remote(FailureKind::Tls, reason)
    }

    /// `connect` failed.
    pub fn connect(error: &io::Error) -> Self {
        let local = Errno::from_io_error(error).and_then(|errno| match errno {
            Errno::MFILE | Errno::NFILE => Some("too many open files on this machine"),
            Errno::ADDRNOTAVAIL => Some("no free local port"),
            Errno::NOBUFS | Errno::NOMEM => Some("no buffer space on this machine"),
            _ => None,
        });
        match local {
            Some(reason) => Self { failure: Failure::new(FailureKind::Connect, reason), is_local: true },
            None => Self { failure: of_io(error, FailureKind::Connect), is_local: false },
        }
    }

    /// A socket of ours could not be bound: EADDRINUSE says that no local port is free.
    pub fn bind(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::AddrInUse {
            return Self { failure: Failure::new(FailureKind::Connect, "no free local port"), is_local: true };
        }
        Self::connect(error)
    }

    /// The handshake failed.
    pub fn handshake(error: &io::Error) -> Self {
        let failure = match error.kind() {
            io::ErrorKind::UnexpectedEof => Failure::new(FailureKind::Tls, "tls: connection closed in the handshake"),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Failure::new(FailureKind::Tls, "tls: connection reset in the handshake")
            }
            _ => of_io(error, FailureKind::Tls),
        };
        Self { failure, is_local: false }
    }
}

/// The peer speaks none of the protocols that were offered to it.
pub const NO_PROTOCOL: &str = "tls: refused by the peer (NoApplicationProtocol)";

/// An error of an open stream as a failure; `otherwise` is its class if the error has none of its own.
pub fn of_io(error: &io::Error, otherwise: FailureKind) -> Failure {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Failure::new(FailureKind::Tls, tls_reason(tls));
    }
    let (kind, reason) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (FailureKind::Connect, "connection refused"),
        io::ErrorKind::ConnectionReset => (FailureKind::Closed, "connection reset by peer"),
        io::ErrorKind::ConnectionAborted => (FailureKind::Closed, "connection aborted"),
        io::ErrorKind::BrokenPipe => (FailureKind::Closed, "connection closed while sending"),
        io::ErrorKind::UnexpectedEof => (FailureKind::Closed, "connection closed"),
        io::ErrorKind::HostUnreachable => (FailureKind::Connect, "host unreachable"),
        io::ErrorKind::NetworkUnreachable => (FailureKind::Connect, "network unreachable"),
        io::ErrorKind::TimedOut => (FailureKind::Timeout, "connection timed out"),
        // a Unix socket that is not there
        io::ErrorKind::NotFound => (FailureKind::Connect, "no socket at this path"),
        io::ErrorKind::PermissionDenied => (FailureKind::Connect, "connection forbidden by this machine"),
        // a Unix socket whose queue of connections is full
        io::ErrorKind::WouldBlock if otherwise == FailureKind::Connect => {
            (FailureKind::Connect, "the queue of connections is full")
        }
        kind => return Failure::new(otherwise, kind.to_string()),
    };
    Failure::new(kind, reason)
}

fn tls_reason(error: &rustls::Error) -> String {
    use rustls::{CertificateError as Bad, Error};
    match error {
        Error::InvalidCertificate(bad) => {
            let why = match bad {
                Bad::UnknownIssuer => "unknown issuer or self-signed",
                Bad::Expired | Bad::ExpiredContext { .. } => "expired",
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => "not valid yet",
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => "not for this host name",
                Bad::Revoked => "revoked",
                Bad::BadSignature => "bad signature",
                _ => "malformed or of the wrong kind",
            };
            format!("tls: certificate not trusted ({why})")
        }
        Error::AlertReceived(alert) => format!("tls: refused by the peer ({alert:?})"),
        Error::PeerIncompatible(_) => "tls: no protocol version or cipher in common".to_owned(),
        Error::InvalidMessage(_) => "tls: the peer does not speak TLS".to_owned(),
        _ => "tls: handshake failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_limits_are_told_from_the_targets_failures() {
        for (errno, is_local, reason) in [
            (Errno::MFILE, true, "too many open files on this machine"),
            (Errno::ADDRNOTAVAIL, true, "no free local port"),
            (Errno::NOBUFS, true, "no buffer space on this machine"),
            (Errno::CONNREFUSED, false, "connection refused"),
            (Errno::HOSTUNREACH, false, "host unreachable"),
            (Errno::TIMEDOUT, false, "connection timed out"),
        ] {
            let error = DialError::connect(&io::Error::from(errno));
            assert_eq!((error.is_local, &*error.failure.reason), (is_local, reason));
        }
    }
}
