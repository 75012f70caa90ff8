//! Secrets: values that requests carry and that nothing else may show.
//!
//! Values travel beside the plan as a blob ([`SecretBlob`]), so that a stored plan holds none.
//! Whatever leaves a user but its requests goes through [`Secrets::mask`] first.

use crate::template::{Escape, escaped};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, Engine as _};
use memchr::memmem;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter};

/// What stands for a secret.
pub const MASK: &str = "***";
/// A text that was cut off in the midst of a secret: so much of its end gives it away.
const TELLING: usize = 3;

/// The secrets of a plan, as they travel.
#[derive(Clone, Serialize, Deserialize)]
pub struct SecretBlob {
    /// Random: the digest of the blob stands in the plan, and without it a short secret could be
    /// found by trying.
    pub salt: String,
    /// Values by name.
    pub values: BTreeMap<String, String>,
}

/// Secrets by name, and every form in which one may come back.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, String>,
    /// Longest first, so that no form hides a part of a longer one.
    forms: Vec<Vec<u8>>,
}

/// Names only.
impl Debug for Secrets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Debug for SecretBlob {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl From<BTreeMap<String, String>> for Secrets {
    fn from(values: BTreeMap<String, String>) -> Self {
        let forms: BTreeSet<Vec<u8>> = values.values().flat_map(|value| forms(value)).collect();
        let mut forms: Vec<Vec<u8>> = forms.into_iter().filter(|form| !form.is_empty()).collect();
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        Self { values, forms }
    }
}

impl Secrets {
    /// A secret's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether there are none: masking then costs nothing.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// `text` without any secret in it, whatever form it takes.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // forms are whole characters, so what is left is text; should it ever not be, it is shown as such
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The same of bytes.
    pub fn mask_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut masked = Cow::Borrowed(bytes);
        for form in &self.forms {
            let found: Vec<usize> = memmem::find_iter(&masked, form).collect();
            if found.is_empty() {
                continue;
            }
            let mut without = Vec::with_capacity(masked.len());
            let mut from = 0;
            for at in found {
                without.extend_from_slice(&masked[from..at]);
                without.extend_from_slice(MASK.as_bytes());
                from = at + form.len();
            }
            without.extend_from_slice(&masked[from..]);
            masked = Cow::Owned(without);
        }
        masked
    }

    /// Masks the beginning of a secret at the end of bytes that were cut off.
    pub fn mask_cut(&self, bytes: &mut Vec<u8>) {
        let longest = |form: &Vec<u8>| {
            let most = form.len().saturating_sub(1).min(bytes.len());
            (TELLING..=most).rev().find(|len| bytes.ends_with(&form[..*len]))
        };
        if let Some(len) = self.forms.iter().filter_map(longest).max() {
            bytes.truncate(bytes.len() - len);
            bytes.extend_from_slice(MASK.as_bytes());
        }
    }
}

/// A value as requests, answers and our own texts may write it.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let percent = |all: bool, upper: bool, space: &str| -> String {
        let encode = |byte: u8| match byte {
            b' ' if !space.is_empty() => space.to_owned(),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            // what URLs may hold as it is
            0x21..=0x7e if !all && !b"\"#%<>?[\\]^`{|}".contains(&byte) => char::from(byte).to_string(),
            _ if upper => format!("%{byte:02X}"),
            _ => format!("%{byte:02x}"),
        };
        value.bytes().map(encode).collect()
    };
    // other writers of JSON leave what is not ASCII as it is
    let utf8_json = serde_json::Value::from(value).to_string();
    let utf8_json = utf8_json.trim_start_matches('"').strip_suffix('"').unwrap_or_default();
    let quoted = value.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
    let html = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut texts = vec![
        value.to_owned(),
        escaped(value, Escape::Json),
        escaped(value, Escape::Json).replace('/', "\\/"),
        utf8_json.to_owned(),
        utf8_json.replace('/', "\\/"),
        quoted.replace('\'', "\\'"),
        quoted,
        html.replace('"', "&quot;").replace('\'', "&#39;"),
        html.replace('"', "&#34;").replace('\'', "&#39;"),
        html.replace('"', "&quot;").replace('\'', "&#x27;"),
        html,
    ];
    for upper in [true, false] {
        for all in [true, false] {
            texts.push(percent(all, upper, ""));
            texts.push(percent(all, upper, "+"));
        }
    }
    let mut forms: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    forms.extend(in_base64(value.as_bytes()));
    forms
}

/// What a value looks like in the base64 of a longer text (`user:password`), wherever it stands in
/// it: the characters that it alone decides.
fn in_base64(value: &[u8]) -> Vec<Vec<u8>> {
    // of shorter ones too little is left to be told from other text
    if value.len() < 4 {
        return Vec::new();
    }
    let at = |before: usize| {
        let text = [&[0; 2][..before], value].concat();
        let first = (before * 8).div_ceil(6);
        let last = text.len() * 8 / 6;
        [BASE64_STANDARD.encode(&text), BASE64_URL_SAFE.encode(&text)]
            .map(|encoded| encoded.into_bytes().get(first..last).unwrap_or_default().to_vec())
    };
    (0..3).flat_map(at).collect()
}

/// Whether the value of a header is a credential: never kept.
pub fn is_credential(header: &str) -> bool {
    ["authorization", "proxy-authorization", "cookie", "set-cookie"]
        .iter()
        .any(|name| header.eq_ignore_ascii_case(name))
}

/// `text` with the password of every URL in it masked: `http://user:***@host/`.
pub fn mask_passwords(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        masked.push_str(before);
        masked.push_str("://");
        let end = after.find(|c: char| matches!(c, '/' | '?' | '#' | '"') || c.is_whitespace()).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@').and_then(|(who, host)| Some((who.split_once(':')?.0, host))) {
            Some((user, host)) => {
                masked.push_str(user);
                masked.push(':');
                masked.push_str(MASK);
                masked.push('@');
                masked.push_str(host);
            }
            None => masked.push_str(authority),
        }
        rest = tail;
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secrets(values: &[&str]) -> Secrets {
        let named = values.iter().enumerate().map(|(i, value)| (format!("S{i}"), (*value).to_owned()));
        Secrets::from(named.collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn every_form_is_masked() {
        let secrets = secrets(&["pä ss\"/w&'d\n"]);
        for text in [
            "pä ss\"/w&'d\n",
            r#"pä ss\"/w&'d\n"#,
            r#"pä ss\"\/w&'d\n"#,
            r#"p\u00e4 ss\"/w&'d\n"#,
            r#"pä ss"/w&\'d\n"#,
            "p%C3%A4+ss%22%2Fw%26%27d%0A",
            "p%c3%a4%20ss%22%2fw%26%27d%0a",
            "p%C3%A4%20ss%22/w&'d%0A",
            "pä ss&quot;/w&amp;&#39;d\n",
        ] {
            assert_eq!(secrets.mask(&format!("a {text} b")), "a *** b", "{text}");
        }
        assert_eq!(secrets.mask("nothing"), "nothing");
        assert!(!format!("{secrets:?}").contains("ss"));
    }

    proptest! {
        #[test]
        fn basic_credentials_give_nothing_away(user in "[a-z]{0,7}", password in "[ -~]{6,20}", after in "[a-z]{0,4}") {
            let encoded = BASE64_STANDARD.encode(format!("{user}:{password}{after}"));
            let masked = secrets(&[&password]).mask(&encoded).into_owned();
            prop_assert!(masked.contains(MASK), "{} {}", encoded, masked);
            // what is left around it decodes to no more than a byte of each end
            prop_assert!(masked.len() <= encoded.len() - (password.len() * 4 / 3 - 3) + MASK.len());
        }

        #[test]
        fn no_text_keeps_a_secret(before in "[ -~]{0,9}", secret in "[ -~]{1,9}", after in "[ -~]{0,9}") {
            let masked = secrets(&[&secret]).mask(&format!("{before}{secret}{after}")).into_owned();
            prop_assert!(MASK.contains(&secret) || !masked.replace(MASK, "\0").contains(&secret), "{}", masked);
        }
    }

    #[test]
    fn longer_secrets_go_first_and_cut_ones_go_too() {
        let secrets = secrets(&["abc", "abcdef"]);
        assert_eq!(secrets.mask("xabcdefx abc"), "x***x ***");
        let mut cut = b"token=abcde".to_vec();
        secrets.mask_cut(&mut cut);
        assert_eq!(cut, b"token=***");
        let mut whole = b"token=xyz".to_vec();
        secrets.mask_cut(&mut whole);
        assert_eq!(whole, b"token=xyz");
    }

    #[test]
    fn passwords_in_urls_are_masked() {
        for (text, masked) in [
            ("http://u:p@h:1/x?y=a@b", "http://u:***@h:1/x?y=a@b"),
            ("http://u@h/", "http://u@h/"),
            ("no url a:b@c", "no url a:b@c"),
            ("URL ws://u:p:q@h and http://h/ http://a:b@c", "URL ws://u:***@h and http://h/ http://a:***@c"),
        ] {
            assert_eq!(mask_passwords(text), masked);
        }
        assert!(is_credential("Set-Cookie") && !is_credential("Location"));
    }
}
