//! The seed's dotted paths into JSON: `data.items.0.id`.
//!
//! Names are separated by dots; empty parts are skipped, so an empty path is the whole value. On a
//! list a part must be a whole number (negative: from the end), on an object it is a key. Anything
//! else leads nowhere. There is no `$`, no bracket, no wildcard and no escape.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    parts: Box<[Box<str>]>,
}

impl Path {
    /// Any text is a path.
    pub fn parse(text: &str) -> Self {
        Self { parts: text.split('.').filter(|part| !part.is_empty()).map(Into::into).collect() }
    }

    /// What it leads to; `None` where it leads nowhere or to null.
    pub fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        let found = self.parts.iter().try_fold(value, |value, part| match value {
            Value::Object(map) => map.get(&**part),
            Value::Array(items) => {
                let index: isize = part.trim().parse().ok()?;
                let index =
                    if index < 0 { items.len().checked_sub(index.unsigned_abs())? } else { index.unsigned_abs() };
                items.get(index)
            }
            _ => None,
        });
        found.filter(|value| !value.is_null())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_dialect() {
        let value = json!({"a": [10, {"b": "x"}], "0": "zero", "n": null, "a.b": 1});
        let table = [
            ("a.0", Some(json!(10))),
            ("a.-1.b", Some(json!("x"))),
            (".a..1.b.", Some(json!("x"))),
            ("a.2", None),
            ("a.-3", None),
            ("a.x", None),
            ("a[0]", None),
            ("$.a", None),
            ("0", Some(json!("zero"))),
            ("a.0.c", None),
            ("n", None),
            ("n.x", None),
            ("a.b", None),
            ("", Some(value.clone())),
        ];
        for (path, expected) in table {
            assert_eq!(Path::parse(path).find(&value), expected.as_ref(), "{path}");
        }
    }
}
