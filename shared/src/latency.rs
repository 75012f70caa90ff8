//! Latency histogram with unit, range and precision fixed by type.
//!
//! Source: G. Tene, `HdrHistogram`: the bucket layout of three significant digits over 1 µs to 1 h,
//! and the V2 encoding of [`Latency::to_hdr`].

mod counts;

use base64::Engine as _;
use counts::Counts;
use std::fmt;

/// Buckets of the layout.
pub const BUCKETS: usize = 23 * PAGE;
/// Longest value kept apart, µs: one hour. Longer ones count as this, and in `max` and `sum` as they are.
pub const HIGHEST: u64 = 3_600_000_000;
const PAGE: usize = 1_024;

/// Bucket of a value in µs: with `e = max(0, bit_length(v) − 11)`, it is `(e << 10) + (v >> e)`.
///
/// The first 2,048 buckets are 1 µs wide, each further 1,024 twice as wide as those before.
pub fn bucket_of(micros: u64) -> usize {
    let v = micros.min(HIGHEST);
    let e = (64 - (v | 0x7ff).leading_zeros() as usize) - 11;
    (e << 10) + (v >> e) as usize
}

/// Lowest value of a bucket, µs.
pub fn bucket_low(bucket: usize) -> u64 {
    if bucket < 2 * PAGE {
        return bucket as u64;
    }
    let e = bucket / PAGE - 1;
    ((bucket - e * PAGE) as u64) << e
}

/// Highest value of a bucket, µs.
pub fn bucket_high(bucket: usize) -> u64 {
    if bucket < 2 * PAGE {
        return bucket as u64;
    }
    let e = bucket / PAGE - 1;
    bucket_low(bucket) + (1 << e) - 1
}

/// Latencies of some samples.
///
/// Unit: microseconds, 1 µs to 1 h (0 is kept as 0). Precision: 3 significant digits; count, sum,
/// min and max are exact. Two values always merge: unit, range and precision are the type's.
/// Memory: pairs of bucket and count; beyond some hundreds of them pages of 1,024 counts, allocated on first touch.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Latency {
    counts: Counts,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Latency(count {}, min {}, max {} µs)", self.count, self.min, self.max)
    }
}

/// Why bytes are no encoded [`Latency`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of a number, or a number is longer than 64 bits.
    #[error("histogram bytes end in the middle of a number")]
    Truncated,
    /// A bucket beyond the layout.
    #[error("histogram bucket beyond {BUCKETS}")]
    Bucket,
    /// Counts that overflow, or a bucket with a count of 0.
    #[error("histogram count out of range")]
    Count,
    /// No base64 of an `HdrHistogram` in V2 encoding.
    #[error("text is no base64 of an HdrHistogram")]
    Foreign,
    /// Sum, min or max that the buckets rule out.
    #[error("histogram sum, min or max does not fit its buckets")]
    Bounds,
}

impl Latency {
    /// Adds one value in µs.
    pub fn record(&mut self, micros: u64) {
        self.record_n(micros, 1);
    }

    /// Adds `n` equal values in µs.
    pub fn record_n(&mut self, micros: u64, n: u64) {
        if n == 0 {
            return;
        }
        self.bounds(n, micros.saturating_mul(n), micros, micros);
        self.counts.add(bucket_of(micros), n);
    }

    /// Adds samples already counted by bucket (ascending or not), with their exact sum, min, max in µs.
    pub fn add_buckets(&mut self, buckets: impl IntoIterator<Item = (usize, u64)>, sum: u64, min: u64, max: u64) {
        let mut n = 0;
        for (bucket, count) in buckets {
            self.counts.add(bucket, count);
            n += count;
        }
        if n > 0 {
            self.bounds(n, sum, min, max);
        }
    }

    fn bounds(&mut self, n: u64, sum: u64, min: u64, max: u64) {
        self.min = if self.count == 0 { min } else { self.min.min(min) };
        self.max = self.max.max(max);
        self.count = self.count.saturating_add(n);
        self.sum = self.sum.saturating_add(sum);
    }

    /// Adds all samples of `other`. Commutative and associative; the empty value is its identity.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.bounds(other.count, other.sum, other.min, other.max);
        self.counts.merge(&other.counts);
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Exact sum, µs.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Exact minimum, µs; 0 without samples.
    pub fn min(&self) -> u64 {
        self.min
    }

    /// Exact maximum, µs; 0 without samples.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Exact mean, µs; 0 without samples.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// Percentile in µs, as the highest value of its bucket (at most `max`); `p` in 0..=100. Without
    /// samples 0.
    ///
    /// The rank is `⌊p/100 · count + ½⌋`, at least 1: the rule of `HdrHistogram`, so that whoever
    /// decodes [`Self::to_hdr`] elsewhere reads the percentiles that are printed here.
    pub fn percentile(&self, p: f64) -> u64 {
        let rank = ((p * self.count as f64 / 100.0 + 0.5) as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.buckets() {
            seen += count;
            if seen >= rank {
                return bucket_high(bucket).min(self.max).max(self.min);
            }
        }
        0
    }

    /// Samples of at most `micros` µs, to the precision of the buckets.
    pub fn count_at_or_below(&self, micros: u64) -> u64 {
        let last = bucket_of(micros);
        self.buckets().take_while(|(b, _)| *b <= last).map(|(_, n)| n).sum()
    }

    /// Buckets that hold samples, ascending, with their counts.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter()
    }

    /// The wire form: varints (LEB128) of count, then, unless it is 0, sum, min, max and pairs of
    /// (bucket − bucket before, count), buckets ascending and starting from 0.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.count);
        if self.count == 0 {
            return;
        }
        put_varint(out, self.sum);
        put_varint(out, self.min);
        put_varint(out, self.max);
        let mut before = 0;
        for (bucket, count) in self.buckets() {
            put_varint(out, (bucket - before) as u64);
            put_varint(out, count);
            before = bucket;
        }
    }

    /// [`Self::encode`] into a new buffer.
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Adds the samples of an encoded histogram after checking all of it: bytes from outside can
    /// neither overflow nor contradict themselves. On an error `self` is unchanged.
    pub fn merge_encoded(&mut self, mut bytes: &[u8]) -> Result<(), DecodeError> {
        let count = take_varint(&mut bytes)?;
        if count == 0 {
            return if bytes.is_empty() { Ok(()) } else { Err(DecodeError::Count) };
        }
        let sum = take_varint(&mut bytes)?;
        let min = take_varint(&mut bytes)?;
        let max = take_varint(&mut bytes)?;
        // two bytes a pair at least
        let mut pairs: Vec<(u16, u64)> = Vec::with_capacity((bytes.len() / 2).min(BUCKETS));
        let (mut seen, mut bucket, mut low, mut high) = (0_u64, 0_u64, 0_u64, 0_u64);
        while !bytes.is_empty() {
            let delta = take_varint(&mut bytes)?;
            let n = take_varint(&mut bytes)?;
            if !pairs.is_empty() && delta == 0 {
                return Err(DecodeError::Bucket);
            }
            bucket = bucket.checked_add(delta).filter(|b| *b < BUCKETS as u64).ok_or(DecodeError::Bucket)?;
            pairs.push((bucket as u16, n));
            seen = seen.checked_add(n).filter(|_| n > 0).ok_or(DecodeError::Count)?;
            low = low.saturating_add(bucket_low(bucket as usize).saturating_mul(n));
            high = high.saturating_add(bucket_high(bucket as usize).saturating_mul(n));
        }
        if seen != count || self.count.checked_add(count).is_none() {
            return Err(DecodeError::Count);
        }
        let first = u64::from(pairs.first().ok_or(DecodeError::Count)?.0);
        // values beyond the range sit in the last bucket, with a sum that may exceed its bounds
        let clamped = max > HIGHEST;
        let fits = bucket_of(min) as u64 == first
            && bucket_of(max) as u64 == bucket
            && min <= max
            && sum >= low
            && (clamped || sum <= high);
        if !fits {
            return Err(DecodeError::Bounds);
        }
        self.bounds(count, sum, min, max);
        self.counts.add_in_order(pairs);
        Ok(())
    }

    /// Base64 of the `HdrHistogram` V2 encoding with deflate, values in µs, three digits, as every
    /// `HdrHistogram` implementation reads it.
    pub fn to_hdr(&self) -> String {
        use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
        let mut histogram = hdrhistogram::Histogram::<u64>::new_with_bounds(1, HIGHEST, 3)
            .expect("the bounds are constants that the library accepts");
        for (bucket, count) in self.buckets() {
            histogram.record_n(bucket_low(bucket), count).expect("every bucket lies inside the bounds");
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut bytes).expect("serializing into memory cannot fail");
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    /// The inverse of [`Self::to_hdr`], for what others hand back: counts are exact, sum, min and
    /// max as good as the buckets.
    pub fn from_hdr(text: &str) -> Result<Self, DecodeError> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| DecodeError::Foreign)?;
        let histogram: hdrhistogram::Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|_| DecodeError::Foreign)?;
        let mut latency = Self::default();
        for value in histogram.iter_recorded() {
            latency.record_n(histogram.lowest_equivalent(value.value_iterated_to()), value.count_at_value());
        }
        Ok(latency)
    }
}

/// Appends a LEB128 varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 varint of at most 64 bits off the front.
pub fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    // most are short
    if let Some((first @ 0..=0x7f, rest)) = bytes.split_first() {
        *bytes = rest;
        return Ok(u64::from(*first));
    }
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        let part = u64::from(first & 0x7f);
        if shift == 63 && part > 1 {
            return Err(DecodeError::Truncated);
        }
        value |= part << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Latency {
        let mut latency = Latency::default();
        for v in values {
            latency.record(*v);
        }
        latency
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        // some are kept as pairs, some as pages
        prop::collection::vec(prop_oneof![0u64..5000, 0u64..10_000_000, 0u64..5_000_000_000], 0..200)
    }

    proptest! {
        #[test]
        fn buckets_are_hdr_buckets(v in 1u64..HIGHEST) {
            let histogram = hdrhistogram::Histogram::<u64>::new_with_bounds(1, HIGHEST, 3).unwrap();
            let bucket = bucket_of(v);
            prop_assert!(bucket < BUCKETS);
            prop_assert_eq!(bucket_low(bucket), histogram.lowest_equivalent(v));
            prop_assert_eq!(bucket_high(bucket), histogram.highest_equivalent(v));
        }

        #[test]
        fn merge_is_a_commutative_monoid(a in values(), b in values(), c in values()) {
            let mut ab = of(&a);
            ab.merge(&of(&b));
            let mut ba = of(&b);
            ba.merge(&of(&a));
            prop_assert_eq!(&ab, &ba);
            let mut ab_c = ab.clone();
            ab_c.merge(&of(&c));
            let mut bc = of(&b);
            bc.merge(&of(&c));
            let mut a_bc = of(&a);
            a_bc.merge(&bc);
            prop_assert_eq!(&ab_c, &a_bc);
            let all: Vec<u64> = a.iter().chain(&b).chain(&c).copied().collect();
            prop_assert_eq!(&ab_c, &of(&all));
            ab_c.merge(&Latency::default());
            prop_assert_eq!(&ab_c, &a_bc);
        }

        #[test]
        fn the_wire_form_round_trips(a in values(), b in values()) {
            let mut merged = of(&a);
            merged.merge_encoded(&of(&b).encoded()).unwrap();
            let mut expected = of(&a);
            expected.merge(&of(&b));
            prop_assert_eq!(merged, expected);
        }

        #[test]
        fn hostile_bytes_change_nothing_or_decode(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut latency = of(&[5]);
            if latency.merge_encoded(&bytes).is_err() {
                prop_assert_eq!(latency, of(&[5]));
            } else {
                prop_assert_eq!(latency.buckets().map(|(_, n)| n).sum::<u64>(), latency.count());
            }
        }

        #[test]
        fn percentiles_are_values_of_their_rank_to_three_digits(values in prop::collection::vec(0u64..10_000_000, 1..200), p in 0.0f64..100.0) {
            let latency = of(&values);
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((p * values.len() as f64 / 100.0 + 0.5) as usize).clamp(1, values.len());
            let exact = sorted[rank - 1];
            let got = latency.percentile(p);
            prop_assert!(got >= exact && got - exact <= exact / 1000 + 1, "{} {}", got, exact);
        }
    }

    #[test]
    fn the_foreign_form_is_readable_by_the_reference_library() {
        let latency = of(&[1, 2, 900, 1_000_000, 3_599_000_000]);
        let bytes = base64::engine::general_purpose::STANDARD.decode(latency.to_hdr()).unwrap();
        let read: hdrhistogram::Histogram<u64> =
            hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(read.len(), 5);
        assert_eq!(read.value_at_quantile(0.6), 900);
        let back = Latency::from_hdr(&latency.to_hdr()).unwrap();
        assert!(back.buckets().eq(latency.buckets()));
        assert_eq!(Latency::from_hdr("AAAA"), Err(DecodeError::Foreign));
    }

    /// The vectors of `cluster.proto`: workers in other languages are held to them.
    #[test]
    fn the_contract_s_test_vectors_hold() {
        assert_eq!([2_047, 2_048, 1_000_000, 3_600_000_000].map(bucket_of), [2_047, 2_048, 11_169, 23_220]);
        let bytes = [0x03, 0xc5, 0x8b, 0x3d, 0x01, 0xc0, 0x84, 0x3d, 0x01, 0x01, 0x83, 0x07, 0x01, 0x9d, 0x50, 0x01];
        assert_eq!(of(&[1, 900, 1_000_000]).encoded(), bytes);
    }
}
