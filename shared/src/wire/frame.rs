//! Frames on the wire: names in a table of strings, histograms as varints.

use super::{WireError, length, v1};
use crate::frame::{Collected, Frame, FrameBody, FrameKey, Generator, MOST_COLLECTED, Odometers, PhaseOdometer};
use crate::id::{RunId, SessionId};
use crate::latency::Latency;
use crate::sample::{FailureKind, MAX_NAMES, MAX_REASONS, Phase, SeriesKey};
use crate::snapshot::{FailureCount, PhaseSnapshot, Row, Series, Snapshot};
use crate::time::RunTime;
use bytes::Bytes;
use prost::Message as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const KINDS: [(FailureKind, v1::FailureKind); 9] = [
    (FailureKind::Dns, v1::FailureKind::Dns),
    (FailureKind::Connect, v1::FailureKind::Connect),
    (FailureKind::Tls, v1::FailureKind::Tls),
    (FailureKind::Closed, v1::FailureKind::Closed),
    (FailureKind::Timeout, v1::FailureKind::Timeout),
    (FailureKind::Protocol, v1::FailureKind::Protocol),
    (FailureKind::Status, v1::FailureKind::Status),
    (FailureKind::Assertion, v1::FailureKind::Assertion),
    (FailureKind::Request, v1::FailureKind::Request),
];

/// Most bytes of a name or a reason: twice what a worker of ours cuts them to.
const MAX_TEXT: usize = 2 * crate::sample::MAX_TEXT;
/// No worker counts as much in its life: sums of what stays below do not overflow.
pub(super) const MAX_COUNT: u64 = 1 << 48;
/// Nor is one of its cores polled as often within a frame.
const MAX_PROBES: u64 = 1 << 32;
/// Most seconds that one frame may describe rows of.
const MAX_ROWS: usize = 100_000;

/// The wire form of a frame whose span was closed at `sealed_at`.
pub fn frame_to_wire(frame: &Frame, sealed_at: RunTime) -> v1::Frame {
    let key = &frame.key;
    let body = body_to_wire(&frame.body, sealed_at);
    v1::Frame { run: key.run.0.to_string(), session: key.session.0, seq: key.seq, ..body }
}

/// The bytes of a frame's wire form that has no key yet.
pub fn frame_to_bytes(body: &FrameBody, sealed_at: RunTime) -> Bytes {
    body_to_wire(body, sealed_at).encode_to_vec().into()
}

/// What [`frame_to_bytes`] made bytes of.
pub fn frame_from_bytes(bytes: &[u8]) -> Result<(FrameBody, RunTime), WireError> {
    let frame = v1::Frame::decode(bytes).map_err(|_| WireError::Malformed("frame"))?;
    let (frame, sealed_at) = frame_from_wire(frame)?;
    Ok((frame.body, sealed_at))
}

fn body_to_wire(body: &FrameBody, sealed_at: RunTime) -> v1::Frame {
    v1::Frame {
        odometers: Some(odometers_to_wire(&body.odometers)),
        generator: Some(generator_to_wire(&body.generator)),
        last: body.last,
        records_follow: body.records_follow,
        sealed_at_ns: sealed_at.0,
        collected: body.collected.as_deref().map(collected_to_wire),
        ..counts_to_wire((body.from_second, body.to_second), &body.counts)
    }
}

/// The frame of a wire form, with the run time at which its span was closed.
pub fn frame_from_wire(mut frame: v1::Frame) -> Result<(Frame, RunTime), WireError> {
    plausible(&frame)?;
    let ((from_second, to_second), counts) = counts_from_wire(&mut frame)?;
    counts.phases.iter().try_for_each(accounted)?;
    let generator = generator_from_wire(&frame.generator.ok_or(WireError::Missing("generator"))?)?;
    within("waits to be polled", generator.scheduler_lag.count(), MAX_PROBES)?;
    let body = FrameBody {
        from_second,
        to_second,
        counts,
        odometers: odometers_from_wire(&frame.odometers.ok_or(WireError::Missing("odometers"))?)?,
        generator,
        collected: frame.collected.as_ref().map(collected_from_wire).transpose()?.map(Box::new),
        last: frame.last,
        records_follow: frame.records_follow,
    };
    let key = FrameKey { run: RunId(frame.run.into()), session: SessionId(frame.session), seq: frame.seq };
    Ok((Frame { key, body }, RunTime(frame.sealed_at_ns)))
}

/// What ended in a span, as a wire form of which nothing else is filled.
pub fn counts_to_wire((from_second, to_second): (u32, u32), counts: &Snapshot) -> v1::Frame {
    let mut table = Table::default();
    let phases = counts.phases.iter().map(|phase| phase_to_wire(phase, &mut table)).collect();
    let rows = counts.rows.iter().map(|(second, row)| row_to_wire(*second, row)).collect();
    v1::Frame { from_second, to_second, phases, strings: table.strings, rows, ..v1::Frame::default() }
}

/// What ended in the span of a wire form, and that span. Takes its texts out. Sums of many workers pass: what one of them
/// may say is checked by [`frame_from_wire`].
pub fn counts_from_wire(frame: &mut v1::Frame) -> Result<((u32, u32), Snapshot), WireError> {
    let strings: Vec<Arc<str>> = std::mem::take(&mut frame.strings).into_iter().map(Arc::from).collect();
    length("phases", frame.phases.len(), known_phases(frame.phases.len()), "3 or 4")?;
    length("rows", frame.rows.len(), frame.rows.len() <= MAX_ROWS, "at most 100000")?;
    let mut counts = Snapshot::default();
    for (mine, theirs) in counts.phases.iter_mut().zip(&frame.phases) {
        *mine = phase_from_wire(theirs, &strings)?;
    }
    for row in &frame.rows {
        if counts.rows.insert(row.second, row_from_wire(row)?).is_some() {
            return Err(WireError::Twice("second"));
        }
    }
    if frame.from_second > frame.to_second {
        return Err(WireError::Range { what: "from_second", got: u64::from(frame.from_second) });
    }
    Ok(((frame.from_second, frame.to_second), counts))
}

/// The wire form of what a setup brought about.
pub fn collected_to_wire(collected: &Collected) -> v1::Collected {
    let variables = Value::Object(collected.variables.clone()).to_string();
    v1::Collected { variables, failure: collected.failure.clone() }
}

/// What a setup brought about, of a wire form.
pub fn collected_from_wire(collected: &v1::Collected) -> Result<Collected, WireError> {
    // as JSON they are a little longer than they were counted
    let bytes = collected.variables.len();
    length("variables", bytes, bytes <= 2 * MOST_COLLECTED, "at most twice what a setup may extract")?;
    let variables = serde_json::from_str(&collected.variables).map_err(|_| WireError::Malformed("variables"))?;
    Ok(Collected { variables, failure: collected.failure.clone() })
}

#[derive(Default)]
struct Table {
    strings: Vec<String>,
    known: BTreeMap<Arc<str>, u32>,
}

impl Table {
    fn index(&mut self, text: &Arc<str>) -> u32 {
        if let Some(index) = self.known.get(text) {
            return *index;
        }
        let index = self.strings.len() as u32;
        self.strings.push(text.to_string());
        self.known.insert(Arc::clone(text), index);
        index
    }
}

fn histogram(latency: &Latency) -> bytes::Bytes {
    latency.encoded().into()
}

fn histogram_from(bytes: &[u8], what: &'static str) -> Result<Latency, WireError> {
    let mut latency = Latency::default();
    latency.merge_encoded(bytes).map_err(|source| WireError::Histogram { what, source })?;
    Ok(latency)
}

/// A histogram that most series lack.
fn detail(latency: &Latency) -> bytes::Bytes {
    if latency.count() == 0 { bytes::Bytes::new() } else { histogram(latency) }
}

fn detail_from(bytes: &[u8], what: &'static str) -> Result<Latency, WireError> {
    if bytes.is_empty() { Ok(Latency::default()) } else { histogram_from(bytes, what) }
}

pub(super) fn count(what: &'static str, got: u64) -> Result<(), WireError> {
    within(what, got, MAX_COUNT)
}

pub(super) fn within(what: &'static str, got: u64, most: u64) -> Result<(), WireError> {
    if got > most { Err(WireError::Range { what, got }) } else { Ok(()) }
}

/// Whether what a frame counts can be.
fn plausible(frame: &v1::Frame) -> Result<(), WireError> {
    let longest = frame.strings.iter().map(String::len).max().unwrap_or(0);
    length("a name", longest, longest <= MAX_TEXT, "at most 4096")?;
    for row in &frame.rows {
        let counts = [row.requests_started, row.succeeded, row.failed, row.iterations, row.user_ms, row.cpu_ms];
        counts
            .into_iter()
            .chain([row.bound_cores])
            .chain(row.dropped.iter().copied())
            .try_for_each(|n| count("a row's count", n))?;
    }
    frame.odometers.as_ref().map_or(Ok(()), plausible_odometers)?;
    for phase in &frame.phases {
        let bytes = phase.series.iter().flat_map(|series| [series.bytes_sent, series.bytes_received]);
        bytes.chain(phase.failures.iter().map(|failure| failure.count)).try_for_each(|n| count("a count", n))?;
    }
    let generator = frame.generator.as_ref();
    let seen = generator.map(|g| [g.successes_seen, g.failures_seen, g.users_max, g.throttled_ms]);
    seen.into_iter().flatten().try_for_each(|n| count("a count of the generator", n))
}

/// Whether what a worker says to have done in its life can be.
pub(super) fn plausible_odometers(odometers: &v1::Odometers) -> Result<(), WireError> {
    for p in &odometers.phases {
        let requests =
            [p.requests_started, p.requests_written, p.requests_ended, p.requests_in_flight, p.requests_unsent];
        let counts = requests.into_iter().chain([p.due, p.iterations]).chain(p.dropped.iter().copied());
        counts.into_iter().try_for_each(|n| count("an odometer", n))?;
    }
    Ok(())
}

/// Whether all that is told of samples is told of samples that ended: these are held against what was started.
fn accounted(phase: &PhaseSnapshot) -> Result<(), WireError> {
    let (mut ended, mut failed) = (0_u64, 0_u64);
    for series in phase.series.values() {
        let own = [series.succeeded.count(), series.failed.count()];
        own.into_iter().try_for_each(|samples| count("samples", samples))?;
        for detail in [&series.service, &series.lag] {
            within("samples in a detail of a series", detail.count(), own[0] + own[1])?;
        }
        ended += own[0] + own[1];
        failed += own[1];
    }
    for detail in [&phase.service, &phase.lag].into_iter().chain(&phase.timing) {
        within("samples in a detail of a phase", detail.count(), ended)?;
    }
    let reasons = phase.failures.values().fold(0_u64, |sum, failure| sum.saturating_add(failure.count));
    within("failures with a reason", reasons, failed)
}

/// Whether a peer may know so many phases: those before messages, or all.
fn known_phases(count: usize) -> bool {
    (Phase::LEAST..=Phase::COUNT).contains(&count)
}

fn phase_to_wire(phase: &PhaseSnapshot, table: &mut Table) -> v1::Phase {
    let series = phase
        .series
        .iter()
        .map(|(key, series)| v1::Series {
            name: table.index(&key.name),
            request_type: table.index(&key.request_type),
            scenario: table.index(&key.scenario),
            succeeded: histogram(&series.succeeded),
            failed: histogram(&series.failed),
            bytes_sent: series.bytes_sent,
            bytes_received: series.bytes_received,
            first_at_ns: series.first_at,
            service: detail(&series.service),
            lag: detail(&series.lag),
        })
        .collect();
    let failures = phase
        .failures
        .iter()
        .map(|((key, reason), failure)| v1::FailureGroup {
            name: table.index(&key.name),
            request_type: table.index(&key.request_type),
            scenario: table.index(&key.scenario),
            reason: table.index(reason),
            kind: kind_to_wire(failure.kind) as i32,
            count: failure.count,
            first_at_ns: failure.first_at,
            last_at_ns: failure.last_at,
        })
        .collect();
    v1::Phase {
        series,
        failures,
        service: histogram(&phase.service),
        lag: histogram(&phase.lag),
        timing: phase.timing.iter().map(histogram).collect(),
    }
}

fn phase_from_wire(phase: &v1::Phase, strings: &[Arc<str>]) -> Result<PhaseSnapshot, WireError> {
    let text = |index: u32| {
        strings.get(index as usize).cloned().ok_or(WireError::Range { what: "string index", got: u64::from(index) })
    };
    // one more for `(other)`
    length("series", phase.series.len(), phase.series.len() <= MAX_NAMES + 1, "at most 1001")?;
    let most = (MAX_NAMES + 1) * (MAX_REASONS + 1);
    length("failures", phase.failures.len(), phase.failures.len() <= most, "at most 201 a series")?;
    length("timing", phase.timing.len(), phase.timing.len() == 6, "6")?;
    let mut out = PhaseSnapshot {
        service: histogram_from(&phase.service, "service time")?,
        lag: histogram_from(&phase.lag, "lag")?,
        ..PhaseSnapshot::default()
    };
    for (mine, theirs) in out.timing.iter_mut().zip(&phase.timing) {
        *mine = histogram_from(theirs, "a timing part")?;
    }
    for entry in &phase.series {
        let key = SeriesKey {
            name: text(entry.name)?,
            request_type: text(entry.request_type)?,
            scenario: text(entry.scenario)?,
        };
        let series = Series {
            succeeded: histogram_from(&entry.succeeded, "successes")?,
            failed: histogram_from(&entry.failed, "failures")?,
            service: detail_from(&entry.service, "service time of a series")?,
            lag: detail_from(&entry.lag, "lag of a series")?,
            bytes_sent: entry.bytes_sent,
            bytes_received: entry.bytes_received,
            first_at: entry.first_at_ns,
        };
        if out.series.insert(key, series).is_some() {
            return Err(WireError::Twice("series"));
        }
    }
    for entry in &phase.failures {
        let key = SeriesKey {
            name: text(entry.name)?,
            request_type: text(entry.request_type)?,
            scenario: text(entry.scenario)?,
        };
        let count = FailureCount {
            kind: kind_from_wire(entry.kind)?,
            count: entry.count,
            first_at: entry.first_at_ns,
            last_at: entry.last_at_ns,
        };
        if out.failures.insert((key, text(entry.reason)?), count).is_some() {
            return Err(WireError::Twice("failure reason"));
        }
    }
    Ok(out)
}

fn kind_to_wire(kind: FailureKind) -> v1::FailureKind {
    KINDS.iter().find(|(typed, _)| *typed == kind).map(|(_, wire)| *wire).expect("the table has every kind")
}

fn kind_from_wire(kind: i32) -> Result<FailureKind, WireError> {
    let known = KINDS.iter().find(|(_, wire)| *wire as i32 == kind);
    known.map(|(typed, _)| *typed).ok_or(WireError::Range { what: "failure kind", got: u64::from(kind as u32) })
}

fn dropped_from(dropped: &[u64]) -> Result<[u64; 4], WireError> {
    // an old peer's empty list is not accepted either: the contract says four
    dropped.try_into().map_err(|_| WireError::Length { what: "dropped", got: dropped.len(), expected: "4" })
}

/// The wire form of the counts of a second.
pub fn row_to_wire(second: u32, row: &Row) -> v1::Row {
    v1::Row {
        second,
        requests_started: row.requests_started,
        succeeded: row.succeeded,
        failed: row.failed,
        dropped: row.dropped.to_vec(),
        iterations: row.iterations,
        user_ms: row.user_ms,
        cpu_ms: row.cpu_ms,
        bound_cores: row.bound_cores,
    }
}

/// The counts of a wire form, without their second.
pub fn row_from_wire(row: &v1::Row) -> Result<Row, WireError> {
    Ok(Row {
        requests_started: row.requests_started,
        succeeded: row.succeeded,
        failed: row.failed,
        dropped: dropped_from(&row.dropped)?,
        iterations: row.iterations,
        user_ms: row.user_ms,
        cpu_ms: row.cpu_ms,
        bound_cores: row.bound_cores,
    })
}

/// The wire form of a session's counters.
pub fn odometers_to_wire(odometers: &Odometers) -> v1::Odometers {
    let phase = |p: &PhaseOdometer| v1::PhaseOdometer {
        due: p.due,
        iterations: p.iterations,
        dropped: p.dropped.to_vec(),
        requests_started: p.requests_started,
        requests_written: p.requests_written,
        requests_ended: p.requests_ended,
        requests_in_flight: p.requests_in_flight,
        requests_unsent: p.requests_unsent,
    };
    v1::Odometers { phases: odometers.phases.iter().map(phase).collect() }
}

/// The counters of a wire form.
pub fn odometers_from_wire(odometers: &v1::Odometers) -> Result<Odometers, WireError> {
    length("odometers", odometers.phases.len(), known_phases(odometers.phases.len()), "3 or 4")?;
    let mut out = Odometers::default();
    for (mine, theirs) in out.phases.iter_mut().zip(&odometers.phases) {
        *mine = PhaseOdometer {
            due: theirs.due,
            iterations: theirs.iterations,
            dropped: dropped_from(&theirs.dropped)?,
            requests_started: theirs.requests_started,
            requests_written: theirs.requests_written,
            requests_ended: theirs.requests_ended,
            requests_in_flight: theirs.requests_in_flight,
            requests_unsent: theirs.requests_unsent,
        };
    }
    Ok(out)
}

fn generator_to_wire(generator: &Generator) -> v1::Generator {
    v1::Generator {
        cores: generator.cores,
        cpu_max_permille: generator.cpu_max_permille,
        scheduler_lag: histogram(&generator.scheduler_lag),
        throttled_ms: generator.throttled_ms,
        users_max: generator.users_max,
        successes_seen: generator.records_seen[0],
        failures_seen: generator.records_seen[1],
        start_skew_ns: generator.start_skew,
    }
}

fn generator_from_wire(generator: &v1::Generator) -> Result<Generator, WireError> {
    Ok(Generator {
        cores: generator.cores,
        cpu_max_permille: generator.cpu_max_permille,
        scheduler_lag: histogram_from(&generator.scheduler_lag, "scheduler lag")?,
        throttled_ms: generator.throttled_ms,
        users_max: generator.users_max,
        records_seen: [generator.successes_seen, generator.failures_seen],
        start_skew: generator.start_skew_ns,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers<const N: usize>() -> impl Strategy<Value = [u64; N]> {
        any::<[u64; N]>().prop_map(|n| n.map(|n| n % MAX_COUNT))
    }

    fn latency() -> impl Strategy<Value = Latency> {
        prop::collection::vec(0u64..5_000_000_000, 0..6).prop_map(|values| {
            let mut latency = Latency::default();
            for value in values {
                latency.record(value);
            }
            latency
        })
    }

    fn key() -> impl Strategy<Value = SeriesKey> {
        (0u8..4, 0u8..2, 0u8..2).prop_map(|(n, t, s)| SeriesKey {
            name: format!("name{n}").into(),
            request_type: format!("T{t}").into(),
            scenario: format!("name{s}").into(),
        })
    }

    fn phase() -> impl Strategy<Value = PhaseSnapshot> {
        let latencies = (latency(), latency(), latency(), latency());
        let series = (latencies, numbers::<3>()).prop_map(|((succeeded, failed, service, lag), n)| Series {
            succeeded,
            failed,
            service,
            lag,
            bytes_sent: n[0],
            bytes_received: n[1],
            first_at: n[2],
        });
        let series = series.prop_map(|mut series| {
            // enough that they may have the details of a series, a phase and its failures
            series.succeeded.record_n(7, 6);
            series.failed.record_n(9, 1 << 22);
            series
        });
        let failure = (0usize..9, numbers::<3>()).prop_map(|(kind, n)| FailureCount {
            kind: KINDS[kind].0,
            count: n[0] % (1 << 20),
            first_at: n[1],
            last_at: n[2],
        });
        let reason = (0u8..3).prop_map(|r| Arc::<str>::from(format!("reason {r}")));
        (
            prop::collection::btree_map(key(), series, 0..4),
            latency(),
            latency(),
            prop::collection::vec(latency(), 6),
            prop::collection::btree_map((key(), reason), failure, 0..4),
        )
            .prop_map(|(series, service, lag, timing, failures)| {
                if series.is_empty() {
                    return PhaseSnapshot::default();
                }
                PhaseSnapshot { series, service, lag, timing: timing.try_into().unwrap(), failures }
            })
    }

    fn odometers() -> impl Strategy<Value = Odometers> {
        any::<[[u64; 11]; Phase::COUNT]>().prop_map(|n| n.map(|n| n.map(|n| n % MAX_COUNT))).prop_map(|n| Odometers {
            phases: n.map(|n| PhaseOdometer {
                due: n[0],
                iterations: n[1],
                dropped: [n[2], n[3], n[4], n[5]],
                requests_started: n[6],
                requests_written: n[7],
                requests_ended: n[8],
                requests_in_flight: n[9],
                requests_unsent: n[10],
            }),
        })
    }

    fn row() -> impl Strategy<Value = Row> {
        numbers::<11>().prop_map(|n| Row {
            requests_started: n[0],
            succeeded: n[1],
            failed: n[2],
            dropped: [n[3], n[4], n[5], n[6]],
            iterations: n[7],
            user_ms: n[8],
            cpu_ms: n[9],
            bound_cores: n[10],
        })
    }

    pub(crate) fn body() -> impl Strategy<Value = FrameBody> {
        let generator = (numbers::<4>(), latency(), any::<Option<u64>>()).prop_map(|(n, lag, skew)| Generator {
            cores: n[0] as u32,
            cpu_max_permille: n[1] as u32,
            scheduler_lag: lag,
            throttled_ms: n[2],
            users_max: n[3],
            records_seen: [n[0], n[1]],
            start_skew: skew,
        });
        (
            (0u32..1000, 0u32..10, any::<[bool; 2]>()),
            (phase(), phase(), phase(), phase()),
            prop::collection::btree_map(0u32..1000, row(), 0..4),
            odometers(),
            generator,
            prop::option::of(("[a-z]{1,3}", any::<Option<u32>>(), prop::option::of("\\PC{0,9}"))),
        )
            .prop_map(
                |((from, span, [last, records_follow]), phases, rows, odometers, generator, collected)| FrameBody {
                    from_second: from,
                    to_second: from + span,
                    counts: Snapshot { phases: phases.into(), rows },
                    odometers,
                    generator,
                    collected: collected.map(|(name, value, failure)| {
                        Box::new(Collected { variables: [(name, value.into())].into_iter().collect(), failure })
                    }),
                    last,
                    records_follow,
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_wire_keeps_everything(body in body(), session: u64, seq: u64, sealed: u64) {
            let key = FrameKey { run: RunId("r".into()), session: SessionId(session), seq };
            let frame = Frame { key, body };
            let bytes = frame_to_wire(&frame, RunTime(sealed)).encode_to_vec();
            let read = frame_from_wire(v1::Frame::decode(bytes.as_slice()).unwrap()).unwrap();
            prop_assert_eq!(read, (frame, RunTime(sealed)));
        }
    }

    fn absurd(samples: u64) -> Bytes {
        let mut latency = Latency::default();
        latency.record_n(5, samples);
        latency.encoded().into()
    }

    #[test]
    fn what_breaks_the_contract_is_refused() {
        type Spoil = fn(&mut v1::Frame);
        let key = FrameKey { run: RunId("r".into()), session: SessionId(1), seq: 1 };
        let mut body = FrameBody { to_second: 1, ..FrameBody::default() };
        let series = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
        body.counts.phases[0].series_mut(&series).succeeded.record(5);
        let good = frame_to_wire(&Frame { key, body }, RunTime(0));
        let cases: [(Spoil, WireError); 14] = [
            (|f| f.phases.truncate(2), WireError::Length { what: "phases", got: 2, expected: "3 or 4" }),
            (|f| f.phases[0].series[0].name = 9, WireError::Range { what: "string index", got: 9 }),
            (
                // count 2, but one sample in the buckets
                |f| f.phases[0].series[0].succeeded = bytes::Bytes::from_static(&[2, 10, 5, 5, 5, 1]),
                WireError::Histogram { what: "successes", source: crate::latency::DecodeError::Count },
            ),
            (|f| f.phases[0].series = vec![f.phases[0].series[0].clone(); 2], WireError::Twice("series")),
            (
                |f| f.rows.push(v1::Row { succeeded: u64::MAX, dropped: vec![0; 4], ..v1::Row::default() }),
                WireError::Range { what: "a row's count", got: u64::MAX },
            ),
            (
                // more samples than there can be, consistent in itself
                |f| f.phases[0].series[0].succeeded = absurd(MAX_COUNT + 1),
                WireError::Range { what: "samples", got: MAX_COUNT + 1 },
            ),
            (
                |f| f.phases[0].service = absurd(1 << 63),
                WireError::Range { what: "samples in a detail of a phase", got: 1 << 63 },
            ),
            (
                |f| f.phases[0].series[0].lag = absurd(2),
                WireError::Range { what: "samples in a detail of a series", got: 2 },
            ),
            (
                |f| f.generator.as_mut().unwrap().scheduler_lag = absurd(u64::MAX),
                WireError::Range { what: "waits to be polled", got: u64::MAX },
            ),
            (|f| f.odometers = None, WireError::Missing("odometers")),
            (
                |f| f.strings.push("x".repeat(MAX_TEXT + 1)),
                WireError::Length { what: "a name", got: MAX_TEXT + 1, expected: "at most 4096" },
            ),
            (|f| f.from_second = 7, WireError::Range { what: "from_second", got: 7 }),
            (
                |f| f.rows.push(v1::Row { dropped: vec![1], ..v1::Row::default() }),
                WireError::Length { what: "dropped", got: 1, expected: "4" },
            ),
            (
                |f| f.phases[0].series = vec![f.phases[0].series[0].clone(); MAX_NAMES + 2],
                WireError::Length { what: "series", got: MAX_NAMES + 2, expected: "at most 1001" },
            ),
        ];
        for (spoil, expected) in cases {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(frame_from_wire(bad), Err(expected));
        }
    }
}
