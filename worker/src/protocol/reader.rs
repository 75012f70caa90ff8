//! Reads a task's fields, noting every fault on the way. Every protocol's parser stands on it.

use super::Fault;
use serde_json::{Map, Value};

/// Reads fields of one task, or of one object in it.
pub(crate) struct Reader<'a> {
    fields: &'a Map<String, Value>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, faults: Vec::new() }
    }

    /// What was read, or every fault.
    pub(crate) fn finish<T>(self, parsed: T) -> Result<T, Vec<Fault>> {
        if self.faults.is_empty() { Ok(parsed) } else { Err(self.faults) }
    }

    /// A field; null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Notes that the field at `pointer` holds the wrong type.
    pub(crate) fn wrong_type(&mut self, pointer: impl Into<String>, seen: &Value, accepted: &str) {
        self.fault(Fault::new(pointer, format!("expected {accepted}, found {}", kind(seen))));
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &str) -> Option<&'a str> {
        match self.get(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(format!("/{key}"), other, "a text");
                None
            }
        }
    }

    /// A text, or a number or truth value as text.
    pub(crate) fn scalar(&mut self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        let text = scalar(value);
        if text.is_none() {
            self.wrong_type(format!("/{key}"), value, "a text or number");
        }
        text
    }

    /// A truth value.
    pub(crate) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(flag) => Some(*flag),
            other => {
                self.wrong_type(format!("/{key}"), other, "true or false");
                None
            }
        }
    }

    /// A whole number in a range, also as a text.
    pub(crate) fn whole(&mut self, key: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.get(key)?;
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let range = if most == u64::MAX { format!("from {least}") } else { format!("from {least} to {most}") };
            self.fault(Fault::new(format!("/{key}"), format!("expected a whole number {range}, found {value}")));
        }
        number
    }

    /// Seconds above 0, also as a text.
    pub(crate) fn seconds(&mut self, key: &str) -> Option<f64> {
        let value = self.get(key)?;
        let seconds = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        let seconds = seconds.filter(|seconds| *seconds > 0.0 && seconds.is_finite());
        if seconds.is_none() {
            self.fault(Fault::new(format!("/{key}"), format!("expected seconds above 0, found {value}")));
        }
        seconds
    }

    /// One of `choices`, in any case; the fault names the nearest.
    pub(crate) fn choice(&mut self, key: &str, choices: &[&'static str]) -> Option<&'static str> {
        let text = self.text(key)?;
        let lower = text.trim().to_ascii_lowercase();
        let known = choices.iter().find(|choice| **choice == lower);
        if known.is_none() {
            let fault = Fault::new(format!("/{key}"), format!("unknown {key} `{text}`"));
            self.fault(fault.help(nearest(&lower, choices)));
        }
        known.copied()
    }

    /// Names and values as texts of an object whose lists repeat their key; nulls are dropped.
    pub(crate) fn pairs(&mut self, key: &str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        match self.get(key) {
            None => {}
            Some(Value::Object(object)) => {
                for (name, value) in object {
                    let one = std::slice::from_ref(value);
                    for value in value.as_array().map_or(one, Vec::as_slice) {
                        match scalar(value) {
                            _ if value.is_null() => {}
                            Some(text) => pairs.push((name.clone(), text)),
                            None => self.wrong_type(
                                format!("/{key}/{}", escape(name)),
                                value,
                                "a text, number, truth value, null or list of these",
                            ),
                        }
                    }
                }
            }
            Some(other) => self.wrong_type(format!("/{key}"), other, "an object"),
        }
        pairs
    }
}

/// A remedy for a word that is none of `choices`.
pub(crate) fn nearest(word: &str, choices: &[&str]) -> String {
    let accepted = format!("accepted: {}", choices.join(", "));
    let likeness = |choice: &&str| strsim::jaro_winkler(choice, word);
    match choices.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(close) if likeness(&close) > 0.7 => format!("did you mean `{close}`? {accepted}"),
        _ => accepted,
    }
}

/// As Python writes it into a form.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A value's type in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A key inside a JSON pointer.
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
