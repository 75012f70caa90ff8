//! Kept requests as JSON in the seed's form: one object of successes, one of failures, indented by
//! four, every value a text.

use super::records::{fields, listed};
use super::{Findings, Part, Report, ReportError};
use ld_shared::record::Record;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer as JsonSerializer};
use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};

/// Kept requests as JSON.
pub(super) struct Json;

impl Report for Json {
    fn format(&self) -> &'static str {
        "json"
    }

    fn write(&self, findings: &Findings, part: Part, out: &mut dyn Write) -> Result<(), ReportError> {
        let mut json = JsonSerializer::with_formatter(out, PrettyFormatter::with_indent(b"    "));
        Ok(Records(findings, part).serialize(&mut json).map_err(io::Error::from)?)
    }

    fn value(&self, findings: &Findings, part: Part) -> Result<Value, ReportError> {
        Ok(serde_json::to_value(Records(findings, part)).map_err(io::Error::from)?)
    }
}

/// The requests of a part, by number.
struct Records<'a>(&'a Findings, Part);

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (record, n) in listed(self.0, self.1).zip(1..) {
            map.serialize_entry(&Shown(Title(record, n)), &Row(record))?;
        }
        map.end()
    }
}

struct Row<'a>(&'a Record);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        fields(self.0, |name, value| map.serialize_entry(name, &Shown(value)))?;
        map.end()
    }
}

/// What a request is called: `Success_Test1`.
pub(super) struct Title<'a>(pub(super) &'a Record, pub(super) u64);

impl Display for Title<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let outcome = if self.0.error.is_none() { "Success" } else { "Failure" };
        write!(f, "{outcome}_Test{}", self.1)
    }
}

/// A text in JSON, without being made first.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
