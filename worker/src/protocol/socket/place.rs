//! Where a step connects to, and over what.

use crate::dial::Host;
use crate::protocol::target::{Scheme, Target};
use std::fmt;
use std::rc::Rc;

/// Longest path of a Unix socket: what the kernel's address has room for, without its final zero.
const MAX_PATH: usize = 107;

/// What a step speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Tls,
    Unix,
}

/// Words of `protocol`.
pub(super) const KINDS: [(&str, Kind); 4] =
    [("tcp", Kind::Tcp), ("udp", Kind::Udp), ("tls", Kind::Tls), ("unix", Kind::Unix)];

impl Kind {
    /// The word that documents use.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tls => "tls",
            Self::Unix => "unix",
        }
    }

    /// As records show it.
    pub(super) fn request_type(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Tls => "TLS",
            Self::Unix => "UNIX",
        }
    }

    /// What a target says by itself: `udp://…`, `unix:…`.
    pub(super) fn of_target(target: &str) -> Option<Self> {
        let (scheme, rest) = target.trim().split_once(':')?;
        let (_, kind) = KINDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(scheme))?;
        (*kind == Self::Unix || rest.starts_with("//")).then_some(*kind)
    }
}

/// Where a step connects to. Equal ones may share a kept connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: Host, port: u16 },
    Udp { host: Host, port: u16 },
    Tls { host: Host, port: u16, verify: bool },
    Unix(Rc<str>),
}

impl Place {
    /// Parses a target. The error says what is wrong, a fragment without final dot.
    pub(super) fn parse(kind: Kind, target: &str, verify: bool) -> Result<Self, String> {
        const fn scheme(name: &'static str, is_tls: bool) -> Scheme {
            Scheme { name, is_tls, port: 0 }
        }
        const TCP: [Scheme; 2] = [scheme("tcp", false), scheme("tls", true)];
        const TLS: [Scheme; 2] = [scheme("tls", true), scheme("tcp", true)];
        const UDP: [Scheme; 1] = [scheme("udp", false)];
        let target = target.trim();
        let schemes: &[Scheme] = match kind {
            Kind::Unix => return unix(target),
            _ if Kind::of_target(target) == Some(Kind::Unix) => {
                return Err(format!("`{}` does not go to a Unix socket", kind.key()));
            }
            Kind::Tcp => &TCP,
            Kind::Tls => &TLS,
            Kind::Udp => &UDP,
        };
        let Target { host, port, is_tls } = Target::parse(target, schemes)?;
        Ok(match kind {
            Kind::Udp => Self::Udp { host, port },
            _ if is_tls => Self::Tls { host, port, verify },
            _ => Self::Tcp { host, port },
        })
    }
}

fn unix(target: &str) -> Result<Place, String> {
    let path = if Kind::of_target(target) == Some(Kind::Unix) {
        let (_, path) = target.split_once(':').unwrap_or(("", target));
        path.strip_prefix("//").unwrap_or(path)
    } else {
        target
    };
    if !path.starts_with('/') {
        return Err("no path; expected unix:/path".to_owned());
    }
    if path.len() > MAX_PATH || path.contains('\0') {
        return Err(format!("a path of a Unix socket has at most {MAX_PATH} bytes"));
    }
    Ok(Place::Unix(path.into()))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Udp { host, port } => ("udp", host, port),
            Self::Tls { host, port, .. } => ("tls", host, port),
            Self::Unix(path) => return write!(f, "unix:{path}"),
        };
        match host {
            Host::Name(name) => write!(f, "{scheme}://{name}:{port}"),
            Host::Address(address) if address.is_ipv6() => write!(f, "{scheme}://[{address}]:{port}"),
            Host::Address(address) => write!(f, "{scheme}://{address}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        for (kind, target, shown) in [
            (Kind::Tcp, "127.0.0.1:9000", Ok("tcp://127.0.0.1:9000")),
            (Kind::Tcp, "[::1]:1", Ok("tcp://[::1]:1")),
            (Kind::Tcp, "tls://h:1", Ok("tls://h:1")),
            (Kind::Tls, "h:1", Ok("tls://h:1")),
            (Kind::Tls, "tcp://h:1", Ok("tls://h:1")),
            (Kind::Udp, "udp://h:1", Ok("udp://h:1")),
            (Kind::Unix, "unix:/run/a b", Ok("unix:/run/a b")),
            (Kind::Unix, "unix:///run/a", Ok("unix:/run/a")),
            (Kind::Unix, "/run/a", Ok("unix:/run/a")),
            (Kind::Udp, "tcp://h:1", Err("unsupported scheme `tcp`; expected one of udp")),
            (Kind::Tcp, "unix:/a", Err("`tcp` does not go to a Unix socket")),
            (Kind::Tcp, "h", Err("no port; expected host:port")),
            (Kind::Unix, "unix:a", Err("no path; expected unix:/path")),
        ] {
            let seen = Place::parse(kind, target, true).map(|place| place.to_string());
            assert_eq!(seen, shown.map(str::to_owned).map_err(str::to_owned), "{target}");
        }
        assert_eq!(Kind::of_target("tcp:1"), None);
        assert_eq!(Kind::of_target("TLS://h:1"), Some(Kind::Tls));
    }
}
