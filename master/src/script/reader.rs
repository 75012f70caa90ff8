//! Reads the keys of one object of a document, noting every fault on the way.

use super::spec::shown;
use super::{Fault, units};
use ld_shared::fault::{Seed, did_you_mean, step};
use serde_json::{Map, Value};

/// Longest time that a document may ask for: a hundred days. More is a slip of units.
const LONGEST: f64 = 100.0 * 24.0 * 3_600.0;

/// An object of a document. Null values are as if absent.
pub(crate) struct Reader<'a> {
    map: &'a Map<String, Value>,
    pointer: String,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// Over `map`, which stands at `pointer`.
    pub(crate) fn new(map: &'a Map<String, Value>, pointer: impl Into<String>, faults: &'a mut Vec<Fault>) -> Self {
        Self { map, pointer: pointer.into(), faults }
    }

    /// Where the value of `key` stands.
    pub(crate) fn at(&self, key: &str) -> String {
        format!("{}{}", self.pointer, step(key))
    }

    /// Where the object stands.
    pub(crate) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Notes a fault.
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// What `read` makes of the object; the seed passes over whatever it finds at fault.
    pub(crate) fn forgiving<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        self.with_seed(&Seed::Ignores, read)
    }

    /// What `read` makes of the object; that is what the seed makes of whatever it finds at fault.
    pub(crate) fn with_seed<T>(&mut self, seed: &Seed, read: impl FnOnce(&mut Self) -> T) -> T {
        let from = self.faults.len();
        let value = read(self);
        self.faults.iter_mut().skip(from).for_each(|fault| fault.seed = seed.clone());
        value
    }

    /// All faults so far, to add to.
    pub(crate) fn faults(&mut self) -> &mut Vec<Fault> {
        self.faults
    }

    /// The value of `key`, unless it is absent or null.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The object itself.
    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// Whether `key` is there and null.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// Notes that the value of `key` is not `wanted`.
    pub(crate) fn refuse(&mut self, key: &str, wanted: &str, help: &str) {
        let seen = self.map.get(key).map(shown).unwrap_or_default();
        let mut fault = Fault::new(self.at(key), format!("`{key}` takes {wanted}, found {seen}"));
        if !help.is_empty() {
            fault = fault.help(help);
        }
        self.faults.push(fault);
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.value(key)?;
        if value.as_str().is_none() {
            self.refuse(key, "a text", "");
        }
        value.as_str()
    }

    /// true or false.
    pub(crate) fn boolean(&mut self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        if value.as_bool().is_none() {
            self.refuse(key, "true or false", "");
        }
        value.as_bool()
    }

    /// An object, read in turn.
    pub(crate) fn object(&mut self, key: &str) -> Option<Reader<'_>> {
        let value = self.value(key)?;
        let Some(map) = value.as_object() else {
            self.refuse(key, "an object", "");
            return None;
        };
        let pointer = self.at(key);
        Some(Reader { map, pointer, faults: self.faults })
    }

    /// A list.
    pub(crate) fn list(&mut self, key: &str) -> Option<&'a [Value]> {
        let value = self.value(key)?;
        if !value.is_array() {
            self.refuse(key, "a list", "");
        }
        value.as_array().map(Vec::as_slice)
    }

    /// A whole number of at least `least`.
    pub(crate) fn whole(&mut self, key: &str, least: u64, help: &str) -> Option<u64> {
        let value = self.value(key)?;
        // 5.0 is 5: JSON of other programs writes it so
        let whole = value.as_u64().or_else(|| {
            let float = value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0 && *f < 1e15)?;
            Some(float as u64)
        });
        let whole = whole.filter(|n| *n >= least);
        if whole.is_none() {
            let wanted = if least == 0 {
                "a whole number, 0 or more".to_owned()
            } else {
                format!("a whole number, {least} or more")
            };
            self.refuse(key, &wanted, help);
        }
        whole
    }

    /// A number of at least 0.
    pub(crate) fn amount(&mut self, key: &str, help: &str) -> Option<f64> {
        let value = self.value(key)?;
        let number = value.as_f64().filter(|n| (0.0..1e9).contains(n));
        if number.is_none() {
            self.refuse(key, "a number, 0 or more", help);
        }
        number
    }

    /// A number above 0.
    pub(crate) fn positive(&mut self, key: &str, help: &str) -> Option<f64> {
        let value = self.value(key)?;
        let number = value.as_f64().filter(|n| *n > 0.0 && *n < 1e9);
        if number.is_none() {
            self.refuse(key, "a number above 0", help);
        }
        number
    }

    /// A time in seconds: a number, or a text with a unit. Above 0 unless `zero` allows 0 as well.
    pub(crate) fn duration(&mut self, key: &str, zero: bool, help: &str) -> Option<f64> {
        let value = self.value(key)?;
        let seconds = seconds(value).filter(|s| if zero { *s >= 0.0 } else { *s > 0.0 }).filter(|s| *s <= LONGEST);
        if seconds.is_none() {
            let bound = if zero { "0 or more" } else { "above 0" };
            self.refuse(
                key,
                &format!("a time {bound}: seconds or a text like \"500ms\", \"10s\", \"2m\", \"1h\""),
                help,
            );
        }
        seconds
    }

    /// A pause: a time, `[min, max]` or `{"min", "max"}`, seconds.
    pub(crate) fn pause(&mut self, key: &str) -> Option<(f64, f64)> {
        let value = self.value(key)?;
        let ends = match value {
            Value::Array(ends) => match ends.as_slice() {
                [low, high] => Some((low, high)),
                _ => None,
            },
            Value::Object(map) if map.len() == 2 => map.get("min").zip(map.get("max")),
            other => Some((other, other)),
        };
        let ends = ends.and_then(|(low, high)| Some((seconds(low)?, seconds(high)?)));
        let ends = ends.filter(|(low, high)| *low >= 0.0 && low <= high && *high <= LONGEST);
        if ends.is_none() {
            self.refuse(key, "seconds or [min, max], 0 or more", "for example 0.5, \"200ms\" or [0.1, 0.2]");
        }
        ends
    }

    /// One of a few texts, in any case.
    pub(crate) fn choice(&mut self, key: &str, accepted: &[&'static str]) -> Option<&'static str> {
        let text = self.text(key)?;
        let found = accepted.iter().copied().find(|known| text.eq_ignore_ascii_case(known));
        if found.is_none() {
            let fault = Fault::new(self.at(key), format!("unknown `{key}` `{text}`"));
            self.faults.push(fault.help(did_you_mean(text, accepted.iter().copied())));
        }
        found
    }

    /// Notes every key that is not among `known`; those among `later` come with a later version.
    pub(crate) fn only(&mut self, known: &[&str], later: &[&str]) {
        for (key, value) in self.map {
            let pointer = self.at(key);
            if later.contains(&key.as_str()) {
                if !value.is_null() {
                    self.faults.push(
                        Fault::new(pointer, format!("`{key}` comes with a later version"))
                            .help("leave it out")
                            .ignored(),
                    );
                }
            } else if !known.contains(&key.as_str()) {
                let help = did_you_mean(key, known.iter().copied());
                self.faults.push(Fault::new(pointer, format!("unknown key `{key}`")).help(help).ignored());
            }
        }
    }
}

/// Seconds of a number or of a text with a unit.
fn seconds(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => units::seconds(text),
        other => other.as_f64(),
    }
}
