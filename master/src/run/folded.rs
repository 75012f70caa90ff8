//! A histogram that is added to for a while, and as small as its content ever after.

use super::attic::Stored;
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use ld_shared::latency::{BUCKETS, DecodeError, Latency, put_varint, take_varint};
use std::borrow::Cow;
use std::io::Read as _;

/// Wire forms from this length on are deflated: those of a busy second have thousands of buckets of few samples,
/// and an hour has thousands of seconds.
const LONG: usize = 512;
/// No wire form is longer: two varints a bucket.
const LONGEST: u64 = 20 * BUCKETS as u64;
/// First byte of what is packed: the wire form, or the [`transposed`] one, deflated.
const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;

/// Response times of a span: open while frames of it come in, then packed.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    open: Latency,
    /// Packed, or nothing.
    sealed: Stored,
}

fn pack(samples: &Latency) -> Vec<u8> {
    let wire = samples.encoded();
    let deflated = wire.len() >= LONG;
    let mut packed = vec![if deflated { DEFLATED } else { PLAIN }];
    if deflated {
        let columns = transposed(samples);
        DeflateEncoder::new(columns.as_slice(), Compression::fast()).read_to_end(&mut packed).expect("memory is read");
    } else {
        packed.extend(wire);
    }
    packed
}

/// The numbers of the wire form, of all pairs first the distances of buckets and then the counts: each kind is alike
/// within itself, and takes less than half of what pairs take deflated.
fn transposed(samples: &Latency) -> Vec<u8> {
    let mut columns = Vec::new();
    for number in [samples.count(), samples.sum(), samples.min(), samples.max()] {
        put_varint(&mut columns, number);
    }
    put_varint(&mut columns, samples.buckets().count() as u64);
    let mut before = 0;
    for (bucket, _) in samples.buckets() {
        put_varint(&mut columns, (bucket - before) as u64);
        before = bucket;
    }
    samples.buckets().for_each(|(_, count)| put_varint(&mut columns, count));
    columns
}

/// The wire form of what is [`transposed`].
fn in_pairs(mut columns: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut wire = Vec::with_capacity(columns.len());
    for _ in 0..4 {
        put_varint(&mut wire, take_varint(&mut columns)?);
    }
    let pairs = take_varint(&mut columns)?;
    let mut counts = columns;
    for _ in 0..pairs {
        take_varint(&mut counts)?;
    }
    for _ in 0..pairs {
        put_varint(&mut wire, take_varint(&mut columns)?);
        put_varint(&mut wire, take_varint(&mut counts)?);
    }
    if counts.is_empty() { Ok(wire) } else { Err(DecodeError::Count) }
}

fn unpack_into(samples: &mut Latency, packed: &[u8]) -> Result<(), DecodeError> {
    match packed.split_first() {
        None => Ok(()),
        Some((&PLAIN, wire)) => samples.merge_encoded(wire),
        Some((&DEFLATED, deflated)) => {
            let mut columns = Vec::new();
            let decoder = DeflateDecoder::new(deflated);
            decoder.take(LONGEST).read_to_end(&mut columns).map_err(|_| DecodeError::Truncated)?;
            samples.merge_encoded(&in_pairs(&columns)?)
        }
        Some(_) => Err(DecodeError::Foreign),
    }
}

/// What is sealed, and what is not, is a matter of the order in which frames came.
impl PartialEq for Folded {
    fn eq(&self, other: &Self) -> bool {
        self.whole() == other.whole()
    }
}

impl Folded {
    /// The inverse of [`Self::packed`]; of no bytes it is empty.
    pub fn from_packed(sealed: Vec<u8>) -> Result<Self, DecodeError> {
        // all of it is read once: what is wrong shows here
        unpack_into(&mut Latency::default(), &sealed)?;
        Ok(Self { open: Latency::default(), sealed: Stored::new(sealed) })
    }

    /// Adds samples.
    pub fn add(&mut self, samples: &Latency) {
        self.open.merge(samples);
    }

    /// Adds what another span holds.
    pub fn merge(&mut self, other: &Self) {
        self.open.merge(&other.open);
        if self.sealed.is_empty() {
            self.sealed.clone_from(&other.sealed);
        } else {
            unpack_into(&mut self.open, &other.sealed.bytes()).expect("these bytes were packed here");
        }
    }

    /// All samples.
    pub fn whole(&self) -> Latency {
        let mut all = self.open.clone();
        unpack_into(&mut all, &self.sealed.bytes()).expect("these bytes were packed here");
        all
    }

    /// All samples, packed to be stored.
    pub fn packed(&self) -> Cow<'_, [u8]> {
        if self.is_sealed() { self.sealed.bytes() } else { Cow::Owned(pack(&self.whole())) }
    }

    /// Whether it takes no more than its content.
    pub fn is_sealed(&self) -> bool {
        self.open.count() == 0
    }

    /// Nothing more is expected; what comes all the same counts too.
    pub fn seal(&mut self) {
        if !self.is_sealed() {
            self.sealed = Stored::new(pack(&self.whole()));
            self.open = Latency::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Latency {
        let mut samples = Latency::default();
        values.into_iter().for_each(|value| samples.record(value));
        samples
    }

    #[test]
    fn what_is_sealed_is_small_and_whole() {
        let (few, many) = (of(1..9), of((0..50_000).map(|n| 100 + n * n % 40_000)));
        let mut all = many.clone();
        all.merge(&few);
        let (mut one, mut other) = (Folded::default(), Folded::default());
        one.add(&many);
        one.seal();
        assert!(one.sealed.bytes().len() < many.encoded().len() / 2, "{} bytes", one.sealed.bytes().len());
        other.add(&few);
        other.seal();
        one.merge(&other);
        assert!(!one.is_sealed());
        assert_eq!(one.whole(), all);
        for folded in [&one, &other, &Folded::default()] {
            assert_eq!(Folded::from_packed(folded.packed().into_owned()).unwrap(), *folded);
        }
    }

    /// A second of a busy run, as an hour has 3,600 of: six bits a bucket, not sixteen.
    #[test]
    fn a_busy_second_takes_little() {
        let mut rng = ld_shared::rng::KeyedRng::new(1, 2, 3);
        // the sum of four dice is bell-shaped, as response times are by and large
        let samples = of((0..50_000).map(|_| (0..4).map(|_| 50 + rng.below(400)).sum()));
        let (buckets, mut folded) = (samples.buckets().count(), Folded::default());
        folded.add(&samples);
        folded.seal();
        let bytes = folded.sealed.bytes().len();
        assert!(bytes < buckets, "{bytes} bytes for {buckets} buckets");
        assert_eq!(folded.whole(), samples);
    }

    #[test]
    fn bytes_that_were_not_packed_here_are_refused() {
        let mut folded = Folded::default();
        folded.add(&of(0..3_000));
        let packed = folded.packed();
        for wrong in [&packed[..packed.len() / 2], &packed[1..], &[DEFLATED], &[9, 0]] {
            assert!(Folded::from_packed(wrong.to_vec()).is_err(), "{} bytes", wrong.len());
        }
        // a bomb: ten megabytes of zeros in a few kilobytes
        let mut bomb = vec![DEFLATED];
        DeflateEncoder::new(vec![0; 10_000_000].as_slice(), Compression::best()).read_to_end(&mut bomb).unwrap();
        assert!(Folded::from_packed(bomb).is_err());
    }
}
