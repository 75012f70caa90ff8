//! What a received message must hold: `expect`, `until`.
//!
//! | form | holds if the message |
//! |---|---|
//! | `"text"`, `{"contains": "text"}` | contains the text |
//! | `{"json_path": "a.b", "value": 1}` | is JSON with this value at the path |
//! | `{"pattern": "^ok [0-9]+"}` | matches the regular expression |

use super::Fault;
use super::reader::{Reader, kind, scalar};
use super::text::Text;
use ld_shared::json_schema::about;
use ld_shared::operand::Operand;
use ld_shared::path::Path;
use ld_shared::pytext::{self, Repr};
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::{Bindings, Scope};
use memchr::memmem;
use regex::bytes::Regex;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Most characters of what came that a reason shows.
const SHOWN: usize = 100;

/// An expectation as the task writes it.
#[derive(Clone, Debug)]
pub(crate) enum ExpectField {
    Contains(String),
    Json { path: String, value: Value },
    Pattern(Regex),
}

/// An expectation, compiled once.
#[derive(Debug)]
pub(crate) enum Expect {
    Contains(Text),
    Json { path: Path, text: Box<str>, value: Operand },
    Pattern(Regex),
}

/// An expectation with its placeholders filled in.
#[derive(Debug)]
pub(crate) enum Expected<'a> {
    Contains(Cow<'a, str>),
    Json { path: &'a Path, text: &'a str, value: Cow<'a, Value> },
    Pattern(&'a Regex),
}

/// JSON Schema of an expectation.
pub(crate) fn schema(words: &str) -> Value {
    let form = |keys: Value, required: Value| json!({"type": "object", "properties": keys, "required": required, "additionalProperties": false});
    let forms = json!({"anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        form(json!({"contains": {"type": "string"}}), json!(["contains"])),
        form(json!({"json_path": {"type": "string"}, "value": {}}), json!(["json_path", "value"])),
        form(json!({"pattern": {"type": "string"}}), json!(["pattern"])),
    ]});
    about(forms, words)
}

impl ExpectField {
    /// Reads the expectation under `key`.
    pub(crate) fn read(reader: &mut Reader<'_>, key: &str) -> Option<Self> {
        let value = reader.get(key)?;
        let Value::Object(object) = value else {
            let text = scalar(value);
            if text.is_none() {
                reader.wrong_type(format!("/{key}"), value, "a text or an object");
            }
            return text.map(Self::Contains);
        };
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        match keys.as_slice() {
            ["contains"] if text("contains").is_some() => text("contains").map(|text| Self::Contains(text.to_owned())),
            ["json_path", "value"] | ["value", "json_path"] if text("json_path").is_some() => {
                let (path, value) = (text("json_path")?.to_owned(), object["value"].clone());
                Some(Self::Json { path, value })
            }
            ["pattern"] if text("pattern").is_some() => match Regex::new(text("pattern")?) {
                Ok(pattern) => Some(Self::Pattern(pattern)),
                Err(error) => {
                    let why = error.to_string();
                    let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    let fault = Fault::new(format!("/{key}/pattern"), format!("unusable pattern: {why}"));
                    reader.fault(fault.help("the syntax is that of Rust's regex crate"));
                    None
                }
            },
            _ => {
                let message = format!("expected a text or one of the forms of {key}, found {}", kind(value));
                let help = r#"accepted: "text", {"contains"}, {"json_path", "value"}, {"pattern"}"#;
                reader.fault(Fault::new(format!("/{key}"), message).help(help));
                None
            }
        }
    }

    pub(crate) fn compile(&self, bindings: &Bindings) -> Expect {
        match self {
            Self::Contains(text) => Expect::Contains(Text::compile(text, bindings)),
            Self::Json { path, value } => Expect::Json {
                path: Path::parse(path),
                text: path.as_str().into(),
                value: Operand::compile(value, bindings),
            },
            Self::Pattern(pattern) => Expect::Pattern(pattern.clone()),
        }
    }
}

impl Expect {
    /// Fills in its placeholders.
    pub(crate) fn fill(&self, bindings: &Bindings, scope: &mut Scope) -> Result<Expected<'_>, Failure> {
        Ok(match self {
            Self::Contains(text) => Expected::Contains(text.render(bindings, scope)?),
            Self::Json { path, text, value } => Expected::Json { path, text, value: value.value(bindings, scope)? },
            Self::Pattern(pattern) => Expected::Pattern(pattern),
        })
    }

    /// Indices of the data sources that it names.
    pub(crate) fn sources(&self) -> Vec<u32> {
        match self {
            Self::Contains(text) => text.sources().collect(),
            Self::Json { value, .. } => value.sources(),
            Self::Pattern(_) => Vec::new(),
        }
    }
}

impl Expected<'_> {
    /// Whether the message holds what is expected.
    pub(crate) fn holds(&self, message: &[u8]) -> bool {
        match self {
            Self::Contains(text) => memmem::find(message, text.as_bytes()).is_some(),
            Self::Json { path, value, .. } => path.find_in(message).is_some_and(|found| pytext::equal(value, &found)),
            Self::Pattern(pattern) => pattern.is_match(message),
        }
    }

    /// The failure of a message that does not hold it, in the seed's words where it has any.
    pub(crate) fn check(&self, message: &[u8]) -> Result<(), Failure> {
        if self.holds(message) {
            return Ok(());
        }
        let reason = match self {
            Self::Contains(text) => format!("expected {} in response", Repr(&Value::from(&**text))),
            Self::Json { path, text, value } => {
                let found = Repr(&path.find_in(message).unwrap_or_default()).to_string();
                let found = match found.char_indices().nth(SHOWN) {
                    None => found,
                    Some((end, _)) => format!("{}…", found.get(..end).unwrap_or_default()),
                };
                format!("json_path {text} expected {}, got {found}", Repr(value))
            }
            Self::Pattern(pattern) => format!("response does not match /{pattern}/"),
        };
        Err(Failure::new(FailureKind::Assertion, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::plan::Plan;

    fn read(value: &Value) -> Result<Option<ExpectField>, Vec<Fault>> {
        let fields = json!({"expect": value});
        let mut reader = Reader::new(fields.as_object().unwrap());
        let field = ExpectField::read(&mut reader, "expect");
        reader.finish(field)
    }

    #[test]
    fn each_form_says_what_is_missing() {
        let bindings = Bindings::new(&Plan::default(), Vec::new());
        for (expect, good, bad, reason) in [
            (json!("pong"), "a pong", "ping", "expected 'pong' in response"),
            (json!({"contains": "it's"}), "it's", "", "expected \"it's\" in response"),
            (
                json!({"json_path": "a.0", "value": 1}),
                r#"{"a": [1]}"#,
                r#"{"a": [2]}"#,
                "json_path a.0 expected 1, got 2",
            ),
            (json!({"pattern": "^ok [0-9]+$"}), "ok 12", "ok x", "response does not match /^ok [0-9]+$/"),
        ] {
            let expect = read(&expect).unwrap().unwrap().compile(&bindings);
            let mut scope = Scope::new(&bindings);
            let expected = expect.fill(&bindings, &mut scope).unwrap();
            assert_eq!(expected.check(good.as_bytes()), Ok(()));
            assert_eq!(&*expected.check(bad.as_bytes()).unwrap_err().reason, reason);
        }
    }

    #[test]
    fn malformed_expectations_are_faults() {
        for value in [json!([]), json!({}), json!({"pattern": "("}), json!({"pattern": 1}), json!({"json_path": "a"})] {
            assert!(read(&value).is_err(), "{value}");
        }
        assert!(read(&json!(null)).unwrap().is_none());
    }
}
