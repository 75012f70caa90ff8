//! Records without what must not be read over a shoulder: passwords, tokens, keys.

use regex::Regex;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// Names under which secrets stand.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^(proxy-)?authorization$|^(set-)?cookies?$|passw(or)?d|passphrase|secret|token|api[-_ ]?key|access[-_ ]?key|private[-_ ]?key|credential")
        .expect("a valid expression")
});
/// Secrets within texts: headers of a curl command, its `-u`, and passwords in URLs.
static WITHIN: LazyLock<Regex> = LazyLock::new(|| {
    let expression = r#"(?i)((?:authorization|cookie|x-api-key|[\w-]*token)\s*:\s*)[^'"\r\n]+|((?:-u|--user)[ =]+['"]?[^\s:'"]+:)[^\s'"]+|(://[^/\s:@'"]*:)[^@/\s'"]+(?:@)"#;
    Regex::new(expression).expect("a valid expression")
});

/// The value without its secrets.
pub(crate) fn masked(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), under(key, value))).collect()),
        Value::Array(items) => pair(items).unwrap_or_else(|| Value::Array(items.iter().map(masked).collect())),
        Value::String(text) => Value::String(text_masked(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// `{"name": "password", "value": "x"}` hides its value as well.
fn under(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if SECRET.is_match(key) && !text.is_empty() => MASK.into(),
        Value::Number(_) if SECRET.is_match(key) => MASK.into(),
        Value::Object(map) if names_a_secret(map) => {
            let mut map = map.clone();
            map.insert("value".into(), MASK.into());
            masked(&Value::Object(map))
        }
        other => masked(other),
    }
}

/// A name by position and what it names: `["api_token", "x"]`.
fn pair(items: &[Value]) -> Option<Value> {
    match items {
        [Value::String(name), Value::String(_) | Value::Number(_)] if SECRET.is_match(name) => {
            Some(Value::Array(vec![name.as_str().into(), MASK.into()]))
        }
        [Value::String(command), Value::Object(map)] if names_a_secret(map) => {
            Some(Value::Array(vec![command.as_str().into(), under("", &Value::Object(map.clone()))]))
        }
        _ => None,
    }
}

fn names_a_secret(map: &Map<String, Value>) -> bool {
    let name = map.get("name").and_then(Value::as_str);
    name.is_some_and(|name| SECRET.is_match(name)) && map.contains_key("value")
}

fn text_masked(text: &str) -> String {
    let hide = |found: &regex::Captures<'_>| {
        let kept = found.iter().skip(1).flatten().next().map_or("", |kept| kept.as_str());
        let end = if kept.starts_with("://") { "@" } else { "" };
        format!("{kept}{MASK}{end}")
    };
    WITHIN.replace_all(text, hide).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        let table = [
            (json!({"password": "p", "user": "u"}), json!({"password": "***", "user": "u"})),
            (
                json!({"Authorization": "Bearer x", "auth": {"token": "t"}}),
                json!({"Authorization": "***", "auth": {"token": "***"}}),
            ),
            (
                json!(["LD_register_variable", ["api_token", "x"]]),
                json!(["LD_register_variable", ["api_token", "***"]]),
            ),
            (
                json!(["LD_register_variable", {"name": "password", "value": [1]}]),
                json!(["LD_register_variable", {"name": "password", "value": "***"}]),
            ),
            (json!("http://u:p@host/x"), json!("http://u:***@host/x")),
            (
                json!("curl -H 'Authorization: Bearer x' -u me:pw http://h/"),
                json!("curl -H 'Authorization: ***' -u me:*** http://h/"),
            ),
            (json!(["len", [[1, 2]], "http://host:80/a"]), json!(["len", [[1, 2]], "http://host:80/a"])),
            (json!({"cookies": {"sid": "x"}, "token": ""}), json!({"cookies": {"sid": "x"}, "token": ""})),
        ];
        for (value, hidden) in table {
            assert_eq!(masked(&value), hidden);
        }
    }
}
