//! [`RunResult`]: what `--summary`, `LD_summary` and every report show, `loaddensity.run/1`.
//!
//! A pure function of what the cluster measured and of how it was judged: [`RunResult::of`].

use super::conservation::{Conservation, Hooks, Warmup, sent};
use super::messages::Messages;
use super::timeline::{self, Second};
use super::verdict::Verdict;
use super::{AllRecords, Measured, Run};
use chrono::{DateTime, SecondsFormat, Utc};
use ld_shared::latency::Latency;
use ld_shared::sample::{OTHER, Phase, TimingPart};
use ld_shared::snapshot::{PhaseSnapshot, Series};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name and version of this form.
pub const SCHEMA: &str = "loaddensity.run/1";

/// The result of a run, or of several: totals, latencies, names and failures add up over all of
/// them; the rest describes the last one, and `runs` lists each.
#[derive(Clone, Debug, Serialize)]
pub struct RunResult {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What ran. `None` if nothing did.
    pub run: Option<RunInfo>,
    /// How it was judged.
    pub verdict: Verdict,
    /// Requests and bytes.
    pub totals: Totals,
    /// Both ledgers, held against each other.
    pub conservation: Conservation,
    /// The same of the warm-up, which is in nothing else.
    pub warmup: Warmup,
    /// The same of `on_start`, `on_stop`, `setup` and `teardown`, which are in nothing else either.
    pub hooks: Hooks,
    /// Response time of all samples.
    pub latency_overall: Percentiles,
    /// Response time of successes.
    pub success_latency: Percentiles,
    /// Service time of all samples.
    pub service_overall: Percentiles,
    /// Started − intended of all samples.
    pub lag_overall: Percentiles,
    /// By name, in order of first end.
    pub per_name: Names,
    /// Parts of exchanges.
    pub timing: Timing,
    /// Failures by name and reason, most frequent first.
    pub failures: Vec<FailureGroup>,
    /// What arrived by itself, if anything did.
    #[serde(skip_serializing_if = "Messages::is_empty")]
    pub messages: Messages,
    /// Second by second.
    pub timeline: Vec<Second>,
    /// Who made the load.
    pub workers: Vec<Worker>,
    /// What was lost, and when.
    pub losses: Vec<Loss>,
    /// What people and policies did.
    pub events: Vec<Event>,
    /// Requests that are listed one by one, and those that they were chosen from.
    pub records: Records,
    /// Each run.
    pub runs: Vec<RunEntry>,
}

/// What ran.
#[derive(Clone, Debug, Serialize)]
pub struct RunInfo {
    /// Id, UUID version 7.
    pub id: String,
    /// Label given by the document, if any.
    pub label: Option<String>,
    /// Wall clock at the start instant, RFC 3339.
    #[serde(serialize_with = "rfc3339")]
    pub started_at: DateTime<Utc>,
    /// Wall clock at the close.
    #[serde(serialize_with = "rfc3339")]
    pub ended_at: DateTime<Utc>,
    /// From the start instant to when starting ended, s.
    pub duration_s: f64,
    /// SHA-256 of the plan.
    pub plan_digest: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// `local` or `cluster`.
    pub mode: &'static str,
    /// `closed`, `open`, or `mixed` if scenarios differ.
    pub model: &'static str,
}

/// Requests and bytes of the main phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Requests that ended.
    pub requests: u64,
    /// With success.
    pub successes: u64,
    /// With failure.
    pub failures: u64,
    /// Failures / requests, 0..1.
    pub failure_rate: f64,
    /// Requests started per second of the main window.
    pub requests_per_s: f64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Bytes read.
    pub bytes_received: u64,
}

/// Percentiles of a histogram in milliseconds; all 0.0 without samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub count: u64,
    pub min_ms: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p75_ms: f64,
    pub p90_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// Names with their results, in order; JSON: an object.
#[derive(Clone, Debug, Default)]
pub struct Names(pub Vec<(Arc<str>, NameResult)>);

/// The samples of one name, whatever their request type and scenario.
#[derive(Clone, Debug, Serialize)]
pub struct NameResult {
    /// Samples.
    pub count: u64,
    /// Successes among them.
    pub successes: u64,
    /// Failures among them.
    pub failures: u64,
    /// Failures / count, 0..1.
    pub failure_rate: f64,
    /// Request type of the name's first sample.
    pub request_type: Arc<str>,
    /// Response times of all.
    #[serde(flatten)]
    pub latency: Bounds,
    /// Response times of successes.
    pub success_latency: Percentiles,
    /// All response times: base64 of the `HdrHistogram` V2 encoding with deflate, µs.
    pub hdr: String,
    /// Some of its samples may be counted under `(other)`: there were more names than are kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    #[serde(skip)]
    pub(crate) response: Arc<Latency>,
}

/// [`Percentiles`] without their count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Bounds {
    pub min_ms: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p75_ms: f64,
    pub p90_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// Parts of exchanges, those that had the part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are those of `TimingPart`")]
pub struct Timing {
    pub dns: Part,
    pub connect: Part,
    pub tls: Part,
    pub send: Part,
    pub first_byte: Part,
    pub receive: Part,
}

/// One part of exchanges in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Part {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Failures of one name for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct FailureGroup {
    /// The name.
    pub name: Arc<str>,
    /// Its request type.
    pub request_type: Arc<str>,
    /// The class, by which failures group over protocols: `dns`, `connect`, `timeout`, …
    pub class: &'static str,
    /// Why.
    pub reason: Arc<str>,
    /// How many.
    pub count: u64,
    /// When the first ended, run time.
    pub first_at_s: f64,
    /// When the last ended.
    pub last_at_s: f64,
}

/// One worker's part.
#[derive(Clone, Debug, Serialize)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Its load cores.
    pub cores: u32,
    /// Most users at once.
    pub users_max: u64,
    /// Requests that it started, warm-up included.
    pub requests: u64,
    /// Greatest CPU share of one of its cores in one second, 0..1.
    pub cpu_max: f64,
    /// p99 of how long its cores waited to be polled.
    pub lag_p99_ms: f64,
    /// The master's clock − its, ms.
    pub clock_offset_ms: f64,
    /// Bound on the error of that.
    pub clock_error_ms: f64,
    /// First start − start instant.
    pub start_skew_ms: f64,
    /// `ok`, `lost`, `left`, `late`.
    pub state: &'static str,
    /// When it was lost, run time.
    pub lost_at_s: Option<f64>,
}

/// A loss: which load, when, and the bound of what is not known.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// From, run time.
    pub from_s: f64,
    /// To.
    pub to_s: f64,
    /// Whose.
    pub worker: String,
    /// Starts that its share planned in that span.
    pub planned: u64,
    /// Starts that happened.
    pub achieved: u64,
    /// Upper bound of requests with unknown end.
    pub bound: u64,
    /// Why.
    pub reason: String,
}

/// Something done to a run.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Run time.
    pub at_s: f64,
    /// What.
    pub what: String,
    /// By whom.
    pub by: String,
}

/// How many requests are listed one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Records {
    /// Listed.
    pub kept: u64,
    /// That ended.
    pub seen: u64,
    /// The last run's file of all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<AllRecords>,
}

/// One of several runs.
#[derive(Clone, Debug, Serialize)]
pub struct RunEntry {
    /// What ran.
    pub run: RunInfo,
    /// How it was judged.
    pub verdict: Verdict,
    /// Its requests.
    pub totals: Totals,
    /// Its ledgers.
    pub conservation: Conservation,
    /// Its response times.
    pub latency_overall: Percentiles,
}

impl RunResult {
    /// The result of `runs`, in their order, under `verdict`: that of the last run, or of a whole
    /// document. Without runs all numbers are zero.
    pub fn of(runs: &[Arc<Run>], verdict: Verdict) -> Self {
        let (mut main, mut messages) = (PhaseSnapshot::default(), PhaseSnapshot::default());
        let mut totals = Window::default();
        for run in runs {
            main.merge(run.measured.total.phase(Phase::Main));
            messages.merge(run.measured.total.phase(Phase::Messages));
            totals.add(&run.measured);
        }
        let response = main.response();
        let last = runs.last().map(|run| &run.measured);
        Self {
            schema: SCHEMA,
            run: runs.last().map(|run| RunInfo::of(run)),
            verdict,
            totals: totals.totals(&main),
            conservation: last.map_or_else(Conservation::default, Conservation::of_main),
            warmup: last.map_or_else(Warmup::default, Warmup::of),
            hooks: last.map_or_else(Hooks::default, Hooks::of),
            latency_overall: Percentiles::of(&response),
            success_latency: Percentiles::of(&main.response_of_successes()),
            service_overall: Percentiles::of(&main.service),
            lag_overall: Percentiles::of(&main.lag),
            per_name: Names::of(&main),
            timing: Timing::of(&main),
            failures: failures(&main),
            messages: Messages::of(&messages),
            timeline: last.map_or_else(Vec::new, timeline::of),
            workers: last.map_or_else(Vec::new, |m| m.workers.iter().map(Worker::of).collect()),
            losses: last.map_or_else(Vec::new, |m| m.losses.iter().map(Loss::of).collect()),
            events: last.map_or_else(Vec::new, |m| m.events.iter().map(Event::of).collect()),
            records: records(runs, &main),
            runs: runs.iter().map(|run| RunEntry::of(run)).collect(),
        }
    }

    /// Whether any request of the main phase ended.
    pub fn is_empty(&self) -> bool {
        self.totals.requests == 0
    }
}

/// Requests started in main windows, and their lengths.
#[derive(Default)]
struct Window {
    started: u64,
    seconds: f64,
}

impl Window {
    fn add(&mut self, measured: &Measured) {
        self.started += sent(measured.odometers.phase(Phase::Main));
        self.seconds += measured.main_seconds();
    }

    fn totals(&self, phase: &PhaseSnapshot) -> Totals {
        let rate = if self.seconds > 0.0 { self.started as f64 / self.seconds } else { 0.0 };
        Totals { requests_per_s: rate, ..Totals::of(phase) }
    }
}

impl Totals {
    /// Counts of a phase; its rate stays 0.
    pub(crate) fn of(phase: &PhaseSnapshot) -> Self {
        let (successes, failures) = (phase.succeeded(), phase.failed());
        Self {
            requests: successes + failures,
            successes,
            failures,
            failure_rate: share(failures, successes + failures),
            requests_per_s: 0.0,
            bytes_sent: phase.series.values().map(|s| s.bytes_sent).sum(),
            bytes_received: phase.series.values().map(|s| s.bytes_received).sum(),
        }
    }

    /// Of one run.
    fn of_run(measured: &Measured) -> Self {
        let mut window = Window::default();
        window.add(measured);
        window.totals(measured.total.phase(Phase::Main))
    }
}

impl RunInfo {
    fn of(run: &Run) -> Self {
        let measured = &run.measured;
        Self {
            id: measured.run.to_string(),
            label: run.label.clone(),
            started_at: measured.started_at,
            ended_at: measured.ended_at,
            duration_s: measured.duration_s,
            plan_digest: measured.plan_digest.to_string(),
            seed: measured.plan.seed,
            mode: measured.mode,
            model: model(measured),
        }
    }
}

/// `closed`, `open`, or `mixed`.
fn model(measured: &Measured) -> &'static str {
    let mut models = measured.plan.scenarios.iter().map(|s| s.load.model());
    let first = models.next().unwrap_or("closed");
    if models.all(|m| m == first) { first } else { "mixed" }
}

impl RunEntry {
    fn of(run: &Run) -> Self {
        Self {
            run: RunInfo::of(run),
            verdict: run.verdict.clone(),
            totals: Totals::of_run(&run.measured),
            conservation: Conservation::of_main(&run.measured),
            latency_overall: Percentiles::of(&run.measured.total.phase(Phase::Main).response()),
        }
    }
}

impl Percentiles {
    /// Of `latency`.
    pub fn of(latency: &Latency) -> Self {
        let Bounds { min_ms, mean_ms, p50_ms, p75_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms } = Bounds::of(latency);
        let count = latency.count();
        Self { count, min_ms, mean_ms, p50_ms, p75_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms }
    }
}

impl Bounds {
    fn of(latency: &Latency) -> Self {
        let at = |p| ms(latency.percentile(p));
        Self {
            min_ms: ms(latency.min()),
            mean_ms: latency.mean() / 1e3,
            p50_ms: at(50.0),
            p75_ms: at(75.0),
            p90_ms: at(90.0),
            p95_ms: at(95.0),
            p99_ms: at(99.0),
            p999_ms: at(99.9),
            max_ms: ms(latency.max()),
        }
    }
}

impl Names {
    pub(super) fn of(phase: &PhaseSnapshot) -> Self {
        let mut names: BTreeMap<&Arc<str>, (Series, &Arc<str>)> = BTreeMap::new();
        for (key, series) in &phase.series {
            let (sum, request_type) = names.entry(&key.name).or_insert_with(|| (Series::default(), &key.request_type));
            if series.first_at < sum.first_at {
                *request_type = &key.request_type;
            }
            sum.merge(series);
        }
        let partial = names.contains_key(&Arc::from(OTHER));
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(_, (series, _))| series.first_at);
        let result = |(name, (series, request_type)): (&Arc<str>, (Series, &Arc<str>))| {
            (Arc::clone(name), NameResult::of(&series, request_type, partial))
        };
        Self(names.into_iter().map(result).collect())
    }

    /// The result of `name`.
    pub fn get(&self, name: &str) -> Option<&NameResult> {
        self.0.iter().find(|(n, _)| &**n == name).map(|(_, result)| result)
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, result) in &self.0 {
            map.serialize_entry(name, result)?;
        }
        map.end()
    }
}

impl NameResult {
    fn of(series: &Series, request_type: &Arc<str>, partial: bool) -> Self {
        let response = series.all();
        let (successes, failures) = (series.succeeded.count(), series.failed.count());
        Self {
            count: response.count(),
            successes,
            failures,
            failure_rate: share(failures, successes + failures),
            request_type: Arc::clone(request_type),
            latency: Bounds::of(&response),
            success_latency: Percentiles::of(&series.succeeded),
            hdr: response.to_hdr(),
            partial,
            response: Arc::new(response),
        }
    }
}

impl Timing {
    fn of(phase: &PhaseSnapshot) -> Self {
        let part = |part: TimingPart| {
            let latency = &phase.timing[part.index()];
            Part {
                count: latency.count(),
                mean_ms: latency.mean() / 1e3,
                p50_ms: ms(latency.percentile(50.0)),
                p99_ms: ms(latency.percentile(99.0)),
                max_ms: ms(latency.max()),
            }
        };
        Self {
            dns: part(TimingPart::Dns),
            connect: part(TimingPart::Connect),
            tls: part(TimingPart::Tls),
            send: part(TimingPart::Send),
            first_byte: part(TimingPart::FirstByte),
            receive: part(TimingPart::Receive),
        }
    }

    /// Parts with their names, in the order of an exchange.
    pub fn parts(&self) -> [(&'static str, Part); 6] {
        let Self { dns, connect, tls, send, first_byte, receive } = *self;
        let values = [dns, connect, tls, send, first_byte, receive];
        std::array::from_fn(|i| (TimingPart::ALL[i].name(), values[i]))
    }
}

pub(super) fn failures(phase: &PhaseSnapshot) -> Vec<FailureGroup> {
    let group = |((key, reason), failure): (&(_, _), &ld_shared::snapshot::FailureCount)| {
        let key: &ld_shared::sample::SeriesKey = key;
        FailureGroup {
            name: Arc::clone(&key.name),
            request_type: Arc::clone(&key.request_type),
            class: failure.kind.name(),
            reason: Arc::clone(reason),
            count: failure.count,
            first_at_s: seconds(failure.first_at),
            last_at_s: seconds(failure.last_at),
        }
    };
    let mut groups: Vec<FailureGroup> = phase.failures.iter().map(group).collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    groups
}

fn records(runs: &[Arc<Run>], main: &PhaseSnapshot) -> Records {
    let kept = |run: &Arc<Run>| run.measured.records.iter().filter(|r| r.phase == Phase::Main).count() as u64;
    let all = runs.last().and_then(|run| run.measured.all_records.clone());
    Records { kept: runs.iter().map(kept).sum(), seen: main.succeeded() + main.failed(), all }
}

impl Worker {
    fn of(worker: &super::WorkerResult) -> Self {
        Self {
            name: worker.name.clone(),
            cores: worker.cores,
            users_max: worker.users_max,
            requests: worker.requests,
            cpu_max: worker.cpu_max,
            lag_p99_ms: worker.lag_p99_ms,
            clock_offset_ms: worker.clock_offset_ms,
            clock_error_ms: worker.clock_error_ms,
            start_skew_ms: worker.start_skew_ms,
            state: worker.state,
            lost_at_s: worker.lost_at_s,
        }
    }
}

impl Loss {
    fn of(loss: &super::Loss) -> Self {
        Self {
            from_s: loss.from_s,
            to_s: loss.to_s,
            worker: loss.worker.clone(),
            planned: loss.planned,
            achieved: loss.achieved,
            bound: loss.bound,
            reason: loss.reason.clone(),
        }
    }
}

impl Event {
    fn of(event: &super::Event) -> Self {
        Self { at_s: event.at_s, what: event.what.clone(), by: event.by.clone() }
    }
}

/// Microseconds as milliseconds.
pub(crate) fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

/// Nanoseconds of run time as seconds.
fn seconds(nanos: u64) -> f64 {
    ld_shared::time::RunTime(nanos).as_secs()
}

/// `part` / `whole`; 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn rfc3339<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}
