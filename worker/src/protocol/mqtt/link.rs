//! One connection to a broker.
//!
//! Two may read from it and write to it: the exchange that runs, and between exchanges the keeper, a
//! task of its own. Whoever does acknowledges deliveries, and what cannot be written at once waits in
//! [`State::unsent`]. A step thus costs one write, one read and one wake: nothing is handed over.

use super::inbox::Inbox;
use super::packet::{self, Accepted, Ack, AckKind, Incoming, Version};
use crate::dial::{self, Stream};
use crate::protocol::CoreContext;
use ld_shared::sample::{Failure, FailureKind};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// While so many bytes wait to be written, nothing more is read: what is read wants acknowledgements.
const PAUSES_READING: usize = 64 * 1024;
/// A broker that left so many bytes unread does not read.
const MAX_UNSENT: usize = 1024 * 1024;
/// Most acknowledgements that may still come after their steps timed out.
const MAX_ABANDONED: usize = 64;

/// An open connection.
pub(super) struct Link {
    core: Rc<CoreContext>,
    pub(super) version: Version,
    /// An exchange attends to the connection, so that the keeper need not.
    is_busy: Cell<bool>,
    keeper: RefCell<Option<Waker>>,
    user: RefCell<Option<Waker>>,
    state: RefCell<State>,
    pub(super) inbox: RefCell<Inbox>,
}

struct State {
    /// `None`: the connection is closed.
    stream: Option<Stream>,
    /// Why it is closed.
    dead: Option<Failure>,
    /// Starts in mid-packet, perhaps.
    unsent: Vec<u8>,
    /// The beginning of a packet.
    partial: Vec<u8>,
    last_id: u16,
    awaited: Awaited,
    /// Packet ids of steps that timed out.
    abandoned: Vec<u16>,
    /// Packet ids of deliveries of `QoS` 2 that the broker has not released yet.
    unreleased: Vec<u16>,
    /// Since the keeper's last tick.
    has_written: bool,
    /// A ping has no answer yet.
    is_pinging: bool,
}

/// What the exchange waits for.
enum Awaited {
    Nothing,
    ConnAck,
    Ack(AckKind, u16),
    Connected(Accepted),
    Acked(Ack),
}

/// An exchange attends to the link until this is dropped.
pub(super) struct Attending<'a>(&'a Link);

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        let link = self.0;
        link.is_busy.set(false);
        let mut state = link.state.borrow_mut();
        if let Awaited::Ack(_, id) = std::mem::replace(&mut state.awaited, Awaited::Nothing) {
            state.abandoned.push(id);
            if state.abandoned.len() > MAX_ABANDONED {
                state.fail(Failure::new(FailureKind::Timeout, "the broker acknowledges nothing"));
            }
        }
        drop(state);
        wake(&link.keeper);
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = &*waker.borrow() {
        waker.wake_by_ref();
    }
}

fn keep_waker(slot: &RefCell<Option<Waker>>, context: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    if !slot.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
        *slot = Some(context.waker().clone());
    }
}

impl Link {
    pub(super) fn new(core: Rc<CoreContext>, version: Version, stream: Stream, inbox: Inbox) -> Self {
        let state = State {
            stream: Some(stream),
            dead: None,
            unsent: Vec::new(),
            partial: Vec::new(),
            last_id: 0,
            awaited: Awaited::Nothing,
            abandoned: Vec::new(),
            unreleased: Vec::new(),
            has_written: true,
            is_pinging: false,
        };
        Self {
            core,
            version,
            is_busy: Cell::new(false),
            keeper: RefCell::default(),
            user: RefCell::default(),
            state: RefCell::new(state),
            inbox: RefCell::new(inbox),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.borrow().stream.is_some()
    }

    /// The exchange that begins attends to the link.
    pub(super) fn attend(&self) -> Attending<'_> {
        self.is_busy.set(true);
        Attending(self)
    }

    /// A packet id that is not in use; the exchange waits for this acknowledgement of it.
    pub(super) fn expect(&self, kind: AckKind) -> u16 {
        let mut state = self.state.borrow_mut();
        loop {
            state.last_id = state.last_id.wrapping_add(1);
            let id = state.last_id;
            if id != 0 && !state.abandoned.contains(&id) {
                state.awaited = Awaited::Ack(kind, id);
                return id;
            }
        }
    }

    /// The exchange waits for CONNACK.
    pub(super) fn expect_connack(&self) {
        self.state.borrow_mut().awaited = Awaited::ConnAck;
    }

    /// Writes packets. Once this has been polled they are sent, even if it is dropped.
    pub(super) async fn send(&self, packets: &[u8]) -> Result<(), Failure> {
        let mut is_taken = false;
        poll_fn(|context| {
            if !std::mem::replace(&mut is_taken, true) {
                self.take(context, packets)?;
            }
            while self.poll_flush(context)?.is_pending() {
                // a broker may not read on before we have read what it sends
                if self.poll_read(context, &mut || {})?.is_pending() {
                    keep_waker(&self.user, context);
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits for the acknowledgement; `on_read` is told of each read. Gives the bytes read, too.
    pub(super) async fn acknowledged(&self, on_read: &mut impl FnMut()) -> (u64, Result<Ack, Failure>) {
        let found = |state: &mut State| match &state.awaited {
            Awaited::Acked(ack) => Some(*ack),
            _ => None,
        };
        self.wait(on_read, found).await
    }

    /// Waits for CONNACK.
    pub(super) async fn connected(&self, on_read: &mut impl FnMut()) -> (u64, Result<Accepted, Failure>) {
        let found = |state: &mut State| match &mut state.awaited {
            Awaited::Connected(accepted) => Some(std::mem::take(accepted)),
            _ => None,
        };
        self.wait(on_read, found).await
    }

    /// Waits until `found` finds something, in the state or (a delivery) beyond it.
    async fn wait<T>(
        &self,
        on_read: &mut impl FnMut(),
        mut found: impl FnMut(&mut State) -> Option<T>,
    ) -> (u64, Result<T, Failure>) {
        let mut bytes = 0;
        let outcome = poll_fn(|context| {
            loop {
                // the borrow must end before the flush
                let done = found(&mut self.state.borrow_mut());
                if let Some(done) = done {
                    // what the last read asks for is sent now, or by the keeper
                    drop(self.poll_flush(context));
                    return Poll::Ready(Ok(done));
                }
                if let Poll::Ready(Err(failure)) = self.poll_flush(context) {
                    return Poll::Ready(Err(failure));
                }
                match self.poll_read(context, on_read) {
                    Poll::Ready(Ok(n)) => bytes += n as u64,
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => {
                        keep_waker(&self.user, context);
                        return Poll::Pending;
                    }
                }
            }
        })
        .await;
        (bytes, outcome)
    }

    /// Waits for something in the inbox.
    pub(super) async fn delivered<T>(
        &self,
        on_read: &mut impl FnMut(),
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> (u64, Result<T, Failure>) {
        self.wait(on_read, |_| take(&mut self.inbox.borrow_mut())).await
    }

    /// Reads until the broker closes the connection.
    pub(super) async fn drained(&self) {
        poll_fn(|context| {
            loop {
                match ready!(self.poll_read(context, &mut || {})) {
                    Ok(_) => {}
                    Err(_) => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    fn take(&self, context: &mut Context<'_>, packets: &[u8]) -> Result<(), Failure> {
        let mut state = self.state.borrow_mut();
        state.has_written = true;
        let mut rest = packets;
        if state.unsent.is_empty() {
            let stream = state.stream()?;
            match Pin::new(stream).poll_write(context, packets) {
                Poll::Ready(Ok(n)) => rest = &packets[n..],
                Poll::Ready(Err(error)) => return Err(state.broken(&error)),
                Poll::Pending => {}
            }
        } else if state.unsent.len() > MAX_UNSENT {
            return Err(state.fail(Failure::new(FailureKind::Timeout, "the broker does not read")));
        }
        state.unsent.extend_from_slice(rest);
        Ok(())
    }

    /// Writes what waits.
    fn poll_flush(&self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        while !state.unsent.is_empty() {
            let stream = state.stream.as_mut().ok_or_else(|| gone(state.dead.as_ref()))?;
            match ready!(Pin::new(stream).poll_write(context, &state.unsent)) {
                Ok(0) => return Poll::Ready(Err(state.broken(&io::ErrorKind::WriteZero.into()))),
                Ok(n) if n == state.unsent.len() => state.unsent = Vec::new(),
                Ok(n) => drop(state.unsent.drain(..n)),
                Err(error) => return Poll::Ready(Err(state.broken(&error))),
            }
        }
        let flushed = ready!(Pin::new(state.stream()?).poll_flush(context));
        Poll::Ready(flushed.map_err(|error| state.broken(&error)))
    }

    /// One read, and all that follows from it. An error closes the connection.
    fn poll_read(&self, context: &mut Context<'_>, on_read: &mut impl FnMut()) -> Poll<Result<usize, Failure>> {
        let mut state = self.state.borrow_mut();
        if state.unsent.len() > PAUSES_READING {
            return Poll::Pending;
        }
        let mut scratch = self.core.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = ready!(Pin::new(state.stream()?).poll_read(context, &mut buffer));
        on_read();
        let bytes = buffer.filled();
        let outcome = match read {
            Ok(()) if !bytes.is_empty() => self.feed(&mut state, bytes),
            Ok(()) => Err(Failure::new(FailureKind::Closed, "connection closed")),
            Err(error) => Err(dial::of_io(&error, FailureKind::Closed)),
        };
        Poll::Ready(match outcome {
            Ok(()) => Ok(bytes.len()),
            Err(failure) => Err(state.fail(failure)),
        })
    }

    fn feed(&self, state: &mut State, bytes: &[u8]) -> Result<(), Failure> {
        if state.partial.is_empty() {
            let read = self.packets(state, bytes)?;
            state.partial.extend_from_slice(&bytes[read..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut state.partial);
        all.extend_from_slice(bytes);
        let read = self.packets(state, &all)?;
        if read < all.len() {
            all.drain(..read);
            state.partial = all;
        }
        Ok(())
    }

    /// Handles the whole packets in `bytes`; gives their length.
    fn packets(&self, state: &mut State, bytes: &[u8]) -> Result<usize, Failure> {
        let mut read = 0;
        while let Some(frame) = packet::frame(&bytes[read..])? {
            let Some(packet) = bytes.get(read..read + frame.length) else { break };
            self.handle(state, packet::decode(self.version, packet, frame)?)?;
            read += frame.length;
        }
        Ok(read)
    }

    fn handle(&self, state: &mut State, incoming: Incoming) -> Result<(), Failure> {
        match incoming {
            Incoming::ConnAck(accepted) if matches!(state.awaited, Awaited::ConnAck) => {
                state.awaited = Awaited::Connected(accepted);
            }
            // nothing but CONNACK may come before CONNACK
            Incoming::ConnAck(_) => return Err(unexpected()),
            _ if matches!(state.awaited, Awaited::ConnAck) => return Err(unexpected()),
            Incoming::Ack(ack) => return state.acknowledged(ack),
            Incoming::PingResp => state.is_pinging = false,
            Incoming::Disconnect { code } => {
                let (kind, reason) = (FailureKind::Status, packet::reason(code));
                return Err(Failure::new(kind, format!("disconnected by the broker: {reason} (0x{code:02x})")));
            }
            Incoming::Publish(publish) => {
                match publish.qos {
                    0 => {}
                    1 => state.answer(AckKind::PubAck, publish.id),
                    _ => {
                        state.answer(AckKind::PubRec, publish.id);
                        if state.unreleased.contains(&publish.id) {
                            return Ok(());
                        }
                        state.unreleased.push(publish.id);
                    }
                }
                self.inbox.borrow_mut().put(publish);
            }
        }
        Ok(())
    }

    /// Attends to the connection while no exchange does. `every`: half the keep-alive, so that never
    /// more than all of it passes in silence.
    pub(super) async fn keep(self: Rc<Self>, every: Option<Duration>) {
        // a timer that nobody polls is never armed
        let mut timer = pin!(sleep(every.unwrap_or_default()));
        poll_fn(|context| self.poll_keep(context, timer.as_mut(), every)).await;
    }

    fn poll_keep(&self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>, every: Option<Duration>) -> Poll<()> {
        keep_waker(&self.keeper, context);
        if let Some(every) = every {
            while timer.as_mut().poll(context).is_ready() {
                timer.as_mut().reset(Instant::now() + every);
                self.state.borrow_mut().tick();
                if self.is_busy.get() {
                    wake(&self.user);
                }
            }
        }
        if self.is_busy.get() {
            return Poll::Pending;
        }
        loop {
            let flushed = self.poll_flush(context);
            let read = match flushed {
                Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
                Poll::Ready(Ok(())) | Poll::Pending => self.poll_read(context, &mut || {}),
            };
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(failure)) => {
                    self.inbox.borrow_mut().lost_connection(&failure);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Closes the connection. `says_so`: with DISCONNECT, without which the broker publishes the will.
    pub(super) fn close(&self, says_so: bool) {
        let mut state = self.state.borrow_mut();
        if let Some(mut stream) = state.stream.take() {
            let mut context = Context::from_waker(Waker::noop());
            if says_so && state.unsent.is_empty() {
                // what does not fit into the socket's buffer is not worth waiting for
                drop(Pin::new(&mut stream).poll_write(&mut context, &packet::DISCONNECT));
            }
            drop(Pin::new(&mut stream).poll_shutdown(&mut context));
        }
        drop(state);
        self.inbox.borrow_mut().close();
    }
}

impl State {
    fn stream(&mut self) -> Result<&mut Stream, Failure> {
        self.stream.as_mut().ok_or_else(|| gone(self.dead.as_ref()))
    }

    /// The connection is of no use any more.
    fn fail(&mut self, failure: Failure) -> Failure {
        self.stream = None;
        (self.unsent, self.partial) = (Vec::new(), Vec::new());
        self.dead.get_or_insert(failure).clone()
    }

    fn broken(&mut self, error: &io::Error) -> Failure {
        self.fail(dial::of_io(error, FailureKind::Closed))
    }

    fn answer(&mut self, kind: AckKind, id: u16) {
        self.unsent.extend_from_slice(&packet::acknowledge(kind, id));
        self.has_written = true;
    }

    fn acknowledged(&mut self, ack: Ack) -> Result<(), Failure> {
        if ack.kind == AckKind::PubRel {
            self.unreleased.retain(|id| *id != ack.id);
            self.answer(AckKind::PubComp, ack.id);
            return Ok(());
        }
        let is_received = ack.kind == AckKind::PubRec && ack.code < 0x80;
        match self.awaited {
            Awaited::Ack(kind, id) if (kind, id) == (ack.kind, ack.id) => {
                if is_received {
                    self.answer(AckKind::PubRel, id);
                    self.awaited = Awaited::Ack(AckKind::PubComp, id);
                } else {
                    self.awaited = Awaited::Acked(ack);
                }
                return Ok(());
            }
            _ => {}
        }
        let Some(at) = self.abandoned.iter().position(|id| *id == ack.id) else {
            return Err(Failure::new(FailureKind::Protocol, "acknowledgement of an unknown packet id"));
        };
        if is_received {
            self.answer(AckKind::PubRel, ack.id);
        } else {
            self.abandoned.swap_remove(at);
        }
        Ok(())
    }

    /// Half the keep-alive has passed.
    fn tick(&mut self) {
        if self.stream.is_none() {
            return;
        }
        if self.is_pinging {
            self.fail(Failure::new(FailureKind::Timeout, "no answer to the keep-alive"));
        } else if !self.has_written {
            self.unsent.extend_from_slice(&packet::PING);
            self.is_pinging = true;
        }
        self.has_written = false;
    }
}

fn gone(dead: Option<&Failure>) -> Failure {
    dead.cloned().unwrap_or_else(|| Failure::new(FailureKind::Closed, "connection closed"))
}

fn unexpected() -> Failure {
    Failure::new(FailureKind::Protocol, "unexpected mqtt packet")
}
