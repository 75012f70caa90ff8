//! Frames in a stream of bytes: how they are written, and where the next one ends.
//!
//! Pure: a [`Frame`] is fed the pieces of any reads.

use ld_shared::sample::{Failure, FailureKind};
use memchr::memmem;
use std::borrow::Cow;

/// Most bytes of a reply.
pub(super) const MAX_REPLY: u64 = 64 * 1024 * 1024;

/// What makes a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// It ends with these bytes.
    Delimiter(Box<[u8]>),
    /// Its length stands before it.
    Length {
        /// Bytes of the length: 1, 2, 4 or 8.
        size: usize,
        is_little: bool,
        /// The length counts itself too.
        includes_header: bool,
    },
    /// It has so many bytes.
    Fixed(u64),
}

impl Framing {
    /// What is sent for `payload`.
    pub(super) fn wrap<'a>(&self, payload: Cow<'a, [u8]>) -> Result<Cow<'a, [u8]>, &'static str> {
        match self {
            Self::Fixed(_) => Ok(payload),
            Self::Delimiter(end) if payload.ends_with(end) => Ok(payload),
            Self::Delimiter(end) => {
                let mut payload = payload.into_owned();
                payload.extend_from_slice(end);
                Ok(Cow::Owned(payload))
            }
            Self::Length { size, is_little, includes_header } => {
                let length = payload.len() as u64 + if *includes_header { *size as u64 } else { 0 };
                if *size < 8 && length >> (8 * *size) != 0 {
                    return Err("the payload does not fit its length prefix");
                }
                let mut framed = Vec::with_capacity(size + payload.len());
                if *is_little {
                    framed.extend_from_slice(&length.to_le_bytes()[..*size]);
                } else {
                    framed.extend_from_slice(&length.to_be_bytes()[8 - *size..]);
                }
                framed.extend_from_slice(&payload);
                Ok(Cow::Owned(framed))
            }
        }
    }
}

/// A frame that is being read.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    framing: &'a Framing,
    /// Most bytes of it that are kept.
    keep: usize,
    /// Its beginning, without delimiter or length.
    pub(super) body: Vec<u8>,
    length: u64,
    /// Bytes that may begin a delimiter, or the part of a length that came.
    carry: Vec<u8>,
    /// Bytes that are still to come, once that is known.
    left: Option<u64>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(framing: &'a Framing, keep: usize) -> Self {
        let left = match framing {
            Framing::Fixed(length) => Some(*length),
            Framing::Delimiter(_) | Framing::Length { .. } => None,
        };
        Self { framing, keep, body: Vec::new(), length: 0, carry: Vec::new(), left }
    }

    /// Takes the bytes of a read. `Some(n)`: the frame is complete, and took `n` of them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        match self.framing {
            Framing::Delimiter(end) => self.feed_delimited(end, bytes),
            Framing::Fixed(_) => Ok(self.feed_counted(bytes, 0)),
            Framing::Length { size, is_little, includes_header } => {
                let mut taken = 0;
                if self.left.is_none() {
                    taken = bytes.len().min(size - self.carry.len());
                    self.carry.extend_from_slice(&bytes[..taken]);
                    if self.carry.len() < *size {
                        return Ok(None);
                    }
                    let add = |length: u64, byte: &u8| length << 8 | u64::from(*byte);
                    let length =
                        if *is_little { self.carry.iter().rev().fold(0, add) } else { self.carry.iter().fold(0, add) };
                    let header = if *includes_header { *size as u64 } else { 0 };
                    let length = length
                        .checked_sub(header)
                        .ok_or_else(|| malformed("a frame shorter than its length prefix"))?;
                    if length > MAX_REPLY {
                        return Err(too_long());
                    }
                    self.left = Some(length);
                }
                Ok(self.feed_counted(&bytes[taken..], taken))
            }
        }
    }

    fn feed_counted(&mut self, bytes: &[u8], before: usize) -> Option<usize> {
        let left = self.left?;
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.keep(&bytes[..taken]);
        self.left = Some(left - taken as u64);
        (self.left == Some(0)).then_some(before + taken)
    }

    fn feed_delimited(&mut self, end: &[u8], bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let carried = std::mem::take(&mut self.carry);
        let window = if carried.is_empty() { Cow::Borrowed(bytes) } else { Cow::Owned([&carried, bytes].concat()) };
        if let Some(at) = memmem::find(&window, end) {
            self.keep(&window[..at]);
            return if self.length > MAX_REPLY { Err(too_long()) } else { Ok(Some(at + end.len() - carried.len())) };
        }
        let sure = (window.len() + 1).saturating_sub(end.len());
        self.keep(&window[..sure]);
        self.carry = window[sure..].to_vec();
        if self.length > MAX_REPLY { Err(too_long()) } else { Ok(None) }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let room = self.keep.saturating_sub(self.body.len()).min(bytes.len());
        self.body.extend_from_slice(&bytes[..room]);
    }
}

fn malformed(why: &str) -> Failure {
    Failure::new(FailureKind::Protocol, why)
}

fn too_long() -> Failure {
    malformed("a reply longer than 64 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::noise;
    use proptest::prelude::*;

    fn length(size: usize, is_little: bool, includes_header: bool) -> Framing {
        Framing::Length { size, is_little, includes_header }
    }

    fn framings() -> impl Strategy<Value = Framing> {
        prop_oneof![
            prop::sample::select(vec!["\n", "\r\n", "aab", "END"])
                .prop_map(|end| Framing::Delimiter(end.as_bytes().into())),
            (prop::sample::select(vec![2_usize, 4, 8]), any::<bool>(), any::<bool>())
                .prop_map(|(size, little, includes)| length(size, little, includes)),
        ]
    }

    /// Reads every frame of `bytes`, which come in pieces.
    fn read(framing: &Framing, bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let (frames, failure) = read_until_wrong(framing, bytes, cuts);
        assert_eq!(failure, None);
        frames
    }

    /// The same, up to the first that is wrong.
    fn read_until_wrong(framing: &Framing, bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Option<Failure>) {
        let mut frames = Vec::new();
        let mut frame = Frame::new(framing, usize::MAX);
        let mut from = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let mut piece = &bytes[from..cut];
            from = cut;
            while !piece.is_empty() {
                let taken = match frame.feed(piece) {
                    Ok(Some(taken)) => taken,
                    Ok(None) => break,
                    Err(failure) => return (frames, Some(failure)),
                };
                assert!(taken <= piece.len());
                frames.push(std::mem::replace(&mut frame, Frame::new(framing, usize::MAX)).body);
                piece = &piece[taken..];
            }
        }
        (frames, None)
    }

    #[test]
    fn spoiled_frames_are_the_same_in_any_pieces() {
        let right = noise::corpus(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/corpus/frames"),
            None,
        );
        let ends = ["\n", "\r\n", "aab", "END"].map(|end| Framing::Delimiter(end.as_bytes().into()));
        let lengths = [1, 2, 4, 8].into_iter().flat_map(|size| {
            [(false, false), (false, true), (true, false), (true, true)].map(|(little, all)| length(size, little, all))
        });
        for (seed, framing) in (10..).zip(ends.into_iter().chain(lengths).chain([Framing::Fixed(3)])) {
            let (mut frames, mut wrong) = (0, 0);
            noise::fuzz_in_pieces(seed, 2_000, &right, |bytes, cuts| {
                let seen = read_until_wrong(&framing, bytes, &[]);
                assert!(seen.0.iter().map(Vec::len).sum::<usize>() <= bytes.len());
                (frames, wrong) = (frames + seen.0.len(), wrong + usize::from(seen.1.is_some()));
                assert_eq!(read_until_wrong(&framing, bytes, cuts), seen, "{framing:?}: {bytes:?} at {cuts:?}");
            });
            assert!(frames > 0, "{framing:?}: no frame, {wrong} wrong ones");
        }
    }

    proptest! {
        #[test]
        fn what_is_wrapped_is_read_in_any_pieces(
            framing in framings(),
            payloads in prop::collection::vec(prop::collection::vec(prop::sample::select(b"xyzab\r".to_vec()), 1..30), 1..5),
            mut cuts in prop::collection::vec(0_usize..200, 0..9),
        ) {
            let holds = |p: &Vec<u8>| matches!(&framing, Framing::Delimiter(end) if memmem::find(&[p, &**end].concat(), end) < Some(p.len()));
            prop_assume!(!payloads.iter().any(holds));
            let wire: Vec<u8> =
                payloads.iter().flat_map(|p| framing.wrap(Cow::Borrowed(p)).unwrap().into_owned()).collect();
            cuts.retain(|cut| *cut < wire.len());
            cuts.sort_unstable();
            prop_assert_eq!(read(&framing, &wire, &cuts), payloads);
        }
    }

    #[test]
    fn lengths_are_written_and_checked() {
        let wrap = |framing: &Framing, payload: &[u8]| framing.wrap(Cow::Borrowed(payload)).map(Cow::into_owned);
        assert_eq!(wrap(&length(2, false, false), b"abc").unwrap(), b"\0\x03abc");
        assert_eq!(wrap(&length(4, true, true), b"abc").unwrap(), b"\x07\0\0\0abc");
        assert_eq!(wrap(&Framing::Delimiter((*b"\n").into()), b"a\n").unwrap(), b"a\n");
        assert!(wrap(&length(1, false, false), &[0; 256]).is_err());
        assert!(wrap(&length(8, false, true), &[0; 256]).is_ok());
        let feed =
            |framing: &Framing, bytes: &[u8]| Frame::new(framing, 0).feed(bytes).map_err(|f| f.reason.to_string());
        assert_eq!(feed(&length(4, false, false), &[0xff; 4]).unwrap_err(), "a reply longer than 64 MiB");
        assert_eq!(feed(&length(2, false, true), &[0, 1]).unwrap_err(), "a frame shorter than its length prefix");
        assert_eq!(feed(&length(1, false, false), &[0, 9]), Ok(Some(1)));
        assert_eq!(feed(&Framing::Fixed(2), &[0, 9, 9]), Ok(Some(2)));
    }
}
