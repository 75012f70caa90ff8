//! The result as JSON, indented by two and ASCII only like the seed's.

use super::{Findings, Part, Report, ReportError};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::io::{self, Write};

/// The result as JSON.
pub(super) struct Summary;

impl Report for Summary {
    fn format(&self) -> &'static str {
        "summary"
    }

    fn lists_requests(&self) -> bool {
        false
    }

    fn write(&self, findings: &Findings, _: Part, out: &mut dyn Write) -> Result<(), ReportError> {
        let mut serializer = Serializer::with_formatter(&mut *out, Ascii(PrettyFormatter::with_indent(b"  ")));
        findings.result.serialize(&mut serializer).map_err(io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    }

    fn value(&self, findings: &Findings, _: Part) -> Result<Value, ReportError> {
        Ok(serde_json::to_value(&findings.result).map_err(io::Error::from)?)
    }
}

/// Escapes what is not ASCII as `\uXXXX`.
struct Ascii(PrettyFormatter<'static>);

impl Formatter for Ascii {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for c in fragment.chars() {
            if c.is_ascii() {
                writer.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn begin_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_and_lossless() {
        let value = serde_json::json!({"ünï 😀": ["\u{1}\"", 0.1, 1e21, 0.0]});
        let mut text = Vec::new();
        value
            .serialize(&mut Serializer::with_formatter(&mut text, Ascii(PrettyFormatter::with_indent(b"  "))))
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.is_ascii() && text.contains("\\u00fcn\\u00ef \\ud83d\\ude00"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
