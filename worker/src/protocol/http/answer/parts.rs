//! An answer that comes in parts, already told apart: those of HTTP/2 and HTTP/3.

use super::{Answer, MAX_HEADERS, malformed, text};
use crate::protocol::http::decode::Coding;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, LOCATION, SET_COOKIE};
use ld_shared::sample::Failure;

impl Answer {
    /// Takes the head. Returns the length that its body must have, if that is known.
    pub(in super::super) fn take_head(&mut self, status: u16, headers: &HeaderMap) -> Result<Option<u64>, Failure> {
        if headers.len() > MAX_HEADERS {
            return Err(malformed("more than 1024 header lines"));
        }
        self.status = status;
        if status / 100 == 3 {
            self.location = headers.get(LOCATION).map(|value| text(value.as_bytes()).into());
        }
        self.cookies.extend(headers.get_all(SET_COOKIE).iter().map(|value| Box::from(text(value.as_bytes()))));
        if self.wanted() > 0
            && let Some(coding) = headers.get(CONTENT_ENCODING)
        {
            self.coding = Coding::of(coding.as_bytes());
        }
        if self.want.headers {
            for (name, value) in headers {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    self.headers.extend_from_slice(part);
                }
            }
        }
        if self.is_head || matches!(status, 204 | 304) {
            return Ok(None);
        }
        let mut length = None;
        for value in headers.get_all(CONTENT_LENGTH) {
            let value = value.to_str().ok().filter(|value| value.bytes().all(|b| b.is_ascii_digit()));
            let Some(value) = value.and_then(|value| value.parse().ok()) else {
                return Err(malformed("malformed Content-Length"));
            };
            if length.replace(value).is_some() {
                return Err(malformed("more than one Content-Length"));
            }
        }
        Ok(length)
    }

    /// Takes a part of the body.
    pub(in super::super) fn take_data(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.keep(data)
    }

    /// The peer says that the body is complete; `length` is what the head said of it.
    pub(in super::super) fn take_end(&self, length: Option<u64>) -> Result<(), Failure> {
        match length {
            Some(length) if length != self.body_bytes => Err(malformed("the body is not as long as Content-Length")),
            _ => Ok(()),
        }
    }
}
