//! Targets that are no URLs: `host:port`, `[::1]:port`, `scheme://host:port`.

use crate::dial::Host;

/// Where to connect, as a task or a test's `host` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The scheme asks for TLS.
    pub(crate) is_tls: bool,
}

/// A scheme that a target may begin with.
pub(crate) struct Scheme {
    /// `mqtts`, without `://`.
    pub(crate) name: &'static str,
    pub(crate) is_tls: bool,
    pub(crate) port: u16,
}

impl Target {
    /// Parses a target. Without a scheme it is read as the first of `schemes`. What follows the port
    /// (a path, say) is passed over: the test's `host` may be a URL.
    ///
    /// The error says what is wrong, a fragment without final dot.
    pub(crate) fn parse(text: &str, schemes: &[Scheme]) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = match text.split_once("://") {
            None => (&schemes[0], text),
            Some((name, rest)) => {
                let known = schemes.iter().find(|scheme| scheme.name.eq_ignore_ascii_case(name));
                let names = || schemes.iter().map(|scheme| scheme.name).collect::<Vec<_>>().join(", ");
                (known.ok_or_else(|| format!("unsupported scheme `{name}`; expected one of {}", names()))?, rest)
            }
        };
        let place = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or("an IPv6 address without its closing bracket")?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| "a malformed IPv6 address")?;
                (host, port.strip_prefix(':').unwrap_or(port))
            }
            // more than one colon and no bracket: an IPv6 address without a port
            None if place.parse::<std::net::Ipv6Addr>().is_ok() => (place, ""),
            None => place.split_once(':').unwrap_or((place, "")),
        };
        if host.is_empty() {
            return Err("no host; expected host:port".to_owned());
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:%".contains(&b)) {
            return Err(format!("`{host}` is no host name; expected host:port"));
        }
        let port = match port {
            "" if scheme.port == 0 => return Err("no port; expected host:port".to_owned()),
            "" => scheme.port,
            digits => digits.parse().ok().filter(|port| *port > 0).ok_or("a port that is not between 1 and 65535")?,
        };
        Ok(Self { host: Host::new(&host.to_ascii_lowercase()), port, is_tls: scheme.is_tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [Scheme; 2] =
        [Scheme { name: "mqtt", is_tls: false, port: 1883 }, Scheme { name: "mqtts", is_tls: true, port: 8883 }];

    #[test]
    fn targets_have_a_host_a_port_and_perhaps_a_scheme() {
        let target = |host: &str, port, is_tls| Ok(Target { host: Host::new(host), port, is_tls });
        for (text, wanted) in [
            ("broker", target("broker", 1883, false)),
            ("Broker:99", target("broker", 99, false)),
            ("mqtts://b/x", target("b", 8883, true)),
            ("[::1]:7", target("::1", 7, false)),
            ("::1", target("::1", 1883, false)),
            ("mqtt://u:p@b:5/", target("b", 5, false)),
        ] {
            assert_eq!(Target::parse(text, &SCHEMES), wanted, "{text}");
        }
        for text in ["", ":80", "http://x", "b:0", "b:70000", "b:x", "[::1", "a b:1"] {
            assert!(Target::parse(text, &SCHEMES).is_err(), "{text}");
        }
    }
}
