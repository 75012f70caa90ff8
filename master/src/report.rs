//! Reports: the trait, and the table of them.
//!
//! To add one: a file beside this one's children, its `mod` line and its line in [`REPORTS`]. Its
//! commands, their parameter and their help come from that line.
//!
//! Reports list the kept requests of the main window, successes first, then failures, each in order
//! of completion. They stream: 200,000 of them cost no more memory than one.

mod csv;
mod escape;
pub mod files;
mod html;
mod json;
mod junit;
mod records;
mod summary;
#[cfg(test)]
mod tests;
mod xml;

pub use records::Kept;

use crate::run::Run;
use crate::run::result::RunResult;
use crate::script::{Kind, Parameter};
use files::{NewFile, WriteError};
use serde_json::Value;
use std::io::{self, Write};
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

    /// Whether it lists requests one by one.
    fn lists_requests(&self) -> bool {
        true
    }

    /// Writes the content of one of its files, piece by piece.
    fn write(&self, findings: &Findings, part: Part, out: &mut dyn Write) -> Result<(), ReportError>;

    /// The same as a value, for its command that writes no file. Unless a report has something
    /// better: the text.
    fn value(&self, findings: &Findings, part: Part) -> Result<Value, ReportError> {
        let mut text = Vec::new();
        self.write(findings, part, &mut text)?;
        Ok(Value::String(String::from_utf8_lossy(&text).into_owned()))
    }
}

/// Which requests a file of a report lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All: successes, then failures.
    All,
    /// Successes only.
    Successes,
    /// Failures only.
    Failures,
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
    /// Its files: what each holds, and the ending of its name.
    pub files: &'static [(Part, &'static str)],
    /// Command that gives it and writes nothing.
    pub in_memory: Option<InMemory>,
    /// Class and text of the error of its commands when no request has ended. `None`: the report
    /// is written, and says so.
    pub empty: Option<(&'static str, &'static str)>,
}

/// A report's command that writes no file.
pub struct InMemory {
    /// The command.
    pub command: &'static str,
    /// What it does, for help.
    pub about: &'static str,
    /// What it gives: one value, or a pair.
    pub parts: &'static [Part],
}

const PAIR: &[Part] = &[Part::Successes, Part::Failures];
const NO_JSON: Option<(&str, &str)> = Some(("LoadDensityGenerateJsonReportException", "can't generate JSON report"));

/// All reports.
pub const REPORTS: &[Line] = &[
    Line {
        report: &summary::Summary,
        command: "LD_generate_summary_report",
        about: "Writes the result as JSON: totals, percentiles, names, timeline, verdict",
        parameters: &[Parameter::new("report_name", Kind::Text).file()],
        default: "loaddensity-summary",
        files: &[(Part::All, ".json")],
        in_memory: Some(InMemory {
            command: "LD_summary",
            about: "Gives the result of every test since LD_clear_records",
            parts: &[Part::All],
        }),
        empty: None,
    },
    Line {
        report: &csv::Csv,
        command: "LD_generate_csv_report",
        about: "Writes the kept requests as CSV, successes first",
        parameters: &[Parameter::new("csv_name", Kind::Text).file()],
        default: "default_name",
        files: &[(Part::All, ".csv")],
        in_memory: None,
        empty: None,
    },
    Line {
        report: &html::Html,
        command: "LD_generate_html_report",
        about: "Writes one page to look at: verdict, charts, tables",
        parameters: &[Parameter::new("html_name", Kind::Text).file()],
        default: "default_name",
        files: &[(Part::All, ".html")],
        in_memory: Some(InMemory {
            command: "LD_generate_html",
            about: "Gives an HTML table of each kept request: a list of successes, a list of failures",
            parts: PAIR,
        }),
        empty: Some(("LoadDensityHTMLException", "no records to generate HTML report")),
    },
    Line {
        report: &json::Json,
        command: "LD_generate_json_report",
        about: "Writes the kept requests as JSON with their answers: successes and failures apart",
        parameters: &[Parameter::new("json_file_name", Kind::Text).file()],
        default: "default_name",
        files: &[(Part::Successes, "_success.json"), (Part::Failures, "_failure.json")],
        in_memory: Some(InMemory {
            command: "LD_generate_json",
            about: "Gives the kept requests as two objects: successes, failures",
            parts: PAIR,
        }),
        empty: NO_JSON,
    },
    Line {
        report: &xml::Xml,
        command: "LD_generate_xml_report",
        about: "Writes the kept requests as XML with their answers: successes and failures apart",
        parameters: &[Parameter::new("xml_file_name", Kind::Text).file()],
        default: "default_name",
        files: &[(Part::Successes, "_success.xml"), (Part::Failures, "_failure.xml")],
        in_memory: Some(InMemory {
            command: "LD_generate_xml",
            about: "Gives the kept requests as two XML texts: successes, failures",
            parts: PAIR,
        }),
        // the seed's own text: it makes the XML from the JSON
        empty: NO_JSON,
    },
    Line {
        report: &junit::Junit,
        command: "LD_generate_junit_report",
        about: "Writes the kept requests and the thresholds as JUnit test cases",
        parameters: &[Parameter::new("report_name", Kind::Text).file()],
        default: "loaddensity-junit",
        files: &[(Part::All, ".xml")],
        in_memory: None,
        empty: None,
    },
];

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No request has ended, and the form has nothing to say then.
    #[error("{text}")]
    Empty {
        /// The seed's class of the error.
        kind: &'static str,
        /// Its text.
        text: &'static str,
    },
    /// There is no run to show.
    #[error("no test has run, so there is nothing to show")]
    NoRun,
    /// The template does not fit the data: a fault of ours.
    #[error("cannot render the report")]
    Render(#[source] minijinja::Error),
    /// What it was being written to took no more.
    #[error("cannot write the report")]
    Io(#[from] io::Error),
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl ReportError {
    /// The seed's class of the error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Empty { kind, .. } => kind,
            Self::NoRun | Self::Render(_) => "LoadDensityHTMLException",
            Self::Io(_) | Self::Write(_) => "OSError",
        }
    }
}

/// The report of a format (`html`).
pub fn named(format: &str) -> Option<&'static Line> {
    REPORTS.iter().find(|line| line.report.format() == format)
}

impl Line {
    /// What its command does: writes every file to `NAME` + ending, and returns their paths.
    ///
    /// Files of a pair take their names only once both are whole.
    pub fn write(&self, findings: &Findings, name: &str) -> Result<Vec<PathBuf>, ReportError> {
        self.refuse_empty(findings)?;
        let paths: Vec<PathBuf> =
            self.files.iter().map(|(_, ending)| PathBuf::from(format!("{name}{ending}"))).collect();
        let written = self.files.iter().zip(&paths).map(|((part, _), path)| self.write_part(findings, *part, path));
        let written: Vec<NewFile> = written.collect::<Result<_, _>>()?;
        for file in written {
            file.commit()?;
        }
        Ok(paths)
    }

    /// Writes a report of one file to `path`, whatever there is to report.
    pub fn write_to(&self, findings: &Findings, path: &Path) -> Result<(), ReportError> {
        Ok(self.write_part(findings, Part::All, path)?.commit()?)
    }

    fn write_part(&self, findings: &Findings, part: Part, path: &Path) -> Result<NewFile, ReportError> {
        let mut file = NewFile::create(path)?;
        match self.report.write(findings, part, &mut file) {
            Ok(()) => Ok(file),
            Err(ReportError::Io(source)) => Err(file.fault(source).into()),
            Err(other) => Err(other),
        }
    }

    /// What its command without a file gives: one value, or a pair.
    pub fn value(&self, findings: &Findings, parts: &[Part]) -> Result<Value, ReportError> {
        self.refuse_empty(findings)?;
        let mut values = parts.iter().map(|part| self.report.value(findings, *part)).collect::<Result<Vec<_>, _>>()?;
        Ok(if values.len() == 1 { values.remove(0) } else { Value::Array(values) })
    }

    fn refuse_empty(&self, findings: &Findings) -> Result<(), ReportError> {
        match self.empty {
            Some((kind, text)) if findings.result.is_empty() => Err(ReportError::Empty { kind, text }),
            _ => Ok(()),
        }
    }
}
