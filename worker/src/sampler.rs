//! Which requests of a core are kept: those with the lowest random priorities.
//!
//! Priorities are drawn before an answer is read, so that keeping the lowest `k` is a uniform
//! sample whatever the answers are, and samples of several cores merge into a uniform sample
//! ([`crate::shipper`]). A core holds no records: it knows the `k` lowest priorities that it gave
//! away, and gives away nothing above them, k · (1 + ln(n / k)) records of n requests at most.

use ld_shared::record::{Bodies, RecordPolicy};
use ld_shared::rng::KeyedRng;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Priorities at or above which nobody needs records: successes, failures. Of the whole worker.
pub(crate) type RecordLimits = Arc<[AtomicU64; 2]>;

/// The sampler of one core.
pub(crate) struct Sampler {
    policy: RecordPolicy,
    rng: KeyedRng,
    limits: RecordLimits,
    /// The `k` lowest priorities that were given away, per kind.
    lowest: [BinaryHeap<u64>; 2],
}

/// What a request that is about to start would be kept as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) priority: u64,
    /// Kept if it succeeds, if it fails.
    pub(crate) keep: [bool; 2],
    /// Bytes of the body to keep if it succeeds, if it fails.
    pub(crate) body: [usize; 2],
}

impl Sampler {
    /// `salt` differs from core to core of the whole cluster: equal streams of priorities would
    /// keep the same requests of each.
    pub(crate) fn new(policy: RecordPolicy, limits: RecordLimits, salt: u64) -> Self {
        let rng = KeyedRng::new(salt, 0, 0x7265_636f_7264_7321);
        Self { policy, rng, limits, lowest: [BinaryHeap::new(), BinaryHeap::new()] }
    }

    fn limit(&self, kind: usize) -> u64 {
        let k = self.policy.keep as usize;
        if k == 0 {
            return 0;
        }
        let own = self.lowest[kind].peek().filter(|_| self.lowest[kind].len() >= k);
        own.copied().unwrap_or(u64::MAX).min(self.limits[kind].load(Ordering::Relaxed))
    }

    /// Draws a priority.
    pub(crate) fn draw(&mut self) -> Ticket {
        let priority = self.rng.next_u64();
        let keep = [0, 1].map(|kind| priority < self.limit(kind));
        let body = match self.policy.bodies {
            Bodies::None => [0, 0],
            Bodies::Failed(n) => [0, if keep[1] { n as usize } else { 0 }],
            Bodies::All(n) => keep.map(|k| if k { n as usize } else { 0 }),
        };
        Ticket { priority, keep, body }
    }

    /// Whether a request of the main phase that has ended is kept. What others kept since it began
    /// may have lowered the limit.
    pub(crate) fn keeps(&mut self, ticket: &Ticket, failed: bool) -> bool {
        let kind = usize::from(failed);
        if !ticket.keep[kind] || ticket.priority >= self.limit(kind) {
            return false;
        }
        let lowest = &mut self.lowest[kind];
        if (lowest.len() as u64) < self.policy.keep {
            lowest.push(ticket.priority);
        } else if let Some(mut highest) = lowest.peek_mut()
            && *highest > ticket.priority
        {
            *highest = ticket.priority;
        }
        true
    }

    /// Whether every request goes to the master's file.
    pub(crate) fn wants_all(&self) -> bool {
        self.policy.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_gives_away_the_lowest_of_each_kind_and_few_more() {
        let limits: RecordLimits = Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]);
        let policy = RecordPolicy { keep: 1_000, bodies: Bodies::None, all: false };
        let mut sampler = Sampler::new(policy, Arc::clone(&limits), 3);
        let (mut drawn, mut given) = (Vec::new(), Vec::new());
        for _ in 0..200_000 {
            let ticket = sampler.draw();
            drawn.push(ticket.priority);
            if sampler.keeps(&ticket, false) {
                given.push(ticket.priority);
            }
        }
        // 1000 · (1 + ln 200) = 6298, standard deviation below 80
        assert!((5_800..6_800).contains(&given.len()), "{}", given.len());
        drawn.sort_unstable();
        given.sort_unstable();
        assert_eq!(given[..1_000], drawn[..1_000]);
        limits[0].store(drawn[10], Ordering::Relaxed);
        assert!((0..1_000).filter(|_| sampler.draw().keep[0]).count() < 10);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let limits: RecordLimits = Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]);
        let mut sampler = Sampler::new(RecordPolicy { keep: 0, bodies: Bodies::All(9), all: true }, limits, 3);
        let ticket = sampler.draw();
        assert_eq!((ticket.keep, ticket.body), ([false; 2], [0; 2]));
        assert!(!sampler.keeps(&ticket, true) && sampler.wants_all());
    }
}
