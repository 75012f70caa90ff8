//! Who may ask at all, decided from a request's head before anything else looks at it.
//!
//! With a token set, whoever does not show it learns nothing but that. Without one the port is open to
//! whoever reaches it, but not to web pages: names that are resolved to this machine by somebody else's
//! DNS (rebinding), and requests of pages of other sites, are refused.

use super::problem::{Code, Problem};
use super::session::Sessions;
use crate::remote::{Access, Level};
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::net::{IpAddr, Ipv6Addr};

/// Where everybody may look: probes have no token.
pub(super) const OPEN: [&str; 2] = ["/healthz", "/readyz"];
/// Where a token is shown to get a cookie.
pub(super) const LOGIN: &str = "/login";
/// Where that cookie is given back.
pub(super) const LOGOUT: &str = "/logout";
/// The cookie.
pub(super) const COOKIE_NAME: &str = "ld_session";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is asked of callers.
pub(super) struct Guard {
    access: Access,
    /// Names by which this server may be addressed, beside addresses and `localhost`.
    names: Vec<String>,
    pub sessions: Sessions,
}

impl Guard {
    pub(super) fn new(access: Access, names: Vec<String>) -> Self {
        Self { access, names, sessions: Sessions::default() }
    }

    /// Whether a token is asked for.
    pub(super) fn asks_for_token(&self) -> bool {
        self.access.token.is_some()
    }

    /// Whether a request may go on.
    pub(super) fn admit(&self, head: &Parts) -> Result<(), Problem> {
        let path = head.uri.path();
        let looks = matches!(head.method, Method::GET | Method::HEAD);
        if looks && OPEN.contains(&path) {
            return Ok(());
        }
        let posts_to = |page: &str| head.method == Method::POST && path == page;
        if !self.asks_for_token() {
            self.own_host(&head.headers)?;
            return if looks { Ok(()) } else { same_site(&head.headers, false) };
        }
        if posts_to(LOGIN) {
            return same_site(&head.headers, false);
        }
        let (level, by_cookie) = self.level(&head.headers).ok_or_else(refusal)?;
        if by_cookie && !looks {
            same_site(&head.headers, true)?;
        }
        if level == Level::Viewer && !looks && !posts_to(LOGOUT) {
            return Err(Problem::new(Code::ViewersMayOnlyLook, "the viewer's token is good for GET alone"));
        }
        Ok(())
    }

    /// What whoever shows this token may do; `None`: no more than anybody.
    pub(super) fn level_of(&self, token: &[u8]) -> Option<Level> {
        Some(self.access.level(Some(token))).filter(|level| *level > Level::Nobody)
    }

    /// What the sender may do, and whether only a cookie says so.
    fn level(&self, headers: &HeaderMap) -> Option<(Level, bool)> {
        if headers.contains_key(AUTHORIZATION) {
            return Some((self.level_of(bearer(headers)?)?, false));
        }
        let session = cookie(headers)?;
        Some((self.sessions.level(session)?, true))
    }

    /// Refuses names that are not this server's.
    fn own_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut given = headers.get_all(HOST).iter();
        // browsers always send one
        let Some(host) = given.next() else { return Ok(()) };
        let name = host.to_str().ok().map(name_of);
        let own = |name: &str| {
            is_address(name)
                || name.eq_ignore_ascii_case("localhost")
                || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
        };
        if given.next().is_none() && name.is_some_and(own) {
            return Ok(());
        }
        let detail = "without a token only requests to an address, to localhost or to the bound name are answered";
        Err(Problem::new(Code::OtherHost, detail).help("ask by address, or set a token (LD_TOKEN)"))
    }
}

/// What everybody without the token is told, whatever they ask for.
pub(super) fn refusal() -> Problem {
    let problem =
        Problem::new(Code::TokenNeeded, "send `Authorization: Bearer TOKEN`, or the cookie that POST /login gives");
    problem.header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"loaddensity\""))
}

/// Refuses requests of pages of other sites. With a cookie, which browsers add by themselves, the request
/// must even say that it comes from our own.
fn same_site(headers: &HeaderMap, must_say: bool) -> Result<(), Problem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = headers.get(ORIGIN).map(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.zip(host).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
    });
    let fetch = headers.get(SEC_FETCH_SITE).map(|site| {
        let site = site.as_bytes();
        // `none`: a person did it, by an address bar or a bookmark; no page can
        site == b"same-origin" || (site == b"none" && !must_say)
    });
    let told = [origin, fetch];
    if told.contains(&Some(false)) {
        return Err(Problem::new(Code::CrossSite, "pages of other sites may not send requests"));
    }
    if must_say && !told.contains(&Some(true)) {
        let problem =
            Problem::new(Code::CrossSite, "a request with the cookie must say by `Origin` that our page sent it");
        return Err(problem.help("send `Authorization: Bearer TOKEN` if you are no browser"));
    }
    Ok(())
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let value = all.next().filter(|_| all.next().is_none())?.as_bytes();
    let (scheme, token) = value.split_at_checked(6)?;
    let rest = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer") && token.first() == Some(&b' ') && !rest.is_empty()).then_some(rest)
}

/// The value of our cookie.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut ours = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    ours.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

/// The name in `name:port`, `[address]:port`.
fn name_of(host: &str) -> &str {
    let end = match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    };
    end.trim_end_matches('.')
}

fn is_address(name: &str) -> bool {
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<IpAddr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use ld_shared::handshake::Token;

    fn guard(tokens: bool) -> Guard {
        let token = |text: &str| if tokens { Token::new(text) } else { None };
        Guard::new(Access { token: token("all"), viewer: token("look") }, vec!["master.example".into()])
    }

    /// The refusal of a request: `METHOD PATH`, then `header: value` lines; `None`: it goes on.
    fn refused(guard: &Guard, text: &str) -> Option<Code> {
        let mut lines = text.split('|');
        let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        guard.admit(&head).err().map(|problem| problem.code())
    }

    #[test]
    fn with_a_token_nobody_else_is_told_anything() {
        let guard = guard(true);
        let needed = Some(Code::TokenNeeded);
        for request in [
            "GET /|host: evil.example",
            "GET /nowhere",
            "OPTIONS /",
            "HEAD /api/v1/runs",
            "POST /api/v1/runs",
            "POST /healthz",
            "GET /login",
            "GET /api/v1/runs|authorization: Bearer al",
            "GET /api/v1/runs|authorization: Bearer allx",
            "GET /api/v1/runs|authorization: Basic all",
            "GET /api/v1/runs|authorization: Bearerall",
            "GET /api/v1/runs|authorization: Bearer all|authorization: Bearer all",
            "GET /api/v1/runs|cookie: ld_session=all",
        ] {
            assert_eq!(refused(&guard, request), needed, "{request}");
        }
        for request in [
            "GET /healthz",
            "HEAD /readyz|host: evil.example",
            "POST /login",
            "GET /x|authorization: Bearer all",
            "DELETE /x|authorization: bearer  all",
            "POST /x|authorization: Bearer all|origin: http://elsewhere",
            "GET /x|authorization: Bearer look",
            "HEAD /x|authorization: Bearer look",
        ] {
            assert_eq!(refused(&guard, request), None, "{request}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
            let request = format!("{method} /api/v1/runs|authorization: Bearer look");
            assert_eq!(refused(&guard, &request), Some(Code::ViewersMayOnlyLook), "{request}");
        }
    }

    #[test]
    fn a_cookie_counts_only_from_our_own_page() {
        let guard = guard(true);
        let session = guard.sessions.open(Level::Full);
        let cookie = format!("cookie: a=b; {COOKIE_NAME}={session}");
        let refusal = |request: &str| refused(&guard, &request.replace("COOKIE", &cookie));
        assert_eq!(refusal("GET /x|COOKIE"), None);
        assert_eq!(refusal("POST /x|COOKIE|host: h:1|origin: http://h:1"), None);
        assert_eq!(refusal("POST /x|COOKIE|host: h|sec-fetch-site: same-origin"), None);
        for request in [
            "POST /x|COOKIE",
            "POST /x|COOKIE|host: h:1|origin: http://h:2",
            "POST /x|COOKIE|host: h|origin: null",
            "POST /x|COOKIE|host: h|origin: http://h|sec-fetch-site: cross-site",
            "POST /x|COOKIE|host: h|sec-fetch-site: same-site",
            "POST /x|COOKIE|host: h|sec-fetch-site: none",
        ] {
            assert_eq!(refusal(request), Some(Code::CrossSite), "{request}");
        }
        guard.sessions.close(&session);
        assert_eq!(refusal("GET /x|COOKIE"), Some(Code::TokenNeeded));
    }

    #[test]
    fn without_a_token_pages_of_others_get_nothing() {
        let guard = guard(false);
        for host in
            ["127.0.0.1:8089", "localhost:8089", "[::1]:8089", "10.0.0.7", "LOCALHOST", "master.example:80", "::1"]
        {
            assert_eq!(refused(&guard, &format!("GET /x|host: {host}")), None, "{host}");
        }
        for host in ["evil.example:8089", "127.0.0.1.evil.example", "localhost.evil.example", "[evil]:1", "", "a:b:c"] {
            assert_eq!(refused(&guard, &format!("GET /x|host: {host}")), Some(Code::OtherHost), "{host}");
        }
        assert_eq!(refused(&guard, "GET /x|host: localhost|host: evil"), Some(Code::OtherHost));
        assert_eq!(refused(&guard, "GET /healthz|host: master"), None);
        assert_eq!(refused(&guard, "POST /x|host: 127.0.0.1:1"), None);
        assert_eq!(refused(&guard, "POST /x|host: 127.0.0.1:1|origin: http://127.0.0.1:1"), None);
        assert_eq!(refused(&guard, "POST /x|host: 127.0.0.1:1|origin: http://evil.example"), Some(Code::CrossSite));
        assert_eq!(refused(&guard, "POST /x|host: 127.0.0.1:1|sec-fetch-site: cross-site"), Some(Code::CrossSite));
    }
}
