//! Which core serves which lane.

use ld_shared::lanes::{LANES, LaneSet};

/// Deals a worker's lanes to its cores. A lane stays on its core, also when it is given away and
/// comes back: so no two cores ever serve one user number at once.
pub(crate) struct Dealing {
    /// Of every lane that was ever dealt.
    home: Vec<Option<usize>>,
    cores: usize,
}

impl Dealing {
    pub(crate) fn new(cores: usize) -> Self {
        Self { home: vec![None; LANES], cores: cores.max(1) }
    }

    /// The lanes of each core, ascending, when the worker has exactly `lanes`. New ones go to the
    /// cores with the fewest.
    ///
    /// Between equal cores turns are taken in an order that changes from round to round (as in the
    /// Thue-Morse sequence): should every second lane be given away later, every core loses some.
    pub(crate) fn deal(&mut self, lanes: &LaneSet) -> Vec<Vec<u16>> {
        let mut dealt = vec![Vec::new(); self.cores];
        let mut new = Vec::new();
        for lane in lanes.iter() {
            match self.home[usize::from(lane)] {
                Some(core) => dealt[core].push(lane),
                None => new.push(lane),
            }
        }
        let known = lanes.len() - new.len();
        for (total, lane) in (known..).zip(new) {
            let first = (total / self.cores).count_ones() as usize;
            let order = (0..self.cores).map(|turn| (first + turn) % self.cores);
            let core = order.min_by_key(|core| dealt[*core].len()).unwrap_or(0);
            dealt[core].push(lane);
            self.home[usize::from(lane)] = Some(core);
        }
        for lanes in &mut dealt {
            lanes.sort_unstable();
        }
        dealt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::lanes::deal;

    fn counts(dealt: &[Vec<u16>]) -> Vec<usize> {
        dealt.iter().map(Vec::len).collect()
    }

    #[test]
    fn neighbours_are_spread_and_every_core_keeps_some_of_what_stays() {
        for cores in 1..7 {
            let mut dealing = Dealing::new(cores);
            let dealt = dealing.deal(&LaneSet::full());
            for from in (0..LANES).step_by(cores * 10) {
                let near = |lanes: &Vec<u16>| {
                    lanes.iter().filter(|l| (from..from + cores * 10).contains(&usize::from(**l))).count()
                };
                let near: Vec<usize> = dealt.iter().map(near).collect();
                assert!(near.iter().max().unwrap() - near.iter().min().unwrap() <= 1, "{near:?}");
            }
            for workers in 2..5 {
                for set in deal(&vec![1; workers]) {
                    let left = counts(&dealing.deal(&set));
                    let fair = set.len() / cores;
                    assert!(left.iter().all(|n| n.abs_diff(fair) <= fair / 3 + 1), "{cores} cores: {left:?}");
                }
            }
        }
    }

    #[test]
    fn lanes_stay_on_their_cores_and_new_ones_go_where_the_fewest_are() {
        let mut dealing = Dealing::new(2);
        let sets = deal(&[1, 1, 1]);
        let first = dealing.deal(&sets[0]);
        assert!(dealing.deal(&LaneSet::empty()).iter().all(Vec::is_empty));
        let mut more = sets[0].clone();
        more.extend(&sets[2]);
        let second = dealing.deal(&more);
        assert!(first.iter().zip(&second).all(|(a, b)| a.iter().all(|lane| b.contains(lane))));
        assert!(counts(&second)[0].abs_diff(counts(&second)[1]) <= 1);
    }
}
