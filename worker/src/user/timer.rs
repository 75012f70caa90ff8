//! Deadlines of a user's exchanges.

use ld_shared::boot::clock::mono;
use ld_shared::reply::Reply;
use ld_shared::sample::{Failure, FailureKind};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Ends exchanges at their deadlines: one timer a user, re-armed only when it fires early, so that a
/// request costs no timer operation.
pub(crate) struct Timer {
    deadline: Rc<Cell<u64>>,
    /// When `sleep` fires; `u64::MAX`: not armed.
    armed: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// A timer of the deadline in this cell, ns of this node's clock; `u64::MAX`: none.
    pub(crate) fn new(deadline: Rc<Cell<u64>>) -> Self {
        Self { deadline, armed: u64::MAX, sleep: None }
    }

    /// The outcome of an exchange, or that it timed out.
    pub(super) async fn limit(
        &mut self,
        mut exchange: Pin<Box<dyn Future<Output = Result<Reply, Failure>> + '_>>,
    ) -> Result<Reply, Failure> {
        poll_fn(|context| {
            if let Poll::Ready(outcome) = exchange.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            if self.is_over(context) {
                return Poll::Ready(Err(Failure::new(FailureKind::Timeout, "timed out")));
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the deadline has passed; else the task is woken when it does.
    pub(crate) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let deadline = self.deadline.get();
        if deadline == u64::MAX {
            return false;
        }
        loop {
            if deadline < self.armed || self.sleep.is_none() {
                let left = Duration::from_nanos(deadline.saturating_sub(mono().0));
                let at = Instant::now() + left;
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(at),
                    None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
                }
                self.armed = deadline;
            }
            let Some(sleep) = &mut self.sleep else { return false };
            if sleep.as_mut().poll(context).is_pending() {
                return false;
            }
            self.armed = u64::MAX;
            if mono().0 >= deadline {
                return true;
            }
        }
    }
}
