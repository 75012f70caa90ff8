//! Which requests of a core are kept: those with the lowest random priorities.
//!
//! Priorities are drawn before an answer is read, so that keeping the lowest `k` is a uniform
//! sample whatever the answers are, and samples of several cores merge into a uniform sample.

use ld_shared::record::{Bodies, Record, RecordPolicy};
use ld_shared::rng::KeyedRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Priorities at or above which nobody needs records: successes, failures.
pub(crate) type RecordLimits = Arc<[AtomicU64; 2]>;

/// The sampler of one core.
pub(crate) struct Sampler {
    policy: RecordPolicy,
    rng: KeyedRng,
    limits: RecordLimits,
    kept: [Kept; 2],
}

/// The records with the lowest priorities so far: at least the `k` lowest of all.
///
/// Choosing among records would move megabytes and stop the core for tens of milliseconds, which
/// would show as latency; so their priorities lie apart, and the places of those that fall out are
/// used again.
struct Kept {
    records: Vec<Record>,
    /// Priorities and places of the kept ones.
    order: Vec<(u64, u32)>,
    free: Vec<u32>,
    /// Priorities at or above this are not kept.
    limit: u64,
}

impl Kept {
    fn keep(&mut self, record: Record, k: usize) {
        if self.records.is_empty() {
            // untouched memory costs nothing; growing later would copy all of it
            self.records.reserve_exact(most(k).min(MOST_RESERVED));
            self.order.reserve_exact(most(k).min(MOST_RESERVED));
        }
        let priority = record.priority;
        let place = if let Some(place) = self.free.pop() {
            self.records[place as usize] = record;
            place
        } else {
            self.records.push(record);
            self.records.len() as u32 - 1
        };
        self.order.push((priority, place));
        if self.order.len() >= most(k) {
            self.choose(k);
        }
    }

    /// Lets all but the `k` lowest go.
    fn choose(&mut self, k: usize) {
        if self.order.len() > k {
            self.order.select_nth_unstable(k);
            self.limit = self.order[k].0;
            self.free.extend(self.order.drain(k..).map(|(_, place)| place));
        }
    }

    /// The `k` lowest.
    fn take(&mut self, k: usize) -> Vec<Record> {
        self.choose(k);
        let mut kept = vec![false; self.records.len()];
        for (_, place) in self.order.drain(..) {
            kept[place as usize] = true;
        }
        self.free.clear();
        std::mem::take(&mut self.records)
            .into_iter()
            .zip(kept)
            .filter_map(|(record, kept)| kept.then_some(record))
            .collect()
    }
}

/// How many are gathered before the `k` lowest are chosen.
fn most(k: usize) -> usize {
    k.saturating_add(k / 4 + 64)
}

/// Records for which room is made at once.
const MOST_RESERVED: usize = 1_000_000;

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
    pub(crate) fn new(policy: RecordPolicy, limits: RecordLimits, seed: u64, core: u64) -> Self {
        Self {
            policy,
            rng: KeyedRng::new(seed, core, 0x7265_636f_7264_7321),
            limits,
            kept: [0, 1].map(|_| Kept {
                records: Vec::new(),
                order: Vec::new(),
                free: Vec::new(),
                limit: if policy.keep == 0 { 0 } else { u64::MAX },
            }),
        }
    }

    /// Draws a priority.
    pub(crate) fn draw(&mut self) -> Ticket {
        let priority = self.rng.next_u64();
        let keep = [0, 1].map(|i| priority < self.kept[i].limit && priority < self.limits[i].load(Ordering::Relaxed));
        let body = match self.policy.bodies {
            Bodies::None => [0, 0],
            Bodies::Failed(n) => [0, if keep[1] { n as usize } else { 0 }],
            Bodies::All(n) => keep.map(|k| if k { n as usize } else { 0 }),
        };
        Ticket { priority, keep, body }
    }

    /// Keeps a record.
    pub(crate) fn keep(&mut self, record: Record) {
        let kind = usize::from(record.error.is_some());
        self.kept[kind].keep(record, self.policy.keep as usize);
    }

    /// The kept records; at most `keep` successes and `keep` failures.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        let k = self.policy.keep as usize;
        self.kept.iter_mut().flat_map(|kept| kept.take(k)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::sample::Phase;

    fn record(priority: u64, at: u64, failed: bool) -> Record {
        Record {
            priority,
            ended_at: at,
            phase: Phase::Main,
            request_type: "GET".into(),
            url: "u".into(),
            name: "n".into(),
            status: Some(200),
            response_us: 1,
            body_bytes: 0,
            error: failed.then(|| "e".into()),
            answer: None,
        }
    }

    #[test]
    fn the_kept_sample_is_bounded_and_uniform_over_time() {
        let limits: RecordLimits = Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]);
        let policy = RecordPolicy { keep: 1000, bodies: Bodies::None, all: false };
        let mut sampler = Sampler::new(policy, limits, 3, 0);
        for at in 0..200_000 {
            let ticket = sampler.draw();
            if ticket.keep[0] {
                sampler.keep(record(ticket.priority, at, false));
            }
        }
        let kept = sampler.take();
        assert_eq!(kept.len(), 1000);
        let early = kept.iter().filter(|r| r.ended_at < 100_000).count();
        // binomial(1000, 1/2): standard deviation 16
        assert!((420..580).contains(&early), "{early}");
    }
}
