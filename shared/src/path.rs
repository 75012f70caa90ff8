//! The seed's dotted paths into JSON: `data.items.0.id`.
//!
//! Names are separated by dots; empty parts are skipped, so an empty path is the whole value. On a
//! list a part must be a whole number (negative: from the end), on an object it is a key. Anything
//! else leads nowhere. There is no `$`, no bracket, no wildcard and no escape.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

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

impl Path {
    /// What it leads to in a JSON text, without building the rest of it: several times faster than
    /// parsing the whole. `None` also for what is no JSON.
    pub fn find_in(&self, text: &[u8]) -> Option<Value> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let found = Seek(&self.parts).deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        found.filter(|value| !value.is_null())
    }
}

/// Reads the value that these parts lead to and passes over everything else.
#[derive(Clone, Copy)]
struct Seek<'a>(&'a [Box<str>]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        match self.0 {
            [] => Value::deserialize(deserializer).map(Some),
            [part, rest @ ..] => deserializer.deserialize_any(Step { part, rest }),
        }
    }
}

/// One step of a path: into an object or a list; a scalar is its end.
struct Step<'a> {
    part: &'a str,
    rest: &'a [Box<str>],
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Option<Value>, A::Error> {
        let mut found = None;
        // of keys that stand twice the last one counts, as everywhere
        while let Some(is_it) = entries.next_key_seed(KeyIs(self.part))? {
            if is_it {
                found = entries.next_value_seed(Seek(self.rest))?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Value>, A::Error> {
        let Ok(index) = self.part.trim().parse::<isize>() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        if index < 0 {
            let mut all = Vec::new();
            while let Some(item) = items.next_element_seed(Seek(self.rest))? {
                all.push(item);
            }
            let place = all.len().checked_sub(index.unsigned_abs());
            return Ok(place.map(|place| all.swap_remove(place)).unwrap_or_default());
        }
        for _ in 0..index {
            if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = items.next_element_seed(Seek(self.rest))?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found.flatten())
    }
}

/// Whether a key is this one.
struct KeyIs<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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
            assert_eq!(Path::parse(path).find_in(value.to_string().as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_json_leads_nowhere() {
        for text in ["", "x", "{\"a\": 1", "{\"a\": 1} x", "[1, 2,]"] {
            assert_eq!(Path::parse("a").find_in(text.as_bytes()), None, "{text}");
            assert_eq!(Path::parse("0").find_in(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Path::parse("a").find_in(br#"{"a": {"b": 1}, "\u0061": 2}"#), Some(json!(2)));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop::sample::select(vec![json!(null), json!(true), json!(-7), json!(1.5), json!("x"), json!({})]);
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(vec!["a", "b", "0", "-1"]), inner), 0..4)
                    .prop_map(|entries| entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn both_ways_find_the_same(value in value(), path in "([ab012]|-1|-2)(\\.([ab012]|-1)){0,3}") {
            let path = Path::parse(&path);
            let found = path.find_in(value.to_string().as_bytes());
            prop_assert_eq!(found.as_ref(), path.find(&value));
        }
    }
}
