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
    own_limits: [u64; 2],
    kept: [Vec<Record>; 2],
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
    pub(crate) fn new(policy: RecordPolicy, limits: RecordLimits, seed: u64, core: u64) -> Self {
        Self {
            policy,
            rng: KeyedRng::new(seed, core, 0x7265_636f_7264_7321),
            limits,
            own_limits: [if policy.keep == 0 { 0 } else { u64::MAX }; 2],
            kept: [Vec::new(), Vec::new()],
        }
    }

    /// Draws a priority.
    pub(crate) fn draw(&mut self) -> Ticket {
        let priority = self.rng.next_u64();
        let keep = [0, 1].map(|i| priority < self.own_limits[i] && priority < self.limits[i].load(Ordering::Relaxed));
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
        let kept = &mut self.kept[kind];
        kept.push(record);
        let k = self.policy.keep as usize;
        if kept.len() >= k.saturating_mul(2).max(64) {
            kept.select_nth_unstable_by_key(k, |r| r.priority);
            self.own_limits[kind] = kept[k].priority;
            kept.truncate(k);
        }
    }

    /// The kept records; at most `keep` successes and `keep` failures.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        let k = self.policy.keep as usize;
        let mut all = Vec::new();
        for kept in &mut self.kept {
            kept.sort_unstable_by_key(|r| r.priority);
            kept.truncate(k);
            all.append(kept);
        }
        all
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
        let policy = RecordPolicy { keep: 1000, bodies: Bodies::None };
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
