//! A uniform sample of requests: the `k` of lowest random priority.
//!
//! Bottom-k merges: a sample of samples is a sample of the whole (E. Cohen, "Summarizing data
//! using bottom-k sketches", 2007).

use ld_shared::record::Record;
use std::collections::BTreeMap;

/// Bytes of records of one kind; beyond it fewer are kept, still uniformly.
const MOST_BYTES: usize = 512 * 1024 * 1024;

/// The records of lowest priority.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sampler {
    keep: usize,
    most_bytes: usize,
    /// Ties of the priority are told apart by what the record says, so that order does not matter.
    kept: BTreeMap<(u64, u64, u64), Record>,
    bytes: usize,
    /// The lowest priority that was let go: what lies above it is no part of the sample.
    cut: u64,
}

impl Sampler {
    pub(super) fn new(keep: u64) -> Self {
        Self::with_bytes(keep, MOST_BYTES)
    }

    fn with_bytes(keep: u64, most_bytes: usize) -> Self {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        Self { keep, most_bytes, kept: BTreeMap::new(), bytes: 0, cut: u64::MAX }
    }

    pub(super) fn offer(&mut self, record: &Record) {
        if record.priority >= self.cut {
            return;
        }
        self.bytes += record.size();
        let key = (record.priority, record.ended_at, record.response_us);
        if let Some(twin) = self.kept.insert(key, record.clone()) {
            self.bytes -= twin.size();
        }
        while (self.kept.len() > self.keep || self.bytes > self.most_bytes)
            && let Some((key, record)) = self.kept.pop_last()
        {
            self.bytes -= record.size();
            self.cut = self.cut.min(key.0);
        }
    }

    /// Priorities at or above this are not wanted; everything is, while there is room.
    pub(super) fn limit(&self) -> u64 {
        if self.keep == 0 {
            return 0;
        }
        let full = self.kept.len() >= self.keep;
        let highest = self.kept.last_key_value().filter(|_| full).map(|((priority, _, _), _)| *priority);
        highest.unwrap_or(u64::MAX).min(self.cut)
    }

    /// Most records.
    pub(super) fn keep(&self) -> u64 {
        self.keep as u64
    }

    /// The lowest priority that was let go.
    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    /// As it was when these were kept.
    pub(super) fn restore(&mut self, cut: u64) {
        self.cut = cut;
    }

    /// They leave the sampler.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Record> {
        self.bytes = 0;
        std::mem::take(&mut self.kept).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::record::Answer;
    use ld_shared::rng::KeyedRng;
    use ld_shared::sample::Phase;
    use std::sync::Arc;

    #[test]
    fn large_answers_lower_the_number_and_the_sample_stays_the_lowest() {
        let mut sampler = Sampler::with_bytes(1_000, 100_000);
        let mut rng = KeyedRng::new(4, 5, 6);
        let mut drawn = Vec::new();
        for at in 0..3_000 {
            let body = vec![0; if at % 3 == 0 { 9_000 } else { 10 }];
            let record = Record {
                priority: rng.next_u64(),
                ended_at: at,
                started_at: at,
                phase: Phase::Main,
                request_type: "GET".into(),
                url: "u".into(),
                name: "n".into(),
                scenario: "s".into(),
                worker: "w".into(),
                status: None,
                response_us: 1,
                body_bytes: 0,
                error: None,
                answer: Some(Arc::new(Answer { headers: Vec::new(), body })),
            };
            drawn.push(record.priority);
            sampler.offer(&record);
            assert!(sampler.bytes <= 100_000);
        }
        drawn.sort_unstable();
        let limit = sampler.limit();
        let kept: Vec<u64> = sampler.take().map(|record| record.priority).collect();
        assert!(kept.len() > 10 && kept == drawn[..kept.len()]);
        assert!(limit <= drawn[kept.len()]);
    }
}
