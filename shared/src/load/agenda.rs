//! The arrivals that one holder of lanes has to start, while lanes and load change.

use super::{ArrivalCursor, ArrivalId, Open};
use crate::time::RunTime;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The arrivals of one scenario on the lanes of one holder, in order of due time, while its lanes
/// ([`Self::assign`]) and the load ([`Self::change`]) change.
///
/// Every arrival comes once: those due before a change of lanes by the old lanes, those due from it
/// on by the new ones. If the word of a change comes late, what was taken meanwhile stays taken,
/// and what the new lanes add to it comes late.
#[derive(Clone, Debug)]
pub struct Agenda {
    load: Arc<Open>,
    seed: u64,
    first_number: u64,
    /// Only so many arrivals of the scenario, over all lanes.
    most: Option<u64>,
    end: RunTime,
    /// On the lanes held now.
    present: ArrivalCursor,
    /// Since when they are held.
    since: RunTime,
    /// Due instant of the last one taken on them.
    taken: Option<RunTime>,
    /// What later word of earlier changes added to the past: few, and soon over.
    late: Vec<ArrivalCursor>,
    /// Behind the last one taken of those.
    late_taken: RunTime,
    /// Lanes held from later instants on, in order.
    moves: VecDeque<(RunTime, Arc<[u16]>)>,
    /// Lanes held before `since` of which nothing was left: another load may yet bring something.
    skipped: Vec<(RunTime, Arc<[u16]>)>,
    /// Up to where lanes that were given away had been served.
    released: BTreeMap<u16, RunTime>,
}

impl Agenda {
    /// An agenda without any lane. Of the scenario only the first `most` arrivals over all lanes
    /// count, and only what is due before `end`.
    pub fn new(load: Arc<Open>, seed: u64, first_number: u64, most: Option<u64>, end: RunTime) -> Self {
        let present = ArrivalCursor::new(Arc::clone(&load), seed, first_number, Arc::from([]), RunTime(0), end);
        Self {
            load,
            seed,
            first_number,
            most,
            end,
            present,
            since: RunTime(0),
            taken: None,
            late: Vec::new(),
            late_taken: RunTime(0),
            moves: VecDeque::new(),
            skipped: Vec::new(),
            released: BTreeMap::new(),
        }
    }

    /// The next arrival: its id and when it is due.
    pub fn peek(&self) -> Option<(ArrivalId, RunTime)> {
        let present = self.present.peek();
        if self.late.is_empty() {
            return present;
        }
        let late = self.late.iter().filter_map(ArrivalCursor::peek);
        late.chain(present).min_by_key(|(id, due)| (*due, *id))
    }

    /// Takes the next arrival.
    pub fn take(&mut self) -> Option<(ArrivalId, RunTime)> {
        let next = self.peek()?;
        if let Some(late) = self.late.iter_mut().find(|late| late.peek() == Some(next)) {
            late.take();
            self.late.retain(|late| late.peek().is_some());
            self.late_taken = self.late_taken.max(RunTime(next.1.0 + 1));
        } else {
            self.present.take();
            self.taken = Some(next.1);
        }
        if self.present.peek().is_none() {
            self.settle();
        }
        Some(next)
    }

    /// From `from` on the holder has exactly these lanes (ascending), whatever was said of that time
    /// before. Calls come in order of `from`: an earlier one counts from the latest that took effect.
    pub fn assign(&mut self, from: RunTime, lanes: &Arc<[u16]>) {
        while self.moves.back().is_some_and(|(at, _)| *at >= from) {
            self.moves.pop_back();
        }
        let reached = self.reached();
        if from > reached || !self.moves.is_empty() {
            self.moves.push_back((from, Arc::clone(lanes)));
            // what is due later comes on the new lanes
            self.late.iter_mut().for_each(|late| late.cut_at(from));
            self.late.retain(|late| late.peek().is_some());
        } else {
            self.assign_late(from, reached, lanes);
        }
        self.settle();
    }

    /// The same, when some of what is due at or after `from` may have been taken.
    fn assign_late(&mut self, from: RunTime, reached: RunTime, lanes: &Arc<[u16]>) {
        let old = Arc::clone(self.present.lanes());
        for lane in old.iter().filter(|lane| !holds(lanes, **lane)) {
            self.released.insert(*lane, self.served(*lane, from, reached));
        }
        for late in std::mem::take(&mut self.late) {
            let (kept, lost): (Vec<u16>, Vec<u16>) = late.lanes().iter().partition(|lane| holds(lanes, **lane));
            let mut before = late.continued(Arc::clone(&self.load), lost.into(), from);
            before.cut_at(from);
            let after = late.continued(Arc::clone(&self.load), kept.into(), from);
            self.late.extend([before, after].into_iter().filter(|part| part.peek().is_some()));
        }
        let mut added: BTreeMap<RunTime, Vec<u16>> = BTreeMap::new();
        for lane in lanes.iter().filter(|lane| !holds(&old, **lane)) {
            let served = self.released.get(lane).copied().unwrap_or_default();
            added.entry(from.max(served)).or_default().push(*lane);
        }
        for (start, lanes) in added {
            let mut late = self.cursor(lanes.into(), start);
            match self.present.place() {
                Some(id) => late = late.before(id),
                None => late.end_at(reached),
            }
            if late.peek().is_some() {
                self.late.push(late);
            }
        }
        self.present = self.present.continued(Arc::clone(&self.load), Arc::clone(lanes), reached);
    }

    /// Up to where a lane that is given away from `from` on will have been served.
    fn served(&self, lane: u16, from: RunTime, reached: RunTime) -> RunTime {
        // of what comes late nothing is taken yet from the next one on
        let owed = self.late.iter().filter(|late| late.end() > from && holds(late.lanes(), lane));
        let owed = owed.filter_map(ArrivalCursor::peek).map(|(_, due)| due.max(from)).min();
        owed.unwrap_or(reached)
    }

    /// The load is another one from `at` on; before, both are the same, and so are the numbers of
    /// arrivals at `at`: what is taken stays taken. Of the scenario the first `most` arrivals count.
    pub fn change(&mut self, at: RunTime, load: Arc<Open>, most: Option<u64>) {
        self.load = load;
        self.most = most;
        let mut again = false;
        while self.taken.is_none() && self.since > at {
            let Some((since, lanes)) = self.skipped.pop() else { break };
            self.moves.push_front((self.since, Arc::clone(self.present.lanes())));
            self.present = self.cursor(lanes, at.max(since));
            self.since = since;
            again = true;
        }
        if !again {
            let lanes = Arc::clone(self.present.lanes());
            let from = self.reached().max(at);
            let place = self.present.continued(Arc::clone(&self.load), lanes, from);
            self.present = place.limited(self.most);
        }
        for late in &mut self.late {
            *late = late.continued(Arc::clone(&self.load), Arc::clone(late.lanes()), at);
        }
        self.settle();
    }

    /// The lanes held at the end of all moves.
    pub fn lanes(&self) -> &Arc<[u16]> {
        self.moves.back().map_or(self.present.lanes(), |(_, lanes)| lanes)
    }

    fn cursor(&self, lanes: Arc<[u16]>, from: RunTime) -> ArrivalCursor {
        ArrivalCursor::new(Arc::clone(&self.load), self.seed, self.first_number, lanes, from, self.end)
            .limited(self.most)
    }

    /// Everything due before this on the lanes held now has been taken.
    fn reached(&self) -> RunTime {
        let behind = self.taken.map_or(self.since, |due| RunTime(due.0 + 1)).max(self.late_taken);
        self.present.peek().map_or(behind, |(_, due)| due)
    }

    /// Goes on to the next lanes while nothing is left on those held now.
    fn settle(&mut self) {
        loop {
            let end = self.moves.front().map_or(self.end, |(at, _)| *at);
            self.present.end_at(end);
            if self.present.peek().is_some() {
                return;
            }
            let Some((from, lanes)) = self.moves.pop_front() else { return };
            let old = Arc::clone(self.present.lanes());
            for lane in old.iter().filter(|lane| !holds(&lanes, **lane)) {
                self.released.insert(*lane, from);
            }
            if self.taken.take().is_some() {
                self.skipped.clear();
            }
            self.skipped.push((self.since, old));
            self.present = self.cursor(lanes, from);
            self.since = from;
        }
    }
}

fn holds(lanes: &[u16], lane: u16) -> bool {
    lanes.binary_search(&lane).is_ok()
}

#[cfg(test)]
mod tests;
