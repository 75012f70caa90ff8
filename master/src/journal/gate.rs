//! What must not happen before the journal has it. Pure.

use ld_shared::time::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// Holds things back until the entries that they depend on are committed. What is held leaves in
/// the order in which it came.
#[derive(Clone, Debug)]
pub struct Gate<T> {
    held: VecDeque<Held<T>>,
    /// Everything up to here is committed.
    committed: u64,
}

#[derive(Clone, Debug)]
struct Held<T> {
    number: u64,
    since: Mono,
    what: T,
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        Self { held: VecDeque::new(), committed: 0 }
    }
}

impl<T> Gate<T> {
    /// Holds `what` until entry `number` is committed. Gives it back if there is nothing to wait for.
    pub fn hold(&mut self, now: Mono, number: u64, what: T) -> Option<T> {
        if self.held.is_empty() && number <= self.committed {
            return Some(what);
        }
        self.held.push_back(Held { number, since: now, what });
        None
    }

    /// Everything up to entry `number` is committed: what may go now.
    pub fn release(&mut self, number: u64) -> Vec<T> {
        self.committed = self.committed.max(number);
        let waits = self.held.iter().position(|held| held.number > self.committed).unwrap_or(self.held.len());
        self.held.drain(..waits).map(|held| held.what).collect()
    }

    /// There is no journal any more: everything goes, now and later.
    pub fn open(&mut self) -> Vec<T> {
        self.release(u64::MAX)
    }

    /// Whether something of the kind is held.
    pub fn holds(&self, kind: impl Fn(&T) -> bool) -> bool {
        self.held.iter().any(|held| kind(&held.what))
    }

    /// How long the first of those that are held has waited.
    pub fn waited(&self, now: Mono) -> Duration {
        self.held.front().map_or(Duration::ZERO, |held| now.since(held.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_depends_on_an_entry_waits_for_its_commit() {
        let mut gate = Gate::default();
        assert_eq!(gate.hold(Mono(0), 0, "no entry"), Some("no entry"));
        assert_eq!(gate.hold(Mono(5), 1, "first"), None);
        assert_eq!(gate.hold(Mono(6), 1, "second"), None);
        assert_eq!(gate.hold(Mono(7), 3, "third"), None);
        assert_eq!(gate.waited(Mono(9)), Duration::from_nanos(4));
        assert_eq!(gate.release(0), [""; 0]);
        assert_eq!(gate.release(2), ["first", "second"]);
        assert_eq!(gate.waited(Mono(9)), Duration::from_nanos(2));
        // what depends on less came later: it does not overtake
        assert_eq!(gate.hold(Mono(8), 2, "fourth"), None);
        assert_eq!(gate.release(3), ["third", "fourth"]);
        assert_eq!(gate.hold(Mono(8), 3, "fifth"), Some("fifth"));
        assert_eq!(gate.hold(Mono(8), 4, "sixth"), None);
        assert_eq!(gate.open(), ["sixth"]);
        assert_eq!(gate.hold(Mono(8), 9, "seventh"), Some("seventh"));
    }

    proptest! {
        #[test]
        fn nothing_leaves_early_nothing_stays_and_order_holds(
            steps in prop::collection::vec((any::<bool>(), 0u64..4), 0..60),
        ) {
            let mut gate = Gate::default();
            let (mut appended, mut committed, mut left) = (0_u64, 0_u64, Vec::new());
            let mut count = 0;
            for (commit, n) in steps {
                if commit {
                    committed = (committed + n).min(appended);
                    left.extend(gate.release(committed));
                } else {
                    appended += n;
                    left.extend(gate.hold(Mono(0), appended, (count, appended)));
                    count += 1;
                }
                prop_assert!(left.iter().all(|(_, number)| *number <= committed));
            }
            left.extend(gate.release(appended));
            prop_assert_eq!(left.iter().map(|(i, _)| *i).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }
}
