//! Lanes: the plan's fixed slices, and how they are dealt to workers.
//!
//! A plan has [`LANES`] lanes whatever the cluster: arrival or user number *i* belongs to lane
//! `i mod LANES`. Whoever holds a lane makes all of its load. Sets of different workers are
//! disjoint and their union is the plan, so splits are exact by construction.

use serde::{Deserialize, Serialize};

/// Number of lanes of every plan.
pub const LANES: usize = 16_384;
const WORDS: usize = LANES / 64;

/// A set of lanes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Words")]
pub struct LaneSet {
    words: Vec<u64>,
    /// How many: a master of thousands of workers asks all the time.
    #[serde(skip)]
    len: usize,
}

/// A set as it is stored.
#[derive(Deserialize)]
struct Words {
    words: Vec<u64>,
}

impl TryFrom<Words> for LaneSet {
    type Error = &'static str;

    fn try_from(Words { words }: Words) -> Result<Self, Self::Error> {
        if words.len() == WORDS { Ok(Self::of(words)) } else { Err("a set of lanes of another length") }
    }
}

impl std::fmt::Debug for LaneSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LaneSet({} of {LANES})", self.len())
    }
}

impl Default for LaneSet {
    fn default() -> Self {
        Self::empty()
    }
}

impl LaneSet {
    fn of(words: Vec<u64>) -> Self {
        let len = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, len }
    }

    /// No lane.
    pub fn empty() -> Self {
        Self { words: vec![0; WORDS], len: 0 }
    }

    /// Every lane.
    pub fn full() -> Self {
        Self { words: vec![u64::MAX; WORDS], len: LANES }
    }

    /// From the little-endian bitmap of the wire: bit `l % 8` of byte `l / 8` is lane `l`.
    /// `None` unless it is exactly `LANES / 8` bytes long.
    pub fn from_bitmap(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LANES / 8 {
            return None;
        }
        let words = bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().expect("chunks of 8"))).collect();
        Some(Self::of(words))
    }

    /// The little-endian bitmap of the wire, `LANES / 8` bytes.
    pub fn to_bitmap(&self) -> Vec<u8> {
        self.words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    /// Adds a lane.
    pub fn insert(&mut self, lane: u16) {
        self.len += usize::from(!self.contains(lane));
        self.words[usize::from(lane) / 64] |= 1 << (lane % 64);
    }

    /// Takes a lane out.
    pub fn remove(&mut self, lane: u16) {
        self.len -= usize::from(self.contains(lane));
        self.words[usize::from(lane) / 64] &= !(1 << (lane % 64));
    }

    /// Whether the lane is in.
    pub fn contains(&self, lane: u16) -> bool {
        self.words[usize::from(lane) / 64] >> (lane % 64) & 1 == 1
    }

    /// How many lanes are in.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no lane is in.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no lane is in both.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(a, b)| a & b == 0)
    }

    /// Adds all lanes of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            self.len += (b & !*a).count_ones() as usize;
            *a |= b;
        }
    }

    /// The lanes in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some((index * 64 + bit) as u16)
            })
        })
    }

    /// How many numbers in `[from, to)` (numbers, not lanes) belong to lanes of this set.
    pub fn count_between(&self, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let lanes = LANES as u64;
        let whole = (to - from) / lanes;
        let rest = (to - from) % lanes;
        let first = from + whole * lanes;
        let (begin, end) = ((first % lanes) as usize, (first % lanes + rest) as usize);
        let partial = self.below(end.min(LANES)) - self.below(begin) + self.below(end.saturating_sub(LANES));
        whole * self.len() as u64 + partial as u64
    }

    /// How many lanes below `end` are in.
    fn below(&self, end: usize) -> usize {
        let whole: usize = self.words[..end / 64].iter().map(|word| word.count_ones() as usize).sum();
        let rest = self.words.get(end / 64).map_or(0, |word| word & ((1 << (end % 64)) - 1));
        whole + rest.count_ones() as usize
    }
}

/// Deals all lanes over workers of the given weights (their cores).
///
/// The result has one set per weight; sets are disjoint and their union is every lane. Weights of
/// zero count as one.
pub fn deal(weights: &[u32]) -> Vec<LaneSet> {
    let mut sets = vec![LaneSet::empty(); weights.len()];
    for (lane, owner) in deal_first(LANES, weights).into_iter().enumerate() {
        sets[owner].insert(lane as u16);
    }
    sets
}

/// Who gets each of the first `count` of things that are dealt one by one: smooth weighted round-robin,
/// so that any run of consecutive numbers is spread as evenly as the weights allow. Of no weights
/// nobody gets anything.
pub fn deal_first(count: usize, weights: &[u32]) -> Vec<usize> {
    let weights: Vec<i64> = weights.iter().map(|w| i64::from((*w).max(1))).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let next = |_| {
        for (c, w) in credit.iter_mut().zip(&weights) {
            *c += w;
        }
        let (best, c) = credit.iter_mut().enumerate().max_by_key(|(index, c)| (**c, usize::MAX - index))?;
        *c -= total;
        Some(best)
    };
    (0..count).map_while(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dealt_sets_partition_the_plan(weights in prop::collection::vec(0u32..64, 1..40)) {
            let sets = deal(&weights);
            let mut union = LaneSet::empty();
            for set in &sets {
                prop_assert!(union.is_disjoint(set));
                union.extend(set);
            }
            prop_assert_eq!(union, LaneSet::full());
        }

        #[test]
        fn equal_weights_split_any_count_to_within_one(workers in 1usize..20, users in 0u64..5000) {
            let sets = deal(&vec![2; workers]);
            let counts: Vec<u64> = sets.iter().map(|s| s.count_between(0, users)).collect();
            prop_assert_eq!(counts.iter().sum::<u64>(), users);
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }

        #[test]
        fn count_between_counts(from in 0u64..40_000, length in 0u64..40_000, workers in 1usize..5) {
            for set in deal(&vec![1; workers]) {
                let slow = (from..from + length).filter(|i| set.contains((i % LANES as u64) as u16)).count();
                prop_assert_eq!(set.count_between(from, from + length), slow as u64);
            }
        }

        #[test]
        fn sets_know_how_many_they_hold_and_round_trip(
            lanes in prop::collection::vec((0u16..300, any::<bool>()), 0..200),
            more in prop::collection::vec(0u16..LANES as u16, 0..200),
        ) {
            let (mut set, mut other) = (LaneSet::empty(), LaneSet::empty());
            for (lane, keep) in lanes {
                if keep { set.insert(lane) } else { set.remove(lane) }
                prop_assert_eq!(set.len(), set.iter().count());
            }
            for lane in more {
                other.insert(lane);
            }
            set.extend(&other);
            prop_assert_eq!((set.len(), set.is_empty()), (set.iter().count(), set.iter().next().is_none()));
            let stored = serde_json::to_string(&set).unwrap();
            prop_assert_eq!(&serde_json::from_str::<LaneSet>(&stored).unwrap(), &set);
            prop_assert_eq!(LaneSet::from_bitmap(&set.to_bitmap()), Some(set));
        }
    }

    #[test]
    fn a_stored_set_of_another_length_is_refused() {
        assert!(serde_json::from_str::<LaneSet>(r#"{"words":[1,2]}"#).is_err());
    }
}
