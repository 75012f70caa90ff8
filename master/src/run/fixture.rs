//! A made-up run for tests and report snapshots: 12 s against a shop, one second of it stalled,
//! one in which the generator was the limit, a worker lost near the end.

use super::blocks::Blocks;
use super::{Ending, Event, Loss, Measured, TimelineRow, WorkerResult};
use chrono::{TimeZone as _, Utc};
use ld_shared::frame::Odometers;
use ld_shared::id::{Digest, RunId};
use ld_shared::load::{Arrivals, Load, Open, Profile};
use ld_shared::plan::{Mode, Plan, ScenarioPlan};
use ld_shared::record::{Record, RecordPolicy};
use ld_shared::rng::KeyedRng;
use ld_shared::sample::{FailureKind, Phase, SeriesKey, TimingPart};
use ld_shared::snapshot::{FailureCount, Snapshot};
use ld_shared::time::{RunTime, SECOND};
use serde_json::Map;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAMES: [(&str, &str, f64); 4] =
    [("home", "GET", 9.0), ("search <shoes>", "GET", 38.0), ("add to cart", "POST", 21.0), ("checkout", "POST", 64.0)];
const SECONDS: u32 = 12;
const WARMUP: u32 = 2;

/// The plan: a ramp to 100/s in 4 s, then 100/s.
pub(crate) fn plan() -> Plan {
    let rate = Profile::default().then(4.0, 0.0, 100.0).then(8.0, 100.0, 100.0);
    let scenario = ScenarioPlan {
        name: "shop".into(),
        user: "fast_http_user".into(),
        load: Load::Open(Open { rate, arrivals: Arrivals::Constant, max_in_flight: 1_000 }),
        first_number: 0,
        mode: Mode::Sequence,
        tasks: Vec::new(),
        on_start: Vec::new(),
        on_stop: Vec::new(),
        wait_time: None,
        host: Some("http://127.0.0.1:8080".into()),
        connections: ld_shared::plan::Connections::PerUser,
        connect_timeout: 60.0,
        request_timeout: 60.0,
        tls: ld_shared::plan::TlsPlan::default(),
        http_version: ld_shared::plan::HttpVersion::Auto,
        options: Map::new(),
        status_check: ld_shared::plan::StatusCheck::Always,
    };
    Plan {
        seed: 7,
        scenarios: vec![scenario],
        variables: Map::new(),
        env: BTreeMap::new(),
        sources: Vec::new(),
        test_time: Some(RunTime::from_secs(f64::from(SECONDS))),
        warmup: RunTime::from_secs(f64::from(WARMUP)),
        graceful_stop: RunTime::from_secs(5.0),
        iterations: None,
        records: RecordPolicy::default(),
        throttles: Vec::new(),
        stage: None,
        setup: Vec::new(),
        teardown: Vec::new(),
        collect: false,
        details: Vec::new(),
        on_worker_loss: ld_shared::plan::WorkerLoss::default(),
        on_master_loss: ld_shared::plan::MasterLoss::default(),
        allow_targets: Vec::new(),
        secrets: None,
    }
}

/// The run.
pub(crate) fn measured() -> Measured {
    let plan = Arc::new(plan());
    let mut made = Made::default();
    for second in 0..SECONDS {
        let t = |s: u32| RunTime::from_secs(f64::from(s));
        let rate = plan.scenarios[0].load.profile();
        let due = (rate.integral(t(second + 1)) - rate.integral(t(second))).round() as u64;
        for i in 0..due {
            made.request(second, i, due);
        }
        let row = made.timeline.entry(second).or_default();
        row.row.user_ms = 1_000 * due / 12;
        row.row.bound_cores = u64::from(second == 9);
    }
    let Made { total, timeline, odometers, mut records, .. } = made;
    records.sort_by_key(|r| r.ended_at);
    let unmarked = total.clone();
    Measured {
        run: RunId("019aa000-0000-7000-8000-000000000001".into()),
        program: ld_shared::load::Program::default(),
        plan_digest: Digest::of(&plan.to_json()),
        plan,
        mode: "cluster",
        started_at: Utc.with_ymd_and_hms(2026, 11, 23, 18, 0, 0).single().expect("a valid date"),
        ended_at: Utc.with_ymd_and_hms(2026, 11, 23, 18, 0, 13).single().expect("a valid date"),
        duration_s: f64::from(SECONDS),
        total,
        unmarked,
        timeline,
        blocks: Blocks::default(),
        odometers,
        lost: 0,
        lost_by_phase: [0; Phase::COUNT],
        workers: vec![worker("w1", "ok", 0.41), worker("w2", "lost", 0.93)],
        losses: vec![Loss {
            from_s: 10.4,
            to_s: 12.0,
            worker: "w2".into(),
            planned: 80,
            achieved: 17,
            bound: 0,
            reason: "connection reset without goodbye".into(),
        }],
        events: vec![Event {
            at_s: 10.4,
            what: "worker w2 was lost; the run goes on with less".into(),
            by: "master".into(),
        }],
        watched: Vec::new(),
        records,
        records_seen: [0, 0],
        all_records: None,
        ending: Ending::Completed,
        collected: None,
    }
}

fn worker(name: &str, state: &'static str, cpu_max: f64) -> WorkerResult {
    WorkerResult {
        name: name.into(),
        cores: 2,
        users_max: 40,
        requests: 500,
        cpu_max,
        lag_p99_ms: 0.4,
        clock_offset_ms: 0.12,
        clock_error_ms: 0.05,
        start_skew_ms: 0.3,
        state,
        lost_at_s: (state == "lost").then_some(10.4),
    }
}

/// Takes every failure out, consistently.
pub(crate) fn without_failures(measured: &mut Measured) {
    for (phase, counted) in measured.total.phases.iter_mut().zip(&mut measured.odometers.phases) {
        counted.requests_started -= phase.failed();
        phase.failures.clear();
        phase.series.values_mut().for_each(|s| s.failed = ld_shared::latency::Latency::default());
    }
    measured.records.retain(|r| r.error.is_none());
}

#[derive(Default)]
struct Made {
    total: Snapshot,
    timeline: BTreeMap<u32, TimelineRow>,
    odometers: Odometers,
    records: Vec<Record>,
    number: u64,
}

impl Made {
    fn request(&mut self, second: u32, i: u64, due: u64) {
        self.number += 1;
        let (name, method, typical) = NAMES[(self.number % 4) as usize];
        let mut rng = KeyedRng::new(7, self.number, 0);
        // a long tail, and a stall in second 6 that hits whatever came in it
        let mut micros = (typical * 1e3 * (0.6 - (1.0 - rng.next_f64()).ln() * 0.5)) as u64;
        let intended = u64::from(second) * SECOND + i * SECOND / due.max(1);
        if second == 6 {
            micros += 1_000_000 - i * 1_000_000 / due.max(1);
        }
        let ended = intended + micros * 1_000;
        let lag = (rng.next_f64() * 90.0) as u64;
        let failure = (name == "checkout" && self.number % 48 == 3).then_some((FailureKind::Status, "status 503"));
        let phase = if second < WARMUP { Phase::Warmup } else { Phase::Main };
        self.count(
            phase,
            second,
            ended,
            &SeriesKey { name: name.into(), request_type: method.into(), scenario: "shop".into() },
            micros,
            lag,
            failure,
        );
        let odometer = &mut self.odometers.phases[phase.index()];
        odometer.due += 1;
        odometer.iterations += 1;
        odometer.requests_started += 1;
        odometer.requests_written += 1;
        odometer.requests_ended += 1;
        self.records.push(Record {
            priority: self.number,
            ended_at: ended,
            started_at: intended + lag * 1_000,
            phase,
            request_type: method.into(),
            url: format!("http://127.0.0.1:8080/{}", name.replace(' ', "/")).into(),
            name: name.into(),
            scenario: "shop".into(),
            worker: if self.number.is_multiple_of(2) { "w1" } else { "w2" }.into(),
            status: Some(if failure.is_some() { 503 } else { 200 }),
            response_us: micros,
            body_bytes: 512,
            error: failure.map(|(_, reason)| reason.into()),
            answer: None,
        });
    }

    #[expect(clippy::too_many_arguments, reason = "one sample, spelled out")]
    fn count(
        &mut self,
        phase: Phase,
        second: u32,
        ended: u64,
        key: &SeriesKey,
        micros: u64,
        lag: u64,
        failure: Option<(FailureKind, &str)>,
    ) {
        let snapshot = self.total.phase_mut(phase);
        snapshot.service.record(micros - lag.min(micros));
        snapshot.lag.record(lag);
        snapshot.timing[TimingPart::Send.index()].record(12);
        snapshot.timing[TimingPart::FirstByte.index()].record(micros * 9 / 10);
        snapshot.timing[TimingPart::Receive.index()].record(micros / 10);
        let series = snapshot.series_mut(key);
        series.first_at = series.first_at.min(ended);
        series.bytes_sent += 120;
        series.bytes_received += 512;
        self.timeline.entry(second).or_default().row.requests_started += 1;
        self.timeline.entry(second).or_default().row.iterations += 1;
        let at = (ended / SECOND) as u32;
        let row = self.timeline.entry(at).or_default();
        row.response.record(micros);
        row.drain = at >= SECONDS;
        match failure {
            None => {
                series.succeeded.record(micros);
                row.row.succeeded += 1;
            }
            Some((kind, reason)) => {
                series.failed.record(micros);
                row.row.failed += 1;
                snapshot.fail(key, &reason.into(), FailureCount { kind, count: 1, first_at: ended, last_at: ended });
            }
        }
    }
}

/// Two rules that hold, one that does not.
pub(crate) fn thresholds() -> Vec<super::verdict::Threshold> {
    let rule = |rule: &str, observed: f64, seen: &str, ok: bool, about_failures: bool| super::verdict::Threshold {
        rule: rule.into(),
        observed: Some(observed),
        ok,
        ok_unmarked: ok,
        about_failures,
        seen: seen.into(),
        ..super::verdict::Threshold::default()
    };
    vec![
        rule("p50 < 50ms", 31.2, "31.2 ms", true, false),
        rule("p95 < 200ms", 812.0, "812 ms", false, false),
        rule("failure_rate < 5%", 0.021, "2.10 %", true, true),
    ]
}
