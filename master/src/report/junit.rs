//! `JUnit` XML: a case a kept request, in the seed's form, and one a threshold.
//!
//! `tests`, `failures` and `errors` count the cases that are listed; what they were chosen from
//! stands in the properties. A threshold that could not be judged is an error, so that no consumer
//! shows it green.

use super::escape::{self, Place};
use super::records::{Kept, listed};
use super::{Findings, Part, Report, ReportError};
use crate::run::verdict::Threshold;
use ld_shared::record::Record;
use std::io::{self, Write};

/// Requests and thresholds as test cases.
pub(super) struct Junit;

impl Report for Junit {
    fn format(&self) -> &'static str {
        "junit"
    }

    fn write(&self, findings: &Findings, part: Part, out: &mut dyn Write) -> Result<(), ReportError> {
        let rules = rules(findings);
        open(findings, &rules, out)?;
        for record in listed(findings, part) {
            request(record, out)?;
        }
        for rule in &rules {
            rule.write(out)?;
        }
        out.write_all(b"</testsuite>")?;
        Ok(())
    }
}

/// The suite's own line, and its properties. Without a run it is the seed's empty suite.
fn open(findings: &Findings, rules: &[Rule<'_>], out: &mut dyn Write) -> io::Result<()> {
    let kept = Kept::of(findings, Part::All);
    let broken = |state: State| rules.iter().filter(|rule| rule.state == state).count() as u64;
    let tests = kept.kept + rules.len() as u64;
    let failures = Kept::of(findings, Part::Failures).kept + broken(State::Broken);
    out.write_all(br#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    write!(out, r#"<testsuite name="loaddensity" tests="{tests}" failures="{failures}""#)?;
    let Some(first) = findings.runs.first() else { return out.write_all(b">") };
    let seconds: f64 = findings.runs.iter().map(|run| run.measured.duration_s).sum();
    let at = first.measured.started_at.format("%Y-%m-%dT%H:%M:%S");
    write!(out, r#" errors="{}" skipped="0" time="{seconds:.3}" timestamp="{at}">"#, broken(State::Unsure))?;
    out.write_all(b"<properties>")?;
    let sample = if kept.is_sample() { ", a uniform sample" } else { "" };
    property("records", &format!("{kept} requests{sample}"), out)?;
    property("verdict", findings.result.verdict.outcome.name(), out)?;
    for run in &findings.runs {
        property("run", &run.measured.run.to_string(), out)?;
    }
    out.write_all(b"</properties>")
}

fn property(name: &str, value: &str, out: &mut dyn Write) -> io::Result<()> {
    write!(out, r#"<property name="{name}" value=""#)?;
    escape::write(out, value, Place::Attribute)?;
    out.write_all(br#""/>"#)
}

fn request(record: &Record, out: &mut dyn Write) -> io::Result<()> {
    case(&record.request_type, &record.name, out)?;
    write!(out, r#" time="{:.3}""#, record.response_us as f64 / 1e6)?;
    match &record.error {
        None => out.write_all(b"/>"),
        Some(error) => outcome("failure", error, out),
    }
}

fn case(class: &str, name: &str, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(br#"<testcase classname=""#)?;
    escape::write(out, class, Place::Attribute)?;
    out.write_all(br#"" name=""#)?;
    escape::write(out, name, Place::Attribute)?;
    out.write_all(br#"""#)
}

/// The end of a case that is no success.
fn outcome(element: &str, message: &str, out: &mut dyn Write) -> io::Result<()> {
    write!(out, r#"><{element} message=""#)?;
    escape::write(out, message, Place::Attribute)?;
    out.write_all(br#"">"#)?;
    escape::write(out, message, Place::Html)?;
    write!(out, "</{element}></testcase>")
}

/// A threshold of one of the runs.
struct Rule<'a> {
    threshold: &'a Threshold,
    /// Number of its run, where there are several.
    run: Option<usize>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Holds,
    Broken,
    /// The generator was the limit.
    Unsure,
}

fn rules(findings: &Findings) -> Vec<Rule<'_>> {
    let several = findings.runs.len() > 1;
    let mut rules = Vec::new();
    for (run, n) in findings.runs.iter().zip(1..) {
        for threshold in &run.verdict.thresholds {
            let state = match (threshold.is_unsure(&run.measured), threshold.ok) {
                (true, _) => State::Unsure,
                (false, true) => State::Holds,
                (false, false) => State::Broken,
            };
            rules.push(Rule { threshold, run: several.then_some(n), state });
        }
    }
    rules
}

impl Rule<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Threshold { rule, seen, .. } = self.threshold;
        match self.run {
            Some(n) => case("threshold", &format!("{rule} (test {n})"), out)?,
            None => case("threshold", rule, out)?,
        }
        out.write_all(br#" time="0.000""#)?;
        match self.state {
            State::Holds => out.write_all(b"/>"),
            State::Broken => outcome("failure", &format!("{rule} does not hold: {seen}"), out),
            State::Unsure => {
                let text = format!("{rule} could not be judged: the generator was the limit (seen: {seen})");
                outcome("error", &text, out)
            }
        }
    }
}
