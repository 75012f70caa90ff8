//! Tickets of this worker: things that exist once in the cluster, dealt on demand by the master.

use super::EngineEvent;
use ld_shared::plan::{Plan, Pool};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};

/// The pools of one worker, shared by its cores.
pub(crate) struct Tickets {
    pools: Vec<(Pool, Mutex<Stock>, Notify)>,
    events: mpsc::UnboundedSender<EngineEvent>,
}

#[derive(Default)]
struct Stock {
    ranges: VecDeque<Range<u64>>,
    exhausted: bool,
    /// A request is under way.
    asked: bool,
    /// Somebody found none, and it was said.
    told_empty: bool,
    /// Tickets taken, and of the block before: sizes the next request.
    taken: u64,
}

impl Stock {
    fn left(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }

    fn take(&mut self) -> Option<u64> {
        let range = self.ranges.front_mut()?;
        let ticket = range.start;
        range.start += 1;
        if range.start >= range.end {
            self.ranges.pop_front();
        }
        self.taken += 1;
        Some(ticket)
    }
}

impl Tickets {
    pub(crate) fn new(plan: &Plan, events: mpsc::UnboundedSender<EngineEvent>) -> Self {
        let pools = plan.pools().into_iter().map(|(pool, _)| (pool, Mutex::default(), Notify::new())).collect();
        Self { pools, events }
    }

    /// The next ticket of a pool; `None` when there is none left in the cluster.
    ///
    /// Cancel safe: a ticket is taken only in the poll that returns it.
    pub(crate) async fn take(&self, pool: Pool) -> Option<u64> {
        let (_, stock, notify) = self.pools.iter().find(|(p, ..)| *p == pool)?;
        loop {
            let granted = notify.notified();
            let mut granted = std::pin::pin!(granted);
            // registered before looking, so that a grant in between is not missed
            granted.as_mut().enable();
            {
                let mut stock = stock.lock().unwrap_or_else(PoisonError::into_inner);
                let ticket = stock.take();
                self.ask(pool, &mut stock);
                if ticket.is_some() {
                    return ticket;
                }
                if stock.exhausted {
                    if !std::mem::replace(&mut stock.told_empty, true) {
                        // a closed channel means that the engine is being torn down
                        self.events.send(EngineEvent::PoolEmpty(pool)).ok();
                    }
                    return None;
                }
            }
            granted.await;
        }
    }

    /// Asks for more while a quarter of the stock is left, so that nobody waits for the master.
    fn ask(&self, pool: Pool, stock: &mut Stock) {
        if stock.exhausted || stock.asked || stock.left() * 4 > stock.taken.min(100_000) {
            return;
        }
        stock.asked = true;
        let want = stock.taken.clamp(1, 100_000);
        // a closed channel means that the engine is being torn down
        self.events.send(EngineEvent::WantTickets { pool, want }).ok();
    }

    /// Takes a ticket back that was not used.
    pub(crate) fn give_back(&self, pool: Pool, ticket: u64) {
        let Some((_, stock, notify)) = self.pools.iter().find(|(p, ..)| *p == pool) else { return };
        let mut stock = stock.lock().unwrap_or_else(PoisonError::into_inner);
        stock.ranges.push_front(ticket..ticket + 1);
        drop(stock);
        notify.notify_waiters();
    }

    /// Adds tickets that the master granted.
    pub(crate) fn grant(&self, pool: Pool, tickets: Range<u64>, exhausted: bool) {
        let Some((_, stock, notify)) = self.pools.iter().find(|(p, ..)| *p == pool) else { return };
        let mut stock = stock.lock().unwrap_or_else(PoisonError::into_inner);
        if !tickets.is_empty() {
            stock.ranges.push_back(tickets);
        }
        stock.exhausted |= exhausted;
        stock.asked = false;
        drop(stock);
        notify.notify_waiters();
    }
}
