//! A request in the terms of HTTP/2 and HTTP/3, from its bytes in those of HTTP/1.1.

use super::origin::Origin;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use ld_shared::sample::{Failure, FailureKind};

/// A request that can be sent again and again.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) head: Request<()>,
    pub(super) body: Bytes,
}

/// Fields that say something of a connection: HTTP/2 and HTTP/3 have none of them.
const OF_CONNECTIONS: [&str; 7] =
    ["connection", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

impl Message {
    /// From the bytes that HTTP/1.1 would send to `origin`.
    pub(super) fn of(bytes: &[u8], origin: &Origin) -> Result<Self, Failure> {
        let (head, body) = split(bytes);
        let mut lines = head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut first = lines.next().unwrap_or_default().split(|b| *b == b' ');
        let method = first.next().and_then(|method| Method::from_bytes(method).ok()).ok_or_else(|| unfit("method"))?;
        let target = first.next().and_then(|target| PathAndQuery::try_from(target).ok()).ok_or_else(|| unfit("URL"))?;
        let mut authority = origin.host_header.as_bytes();
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let colon = line.iter().position(|b| *b == b':').ok_or_else(|| unfit("header"))?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let name = HeaderName::from_bytes(name).map_err(|_| unfit("header"))?;
            if name == http::header::HOST {
                authority = value;
            }
            if !OF_CONNECTIONS.contains(&name.as_str()) {
                headers.append(name, HeaderValue::from_bytes(value).map_err(|_| unfit("header"))?);
            }
        }
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(if origin.is_https { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(Authority::try_from(authority).map_err(|_| unfit("host"))?);
        uri.path_and_query = Some(target);
        let mut head = Request::new(());
        *head.method_mut() = method;
        *head.uri_mut() = Uri::from_parts(uri).map_err(|_| unfit("URL"))?;
        *head.version_mut() = Version::HTTP_2;
        *head.headers_mut() = headers;
        Ok(Self { head, body: Bytes::copy_from_slice(body) })
    }
}

fn unfit(what: &str) -> Failure {
    Failure::new(FailureKind::Request, format!("a {what} that HTTP/2 and HTTP/3 cannot send"))
}

/// Head without its empty line, and body.
fn split(request: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memmem::find(request, b"\r\n\r\n") {
        Some(at) => (&request[..at], &request[at + 4..]),
        None => (request, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin::Origins;
    use super::super::url::Url;
    use super::*;

    fn message(bytes: &str) -> Result<Message, String> {
        let origin = Origins::default().get(&Url::parse("https://h:81/").unwrap(), true);
        Message::of(bytes.as_bytes(), &origin).map_err(|failure| failure.reason.to_string())
    }

    #[test]
    fn requests_are_translated() {
        let post = "POST /a?b=c HTTP/1.1\r\nHost: h:81\r\nX-Y: z\r\nConnection: close\r\nCookie: a=b\r\nContent-Length: 4\r\n\r\n\r\n\r\n";
        let message = message(post).unwrap();
        assert_eq!(message.head.uri(), "https://h:81/a?b=c");
        assert_eq!(message.head.method(), "POST");
        let names: Vec<&str> = message.head.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-y", "cookie", "content-length"]);
        assert_eq!(message.body, "\r\n\r\n");
    }

    #[test]
    fn own_hosts_and_what_cannot_be_sent() {
        let own = message("GET / HTTP/1.1\r\nhost: other\r\n\r\n").unwrap();
        assert_eq!(own.head.uri(), "https://other/");
        let bad = message("GET / HTTP/1.1\r\nHost: a b\r\n\r\n").unwrap_err();
        assert_eq!(bad, "a host that HTTP/2 and HTTP/3 cannot send");
    }
}
