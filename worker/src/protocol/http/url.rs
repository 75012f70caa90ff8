//! URLs as HTTP/1.1 needs them: origin, target, and how one leads to another.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// An absolute `http` or `https` URL without its fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) is_https: bool,
    /// Lower case, IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `user:password`, percent-decoded.
    pub(crate) credentials: Option<Vec<u8>>,
    /// Path and query, percent-encoded; begins with `/`.
    pub(crate) target: String,
}

impl Url {
    /// Parses an absolute URL. The error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_matches(' ');
        let Some((scheme, rest)) = split_scheme(text) else {
            return Err("not an absolute URL; expected http:// or https://".to_owned());
        };
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return Err(format!("unsupported scheme `{scheme}`; expected http or https"));
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (Some(percent_decode(credentials)), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or("an IPv6 address without its closing bracket")?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| "a malformed IPv6 address")?;
                (host, port.strip_prefix(':').unwrap_or(port))
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        if host.is_empty() {
            return Err("no host".to_owned());
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)) {
            return Err(
                "a host with characters that names cannot have; an international name is written xn--…".to_owned()
            );
        }
        let port = match port {
            "" if is_https => 443,
            "" => 80,
            digits => digits.parse().ok().filter(|port| *port > 0).ok_or("a port that is not between 1 and 65535")?,
        };
        let mut encoded = Vec::with_capacity(target.len() + 1);
        if !target.starts_with('/') {
            encoded.push(b'/');
        }
        if !push_target(target.as_bytes(), &mut encoded) {
            return Err("a line break".to_owned());
        }
        let target = String::from_utf8(encoded).expect("percent-encoding leaves ASCII");
        Ok(Self { is_https, host: host.to_ascii_lowercase(), port, credentials, target })
    }

    /// The URL that `location` of an answer to this one means (RFC 3986, 5.2).
    pub(crate) fn resolve(&self, location: &str) -> Result<Self, String> {
        if split_scheme(location).is_some() {
            return Self::parse(location);
        }
        let scheme = if self.is_https { "https" } else { "http" };
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}"));
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let joined = if location.starts_with('/') {
            without_dots(location)
        } else if location.starts_with('?') || location.is_empty() || location.starts_with('#') {
            format!("{path}{location}")
        } else {
            let folder = path.rfind('/').map_or("/", |at| path.get(..=at).unwrap_or("/"));
            without_dots(&format!("{folder}{location}"))
        };
        let mut next = Self::parse(&format!("{scheme}://{}{joined}", self.host_header()))?;
        next.credentials.clone_from(&self.credentials);
        Ok(next)
    }

    /// Value of the `Host` header: the port only where it is not the scheme's.
    pub(crate) fn host_header(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_https, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Value of the `Authorization` header that the URL's own user and password make.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.credentials.as_deref().map(basic)
    }

    /// The URL without its user and password.
    #[cfg(test)]
    pub(crate) fn shown(&self) -> String {
        format!("{}://{}{}", if self.is_https { "https" } else { "http" }, self.host_header(), self.target)
    }
}

/// `Basic …` of `user:password`.
pub(crate) fn basic(credentials: &[u8]) -> String {
    // A user without password still needs its colon.
    let colon: &[u8] = if credentials.contains(&b':') { b"" } else { b":" };
    format!("Basic {}", BASE64_STANDARD.encode([credentials, colon].concat()))
}

/// A URL of a task, joined to the test's host if it is relative.
pub(crate) fn join(host: Option<&str>, url: &str) -> Option<String> {
    if split_scheme(url).is_some() {
        return Some(url.to_owned());
    }
    let host = host?.trim_end_matches('/');
    let scheme = if split_scheme(host).is_some() || host.starts_with("${") { "" } else { "http://" };
    let slash = if url.starts_with('/') { "" } else { "/" };
    Some(format!("{scheme}{host}{slash}{url}"))
}

/// Scheme and what follows `://`, if there is a scheme.
pub(crate) fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    is_scheme.then_some((scheme, rest))
}

/// Appends a path and query, percent-encoding what a request line cannot hold and dropping the
/// fragment. `false` if there is a line break in it.
pub(crate) fn push_target(text: &[u8], out: &mut Vec<u8>) -> bool {
    for (at, byte) in text.iter().enumerate() {
        let is_plain = match byte {
            b'#' => return true,
            b'\r' | b'\n' => return false,
            b'%' => matches!(text.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()),
            b => b.is_ascii_alphanumeric() || b"-._~!$&'()*+,/:;=?@[]".contains(b),
        };
        if is_plain {
            out.push(*byte);
        } else {
            push_escaped(*byte, out);
        }
    }
    true
}

/// Appends text as a value of a form or query: space is `+`.
pub(crate) fn push_form(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b' ' => out.push(b'+'),
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => out.push(b),
            b => push_escaped(b, out),
        }
    }
}

fn push_escaped(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// RFC 3986, 5.2.4, for a path that may carry a query.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find(['?', '#']).unwrap_or(target.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split('/').skip(1) {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let slash = if ends_in_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{slash}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("https://u%40:p@Example.com:8443/a b/ü?q=1 2#frag").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.is_https), ("example.com", 8443, true));
        assert_eq!(url.target, "/a%20b/%C3%BC?q=1%202");
        assert_eq!(url.credentials.as_deref(), Some(&b"u@:p"[..]));
        assert_eq!(url.shown(), "https://example.com:8443/a%20b/%C3%BC?q=1%202");
        let v6 = Url::parse("http://[::1]:81?x").unwrap();
        assert_eq!((v6.host.as_str(), v6.target.as_str(), v6.host_header().as_str()), ("::1", "/?x", "[::1]:81"));
        for bad in ["", "/x", "ftp://h/", "http://", "http://h:0/", "http://h:99999/", "http://[::1/", "http://a b/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let base = Url::parse("http://h:81/a/b/c?x=1").unwrap();
        for (location, expected) in [
            ("https://o/z", "https://o/z"),
            ("//o/z", "http://o/z"),
            ("/z?y#f", "http://h:81/z?y"),
            ("d", "http://h:81/a/b/d"),
            ("../d/./e", "http://h:81/a/d/e"),
            ("..", "http://h:81/a/"),
            ("../../../..", "http://h:81/"),
            ("?y", "http://h:81/a/b/c?y"),
            ("", "http://h:81/a/b/c"),
        ] {
            assert_eq!(base.resolve(location).unwrap().shown(), expected, "{location}");
        }
    }

    #[test]
    fn relative_urls_are_joined_to_the_host() {
        for (host, url, joined) in [
            (Some("http://h/api/"), "/x", Some("http://h/api/x")),
            (Some("h:80"), "x", Some("http://h:80/x")),
            (Some("h"), "https://o/", Some("https://o/")),
            (None, "/x", None),
        ] {
            assert_eq!(join(host, url).as_deref(), joined);
        }
    }
}
