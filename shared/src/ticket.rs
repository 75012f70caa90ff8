//! Tickets: things that exist once in the cluster, dealt on demand.

use crate::id::SessionId;
use crate::plan::Pool;
use std::collections::BTreeMap;
use std::ops::Range;

/// The one place from which tickets come.
#[derive(Clone, Debug, Default)]
pub struct Dispenser {
    pools: BTreeMap<Pool, Stock>,
}

#[derive(Clone, Debug)]
struct Stock {
    total: u64,
    next: u64,
    granted: BTreeMap<SessionId, u64>,
}

/// Tickets for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// They; may be empty.
    pub tickets: Range<u64>,
    /// There are none after these.
    pub exhausted: bool,
}

impl Dispenser {
    /// Full pools, as [`crate::plan::Plan::pools`] names them.
    pub fn new(pools: impl IntoIterator<Item = (Pool, u64)>) -> Self {
        let stock = |total| Stock { total, next: 0, granted: BTreeMap::new() };
        Self { pools: pools.into_iter().map(|(pool, total)| (pool, stock(total))).collect() }
    }

    /// Tickets of `pool` for `session`: what it wants, but of what is left at most its part over
    /// twice the number of `workers`, so that the last ones are not hoarded. At least one, while
    /// there is one. A pool that does not exist is exhausted.
    pub fn grant(&mut self, pool: Pool, session: SessionId, want: u64, workers: u64) -> Grant {
        let Some(stock) = self.pools.get_mut(&pool) else {
            return Grant { tickets: 0..0, exhausted: true };
        };
        let left = stock.total - stock.next;
        let most = (left / (2 * workers.max(1))).max(1);
        let size = want.clamp(1, most).min(left);
        let tickets = stock.next..stock.next + size;
        stock.next += size;
        *stock.granted.entry(session).or_default() += size;
        Grant { tickets, exhausted: stock.next == stock.total }
    }

    /// Takes up a grant that was made before: nobody gets these tickets again.
    pub fn restore(&mut self, pool: Pool, session: SessionId, granted: u64, next: u64) {
        if let Some(stock) = self.pools.get_mut(&pool) {
            stock.next = stock.next.max(next.min(stock.total));
            let had = stock.granted.entry(session).or_default();
            *had = granted.max(*had);
        }
    }

    /// How many tickets of `pool` `session` was given.
    pub fn granted(&self, pool: Pool, session: SessionId) -> u64 {
        self.pools.get(&pool).and_then(|stock| stock.granted.get(&session)).copied().unwrap_or(0)
    }

    /// How many tickets of `pool` nobody was given.
    pub fn left(&self, pool: Pool) -> u64 {
        self.pools.get(&pool).map_or(0, |stock| stock.total - stock.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_ticket_is_granted_twice_and_all_are(
            total in 0u64..500,
            asks in prop::collection::vec((0u64..5, 0u64..40), 1..200),
        ) {
            let mut dispenser = Dispenser::new([(Pool::Iterations, total)]);
            let mut next = 0;
            for (session, want) in asks {
                let grant = dispenser.grant(Pool::Iterations, SessionId(session), want, 5);
                prop_assert_eq!(grant.tickets.start, next);
                next = grant.tickets.end;
                prop_assert!(next <= total);
                prop_assert_eq!(grant.exhausted, next == total);
            }
            let granted: u64 = (0..5).map(|s| dispenser.granted(Pool::Iterations, SessionId(s))).sum();
            prop_assert_eq!(granted + dispenser.left(Pool::Iterations), total);
        }
    }

    #[test]
    fn three_rows_and_one_that_asks_give_three_uses() {
        let pool = Pool::Source(0);
        let mut dispenser = Dispenser::new([(pool, 3)]);
        let all: Vec<u64> = (0..3).flat_map(|_| dispenser.grant(pool, SessionId(1), 10, 4).tickets).collect();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!(dispenser.grant(pool, SessionId(1), 1, 4), Grant { tickets: 3..3, exhausted: true });
        assert_eq!(dispenser.grant(Pool::Iterations, SessionId(1), 1, 4), Grant { tickets: 0..0, exhausted: true });
    }
}
