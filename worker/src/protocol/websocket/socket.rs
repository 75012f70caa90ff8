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
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Most messages that wait for a `recv`, and most bytes of them; the oldest give way.
const UNREAD: (usize, usize) = (100, 1024 * 1024);

/// An open socket of one user.
pub(super) struct Socket {
    pub(super) name: Option<Rc<str>>,
    pub(super) url: Box<str>,
    inner: Rc<Inner>,
    reader: JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Inner {
    stream: RefCell<WebSocketStream<Counted>>,
    count: Rc<Count>,
    unread: RefCell<VecDeque<Bytes>>,
    unread_bytes: Cell<usize>,
    /// How it ended, if it did.
    end: RefCell<Option<Failure>>,
    /// A step reads.
    attended: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    messages: Messages,
    series: MessageSeries,
    /// When something came last, ns of this node's clock.
    last: Cell<u64>,
}

/// What came.
enum Incoming {
    Message(Bytes),
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
        (name, url): (Option<Rc<str>>, Box<str>),
        messages: Messages,
        series: MessageSeries,
    ) -> Self {
        let inner = Rc::new(Inner {
            stream: RefCell::new(stream),
            count,
            unread: RefCell::default(),
            unread_bytes: Cell::new(0),
            end: RefCell::default(),
            attended: Cell::new(false),
            reader: RefCell::default(),
            messages,
            series,
            last: Cell::new(mono().0),
        });
        let reader = tokio::task::spawn_local(read(Rc::clone(&inner)));
        Self { name, url, inner, reader }
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.inner.count.received.get()
    }

    /// How it ended, if it did.
    pub(super) fn end(&self) -> Option<Failure> {
        self.inner.end.borrow().clone()
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
        sent.map_err(|error| self.end().unwrap_or_else(|| failure::of(&error)))?;
        probe.written(self.inner.count.sent.get() - before);
        Ok(())
    }

    /// The oldest message that waits, else the next one.
    pub(super) async fn recv(&self, probe: &mut Probe) -> Result<Bytes, Failure> {
        if let Some(message) = self.inner.unread.borrow_mut().pop_front() {
            self.inner.unread_bytes.set(self.inner.unread_bytes.get() - message.len());
            probe.received();
            return Ok(message);
        }
        self.next(probe).await
    }

    /// The next message that comes.
    pub(super) async fn next(&self, probe: &mut Probe) -> Result<Bytes, Failure> {
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
                Err(end) if end.kind == FailureKind::Closed => return Ok(()),
                Err(end) => return Err(end),
            }
        }
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
            incoming => Ok(incoming),
        }
    }
}

impl Inner {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            let next = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_next(context));
            let incoming = match next {
                Some(Ok(Message::Text(text))) => Incoming::Message(text.into()),
                Some(Ok(Message::Binary(bytes))) => Incoming::Message(bytes),
                Some(Ok(Message::Pong(payload))) => Incoming::Pong(payload),
                // the library answers pings when it is asked for what comes next
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => Incoming::End(failure::close(frame.as_ref())),
                Some(Err(error)) => Incoming::End(failure::of(&error)),
                None => Incoming::End(Failure::new(FailureKind::Closed, "connection closed")),
            };
            return Poll::Ready(incoming);
        }
    }

    /// Keeps a message for a later `recv`.
    fn keep(&self, message: Bytes) {
        let mut unread = self.unread.borrow_mut();
        let mut bytes = self.unread_bytes.get() + message.len();
        unread.push_back(message);
        while unread.len() > UNREAD.0 || (bytes > UNREAD.1 && unread.len() > 1) {
            bytes -= unread.pop_front().map_or(0, |oldest| oldest.len());
        }
        self.unread_bytes.set(bytes);
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
                    inner.unawaited(message.len() as u64, None);
                    inner.keep(message);
                }
                Incoming::Pong(_) => {}
                Incoming::End(end) => {
                    inner.unawaited(0, Some(&end));
                    inner.end.replace(Some(end));
                }
            }
        }
    })
    .await;
}
