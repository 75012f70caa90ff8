//! Counts and histograms over a span: one second of one worker, or a whole run.
//!
//! [`Snapshot::merge`] is commutative and associative and has an identity: only sums, minima and
//! maxima are stored, never a last value.

use crate::latency::Latency;
use crate::sample::{FailureKind, MAX_NAMES, MAX_REASONS, OTHER, Phase, SeriesKey};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts and histograms over a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// One entry a [`Phase`], by its index.
    pub phases: [PhaseSnapshot; Phase::COUNT],
    /// Counts by run-clock second.
    pub rows: BTreeMap<u32, Row>,
}

/// What ended in one phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhaseSnapshot {
    /// Samples by series.
    pub series: BTreeMap<SeriesKey, Series>,
    /// Service time of all samples.
    pub service: Latency,
    /// Started − intended of all samples.
    pub lag: Latency,
    /// Parts of exchanges, by [`crate::sample::TimingPart`] index.
    pub timing: [Latency; 6],
    /// Failures by series and reason.
    pub failures: BTreeMap<(SeriesKey, Arc<str>), FailureCount>,
}

/// Samples of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Response time of successes.
    pub succeeded: Latency,
    /// Response time of failures.
    pub failed: Latency,
    /// Service time of all, where the plan asks for it ([`crate::plan::Plan::details`]).
    pub service: Latency,
    /// Started − intended of all, where the plan asks for it.
    pub lag: Latency,
    /// Bytes written for them.
    pub bytes_sent: u64,
    /// Bytes read for them.
    pub bytes_received: u64,
    /// Run-clock instant of the first end, ns: reports list names in first-seen order.
    pub first_at: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            succeeded: Latency::default(),
            failed: Latency::default(),
            service: Latency::default(),
            lag: Latency::default(),
            bytes_sent: 0,
            bytes_received: 0,
            first_at: u64::MAX,
        }
    }
}

/// Failures of one series for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureCount {
    /// Their class (the lowest, should one reason come with several).
    pub kind: FailureKind,
    /// How many.
    pub count: u64,
    /// Run-clock instant of the first, ns.
    pub first_at: u64,
    /// Run-clock instant of the last, ns.
    pub last_at: u64,
}

/// Why an iteration that was due was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The cap on open iterations was reached.
    InFlightCap,
    /// The generator was more than a second late.
    GeneratorLate,
    /// Nobody held its lane when it was due.
    NoOwner,
    /// A limit of this machine: files, ports, buffers.
    LocalError,
}

impl DropReason {
    /// All reasons, in the order of their indices.
    pub const ALL: [Self; 4] = [Self::InFlightCap, Self::GeneratorLate, Self::NoOwner, Self::LocalError];

    /// Index into arrays that hold one entry a reason.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Key of results.
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlightCap => "in_flight_cap",
            Self::GeneratorLate => "generator_late",
            Self::NoOwner => "no_owner",
            Self::LocalError => "local_error",
        }
    }
}

/// Counts of one run-clock second. Gauges are kept as sums over time, so that seconds of several
/// workers add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Requests started in it.
    pub requests_started: u64,
    /// Requests ended in it with success.
    pub succeeded: u64,
    /// Requests ended in it with failure.
    pub failed: u64,
    /// Iterations due in it that were dropped, by [`DropReason`] index.
    pub dropped: [u64; 4],
    /// Iterations started in it.
    pub iterations: u64,
    /// User-milliseconds lived in it (open model: of open iterations).
    pub user_ms: u64,
    /// CPU-milliseconds of the load cores in it.
    pub cpu_ms: u64,
    /// Load cores that were the limit in it (a mark by a worker counts all of its cores).
    pub bound_cores: u64,
}

impl Row {
    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.requests_started += other.requests_started;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
        self.iterations += other.iterations;
        self.user_ms += other.user_ms;
        self.cpu_ms += other.cpu_ms;
        self.bound_cores += other.bound_cores;
    }
}

impl Series {
    /// Response time of all samples.
    pub fn all(&self) -> Latency {
        let mut all = self.succeeded.clone();
        all.merge(&self.failed);
        all
    }

    /// Adds the samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.succeeded.merge(&other.succeeded);
        self.failed.merge(&other.failed);
        self.service.merge(&other.service);
        self.lag.merge(&other.lag);
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.first_at = self.first_at.min(other.first_at);
    }
}

impl PhaseSnapshot {
    /// The series of `key`, or `(other)` if there are [`MAX_NAMES`] already.
    pub fn series_mut(&mut self, key: &SeriesKey) -> &mut Series {
        let key = self.admit(key);
        self.series.entry(key).or_default()
    }

    fn admit(&self, key: &SeriesKey) -> SeriesKey {
        if self.series.len() < MAX_NAMES || self.series.contains_key(key) {
            return key.clone();
        }
        SeriesKey { name: OTHER.into(), request_type: OTHER.into(), scenario: OTHER.into() }
    }

    /// Counts failures, folding names and reasons beyond their limits into `(other)`.
    pub fn fail(&mut self, key: &SeriesKey, reason: &Arc<str>, count: FailureCount) {
        let key = self.admit(key);
        let place = (key.clone(), Arc::clone(reason));
        let known = self.failures.contains_key(&place);
        let place = if known || self.reasons_of(&key) < MAX_REASONS { place } else { (key, OTHER.into()) };
        self.failures.entry(place).and_modify(|have| have.merge(&count)).or_insert(count);
    }

    fn reasons_of(&self, key: &SeriesKey) -> usize {
        self.failures.range((key.clone(), Arc::from(""))..).take_while(|((k, _), _)| k == key).take(MAX_REASONS).count()
    }

    /// Response time of all samples.
    pub fn response(&self) -> Latency {
        let mut all = self.response_of_successes();
        self.series.values().for_each(|s| all.merge(&s.failed));
        all
    }

    /// Response time of all successes.
    pub fn response_of_successes(&self) -> Latency {
        let mut all = Latency::default();
        self.series.values().for_each(|s| all.merge(&s.succeeded));
        all
    }

    /// Successes.
    pub fn succeeded(&self) -> u64 {
        self.series.values().map(|s| s.succeeded.count()).sum()
    }

    /// Failures.
    pub fn failed(&self) -> u64 {
        self.series.values().map(|s| s.failed.count()).sum()
    }

    /// Successes and failures.
    pub fn ended(&self) -> u64 {
        self.series.values().map(|s| s.succeeded.count() + s.failed.count()).sum()
    }

    /// Adds what ended in `other`.
    pub fn merge(&mut self, other: &Self) {
        // both ascend: known series, nearly all, are met without a search
        let mut known = self.series.iter_mut().peekable();
        let mut new = Vec::new();
        for (key, series) in &other.series {
            while known.next_if(|(mine, _)| *mine < key).is_some() {}
            match known.next_if(|(mine, _)| *mine == key) {
                Some((_, mine)) => mine.merge(series),
                None => new.push((key, series)),
            }
        }
        for (key, series) in new {
            self.series_mut(key).merge(series);
        }
        self.service.merge(&other.service);
        self.lag.merge(&other.lag);
        for (mine, theirs) in self.timing.iter_mut().zip(&other.timing) {
            mine.merge(theirs);
        }
        for ((key, reason), count) in &other.failures {
            self.fail(key, reason, *count);
        }
    }
}

impl FailureCount {
    fn merge(&mut self, other: &Self) {
        self.kind = self.kind.min(other.kind);
        self.count += other.count;
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
    }
}

impl Snapshot {
    /// Makes one reason, `(other)`, of all reasons of a series: texts go, counts stay.
    pub fn fold_reasons(&mut self) {
        let other: Arc<str> = OTHER.into();
        for phase in &mut self.phases {
            for ((key, _), count) in std::mem::take(&mut phase.failures) {
                let place = (key, Arc::clone(&other));
                phase.failures.entry(place).and_modify(|have| have.merge(&count)).or_insert(count);
            }
        }
    }

    /// What ended in `phase`.
    pub fn phase(&self, phase: Phase) -> &PhaseSnapshot {
        &self.phases[phase.index()]
    }

    /// What ended in `phase`, to add to.
    pub fn phase_mut(&mut self, phase: Phase) -> &mut PhaseSnapshot {
        &mut self.phases[phase.index()]
    }

    /// Adds all of `other`.
    ///
    /// Up to the cardinality limits the order of merges does not matter; beyond them names and
    /// reasons are admitted in the order in which they come.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.phases.iter_mut().zip(&other.phases) {
            mine.merge(theirs);
        }
        for (second, row) in &other.rows {
            self.rows.entry(*second).or_default().merge(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        let sample = (0usize..3, 0u32..4, 0u64..5_000_000, any::<bool>(), 0u32..10);
        prop::collection::vec(sample, 0..40).prop_map(|samples| {
            let mut snapshot = Snapshot::default();
            for (phase, name, micros, ok, second) in samples {
                let key =
                    SeriesKey { name: format!("n{name}").into(), request_type: "GET".into(), scenario: "s".into() };
                let row = snapshot.rows.entry(second).or_default();
                row.requests_started += 1;
                row.user_ms += micros;
                let phase = &mut snapshot.phases[phase];
                phase.lag.record(micros / 2);
                phase.service.record(micros);
                phase.timing[name as usize].record(micros);
                let series = phase.series_mut(&key);
                series.first_at = series.first_at.min(micros);
                series.bytes_sent += 3;
                series.service.record(micros);
                series.lag.record(micros / 3);
                if ok {
                    series.succeeded.record(micros);
                } else {
                    series.failed.record(micros);
                    let count = FailureCount { kind: FailureKind::Status, count: 1, first_at: micros, last_at: micros };
                    phase.fail(&key, &format!("r{second}").into(), count);
                }
            }
            snapshot
        })
    }

    proptest! {
        #[test]
        fn merge_is_a_commutative_monoid(a in snapshot(), b in snapshot(), c in snapshot()) {
            let join = |x: &Snapshot, y: &Snapshot| { let mut z = x.clone(); z.merge(y); z };
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
            prop_assert_eq!(join(&a, &Snapshot::default()), a);
        }
    }

    #[test]
    fn names_and_reasons_are_bounded_and_nothing_is_lost() {
        let mut phase = PhaseSnapshot::default();
        for n in 0..MAX_NAMES + 50 {
            let key = SeriesKey { name: format!("{n}").into(), request_type: "GET".into(), scenario: "s".into() };
            phase.series_mut(&key).failed.record(1);
            let one = FailureCount { kind: FailureKind::Status, count: 1, first_at: 0, last_at: 0 };
            phase.fail(&key, &"r".into(), one);
        }
        assert_eq!(phase.series.len(), MAX_NAMES + 1);
        assert_eq!(phase.failed(), MAX_NAMES as u64 + 50);
        let key = SeriesKey { name: "0".into(), request_type: "GET".into(), scenario: "s".into() };
        for n in 0..MAX_REASONS + 50 {
            let one = FailureCount { kind: FailureKind::Status, count: 1, first_at: 0, last_at: 0 };
            phase.fail(&key, &format!("reason {n}").into(), one);
        }
        assert!(phase.failures.keys().filter(|(k, _)| *k == key).count() <= MAX_REASONS + 1);
        assert_eq!(phase.failures.values().map(|f| f.count).sum::<u64>(), (MAX_NAMES + 50 + MAX_REASONS + 50) as u64);
    }
}
