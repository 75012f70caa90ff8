//! Counts what passes over a stream, and looks at how the peer begins.

use crate::dial::Stream;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Type of the frame that an HTTP/2 peer begins with.
const SETTINGS: u8 = 4;

/// Bytes of one connection.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    read: Cell<u64>,
    written: Cell<u64>,
    /// What exchanges have counted as theirs.
    claimed: Cell<(u64, u64)>,
    /// Type of the first frame, once its byte has come.
    greeting: Cell<Option<u8>>,
}

impl Traffic {
    /// The peer has begun with something that is no HTTP/2.
    pub(super) fn is_foreign(&self) -> bool {
        self.greeting.get().is_some_and(|kind| kind != SETTINGS)
    }

    /// Bytes read and written that no exchange has counted yet. Over all exchanges of the connection
    /// the sums are exact; of several at a time, the one that ends counts what came for all.
    pub(super) fn claim(&self) -> (u64, u64) {
        let all = (self.read.get(), self.written.get());
        let before = self.claimed.replace(all);
        (all.0 - before.0, all.1 - before.1)
    }

    fn read(&self, bytes: &[u8]) {
        let before = self.read.get();
        if before < 4 && before as usize + bytes.len() >= 4 {
            self.greeting.set(bytes.get(3 - before as usize).copied());
        }
        self.read.set(before + bytes.len() as u64);
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) stream: Stream,
    pub(super) traffic: Rc<Traffic>,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.traffic.read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.traffic.written.set(self.traffic.written.get() + written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_tells_who_speaks() {
        for (pieces, is_foreign) in [
            (vec![&b"HTTP/1.1 400"[..]], true),
            (vec![b"\0\0\x06\x04\0"], false),
            (vec![b"HT", b"T", b"P"], true),
            (vec![b"\0", b"\0\0\x04"], false),
            (vec![b"HTT"], false),
        ] {
            let traffic = Traffic::default();
            for piece in &pieces {
                traffic.read(piece);
            }
            assert_eq!(traffic.is_foreign(), is_foreign, "{pieces:?}");
        }
    }

    #[test]
    fn bytes_are_claimed_once() {
        let traffic = Traffic::default();
        traffic.read(b"12345");
        assert_eq!((traffic.claim(), traffic.claim()), ((5, 0), (0, 0)));
    }
}
