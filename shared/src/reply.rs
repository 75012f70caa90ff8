//! An answer in no protocol's terms: what checks, extractors and records look at.

use crate::sample::Failure;

/// An answer. Parts that nobody wants stay empty and cost nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its status, 0 if there was no answer, `None` where the protocol has none.
    pub status: Option<u16>,
    /// Headers, metadata or properties.
    pub headers: Headers,
    /// The decoded body, cut to what was wanted.
    pub body: Vec<u8>,
    /// Length that records show: of the whole decoded body, bytes, or what the protocol counts.
    pub body_bytes: u64,
    /// What the protocol itself makes of it, if that is a failure (a gRPC status that is not OK, a
    /// reason code): it fails with this unless a `status_code` assertion accepts its status.
    pub refusal: Option<Failure>,
}

/// Header lines as they came: `Name: value`, each ended by `\r\n` or `\n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    lines: Vec<u8>,
}

impl Headers {
    /// From raw lines.
    pub fn from_lines(lines: Vec<u8>) -> Self {
        Self { lines }
    }

    /// Adds a line.
    pub fn push(&mut self, name: &str, value: &str) {
        self.lines.extend_from_slice(name.as_bytes());
        self.lines.extend_from_slice(b": ");
        self.lines.extend_from_slice(value.as_bytes());
        self.lines.extend_from_slice(b"\r\n");
    }

    /// Names and values in order; bytes that are no UTF-8 are read as Latin-1, as HTTP has it.
    pub fn iter(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.lines().map(|(name, value)| (text(name), text(value)))
    }

    /// Value of the first header of that name, any case.
    pub fn get(&self, name: &str) -> Option<String> {
        self.lines().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| text(v))
    }

    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        self.lines.split(|b| *b == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = line.iter().position(|b| *b == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|b| char::from(*b)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case() {
        let mut headers = Headers::from_lines(b"X-Id:  7 \r\nLatin: \xe9\n".to_vec());
        headers.push("Set-Cookie", "a=b");
        assert_eq!(headers.get("x-id").as_deref(), Some("7"));
        assert_eq!(headers.get("LATIN").as_deref(), Some("é"));
        assert_eq!(headers.get("set-cookie").as_deref(), Some("a=b"));
        assert_eq!(headers.get("nope"), None);
    }
}
