//! What each name did over spans of the run: how far a run scatters within itself, which is what
//! two runs are compared by.
//!
//! At most [`MOST`] spans: beyond that neighbours merge, without loss. So there are between half of
//! that and all of it, however long the run.

use super::folded::Folded;
use ld_shared::latency::{DecodeError, Latency, put_varint, take_varint};
use ld_shared::sample::{MAX_NAMES, OTHER, Phase};
use ld_shared::snapshot::Snapshot;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most spans.
pub const MOST: usize = 32;

/// Names over spans of equal length.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    /// Seconds a span, a power of two.
    scale: u32,
    spans: BTreeMap<u32, BTreeMap<Arc<str>, Cell>>,
}

/// One name in one span.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cell {
    failed: u64,
    response: Folded,
}

/// One name in one span, to be stored: the name, failures, response times packed.
pub type StoredCell<'a> = (Arc<str>, u64, Cow<'a, [u8]>);

/// One name's part of one span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// First second of the span.
    pub from: u32,
    /// Failures.
    pub failed: u64,
    /// Response times of all.
    pub response: Latency,
}

/// One name over the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NameBlocks {
    /// Seconds a span.
    pub scale: u32,
    /// Spans in which the name ended requests, in their order.
    pub blocks: Vec<Block>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { scale: 1, spans: BTreeMap::new() }
    }
}

impl Blocks {
    /// Adds what ended in the main phase of a span that began at `second`.
    pub fn add(&mut self, second: u32, counts: &Snapshot) {
        let main = counts.phase(Phase::Main);
        if main.series.is_empty() {
            return;
        }
        let from = second - second % self.scale;
        let span = self.spans.entry(from).or_default();
        for (key, series) in &main.series {
            let known = span.len() < MAX_NAMES || span.contains_key(&key.name);
            let name = if known { Arc::clone(&key.name) } else { OTHER.into() };
            let cell = span.entry(name).or_default();
            cell.failed += series.failed.count();
            cell.response.add(&series.succeeded);
            cell.response.add(&series.failed);
        }
        self.seal_before(from);
        while self.spans.len() > MOST {
            self.coarsen();
        }
    }

    /// Seals spans that end before the one in front of `from`: late workers still report that one.
    fn seal_before(&mut self, from: u32) {
        let over = from.saturating_sub(self.scale);
        for span in self.spans.range_mut(..over).map(|(_, span)| span).rev() {
            if span.values().all(|cell| cell.response.is_sealed()) {
                // whatever lies before was sealed earlier
                return;
            }
            for cell in span.values_mut() {
                cell.response.seal();
            }
        }
    }

    fn coarsen(&mut self) {
        self.scale *= 2;
        for (from, cells) in std::mem::take(&mut self.spans) {
            let span = self.spans.entry(from - from % self.scale).or_default();
            for (name, cell) in cells {
                let into = span.entry(name).or_default();
                into.failed += cell.failed;
                into.response.merge(&cell.response);
            }
        }
        self.spans.values_mut().flat_map(BTreeMap::values_mut).for_each(|cell| cell.response.seal());
    }

    /// Seconds a span.
    pub fn scale(&self) -> u32 {
        self.scale
    }

    /// Spans and what each name did in them, to be stored: first second, name, failures, and packed
    /// response times.
    pub fn cells(&self) -> impl Iterator<Item = (u32, Vec<StoredCell<'_>>)> {
        self.spans.iter().map(|(from, cells)| {
            (*from, cells.iter().map(|(name, cell)| (Arc::clone(name), cell.failed, cell.response.packed())).collect())
        })
    }

    /// Takes up what [`Self::cells`] gave, with its [`Self::scale`].
    pub fn restore(
        scale: u32,
        cells: impl IntoIterator<Item = (u32, Arc<str>, u64, Vec<u8>)>,
    ) -> Result<Self, DecodeError> {
        let mut blocks = Self { scale: scale.max(1), spans: BTreeMap::new() };
        for (from, name, failed, sealed) in cells {
            let cell = Cell { failed, response: Folded::from_packed(sealed)? };
            blocks.spans.entry(from).or_default().insert(name, cell);
        }
        Ok(blocks)
    }

    /// One name's spans.
    pub fn of(&self, name: &str) -> NameBlocks {
        let block = |(from, cells): (&u32, &BTreeMap<Arc<str>, Cell>)| {
            let cell = cells.get(name)?;
            Some(Block { from: *from, failed: cell.failed, response: cell.response.whole() })
        };
        NameBlocks { scale: self.scale, blocks: self.spans.iter().filter_map(block).collect() }
    }
}

impl NameBlocks {
    /// Merges neighbours until a span lasts at least `scale` seconds.
    #[must_use]
    pub fn coarsened(self, scale: u32) -> Self {
        let mut wide = self.scale.max(1);
        while wide < scale {
            wide *= 2;
        }
        let mut blocks: Vec<Block> = Vec::new();
        for block in self.blocks {
            let from = block.from - block.from % wide;
            match blocks.last_mut() {
                Some(last) if last.from == from => {
                    last.failed += block.failed;
                    last.response.merge(&block.response);
                }
                _ => blocks.push(Block { from, ..block }),
            }
        }
        Self { scale: wide, blocks }
    }

    /// Varints of scale and number of spans; of each its start, failures and the length of its
    /// histogram, and that in its wire form.
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, u64::from(self.scale));
        put_varint(&mut out, self.blocks.len() as u64);
        for block in &self.blocks {
            let response = block.response.encoded();
            put_varint(&mut out, u64::from(block.from));
            put_varint(&mut out, block.failed);
            put_varint(&mut out, response.len() as u64);
            out.extend(response);
        }
        out
    }

    /// The inverse of [`Self::encoded`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let number = |bytes: &mut &[u8]| u32::try_from(take_varint(bytes)?).map_err(|_| DecodeError::Count);
        let scale = number(&mut bytes)?;
        let mut blocks = Vec::new();
        for _ in 0..take_varint(&mut bytes)? {
            let from = number(&mut bytes)?;
            let failed = take_varint(&mut bytes)?;
            let length = take_varint(&mut bytes)? as usize;
            let (histogram, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
            let mut response = Latency::default();
            response.merge_encoded(histogram)?;
            blocks.push(Block { from, failed, response });
            bytes = rest;
        }
        Ok(Self { scale, blocks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::sample::SeriesKey;
    use proptest::prelude::*;

    fn counts(name: &str, succeeded: &[u64], failed: &[u64]) -> Snapshot {
        let mut counts = Snapshot::default();
        let key = SeriesKey { name: name.into(), request_type: "GET".into(), scenario: "s".into() };
        let series = counts.phase_mut(Phase::Main).series_mut(&key);
        for v in succeeded {
            series.succeeded.record(*v);
        }
        for v in failed {
            series.failed.record(*v);
        }
        counts
    }

    proptest! {
        #[test]
        fn no_sample_is_lost_however_long_and_in_whatever_order(
            spans in prop::collection::vec((0u32..500, prop::collection::vec(1u64..90_000, 0..6)), 0..120)
        ) {
            let mut blocks = Blocks::default();
            let mut all = Latency::default();
            for (second, values) in &spans {
                blocks.add(*second, &counts("n", values, &[7]));
                for v in values {
                    all.record(*v);
                }
                all.record(7);
            }
            let of_name = blocks.of("n");
            prop_assert!(of_name.blocks.len() <= MOST);
            let mut sum = Latency::default();
            for block in &of_name.blocks {
                sum.merge(&block.response);
            }
            prop_assert_eq!(of_name.blocks.iter().map(|b| b.failed).sum::<u64>(), spans.len() as u64);
            prop_assert_eq!(&sum, &all);
            prop_assert_eq!(&NameBlocks::decode(&of_name.encoded()).unwrap(), &of_name);
            let coarse = of_name.coarsened(64);
            prop_assert!(coarse.blocks.windows(2).all(|w| w[0].from < w[1].from));
            prop_assert_eq!(coarse.blocks.iter().map(|b| b.response.count()).sum::<u64>(), all.count());
        }

        #[test]
        fn hostile_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _any = NameBlocks::decode(&bytes);
        }
    }

    #[test]
    fn long_runs_keep_between_half_and_all_of_the_spans() {
        let mut blocks = Blocks::default();
        for second in 0..1_000 {
            blocks.add(second, &counts("n", &[u64::from(second)], &[]));
        }
        let of_name = blocks.of("n");
        assert_eq!((of_name.scale, of_name.blocks.len()), (32, 32));
        assert!(blocks.of("other").blocks.is_empty());
    }
}
