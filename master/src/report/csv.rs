//! Kept requests as CSV: the seed's columns, successes first, then failures, each in order of
//! completion; RFC 4180 quoting and CRLF lines.

use super::{Findings, Report, ReportError};
use ld_shared::record::Record;
use ld_shared::sample::Phase;

/// Kept requests as CSV.
pub(super) struct Csv;

const HEADER: [&str; 8] =
    ["outcome", "Method", "test_url", "name", "status_code", "response_time_ms", "response_length", "error"];

impl Report for Csv {
    fn format(&self) -> &'static str {
        "csv"
    }

    fn render(&self, findings: &Findings) -> Result<Vec<u8>, ReportError> {
        let mut out = ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(Vec::new());
        let memory = "writing rows of eight fields into memory cannot fail";
        out.write_record(HEADER).expect(memory);
        let main = || findings.runs.iter().flat_map(|run| &run.measured.records).filter(|r| r.phase == Phase::Main);
        for record in main().filter(|r| r.error.is_none()).chain(main().filter(|r| r.error.is_some())) {
            out.write_record(row(record)).expect(memory);
        }
        Ok(out.into_inner().expect(memory))
    }
}

fn row(record: &Record) -> [String; 8] {
    [
        if record.error.is_none() { "success" } else { "failure" }.into(),
        record.request_type.to_string(),
        record.url.to_string(),
        record.name.to_string(),
        record.status.map(|status| status.to_string()).unwrap_or_default(),
        (record.response_us as f64 / 1e3).to_string(),
        record.body_bytes.to_string(),
        record.error.as_deref().unwrap_or_default().to_owned(),
    ]
}
