//! One step over an open stream: bytes out, and what is expected in.

use super::framing::{Frame, Framing};
use super::session::Connection;
use crate::dial;
use crate::probe::Probe;
use ld_shared::sample::{Failure, FailureKind};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A reply that is being read.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// None is waited for.
    Nothing,
    /// So many bytes are left; at most `keep` are kept.
    Bytes {
        left: u64,
        keep: usize,
        body: Vec<u8>,
    },
    Frame(Frame<'a>),
}

impl<'a> Answer<'a> {
    pub(super) fn bytes(length: u64, keep: usize) -> Self {
        Self::Bytes { left: length, keep, body: Vec::new() }
    }

    pub(super) fn frame(framing: &'a Framing, keep: usize) -> Self {
        Self::Frame(Frame::new(framing, keep))
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Takes the bytes of a read. `Some(n)`: the reply is complete, and took `n` of them.
    fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        match self {
            Self::Nothing => Ok(None),
            Self::Frame(frame) => frame.feed(bytes),
            Self::Bytes { left, keep, body } => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let room = keep.saturating_sub(body.len()).min(taken);
                body.extend_from_slice(&bytes[..room]);
                *left -= taken as u64;
                Ok((*left == 0).then_some(taken))
            }
        }
    }

    /// What was kept of it.
    pub(super) fn into_body(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Bytes { body, .. } => body,
            Self::Frame(frame) => frame.body,
        }
    }
}

/// What a step found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Bytes that belong to the reply.
    pub(super) received: u64,
    /// The connection can carry another step.
    pub(super) is_open: bool,
}

/// Sends `request` and reads `answer`. `traffic` says what came, also of a step that fails.
pub(super) async fn round_trip(
    connection: &mut Connection,
    request: &[u8],
    answer: &mut Answer<'_>,
    traffic: &mut Traffic,
    scratch: &RefCell<Vec<u8>>,
    probe: &mut Probe,
) -> Result<(), Failure> {
    let mut wire = Wire { connection, request, sent: 0, is_written: false, is_closed: false, broken: None };
    let outcome = poll_fn(|context| wire.poll(context, answer, traffic, scratch, probe)).await;
    let Wire { is_closed, broken, .. } = wire;
    traffic.is_open = outcome.is_ok() && !is_closed && broken.is_none();
    let is_unanswered = traffic.received == 0;
    outcome.map_err(|failure| match failure.kind {
        // the peer may have closed it before it saw the request
        FailureKind::Closed if connection.is_reused && is_unanswered => {
            Failure::new(FailureKind::Closed, format!("{} (reused connection)", failure.reason))
        }
        _ => failure,
    })
}

struct Wire<'a> {
    connection: &'a mut Connection,
    request: &'a [u8],
    sent: usize,
    is_written: bool,
    /// The peer sends no more.
    is_closed: bool,
    /// Writing failed. The peer may have answered and closed before it read everything: reading decides.
    broken: Option<Failure>,
}

impl Wire<'_> {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        answer: &mut Answer<'_>,
        traffic: &mut Traffic,
        scratch: &RefCell<Vec<u8>>,
        probe: &mut Probe,
    ) -> Poll<Result<(), Failure>> {
        // Both directions go on: a peer that echoes what it reads stops reading when it cannot write.
        if !self.is_written {
            self.write(context, probe);
        }
        if self.is_written && answer.is_nothing() {
            return Poll::Ready(self.broken.take().map_or(Ok(()), Err));
        }
        let ahead = std::mem::take(&mut self.connection.pending);
        if !ahead.is_empty() {
            probe.received();
            if self.take(&ahead, answer, traffic)? {
                return Poll::Ready(Ok(()));
            }
        }
        while !self.is_closed {
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.connection.stream).poll_read(context, &mut buffer));
            let bytes = buffer.filled();
            if !answer.is_nothing() {
                probe.received();
            }
            match read {
                // TLS peers that close without saying so are as common as those that do.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.is_closed = true,
                Err(error) => {
                    return Poll::Ready(Err(self
                        .broken
                        .take()
                        .unwrap_or_else(|| dial::of_io(&error, FailureKind::Closed))));
                }
                Ok(()) if bytes.is_empty() => self.is_closed = true,
                Ok(()) if self.take(bytes, answer, traffic)? => return Poll::Ready(Ok(())),
                Ok(()) => {}
            }
        }
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Err(broken));
        }
        match answer {
            // the peer reads on
            Answer::Nothing => Poll::Pending,
            // as the seed: a peer that closes early has said all
            Answer::Bytes { .. } if traffic.received > 0 => Poll::Ready(Ok(())),
            Answer::Bytes { .. } | Answer::Frame(_) => {
                let when = if traffic.received == 0 { "before the answer" } else { "in mid-answer" };
                Poll::Ready(Err(Failure::new(FailureKind::Closed, format!("connection closed {when}"))))
            }
        }
    }

    /// Takes bytes into the answer; what lies behind it is for the next step.
    fn take(&mut self, bytes: &[u8], answer: &mut Answer<'_>, traffic: &mut Traffic) -> Result<bool, Failure> {
        if answer.is_nothing() {
            return Ok(false);
        }
        let taken = answer.feed(bytes)?;
        traffic.received += taken.unwrap_or(bytes.len()) as u64;
        if let Some(taken) = taken {
            self.connection.pending = bytes[taken..].to_vec();
        }
        Ok(taken.is_some())
    }

    fn write(&mut self, context: &mut Context<'_>, probe: &mut Probe) {
        let stream = &mut self.connection.stream;
        while self.sent < self.request.len() {
            match Pin::new(&mut *stream).poll_write(context, &self.request[self.sent..]) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => return self.stop_writing(&io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(error)) => return self.stop_writing(&error),
            }
        }
        match Pin::new(stream).poll_flush(context) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                self.is_written = true;
                probe.written(self.request.len() as u64);
            }
            Poll::Ready(Err(error)) => self.stop_writing(&error),
        }
    }

    fn stop_writing(&mut self, error: &io::Error) {
        self.broken = Some(dial::of_io(error, FailureKind::Closed));
        self.is_written = true;
    }
}
