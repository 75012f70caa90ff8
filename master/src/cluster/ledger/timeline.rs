//! Seconds of a run: at most [`MOST_ROWS`], then neighbours merge, without loss.

use crate::run::TimelineRow;
use ld_shared::latency::Latency;
use ld_shared::snapshot::Row;
use ld_shared::time::RunTime;
use std::collections::BTreeMap;

const MOST_ROWS: usize = 3_600;

/// Rows by second. Histograms are kept in their wire form: it is as small as their content.
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
    pub(super) response: Vec<u8>,
    /// Longest span that its percentiles describe, s.
    pub(super) span: u32,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), scale: 1 }
    }
}

impl Entry {
    fn merge_response(&mut self, response: &Latency) {
        if response.count() > 0 {
            let mut all = self.response();
            all.merge(response);
            self.response = all.encoded();
        }
    }

    fn response(&self) -> Latency {
        let mut latency = Latency::default();
        if !self.response.is_empty() {
            latency.merge_encoded(&self.response).expect("these bytes were encoded here");
        }
        latency
    }

    fn merge(&mut self, other: &Self) {
        self.row.merge(&other.row);
        self.unmarked.merge(&other.unmarked);
        self.merge_response(&other.response());
        self.span = self.span.max(other.span);
    }
}

impl Timeline {
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
            entry.merge_response(response);
            entry.span = entry.span.max(to - from);
        }
        self.bound();
    }

    pub(super) fn add_row(&mut self, second: u32, row: &Row) {
        let entry = self.entry(second);
        entry.row.merge(row);
        entry.unmarked.merge(row);
        self.bound();
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
        let row = |(second, entry): (&u32, &Entry)| {
            let span = entry.span.max(self.scale);
            let drain = RunTime(u64::from(*second) * ld_shared::time::SECOND) >= end;
            let row =
                TimelineRow { row: entry.row, response: entry.response(), coarse: (span > 1).then_some(span), drain };
            (*second, row)
        };
        self.rows.iter().map(row).collect()
    }

    fn entry(&mut self, second: u32) -> &mut Entry {
        self.rows.entry(second - second % self.scale).or_default()
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
        assert_eq!(rows[&0].coarse, Some(4));
        assert!(rows[&9_000].drain && !rows[&8_996].drain);
    }
}
