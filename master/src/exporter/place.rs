//! Places that flags and arguments name.

use http::Uri;
use std::borrow::Cow;
use std::fmt::Write as _;

/// An absolute URL of one of these schemes.
///
/// # Errors
///
/// What is wrong with it, without what it holds of secrets.
pub fn url(text: &str, schemes: &[&str]) -> Result<Uri, String> {
    let accepted = || format!("a URL that begins with {} is accepted", schemes.join(":// or ") + "://");
    let uri: Uri = text.parse().map_err(|error| format!("no URL ({error}); {}", accepted()))?;
    let known = uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    // `h:x` is taken for a host whose port is not known
    let has_bad_port = uri.authority().is_some_and(|a| {
        a.port_u16().is_none()
            && a.as_str().rsplit_once(']').map_or_else(
                || a.as_str().rsplit('@').next().is_some_and(|host| host.contains(':')),
                |(_, port)| !port.is_empty(),
            )
    });
    if !known || has_bad_port || uri.host().is_none_or(str::is_empty) {
        return Err(accepted());
    }
    Ok(uri)
}

/// `HOST:PORT` of a URL, fit for looking it up.
pub fn host_and_port(uri: &Uri, default: u16) -> String {
    format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default))
}

/// `host:port` with an IPv6 address in brackets.
pub fn joined(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A value of a query, written so that it stays one.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
        out
    })
}

/// The inverse of [`encoded`].
pub fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = (*first == b'%').then(|| more.get(..2)).flatten();
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            bytes.push(byte);
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(text in ".{0,30}") {
            let written = encoded(&text);
            prop_assert_eq!(decoded(&written), text);
        }
    }

    #[test]
    fn urls() {
        assert_eq!(host_and_port(&url("udp://[::1]:9", &["udp"]).unwrap(), 1), "[::1]:9");
        assert_eq!(host_and_port(&url("udp://h", &["udp"]).unwrap(), 1), "h:1");
        for text in ["", "h:1", "/path", "ftp://h", "http://", "http://h:x", "http://h:99999", "udp://[::1]:y"] {
            assert!(url(text, &["http", "udp"]).is_err(), "{text}");
        }
        assert!(url("http://me:pass@h/x", &["http"]).is_ok());
        assert_eq!((joined("::1", 5), joined("h", 5)), ("[::1]:5".into(), "h:5".into()));
    }
}
