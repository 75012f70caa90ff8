//! Credentials in recorded requests, and placeholders in their stead.
//!
//! Found by name: headers (`Authorization`, `Cookie`, `X-Api-Key`, …), query parameters, fields of
//! forms and of JSON bodies (`password`, `access_token`, …). Each value gets one name, wherever it
//! stands; then every occurrence of it in any text of the tasks is replaced, so that a token that
//! shows up a second time under an innocent name is not left behind. In names of tasks it becomes
//! `***`: names appear in reports.

use super::{Imported, Task};
use regex::Regex;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// What becomes of credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// They stay, as the seed has it.
    #[default]
    Keep,
    /// They become `${var.NAME}`.
    Variables,
    /// They become `${secret.NAME}`.
    Secrets,
}

impl Credentials {
    /// The words by which documents choose.
    pub const WORDS: [&'static str; 3] = ["keep", "variables", "secrets"];

    /// By its word, in any case.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Keep, Self::Variables, Self::Secrets];
        all.into_iter().zip(Self::WORDS).find(|(_, known)| word.eq_ignore_ascii_case(known)).map(|(one, _)| one)
    }

    /// Prefix of its placeholders, if there are any.
    pub(super) fn placeholder(self) -> Option<&'static str> {
        match self {
            Self::Keep => None,
            Self::Variables => Some("var"),
            Self::Secrets => Some("secret"),
        }
    }
}

/// Parts of names that hold credentials, in lower case and without `-` and `_`.
const PARTS: [&str; 17] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authorization",
    "session",
    "cookie",
    "jwt",
    "bearer",
    "signature",
];
/// Whole names that do.
const WHOLE: [&str; 6] = ["pass", "auth", "sid", "pin", "otp", "sig"];
/// Headers whose names sound like it and which hold none.
const INNOCENT: [&str; 1] = ["sec-websocket-key"];

/// Whether a value is so much its own that it is replaced wherever it occurs, not only where it was
/// found: a cookie `theme=default` must not take the word out of every URL.
fn is_distinct(value: &str) -> bool {
    value.len() >= 16 || (value.len() >= 6 && value.bytes().any(|byte| byte.is_ascii_digit()))
}

/// Whether a field of this name holds a credential.
fn is_telling(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let plain = lower.replace(['-', '_', '.'], "");
    !INNOCENT.contains(&lower.as_str())
        && (PARTS.iter().any(|part| plain.contains(part)) || WHOLE.contains(&plain.as_str()))
}

/// The same of a query's parameter: there `key` is what unlocks an API.
fn is_telling_in_query(name: &str) -> bool {
    is_telling(name) || name.eq_ignore_ascii_case("key")
}

/// Replaces every credential by `${PREFIX.NAME}`, and says so.
pub(super) fn replace(imported: &mut Imported, prefix: &'static str) {
    let mut found = Found { prefix, values: Vec::new() };
    for task in &mut imported.tasks {
        found.task(task);
    }
    // longest first: one value may hold another
    let mut order: Vec<(String, String)> = found.values.clone();
    order.retain(|(value, _)| is_distinct(value));
    order.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    for task in &mut imported.tasks {
        for (key, value) in task.iter_mut() {
            if key == "name" {
                each_text(value, &mut |text| order.iter().fold(text, |text, (secret, _)| text.replace(secret, "***")));
            } else if key != "method" {
                each_text(value, &mut |text| swap(&text, &order, prefix));
            }
        }
    }
    // the decoded form of a value has a name of its own, which may not be needed
    let all = json!(imported.tasks).to_string();
    let names = found.values.into_iter().map(|(_, name)| name);
    let names: Vec<String> = names.filter(|name| all.contains(&format!("${{{prefix}.{name}}}"))).collect();
    if !names.is_empty() {
        let how = if prefix == "secret" {
            "give their values by environment (LD_SECRET_NAME) or by --secrets FILE"
        } else {
            "give their values by `variables` or LD_register_variable"
        };
        imported.notes.push(format!("credentials became placeholders: {}; {how}", names.join(", ")));
    }
    imported.credentials = names;
}

/// Replaces known values in a text, but not inside placeholders that stand there already.
fn swap(text: &str, known: &[(String, String)], prefix: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (plain, placeholder) = rest.split_at(at);
        let end = placeholder.find('}').map_or(placeholder.len(), |end| end + 1);
        let (placeholder, after) = placeholder.split_at(end);
        out.push_str(&swap_plain(plain, known, prefix));
        out.push_str(placeholder);
        rest = after;
    }
    out.push_str(&swap_plain(rest, known, prefix));
    out
}

fn swap_plain(text: &str, known: &[(String, String)], prefix: &str) -> String {
    let first = known.iter().filter_map(|(value, name)| Some((text.find(value.as_str())?, value, name)));
    let Some((at, value, name)) = first.min_by_key(|(at, value, _)| (*at, std::cmp::Reverse(value.len()))) else {
        return text.to_owned();
    };
    let (before, rest) = text.split_at(at);
    let after = rest.strip_prefix(value.as_str()).unwrap_or_default();
    format!("{before}${{{prefix}.{name}}}{}", swap_plain(after, known, prefix))
}

/// Replaces every text in a value, but not keys.
fn each_text(value: &mut Value, with: &mut dyn FnMut(String) -> String) {
    match value {
        Value::String(text) => *text = with(std::mem::take(text)),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, with)),
        Value::Object(map) => map.values_mut().for_each(|item| each_text(item, with)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Credentials by value, with the names that they got.
struct Found {
    prefix: &'static str,
    values: Vec<(String, String)>,
}

impl Found {
    /// The placeholder of a value that was found under `name`.
    fn placeholder(&mut self, name: &str, value: &str) -> String {
        let name = self.name(name, value);
        format!("${{{}.{name}}}", self.prefix)
    }

    /// The name of a value: the same for the same value, else a new one made of where it was found.
    fn name(&mut self, name: &str, value: &str) -> String {
        if let Some((_, known)) = self.values.iter().find(|(known, _)| known == value) {
            return known.clone();
        }
        let base: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        let base = base.trim_matches('_').to_owned();
        let base = if base.is_empty() { "CREDENTIAL".to_owned() } else { base };
        let taken = |candidate: &str| self.values.iter().any(|(_, known)| known == candidate);
        let mut candidate = base.clone();
        let mut number = 2_u32;
        while taken(&candidate) {
            candidate = format!("{base}_{number}");
            number += 1;
        }
        self.values.push((value.to_owned(), candidate.clone()));
        candidate
    }

    fn task(&mut self, task: &mut Task) {
        if let Some(Value::String(url)) = task.get("request_url") {
            let (url, auth) = self.url(&url.clone());
            let name = task.get("name").and_then(Value::as_str).map(hidden_in_name);
            task.insert("request_url".into(), url.into());
            if let Some(name) = name {
                task.insert("name".into(), name.into());
            }
            if let Some(auth) = auth {
                task.insert("auth".into(), auth);
            }
        }
        if let Some(Value::Object(headers)) = task.get_mut("headers") {
            for (name, value) in headers {
                if let Some(text) = value.as_str().filter(|text| !text.is_empty() && is_telling(name)) {
                    *value = self.header(name, text).into();
                }
            }
        }
        match task.get_mut("data") {
            Some(Value::Object(fields)) => self.fields(fields),
            Some(Value::String(text)) => *text = self.raw(text),
            _ => {}
        }
        if let Some(json) = task.get_mut("json") {
            self.json(json);
        }
    }

    /// A header's value: of `Authorization` the scheme stays, of `Cookie` the names.
    fn header(&mut self, name: &str, value: &str) -> String {
        let lower = name.to_ascii_lowercase();
        if lower == "cookie" {
            let cookies = value.split(';').map(|cookie| match cookie.trim().split_once('=') {
                Some((key, value)) if !value.is_empty() => {
                    format!("{key}={}", self.placeholder(&format!("COOKIE_{key}"), value))
                }
                _ => cookie.trim().to_owned(),
            });
            return cookies.collect::<Vec<_>>().join("; ");
        }
        match value.split_once(' ').filter(|_| lower.ends_with("authorization")) {
            Some((scheme, rest)) => format!("{scheme} {}", self.placeholder(name, rest)),
            None => self.placeholder(name, value),
        }
    }

    /// A URL with placeholders in its query, and the account that stood in front of its host.
    fn url(&mut self, url: &str) -> (String, Option<Value>) {
        let mut url = url.to_owned();
        let mut auth = None;
        if let Some((scheme, rest)) = url.split_once("://") {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            if let Some((account, host)) = authority.rsplit_once('@') {
                let (user, password) = account.split_once(':').unwrap_or((account, ""));
                let password = if password.is_empty() {
                    String::new()
                } else {
                    self.placeholder("URL_PASSWORD", &decoded(password))
                };
                auth = Some(json!({"type": "basic", "username": decoded(user), "password": password}));
                url = format!("{scheme}://{host}{path}");
            }
        }
        let Some((before, query)) = url.split_once('?') else { return (url, auth) };
        let (query, fragment) = query.split_once('#').map_or((query, None), |(query, rest)| (query, Some(rest)));
        let query = self.pairs(query);
        let fragment = fragment.map(|rest| format!("#{rest}")).unwrap_or_default();
        (format!("{before}?{query}{fragment}"), auth)
    }

    /// `a=1&b=2`.
    fn pairs(&mut self, text: &str) -> String {
        let pairs = text.split('&').map(|pair| match pair.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_telling_in_query(&decoded(name)) => {
                let placeholder = self.placeholder(&decoded(name), value);
                let plain = decoded(value);
                if plain != value {
                    // the same value, not encoded, may stand elsewhere
                    self.name(&decoded(name), &plain);
                }
                format!("{name}={placeholder}")
            }
            _ => pair.to_owned(),
        });
        pairs.collect::<Vec<_>>().join("&")
    }

    fn fields(&mut self, fields: &mut Map<String, Value>) {
        for (name, value) in fields {
            match value {
                Value::String(text) if !text.is_empty() && is_telling(name) => {
                    *value = self.placeholder(name, &text.clone()).into();
                }
                Value::Number(_) if is_telling(name) => *value = self.placeholder(name, &value.to_string()).into(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
                Value::Array(_) | Value::Object(_) => self.json(value),
            }
        }
    }

    fn json(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) => self.fields(map),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// A body that is no more than a text: a form, the parts of a multipart body, or nearly JSON.
    fn raw(&mut self, text: &str) -> String {
        static PART: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r#"(name="([^"]*)"[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n)([^\r\n]+)"#).expect("a constant")
        });
        static MEMBER: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r#"("([^"\\]*)"\s*:\s*")((?:[^"\\]|\\.)+)"#).expect("a constant"));
        let mut replaced = text.to_owned();
        for pattern in [&*PART, &*MEMBER] {
            replaced = pattern
                .replace_all(&replaced, |hit: &regex::Captures<'_>| {
                    let (whole, name) = (&hit[0], &hit[2]);
                    if is_telling(name) {
                        format!("{}{}", &hit[1], self.placeholder(name, &hit[3]))
                    } else {
                        whole.to_owned()
                    }
                })
                .into_owned();
        }
        let is_form = !text.contains(['\n', '{', '<', ' ']) && text.contains('=');
        if is_form { self.pairs(&replaced) } else { replaced }
    }
}

/// The name of a task with its query's credentials hidden.
fn hidden_in_name(name: &str) -> String {
    let Some((before, query)) = name.split_once('?') else { return name.to_owned() };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, value)) if !value.is_empty() && is_telling_in_query(&decoded(key)) => format!("{key}=***"),
        _ => pair.to_owned(),
    });
    format!("{before}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// A text without its percent-encoding; as it is if that does not give UTF-8.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(code) = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(code);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(tasks: &Value, prefix: &'static str) -> Imported {
        let tasks = tasks.as_array().unwrap().iter().map(|task| task.as_object().unwrap().clone()).collect();
        let mut imported = Imported { tasks, ..Imported::default() };
        replace(&mut imported, prefix);
        imported
    }

    #[test]
    fn every_place_and_every_occurrence() {
        let imported = replaced(
            &json!([
                {
                    "method": "post", "request_url": "https://bob:pa%24s5@h/login?next=%2F&access_token=tok%2B12345",
                    "name": "POST /login?next=%2F&access_token=tok%2B12345",
                    "headers": {
                        "Authorization": "Bearer eyJhbGci0i", "Cookie": "sid=abcdef99; theme=dark1234", "X-Api-Key": "k-123456",
                        "Accept": "text/html", "Referer": "https://h/?t=eyJhbGci0i", "Sec-WebSocket-Key": "dGhl",
                    },
                    "json": {"user": "bob", "password": "hunter2", "nested": [{"client_secret": 12_345_678}], "again": "eyJhbGci0i!"},
                },
                {"method": "post", "request_url": "http://h/f", "name": "f", "data": {"pwd": "hunter2", "empty_token": "", "a": "1"}},
                {"method": "post", "request_url": "http://h/g", "name": "g", "data": "user=bob&pass=x1&z=k-123456"},
                {"method": "post", "request_url": "http://h/m", "name": "m",
                 "data": "--X\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhunter3\r\n--X--\r\n"},
                {"method": "post", "request_url": "http://h/j", "name": "j", "data": "{\"token\": \"half\\\"json\", oops"},
            ]),
            "secret",
        );
        let text = json!(imported.tasks).to_string();
        for secret in
            ["pa%24s5", "pa$s5", "tok%2B12345", "eyJhbGci0i", "abcdef99", "k-123456", "hunter", "12345678", "half"]
        {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let first = &imported.tasks[0];
        assert_eq!(first["request_url"], "https://h/login?next=%2F&access_token=${secret.ACCESS_TOKEN}");
        assert_eq!(first["name"], "POST /login?next=%2F&access_token=***");
        assert_eq!(first["auth"], json!({"type": "basic", "username": "bob", "password": "${secret.URL_PASSWORD}"}));
        assert_eq!(first["headers"]["Authorization"], "Bearer ${secret.AUTHORIZATION}");
        assert_eq!(first["headers"]["Referer"], "https://h/?t=${secret.AUTHORIZATION}");
        assert_eq!(first["headers"]["Cookie"], "sid=${secret.COOKIE_SID}; theme=${secret.COOKIE_THEME}");
        assert_eq!(first["headers"]["Sec-WebSocket-Key"], "dGhl");
        assert_eq!(first["json"]["password"], "${secret.PASSWORD}");
        assert_eq!(imported.tasks[1]["data"], json!({"pwd": "${secret.PASSWORD}", "empty_token": "", "a": "1"}));
        assert_eq!(imported.tasks[2]["data"], "user=bob&pass=${secret.PASS}&z=${secret.X_API_KEY}");
        assert!(imported.tasks[3]["data"].as_str().unwrap().contains("\r\n\r\n${secret.PASSWORD_2}\r\n--X--"));
        assert_eq!(imported.tasks[4]["data"], "{\"token\": \"${secret.TOKEN}\", oops");
        assert_eq!(imported.credentials.len(), 11, "{:?}", imported.credentials);
        assert!(imported.notes[0].contains("LD_SECRET_NAME"), "{:?}", imported.notes);
    }

    #[test]
    fn nothing_to_hide_changes_nothing() {
        let tasks = json!([{"method": "get", "request_url": "http://h/?q=1#a=b", "name": "GET /?q=1#a=b"}]);
        let imported = replaced(&tasks, "var");
        assert_eq!((json!(imported.tasks), imported.credentials.len(), imported.notes.len()), (tasks, 0, 0));
        assert_eq!(decoded("%e4%b8%ad%"), "中%");
        assert_eq!(Credentials::of("Secrets"), Some(Credentials::Secrets));
        assert_eq!(Credentials::of("x"), None);
    }
}
