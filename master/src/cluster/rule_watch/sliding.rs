//! Sums over the cells of a window that slides, by merges alone.

use ld_shared::latency::Latency;
use ld_shared::threshold::Tally;

/// The cells of a window, and their sum.
///
/// Two stacks: newer cells as they came, and the older ones as sums from each to the newest of
/// them. A cell is merged twice, however long the window is, and nothing is ever subtracted.
#[derive(Clone, Debug, Default)]
pub(super) struct Sliding {
    /// Sums, the one that begins first at the end.
    older: Vec<Packed>,
    newer: Vec<Packed>,
    sum_of_newer: Tally,
}

/// A span with its histogram in the wire form, which is as small as its content.
#[derive(Clone, Debug)]
struct Packed {
    from: u32,
    to: u32,
    /// Without times.
    counts: Tally,
    times: Vec<u8>,
}

impl Packed {
    fn new(from: u32, to: u32, tally: &Tally) -> Self {
        let times = tally.times.encoded();
        Self { from, to, counts: Tally { times: Latency::default(), ..tally.clone() }, times }
    }

    fn add_to(&self, tally: &mut Tally) {
        tally.merge(&self.counts);
        tally.times.merge_encoded(&self.times).expect("these bytes were encoded here");
    }
}

impl Sliding {
    /// Adds the span that follows.
    pub(super) fn push(&mut self, from: u32, to: u32, tally: &Tally) {
        self.sum_of_newer.merge(tally);
        self.newer.push(Packed::new(from, to, tally));
    }

    /// Lets go of spans that end before `second` or there.
    pub(super) fn drop_before(&mut self, second: u32) {
        loop {
            if self.older.is_empty() {
                if self.newer.first().is_none_or(|first| first.to > second) {
                    return;
                }
                self.turn();
            }
            if self.older.last().is_some_and(|first| first.to > second) {
                return;
            }
            self.older.pop();
        }
    }

    /// Makes sums of the newer spans.
    fn turn(&mut self) {
        let mut sum = Tally::default();
        for span in std::mem::take(&mut self.newer).into_iter().rev() {
            span.add_to(&mut sum);
            self.older.push(Packed::new(span.from, span.to, &sum));
        }
        self.sum_of_newer = Tally::default();
    }

    /// First second, and first after the last; `None` if it is empty.
    pub(super) fn span(&self) -> Option<(u32, u32)> {
        let first = self.older.last().or(self.newer.first())?;
        let last = self.newer.last().or(self.older.first())?;
        Some((first.from, last.to))
    }

    /// Everything in it.
    pub(super) fn sum(&self) -> Tally {
        let mut sum = self.sum_of_newer.clone();
        if let Some(older) = self.older.last() {
            older.add_to(&mut sum);
        }
        sum
    }
}
