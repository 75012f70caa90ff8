//! Tickets of this worker: things that exist once in the cluster, dealt on demand by the master.

use super::EngineEvent;
use crate::stock::{Stock, Taken};
use ld_shared::boot::clock;
use ld_shared::plan::{Plan, Pool};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};

/// The pools of one worker, shared by its cores.
pub(crate) struct Tickets {
    pools: Vec<(Pool, Mutex<Stock>, Notify)>,
    events: mpsc::UnboundedSender<EngineEvent>,
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
                let (taken, want) = stock.lock().unwrap_or_else(PoisonError::into_inner).take(clock::mono());
                // a closed channel means that the engine is being torn down
                if let Some(want) = want {
                    self.events.send(EngineEvent::WantTickets { pool, want }).ok();
                }
                match taken {
                    Taken::Ticket(ticket) => return Some(ticket),
                    Taken::None { first } => {
                        if first {
                            self.events.send(EngineEvent::PoolEmpty(pool)).ok();
                        }
                        return None;
                    }
                    Taken::Wait => {}
                }
            }
            granted.await;
        }
    }

    /// Takes a ticket back that was not used.
    pub(crate) fn give_back(&self, pool: Pool, ticket: u64) {
        self.change(pool, |stock| stock.give_back(ticket));
    }

    /// Adds tickets that the master granted.
    pub(crate) fn grant(&self, pool: Pool, tickets: Range<u64>, exhausted: bool) {
        self.change(pool, |stock| stock.grant(tickets, exhausted));
    }

    fn change(&self, pool: Pool, change: impl FnOnce(&mut Stock)) {
        let Some((_, stock, notify)) = self.pools.iter().find(|(p, ..)| *p == pool) else { return };
        change(&mut stock.lock().unwrap_or_else(PoisonError::into_inner));
        notify.notify_waiters();
    }
}
