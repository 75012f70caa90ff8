//! The cap on open iterations: one count for all cores.

use std::sync::atomic::{AtomicU64, Ordering};

/// This worker's share of a scenario's `max_in_flight`, and the iterations that count against it.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Open iterations, below their era.
    open: AtomicU64,
    most: AtomicU64,
    /// Open iterations of earlier eras.
    forgotten: AtomicU64,
    /// As many files as this machine has for load, of which each open iteration may hold one.
    files: u64,
}

/// Since when an iteration has its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Era(u32);

const ERA: u32 = 32;

fn split(open: u64) -> (Era, u64) {
    (Era((open >> ERA) as u32), open & u64::from(u32::MAX))
}

impl Slots {
    /// Without a cap, on a machine with so many files for load.
    pub(crate) fn new(files: u64) -> Self {
        Self { open: AtomicU64::new(0), most: AtomicU64::new(u64::MAX), forgotten: AtomicU64::new(0), files }
    }

    /// Takes a slot, if one is free.
    pub(crate) fn take(&self) -> Option<Era> {
        let most = self.most();
        let more = |open| (split(open).1 < most).then(|| open + 1);
        let taken = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(split(taken).0)
    }

    /// Gives a slot back.
    pub(crate) fn give(&self, era: Era) {
        let less = |open| (split(open).0 == era).then(|| open - 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
            self.forgotten.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The share went to others, and with it its slots: iterations that are open do not count any more, as long as there
    /// are files for others beside them.
    pub(crate) fn forget(&self) {
        // of one that ends between these two the count of forgotten ones is less than nothing for a moment, and no slot is
        // free: nothing starts then, for there is no lease
        let next = |open: u64| Some((open >> ERA).wrapping_add(1) << ERA);
        if let Ok(open) = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            self.forgotten.fetch_add(split(open).1, Ordering::Relaxed);
        }
    }

    fn most(&self) -> u64 {
        let forgotten = self.forgotten.load(Ordering::Relaxed);
        self.most.load(Ordering::Relaxed).min(self.files.saturating_sub(forgotten))
    }

    /// Whether an iteration counts against the cap.
    pub(crate) fn counts(&self, era: Era) -> bool {
        self.now().0 == era
    }

    pub(crate) fn is_full(&self) -> bool {
        self.now().1 >= self.most()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.now().1 == 0
    }

    pub(crate) fn set_most(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    pub(crate) fn lower_most(&self, most: u64) {
        self.most.fetch_min(most, Ordering::Relaxed);
    }

    fn now(&self) -> (Era, u64) {
        split(self.open.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_more_than_the_cap_of_one_era_nor_than_there_are_files(
            most in 0..6_u64,
            files in 6..12_u64,
            steps in prop::collection::vec(0..8_u8, 0..200),
        ) {
            let slots = Slots::new(files);
            slots.set_most(most);
            let (mut current, mut forgotten) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    0..=3 => {
                        let taken = slots.take();
                        let has_room = ((current.len() + forgotten.len()) as u64) < files;
                        prop_assert_eq!(taken.is_some(), (current.len() as u64) < most && has_room);
                        current.extend(taken);
                    }
                    4 | 5 => current.pop().into_iter().for_each(|era| slots.give(era)),
                    6 => forgotten.pop().into_iter().for_each(|era| slots.give(era)),
                    _ => {
                        slots.forget();
                        forgotten.append(&mut current);
                    }
                }
                prop_assert!(current.iter().all(|era| slots.counts(*era)));
                prop_assert!(!forgotten.iter().any(|era| slots.counts(*era)));
                let has_room = ((current.len() + forgotten.len()) as u64) < files;
                prop_assert_eq!(slots.is_full(), current.len() as u64 >= most || !has_room);
                prop_assert_eq!(slots.is_empty(), current.is_empty());
            }
        }
    }
}
