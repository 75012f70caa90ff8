//! One request out, one answer in, over an open connection.

use super::answer::Answer;
use super::session::Connection;
use crate::dial::{self, Stamps};
use crate::probe::Probe;
use ld_shared::sample::{Failure, FailureKind};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Sends `request` and reads its answer. `Ok(true)`: the connection can carry another request.
pub(super) async fn round_trip(
    connection: &mut Connection,
    request: &[u8],
    answer: &mut Answer,
    scratch: &RefCell<Vec<u8>>,
    stamps: &mut Stamps<'_>,
) -> Result<bool, Failure> {
    let mut wire = Wire { connection, request, sent: 0, is_written: false, broken: None };
    poll_fn(|context| wire.poll(context, answer, scratch, stamps)).await
}

struct Wire<'a> {
    connection: &'a mut Connection,
    request: &'a [u8],
    sent: usize,
    is_written: bool,
    /// Writing failed. The peer may have answered and closed before it read everything: reading decides.
    broken: Option<Failure>,
}

impl Wire<'_> {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        answer: &mut Answer,
        scratch: &RefCell<Vec<u8>>,
        stamps: &mut Stamps<'_>,
    ) -> Poll<Result<bool, Failure>> {
        if !self.is_written {
            self.write(context, stamps);
        }
        // A peer may answer before it has read the whole request: both directions go on.
        loop {
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.connection.stream).poll_read(context, &mut buffer));
            let bytes = buffer.filled();
            stamps.on(Probe::received);
            match read {
                // TLS peers that close without saying so are as common as those that do.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(self.closed(answer)),
                Err(error) => {
                    let failure = self.broken.take().unwrap_or_else(|| dial::of_io(&error, FailureKind::Closed));
                    return Poll::Ready(Err(self.in_words(failure, answer)));
                }
                Ok(()) if bytes.is_empty() => return Poll::Ready(self.closed(answer)),
                Ok(()) if answer.feed(bytes)? => {
                    return Poll::Ready(Ok(answer.keeps_open && self.is_written && self.broken.is_none()));
                }
                Ok(()) => {}
            }
        }
    }

    fn write(&mut self, context: &mut Context<'_>, stamps: &mut Stamps<'_>) {
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
                stamps.on(|probe| probe.written(self.request.len() as u64));
            }
            Poll::Ready(Err(error)) => self.stop_writing(&error),
        }
    }

    fn stop_writing(&mut self, error: &io::Error) {
        self.broken = Some(dial::of_io(error, FailureKind::Closed));
        self.is_written = true;
    }

    fn closed(&self, answer: &mut Answer) -> Result<bool, Failure> {
        answer.end().map(|()| false).map_err(|failure| self.in_words(failure, answer))
    }

    /// Says so if the connection was reused: the peer may have closed it before it saw the request.
    fn in_words(&self, failure: Failure, answer: &Answer) -> Failure {
        if self.connection.is_reused && answer.received == 0 && failure.kind == FailureKind::Closed {
            return Failure::new(FailureKind::Closed, format!("{} (reused connection)", failure.reason));
        }
        failure
    }
}
