//! Kept requests as CSV: the seed's columns, successes first, then failures, each in order of
//! completion; RFC 4180 quoting and CRLF lines.

use super::records::{Millis, listed};
use super::{Findings, Part, Report, ReportError};
use std::fmt::Write as _;
use std::io::{self, Write};

/// Kept requests as CSV.
pub(super) struct Csv;

const HEADER: [&str; 8] =
    ["outcome", "Method", "test_url", "name", "status_code", "response_time_ms", "response_length", "error"];

impl Report for Csv {
    fn format(&self) -> &'static str {
        "csv"
    }

    fn write(&self, findings: &Findings, part: Part, out: &mut dyn Write) -> Result<(), ReportError> {
        let mut rows = ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(out);
        rows.write_record(HEADER).map_err(io_error)?;
        let [mut status, mut millis, mut length] = [const { String::new() }; 3];
        for record in listed(findings, part) {
            [&mut status, &mut millis, &mut length].into_iter().for_each(String::clear);
            let texts = record
                .status
                .map_or(Ok(()), |code| write!(status, "{code}"))
                .and_then(|()| write!(millis, "{}", Millis(record.response_us)))
                .and_then(|()| write!(length, "{}", record.body_bytes));
            texts.expect("writing to a String cannot fail");
            rows.write_record([
                if record.error.is_none() { "success" } else { "failure" },
                &record.request_type,
                &record.url,
                &record.name,
                &status,
                &millis,
                &length,
                record.error.as_deref().unwrap_or_default(),
            ])
            .map_err(io_error)?;
        }
        Ok(rows.flush()?)
    }
}

fn io_error(error: ::csv::Error) -> io::Error {
    match error.into_kind() {
        ::csv::ErrorKind::Io(error) => error,
        // rows of one length in UTF-8 have no other fault
        other => io::Error::other(format!("{other:?}")),
    }
}
