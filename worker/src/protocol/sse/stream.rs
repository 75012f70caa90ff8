//! One request and its stream of events, over an open connection.

use super::Task;
use super::events::{Event, Events};
use crate::dial::{self, Stream};
use crate::messages::{MessageSeries, Messages};
use crate::probe::Probe;
use crate::protocol::Want;
use crate::protocol::expect::Expected;
use crate::protocol::http::requests::Streamed;
use ld_shared::boot::clock::mono;
use ld_shared::reply::{Headers, Reply};
use ld_shared::sample::{Failure, FailureKind};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where events are recorded.
pub(super) struct Series<'a> {
    pub(super) messages: &'a Messages,
    /// Of the first event, and of those after it.
    pub(super) of: [MessageSeries; 2],
}

/// Listens to one stream.
pub(super) struct Listener<'a> {
    task: &'a Task,
    until: Option<Expected<'a>>,
    want: Want,
    series: Series<'a>,
    answer: Streamed,
    /// The head has been looked at.
    is_stream: bool,
    headers: Headers,
    events: Events,
    tally: Tally,
}

/// What of the stream counts.
struct Tally {
    /// Events that count.
    count: u64,
    /// When the one before came, or the request began; ns of this node's clock.
    mark: u64,
    has_any: bool,
    /// Data of the newest event that counts.
    data: Vec<u8>,
}

/// Why listening came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What was waited for has come, or the answer is one that has no events.
    Satisfied,
    /// The server ended the stream, or the connection.
    Closed,
}

impl<'a> Listener<'a> {
    pub(super) fn new(task: &'a Task, until: Option<Expected<'a>>, want: Want, series: Series<'a>) -> Self {
        Self {
            task,
            until,
            want,
            series,
            answer: Streamed::new(want.failed_body),
            is_stream: false,
            headers: Headers::default(),
            events: Events::default(),
            tally: Tally { count: 0, mark: mono().0, has_any: false, data: Vec::new() },
        }
    }

    /// Sends `request` and listens until the task has what it waits for, or cannot get it any more.
    pub(super) async fn listen(
        &mut self,
        mut stream: Stream,
        request: &[u8],
        scratch: &RefCell<Vec<u8>>,
        probe: &mut Probe,
    ) -> Result<(), Failure> {
        let (began, duration) = (self.tally.mark, self.task.duration);
        let mut wire = Wire { request, sent: 0, is_written: false, broken: None };
        let listening = poll_fn(|context| {
            wire.write(context, &mut stream, probe);
            self.poll(context, &mut stream, &mut wire, scratch, probe)
        });
        let Some(duration) = duration else {
            let end = listening.await?;
            return self.ended(end);
        };
        let over = Duration::try_from_secs_f64(duration).unwrap_or(Duration::MAX);
        let left = over.saturating_sub(Duration::from_nanos(mono().0.saturating_sub(began)));
        if let Ok(end) = tokio::time::timeout(left, listening).await {
            let end = end?;
            return self.ended(end);
        }
        // its end is this instant, not the last event's
        probe.received();
        self.over()
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut Stream,
        wire: &mut Wire<'_>,
        scratch: &RefCell<Vec<u8>>,
        probe: &mut Probe,
    ) -> Poll<Result<End, Failure>> {
        loop {
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
            let bytes = buffer.filled();
            probe.received();
            match read {
                // TLS peers that close without saying so are as common as those that do.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(self.closed()),
                Err(error) => {
                    let failure = wire.broken.take();
                    return Poll::Ready(Err(failure.unwrap_or_else(|| dial::of_io(&error, FailureKind::Closed))));
                }
                Ok(()) if bytes.is_empty() => return Poll::Ready(self.closed()),
                Ok(()) => {}
            }
            let is_complete = self.answer.feed(bytes)?;
            if self.look()?.is_break() {
                return Poll::Ready(Ok(End::Satisfied));
            }
            if is_complete {
                return Poll::Ready(Ok(if self.is_stream { End::Closed } else { End::Satisfied }));
            }
        }
    }

    fn closed(&mut self) -> Result<End, Failure> {
        self.answer.end()?;
        Ok(if self.is_stream { End::Closed } else { End::Satisfied })
    }

    /// Looks at what has come of the answer. Breaks when the task has what it waits for.
    fn look(&mut self) -> Result<ControlFlow<()>, Failure> {
        let status = self.answer.status();
        if status == 0 || status >= 400 {
            return Ok(ControlFlow::Continue(()));
        }
        if !self.is_stream {
            self.headers = self.answer.take_headers();
            let kind = self.headers.get("content-type").unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if status != 200 || !kind.eq_ignore_ascii_case("text/event-stream") {
                return Err(Failure::new(FailureKind::Protocol, "the answer is not an event stream"));
            }
            if self.answer.is_compressed() {
                return Err(Failure::new(FailureKind::Protocol, "the event stream is compressed"));
            }
            self.is_stream = true;
        }
        let Self { task, until, want, series, answer, events, tally, .. } = self;
        let flow = events.feed(answer.body(), |event| tally.see(event, task, until.as_ref(), *want, series));
        answer.body().clear();
        flow
    }

    /// What comes of the task, now that the stream is at its end.
    fn ended(&mut self, end: End) -> Result<(), Failure> {
        if end == End::Closed && self.waits() {
            return Err(Failure::new(FailureKind::Closed, "the stream ended before the event that was waited for"));
        }
        if !self.is_stream {
            self.headers = self.answer.take_headers();
        }
        Ok(())
    }

    /// What comes of the task, now that its duration is over.
    fn over(&self) -> Result<(), Failure> {
        let reason = if self.answer.status() == 0 {
            "no answer within the duration"
        } else if self.is_stream && self.waits() {
            "the event that was waited for did not come within the duration"
        } else if self.is_stream {
            return Ok(());
        } else {
            "the answer did not end within the duration"
        };
        Err(Failure::new(FailureKind::Timeout, reason))
    }

    fn waits(&self) -> bool {
        self.task.events.is_some() || self.until.is_some()
    }

    /// Bytes received on the wire.
    pub(super) fn received(&self) -> u64 {
        self.answer.received()
    }

    /// The id of the last event that had one.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.events.last_id()
    }

    /// The answer: its body is the data of the event that was waited for, or of the last one.
    pub(super) fn into_reply(mut self) -> Reply {
        let body = if self.is_stream { self.tally.data } else { std::mem::take(self.answer.body()) };
        Reply {
            status: Some(self.answer.status()),
            headers: if self.want.headers { self.headers } else { Headers::default() },
            body,
            body_bytes: self.answer.body_bytes(),
            refusal: None,
        }
    }
}

impl Tally {
    fn see(
        &mut self,
        event: Event<'_>,
        task: &Task,
        until: Option<&Expected<'_>>,
        want: Want,
        series: &Series<'_>,
    ) -> ControlFlow<()> {
        let now = mono().0;
        let time = now.saturating_sub(std::mem::replace(&mut self.mark, now));
        let of = series.of[usize::from(std::mem::replace(&mut self.has_any, true))];
        series.messages.record(of, time, event.data.len() as u64, None);
        if task.event.as_ref().is_some_and(|kind| kind.as_bytes() != event.kind) {
            return ControlFlow::Continue(());
        }
        self.count += 1;
        self.data.clear();
        self.data.extend_from_slice(&event.data[..event.data.len().min(want.body)]);
        let is_it = until.is_some_and(|until| until.holds(event.data));
        if is_it || task.events.is_some_and(|events| self.count >= events) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// A request that is being sent.
struct Wire<'a> {
    request: &'a [u8],
    sent: usize,
    is_written: bool,
    /// Writing failed. The peer may have answered and closed before it read everything: reading decides.
    broken: Option<Failure>,
}

impl Wire<'_> {
    fn write(&mut self, context: &mut Context<'_>, stream: &mut Stream, probe: &mut Probe) {
        if self.is_written || self.broken.is_some() {
            return;
        }
        while self.sent < self.request.len() {
            match Pin::new(&mut *stream).poll_write(context, &self.request[self.sent..]) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => return self.stop(&io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(error)) => return self.stop(&error),
            }
        }
        match Pin::new(stream).poll_flush(context) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                self.is_written = true;
                probe.written(self.request.len() as u64);
            }
            Poll::Ready(Err(error)) => self.stop(&error),
        }
    }

    fn stop(&mut self, error: &io::Error) {
        self.broken = Some(dial::of_io(error, FailureKind::Closed));
    }
}
