//! Example values: those that a description gives, else the least that its schema allows.

use super::reader::Spec;
use serde_json::{Map, Value, json};

/// Schemas within schemas; deeper ones are left empty.
const MOST_DEEP: u32 = 12;
/// Longest text that is made up.
const LONGEST: u64 = 10_000;

impl<'a> Spec<'a> {
    /// The example of a parameter; `None` if nothing says what it could be.
    pub(super) fn parameter_example(&self, parameter: &'a Value) -> Option<Value> {
        let schema = parameter.get("schema").map(|schema| self.resolved(schema));
        self.given(parameter)
            .or_else(|| self.given(schema?))
            .or_else(|| schema?.get("enum")?.as_array()?.first().cloned())
    }

    /// The example of a body.
    pub(super) fn media_example(&self, media: &'a Value) -> Option<Value> {
        self.given(media).or_else(|| Some(self.of_schema(media.get("schema")?, 0)))
    }

    /// `example`, the first of `examples`, or `default`.
    fn given(&self, value: &'a Value) -> Option<Value> {
        if let Some(example) = value.get("example") {
            return Some(example.clone());
        }
        let first = match value.get("examples") {
            // of a schema: plain values
            Some(Value::Array(items)) => items.first().cloned(),
            // of a parameter or a body: objects with a value
            Some(Value::Object(map)) => map.values().next().and_then(|one| self.resolved(one).get("value").cloned()),
            _ => None,
        };
        first.or_else(|| value.get("default").cloned())
    }

    fn of_schema(&self, schema: &'a Value, depth: u32) -> Value {
        let schema = self.resolved(schema);
        if let Some(given) = self.given(schema) {
            return given;
        }
        if let Some(value) = schema.get("const").or_else(|| schema.get("enum")?.as_array()?.first()) {
            return value.clone();
        }
        if depth >= MOST_DEEP {
            return Value::Null;
        }
        if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
            let mut whole = Map::new();
            for part in all {
                if let Value::Object(part) = self.of_schema(part, depth + 1) {
                    whole.extend(part);
                }
            }
            whole.extend(self.properties(schema, depth));
            return whole.into();
        }
        let choice = ["oneOf", "anyOf"].into_iter().find_map(|key| schema.get(key)?.as_array()?.first());
        if let Some(choice) = choice {
            return self.of_schema(choice, depth + 1);
        }
        let kind = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
            Some(kind) => kind.as_str(),
            None if schema.get("items").is_some() => Some("array"),
            None => Some("object"),
        };
        match kind {
            Some("string") => of_text(schema).into(),
            Some("integer") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
            Some("number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1.0)),
            Some("boolean") => true.into(),
            Some("array") => match schema.get("items") {
                Some(items) => json!([self.of_schema(items, depth + 1)]),
                None => json!([]),
            },
            Some("object") => self.properties(schema, depth).into(),
            _ => Value::Null,
        }
    }

    /// Required properties, and others that have an example; all if none is required. Those that only
    /// the service may write are left out.
    fn properties(&self, schema: &'a Value, depth: u32) -> Map<String, Value> {
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut object = Map::new();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let property = self.resolved(property);
            if property.get("readOnly").and_then(Value::as_bool) == Some(true) {
                continue;
            }
            if required.is_empty() || required.contains(&name.as_str()) || self.given(property).is_some() {
                object.insert(name.clone(), self.of_schema(property, depth + 1));
            }
        }
        object
    }
}

/// A text by its format, as long as it must be.
fn of_text(schema: &Value) -> String {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2026-01-31",
        Some("date-time") => "2026-01-31T12:00:00Z",
        Some("email") => "user@example.com",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        Some("uri" | "url") => "https://example.com/",
        Some("ipv4") => "192.0.2.1",
        Some("byte") => "dGV4dA==",
        _ => "text",
    };
    let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0).min(LONGEST);
    let most = schema.get("maxLength").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let mut text = text.to_owned();
    while (text.len() as u64) < least {
        text.push('x');
    }
    text.chars().take(usize::try_from(most).unwrap_or(usize::MAX)).collect()
}
