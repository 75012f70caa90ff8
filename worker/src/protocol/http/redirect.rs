//! What request follows a redirect.

use super::url::Url;

/// Most redirects of one request.
pub(super) const MAX_REDIRECTS: usize = 30;

/// Whether an answer of this status leads elsewhere.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// A request as it stands on the wire, and where it went.
pub(super) struct Sent<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) url: &'a Url,
}

/// The method after a redirect, as Python's requests and most browsers do.
pub(super) fn method(method: &str, status: u16) -> &str {
    match (status, method) {
        (302 | 303, "HEAD") => "HEAD",
        (302 | 303, _) | (301, "POST") => "GET",
        (_, method) => method,
    }
}

/// The request that follows `sent`: its headers are kept, but for those that belong to the place
/// (`Host`, cookies, and `Authorization` if the origin changes) and to a body that is not sent again.
/// `cookies` is the value of its `Cookie` header.
pub(super) fn next(sent: &Sent<'_>, status: u16, url: &Url, cookies: &[u8]) -> Vec<u8> {
    let (head, body) = split(sent.bytes);
    let mut lines = head.split_inclusive(|b| *b == b'\n');
    let first = lines.next().unwrap_or_default();
    let old = first.split(|b| *b == b' ').next().and_then(|m| std::str::from_utf8(m).ok()).unwrap_or("GET");
    let keeps_body = matches!(status, 307 | 308);
    let keeps_secrets = same_place(sent.url, url);
    let new = method(old, status);
    let mut out = format!("{new} {} HTTP/1.1\r\nHost: {}\r\n", url.target, url.host_header()).into_bytes();
    for line in lines {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let is_dropped = is("host")
            || is("cookie")
            || (is("authorization") && !keeps_secrets)
            || (!keeps_body && (is("content-length") || is("content-type")));
        if !is_dropped {
            out.extend_from_slice(line);
        }
    }
    if !cookies.is_empty() {
        out.extend_from_slice(b"Cookie: ");
        out.extend_from_slice(cookies);
        out.extend_from_slice(b"\r\n");
    }
    if keeps_body {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    } else {
        if !matches!(new, "GET" | "HEAD") {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Whether secrets for one URL may be sent to the other: same origin, or the same host gone from
/// plain HTTP to HTTPS on the usual ports.
pub(super) fn same_place(from: &Url, to: &Url) -> bool {
    let is_upgrade = (from.is_https, from.port, to.is_https, to.port) == (false, 80, true, 443);
    from.host == to.host && (is_upgrade || (from.is_https, from.port) == (to.is_https, to.port))
}

/// Head without its empty line, and body.
fn split(request: &[u8]) -> (&[u8], &[u8]) {
    match request.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(at) => (&request[..at + 2], &request[at + 4..]),
        None => (request, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &str = "POST /a HTTP/1.1\r\nHost: h\r\nA: b\r\nAuthorization: x\r\nCookie: c=d\r\nContent-Type: t\r\nContent-Length: 2\r\n\r\nhi";

    fn follow(status: u16, to: &str, cookies: &str) -> String {
        let url = Url::parse("http://h/a").unwrap();
        let sent = Sent { bytes: POST.as_bytes(), url: &url };
        String::from_utf8(next(&sent, status, &Url::parse(to).unwrap(), cookies.as_bytes())).unwrap()
    }

    #[test]
    fn requests_are_rewritten() {
        assert_eq!(
            follow(302, "http://h/b", "e=f"),
            "GET /b HTTP/1.1\r\nHost: h\r\nA: b\r\nAuthorization: x\r\nCookie: e=f\r\n\r\n"
        );
        assert_eq!(
            follow(307, "http://o:81/b", ""),
            "POST /b HTTP/1.1\r\nHost: o:81\r\nA: b\r\nContent-Type: t\r\nContent-Length: 2\r\n\r\nhi"
        );
        assert!(follow(301, "https://h/b", "").contains("Authorization"));
        assert!(!follow(301, "https://h:444/b", "").contains("Authorization"));
        assert_eq!(
            [method("PUT", 301), method("PUT", 302), method("HEAD", 303), method("DELETE", 308)],
            ["PUT", "GET", "HEAD", "DELETE"]
        );
    }
}
