//! Parts of a plan that change hands: who owns what from when, and how parts are cut. Pure.

use ld_shared::id::Epoch;
use ld_shared::lanes::{LaneSet, deal_first};
use ld_shared::shard::Shard;
use ld_shared::time::RunTime;
use std::collections::BTreeMap;

/// What has one owner: lanes, and a share of the cap on open iterations for each scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The lanes.
    pub lanes: LaneSet,
    /// Caps on open iterations, one entry a scenario.
    pub caps: Vec<u64>,
}

impl Part {
    /// Whether there is nothing to own.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Adds another part.
    pub fn add(&mut self, other: &Self) {
        self.lanes.extend(&other.lanes);
        self.caps.resize(self.caps.len().max(other.caps.len()), 0);
        self.caps.iter_mut().zip(&other.caps).for_each(|(have, more)| *have += more);
    }

    /// Cuts the part by weights: every lane and every unit of a cap goes to exactly one of them. Gives which weight
    /// gets what, without those that get no lane. Weights of zero get nothing, unless all are zero.
    pub fn cut(&self, weights: &[u32]) -> Vec<(usize, Self)> {
        let takers: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] > 0).collect();
        let takers = if takers.is_empty() { (0..weights.len()).collect() } else { takers };
        let owners = deal_first(self.lanes.len(), &takers.iter().map(|i| weights[*i]).collect::<Vec<_>>());
        let mut parts: BTreeMap<usize, Self> = BTreeMap::new();
        for (lane, owner) in self.lanes.iter().zip(owners) {
            parts.entry(takers[owner]).or_default().lanes.insert(lane);
        }
        let all = self.lanes.len() as u64;
        let mut before = 0;
        for part in parts.values_mut() {
            let until = before + part.lanes.len() as u64;
            let up_to = |cap: u64, lanes: u64| (u128::from(cap) * u128::from(lanes) / u128::from(all.max(1))) as u64;
            part.caps = self.caps.iter().map(|cap| up_to(*cap, until) - up_to(*cap, before)).collect();
            before = until;
        }
        parts.into_iter().collect()
    }

    /// Takes `count` of the lanes out, spread evenly, and their share of the caps.
    #[must_use]
    pub fn take(&mut self, count: usize) -> Self {
        let have = self.lanes.len();
        let count = count.min(have);
        let mut taken = Self::default();
        // every (have / count)-th lane
        let chosen = |position: usize| (position + 1) * count / have > position * count / have;
        let lanes: Vec<u16> = self.lanes.iter().enumerate().filter(|(i, _)| chosen(*i)).map(|(_, l)| l).collect();
        for lane in lanes {
            self.lanes.remove(lane);
            taken.lanes.insert(lane);
        }
        for cap in &mut self.caps {
            let part = (u128::from(*cap) * count as u128 / have.max(1) as u128) as u64;
            *cap -= part;
            taken.caps.push(part);
        }
        taken
    }
}

/// What one session owns from an instant on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The assignment's number.
    pub epoch: Epoch,
    /// Run time of its first instant.
    pub from: RunTime,
    /// What it owns.
    pub part: Part,
}

impl Tenure {
    /// The assignment of it, with all else as in a newer one.
    pub fn shard(&self, newer: &Shard) -> Shard {
        let Self { epoch, from, part } = self.clone();
        Shard { epoch, from, lanes: part.lanes, max_in_flight: part.caps, ..newer.clone() }
    }
}

/// What one session owns over time, by ascending instants. Empty before it takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenures(Vec<Tenure>);

impl Tenures {
    /// Owns `part` from the start on.
    pub fn first(part: Part) -> Self {
        Self(vec![Tenure { epoch: Epoch(1), from: RunTime(0), part }])
    }

    /// These assignments, in the order in which they were made.
    pub fn of(tenures: impl IntoIterator<Item = Tenure>) -> Self {
        let mut all = Self::default();
        for Tenure { epoch, from, part } in tenures {
            // whoever is left with nothing may have been promised more for later
            if part.is_empty() { all.end(epoch, from) } else { all.change(epoch, from, part) }
        }
        all
    }

    /// The newest assignment, which may lie in the future.
    pub fn newest(&self) -> Option<&Tenure> {
        self.0.last()
    }

    /// What is owned in the end.
    pub fn part(&self) -> Part {
        self.newest().map(|tenure| tenure.part.clone()).unwrap_or_default()
    }

    /// The instant at which the first assignment begins.
    pub fn first_from(&self) -> RunTime {
        self.0.first().map_or(RunTime(0), |tenure| tenure.from)
    }

    /// The instant at which the newest assignment begins.
    pub fn newest_from(&self) -> RunTime {
        self.newest().map_or(RunTime(0), |tenure| tenure.from)
    }

    /// Owns `part` from `from` on, at the earliest from where the newest assignment begins.
    pub fn change(&mut self, epoch: Epoch, from: RunTime, part: Part) {
        let from = from.max(self.newest_from());
        self.0.push(Tenure { epoch, from, part });
    }

    /// Owns nothing from `from` on, whatever later assignments said: whoever held it is gone.
    pub fn end(&mut self, epoch: Epoch, from: RunTime) {
        let caps = self.newest().map_or(0, |tenure| tenure.part.caps.len());
        self.0.retain(|tenure| tenure.from < from);
        self.0.push(Tenure { epoch, from, part: Part { caps: vec![0; caps], ..Part::default() } });
    }

    /// Assignment `epoch` came into force no earlier than at `from`: its worker had not heard of it before.
    pub fn delay(&mut self, epoch: Epoch, from: RunTime) {
        self.0.iter_mut().filter(|tenure| tenure.epoch >= epoch).for_each(|tenure| tenure.from = tenure.from.max(from));
    }

    /// What assignment `epoch` took away stays owned: nobody knows whether it came into force.
    pub fn keep(&mut self, epoch: Epoch, part: &Part) {
        self.0.iter_mut().filter(|tenure| tenure.epoch >= epoch).for_each(|tenure| tenure.part.add(part));
    }

    /// Assignments from this number on.
    pub fn since(&self, epoch: Epoch) -> impl Iterator<Item = &Tenure> {
        self.0.iter().filter(move |tenure| tenure.epoch >= epoch)
    }

    /// When the first assignment after `instant` begins.
    pub fn next_after(&self, instant: RunTime) -> Option<RunTime> {
        self.0.iter().map(|tenure| tenure.from).find(|from| *from > instant)
    }

    /// Most lanes that were owned at once.
    pub fn most_lanes(&self) -> usize {
        self.0.iter().map(|tenure| tenure.part.lanes.len()).max().unwrap_or(0)
    }

    /// What was owned in `[from, to)`, in pieces of one owner each.
    pub fn within(&self, from: RunTime, to: RunTime) -> impl Iterator<Item = (RunTime, RunTime, &LaneSet)> {
        let ends = self.0.iter().skip(1).map(|next| next.from).chain([RunTime::MAX]);
        let spans = self.0.iter().zip(ends);
        spans
            .map(move |(tenure, end)| (tenure.from.max(from), end.min(to), &tenure.part.lanes))
            .filter(|(from, to, lanes)| from < to && !lanes.is_empty())
    }
}

/// Lanes that none of them owned, in pieces of `[0, end)`.
pub fn nobodys(all: &[&Tenures], end: RunTime) -> Vec<(RunTime, RunTime, LaneSet)> {
    let changes = all.iter().flat_map(|tenures| tenures.0.iter().map(|tenure| tenure.from));
    let mut instants: Vec<RunTime> = changes.filter(|at| *at < end).chain([RunTime(0), end]).collect();
    instants.sort_unstable();
    instants.dedup();
    let free = |pair: &[RunTime]| {
        let (from, to) = (pair[0], pair[1]);
        let mut owned = LaneSet::empty();
        all.iter().flat_map(|tenures| tenures.within(from, to)).for_each(|(.., lanes)| owned.extend(lanes));
        let mut free = LaneSet::full();
        owned.iter().for_each(|lane| free.remove(lane));
        (!free.is_empty()).then_some((from, to, free))
    };
    instants.windows(2).filter_map(free).collect()
}

/// How many of `all` lanes each should own: by cores, and no more than its limit. Where that is too little for all of
/// them, each has its limit.
pub fn targets(all: usize, cores: &[u32], limits: &[usize]) -> Vec<usize> {
    let mut limited = vec![false; cores.len()];
    loop {
        let taken = limits.iter().zip(&limited).filter(|(_, is)| **is).map(|(limit, _)| *limit).sum();
        let left = all.saturating_sub(taken) as u128;
        let weight = |i: usize| if limited[i] { 0 } else { u128::from(cores[i]) };
        let sum = (0..cores.len()).map(weight).sum::<u128>().max(1);
        let mut before = 0;
        let mut targets = Vec::new();
        for (i, limit) in limits.iter().enumerate() {
            let until = before + weight(i);
            let part = (left * until / sum - left * before / sum) as usize;
            before = until;
            targets.push(if limited[i] { *limit } else { part });
        }
        let over: Vec<usize> = (0..cores.len()).filter(|i| targets[*i] > limits[*i]).collect();
        if over.is_empty() {
            return targets;
        }
        for i in over {
            limited[i] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::lanes::{LANES, deal};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cuts_are_exact(lanes in prop::collection::vec(0..LANES as u16, 1..300), caps in prop::collection::vec(0u64..10_000, 0..3), weights in prop::collection::vec(0u32..9, 1..6)) {
            let mut part = Part { caps, ..Part::default() };
            for lane in &lanes {
                part.lanes.insert(*lane);
            }
            let cuts = part.cut(&weights);
            let mut sum = Part { caps: vec![0; part.caps.len()], ..Part::default() };
            for (index, cut) in &cuts {
                prop_assert!(sum.lanes.is_disjoint(&cut.lanes));
                prop_assert!(weights[*index] > 0 || weights.iter().all(|w| *w == 0));
                sum.add(cut);
            }
            prop_assert_eq!(&sum, &part);
        }

        #[test]
        fn what_is_taken_is_gone_and_spread(count in 0usize..2_000, cap in 0u64..5_000) {
            let mut part = Part { lanes: deal(&[1, 7])[1].clone(), caps: vec![cap] };
            let whole = part.clone();
            let taken = part.take(count);
            prop_assert_eq!(taken.lanes.len(), count);
            prop_assert!(part.lanes.is_disjoint(&taken.lanes));
            let half = taken.lanes.iter().filter(|lane| usize::from(*lane) < LANES / 2).count();
            prop_assert!(half.abs_diff(count / 2) <= 2);
            part.add(&taken);
            prop_assert_eq!(part, whole);
        }

        #[test]
        fn targets_are_by_cores_within_limits(
            workers in prop::collection::vec((1u32..9, 0usize..6_000), 1..9),
            all in 0usize..LANES,
        ) {
            let (cores, limits): (Vec<u32>, Vec<usize>) = workers.into_iter().unzip();
            let targets = targets(all, &cores, &limits);
            prop_assert_eq!(targets.iter().sum::<usize>(), all.min(limits.iter().sum()));
            prop_assert!(targets.iter().zip(&limits).all(|(target, limit)| target <= limit));
            // whoever is below its limit has as much for each core as anybody
            let by_core = |i: usize| targets[i] as f64 / f64::from(cores[i]);
            let most = (0..cores.len()).map(by_core).fold(0.0, f64::max);
            let open = (0..cores.len()).filter(|i| targets[*i] + 1 < limits[*i]);
            prop_assert!(open.into_iter().all(|i| by_core(i) + 2.0 > most));
        }
    }

    #[test]
    fn tenures_tell_who_owned_what() {
        let second = |s: u64| RunTime(s * ld_shared::time::SECOND);
        let part = |lane| {
            let mut part = Part::default();
            part.lanes.insert(lane);
            part
        };
        let mut tenures = Tenures::first(part(1));
        tenures.change(Epoch(2), second(5), Part::default());
        tenures.change(Epoch(3), second(8), part(2));
        tenures.change(Epoch(4), second(7), part(3));
        let spans: Vec<_> = tenures.within(second(2), second(10)).map(|(a, b, l)| (a, b, l.iter().next())).collect();
        assert_eq!(spans, [(second(2), second(5), Some(1)), (second(8), second(10), Some(3))]);
        let mut lost = tenures.clone();
        lost.end(Epoch(5), second(6));
        let journaled = tenures.0.iter().chain(lost.0.last()).cloned();
        assert_eq!(Tenures::of(journaled), lost);
        tenures.keep(Epoch(3), &part(9));
        assert_eq!(tenures.part().lanes.iter().collect::<Vec<_>>(), [3, 9]);
        assert_eq!(tenures.within(second(5), second(8)).count(), 0);
    }

    #[test]
    fn what_nobody_owns_is_known_to_the_instant() {
        let lanes = |list: &[u16]| {
            let mut set = LaneSet::full();
            for lane in list {
                set.remove(*lane);
            }
            Part { lanes: set, caps: Vec::new() }
        };
        let at = |s: u64| RunTime(s * 1_000);
        let mut one = Tenures::first(lanes(&[1, 2]));
        let mut other = Tenures::default();
        let mut rest = LaneSet::empty();
        rest.insert(1);
        rest.insert(2);
        other.change(Epoch(2), at(3), Part { lanes: rest.clone(), caps: Vec::new() });
        one.change(Epoch(3), at(5), lanes(&[1, 2, 7]));
        let mut seven = LaneSet::empty();
        seven.insert(7);
        let free = nobodys(&[&one, &other], at(9));
        assert_eq!(free, [(at(0), at(3), rest), (at(5), at(9), seven)]);
    }
}
