//! Reports of a run.

use super::Web;
use super::problem::{Code, Problem};
use super::route::{Call, apart, content};
use super::runs::{Subject, result};
use crate::report::{self, Findings, Part, ReportError};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use std::sync::Arc;

/// The formats that there are, and the types of their bodies.
pub(super) const FORMATS: &[&str] = &["html", "json", "xml", "csv", "junit", "summary"];
/// Which requests a report lists.
pub(super) const PARTS: &[&str] = &["all", "successes", "failures"];

/// Type of a report's body.
fn content_type(format: &str) -> &'static str {
    match format {
        "html" => "text/html; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" | "junit" => "application/xml",
        _ => "application/json",
    }
}

/// Gives one.
pub(super) async fn give(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    let format = call.text("format").unwrap_or_default().to_owned();
    let part = match call.text("part") {
        Some("successes") => Part::Successes,
        Some("failures") => Part::Failures,
        _ => Part::All,
    };
    let none = |why: &str| Problem::new(Code::NoSuchReport, why).param("format", format.as_str());
    let subject = Subject::find(&web, call.id()).await?;
    if let Subject::Kept(kept) = &subject {
        if format != "summary" {
            let problem = none("the store keeps the result of a run, not its requests");
            return Err(problem.help("`summary` is there; other reports are made while the process lives"));
        }
        return Ok(content(StatusCode::OK, content_type("summary"), pretty(&kept.result)));
    }
    let findings = subject.findings().ok_or_else(|| none("no test of it is over yet"))?;
    let content_type = content_type(&format);
    let name = format.clone();
    // up to 200,000 requests are written
    let written = apart(move || write(&name, &findings, part)).await;
    let text = written.map_err(|error| none(&crate::command::with_causes(&error)))?;
    Ok(content(StatusCode::OK, content_type, text))
}

fn write(format: &str, findings: &Findings, part: Part) -> Result<Vec<u8>, ReportError> {
    if format == "summary" {
        return Ok(pretty(&result(&findings.result)));
    }
    let line = report::named(format).expect("the table of routes has only formats of the table of reports");
    let mut out = Vec::new();
    line.report.write(findings, part, &mut out)?;
    Ok(out)
}

fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("a JSON value has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_the_table() {
        let mut known: Vec<_> = report::REPORTS.iter().map(|line| line.report.format()).collect();
        let mut ours = FORMATS.to_vec();
        known.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, known);
    }
}
