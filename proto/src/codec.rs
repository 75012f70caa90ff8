//! Protobuf with a bound on what a message may become in memory.
//!
//! An empty element of a list takes two bytes on the wire and some hundred in memory: sixteen
//! megabytes of them would be gigabytes. So elements are counted before anything is decoded.

use crate::v1;
use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// Most elements of lists in one message: more than the largest one that is meant has, and at a few
/// hundred bytes each no more than a machine can spare.
pub const MOST_ELEMENTS: usize = 600_000;
/// Most bytes of a worker's message on `Control`: a list of every digest of a plan is two thirds of it.
const MOST_CONTROL_BYTES: usize = 1024 * 1024;

/// A message whose size in memory is bounded before it is decoded.
pub trait Bounded: Message + Default + Send + 'static {
    /// Whether these bytes may be decoded.
    fn fits(bytes: &[u8]) -> bool;
}

impl Bounded for v1::FromWorker {
    fn fits(bytes: &[u8]) -> bool {
        bytes.len() <= MOST_CONTROL_BYTES
    }
}

impl Bounded for v1::ResultsFromWorker {
    fn fits(bytes: &[u8]) -> bool {
        let mut left = MOST_ELEMENTS;
        count(bytes, RESULTS, &mut left)
    }
}

/// A worker trusts its master.
impl Bounded for v1::FromMaster {
    fn fits(_bytes: &[u8]) -> bool {
        true
    }
}

impl Bounded for v1::ResultsFromMaster {
    fn fits(_bytes: &[u8]) -> bool {
        true
    }
}

/// Fields that are messages with lists in them.
struct Inner(u64, &'static [Self]);

/// `frame`: its `phases` and `odometers`; `record_batch`: its `records` and their `answer`s.
const RESULTS: &[Inner] = &[Inner(2, &[Inner(7, &[]), Inner(9, &[])]), Inner(3, &[Inner(4, &[Inner(11, &[])])])];

/// Takes the fields that have a length off `left`; `false`: there are too many, or these bytes are no
/// message.
fn count(mut bytes: &[u8], inner: &[Inner], left: &mut usize) -> bool {
    while !bytes.is_empty() {
        let Some(tag) = varint(&mut bytes) else { return false };
        let skipped = match tag & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Some(8),
            5 => Some(4),
            2 => {
                let Some(rest) = left.checked_sub(1) else { return false };
                *left = rest;
                varint(&mut bytes)
            }
            _ => None,
        };
        let skipped = skipped.and_then(|length| usize::try_from(length).ok());
        let Some((field, rest)) = skipped.and_then(|length| bytes.split_at_checked(length)) else { return false };
        bytes = rest;
        let found = (tag & 7 == 2).then(|| inner.iter().find(|Inner(number, _)| *number == tag >> 3)).flatten();
        if found.is_some_and(|Inner(_, inner)| !count(field, inner, left)) {
            return false;
        }
    }
    true
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// [`ProstCodec`] with that bound.
#[derive(Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Bounded> Codec for BoundedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes what fits.
#[derive(Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Bounded> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use prost::bytes::Buf as _;
        // no copy: a message lies in one piece
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        if !U::fits(&bytes) {
            return Err(Status::resource_exhausted("a message with too many parts"));
        }
        U::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::bytes::Bytes;

    fn results(message: v1::results_from_worker::Message) -> Vec<u8> {
        v1::ResultsFromWorker { message: Some(message) }.encode_to_vec()
    }

    #[test]
    fn lists_are_counted_where_they_are() {
        use v1::results_from_worker::Message as M;
        let phases =
            |series| vec![v1::Phase { series: vec![v1::Series::default(); series], ..v1::Phase::default() }; 3];
        let frame = |phases| results(M::Frame(v1::Frame { phases, ..v1::Frame::default() }));
        assert!(v1::ResultsFromWorker::fits(&frame(phases(1_000))));
        assert!(!v1::ResultsFromWorker::fits(&frame(phases(MOST_ELEMENTS / 3))));
        let odometers = Some(v1::Odometers { phases: vec![v1::PhaseOdometer::default(); MOST_ELEMENTS] });
        assert!(!v1::ResultsFromWorker::fits(&results(M::Frame(v1::Frame { odometers, ..v1::Frame::default() }))));
        let batch = |n| {
            let records = vec![v1::Record::default(); n];
            // bytes are one thing, however long
            let lines = Bytes::from(vec![0; 3_000_000]);
            results(M::RecordBatch(v1::RecordBatch { records, lines, ..v1::RecordBatch::default() }))
        };
        assert!(v1::ResultsFromWorker::fits(&batch(1_000)));
        assert!(!v1::ResultsFromWorker::fits(&batch(MOST_ELEMENTS)));
        let headers = vec![v1::Header::default(); MOST_ELEMENTS];
        let answer = Some(v1::Answer { headers, ..v1::Answer::default() });
        let records = vec![v1::Record { answer, ..v1::Record::default() }];
        let hidden = results(M::RecordBatch(v1::RecordBatch { records, ..v1::RecordBatch::default() }));
        assert!(!v1::ResultsFromWorker::fits(&hidden));
        assert!(!v1::ResultsFromWorker::fits(b"\x12\xff\xff\xff\xff\x0f"), "more is promised than is there");
    }
}
