use super::*;
use crate::lanes::{LaneSet, deal};
use crate::load::{Arrivals, Profile};
use proptest::prelude::*;
use std::collections::BTreeSet;

const END: f64 = 8.0;

fn at(tenths: u32) -> RunTime {
    RunTime(u64::from(tenths) * 100_000_000)
}

fn agenda(load: &Open) -> Agenda {
    Agenda::new(Arc::new(load.clone()), 7, 5, None, RunTime::from_secs(END))
}

fn lanes(set: &LaneSet) -> Arc<[u16]> {
    set.iter().collect()
}

fn rest(agenda: &mut Agenda) -> Vec<(ArrivalId, RunTime)> {
    std::iter::from_fn(|| agenda.take()).collect()
}

fn until(agenda: &mut Agenda, t: RunTime) -> Vec<(ArrivalId, RunTime)> {
    std::iter::from_fn(|| agenda.peek().filter(|(_, due)| *due < t).and_then(|_| agenda.take())).collect()
}

fn whole(load: &Open) -> Vec<(ArrivalId, RunTime)> {
    let mut all = agenda(load);
    all.assign(RunTime(0), &lanes(&LaneSet::full()));
    rest(&mut all)
}

fn profile() -> impl Strategy<Value = Profile> {
    prop::collection::vec((1u32..4, 0u32..400, 0u32..400), 1..4).prop_map(|pieces| {
        pieces.into_iter().fold(Profile::default(), |p, (s, a, b)| p.then(f64::from(s), f64::from(a), f64::from(b)))
    })
}

fn open() -> impl Strategy<Value = Open> {
    (profile(), any::<bool>()).prop_map(|(rate, poisson)| {
        let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Constant };
        Open { rate, arrivals, max_in_flight: 10 }
    })
}

/// The number of an arrival among those of its load.
fn lane_number(load: &Open, id: ArrivalId) -> u64 {
    match load.arrivals {
        Arrivals::Constant => id.0,
        Arrivals::Poisson => 1_000 * (id.0 >> 16) + (id.0 & 0xffff),
    }
}

proptest! {
    // each case walks thousands of arrivals
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever moves when between whom, and whenever the word of it comes before its instant: all
    /// holders together start the unsplit list.
    #[test]
    fn moves_make_the_unsplit_list(
        load in open(),
        moves in prop::collection::vec((1u32..20, prop::collection::vec(0u32..4, 3), 0u32..30), 0..6),
    ) {
        let mut holders: Vec<Agenda> = (0..3).map(|_| agenda(&load)).collect();
        let (mut from, mut said, mut taken) = (0, 0, Vec::new());
        for (holder, set) in holders.iter_mut().zip(deal(&[1, 1, 1])) {
            holder.assign(at(0), &lanes(&set));
        }
        for (later, weights, ahead) in moves {
            from += later;
            // the word comes while all holders are at `said`
            said = said.max(from.saturating_sub(ahead + 1));
            for holder in &mut holders {
                taken.extend(until(holder, at(said)));
            }
            for (holder, set) in holders.iter_mut().zip(deal(&weights)) {
                holder.assign(at(from), &lanes(&set));
            }
        }
        for holder in &mut holders {
            taken.extend(rest(holder));
        }
        taken.sort_unstable_by_key(|(id, due)| (*due, *id));
        let mut all = whole(&load);
        all.sort_unstable_by_key(|(id, due)| (*due, *id));
        prop_assert_eq!(taken, all);
    }

    /// Whoever gets lanes and hears of it late finds what they owe since, once.
    #[test]
    fn late_word_adds_what_was_due_since(load in open(), from in 0u32..40, heard in 0u32..60) {
        let sets = deal(&[1, 1]);
        let mut holder = agenda(&load);
        holder.assign(at(0), &lanes(&sets[0]));
        let mut taken = until(&mut holder, at(heard));
        holder.assign(at(from), &lanes(&LaneSet::full()));
        taken.extend(rest(&mut holder));
        taken.sort_unstable_by_key(|(id, due)| (*due, *id));
        let mut other = agenda(&load);
        other.assign(at(0), &lanes(&sets[1]));
        let foreign = until(&mut other, at(from));
        let mut wanted = whole(&load);
        wanted.retain(|arrival| !foreign.contains(arrival));
        wanted.sort_unstable_by_key(|(id, due)| (*due, *id));
        prop_assert_eq!(taken, wanted);
    }

    /// Whatever the words, and however late: what comes is what a list of all of them says.
    #[test]
    fn late_words_are_as_a_list_says(
        load in open(),
        words in prop::collection::vec((0u32..80, 0u32..10, prop::collection::vec(0u32..3, 2)), 0..8),
    ) {
        let all = whole(&load);
        let lane = |id: &ArrivalId| ((lane_number(&load, *id) + 5) % crate::lanes::LANES as u64) as u16;
        let (mut holder, mut came) = (agenda(&load), Vec::new());
        let (mut list, mut wanted, mut newest): (Vec<(RunTime, LaneSet)>, BTreeSet<ArrivalId>, u32) = Default::default();
        let held = |list: &[(RunTime, LaneSet)], (id, due): &(ArrivalId, RunTime)| {
            list.iter().rev().find(|(from, _)| from <= due).is_some_and(|(_, set)| set.contains(lane(id)))
        };
        for (heard, before, weights) in words {
            came.extend(until(&mut holder, at(heard)));
            wanted.extend(all.iter().filter(|a| a.1 < at(heard) && held(&list, a)).map(|(id, _)| *id));
            newest = newest.max(heard.saturating_sub(before));
            let set = deal(&weights)[0].clone();
            holder.assign(at(newest), &lanes(&set));
            list.push((at(newest), set));
        }
        came.extend(rest(&mut holder));
        wanted.extend(all.iter().filter(|a| held(&list, a)).map(|(id, _)| *id));
        let mut came: Vec<ArrivalId> = came.into_iter().map(|(id, _)| id).collect();
        came.sort_unstable();
        prop_assert_eq!(came, wanted.into_iter().collect::<Vec<_>>());
    }

    /// Giving away with late word, then taking back: nothing comes twice.
    #[test]
    fn nothing_comes_twice(
        load in open(),
        words in prop::collection::vec((0u32..80, 0u32..10, prop::collection::vec(0u32..3, 2)), 0..8),
    ) {
        let (mut holder, mut taken, mut newest) = (agenda(&load), Vec::new(), 0);
        for (heard, before, weights) in words {
            taken.extend(until(&mut holder, at(heard)));
            newest = newest.max(heard.saturating_sub(before));
            holder.assign(at(newest), &lanes(&deal(&weights)[0]));
        }
        taken.extend(rest(&mut holder));
        let all = taken.len();
        taken.sort_unstable_by_key(|(id, _)| *id);
        taken.dedup();
        prop_assert_eq!(taken.len(), all);
    }
}

#[test]
fn a_later_word_replaces_what_was_to_come() {
    let load = Open { rate: Profile::constant(100.0), arrivals: Arrivals::Constant, max_in_flight: 1 };
    let mut holder = agenda(&load);
    let (full, none) = (lanes(&LaneSet::full()), lanes(&LaneSet::empty()));
    holder.assign(at(0), &full);
    holder.assign(at(30), &none);
    holder.assign(at(50), &full);
    holder.assign(at(20), &none);
    assert_eq!(rest(&mut holder).len(), 200);
    holder.assign(at(40), &full);
    assert_eq!(holder.take(), Some((ArrivalId(400), at(40))));
    assert_eq!(rest(&mut holder).len(), 399);
}
