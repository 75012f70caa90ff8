//! A description with its references followed.

use serde_json::{Map, Value};

/// References that lead to references; more go round.
const MOST_STEPS: u32 = 32;

/// A description.
pub(super) struct Spec<'a> {
    root: &'a Value,
}

impl<'a> Spec<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &'a Value {
        self.root
    }

    /// What `{"$ref": "#/…"}` refers to; anything else is itself. What leads out of the document, or
    /// nowhere, is null.
    pub(super) fn resolved(&self, value: &'a Value) -> &'a Value {
        let mut value = value;
        for _ in 0..MOST_STEPS {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
            let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            value = target.unwrap_or(&Value::Null);
        }
        &Value::Null
    }

    /// The entries of a list, resolved.
    pub(super) fn list(&self, value: &'a Value, key: &str) -> Vec<&'a Value> {
        let entries = value.get(key).and_then(Value::as_array).into_iter().flatten();
        entries.map(|entry| self.resolved(entry)).collect()
    }

    /// An entry of `components`, resolved; null if there is none.
    pub(super) fn component(&self, section: &str, name: &str) -> &'a Value {
        let entry = self.root.get("components").and_then(|components| components.get(section)?.get(name));
        entry.map_or(&Value::Null, |entry| self.resolved(entry))
    }
}

/// YAML as JSON: keys become texts, tags fall off.
pub(super) fn to_json(value: yaml_serde::Value) -> Value {
    match value {
        yaml_serde::Value::Null => Value::Null,
        yaml_serde::Value::Bool(truth) => Value::Bool(truth),
        yaml_serde::Value::Number(number) => {
            let whole = number.as_u64().map(Value::from).or_else(|| number.as_i64().map(Value::from));
            whole.or_else(|| number.as_f64().map(Value::from)).unwrap_or(Value::Null)
        }
        yaml_serde::Value::String(text) => Value::String(text),
        yaml_serde::Value::Sequence(items) => items.into_iter().map(to_json).collect(),
        yaml_serde::Value::Mapping(map) => {
            let entries = map.into_iter().map(|(key, value)| {
                let key = match to_json(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, to_json(value))
            });
            Value::Object(entries.collect::<Map<_, _>>())
        }
        yaml_serde::Value::Tagged(tagged) => to_json(tagged.value),
    }
}
