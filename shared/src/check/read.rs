//! Assertions and extractors as documents write them.

use super::{Assertion, ExtractFrom, Extractor};
use crate::fault::{Fault, did_you_mean, step};
use crate::pytext;
use serde_json::{Map, Value};

const ASSERTIONS: [&str; 5] = ["status_code", "contains", "not_contains", "json_path", "header"];
const SOURCES: [&str; 3] = ["json_path", "header", "status_code"];

impl Assertion {
    /// From a document: `{"type": "status_code", "value": 200}`. Types are read in any case.
    ///
    /// # Errors
    ///
    /// An unknown or missing type (the seed ignores those: a check that checks nothing), an unknown
    /// key, a missing or impossible value.
    pub fn parse(value: &Value) -> Result<Self, Fault> {
        strictly(Self::read(value))
    }

    /// What the seed makes of any value (`None`: it passes over it, or loses the request), and what
    /// is wrong with it.
    pub fn read(value: &Value) -> (Option<Self>, Option<Fault>) {
        split(Self::lenient(value))
    }

    fn lenient(value: &Value) -> Result<(Self, Option<Fault>), Fault> {
        let fields = Fields::of(value, "assertion")?;
        let kind = fields.choice("type", &ASSERTIONS).map_err(Fault::ignored)?;
        // what the seed reads as null, or compares in vain
        let mut passed = None;
        let mut value = |example: &str| match fields.required("value", example) {
            Ok(value) => value,
            Err(fault) => {
                passed = Some(fault);
                Value::Null
            }
        };
        let assertion = match kind {
            "status_code" => Self::StatusCode(status(fields.required("value", "`200`")?)?),
            "contains" => Self::Contains(value("a text")),
            "not_contains" => Self::NotContains(value("a text")),
            "json_path" => {
                let path = fields.text("path", "`data.items.0.id`")?;
                Self::JsonPath { path, value: value("the value expected there") }
            }
            _ => {
                let name = fields.text("name", "`Content-Type`")?;
                Self::Header { name, value: fields.get("value").clone() }
            }
        };
        let known: &[&str] = match kind {
            "json_path" => &["type", "path", "value"],
            "header" => &["type", "name", "value"],
            _ => &["type", "value"],
        };
        let fault = passed.or_else(|| match &assertion {
            Self::Contains(value) | Self::NotContains(value) => part(value).err(),
            Self::Header { value, .. } => header(value).err(),
            Self::StatusCode(_) | Self::JsonPath { .. } => None,
        });
        let fault = fault.or_else(|| fields.only(known).err()).map(Fault::ignored);
        Ok((assertion, fault))
    }

    /// The values and texts in it, for whoever looks for placeholders.
    pub fn texts(&self) -> Vec<Value> {
        match self {
            Self::StatusCode(value) | Self::Contains(value) | Self::NotContains(value) => vec![value.clone()],
            Self::JsonPath { path: text, value } | Self::Header { name: text, value } => {
                vec![text.as_str().into(), value.clone()]
            }
        }
    }
}

impl Extractor {
    /// From a document: `{"var": "token", "from": "json_path", "path": "data.token"}`. `from` is
    /// read in any case and is `json_path` if absent.
    ///
    /// # Errors
    ///
    /// An unknown source or key, a missing variable, path or name.
    pub fn parse(value: &Value) -> Result<Self, Fault> {
        strictly(Self::read(value))
    }

    /// What the seed makes of any value (`None`: it passes over it), and what is wrong with it.
    pub fn read(value: &Value) -> (Option<Self>, Option<Fault>) {
        split(Self::lenient(value))
    }

    fn lenient(value: &Value) -> Result<(Self, Option<Fault>), Fault> {
        let fields = Fields::of(value, "extractor")?;
        let kind = if fields.get("from").is_null() {
            SOURCES[0]
        } else {
            fields.choice("from", &SOURCES).map_err(Fault::ignored)?
        };
        let var = fields.text("var", "the variable to set").map_err(Fault::ignored)?;
        if var.is_empty() || var.contains('}') {
            return Err(Fault::new("/var", format!("`{var}` can be no variable's name")).ignored());
        }
        let (from, own) = match kind {
            "json_path" => {
                let path = fields.text("path", "`data.items.0.id`").map_err(Fault::ignored)?;
                (ExtractFrom::JsonPath(path), Some("path"))
            }
            "header" => {
                let name = fields.text("name", "`X-Request-Id`").map_err(Fault::ignored)?;
                (ExtractFrom::Header(name), Some("name"))
            }
            _ => (ExtractFrom::StatusCode, None),
        };
        let scope = match fields.get("scope") {
            Value::Null => None,
            // the seed keeps two sets of variables; here a user has one, which both names reach
            Value::String(scope) if ["var", "session"].iter().any(|known| scope.eq_ignore_ascii_case(known)) => None,
            other => {
                let message = format!("unknown scope {}", pytext::Repr(other));
                Some(Fault::new("/scope", message).help("accepted: var, session (both are the user's own)"))
            }
        };
        let known: Vec<_> = ["var", "from", "scope"].into_iter().chain(own).collect();
        let fault = scope.or_else(|| fields.only(&known).err());
        Ok((Self { var, from }, fault.map(Fault::ignored)))
    }
}

/// The entry, only if nothing is wrong with it.
fn strictly<T>((entry, fault): (Option<T>, Option<Fault>)) -> Result<T, Fault> {
    match (entry, fault) {
        (_, Some(fault)) => Err(fault),
        (Some(entry), None) => Ok(entry),
        (None, None) => Err(Fault::new("", "an entry that says nothing")),
    }
}

fn split<T>(read: Result<(T, Option<Fault>), Fault>) -> (Option<T>, Option<Fault>) {
    match read {
        Ok((entry, fault)) => (Some(entry), fault),
        Err(fault) => (None, Some(fault)),
    }
}

/// An object of a document, and what it is called in faults.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    what: &'static str,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, what: &'static str) -> Result<Self, Fault> {
        let Value::Object(map) = value else {
            let an = if what == "assertion" { "an assertion" } else { "an extractor" };
            return Err(Fault::new("", format!("{an} is an object, found {}", pytext::Repr(value))));
        };
        Ok(Self { map, what })
    }

    /// The value of `key`; null if absent.
    fn get(&self, key: &str) -> &'a Value {
        self.map.get(key).unwrap_or(&Value::Null)
    }

    fn required(&self, key: &str, example: &str) -> Result<Value, Fault> {
        self.map.get(key).cloned().ok_or_else(|| self.missing(key, example))
    }

    fn missing(&self, key: &str, example: &str) -> Fault {
        let what = self.what;
        Fault::new("", format!("{what} without `{key}`")).help(format!("add `{key}`, for example {example}"))
    }

    fn text(&self, key: &str, example: &str) -> Result<String, Fault> {
        match self.get(key) {
            Value::Null => Err(self.missing(key, example)),
            Value::String(text) => Ok(text.clone()),
            other => Err(Fault::new(step(key), format!("`{key}` is a text, found {}", pytext::Repr(other)))),
        }
    }

    fn choice(&self, key: &str, accepted: &[&'static str]) -> Result<&'static str, Fault> {
        let text = match self.get(key) {
            Value::Null => {
                let message = format!("{} without `{key}`", self.what);
                return Err(Fault::new("", message).help(format!("accepted: {}", accepted.join(", "))));
            }
            Value::String(text) => text.as_str(),
            other => {
                let message = format!("`{key}` is a text, found {}", pytext::Repr(other));
                return Err(Fault::new(step(key), message).help(format!("accepted: {}", accepted.join(", "))));
            }
        };
        accepted.iter().copied().find(|known| text.eq_ignore_ascii_case(known)).ok_or_else(|| {
            let kind = if key == "type" { "type" } else { "source" };
            Fault::new(step(key), format!("unknown {} {kind} `{text}`", self.what))
                .help(did_you_mean(text, accepted.iter().copied()))
        })
    }

    fn only(&self, known: &[&str]) -> Result<(), Fault> {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(Fault::new(step(key), format!("unknown key `{key}` of this {}", self.what))
                .help(did_you_mean(key, known.iter().copied()))),
        }
    }
}

/// A status: a whole number, a text that says one, or a text with a placeholder.
fn status(value: Value) -> Result<Value, Fault> {
    let number = match &value {
        Value::String(text) if text.contains("${") => return Ok(value),
        Value::String(text) => text.trim().parse::<i64>().ok(),
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64)),
        _ => None,
    };
    number.map(Value::from).ok_or_else(|| {
        Fault::new("/value", format!("status {} is no number", pytext::Repr(&value)))
            .help("write the code, like 200, or a text that says it")
    })
}

/// What `contains` looks for: anything that has a text.
fn part(value: &Value) -> Result<(), Fault> {
    if value.is_null() {
        return Err(Fault::new("/value", "null occurs in no body").help("write the text to look for"));
    }
    Ok(())
}

fn header(value: &Value) -> Result<(), Fault> {
    match value {
        Value::Null | Value::String(_) => Ok(()),
        other => Err(Fault::new("/value", format!("a header is a text, found {}", pytext::Repr(other)))
            .help(format!("write \"{}\"", pytext::Str(other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_coercions_of_the_seed_are_legal() {
        let table = [
            (json!({"type": "status_code", "value": "200"}), Assertion::StatusCode(json!(200))),
            (json!({"type": "STATUS_CODE", "value": 200.0}), Assertion::StatusCode(json!(200))),
            (json!({"type": "status_code", "value": "${var.x}"}), Assertion::StatusCode(json!("${var.x}"))),
            (json!({"type": "contains", "value": 5}), Assertion::Contains(json!(5))),
            (
                json!({"type": "json_path", "path": "", "value": null}),
                Assertion::JsonPath { path: String::new(), value: Value::Null },
            ),
            (json!({"type": "header", "name": "X"}), Assertion::Header { name: "X".into(), value: Value::Null }),
        ];
        for (document, assertion) in table {
            assert_eq!(Assertion::parse(&document), Ok(assertion.clone()), "{document}");
            let json = serde_json::to_string(&assertion).unwrap();
            assert_eq!(serde_json::from_str::<Assertion>(&json).unwrap(), assertion, "the plan's form reads back");
        }
        let extractor = Extractor { var: "t".into(), from: ExtractFrom::JsonPath("a.b".into()) };
        assert_eq!(Extractor::parse(&json!({"var": "t", "path": "a.b", "scope": "var"})), Ok(extractor));
    }

    #[test]
    fn what_would_check_nothing_is_refused() {
        let table = [
            (json!("x"), "error: an assertion is an object, found 'x'"),
            (
                json!({"type": "regex", "value": "a"}),
                "error: unknown assertion type `regex` at /type\n help: accepted: status_code, contains, \
                 not_contains, json_path, header",
            ),
            (
                json!({"type": "containz", "value": "a"}),
                "error: unknown assertion type `containz` at /type\n help: did you mean `contains`? accepted: \
                 status_code, contains, not_contains, json_path, header",
            ),
            (
                json!({"value": 1}),
                "error: assertion without `type`\n help: accepted: status_code, contains, not_contains, json_path, header",
            ),
            (
                json!({"type": "status_code", "value": "abc"}),
                "error: status 'abc' is no number at /value\n help: write the code, like 200, or a text that says it",
            ),
            (
                json!({"type": "json_path", "paht": "a", "value": 1}),
                "error: assertion without `path`\n help: add `path`, for example `data.items.0.id`",
            ),
            (
                json!({"type": "contains", "value": "a", "vaule": 1}),
                "error: unknown key `vaule` of this assertion at /vaule\n help: did you mean `value`? accepted: type, value",
            ),
            (
                json!({"type": "header", "name": "X", "value": 5}),
                "error: a header is a text, found 5 at /value\n help: write \"5\"",
            ),
        ];
        for (document, text) in table {
            assert_eq!(Assertion::parse(&document).unwrap_err().to_string(), text);
        }
        let table = [
            (json!({"path": "a"}), "error: extractor without `var`\n help: add `var`, for example the variable to set"),
            (
                json!({"var": "a", "from": "jsonpath", "path": "a"}),
                "error: unknown extractor source `jsonpath` at /from\n help: did you mean `json_path`? accepted: \
                 json_path, header, status_code",
            ),
            (
                json!({"var": "a", "from": "header", "path": "a"}),
                "error: extractor without `name`\n help: add `name`, for example `X-Request-Id`",
            ),
            (
                json!({"var": "a", "path": "a", "scope": "global"}),
                "error: unknown scope 'global' at /scope\n help: accepted: var, session (both are the user's own)",
            ),
        ];
        for (document, text) in table {
            assert_eq!(Extractor::parse(&document).unwrap_err().to_string(), text);
        }
    }
}
