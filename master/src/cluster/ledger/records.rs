//! A uniform sample of requests: the `k` of lowest random priority.
//!
//! Bottom-k merges: a sample of samples is a sample of the whole (E. Cohen, "Summarizing data
//! using bottom-k sketches", 2007).

use ld_shared::record::Record;
use std::collections::BTreeMap;

/// The records of lowest priority.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sampler {
    keep: usize,
    /// Ties of the priority are told apart by what the record says, so that order does not matter.
    kept: BTreeMap<(u64, u64, u64), Record>,
}

impl Sampler {
    pub(super) fn new(keep: u64) -> Self {
        Self { keep: usize::try_from(keep).unwrap_or(usize::MAX), kept: BTreeMap::new() }
    }

    pub(super) fn offer(&mut self, record: Record) {
        self.kept.insert((record.priority, record.ended_at, record.response_us), record);
        if self.kept.len() > self.keep {
            self.kept.pop_last();
        }
    }

    /// Priorities at or above this are not wanted; everything is, while there is room.
    pub(super) fn limit(&self) -> u64 {
        if self.keep == 0 {
            return 0;
        }
        let full = self.kept.len() >= self.keep;
        self.kept.last_key_value().filter(|_| full).map_or(u64::MAX, |((priority, _, _), _)| *priority)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.kept.values()
    }
}
