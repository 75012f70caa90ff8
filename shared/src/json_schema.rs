//! JSON Schema: values that many keys of documents take.

use serde_json::{Value, json};

/// The schema, or null: null is as if absent.
pub fn or_null(mut schema: Value) -> Value {
    if schema["type"] == "null" {
        return schema;
    }
    let is_plain = schema.get("enum").is_none() && schema.get("anyOf").is_none();
    if let Some(Value::String(kind)) = schema.get("type").filter(|_| is_plain) {
        if kind != "null" {
            schema["type"] = json!([kind, "null"]);
        }
        return schema;
    }
    let description = schema.as_object_mut().and_then(|map| map.shift_remove("description"));
    let mut either = json!({"anyOf": [schema, {"type": "null"}]});
    if let Some(description) = description {
        either["description"] = description;
    }
    either
}

/// With a description.
pub fn about(mut schema: Value, about: &str) -> Value {
    schema["description"] = about.into();
    schema
}

/// With a default.
pub fn default(mut schema: Value, value: impl Into<Value>) -> Value {
    schema["default"] = value.into();
    schema
}

/// With examples.
pub fn examples(mut schema: Value, examples: Value) -> Value {
    schema["examples"] = examples;
    schema
}

/// One of a few words, in any case; editors offer the words as they are.
pub fn choice(words: &[&str]) -> Value {
    let any_case = words.iter().map(|word| any_case(word)).collect::<Vec<_>>().join("|");
    json!({"type": "string", "anyOf": [{"enum": words}, {"pattern": format!("^({any_case})$")}]})
}

/// A pattern for a word in any case.
pub fn any_case(word: &str) -> String {
    word.chars()
        .map(|c| match c {
            c if c.is_ascii_alphabetic() => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
            '.' => "\\.".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

/// A text.
pub fn text() -> Value {
    json!({"type": "string"})
}

/// A whole number of at least this.
pub fn whole(least: u64) -> Value {
    json!({"type": "integer", "minimum": least})
}

/// A number above 0.
pub fn positive() -> Value {
    json!({"type": "number", "exclusiveMinimum": 0})
}

/// A number of at least 0.
pub fn amount() -> Value {
    json!({"type": "number", "minimum": 0})
}

/// true or false.
pub fn boolean() -> Value {
    json!({"type": "boolean"})
}

/// Seconds, or a text with a unit.
pub fn duration(zero: bool) -> Value {
    let number = if zero { amount() } else { positive() };
    json!({"anyOf": [number, {"type": "string", "pattern": "^\\s*[0-9.]+\\s*(ms|s|m|min|h)?\\s*$"}]})
}

/// A time, `[min, max]` or `{"min", "max"}`.
pub fn pause() -> Value {
    let time = duration(true);
    json!({"anyOf": [
        time.clone(),
        {"type": "array", "prefixItems": [time.clone(), time.clone()], "items": false, "minItems": 2},
        {"type": "object", "properties": {"min": time.clone(), "max": time}, "required": ["min", "max"], "additionalProperties": false},
    ]})
}

/// An object of these keys and no other.
#[expect(clippy::needless_pass_by_value, reason = "callers write it with json!")]
pub fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}
