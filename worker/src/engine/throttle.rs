//! Limits on the rate of requests: this worker's share of each, shared by its cores.
//!
//! A share is a token bucket in the form of GCRA (ITU-T I.371): one atomic instant, no lock. Users
//! of a core wait in line; only the first one watches the clock, so that a thousand waiting users
//! cost one wake-up a request. What a wake-up comes late is not lost: the next request is due one
//! interval after this one was, not after it went.

use super::pacer::Pacer;
use ld_shared::boot::clock::mono;
use ld_shared::plan::Plan;
use ld_shared::throttle::{ThrottleShare, ThrottleUse, interval};
use ld_shared::time::SECOND;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// Whoever watches the clock looks at least so often whether the share has changed.
const LOOK_EVERY: u64 = SECOND / 10;
/// A core that stood still catches up with at most so much.
const CATCH_UP: u64 = SECOND / 20;

/// This worker's share of one limit.
struct Bucket {
    /// Requests per second over the cluster.
    rate: f64,
    /// GCRA's theoretical arrival time: instant by which all that was let through has been earned,
    /// plus one interval; ns of this node's clock.
    next: AtomicU64,
    /// Between two requests, ns; `u64::MAX`: nothing goes.
    interval: AtomicU64,
    burst: AtomicU64,
    passed: AtomicU64,
    waiting: AtomicU64,
}

impl Bucket {
    /// Lets a request through that waits since `since`, or says when to look again.
    fn try_pass(&self, since: u64, now: u64) -> Result<(), u64> {
        let interval = self.interval.load(Ordering::Relaxed);
        let burst = self.burst.load(Ordering::Relaxed);
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let after = pass(next, interval, burst, since, now)?;
            match self.next.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.passed.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(newer) => next = newer,
            }
        }
    }

    /// Goes by another share from `now` on.
    fn set_parts(&self, parts: u32, now: u64) {
        let new = interval(self.rate, parts);
        let old = self.interval.swap(new, Ordering::Relaxed);
        let burst = self.burst.load(Ordering::Relaxed);
        let moved = |next| Some(rescale(next, old, new, burst, now));
        // the closure always gives a value
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved).ok();
    }
}

/// [`Bucket::next`] after a request that waits since `since`; `Err`: not before that instant.
///
/// Without any burst a share's instants lie one interval apart and lapse if nobody waits: the
/// shares of several workers, each with its own instants, then never add up to a burst.
fn pass(next: u64, interval: u64, burst: u64, since: u64, now: u64) -> Result<u64, u64> {
    if interval == u64::MAX {
        return Err(u64::MAX);
    }
    let wanted = since.max(now.saturating_sub(CATCH_UP));
    let due = match burst.checked_sub(1) {
        Some(more) => next.saturating_sub(more.saturating_mul(interval)).max(wanted),
        None => next.saturating_add(wanted.saturating_sub(next).div_ceil(interval).saturating_mul(interval)),
    };
    if due > now { Err(due) } else { Ok(next.max(due).saturating_add(interval)) }
}

/// [`Bucket::next`] when the interval changes: what has been earned by then stays, what is still to
/// be earned takes the new time.
fn rescale(next: u64, old: u64, new: u64, burst: u64, now: u64) -> u64 {
    if new == u64::MAX {
        return next;
    }
    if old == u64::MAX {
        // nothing was earned while nothing went
        return now.saturating_add(new.saturating_mul(burst.max(1)));
    }
    let ahead = u128::from(next.saturating_sub(now)) * u128::from(new) / u128::from(old.max(1));
    if next > now { now.saturating_add(ahead as u64) } else { next }
}

/// This worker's shares of all limits.
pub(crate) struct Throttles {
    buckets: Vec<Bucket>,
}

impl Throttles {
    /// Those of the plan; nothing goes before [`Self::start`].
    pub(crate) fn new(plan: &Plan) -> Self {
        let bucket = |limit: ld_shared::plan::ThrottlePlan| Bucket {
            rate: limit.rate,
            next: AtomicU64::new(0),
            interval: AtomicU64::new(u64::MAX),
            burst: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        };
        Self { buckets: plan.limits().into_iter().map(bucket).collect() }
    }

    /// Goes by these shares; run time 0 is `t0`. Buckets are empty but for one request.
    pub(crate) fn start(&self, shares: &[ThrottleShare], t0: u64) {
        for (bucket, share) in self.buckets.iter().zip(shares) {
            let interval = interval(bucket.rate, share.parts);
            let earned = if interval == u64::MAX { 0 } else { share.burst.saturating_sub(1).saturating_mul(interval) };
            bucket.burst.store(share.burst, Ordering::Relaxed);
            bucket.next.store(t0.saturating_add(share.first).saturating_add(earned), Ordering::Relaxed);
            bucket.interval.store(interval, Ordering::Relaxed);
        }
    }

    /// Goes by these parts from now on.
    pub(crate) fn set_parts(&self, parts: &[u32]) {
        let now = mono().0;
        self.buckets.iter().zip(parts).for_each(|(bucket, parts)| bucket.set_parts(*parts, now));
    }

    /// Goes by these shares from now on, where they are lower than those in force.
    pub(crate) fn lower(&self, shares: &[ThrottleShare]) {
        let now = mono().0;
        for (bucket, share) in self.buckets.iter().zip(shares) {
            bucket.burst.fetch_min(share.burst, Ordering::Relaxed);
            if interval(bucket.rate, share.parts) > bucket.interval.load(Ordering::Relaxed) {
                bucket.set_parts(share.parts, now);
            }
        }
    }

    /// Goes by these shares from now on.
    pub(crate) fn set_shares(&self, shares: &[ThrottleShare]) {
        let now = mono().0;
        for (bucket, share) in self.buckets.iter().zip(shares) {
            bucket.burst.store(share.burst, Ordering::Relaxed);
            bucket.set_parts(share.parts, now);
        }
    }

    /// How much of each is used.
    pub(crate) fn used(&self) -> Vec<ThrottleUse> {
        let used = |bucket: &Bucket| ThrottleUse {
            passed: bucket.passed.load(Ordering::Relaxed),
            waiting: bucket.waiting.load(Ordering::Relaxed),
        };
        self.buckets.iter().map(used).collect()
    }
}

/// One core's gates: where its users wait in line.
pub(crate) struct Gates {
    throttles: Arc<Throttles>,
    /// Who holds a lock is first in line; the timer is made when first needed.
    lines: Vec<Mutex<Option<Pacer>>>,
}

impl Gates {
    pub(crate) fn new(throttles: &Arc<Throttles>) -> Self {
        let lines = throttles.buckets.iter().map(|_| Mutex::default()).collect();
        Self { throttles: Arc::clone(throttles), lines }
    }

    /// Waits until a request may go by the limit with this index.
    ///
    /// Cancel safe: whoever is dropped leaves the line; a request counts only in the poll that
    /// returns.
    pub(crate) async fn pass(&self, limit: usize) {
        let (Some(bucket), Some(line)) = (self.throttles.buckets.get(limit), self.lines.get(limit)) else { return };
        let since = mono().0;
        let _waiting = Waiting::new(&bucket.waiting);
        let mut pacer = line.lock().await;
        while let Err(due) = bucket.try_pass(since, mono().0) {
            let until = due.min(mono().0 + LOOK_EVERY);
            if pacer.is_none() {
                *pacer = Pacer::new().inspect_err(|error| tracing::debug!(%error, "no timer for a limit")).ok();
            }
            if let Some(pacer) = &*pacer {
                pacer.until(until).await;
            } else {
                let left = std::time::Duration::from_nanos(until.saturating_sub(mono().0));
                tokio::time::sleep(left).await;
            }
        }
    }
}

/// Counts a user as waiting for as long as it exists.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn bucket(rate: f64, share: ThrottleShare) -> Bucket {
        let limit = ld_shared::plan::ThrottlePlan {
            key: "k".into(),
            rate,
            burst: share.burst,
            covers: ld_shared::plan::Covers::Test,
        };
        let throttles = Throttles {
            buckets: vec![Bucket {
                rate: limit.rate,
                next: AtomicU64::new(0),
                interval: AtomicU64::new(u64::MAX),
                burst: AtomicU64::new(0),
                passed: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
            }],
        };
        throttles.start(&[share], SECOND);
        throttles.buckets.into_iter().next().unwrap()
    }

    /// Instants, ms after the start, at which requests go that are wanted from `since` ms on.
    fn starts(bucket: &Bucket, since: u64, until: u64, step: u64) -> Vec<u64> {
        let mut starts = Vec::new();
        let mut now = since;
        while now < until {
            while bucket.try_pass(SECOND + since * MS, SECOND + now * MS).is_ok() {
                starts.push(now);
            }
            now += step;
        }
        starts
    }

    #[test]
    fn a_bucket_begins_empty_fills_in_a_pause_and_is_exact() {
        let share = ThrottleShare { parts: 1_000_000, burst: 3, first: 0 };
        let bucket = bucket(10.0, share);
        assert_eq!(starts(&bucket, 0, 450, 1), [0, 100, 200, 300, 400]);
        // after a pause of a second: three at once, then one each interval
        assert_eq!(starts(&bucket, 1_500, 1_850, 1), [1_500, 1_500, 1_500, 1_600, 1_700, 1_800]);
    }

    #[test]
    fn late_looks_lose_nothing() {
        let bucket = bucket(1_000.0, ThrottleShare { parts: 1_000_000, burst: 1, first: 0 });
        let count = starts(&bucket, 0, 1_000, 7).len();
        assert!((990..=1_000).contains(&count), "{count}");
    }

    #[test]
    fn a_share_without_burst_keeps_to_its_instants() {
        let bucket = bucket(10.0, ThrottleShare { parts: 500_000, burst: 0, first: 100 * MS });
        assert_eq!(starts(&bucket, 0, 600, 1), [100, 300, 500]);
        // nobody waited at 700 and 900
        assert_eq!(starts(&bucket, 950, 1_400, 1), [1_100, 1_300]);
    }

    #[test]
    fn a_new_share_counts_from_its_instant() {
        let bucket = bucket(10.0, ThrottleShare { parts: 100_000, burst: 1, first: 0 });
        assert_eq!(starts(&bucket, 0, 500, 1), [0]);
        bucket.set_parts(1_000_000, SECOND + 500 * MS);
        // half of the second had been waited
        assert_eq!(starts(&bucket, 0, 800, 1).first(), Some(&550));
        bucket.set_parts(0, SECOND + 800 * MS);
        assert_eq!(starts(&bucket, 900, 2_000, 1), [0; 0]);
        bucket.set_parts(1_000_000, SECOND + 2_000 * MS);
        assert_eq!(starts(&bucket, 2_000, 2_250, 1), [2_100, 2_200]);
    }

    proptest! {
        /// No window holds more than the rate and the burst allow, whoever asks when.
        #[test]
        fn no_window_exceeds_the_limit(
            burst in 0u64..6,
            asks in prop::collection::vec((0u64..400, 0u64..5), 1..60),
        ) {
            let bucket = bucket(20.0, ThrottleShare { parts: 1_000_000, burst, first: 0 });
            let (mut now, mut starts) = (0, Vec::new());
            for (pause, users) in asks {
                now += pause;
                for _ in 0..users {
                    if bucket.try_pass(SECOND + now * MS, SECOND + now * MS).is_ok() {
                        starts.push(now);
                    }
                }
            }
            for (i, from) in starts.iter().enumerate() {
                for (j, to) in starts.iter().enumerate().skip(i) {
                    prop_assert!((j - i + 1) as u64 <= burst.max(1) + (to - from) / 50);
                }
            }
        }
    }
}
