//! An open WebSocket: the step that waits reads it; while none waits, a task of its own does.
//!
//! Only one of both reads at a time, so that an exchange costs one wake-up. The task answers pings,
//! keeps messages for later `recv` steps and records them, because nobody awaited them.

use super::counted::{Bytes as Count, Counted};
use super::failure;
use crate::messages::{MessageSeries, Messages};
use crate::probe::Probe;
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use ld_shared::boot::clock::mono;
use ld_shared::sample::{Failure, FailureKind};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Most messages that wait for a `recv`, and most bytes of them; the oldest give way.
const UNREAD: (usize, usize) = (100, 1024 * 1024);

/// How long the peer may take to close the connection after both have said that they close: who
/// closes first keeps the port for a while.
const LINGER: Duration = Duration::from_millis(500);

/// An open socket of one user.
pub(super) struct Socket {
    inner: Rc<Inner>,
    reader: JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
        let end = self.inner.end.borrow().clone();
        match end {
            // nobody has been told that it broke
            Some(end) if !self.inner.told.get() && !self.inner.ended_well.get() => {
                self.inner.unawaited(0, Some(&end));
            }
            Some(_) => {}
            None => self.inner.say_goodbye(),
        }
    }
}

struct Inner {
    stream: RefCell<WebSocketStream<Counted>>,
    count: Rc<Count>,
    /// A step may ask for messages later: they are kept.
    keeps: bool,
    unread: RefCell<VecDeque<Received>>,
    unread_bytes: Cell<usize>,
    /// How it ended, if it did.
    end: RefCell<Option<Failure>>,
    /// A step failed with that end.
    told: Cell<bool>,
    /// The peer closed it as one does who has no more to say.
    ended_well: Cell<bool>,
    /// A step reads.
    attended: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    messages: Messages,
    series: MessageSeries,
    /// When something came last, ns of this node's clock.
    last: Cell<u64>,
}

/// A message.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) is_text: bool,
}

/// What came.
enum Incoming {
    Message(Received),
    Pong(Bytes),
    End(Failure),
}

/// A step reads; when it ends or is dropped, the task takes over.
struct Attending<'a>(&'a Inner);

impl<'a> Attending<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.attended.set(true);
        Self(inner)
    }
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        self.0.attended.set(false);
        if let Some(reader) = &*self.0.reader.borrow() {
            reader.wake_by_ref();
        }
    }
}

impl Socket {
    pub(super) fn new(
        stream: WebSocketStream<Counted>,
        count: Rc<Count>,
        keeps: bool,
        (messages, series): (Messages, MessageSeries),
    ) -> Self {
        let inner = Rc::new(Inner {
            stream: RefCell::new(stream),
            count,
            keeps,
            unread: RefCell::default(),
            unread_bytes: Cell::new(0),
            end: RefCell::default(),
            told: Cell::new(false),
            ended_well: Cell::new(false),
            attended: Cell::new(false),
            reader: RefCell::default(),
            messages,
            series,
            last: Cell::new(mono().0),
        });
        let reader = tokio::task::spawn_local(read(Rc::clone(&inner)));
        Self { inner, reader }
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.inner.count.received.get()
    }

    /// How it ended, if it did and no message waits.
    pub(super) fn end(&self) -> Option<Failure> {
        self.inner.end.borrow().clone()
    }

    /// Whether a message waits.
    pub(super) fn has_unread(&self) -> bool {
        !self.inner.unread.borrow().is_empty()
    }

    /// A step fails with its end.
    pub(super) fn tell(&self) {
        self.inner.told.set(true);
    }

    /// Sends a frame.
    ///
    /// Cancel safe: what was not written yet is written with the next frame.
    pub(super) async fn send(&self, message: Message, probe: &mut Probe) -> Result<(), Failure> {
        if let Some(end) = self.end() {
            return Err(end);
        }
        let before = self.inner.count.sent.get();
        let mut message = Some(message);
        let sent = poll_fn(|context| {
            let mut stream = self.inner.stream.borrow_mut();
            if message.is_some() {
                ready!(Pin::new(&mut *stream).poll_ready(context))?;
                if let Some(message) = message.take() {
                    Pin::new(&mut *stream).start_send(message)?;
                }
            }
            Pin::new(&mut *stream).poll_flush(context)
        })
        .await;
        if let Err(error) = sent {
            return Err(self.inner.end_after(&error).await);
        }
        probe.written(self.inner.count.sent.get() - before);
        Ok(())
    }

    /// The oldest message that waits, else the next one.
    pub(super) async fn recv(&self, probe: &mut Probe) -> Result<Received, Failure> {
        if let Some(message) = self.inner.unread.borrow_mut().pop_front() {
            self.inner.unread_bytes.set(self.inner.unread_bytes.get() - message.bytes.len());
            probe.received();
            return Ok(message);
        }
        loop {
            match self.incoming(probe).await? {
                Incoming::Message(message) => return Ok(message),
                Incoming::Pong(_) | Incoming::End(_) => {}
            }
        }
    }

    /// Waits for the answer to a ping. Messages that come before it wait for a `recv`.
    pub(super) async fn pong(&self, wanted: &[u8], probe: &mut Probe) -> Result<(), Failure> {
        loop {
            match self.incoming(probe).await? {
                Incoming::Pong(payload) if payload == wanted => return Ok(()),
                Incoming::Message(message) => self.inner.keep(message),
                Incoming::Pong(_) | Incoming::End(_) => {}
            }
        }
    }

    /// Closes it: sends the close frame and waits for the peer's.
    pub(super) async fn close(self, frame: CloseFrame, probe: &mut Probe) -> Result<(), Failure> {
        if self.end().is_some() {
            return Ok(());
        }
        self.send(Message::Close(Some(frame)), probe).await?;
        loop {
            match self.incoming(probe).await {
                Ok(_) => {}
                Err(end) => {
                    self.tell();
                    if end.kind != FailureKind::Closed {
                        return Err(end);
                    }
                    break;
                }
            }
        }
        let gone = poll_fn(|context| self.inner.poll(context));
        // whether it is gone or not: the user is through with it
        tokio::time::timeout(LINGER, gone).await.ok();
        Ok(())
    }

    /// What comes next; its end is an error.
    async fn incoming(&self, probe: &mut Probe) -> Result<Incoming, Failure> {
        if let Some(end) = self.end() {
            return Err(end);
        }
        let attending = Attending::new(&self.inner);
        let incoming = poll_fn(|context| self.inner.poll(context)).await;
        drop(attending);
        probe.received();
        match incoming {
            Incoming::End(end) => {
                self.inner.end.replace(Some(end.clone()));
                Err(end)
            }
            incoming => {
                self.inner.last.set(mono().0);
                Ok(incoming)
            }
        }
    }
}

impl Inner {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            let next = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_next(context));
            let incoming = match next {
                Some(Ok(Message::Text(text))) => Incoming::Message(Received { bytes: text.into(), is_text: true }),
                Some(Ok(Message::Binary(bytes))) => Incoming::Message(Received { bytes, is_text: false }),
                Some(Ok(Message::Pong(payload))) => Incoming::Pong(payload),
                // the library answers pings when it is asked for what comes next
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.as_ref().map(|frame| frame.code);
                    self.ended_well.set(matches!(code, None | Some(CloseCode::Normal | CloseCode::Away)));
                    Incoming::End(failure::close(frame.as_ref()))
                }
                Some(Err(error)) => Incoming::End(failure::of(&error)),
                None => Incoming::End(Failure::new(FailureKind::Closed, "connection closed")),
            };
            return Poll::Ready(incoming);
        }
    }

    /// Keeps a message for a later `recv`.
    fn keep(&self, message: Received) {
        if !self.keeps {
            return;
        }
        let mut unread = self.unread.borrow_mut();
        let mut bytes = self.unread_bytes.get() + message.bytes.len();
        unread.push_back(message);
        while unread.len() > UNREAD.0 || (bytes > UNREAD.1 && unread.len() > 1) {
            bytes -= unread.pop_front().map_or(0, |oldest| oldest.bytes.len());
        }
        self.unread_bytes.set(bytes);
    }

    /// Why a frame could not be sent: what the peer said last, if it said something.
    async fn end_after(&self, error: &Error) -> Failure {
        let read = poll_fn(|context| {
            loop {
                match self.poll(context) {
                    Poll::Ready(Incoming::End(end)) => return Poll::Ready(Some(end)),
                    Poll::Ready(Incoming::Message(message)) => self.keep(message),
                    Poll::Ready(Incoming::Pong(_)) => {}
                    Poll::Pending => return Poll::Ready(None),
                }
            }
        });
        let known = self.end.borrow().clone();
        let end = match known {
            Some(end) => end,
            None => read.await.unwrap_or_else(|| failure::of(error)),
        };
        self.end.replace(Some(end.clone()));
        end
    }

    /// Tells the peer that nobody reads any more, if that can be written at once.
    fn say_goodbye(&self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let mut stream = self.stream.borrow_mut();
        if Pin::new(&mut *stream).start_send(Message::Close(Some(frame))).is_ok() {
            // what cannot be written now is not worth waiting for
            drop(Pin::new(&mut *stream).poll_flush(&mut Context::from_waker(Waker::noop())));
        }
    }

    /// Something came that no step awaited.
    fn unawaited(&self, bytes: u64, failure: Option<&Failure>) {
        let now = mono().0;
        self.messages.record(self.series, now.saturating_sub(self.last.replace(now)), bytes, failure);
    }
}

/// Reads for as long as no step does.
async fn read(inner: Rc<Inner>) {
    poll_fn(|context| {
        let is_known = inner.reader.borrow().as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if !is_known {
            inner.reader.replace(Some(context.waker().clone()));
        }
        loop {
            if inner.attended.get() {
                return Poll::Pending;
            }
            if inner.end.borrow().is_some() {
                return Poll::Ready(());
            }
            match ready!(inner.poll(context)) {
                Incoming::Message(message) => {
                    inner.unawaited(message.bytes.len() as u64, None);
                    inner.keep(message);
                }
                Incoming::Pong(_) => {}
                Incoming::End(end) => drop(inner.end.replace(Some(end))),
            }
        }
    })
    .await;
}
