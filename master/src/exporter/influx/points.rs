//! Points in line protocol.
//!
//! Source: <https://docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference/>.

use crate::console::Console;
use crate::exporter::Reading;
use crate::exporter::counts::{ms, series_since};
use crate::exporter::names::{LONGEST, Labels, by_label, cut};
use crate::run::Run;
use ld_shared::record::Record;
use ld_shared::sample::Phase;
use ld_shared::snapshot::Series;
use std::fmt::Write as _;
use std::sync::Arc;

/// Most requests of a test that become points of their own.
const REQUESTS: usize = 10_000;
/// The seed's bound on an error's text.
const ERROR: usize = 512;

/// What readings add, as lines.
pub(super) struct Points {
    /// As it stands in a line.
    measurement: String,
    /// Points of single requests are wanted, and who is told how many there are.
    per_request: Option<Arc<Console>>,
    base: Arc<Reading>,
    /// Time of the newest points, ns: those of one name never share one.
    at: i64,
}

impl Points {
    pub(super) fn new(measurement: &str, per_request: Option<Arc<Console>>, base: Arc<Reading>) -> Self {
        Self { measurement: name(measurement), per_request, base, at: 0 }
    }

    /// What the reading adds to the one before.
    pub(super) fn lines(&mut self, reading: &Arc<Reading>) -> Vec<String> {
        let at = reading.at.timestamp_nanos_opt().unwrap_or(i64::MAX).max(self.at + 1);
        let base = std::mem::replace(&mut self.base, Arc::clone(reading));
        let [before, now] = [&base, reading].map(|r| by_label(r.feed.totals.phase(Phase::Main), tag));
        let mut lines = Vec::new();
        for (labels, series) in &now {
            let more = series_since(series, before.get(labels).map(AsRef::as_ref));
            lines.extend(self.point(labels, &more, at));
        }
        if let Some(progress) = &reading.feed.progress
            && progress.rate.is_finite()
        {
            lines.push(format!(
                "loaddensity_state users={}i,rate={},workers={}i,requests={}i,failures={}i {at}",
                progress.users,
                progress.rate,
                reading.feed.workers.len(),
                progress.requests,
                progress.failures
            ));
        }
        self.at = at;
        if let (Some(console), Some(run)) = (&self.per_request, &reading.feed.last)
            && reading.feed.finished > base.feed.finished
        {
            lines.extend(self.requests(run, console));
        }
        lines
    }

    /// The samples of a name in a span; none for no samples.
    fn point(&self, labels: &Labels, series: &Series, at: i64) -> Option<String> {
        let all = series.all();
        (all.count() > 0).then(|| {
            let [p50, p90, p95, p99] = [50.0, 90.0, 95.0, 99.0].map(|p| ms(all.percentile(p)));
            format!(
                "{}{} count={}i,successes={}i,failures={}i,latency_mean_ms={},latency_min_ms={},latency_p50_ms={p50},\
                 latency_p90_ms={p90},latency_p95_ms={p95},latency_p99_ms={p99},latency_max_ms={},bytes_sent={}i,\
                 bytes_received={}i {at}",
                self.measurement,
                tags(labels),
                all.count(),
                series.succeeded.count(),
                series.failed.count(),
                all.mean() / 1e3,
                ms(all.min()),
                ms(all.max()),
                series.bytes_sent,
                series.bytes_received,
            )
        })
    }

    /// Kept requests of a test, evenly chosen if they are too many, in the seed's form.
    fn requests(&self, run: &Run, console: &Console) -> Vec<String> {
        let measured = &run.measured;
        let kept: Vec<&Record> = measured.records.iter().filter(|record| record.phase == Phase::Main).collect();
        let chosen = kept.len().min(REQUESTS);
        let seen: u64 = measured.records_seen.iter().sum();
        console.note(&format!("per-request points: {chosen} of {} kept of {seen} requests", kept.len()));
        let start = measured.started_at.timestamp_nanos_opt().unwrap_or(i64::MAX);
        let mut at = 0;
        (0..chosen)
            .map(|n| kept[n * kept.len() / chosen])
            .map(|record| {
                at = start.saturating_add_unsigned(record.ended_at).max(at + 1);
                self.request(record, at)
            })
            .collect()
    }

    fn request(&self, record: &Record, at: i64) -> String {
        let labels = [&record.request_type, &record.name].map(|text| tag(text));
        let mut line = format!(
            "{}{} latency_ms={},response_bytes={}i,success={}",
            self.measurement,
            tags(&labels),
            ms(record.response_us),
            record.body_bytes,
            record.error.is_none()
        );
        if let Some(error) = &record.error {
            write!(line, ",error=\"{}\"", field(&cut(error, ERROR))).expect("writing to a String cannot fail");
        }
        write!(line, " {at}").expect("writing to a String cannot fail");
        line
    }
}

/// Tags without a value are left out: the protocol has no empty ones.
fn tags(labels: &Labels) -> String {
    let mut text = String::new();
    for (key, value) in ["request_type", "name"].into_iter().zip(labels) {
        if !value.is_empty() {
            write!(text, ",{key}={value}").expect("writing to a String cannot fail");
        }
    }
    text
}

/// A tag's value. What ends lines is written as the letters that stand for it: the protocol has no other way.
fn tag(text: &str) -> String {
    escaped(&cut(text, LONGEST), &[',', '=', ' '])
}

/// A measurement's name.
fn name(text: &str) -> String {
    escaped(&cut(text, LONGEST), &[',', ' '])
}

fn escaped(text: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => {
                write!(out, "\\x{:02x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c if special.contains(&c) => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    if out.ends_with('\\') {
        // it would escape what follows: it cannot be written but before something
        out.push_str("\\ ");
    }
    out
}

/// A field's text between its quotes.
fn field(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' | '\r' => out.push(' '),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::names::tests::hostile;
    use crate::remote::Feed;
    use crate::run::fixture;
    use chrono::{TimeDelta, TimeZone as _, Utc};
    use ld_shared::sample::SeriesKey;
    use ld_shared::snapshot::Snapshot;
    use proptest::prelude::*;

    fn reading(second: i64, totals: Snapshot) -> Arc<Reading> {
        let at = Utc.timestamp_opt(1_795_418_889, 0).unwrap() + TimeDelta::seconds(second);
        Arc::new(Reading { at, feed: Feed { totals, ..Feed::default() }, tallies: Vec::new() })
    }

    fn key(kind: &str, name: &str) -> SeriesKey {
        SeriesKey { name: name.into(), request_type: kind.into(), scenario: "s".into() }
    }

    #[test]
    fn a_point_a_name_and_second_holds_what_came_in_it() {
        let mut totals = Snapshot::default();
        let mut points = Points::new(MEASURED, None, reading(0, totals.clone()));
        assert_eq!(points.lines(&reading(1, totals.clone())), [""; 0]);
        let series = totals.phase_mut(Phase::Main).series_mut(&key("GET", "sp ace,com=eq\\b\"q\"\nnl"));
        series.succeeded.record_n(1_500, 3);
        series.failed.record(2_500);
        (series.bytes_sent, series.bytes_received) = (40, 100);
        let line = "m\\ x,request_type=GET,name=sp\\ ace\\,com\\=eq\\b\"q\"\\nnl count=4i,successes=3i,failures=1i,\
                    latency_mean_ms=1.75,latency_min_ms=1.5,latency_p50_ms=1.5,latency_p90_ms=2.5,latency_p95_ms=2.5,\
                    latency_p99_ms=2.5,latency_max_ms=2.5,bytes_sent=40i,bytes_received=100i 1795418891000000000";
        assert_eq!(points.lines(&reading(2, totals.clone())), [line]);
        assert_eq!(points.lines(&reading(3, totals.clone())), [""; 0], "nothing came");
        totals.phase_mut(Phase::Main).series_mut(&key("GET", "b")).succeeded.record(1);
        // a clock that goes back overwrites nothing
        let line = points.lines(&reading(1, totals)).pop().unwrap();
        assert!(line.starts_with("m\\ x,request_type=GET,name=b count=1i"), "{line}");
        assert!(line.ends_with(" 1795418892000000001"), "{line}");
    }

    const MEASURED: &str = "m x";

    #[test]
    fn requests_have_the_seed_s_form() {
        let measured = fixture::measured();
        let record = |n: usize| Record {
            name: "bad".into(),
            request_type: "GET".into(),
            response_us: 465,
            body_bytes: 10,
            error: Some("a \"quoted\\\" text".into()),
            ..measured.records[n].clone()
        };
        let points = Points::new("loaddensity_request", None, reading(0, Snapshot::default()));
        assert_eq!(
            points.request(&record(0), 7),
            "loaddensity_request,request_type=GET,name=bad latency_ms=0.465,response_bytes=10i,success=false,\
             error=\"a \\\"quoted\\\\\\\" text\" 7"
        );
    }

    proptest! {
        /// One line, and its tags read back as InfluxDB reads them: what is written of a name holds no bare end.
        #[test]
        fn names_hold_anything(kind in hostile(), name in hostile()) {
            let mut totals = Snapshot::default();
            let mut points = Points::new("m", None, reading(0, totals.clone()));
            totals.phase_mut(Phase::Main).series_mut(&key(&kind, &name)).succeeded.record(1);
            let lines = points.lines(&reading(1, totals));
            prop_assert_eq!(lines.len(), 1);
            prop_assert!(!lines[0].contains(|c: char| c.is_ascii_control()), "{}", lines[0]);
            let (found, rest) = read_tags(&lines[0]);
            prop_assert!(rest.starts_with("count=1i,"), "{}", rest);
            let mut wanted = Vec::new();
            for (key, text) in [("request_type", &kind), ("name", &name)] {
                let text = cut(text, LONGEST);
                if !text.is_empty() {
                    wanted.push((key.to_owned(), plain(&text)));
                }
            }
            prop_assert_eq!(found, wanted);
        }
    }

    /// What the protocol can hold of a name.
    fn plain(text: &str) -> String {
        let text: String = text
            .chars()
            .map(|c| match c {
                '\n' => "\\n".into(),
                '\r' => "\\r".into(),
                '\t' => "\\t".into(),
                c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
                c => c.to_string(),
            })
            .collect();
        if text.ends_with('\\') { text + " " } else { text }
    }

    /// Tags of a line, by the rule of InfluxDB's parser: an end counts unless a backslash stands before it.
    fn read_tags(line: &str) -> (Vec<(String, String)>, &str) {
        let bytes = line.as_bytes();
        let end = (1..bytes.len()).find(|i| bytes[*i] == b' ' && bytes[i - 1] != b'\\').unwrap();
        let mut parts = vec![String::new()];
        let mut before = ' ';
        for c in line.get(..end).expect("it is where a character begins").chars() {
            if c == ',' && before != '\\' {
                parts.push(String::new());
            } else {
                if ", =".contains(c) && before == '\\' {
                    parts.last_mut().unwrap().pop();
                }
                parts.last_mut().unwrap().push(c);
            }
            before = c;
        }
        let pair = |text: &String| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
        (parts[1..].iter().map(pair).collect(), line.get(end + 1..).expect("one byte behind a blank"))
    }
}
