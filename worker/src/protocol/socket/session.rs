//! What one user keeps between steps: streams and UDP sockets of steps with `keep`.

use super::place::Place;
use crate::dial::Stream;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UdpSocket;

/// Most connections that one user keeps; the oldest give way.
const MAX_KEPT: usize = 16;
/// Most reads, or datagrams, by which what is not wanted is thrown away before a step: a peer that
/// sends for ever must not hold the user up.
const MAX_DRAINED: usize = 64;

/// One user's kept connections. Empty for users that keep none.
#[derive(Debug, Default)]
pub struct Session {
    kept: Vec<Kept>,
}

/// A kept connection.
#[derive(Debug)]
struct Kept {
    place: Rc<Place>,
    open: Open,
}

#[derive(Debug)]
enum Open {
    Stream(Connection),
    Datagrams(UdpSocket),
}

/// An open stream, and what has been read ahead of it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// Bytes that no step has taken yet.
    pub(super) pending: Vec<u8>,
    /// It has carried a step before.
    pub(super) is_reused: bool,
}

impl Session {
    /// The kept stream to `place`, if the peer has not closed it. A step that reads goes on where
    /// the one before stopped; for one that does not (`reads` is false), what came since is thrown
    /// away.
    pub(super) async fn stream(
        &mut self,
        place: &Rc<Place>,
        reads: bool,
        scratch: &RefCell<Vec<u8>>,
    ) -> Option<Connection> {
        while let Some(open) = self.take(place) {
            if let Open::Stream(mut connection) = open
                && poll_fn(|context| Poll::Ready(connection.lives(context, reads, scratch))).await
            {
                return Some(connection);
            }
        }
        None
    }

    /// The kept UDP socket to `place`, without the datagrams that came too late for their steps.
    pub(super) fn datagrams(&mut self, place: &Rc<Place>, scratch: &RefCell<Vec<u8>>) -> Option<UdpSocket> {
        while let Some(open) = self.take(place) {
            if let Open::Datagrams(socket) = open {
                for _ in 0..MAX_DRAINED {
                    // an error is that of an older datagram, as late as an answer
                    match socket.try_recv(&mut scratch.borrow_mut()) {
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                        Ok(_) | Err(_) => {}
                    }
                }
                return Some(socket);
            }
        }
        None
    }

    pub(super) fn keep_stream(&mut self, place: &Rc<Place>, connection: Connection) {
        self.give(Kept { place: Rc::clone(place), open: Open::Stream(connection) });
    }

    pub(super) fn keep_datagrams(&mut self, place: &Rc<Place>, socket: UdpSocket) {
        self.give(Kept { place: Rc::clone(place), open: Open::Datagrams(socket) });
    }

    fn take(&mut self, place: &Place) -> Option<Open> {
        let at = self.kept.iter().position(|kept| *kept.place == *place)?;
        Some(self.kept.remove(at).open)
    }

    fn give(&mut self, kept: Kept) {
        if self.kept.len() >= MAX_KEPT {
            self.kept.remove(0);
        }
        if self.kept.capacity() == 0 {
            // nearly every user talks to one target; growth by doubling would begin at four
            self.kept.reserve_exact(1);
        }
        self.kept.push(kept);
    }
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new(), is_reused: false }
    }

    /// Looks at what is known of the stream, and waits for nothing. `false`: the peer closed it.
    fn lives(&mut self, context: &mut Context<'_>, reads: bool, scratch: &RefCell<Vec<u8>>) -> bool {
        if reads && !self.pending.is_empty() {
            return true;
        }
        self.pending = Vec::new();
        let mut scratch = scratch.borrow_mut();
        for _ in 0..MAX_DRAINED {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return true,
                Poll::Ready(Err(_)) => return false,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return false,
                Poll::Ready(Ok(())) if reads => {
                    self.pending = buffer.filled().to_vec();
                    return true;
                }
                Poll::Ready(Ok(())) => {}
            }
        }
        true
    }
}
