//! A modelled engine's stock of tickets: what `ld_worker`'s engine keeps, without its threads.

use ld_shared::plan::{Plan, Pool};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

#[derive(Debug, Default)]
pub(crate) struct Stock {
    ranges: VecDeque<Range<u64>>,
    exhausted: bool,
    asked: bool,
    told_empty: bool,
    taken: u64,
}

/// What came of asking for a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Ticket(u64),
    /// The cluster has none left.
    None,
    /// The master was asked.
    Wait,
}

#[derive(Debug)]
pub(crate) struct Tickets {
    pools: BTreeMap<Pool, Stock>,
}

/// What the engine is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    Want(Pool, u64),
    Empty(Pool),
}

impl Tickets {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { pools: plan.pools().into_iter().map(|(pool, _)| (pool, Stock::default())).collect() }
    }

    pub(crate) fn take(&mut self, pool: Pool, say: &mut Vec<Say>) -> Taken {
        let Some(stock) = self.pools.get_mut(&pool) else { return Taken::None };
        let ticket = stock.ranges.front_mut().map(|range| {
            range.start += 1;
            range.start - 1
        });
        stock.ranges.retain(|range| !range.is_empty());
        stock.taken += u64::from(ticket.is_some());
        let left: u64 = stock.ranges.iter().map(|r| r.end - r.start).sum();
        if !stock.exhausted && !stock.asked && left * 4 <= stock.taken.min(100_000) {
            stock.asked = true;
            say.push(Say::Want(pool, stock.taken.clamp(1, 100_000)));
        }
        match ticket {
            Some(ticket) => Taken::Ticket(ticket),
            None if stock.exhausted => {
                if !std::mem::replace(&mut stock.told_empty, true) {
                    say.push(Say::Empty(pool));
                }
                Taken::None
            }
            None => Taken::Wait,
        }
    }

    pub(crate) fn grant(&mut self, pool: Pool, tickets: Range<u64>, exhausted: bool) {
        let Some(stock) = self.pools.get_mut(&pool) else { return };
        if !tickets.is_empty() {
            stock.ranges.push_back(tickets);
        }
        stock.exhausted |= exhausted;
        stock.asked = false;
    }
}
