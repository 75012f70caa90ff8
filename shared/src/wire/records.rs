//! Single requests on the wire: kept ones with their answers, and columns of all of them.

use super::{WireError, length, v1};
use crate::id::{RunId, SessionId};
use crate::record::{Answer, Record, RecordBatch, RecordBody, RequestLine};
use crate::sample::Phase;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The wire form of a batch.
pub fn batch_to_wire(batch: &RecordBatch) -> v1::RecordBatch {
    v1::RecordBatch {
        run: batch.run.0.to_string(),
        session: batch.session.0,
        seq: batch.seq,
        records: batch.body.kept.iter().map(record_to_wire).collect(),
        lines: batch.body.lines.clone(),
        last: batch.body.last,
    }
}

/// The batch of a wire form. Its lines stay encoded: whoever writes them reads them.
pub fn batch_from_wire(batch: v1::RecordBatch) -> Result<RecordBatch, WireError> {
    let mut texts = Texts::default();
    let body = RecordBody {
        kept: batch.records.into_iter().map(|record| record_from_wire(record, &mut texts)).collect::<Result<_, _>>()?,
        lines: batch.lines,
        last: batch.last,
    };
    Ok(RecordBatch { run: RunId(batch.run.into()), session: SessionId(batch.session), seq: batch.seq, body })
}

/// Texts of many records, each held once: names and URLs repeat, and the master keeps records by the
/// hundred thousand.
#[derive(Debug, Default)]
pub struct Texts(HashSet<Arc<str>>);

impl Texts {
    /// The one copy of a text.
    pub fn one(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

/// The wire form of one kept request. Its worker is not in it.
pub fn record_to_wire(record: &Record) -> v1::Record {
    let header = |(name, value): &(String, String)| v1::Header { name: name.clone(), value: value.clone() };
    v1::Record {
        priority: record.priority,
        ended_at_ns: record.ended_at,
        phase: record.phase.index() as u32,
        request_type: record.request_type.to_string(),
        url: record.url.to_string(),
        name: record.name.to_string(),
        status: record.status.map(u32::from),
        response_us: record.response_us,
        body_bytes: record.body_bytes,
        error: record.error.as_ref().map(ToString::to_string),
        started_at_ns: record.started_at,
        scenario: record.scenario.to_string(),
        answer: record.answer.as_ref().map(|answer| v1::Answer {
            headers: answer.headers.iter().map(header).collect(),
            body: answer.body.clone().into(),
        }),
    }
}

/// The kept request of a wire form, without its worker.
pub fn record_from_wire(record: v1::Record, texts: &mut Texts) -> Result<Record, WireError> {
    let phase = Phase::ALL.get(record.phase as usize);
    Ok(Record {
        priority: record.priority,
        ended_at: record.ended_at_ns,
        started_at: record.started_at_ns,
        phase: *phase.ok_or(WireError::Range { what: "phase", got: u64::from(record.phase) })?,
        request_type: texts.one(&record.request_type),
        url: texts.one(&record.url),
        name: texts.one(&record.name),
        scenario: texts.one(&record.scenario),
        worker: texts.one(""),
        status: record.status.map(status_from_wire).transpose()?,
        response_us: record.response_us,
        body_bytes: record.body_bytes,
        error: record.error.map(|error| texts.one(&error)),
        answer: record.answer.map(|answer| {
            Arc::new(Answer {
                headers: answer.headers.into_iter().map(|h| (h.name, h.value)).collect(),
                body: answer.body.to_vec(),
            })
        }),
    })
}

/// Lines of requests, in columns: 25 to 40 bytes a request beside texts, of which each is said once.
#[derive(Debug, Default)]
pub struct Lines {
    columns: v1::RequestLines,
    known: HashMap<Arc<str>, u32>,
    text_bytes: usize,
}

/// About how many bytes a line takes beside its texts.
const LINE_BYTES: usize = 28;

impl Lines {
    /// Adds a request.
    pub fn push(&mut self, line: &RequestLine) {
        let [request_type, url, name] = [&line.request_type, &line.url, &line.name].map(|text| self.index(text));
        let error = line.error.as_ref().map_or(0, |error| self.index(error) + 1);
        let columns = &mut self.columns;
        columns.started_at_ns.push(line.started_at);
        columns.response_us.push(line.response_us);
        columns.body_bytes.push(line.body_bytes);
        columns.request_type.push(request_type);
        columns.url.push(url);
        columns.name.push(name);
        columns.status.push(line.status.map_or(0, |status| u32::from(status) + 1));
        columns.error.push(error);
    }

    fn index(&mut self, text: &Arc<str>) -> u32 {
        if let Some(index) = self.known.get(text) {
            return *index;
        }
        let index = self.columns.strings.len() as u32;
        self.text_bytes += text.len() + 4;
        self.columns.strings.push(text.to_string());
        self.known.insert(Arc::clone(text), index);
        index
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.columns.started_at_ns.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes they take when encoded.
    pub fn size(&self) -> usize {
        self.text_bytes + self.len() * LINE_BYTES
    }

    /// Encodes them and begins anew.
    pub fn take(&mut self) -> Bytes {
        let lines = std::mem::take(self);
        lines.columns.encode_to_vec().into()
    }

    /// Reads what [`Self::take`] made, and checks all of it.
    pub fn decode(bytes: Bytes) -> Result<Vec<RequestLine>, WireError> {
        let columns = v1::RequestLines::decode(bytes).map_err(|_| WireError::Missing("readable lines"))?;
        let strings: Vec<Arc<str>> = columns.strings.into_iter().map(Arc::from).collect();
        let rows = columns.started_at_ns.len();
        let others = [
            columns.response_us.len(),
            columns.body_bytes.len(),
            columns.request_type.len(),
            columns.url.len(),
            columns.name.len(),
            columns.status.len(),
            columns.error.len(),
        ];
        for other in others {
            length("column of lines", other, other == rows, "as many as there are lines")?;
        }
        let text = |index: u32| {
            strings.get(index as usize).cloned().ok_or(WireError::Range { what: "string index", got: u64::from(index) })
        };
        let line = |row: usize| {
            let status = columns.status[row];
            Ok(RequestLine {
                started_at: columns.started_at_ns[row],
                request_type: text(columns.request_type[row])?,
                url: text(columns.url[row])?,
                name: text(columns.name[row])?,
                status: status.checked_sub(1).map(status_from_wire).transpose()?,
                response_us: columns.response_us[row],
                body_bytes: columns.body_bytes[row],
                error: columns.error[row].checked_sub(1).map(text).transpose()?,
            })
        };
        (0..rows).map(line).collect()
    }
}

fn status_from_wire(status: u32) -> Result<u16, WireError> {
    u16::try_from(status).map_err(|_| WireError::Range { what: "status", got: u64::from(status) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        let answer = (any::<Vec<(String, String)>>(), any::<Vec<u8>>())
            .prop_map(|(headers, body)| Arc::new(Answer { headers, body }));
        (
            any::<[u64; 5]>(),
            0usize..3,
            any::<String>(),
            any::<Option<u16>>(),
            any::<Option<String>>(),
            prop::option::of(answer),
        )
            .prop_map(|(n, phase, text, status, error, answer)| Record {
                priority: n[0],
                ended_at: n[1],
                started_at: n[4],
                phase: Phase::ALL[phase],
                request_type: "GET".into(),
                url: text.as_str().into(),
                name: text.as_str().into(),
                scenario: text.into(),
                worker: "".into(),
                status,
                response_us: n[2],
                body_bytes: n[3],
                error: error.map(Into::into),
                answer,
            })
    }

    fn line() -> impl Strategy<Value = RequestLine> {
        (any::<[u64; 3]>(), "[a-c]{0,2}", "[a-c]{0,2}", any::<Option<u16>>(), any::<Option<String>>()).prop_map(
            |(n, name, url, status, error)| RequestLine {
                started_at: n[0],
                request_type: "GET".into(),
                url: url.into(),
                name: name.into(),
                status,
                response_us: n[1],
                body_bytes: n[2],
                error: error.map(Into::into),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_wire_keeps_every_request(
            kept in prop::collection::vec(record(), 0..3),
            rows in prop::collection::vec(line(), 0..20),
            last: bool,
            seq: u64,
        ) {
            let mut lines = Lines::default();
            for line in &rows {
                lines.push(line);
            }
            let body = RecordBody { kept, lines: lines.take(), last };
            let batch = RecordBatch { run: RunId("r".into()), session: SessionId(3), seq, body };
            let bytes = batch_to_wire(&batch).encode_to_vec();
            let read = batch_from_wire(v1::RecordBatch::decode(bytes.as_slice()).unwrap()).unwrap();
            prop_assert_eq!(&read, &batch);
            prop_assert_eq!(Lines::decode(read.body.lines), Ok(rows));
        }
    }

    #[test]
    fn lines_that_break_the_contract_are_refused() {
        let good = v1::RequestLines {
            strings: vec!["a".into()],
            started_at_ns: vec![1],
            response_us: vec![1],
            body_bytes: vec![1],
            request_type: vec![0],
            url: vec![0],
            name: vec![0],
            status: vec![201],
            error: vec![0],
        };
        let decode = |lines: &v1::RequestLines| Lines::decode(lines.encode_to_vec().into());
        assert_eq!(decode(&good).unwrap()[0].status, Some(200));
        let spoil: [fn(&mut v1::RequestLines); 4] = [
            |lines| lines.name = vec![1],
            |lines| lines.error = vec![2],
            |lines| lines.status = vec![70_000],
            |lines| lines.url.clear(),
        ];
        for spoil in spoil {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(decode(&bad).is_err(), "{bad:?}");
        }
        assert!(Lines::decode(Bytes::from_static(b"\xff\xff")).is_err());
    }
}
