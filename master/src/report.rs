//! Reports: the trait, and the table of them.
//!
//! To add one: a file beside this one's children, its `mod` line and its line in [`REPORTS`]. Its
//! command, its parameter and its help come from that line.

mod csv;
pub mod files;
mod html;
mod summary;

use crate::run::Run;
use crate::run::result::RunResult;
use crate::script::{Kind, Parameter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What reports are made from: everything since `LD_clear_records`, or of a whole document.
pub struct Findings {
    /// The result.
    pub result: RunResult,
    /// The runs behind it, in their order.
    pub runs: Vec<Arc<Run>>,
}

/// A form of report. Pure: no clock, no network, no file names.
pub trait Report: Sync {
    /// `csv`.
    fn format(&self) -> &'static str;
    /// Its content.
    fn render(&self, findings: &Findings) -> Result<Vec<u8>, ReportError>;
}

/// A report in the table.
pub struct Line {
    /// The report.
    pub report: &'static dyn Report,
    /// Command that writes it.
    pub command: &'static str,
    /// What the command does, for help.
    pub about: &'static str,
    /// Its one parameter: the file's name without ending.
    pub parameters: &'static [Parameter],
    /// Value of the parameter when absent.
    pub default: &'static str,
    /// Ending of the file's name.
    pub ending: &'static str,
}

/// All reports.
pub const REPORTS: &[Line] = &[
    Line {
        report: &summary::Summary,
        command: "LD_generate_summary_report",
        about: "Writes the result as JSON: totals, percentiles, names, timeline, verdict",
        parameters: &[Parameter::new("report_name", Kind::Text)],
        default: "loaddensity-summary",
        ending: ".json",
    },
    Line {
        report: &csv::Csv,
        command: "LD_generate_csv_report",
        about: "Writes the kept requests as CSV, successes first",
        parameters: &[Parameter::new("csv_name", Kind::Text)],
        default: "default_name",
        ending: ".csv",
    },
    Line {
        report: &html::Html,
        command: "LD_generate_html_report",
        about: "Writes one page to look at: verdict, charts, tables",
        parameters: &[Parameter::new("html_name", Kind::Text)],
        default: "default_name",
        ending: ".html",
    },
];

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Nothing was measured, and the form has nothing to say then.
    #[error("no records to generate HTML report")]
    NoRecords,
    /// The template does not fit the data: a fault of ours.
    #[error("cannot render the report")]
    Render(#[source] minijinja::Error),
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] files::WriteError),
}

/// The report of a format (`html`).
pub fn named(format: &str) -> Option<&'static Line> {
    REPORTS.iter().find(|line| line.report.format() == format)
}

impl Line {
    /// Writes the report to `NAME.ending` and returns that path.
    pub fn write(&self, findings: &Findings, name: &str) -> Result<PathBuf, ReportError> {
        let path = PathBuf::from(format!("{name}{}", self.ending));
        self.write_to(findings, &path)?;
        Ok(path)
    }

    /// Writes the report to `path`.
    pub fn write_to(&self, findings: &Findings, path: &Path) -> Result<(), ReportError> {
        Ok(files::write(path, &self.report.render(findings)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;
    use crate::run::verdict::Verdict;

    pub(super) fn findings() -> Findings {
        let measured = fixture::measured();
        let verdict = Verdict::of(&measured, fixture::thresholds());
        let runs = vec![Arc::new(Run { measured, verdict: verdict.clone(), label: Some("shop".into()) })];
        Findings { result: RunResult::of(&runs, verdict), runs }
    }

    pub(super) fn nothing() -> Findings {
        Findings { result: RunResult::of(&[], Verdict::nothing()), runs: Vec::new() }
    }

    #[test]
    fn summary_of_a_run() {
        let text = String::from_utf8(summary::Summary.render(&findings()).unwrap()).unwrap();
        insta::assert_snapshot!("summary", text);
    }

    #[test]
    fn summary_has_the_keys_of_the_seed_and_zeros_without_a_run() {
        let text = String::from_utf8(summary::Summary.render(&nothing()).unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["totals"]["requests"], 0);
        assert_eq!(value["totals"]["failure_rate"], 0.0);
        assert_eq!(value["latency_overall"]["p99_ms"], 0.0);
        assert_eq!(value["per_name"], serde_json::json!({}));
        assert_eq!(value["conservation"]["ok"], true);
    }

    #[test]
    fn csv_of_a_run() {
        let text = String::from_utf8(csv::Csv.render(&findings()).unwrap()).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[0], "outcome,Method,test_url,name,status_code,response_time_ms,response_length,error");
        let first_failure = lines.iter().position(|l| l.starts_with("failure")).unwrap();
        assert!(lines[first_failure..lines.len() - 1].iter().all(|l| l.starts_with("failure")));
        insta::assert_snapshot!("csv", [&lines[..6], &lines[first_failure..first_failure + 3]].concat().join("\n"));
    }

    #[test]
    fn without_a_run_csv_is_a_header_and_html_an_error() {
        let header = "outcome,Method,test_url,name,status_code,response_time_ms,response_length,error\r\n";
        assert_eq!(csv::Csv.render(&nothing()).unwrap(), header.as_bytes());
        assert_eq!(html::Html.render(&nothing()).unwrap_err().to_string(), "no records to generate HTML report");
    }

    #[test]
    fn html_of_a_run() {
        let page = String::from_utf8(html::Html.render(&findings()).unwrap()).unwrap();
        assert!(page.contains("search &lt;shoes&gt;") && !page.contains("<shoes>"));
        assert!(!page.contains("http://") || !page.contains("src="), "one offline file");
        assert!(page.len() < 2_000_000);
        insta::assert_snapshot!("html", text_of(&page));
    }

    /// Writes the page where a person can look at it: `cargo test -p ld-master look -- --ignored`.
    #[test]
    #[ignore = "for eyes"]
    fn look() {
        let page = html::Html.render(&findings()).unwrap();
        files::write(&std::env::temp_dir().join("loaddensity-look.html"), &page).unwrap();
    }

    /// What a reader sees: the page without its style, charts and tags.
    fn text_of(page: &str) -> String {
        let body = page.split("</style>").last().unwrap_or_default();
        let mut text = String::new();
        let mut rest = body;
        while let Some((before, tag)) = rest.split_once('<') {
            text.push_str(before);
            text.push('\n');
            let close = if tag.starts_with("svg") { "</svg>" } else { ">" };
            rest = tag.split_once(close).map_or("", |(_, after)| after);
        }
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    }
}
