//! Which series a rule looks at.

use crate::sample::SeriesKey;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Which series a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// Those whose name matches: `*` is any text, `?` one character, `\` takes what follows as it is.
    Name(Arc<str>),
    /// Those of the scenario of this name.
    Scenario(Arc<str>),
    /// Those of this request type, in any case.
    Type(Arc<str>),
}

impl Selector {
    /// Whether it selects the series of `key`.
    pub fn matches(&self, key: &SeriesKey) -> bool {
        match self {
            Self::Name(glob) => matches(glob, &key.name),
            Self::Scenario(scenario) => *scenario == key.scenario,
            Self::Type(kind) => kind.eq_ignore_ascii_case(&key.request_type),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match self {
            Self::Name(text) => ("name", text),
            Self::Scenario(text) => ("scenario", text),
            Self::Type(text) => ("type", text),
        };
        write!(f, "{kind}:{text}")
    }
}

/// Whether all of `text` matches. In time `|glob| · |text|` at worst: only the last `*` is retried.
fn matches(glob: &str, text: &str) -> bool {
    let (mut wanted, mut seen) = (glob.chars(), text.chars());
    // after the last `*`: the rest of the glob, and what it was last tried on
    let mut retry = None;
    loop {
        match wanted.next() {
            Some('*') => {
                retry = Some((wanted.clone(), seen.clone()));
                continue;
            }
            Some('?') if seen.next().is_some() => continue,
            Some('\\') if seen.next() == Some(wanted.next().unwrap_or('\\')) => continue,
            Some(c) if c != '?' && c != '\\' && seen.next() == Some(c) => continue,
            None if seen.as_str().is_empty() => return true,
            Some(_) | None => {}
        }
        let Some((rest, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        (wanted, seen) = (rest.clone(), from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let table = [
            ("GET /api/*", "GET /api/a/b", true),
            ("GET /api/*", "GET /apx/a", false),
            ("GET /api/*", "GET /api/", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("a?", "a", false),
            ("*abc*abd", "xabcabcabd", true),
            ("*abc*abd", "xabcabcab", false),
            ("a*b*c", "a__b_b__c", true),
            ("a*b*c", "a__b_b__cx", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"a\", r"a\", true),
            ("**?", "x", true),
        ];
        for (glob, text, expected) in table {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn scenarios_are_exact_and_types_are_in_any_case() {
        let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "shop*".into() };
        assert!(Selector::Scenario("shop*".into()).matches(&key) && !Selector::Scenario("s*".into()).matches(&key));
        assert!(Selector::Type("get".into()).matches(&key) && !Selector::Type("G*".into()).matches(&key));
        let json = serde_json::to_string(&Selector::Name("a*".into())).unwrap();
        assert_eq!(json, r#"{"name":"a*"}"#);
    }
}
