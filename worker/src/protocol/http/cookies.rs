//! Cookies of one user (RFC 6265), without a list of public suffixes.

use super::url::Url;
use ld_shared::boot::clock;
use std::net::IpAddr;

/// Most cookies of one user; the oldest give way.
const MAX_COOKIES: usize = 300;
/// Longer ones are ignored, as browsers do.
const MAX_COOKIE: usize = 4_096;

/// A user's cookies.
#[derive(Debug, Default)]
pub(super) struct Jar {
    cookies: Vec<Cookie>,
}

#[derive(Debug)]
struct Cookie {
    name: Box<str>,
    value: Box<str>,
    domain: Box<str>,
    path: Box<str>,
    is_host_only: bool,
    is_secure: bool,
    /// Unix seconds.
    expires: Option<i64>,
}

impl Jar {
    /// Takes the value of a `Set-Cookie` header of an answer to `url`.
    pub(super) fn store(&mut self, header: &str, url: &Url) {
        self.store_at(header, url, clock::wall().timestamp());
    }

    fn store_at(&mut self, header: &str, url: &Url, now: i64) {
        let Some(cookie) = parse(header, url, now) else { return };
        let same = |old: &Cookie| old.name == cookie.name && old.domain == cookie.domain && old.path == cookie.path;
        let place = self.cookies.iter().position(same);
        let is_gone = cookie.expires.is_some_and(|at| at <= now);
        match place {
            Some(at) if is_gone => {
                self.cookies.remove(at);
            }
            Some(at) => self.cookies[at] = cookie,
            None if is_gone => {}
            None => {
                if self.cookies.len() >= MAX_COOKIES {
                    self.cookies.remove(0);
                }
                self.cookies.push(cookie);
            }
        }
    }

    /// Appends what a request to this place sends, as `a=b; c=d`, but for names in `except`.
    pub(super) fn push(
        &self,
        is_https: bool,
        host: &str,
        target: &str,
        except: &dyn Fn(&str) -> bool,
        out: &mut Vec<u8>,
    ) {
        let now =
            if self.cookies.iter().any(|cookie| cookie.expires.is_some()) { clock::wall().timestamp() } else { 0 };
        let path = target.split('?').next().unwrap_or("/");
        let mut sent: Vec<&Cookie> = self
            .cookies
            .iter()
            .filter(|c| (is_https || !c.is_secure) && c.expires.is_none_or(|at| at > now))
            .filter(|c| if c.is_host_only { *c.domain == *host } else { domain_matches(host, &c.domain) })
            .filter(|c| path_matches(path, &c.path) && !except(&c.name))
            .collect();
        // Longer paths first; the sort is stable, so older cookies come first among equals.
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        for cookie in sent {
            push_pair(&cookie.name, cookie.value.as_bytes(), out);
        }
    }
}

/// Appends a cookie to those that stand in `out` already.
pub(super) fn push_pair(name: &str, value: &[u8], out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.extend_from_slice(b"; ");
    }
    if !name.is_empty() {
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
    }
    out.extend_from_slice(value);
}

fn parse(header: &str, url: &Url, now: i64) -> Option<Cookie> {
    if header.len() > MAX_COOKIE || header.bytes().any(|b| b < b' ' && b != b'\t') {
        return None;
    }
    let mut parts = header.split(';');
    let (name, value) = parts.next()?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return None;
    }
    let mut cookie = Cookie {
        name: name.into(),
        value: value.into(),
        domain: url.host.as_str().into(),
        path: default_path(&url.target).into(),
        is_host_only: true,
        is_secure: false,
        expires: None,
    };
    let mut max_age = None;
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "secure" => cookie.is_secure = true,
            "path" if value.starts_with('/') => cookie.path = value.into(),
            "expires" => cookie.expires = date(value).or(cookie.expires),
            "max-age" => max_age = value.parse::<i64>().ok().or(max_age),
            "domain" => {
                let domain = value.trim_start_matches('.').to_ascii_lowercase();
                if domain.is_empty() {
                    continue;
                }
                // A bare suffix such as `com` would reach other people's hosts.
                if domain != url.host && (!domain.contains('.') || !domain_matches(&url.host, &domain)) {
                    return None;
                }
                cookie.is_host_only = false;
                cookie.domain = domain.into();
            }
            _ => {}
        }
    }
    if let Some(seconds) = max_age {
        cookie.expires = Some(now.saturating_add(seconds));
    }
    Some(cookie)
}

fn domain_matches(host: &str, domain: &str) -> bool {
    let is_below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    host == domain || (is_below && host.parse::<IpAddr>().is_err())
}

fn path_matches(path: &str, cookie: &str) -> bool {
    path.strip_prefix(cookie).is_some_and(|rest| rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'))
}

fn default_path(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or("/");
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => path.get(..at).unwrap_or("/"),
    }
}

/// Unix seconds of a cookie's date (RFC 6265, 5.1.1): day, month, year and time in any order.
fn date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    let is_delimiter = |c: char| !(c.is_ascii_alphanumeric() || c == ':');
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        let number = token.parse::<i64>().ok();
        if time.is_none() && token.contains(':') {
            let mut parts = token.split(':').map(|part| part.parse::<i64>().ok());
            let (h, m, s) = (parts.next()??, parts.next()??, parts.next()??);
            time = Some((h, m, s));
        } else if day.is_none() && number.is_some() && token.len() <= 2 {
            day = number;
        } else if month.is_none() && number.is_none() {
            let token = token.to_ascii_lowercase();
            month = MONTHS.iter().position(|name| token.starts_with(name)).and_then(|at| i64::try_from(at + 1).ok());
        } else if year.is_none() && number.is_some() && (token.len() == 2 || token.len() == 4) {
            year = number.map(|year| match year {
                70..=99 => year + 1900,
                0..=69 => year + 2000,
                year => year,
            });
        }
    }
    let ((h, m, s), day, month, year) = (time?, day?, month?, year?);
    let is_sane =
        (1..=31).contains(&day) && year >= 1601 && (0..24).contains(&h) && (0..60).contains(&m) && (0..60).contains(&s);
    is_sane.then(|| days(year, month, day) * 86_400 + h * 3_600 + m * 60 + s)
}

/// Days since 1970-01-01 (H. Hinnant, `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(jar: &Jar, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        let mut out = Vec::new();
        jar.push(url.is_https, &url.host, &url.target, &|_| false, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cookies_go_where_they_belong() {
        let url = Url::parse("http://www.example.com/shop/cart?x").unwrap();
        let mut jar = Jar::default();
        for header in [
            "a=1",
            "b=2; Path=/",
            "c=3; Domain=.Example.com; Path=/",
            "d=4; Secure; Path=/",
            "evil=1; Domain=other.com",
            "evil=2; Domain=com",
            "gone=1; Max-Age=0",
            "old=1; Expires=Wed, 09 Jun 2021 10:18:14 GMT",
            "late=1; Expires=Wed, 09 Jun 2099 10:18:14 GMT; Path=/x",
            "=nameless",
            "nothing",
        ] {
            jar.store(header, &url);
        }
        assert_eq!(sent(&jar, "http://www.example.com/shop/x"), "a=1; b=2; c=3");
        assert_eq!(sent(&jar, "https://www.example.com/shopping"), "b=2; c=3; d=4");
        assert_eq!(sent(&jar, "http://api.example.com/"), "c=3");
        assert_eq!(sent(&jar, "http://www.example.com/x"), "late=1; b=2; c=3");
        assert_eq!(sent(&jar, "http://badexample.com/"), "");
        jar.store("b=5; path=/", &url);
        jar.store("a=; Max-Age=-1", &url);
        assert_eq!(sent(&jar, "http://www.example.com/shop/"), "b=5; c=3");
    }

    #[test]
    fn dates() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 09-Jun-21 10:18:14 GMT", Some(1_623_233_894)),
            ("Sun Feb 29 23:59:59 2032", Some(1_961_711_999)),
            ("yesterday", None),
        ] {
            assert_eq!(date(text), seconds, "{text}");
        }
    }
}
