//! What came on top of what was there, and histograms in somebody else's buckets.

use ld_shared::latency::{Latency, bucket_high, bucket_low, bucket_of};
use ld_shared::snapshot::Series;

/// The samples of `now` that `earlier` does not hold. Counts and sum are exact; so are min and max where they are new
/// ones, else they are as good as the buckets.
pub(super) fn since(now: &Latency, earlier: Option<&Latency>) -> Latency {
    let Some(earlier) = earlier.filter(|earlier| earlier.count() > 0) else { return now.clone() };
    let mut before = earlier.buckets().peekable();
    let mut more = Vec::new();
    for (bucket, count) in now.buckets() {
        while before.next_if(|(b, _)| *b < bucket).is_some() {}
        let had = before.next_if(|(b, _)| *b == bucket).map_or(0, |(_, n)| n);
        if count > had {
            more.push((bucket, count - had));
        }
    }
    let (Some((first, _)), Some((last, _))) = (more.first().copied(), more.last().copied()) else {
        return Latency::default();
    };
    let min = if now.min() < earlier.min() { now.min() } else { bucket_low(first).max(now.min()) };
    let max = if now.max() > earlier.max() { now.max() } else { bucket_high(last).min(now.max()) };
    let mut latency = Latency::default();
    latency.add_buckets(more, now.sum().saturating_sub(earlier.sum()), min, max);
    latency
}

/// The samples of a series that `earlier` does not hold.
pub(super) fn series_since(now: &Series, earlier: Option<&Series>) -> Series {
    Series {
        succeeded: since(&now.succeeded, earlier.map(|e| &e.succeeded)),
        failed: since(&now.failed, earlier.map(|e| &e.failed)),
        service: Latency::default(),
        lag: Latency::default(),
        bytes_sent: now.bytes_sent.saturating_sub(earlier.map_or(0, |e| e.bytes_sent)),
        bytes_received: now.bytes_received.saturating_sub(earlier.map_or(0, |e| e.bytes_received)),
        first_at: now.first_at,
    }
}

/// Samples of at most each of `bounds` (ms, ascending), to the precision of the histogram.
pub(super) fn at_most<const N: usize>(latency: &Latency, bounds: &[u64; N]) -> [u64; N] {
    let ends = bounds.map(|ms| bucket_of(ms * 1_000));
    let (mut counts, mut at, mut seen) = ([0; N], 0, 0);
    for (bucket, count) in latency.buckets() {
        while at < N && bucket > ends[at] {
            counts[at] = seen;
            at += 1;
        }
        seen += count;
    }
    counts.iter_mut().skip(at).for_each(|count| *count = seen);
    counts
}

/// µs as ms.
pub(super) fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Latency {
        let mut latency = Latency::default();
        for value in values {
            latency.record(*value);
        }
        latency
    }

    proptest! {
        #[test]
        fn what_was_there_and_what_came_are_what_is_there(
            a in prop::collection::vec(0u64..9_000_000, 0..60), b in prop::collection::vec(0u64..9_000_000, 0..60)
        ) {
            let (earlier, came) = (of(&a), of(&b));
            let mut now = earlier.clone();
            now.merge(&came);
            let found = since(&now, Some(&earlier));
            prop_assert!(found.buckets().eq(came.buckets()));
            prop_assert_eq!((found.count(), found.sum()), (came.count(), came.sum()));
            prop_assert!(found.min() <= came.min() && found.max() >= came.max());
            prop_assert_eq!(since(&now, None), now);
        }

        #[test]
        fn buckets_of_others_count_the_same(values in prop::collection::vec(0u64..20_000_000, 0..60)) {
            let bounds = [0, 5, 10, 250, 10_000];
            let latency = of(&values);
            prop_assert_eq!(at_most(&latency, &bounds), bounds.map(|ms| latency.count_at_or_below(ms * 1_000)));
        }
    }
}
