//! The requests of lowest priority: `k` successes, say, of those that a worker has kept.
//!
//! Flat lists, thinned now and then: a tree in order of priority would move each request several
//! times, and few of them ever leave before the end.

use crate::kept::Kept;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Requests that are put in order at once, to leave lowest first.
const NEXT: usize = 4 * 1024;
/// Room that is made at once: pages that are not used cost nothing, moves as it grows would.
const ROOM: usize = 128 * 1024;

/// The requests of one kind.
pub(super) struct Lowest {
    keep: usize,
    most_bytes: usize,
    /// Of seconds whose frames have not left.
    fresh: BTreeMap<u32, Vec<Kept>>,
    /// In no order.
    waiting: Vec<Kept>,
    /// Once the lowest of those that waited, highest first: these leave next.
    next: Vec<Kept>,
    /// How many are held, and their bytes.
    held: usize,
    bytes: usize,
    /// Priorities of those that the master has: they count among the `k`.
    shipped: Vec<u64>,
    /// Priorities at or above this are of no use.
    limit: u64,
}

impl Lowest {
    pub(super) fn new(keep: u64, most_bytes: usize) -> Self {
        Self {
            keep: usize::try_from(keep).unwrap_or(usize::MAX),
            most_bytes,
            fresh: BTreeMap::new(),
            waiting: Vec::new(),
            next: Vec::new(),
            held: 0,
            bytes: 0,
            shipped: Vec::new(),
            limit: if keep == 0 { 0 } else { u64::MAX },
        }
    }

    /// Takes a request that the frame of this second counts.
    pub(super) fn offer(&mut self, second: u32, kept: Kept) {
        if kept.priority >= self.limit {
            return;
        }
        self.bytes += kept.size();
        self.held += 1;
        self.fresh.entry(second).or_default().push(kept);
        if self.len() > self.keep.saturating_add(self.keep / 4) || self.bytes > self.most_bytes {
            self.settle();
        }
    }

    /// The frames up to this second have left.
    pub(super) fn second(&mut self, second: u32) {
        let later = second.checked_add(1).map(|next| self.fresh.split_off(&next)).unwrap_or_default();
        for mut fresh in std::mem::replace(&mut self.fresh, later).into_values() {
            if self.waiting.capacity() == 0 {
                self.waiting.reserve_exact(self.keep.saturating_add(self.keep / 4).min(ROOM).max(fresh.len()));
            }
            self.waiting.append(&mut fresh);
        }
        self.settle();
    }

    /// How many of the `k` there are.
    pub(super) fn len(&self) -> usize {
        self.held + self.shipped.len()
    }

    /// Whether there is something to ship.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.next.is_empty()
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn held(&self) -> impl Iterator<Item = &Kept> {
        self.fresh.values().flatten().chain(&self.waiting).chain(&self.next)
    }

    /// Lets go what lies above the `k` lowest, or finds no room.
    fn settle(&mut self) {
        if self.len() > self.keep {
            let held = self.held().map(|kept| kept.priority);
            let mut priorities: Vec<u64> = held.chain(self.shipped.iter().copied()).collect();
            let (_, limit, _) = priorities.select_nth_unstable(self.keep);
            let limit = *limit;
            self.thin(limit);
        }
        if self.bytes > self.most_bytes {
            // not to the brim: this would be due again with the next one
            let room = self.most_bytes - self.most_bytes / 8;
            let mut sizes: Vec<(u64, usize)> = self.held().map(|kept| (kept.priority, kept.size())).collect();
            sizes.sort_unstable();
            let mut sum = 0;
            let beyond = sizes.into_iter().find(|(_, size)| {
                sum += size;
                sum > room
            });
            if let Some((limit, _)) = beyond {
                self.thin(limit);
            }
        }
    }

    /// Nothing at or above `limit` is wanted any more.
    pub(super) fn thin(&mut self, limit: u64) {
        self.limit = self.limit.min(limit);
        let (mut gone, mut bytes) = (0, 0);
        let mut wanted = |kept: &Kept| {
            let wanted = kept.priority < limit;
            if !wanted {
                gone += 1;
                bytes += kept.size();
            }
            wanted
        };
        for fresh in self.fresh.values_mut() {
            fresh.retain(&mut wanted);
        }
        self.waiting.retain(&mut wanted);
        if self.next.first().is_some_and(|highest| highest.priority >= limit) {
            self.next.retain(&mut wanted);
        }
        self.held -= gone;
        self.bytes -= bytes;
        self.shipped.retain(|priority| *priority < limit);
    }

    /// One that leaves now: of the lowest while there is more to come, the lowest at the end.
    pub(super) fn ship(&mut self, ending: bool) -> Option<Kept> {
        if self.next.is_empty() {
            self.choose_next(ending);
        }
        let kept = self.next.pop()?;
        self.held -= 1;
        self.bytes -= kept.size();
        self.shipped.push(kept.priority);
        Some(kept)
    }

    fn choose_next(&mut self, ending: bool) {
        let rest = if ending { 0 } else { self.waiting.len().saturating_sub(NEXT) };
        let by_priority = |kept: &Kept| Reverse(kept.priority);
        if rest > 0 {
            self.waiting.select_nth_unstable_by_key(rest, by_priority);
            self.next.extend(self.waiting.drain(rest..));
        } else {
            std::mem::swap(&mut self.next, &mut self.waiting);
        }
        self.next.sort_unstable_by_key(by_priority);
    }
}
