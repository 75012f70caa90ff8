//! A channel: an HTTP/2 connection on which calls are streams.

use super::place::Place;
use super::status::Trouble;
use crate::dial::{self, Dialer, Stamps, Stream, TlsSettings};
use bytes::Bytes;
use http::Request;
use ld_shared::sample::{Failure, FailureKind};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// Bytes that a server may send of one call before we have looked at them, and of all calls of a channel.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);
/// Most bytes of an answer's headers.
const MOST_HEADERS: u32 = 64 * 1024;
/// Streams of many small messages come in frames as small; each that waits counts as 256 bytes here.
const SMALL_FRAMES: usize = 16 * 1024 * 1024;

/// Calls at once before a server has said how many it takes.
const FIRST_STREAMS: usize = 1;

/// Opens channels.
pub(super) struct Opener {
    pub(super) dialer: Dialer,
    pub(super) tls: TlsSettings,
    /// Seconds.
    pub(super) connect_timeout: f64,
}

/// An open channel; closed when the last user of it lets go.
pub(super) struct Channel {
    place: Rc<Place>,
    requests: h2::client::SendRequest<Bytes>,
    driver: Rc<Driver>,
    broken: Rc<RefCell<Option<Failure>>>,
    calls: Cell<usize>,
    _driving: AbortOnDropHandle<()>,
}

/// A call's place on a channel.
pub(super) struct Lease(Rc<Channel>);

/// Moves the bytes of a connection: a task of its own does, and whoever has just queued something.
struct Driver {
    /// `None`: it is over.
    connection: RefCell<Option<h2::client::Connection<Wire, Bytes>>>,
    /// The task's.
    waker: RefCell<Waker>,
    /// A call has ended, or the server takes more of them: another one may begin.
    room: Notify,
}

/// A stream that remembers why it broke: HTTP/2's own errors tell only that it did.
struct Wire {
    stream: Stream,
    broken: Rc<RefCell<Option<Failure>>>,
}

impl Opener {
    /// An open channel to `place`.
    pub(super) async fn open(&self, place: &Rc<Place>, stamps: &mut Stamps<'_>) -> Result<Rc<Channel>, Trouble> {
        let config = if place.target.is_tls {
            let config = self.tls.config(self.tls.verify(), &[b"h2"]);
            Some(config.map_err(|error| Trouble::transport(error.into()))?)
        } else {
            None
        };
        let (host, port) = (&place.target.host, place.target.port);
        let stream = self.dialer.open(host, port, config, self.connect_timeout, stamps).await;
        let stream = stream.map_err(Trouble::transport)?;
        let broken = Rc::new(RefCell::new(None));
        let wire = Wire { stream, broken: Rc::clone(&broken) };
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            // until the server has said how many it takes
            .initial_max_send_streams(FIRST_STREAMS)
            .initial_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(MOST_HEADERS)
            .data_frame_budget(SMALL_FRAMES)
            .handshake(wire)
            .await
            .map_err(|error| Trouble::http2(&error, broken.borrow().clone()))?;
        let connection = RefCell::new(Some(connection));
        let waker = RefCell::new(Waker::noop().clone());
        let driver = Rc::new(Driver { connection, waker, room: Notify::new() });
        let driving = tokio::task::spawn_local({
            let (driver, requests) = (Rc::clone(&driver), requests.clone());
            let mut is_settled = false;
            poll_fn(move |context| {
                driver.waker.borrow_mut().clone_from(context.waker());
                let over = driver.poll(context);
                if !is_settled && requests.current_max_send_streams() != FIRST_STREAMS {
                    is_settled = true;
                    driver.room.notify_one();
                }
                over
            })
        });
        Ok(Rc::new(Channel {
            place: Rc::clone(place),
            requests,
            driver,
            broken,
            calls: Cell::new(0),
            _driving: AbortOnDropHandle::new(driving),
        }))
    }
}

impl Channel {
    /// Whether it leads to `place` and can carry another call.
    pub(super) fn serves(&self, place: &Rc<Place>) -> bool {
        // a server that goes away lets open calls end, but takes no new ones
        let refuses = |error: Poll<Result<(), h2::Error>>| matches!(error, Poll::Ready(Err(_)));
        Rc::ptr_eq(&self.place, place)
            && !self.is_over()
            && !refuses(self.requests.clone().poll_ready(&mut Context::from_waker(Waker::noop())))
    }

    /// Waits until the server takes another call: it may limit how many are open at once.
    pub(super) async fn lease(self: &Rc<Self>) -> Lease {
        loop {
            let room = self.driver.room.notified();
            let most = self.requests.current_max_send_streams();
            if self.calls.get() < most || self.is_over() {
                let lease = self.lease_now();
                if self.calls.get() < most {
                    // the limit may have grown since the next one came to wait
                    self.driver.room.notify_one();
                }
                return lease;
            }
            room.await;
        }
    }

    /// A place at once: one call at a time never has to wait for another.
    pub(super) fn lease_now(self: &Rc<Self>) -> Lease {
        self.calls.set(self.calls.get() + 1);
        Lease(Rc::clone(self))
    }

    /// Begins a call and hands the whole of it to the socket, as far as the peer lets us.
    pub(super) fn send(&self, head: Request<()>, body: Bytes) -> Result<h2::client::ResponseFuture, Trouble> {
        // nothing of it has left: the peer has gone away before
        let unseen = |error: h2::Error| Trouble { is_unseen: true, ..self.trouble(&error) };
        let (response, mut stream) = self.requests.clone().send_request(head, false).map_err(unseen)?;
        stream.send_data(body, true).map_err(unseen)?;
        // woken by now, the task finds nothing left to do; so the bytes leave at once, and are stamped then
        let waker = self.driver.waker.borrow().clone();
        // its end shows in its streams
        let _is_over = self.driver.poll(&mut Context::from_waker(&waker)).is_ready();
        Ok(response)
    }

    /// An error of the connection or of a call.
    pub(super) fn trouble(&self, error: &h2::Error) -> Trouble {
        let broken = self.broken.borrow().clone();
        // While the connection is whole, only calls that a server has not looked at end with its going
        // away; when it breaks, those that it left unanswered do as well.
        let goes = error.is_go_away() && error.is_remote() && broken.is_none();
        let trouble = Trouble::http2(error, broken);
        let is_unseen = trouble.is_unseen || goes;
        Trouble { is_unseen, ..trouble }
    }

    fn is_over(&self) -> bool {
        self.driver.connection.borrow().is_none()
    }
}

impl std::ops::Deref for Lease {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.calls.set(self.0.calls.get() - 1);
        self.0.driver.room.notify_one();
    }
}

impl Driver {
    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut connection = self.connection.borrow_mut();
        let Some(live) = connection.as_mut() else { return Poll::Ready(()) };
        // how it ended shows in its streams
        if Pin::new(live).poll(context).is_pending() {
            return Poll::Pending;
        }
        *connection = None;
        Poll::Ready(())
    }
}

impl Wire {
    fn note(&self, error: &io::Error) {
        self.broken.borrow_mut().get_or_insert_with(|| dial::of_io(error, FailureKind::Closed));
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        match &outcome {
            Err(error) => self.note(error),
            Ok(()) if buffer.filled().len() == before => self.note(&io::ErrorKind::UnexpectedEof.into()),
            Ok(()) => {}
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        if let Err(error) = &outcome {
            self.note(error);
        }
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
