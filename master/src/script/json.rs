//! The text of a document as JSON, with errors that show the place, and without silent losses: a
//! key that stands twice in an object is an error.
//!
//! The seed (as most JSON readers) keeps the last of them, so the second `"get"` of a method map
//! would drop the first task unseen.

use super::{EXAMPLE, Fault};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads a document's text: UTF-8 JSON without byte order mark. Beside the value: faults that can
/// be passed over.
pub(super) fn read(text: &[u8]) -> Result<(Value, Vec<Fault>), Vec<Fault>> {
    let fault = |message: String, help: &str| vec![Fault::new("", message).help(help)];
    if text.starts_with(b"\xef\xbb\xbf") {
        let help = "save the file as UTF-8 without byte order mark (BOM)";
        return Err(fault("the document begins with a byte order mark".into(), help));
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let before = text.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        fault(format!("the document is not UTF-8: line {line} has other bytes"), "save the file as UTF-8")
    })?;
    if text.trim().is_empty() {
        return Err(fault("the document is empty".into(), EXAMPLE));
    }
    match parse(text) {
        Ok(value) => Ok((value, Vec::new())),
        Err(error) => {
            let fault = syntax(text, &error);
            match serde_json::from_str(text) {
                Ok(value) => Ok((value, vec![fault.ignored()])),
                Err(_) => Err(vec![fault]),
            }
        }
    }
}

/// A JSON error with the line where it is.
fn syntax(text: &str, error: &serde_json::Error) -> Fault {
    const SHOWN: usize = 60;
    let (line, column) = (error.line(), error.column());
    let whole = error.to_string();
    let what = whole.split(" at line ").next().unwrap_or_default().to_owned();
    let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    // the column counts bytes; a caret stands below characters
    let caret = shown.get(..column.saturating_sub(1)).unwrap_or(shown).chars().count();
    let from = caret.saturating_sub(SHOWN / 2);
    let cut: String = shown.chars().skip(from).take(SHOWN).collect();
    let gutter = " ".repeat(line.to_string().len());
    let pad = " ".repeat(caret - from);
    let message = format!(
        "the document cannot be read as JSON: {what} in line {line}, column {column}\n  {line} | {cut}\n  {gutter} | {pad}^"
    );
    let found = shown.chars().nth(caret);
    let help = match what.as_str() {
        "expected value" if found == Some('\'') => "texts stand in double quotes",
        "expected value" if matches!(found, Some('T' | 'F' | 'N')) => "JSON writes true, false and null",
        "trailing comma" => "JSON has no comma after the last element: remove it",
        "key must be a string" => "keys stand in double quotes",
        _ if what.starts_with(TWICE) => "only the last one would count: rename or remove one",
        "trailing characters" => "one document holds one list or one object: remove what follows it",
        _ if error.is_eof() => "the document ends too early: a bracket, brace or quote is not closed",
        _ => return Fault::new("", message),
    };
    Fault::new("", message).help(help)
}

/// How the error begins that names a key which stands twice.
const TWICE: &str = "an object has twice the key ";

/// Reads one value.
///
/// # Errors
///
/// Those of `serde_json`, and keys that stand twice, with line and column.
fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<Strict>(text).map(|Strict(value)| value)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build).map(Self)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = sequence.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(Error::custom(format!("{TWICE}`{key}`")));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_stand_once() {
        let error = parse("{\"a\": 1,\n \"a\": 2}").unwrap_err();
        assert_eq!(error.to_string(), "an object has twice the key `a` at line 2 column 4");
        assert!(parse("[{\"a\": 1}, {\"a\": 1}]").is_ok());
        assert!(parse(&"[".repeat(500)).unwrap_err().to_string().starts_with("recursion limit"));
    }

    proptest! {
        #[test]
        fn all_else_is_read_as_always(text in r#"[\[\]{}:,"a0-9.eE tru\\-]{0,30}"#) {
            if let Ok(value) = parse(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
