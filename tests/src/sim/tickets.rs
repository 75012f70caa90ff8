//! A modelled engine's tickets: stocks of `ld_worker`'s, without its threads.

use ld_shared::plan::{Plan, Pool};
use ld_shared::time::Mono;
use ld_worker::stock::{Stock, Taken};
use std::collections::BTreeMap;
use std::ops::Range;

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

    pub(crate) fn take(&mut self, now: u64, pool: Pool, say: &mut Vec<Say>) -> Taken {
        let Some(stock) = self.pools.get_mut(&pool) else { return Taken::None { first: false } };
        let (taken, want) = stock.take(Mono(now));
        say.extend(want.map(|want| Say::Want(pool, want)));
        if taken == (Taken::None { first: true }) {
            say.push(Say::Empty(pool));
        }
        taken
    }

    pub(crate) fn grant(&mut self, pool: Pool, tickets: Range<u64>, exhausted: bool) {
        if let Some(stock) = self.pools.get_mut(&pool) {
            stock.grant(tickets, exhausted);
        }
    }
}
