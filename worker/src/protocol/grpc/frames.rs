//! Messages in a stream of bytes: a flag, four bytes of length, the message.

use super::status::{RESOURCE_EXHAUSTED, Trouble};
use bytes::{Buf, Bytes, BytesMut};
use ld_shared::sample::FailureKind;
use prost::Message;

/// Bytes before each message.
pub(super) const PREFIX: usize = 5;

/// Takes messages out of chunks. Holds at most one message.
pub(super) struct Frames {
    /// The beginning of a message whose end has not come.
    part: BytesMut,
    most: usize,
}

impl Frames {
    /// `most`: bytes of the largest message that is taken.
    pub(super) fn new(most: usize) -> Self {
        Self { part: BytesMut::new(), most }
    }

    /// Takes a chunk, and hands every message that is whole now to `take`.
    pub(super) fn feed(
        &mut self,
        mut chunk: Bytes,
        take: &mut impl FnMut(Bytes) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        if self.part.is_empty() {
            // most messages come in one chunk: no byte of them is copied
            while let Some(len) = self.length(&chunk)? {
                if chunk.len() - PREFIX < len {
                    break;
                }
                chunk.advance(PREFIX);
                take(chunk.split_to(len))?;
            }
        }
        self.part.extend_from_slice(&chunk);
        while let Some(len) = self.length(&self.part)? {
            if self.part.len() - PREFIX < len {
                break;
            }
            self.part.advance(PREFIX);
            take(self.part.split_to(len).freeze())?;
        }
        Ok(())
    }

    /// Whether the last message is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.part.is_empty()
    }

    /// Length of the message that begins here, as soon as it is known.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Trouble> {
        let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let [flag, length @ ..] = *prefix;
        match flag {
            0 => {}
            // no encoding was offered
            1 => return Err(Trouble::protocol("a compressed message, though no compression was offered")),
            _ => return Err(Trouble::protocol("a message with an unknown flag")),
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.most {
            let reason = "RESOURCE_EXHAUSTED: a message larger than `max_message`";
            return Err(Trouble::new(RESOURCE_EXHAUSTED, FailureKind::Status, reason));
        }
        Ok(Some(length))
    }
}

/// Appends a message with its prefix.
pub(super) fn push(message: &impl Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(PREFIX + length);
    out.extend_from_slice(&[0]);
    // longer ones than four bytes can say do not fit any memory limit of a peer
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.encode(out).expect("a growing buffer has room");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            size in 1_usize..30,
            rest in 0_usize..4,
        ) {
            let mut bytes: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
            bytes.extend(std::iter::repeat_n(0, rest));
            let (mut frames, mut seen) = (Frames::new(100), Vec::new());
            for chunk in bytes.chunks(size) {
                frames.feed(Bytes::copy_from_slice(chunk), &mut |message| {
                    seen.push(message.to_vec());
                    Ok(())
                }).unwrap();
            }
            prop_assert_eq!(seen, messages);
            prop_assert_eq!(frames.is_whole(), rest == 0);
        }
    }

    #[test]
    fn what_is_too_long_or_compressed_is_refused_at_its_prefix() {
        let status = |bytes: &[u8]| {
            let mut frames = Frames::new(10);
            frames.feed(Bytes::copy_from_slice(bytes), &mut |_| Ok(())).map_err(|trouble| trouble.status)
        };
        assert_eq!(status(&[0, 0, 0, 0, 11]), Err(8));
        assert_eq!(status(&[0, 255, 255, 255, 255]), Err(8));
        assert_eq!(status(&[1, 0, 0, 0, 1]), Err(13));
        assert_eq!(status(&[7, 0, 0, 0, 1]), Err(13));
        assert_eq!(status(&[0, 0, 0, 0, 10]), Ok(()));
    }
}
