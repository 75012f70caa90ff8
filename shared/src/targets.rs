//! Which targets may be dialled: rules of whoever owns a worker, and of a test.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::str::FromStr;

/// Rules of one author. A target is allowed if any of them matches; an empty list allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetList(pub Vec<TargetRule>);

impl TargetList {
    /// Whether one may connect to `address`, which `host` (a name as written, or the address itself)
    /// resolved to, at `port`.
    pub fn allows(&self, host: &str, address: IpAddr, port: u16) -> bool {
        self.0.iter().any(|rule| rule.matches(host, address, port))
    }
}

/// A rule: `HOST`, `HOST:PORT`, a pattern of names with `*`, an address, or a network `10.0.0.0/8`.
///
/// A name's rule matches what is asked for by that name, whatever its addresses; an address or a
/// network matches what is really dialled, whatever its name. A rule with a port matches only it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRule {
    host: Pattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// Lower case; `*` stands for any characters.
    Name(String),
    Network(IpAddr, u8),
}

impl TargetRule {
    fn matches(&self, host: &str, address: IpAddr, port: u16) -> bool {
        if self.port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        match &self.host {
            Pattern::Name(pattern) => {
                let host = host.to_ascii_lowercase();
                glob(pattern.as_bytes(), host.strip_suffix('.').unwrap_or(&host).as_bytes())
            }
            Pattern::Network(network, bits) => contains(*network, *bits, address.to_canonical()),
        }
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => glob(rest, text) || text.split_first().is_some_and(|(_, text)| glob(pattern, text)),
        (Some((wanted, pattern)), Some((seen, text))) => wanted == seen && glob(pattern, text),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let of = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
        IpAddr::V6(v6) => (v6.to_bits(), false),
    };
    let ((network, is_v4), (address, also)) = (of(network), of(address));
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    is_v4 == also && network & mask == address & mask
}

impl FromStr for TargetRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "expected HOST, HOST:PORT, a pattern like *.example.com, an address or a network like 10.0.0.0/8".to_owned()
        };
        let text = text.trim();
        if let Some((network, bits)) = text.split_once('/') {
            let network: IpAddr = network.parse().map_err(|_| wrong())?;
            let most = if network.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
            return Ok(Self { host: Pattern::Network(network, bits), port: None });
        }
        let whole = |address: IpAddr| {
            let address = address.to_canonical();
            Pattern::Network(address, if address.is_ipv4() { 32 } else { 128 })
        };
        // an IPv6 address has colons of its own
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: whole(address), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self { host: whole(address), port });
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_name) {
            return Err(wrong());
        }
        // it would match names that begin so, whatever their address
        if host.contains('*') && host != "*" && !host.contains(|c: char| c.is_ascii_alphabetic()) {
            return Err(format!("`{host}` is a pattern of names: addresses are given as a network, like 10.0.0.0/24"));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        Ok(Self { host: Pattern::Name(name.to_ascii_lowercase()), port })
    }
}

impl Display for TargetRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Pattern::Name(name), None) => f.write_str(name),
            (Pattern::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Pattern::Network(address, _), Some(port)) => write!(f, "{}", std::net::SocketAddr::new(*address, port)),
            (Pattern::Network(network, bits), None) => write!(f, "{network}/{bits}"),
        }
    }
}

impl Serialize for TargetRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TargetRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_what_they_say() {
        let cases = [
            ("example.com", "EXAMPLE.com", "1.2.3.4", 80, true),
            ("example.com", "example.com.", "1.2.3.4", 80, true),
            ("example.com", "www.example.com", "1.2.3.4", 80, false),
            ("example.com:443", "example.com", "1.2.3.4", 80, false),
            ("*.example.com", "a.b.example.com", "1.2.3.4", 80, true),
            ("*.example.com", "example.com", "1.2.3.4", 80, false),
            ("*.example.com", "evil.com", "1.2.3.4", 80, false),
            ("api-*.test:80", "api-7.test", "1.2.3.4", 80, true),
            ("*", "anything", "1.2.3.4", 1, true),
            ("10.0.0.0/8", "some.name", "10.200.0.1", 80, true),
            ("10.0.0.0/8", "some.name", "11.0.0.1", 80, false),
            // what it is called does not make it that address
            ("10.0.0.0/8", "10.0.0.1", "127.0.0.1", 80, false),
            ("0.0.0.0/0", "x", "9.9.9.9", 80, true),
            ("0.0.0.0/0", "x", "::1", 80, false),
            ("127.0.0.1:8080", "127.0.0.1", "127.0.0.1", 8080, true),
            ("127.0.0.1", "localhost", "::ffff:127.0.0.1", 80, true),
            ("::1", "localhost", "::1", 80, true),
            ("[::1]:80", "localhost", "::1", 81, false),
            ("fd00::/8", "x", "fd12::1", 80, true),
        ];
        for (rule, host, address, port, expected) in cases {
            let list = TargetList(vec![rule.parse().unwrap()]);
            assert_eq!(list.allows(host, address.parse().unwrap(), port), expected, "{rule}: {host} {address}:{port}");
            let again: TargetList = serde_json::from_str(&serde_json::to_string(&list).unwrap()).unwrap();
            assert_eq!(again, list, "{rule}");
        }
        assert!(!TargetList::default().allows("x", "1.2.3.4".parse().unwrap(), 80), "an empty list allows nothing");
        for bad in
            ["", "a b", "host:99999", "10.0.0.0/33", "10.0/8", "http://x/", "::1/200", ":80", "10.0.0.*", "10.*:80"]
        {
            assert!(bad.parse::<TargetRule>().is_err(), "{bad}");
        }
    }
}
