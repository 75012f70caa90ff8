//! Rows of the file of all requests: the seed's columns, `start_time` and `worker`.

use chrono::{DateTime, Utc};
use ld_shared::record::{RequestLine, start_time};
use serde::Serialize;
use std::fmt::Write as _;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// RFC 4180, CRLF, with a header.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

const HEADER: [&str; 10] = [
    "outcome",
    "Method",
    "test_url",
    "name",
    "status_code",
    "response_time_ms",
    "response_length",
    "error",
    "start_time",
    "worker",
];

/// One row. Numbers that are text in the seed's records are text here.
#[derive(Serialize)]
struct Row<'a> {
    outcome: &'static str,
    #[serde(rename = "Method")]
    method: &'a str,
    test_url: &'a str,
    name: &'a str,
    status_code: Option<&'a str>,
    response_time_ms: f64,
    response_length: u64,
    error: Option<&'a str>,
    start_time: f64,
    worker: &'a str,
}

/// Makes rows.
#[derive(Debug)]
pub(super) struct Rows {
    form: Form,
    status: String,
    numbers: [String; 3],
}

impl Rows {
    pub(super) fn new(form: Form) -> Self {
        Self { form, status: String::new(), numbers: Default::default() }
    }

    /// What the file begins with.
    pub(super) fn header(&self) -> Vec<u8> {
        match self.form {
            Form::Csv => csv(|out| out.write_record(HEADER)),
            Form::JsonLines => Vec::new(),
        }
    }

    /// The rows of a batch.
    pub(super) fn of(&mut self, lines: &[RequestLine], worker: &str, run_started: DateTime<Utc>) -> Vec<u8> {
        match self.form {
            Form::Csv => csv(|out| lines.iter().try_for_each(|line| self.csv_row(out, line, worker, run_started))),
            Form::JsonLines => {
                let mut out = Vec::new();
                for line in lines {
                    let row = self.row(line, worker, run_started);
                    serde_json::to_writer(&mut out, &row).expect("texts and numbers have a JSON form");
                    out.push(b'\n');
                }
                out
            }
        }
    }

    fn row<'a>(&'a mut self, line: &'a RequestLine, worker: &'a str, run_started: DateTime<Utc>) -> Row<'a> {
        self.status.clear();
        if let Some(status) = line.status {
            write!(self.status, "{status}").expect("memory takes text");
        }
        Row {
            outcome: if line.error.is_none() { "success" } else { "failure" },
            method: &line.request_type,
            test_url: &line.url,
            name: &line.name,
            status_code: line.status.map(|_| &*self.status),
            response_time_ms: line.response_us as f64 / 1e3,
            response_length: line.body_bytes,
            error: line.error.as_deref(),
            start_time: start_time(line.started_at, run_started),
            worker,
        }
    }

    fn csv_row(
        &mut self,
        out: &mut ::csv::Writer<Vec<u8>>,
        line: &RequestLine,
        worker: &str,
        run_started: DateTime<Utc>,
    ) -> ::csv::Result<()> {
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.iter_mut().for_each(String::clear);
        let row = self.row(line, worker, run_started);
        let [time, length, start] = &mut numbers;
        write!(time, "{}", row.response_time_ms).expect("memory takes text");
        write!(length, "{}", row.response_length).expect("memory takes text");
        write!(start, "{:.6}", row.start_time).expect("memory takes text");
        let written = out.write_record([
            row.outcome,
            row.method,
            row.test_url,
            row.name,
            row.status_code.unwrap_or_default(),
            time,
            length,
            row.error.unwrap_or_default(),
            start,
            row.worker,
        ]);
        self.numbers = numbers;
        written
    }
}

fn csv(write: impl FnOnce(&mut ::csv::Writer<Vec<u8>>) -> ::csv::Result<()>) -> Vec<u8> {
    let mut out = ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(Vec::new());
    let memory = "writing rows of ten fields into memory cannot fail";
    write(&mut out).expect(memory);
    out.into_inner().expect(memory)
}
