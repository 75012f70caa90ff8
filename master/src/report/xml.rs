//! Kept requests as XML in the seed's form: one file of successes, one of failures; each request an
//! element, each field a child. Indented by tabs in files, on one line as a value.

use super::escape::{self, Place};
use super::json::Title;
use super::records::{Kept, fields, listed};
use super::{Findings, Part, Report, ReportError};
use ld_shared::record::Record;
use serde_json::Value;
use std::fmt::{Display, Write as _};
use std::io::{self, Write};

/// Kept requests as XML.
pub(super) struct Xml;

impl Report for Xml {
    fn format(&self) -> &'static str {
        "xml"
    }

    fn write(&self, findings: &Findings, part: Part, out: &mut dyn Write) -> Result<(), ReportError> {
        out.write_all(b"<?xml version=\"1.0\" ?>\n")?;
        let kept = Kept::of(findings, part);
        if kept.is_sample() {
            let what = if part == Part::Failures { "failures" } else { "successes" };
            writeln!(out, "<!-- {kept} {what}, a uniform sample -->")?;
        }
        Ok(Writer { out, indented: true, buffer: String::new() }.document(findings, part)?)
    }

    fn value(&self, findings: &Findings, part: Part) -> Result<Value, ReportError> {
        let mut text = Vec::new();
        Writer { out: &mut text, indented: false, buffer: String::new() }.document(findings, part)?;
        Ok(Value::String(String::from_utf8_lossy(&text).into_owned()))
    }
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    indented: bool,
    /// Holds one field at a time.
    buffer: String,
}

impl Writer<'_> {
    fn document(&mut self, findings: &Findings, part: Part) -> io::Result<()> {
        let mut records = listed(findings, part).zip(1..).peekable();
        if records.peek().is_none() {
            return self.empty(0, "xml_data");
        }
        self.line(0, "<xml_data>")?;
        let mut title = String::new();
        for (record, n) in records {
            title.clear();
            show(&mut title, &Title(record, n));
            self.record(&title, record)?;
        }
        self.line(0, "</xml_data>")
    }

    fn record(&mut self, title: &str, record: &Record) -> io::Result<()> {
        self.indent(1)?;
        write!(self.out, "<{title}>")?;
        self.line_end()?;
        fields(record, |name, value| self.shown(name, value))?;
        self.indent(1)?;
        write!(self.out, "</{title}>")?;
        self.line_end()
    }

    fn shown(&mut self, name: &str, value: &dyn Display) -> io::Result<()> {
        let mut text = std::mem::take(&mut self.buffer);
        text.clear();
        show(&mut text, value);
        let written = self.field(name, &text);
        self.buffer = text;
        written
    }

    fn field(&mut self, name: &str, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return self.empty(2, name);
        }
        self.indent(2)?;
        write!(self.out, "<{name}>")?;
        escape::write(self.out, text, if self.indented { Place::Quoted } else { Place::Element })?;
        write!(self.out, "</{name}>")?;
        self.line_end()
    }

    /// The two forms come from two writers of the seed, which differ in a blank.
    fn empty(&mut self, depth: usize, name: &str) -> io::Result<()> {
        self.indent(depth)?;
        write!(self.out, "<{name}{}/>", if self.indented { "" } else { " " })?;
        self.line_end()
    }

    fn line(&mut self, depth: usize, tag: &str) -> io::Result<()> {
        self.indent(depth)?;
        self.out.write_all(tag.as_bytes())?;
        self.line_end()
    }

    fn indent(&mut self, depth: usize) -> io::Result<()> {
        (0..depth).filter(|_| self.indented).try_for_each(|_| self.out.write_all(b"\t"))
    }

    fn line_end(&mut self) -> io::Result<()> {
        if self.indented { self.out.write_all(b"\n") } else { Ok(()) }
    }
}

fn show(text: &mut String, value: &dyn Display) {
    write!(text, "{value}").expect("writing to a String cannot fail");
}
