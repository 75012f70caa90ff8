//! Takes secrets out of what is kept: plans, results and addresses of databases.
//!
//! What it knows a secret by: the name that it stands under (`password`, `Authorization`, `api_key`),
//! and its place in a URL. A placeholder is no secret, what is filled in for it may be; so values that
//! are nothing but placeholders stay.

use regex::{Captures, Regex};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// What stands in place of a secret.
pub const HIDDEN: &str = "***";

/// Words that name a secret, wherever they stand in a name without its separators and in small
/// letters.
const SECRET_WORDS: [&str; 15] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "cookie",
    "credential",
    "session",
    "signature",
    "bearer",
];
/// Names that are one.
const SECRET_NAMES: [&str; 6] = ["auth", "pass", "pin", "jwt", "sig", "sid"];

static USER_INFO: LazyLock<Regex> = LazyLock::new(|| pattern(r"([A-Za-z][A-Za-z0-9+.\-]*://[^\s/?#@:]*):([^\s/?#]*)@"));
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?xi) (
              [a-z0-9_.\-]* (?: pass(?:word|wd|phrase) | pwd | secret | token | (?:api|access|private)[_\-]?key
                | authorization | cookie | credential | session | signature | bearer ) [a-z0-9_.\-]*
            | \b (?: auth | pass | pin | jwt | sig | sid ) \b )
            ( ["']? \s* [=:] \s* ["']? )
            ( (?: (?:bearer|basic) \s+ )? (?: \$\{[^}]*\} | [^\s&"',;{}] )+ )"#,
    )
});
static HEADER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(\s*:\s*)([^\r\n"']+)"#));
static PLACEHOLDERS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(?:(?i:bearer|basic|token)\s+)?(?:\$\{[^}]*\})+$"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant")
}

/// Whether a value under this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    SECRET_NAMES.contains(&plain.as_str()) || SECRET_WORDS.iter().any(|word| plain.contains(word))
}

/// A URL or a text with URLs in it, without the passwords of their user parts.
pub fn urls(text: &str) -> String {
    if !text.contains("://") || !text.contains('@') {
        return text.to_owned();
    }
    USER_INFO.replace_all(text, format!("$1:{HIDDEN}@")).into_owned()
}

/// A text, without what is assigned in it to names of secrets: `token=…`, `"password": "…"`.
pub fn text(text: &str) -> String {
    let text = urls(text);
    if !text.contains(['=', ':']) {
        return text;
    }
    let hide = |found: &Captures<'_>| {
        let (all, name, sign, value) = (&found[0], &found[1], &found[2], &found[3]);
        if PLACEHOLDERS.is_match(value) { all.to_owned() } else { format!("{name}{sign}{HIDDEN}") }
    };
    let text = HEADER.replace_all(&text, hide);
    ASSIGNMENT.replace_all(&text, hide).into_owned()
}

/// A plan as JSON: secrets by name, values of environment variables, passwords in URLs and bodies.
pub fn plan(plan: &[u8]) -> Value {
    let mut plan: Value = serde_json::from_slice(plan).unwrap_or(Value::Null);
    if let Some(env) = plan.get_mut("env").and_then(Value::as_object_mut) {
        env.values_mut().for_each(|value| *value = HIDDEN.into());
    }
    value(&mut plan);
    plan
}

/// A result as JSON: passwords in URLs, also where a URL is a name.
pub fn result(value: &mut Value) {
    match value {
        Value::String(text) => *text = urls(text),
        Value::Array(items) => items.iter_mut().for_each(result),
        Value::Object(map) => {
            if map.keys().any(|key| key.contains("://") && key.contains('@')) {
                *map = std::mem::take(map).into_iter().map(|(key, value)| (urls(&key), value)).collect();
            }
            map.values_mut().for_each(result);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn value(of: &mut Value) {
    match of {
        Value::String(secret) => *secret = text(secret),
        Value::Array(items) => items.iter_mut().for_each(value),
        Value::Object(map) => object(map),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `secrets` is the digest of a blob. A header may also stand as `name` and `value`.
fn object(map: &mut Map<String, Value>) {
    let names_secret = map.get("name").and_then(Value::as_str).is_some_and(is_secret_name);
    for (name, inner) in map {
        let is_value = names_secret && name == "value";
        if is_value || name != "secrets" && is_secret_name(name) {
            hide(inner);
        } else {
            value(inner);
        }
    }
}

/// Hides every text and number below a name of a secret.
fn hide(secret: &mut Value) {
    match secret {
        Value::String(text) if PLACEHOLDERS.is_match(text) || text.is_empty() => {}
        Value::String(_) | Value::Number(_) => *secret = HIDDEN.into(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(map) => map.values_mut().for_each(hide),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn passwords_leave_urls() {
        let cases = [
            ("postgres://me:s3c:r@t@h:5432/db", "postgres://me:***@h:5432/db"),
            ("GET http://u:p@h/x?a=b@c failed", "GET http://u:***@h/x?a=b@c failed"),
            ("http://h/a:b@c", "http://h/a:b@c"),
            ("mail me@x.y", "mail me@x.y"),
        ];
        for (text, expected) in cases {
            assert_eq!(urls(text), expected);
        }
    }

    #[test]
    fn assignments_in_texts() {
        let cases = [
            ("http://h/x?token=abc&page=2", "http://h/x?token=***&page=2"),
            ("user=a&password=b%20c", "user=a&password=***"),
            (r#"{"user": "a", "password": "b"}"#, r#"{"user": "a", "password": "***"}"#),
            ("Authorization: Bearer abc.def\r\nHost: h", "Authorization: ***\r\nHost: h"),
            ("password=${secret.pw}&a=1", "password=${secret.pw}&a=1"),
            ("Cookie: a=b; c=d", "Cookie: ***"),
            ("${var.token} at 12:30", "${var.token} at 12:30"),
        ];
        for (from, expected) in cases {
            assert_eq!(text(from), expected);
        }
    }

    #[test]
    fn plans_keep_their_shape_and_lose_their_secrets() {
        let given = json!({
            "env": {"HOST": "http://h", "PW": "hunter2"},
            "variables": {"base": "http://u:hunter2@h", "api_key": "hunter2", "page": 7},
            "secrets": "sha256:abc",
            "scenarios": [{"tasks": [{"fields": {
                "auth": ["me", "hunter2"],
                "headers": {"X-Api-Key": "hunter2", "Accept": "a/b", "authorization": "Bearer ${secret.t}"},
                "json": {"user": "me", "Password": "hunter2", "pin": 1234},
                "cookies": {"sid": "hunter2"},
                "request_url": "/login?token=hunter2&x=1",
            }}]}],
        });
        let kept = plan(given.to_string().as_bytes());
        assert!(!kept.to_string().contains("hunter2") && !kept.to_string().contains("1234"), "{kept}");
        let fields = &kept["scenarios"][0]["tasks"][0]["fields"];
        assert_eq!(fields["headers"]["Accept"], "a/b");
        assert_eq!(fields["headers"]["authorization"], "Bearer ${secret.t}");
        assert_eq!(fields["request_url"], "/login?token=***&x=1");
        assert_eq!((&kept["variables"]["page"], &kept["secrets"]), (&json!(7), &json!("sha256:abc")));
    }

    #[test]
    fn results_keep_names_but_for_passwords() {
        let mut kept = json!({"per_name": {"http://u:p@h/": {"count": 1}}, "failures": [{"reason": "ws://a:b@c"}]});
        result(&mut kept);
        assert_eq!(
            kept,
            json!({"per_name": {"http://u:***@h/": {"count": 1}}, "failures": [{"reason": "ws://a:***@c"}]})
        );
    }
}
