//! Seconds of a run: at most [`MOST_ROWS`], then neighbours merge, without loss.

use crate::run::TimelineRow;
use crate::run::folded::Folded;
use ld_shared::latency::Latency;
use ld_shared::snapshot::Row;
use ld_shared::time::RunTime;
use std::collections::BTreeMap;

const MOST_ROWS: usize = 3_600;

/// So many of the newest rows are added to: frames of older ones are rare.
const OPEN_ROWS: usize = 8;

/// Rows by second.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timeline {
    pub(super) rows: BTreeMap<u32, Entry>,
    /// Seconds a row, a power of two.
    pub(super) scale: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    pub(super) row: Row,
    pub(super) unmarked: Row,
    pub(super) response: Folded,
    /// Longest span that its percentiles describe, s.
    pub(super) span: u32,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), scale: 1 }
    }
}

impl Entry {
    pub(super) fn merge(&mut self, other: &Self) {
        self.row.merge(&other.row);
        self.unmarked.merge(&other.unmarked);
        self.response.merge(&other.response);
        self.span = self.span.max(other.span);
    }
}

impl Timeline {
    /// Of rows that were stored.
    pub(super) fn of(rows: BTreeMap<u32, Entry>, scale: u32) -> Self {
        let mut timeline = Self { rows, scale };
        timeline.bound();
        timeline
    }

    /// Adds a span: its rows of counts, and the response times of the span as a whole.
    pub(super) fn add(&mut self, from: u32, to: u32, rows: &BTreeMap<u32, Row>, response: &Latency, marked: bool) {
        for (second, row) in rows {
            let entry = self.entry(*second);
            entry.row.merge(row);
            if !marked {
                entry.unmarked.merge(row);
            }
        }
        // frames after the last second carry records and no span
        if from < to {
            let entry = self.entry(from);
            entry.response.add(response);
            entry.span = entry.span.max(to - from);
            self.seal_around(from);
        }
        self.bound();
    }

    pub(super) fn add_row(&mut self, second: u32, row: &Row) {
        let entry = self.entry(second);
        entry.row.merge(row);
        entry.unmarked.merge(row);
        self.bound();
    }

    /// The last of the seconds before `to` that end a row.
    pub(super) fn whole_to(&self, to: u32) -> u32 {
        to - to % self.scale
    }

    /// Counts of a second; `None` if it is not there, or merged with its neighbours.
    pub(super) fn row(&self, second: u32) -> Option<Row> {
        (self.scale == 1).then(|| self.rows.get(&second).map(|entry| entry.row)).flatten()
    }

    pub(super) fn rows(&self) -> BTreeMap<u32, Row> {
        self.rows.iter().map(|(second, entry)| (*second, entry.row)).collect()
    }

    pub(super) fn unmarked_rows(&self) -> BTreeMap<u32, Row> {
        self.rows.iter().map(|(second, entry)| (*second, entry.unmarked)).collect()
    }

    /// The rows as results list them; those from `end` on are of the drain.
    pub(super) fn finish(&self, end: RunTime) -> BTreeMap<u32, TimelineRow> {
        self.between(0, u32::MAX, end)
    }

    /// The rows that end behind `from` and before `to`.
    pub(super) fn between(&self, from: u32, to: u32, end: RunTime) -> BTreeMap<u32, TimelineRow> {
        let row = |(second, entry): (&u32, &Entry)| {
            let span = entry.span.max(self.scale);
            let drain = RunTime(u64::from(*second) * ld_shared::time::SECOND) >= end;
            let (coarse, seconds) = ((span > 1).then_some(span), self.scale);
            (*second, TimelineRow { row: entry.row, seconds, response: entry.response.whole(), coarse, drain })
        };
        let ends = |second: &u32| second.saturating_add(self.scale) <= to;
        self.rows.range(from - from % self.scale..).take_while(|(second, _)| ends(second)).map(row).collect()
    }

    fn entry(&mut self, second: u32) -> &mut Entry {
        self.rows.entry(second - second % self.scale).or_default()
    }

    /// Seals the row that is no longer of the newest, and that of `second` if it is not.
    fn seal_around(&mut self, second: u32) {
        let Some(newest_old) = self.rows.keys().rev().nth(OPEN_ROWS).copied() else { return };
        let second = second - second % self.scale;
        for at in [newest_old, second.min(newest_old)] {
            if let Some(entry) = self.rows.get_mut(&at) {
                entry.response.seal();
            }
        }
    }

    fn bound(&mut self) {
        while self.rows.len() > MOST_ROWS {
            self.scale *= 2;
            for (second, entry) in std::mem::take(&mut self.rows) {
                self.entry(second).merge(&entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_lose_resolution_but_no_sample() {
        let mut timeline = Timeline::default();
        for second in 0..10_000 {
            let mut response = Latency::default();
            response.record(u64::from(second));
            let rows = BTreeMap::from([(second, Row { succeeded: 1, ..Row::default() })]);
            timeline.add(second, second + 1, &rows, &response, false);
        }
        let rows = timeline.finish(RunTime::from_secs(9_000.0));
        assert!(rows.len() <= MOST_ROWS);
        assert_eq!(rows.values().map(|r| r.row.succeeded).sum::<u64>(), 10_000);
        assert_eq!(rows.values().map(|r| r.response.count()).sum::<u64>(), 10_000);
        assert_eq!((rows[&0].coarse, rows[&0].seconds), (Some(4), 4));
        let between = timeline.between(5, 14, RunTime::MAX);
        assert_eq!(between.keys().copied().collect::<Vec<_>>(), [4, 8], "whole rows only");
        assert!(rows[&9_000].drain && !rows[&8_996].drain);
    }
}
