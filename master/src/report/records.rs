//! Which requests reports list, in which order, and how their fields read.

use super::{Findings, Part};
use crate::format;
use ld_shared::pytext::Bytes;
use ld_shared::record::{Answer, Record};
use ld_shared::sample::Phase;
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

/// The kept requests of the main window that a file lists: successes, then failures, each in order
/// of completion.
pub(super) fn listed(findings: &Findings, part: Part) -> impl Iterator<Item = &Record> + Clone {
    let of = move |failed: bool, wanted: bool| {
        let runs = if wanted { findings.runs.as_slice() } else { &[] };
        let records = runs.iter().flat_map(|run| run.measured.records.iter());
        records.filter(move |r| r.phase == Phase::Main && r.error.is_some() == failed)
    };
    of(false, part != Part::Failures).chain(of(true, part != Part::Successes))
}

/// How many requests are listed one by one, of how many that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Listed.
    pub kept: u64,
    /// That ended.
    pub seen: u64,
}

impl Kept {
    /// In a part of a report.
    pub fn of(findings: &Findings, part: Part) -> Self {
        let totals = &findings.result.totals;
        let seen = match part {
            Part::All => totals.requests,
            Part::Successes => totals.successes,
            Part::Failures => totals.failures,
        };
        Self { kept: listed(findings, part).count() as u64, seen }
    }

    /// Whether some are left out.
    pub fn is_sample(self) -> bool {
        self.kept < self.seen
    }
}

impl Display for Kept {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "kept {} of {}", format::count(self.kept), format::count(self.seen))
    }
}

/// The fields of a request in the seed's order and under its names, each as text.
pub(super) fn fields<E>(
    record: &Record,
    mut each: impl FnMut(&'static str, &dyn Display) -> Result<(), E>,
) -> Result<(), E> {
    each("Method", &record.request_type)?;
    each("test_url", &record.url)?;
    each("name", &record.name)?;
    each("status_code", &Status(record.status))?;
    if let Some(error) = &record.error {
        return each("error", error);
    }
    each("text", &text(record))?;
    each("content", &Content(record))?;
    each("headers", &HeaderLines(record))
}

/// The status as reports have it: `None` where the protocol has none, `0` without an answer.
pub(super) struct Status(pub(super) Option<u16>);

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(status) => status.fmt(f),
            None => f.write_str("None"),
        }
    }
}

/// The body as text; bytes that are none become U+FFFD. Empty if it was not kept, and with a remark
/// at its end if it was cut. `None`: there is no such thing as a body.
fn text(record: &Record) -> Cow<'_, str> {
    let Some(answer) = &record.answer else {
        return if record.status.is_some() { "" } else { "None" }.into();
    };
    let text = decoded(answer);
    let kept = answer.body.len() as u64;
    if kept >= record.body_bytes {
        return text;
    }
    // a character that the cut went through is no fault of the target's
    let whole = text.strip_suffix('\u{fffd}').unwrap_or(&text);
    format!("{whole}… ({kept} of {} bytes kept)", record.body_bytes).into()
}

/// Latin-1 if the answer says so, else UTF-8.
fn decoded(answer: &Answer) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(&answer.body)
        && (text.is_ascii() || !is_latin(answer))
    {
        return text.into();
    }
    if is_latin(answer) {
        return answer.body.iter().map(|byte| char::from(*byte)).collect::<String>().into();
    }
    String::from_utf8_lossy(&answer.body)
}

fn is_latin(answer: &Answer) -> bool {
    let mut types = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let Some((_, kind)) = types.next() else { return false };
    let kind = kind.to_ascii_lowercase();
    let Some((_, charset)) = kind.split_once("charset=") else { return false };
    let charset = charset.split(';').next().unwrap_or_default().trim_matches([' ', '"', '\'']);
    matches!(charset, "iso-8859-1" | "latin1" | "latin-1" | "iso8859-1")
}

/// The body's exact bytes in Python notation; empty if it was not kept.
struct Content<'a>(&'a Record);

impl Display for Content<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0.answer {
            Some(answer) => Bytes(&answer.body).fmt(f),
            None => f.write_str(if self.0.status.is_some() { "" } else { "None" }),
        }
    }
}

/// The answer's headers, one per line; empty if they were not kept.
struct HeaderLines<'a>(&'a Record);

impl Display for HeaderLines<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(answer) = &self.0.answer else {
            return f.write_str(if self.0.status.is_some() { "" } else { "None" });
        };
        for (i, (name, value)) in answer.headers.iter().enumerate() {
            f.write_str(if i > 0 { "\n" } else { "" })?;
            f.write_str(name)?;
            f.write_str(": ")?;
            f.write_str(value)?;
        }
        Ok(())
    }
}

/// Milliseconds with every digit there is, as Python writes them: `5.0`, `0.463`.
pub(super) struct Millis(pub(super) u64);

impl Display for Millis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0 as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn record(body: &[u8], length: u64, content_type: &str) -> Record {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned()), ("X".to_owned(), "y".to_owned())];
        let answer = Some(Arc::new(Answer { headers, body: body.to_vec() }));
        Record { answer, body_bytes: length, ..super::super::tests::record("a", Some(200), None) }
    }

    #[test]
    fn bodies_read_as_text() {
        let table: [(&[u8], u64, &str, &str); 6] = [
            (b"plain", 5, "text/plain", "plain"),
            (b"h\xc3\xa9", 3, "text/plain; charset=utf-8", "hé"),
            (b"h\xe9", 2, "text/plain; charset=\"ISO-8859-1\"", "hé"),
            (b"h\xc3\xa9", 3, "text/plain;charset=latin1; x=y", "hÃ©"),
            (b"a\xffb", 3, "application/json", "a\u{fffd}b"),
            (b"abc\xc3", 9, "text/plain", "abc… (4 of 9 bytes kept)"),
        ];
        for (body, length, kind, expected) in table {
            assert_eq!(text(&record(body, length, kind)), expected);
        }
        let shown = record(b"it's", 4, "text/plain");
        assert_eq!(Content(&shown).to_string(), "b\"it's\"");
        assert_eq!(HeaderLines(&shown).to_string(), "Content-Type: text/plain\nX: y");
    }

    #[test]
    fn what_was_not_kept_is_empty_and_what_there_is_not_is_none() {
        let http = super::super::tests::record("a", Some(200), None);
        let message = super::super::tests::record("a", None, None);
        for (record, expected) in [(&http, ""), (&message, "None")] {
            assert_eq!(text(record), expected);
            assert_eq!(Content(record).to_string(), expected);
            assert_eq!(HeaderLines(record).to_string(), expected);
        }
        assert_eq!([Some(0), Some(204), None].map(|s| Status(s).to_string()), ["0", "204", "None"]);
        assert_eq!([5_000, 463, 60_981].map(|us| Millis(us).to_string()), ["5.0", "0.463", "60.981"]);
    }
}
