//! Open model: iterations per second over time.

use super::Profile;
use crate::lanes::LANES;
use crate::rng::KeyedRng;
use crate::time::RunTime;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How arrivals are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Evenly: arrival *i* is due where Λ reaches *i*.
    #[default]
    Constant,
    /// As a Poisson process of that rate: memoryless gaps.
    Poisson,
}

/// Iterations per second over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// Iterations per second over run time.
    pub rate: Profile,
    /// How arrivals are spaced.
    pub arrivals: Arrivals,
    /// Cap on open iterations over the cluster: an arrival that finds it reached is dropped.
    pub max_in_flight: u64,
}

/// Names one arrival of a scenario, the same on whatever worker and core.
///
/// Constant spacing: its number from 0. Poisson: `block << 16 | index in the block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArrivalId(pub u64);

/// Units of the unit-rate Poisson process in a block; each block has a random stream of its own.
const BLOCK: u64 = 1_000;

impl Open {
    /// When arrival number `i` is due under constant spacing; `None` if the rate ends before.
    pub fn due(&self, i: u64) -> Option<RunTime> {
        self.rate.invert(i as f64)
    }

    /// The first arrival number due at or after `t` under constant spacing: how many are due before.
    pub fn first_at(&self, t: RunTime) -> u64 {
        let mut i = self.rate.integral(t).ceil().max(0.0) as u64;
        // rounding in the integral may be off by one at the boundary; `due` decides
        while i > 0 && self.due(i - 1).is_none_or(|due| due >= t) {
            i -= 1;
        }
        while self.due(i).is_some_and(|due| due < t) {
            i += 1;
        }
        i
    }

    /// The points of block `b` of the unit-rate process, as offsets from 0.
    fn block(seed: u64, b: u64) -> Vec<f64> {
        let mut rng = KeyedRng::new(seed, b, 0x706f_6973_736f_6e21);
        let mut points = Vec::with_capacity(BLOCK as usize + 128);
        let mut at = 0.0;
        loop {
            // 1 − u lies in (0, 1], so the logarithm is finite
            at -= (1.0 - rng.next_f64()).ln();
            if at >= BLOCK as f64 || points.len() == usize::from(u16::MAX) {
                return points;
            }
            points.push((b * BLOCK) as f64 + at);
        }
    }
}

/// Walks the arrivals that fall on some lanes, in order of due time.
#[derive(Clone, Debug)]
pub struct ArrivalCursor {
    load: Arc<Open>,
    seed: u64,
    /// Number of the scenario's first arrival, so that small scenarios don't all start on lane 0.
    first_number: u64,
    /// The lanes, ascending.
    lanes: Arc<[u16]>,
    /// Nothing due at or after this is looked for.
    bound: RunTime,
    /// Nothing due at or after this is wanted: at most `bound`.
    end: RunTime,
    /// Arrival ids at or above it are not wanted.
    limit: u64,
    place: Place,
    /// The next on these lanes, wanted or not.
    next: Option<(ArrivalId, RunTime)>,
}

#[derive(Clone, Debug)]
enum Place {
    /// Next number to look at, and the position of its lane in `lanes`.
    Constant {
        turn: u64,
        position: usize,
    },
    Poisson {
        block: u64,
        points: Vec<f64>,
        index: usize,
    },
}

impl ArrivalCursor {
    /// A cursor over what is due in `[from, end)` on `lanes` (ascending).
    pub fn new(load: Arc<Open>, seed: u64, first_number: u64, lanes: Arc<[u16]>, from: RunTime, end: RunTime) -> Self {
        let place = match load.arrivals {
            Arrivals::Constant => {
                let number = first_number + load.first_at(from);
                let (turn, lane) = (number / LANES as u64, (number % LANES as u64) as u16);
                Place::Constant { turn, position: lanes.partition_point(|l| *l < lane) }
            }
            Arrivals::Poisson => {
                let block = (load.rate.integral(from) / BLOCK as f64).floor().max(0.0) as u64;
                Place::Poisson { block, points: Open::block(seed, block), index: 0 }
            }
        };
        let mut cursor = Self { load, seed, first_number, lanes, bound: end, end, limit: u64::MAX, place, next: None };
        cursor.step();
        while cursor.next.is_some_and(|(_, due)| due < from) {
            cursor.step();
        }
        cursor
    }

    /// The same from this cursor's place on, by another load or on other lanes (ascending). `from`:
    /// where it begins if nothing is left here.
    #[must_use]
    pub fn continued(&self, load: Arc<Open>, lanes: Arc<[u16]>, from: RunTime) -> Self {
        let Some((ArrivalId(id), _)) = self.next else {
            let cursor = Self::new(load, self.seed, self.first_number, lanes, from, self.bound);
            return Self { end: self.end, limit: self.limit, ..cursor };
        };
        let place = match load.arrivals {
            Arrivals::Constant => {
                let number = self.first_number + id;
                let (turn, lane) = (number / LANES as u64, (number % LANES as u64) as u16);
                Place::Constant { turn, position: lanes.partition_point(|l| *l < lane) }
            }
            Arrivals::Poisson => {
                let block = id >> 16;
                Place::Poisson { block, points: Open::block(self.seed, block), index: (id & 0xffff) as usize }
            }
        };
        let mut cursor = Self { load, lanes, place, next: None, ..self.clone() };
        cursor.step();
        cursor
    }

    /// Only what is due before `end`. May be moved as long as that instant has not come.
    pub fn end_at(&mut self, end: RunTime) {
        self.end = end.min(self.bound);
    }

    /// Nothing that is due at or after `end`, for good.
    pub fn cut_at(&mut self, end: RunTime) {
        self.end = self.end.min(end);
    }

    /// Nothing due at or after this is wanted.
    pub fn end(&self) -> RunTime {
        self.end
    }

    /// Only arrivals below this one.
    #[must_use]
    pub fn before(mut self, id: ArrivalId) -> Self {
        self.limit = self.limit.min(id.0);
        self
    }

    /// The place of the cursor among all arrivals of its load: lower ones on its lanes are taken.
    pub fn place(&self) -> Option<ArrivalId> {
        self.next.map(|(id, _)| id)
    }

    /// Its lanes, ascending.
    pub fn lanes(&self) -> &Arc<[u16]> {
        &self.lanes
    }

    /// Only the first `n` arrivals of the scenario (over all lanes), if there is a limit.
    #[must_use]
    pub fn limited(mut self, n: Option<u64>) -> Self {
        self.limit = match (n, self.load.arrivals) {
            (None, _) => u64::MAX,
            (Some(n), Arrivals::Constant) => n,
            (Some(n), Arrivals::Poisson) => {
                let (mut block, mut before) = (0, 0);
                loop {
                    let points = Open::block(self.seed, block).len() as u64;
                    if before + points > n {
                        break block << 16 | (n - before);
                    }
                    before += points;
                    block += 1;
                }
            }
        };
        self
    }

    /// The next arrival: its id and when it is due.
    pub fn peek(&self) -> Option<(ArrivalId, RunTime)> {
        self.next.filter(|(id, due)| *due < self.end && id.0 < self.limit)
    }

    /// Takes the next arrival.
    pub fn take(&mut self) -> Option<(ArrivalId, RunTime)> {
        let taken = self.peek();
        if taken.is_some() {
            self.step();
        }
        taken
    }

    fn step(&mut self) {
        self.next = self.find();
    }

    fn find(&mut self) -> Option<(ArrivalId, RunTime)> {
        if self.lanes.is_empty() {
            return None;
        }
        match &mut self.place {
            Place::Constant { turn, position } => loop {
                if *position == self.lanes.len() {
                    *position = 0;
                    *turn += 1;
                }
                let number = *turn * LANES as u64 + u64::from(self.lanes[*position]);
                *position += 1;
                if number >= self.first_number {
                    let i = number - self.first_number;
                    return self.load.due(i).map(|due| (ArrivalId(i), due));
                }
            },
            Place::Poisson { block, points, index } => loop {
                let Some(point) = points.get(*index) else {
                    *block += 1;
                    let start = self.load.rate.invert((*block * BLOCK) as f64)?;
                    if start >= self.bound {
                        return None;
                    }
                    *points = Open::block(self.seed, *block);
                    *index = 0;
                    continue;
                };
                let j = *index as u64;
                *index += 1;
                let lane = ((BLOCK * *block + j + self.first_number) % LANES as u64) as u16;
                if self.lanes.binary_search(&lane).is_ok() {
                    let due = self.load.rate.invert(*point)?;
                    return Some((ArrivalId(*block << 16 | j), due));
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{LaneSet, deal};
    use proptest::prelude::*;

    fn arrivals(load: &Open, lanes: &[u16], from: f64, end: f64) -> Vec<(ArrivalId, RunTime)> {
        let mut cursor = ArrivalCursor::new(
            Arc::new(load.clone()),
            7,
            5,
            lanes.into(),
            RunTime::from_secs(from),
            RunTime::from_secs(end),
        );
        std::iter::from_fn(|| cursor.take()).collect()
    }

    fn open(rate: Profile, arrivals: Arrivals) -> Open {
        Open { rate, arrivals, max_in_flight: 100 }
    }

    #[test]
    fn a_constant_rate_gives_exactly_rate_times_time() {
        let load = open(Profile::constant(2000.0), Arrivals::Constant);
        let all: Vec<u16> = LaneSet::full().iter().collect();
        let due = arrivals(&load, &all, 0.0, 10.0);
        assert_eq!(due.len(), 20_000);
        assert_eq!(due[1].1, RunTime(500_000));
        assert_eq!(load.first_at(RunTime::from_secs(3.0)), 6000);
    }

    #[test]
    fn poisson_counts_and_gaps_have_the_right_spread() {
        let load = open(Profile::constant(1000.0), Arrivals::Poisson);
        let all: Vec<u16> = LaneSet::full().iter().collect();
        let due = arrivals(&load, &all, 0.0, 100.0);
        // mean 100,000, standard deviation 316
        assert!((98_700..101_300).contains(&due.len()), "{}", due.len());
        let gaps: Vec<f64> = due.windows(2).map(|w| (w[1].1.0 - w[0].1.0) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // an exponential gap has a standard deviation equal to its mean
        assert!((0.97..1.03).contains(&(variance.sqrt() / mean)), "{mean} {variance}");
    }

    #[test]
    fn a_limit_is_exact_over_all_lanes() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let load = Arc::new(open(Profile::constant(1000.0), arrivals));
            let count = |lanes: Arc<[u16]>| {
                let mut cursor =
                    ArrivalCursor::new(Arc::clone(&load), 3, 0, lanes, RunTime(0), RunTime::from_secs(60.0))
                        .limited(Some(2_345));
                std::iter::from_fn(move || cursor.take()).count()
            };
            let counts: Vec<usize> = deal(&[1, 2, 3]).iter().map(|set| count(set.iter().collect())).collect();
            assert_eq!(counts.iter().sum::<usize>(), 2_345);
        }
    }

    fn profile() -> impl Strategy<Value = Profile> {
        prop::collection::vec((1u32..4, 0u32..400, 0u32..400), 1..4).prop_map(|pieces| {
            pieces.into_iter().fold(Profile::default(), |p, (s, a, b)| p.then(f64::from(s), f64::from(a), f64::from(b)))
        })
    }

    proptest! {
        #[test]
        fn splits_make_the_unsplit_list(
            rate in profile(), poisson: bool, weights in prop::collection::vec(1u32..5, 1..5), from in 0u32..30,
        ) {
            let load = open(rate, if poisson { Arrivals::Poisson } else { Arrivals::Constant });
            let (from, end) = (f64::from(from) / 10.0, 6.0);
            let all: Vec<u16> = LaneSet::full().iter().collect();
            let whole = arrivals(&load, &all, 0.0, end);
            let whole: Vec<_> = whole.into_iter().filter(|(_, due)| *due >= RunTime::from_secs(from)).collect();
            let mut union = Vec::new();
            for set in deal(&weights) {
                let lanes: Vec<u16> = set.iter().collect();
                let part = arrivals(&load, &lanes, from, end);
                prop_assert!(part.windows(2).all(|w| w[0].1 <= w[1].1));
                union.extend(part);
            }
            union.sort_by_key(|(id, due)| (*due, *id));
            let mut whole = whole;
            whole.sort_by_key(|(id, due)| (*due, *id));
            prop_assert_eq!(union, whole);
        }

        #[test]
        fn first_at_inverts_due(rate in profile(), at in 0u32..60) {
            let load = open(rate, Arrivals::Constant);
            let t = RunTime(u64::from(at) * 100_000_000);
            let i = load.first_at(t);
            prop_assert!(load.due(i).is_none_or(|due| due >= t));
            prop_assert!(i == 0 || load.due(i - 1).is_some_and(|due| due < t));
            if let Some(due) = load.due(i) {
                prop_assert!(load.first_at(due) <= i);
            }
        }
    }
}
