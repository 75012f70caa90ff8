//! HTTP/2 over an open stream.

use super::tap::{Tap, Traffic};
use super::{Broken, Changed, closed, cut, reset};
use crate::dial::{self, Stamps, Stream};
use crate::probe::Probe;
use crate::protocol::http::answer::{Answer, malformed};
use crate::protocol::http::message::Message;
use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, SendRequest};
use ld_shared::sample::{Failure, FailureKind};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::task::JoinHandle;

/// What the peer may send before we have read it: of one answer, and of all.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);
/// Most bytes of an answer's head.
const MAX_HEAD: u32 = 256 * 1024;
/// Streams that time-outs reset and whose last frames may still come.
const MAX_RESET: usize = 1_024;

/// An open connection; a task of its core moves its bytes.
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    traffic: Rc<Traffic>,
    state: Rc<State>,
    driver: JoinHandle<()>,
}

struct State {
    is_over: Cell<bool>,
    most_streams: Cell<usize>,
    changed: Option<Changed>,
}

impl Connection {
    pub(super) async fn open(stream: Stream, changed: Option<Changed>) -> Result<Self, Failure> {
        let traffic = Rc::<Traffic>::default();
        let tap = Tap { stream, traffic: Rc::clone(&traffic) };
        let (sender, mut connection) = Builder::new()
            .initial_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(MAX_HEAD)
            .max_concurrent_reset_streams(MAX_RESET)
            // until the peer has said how many it takes
            .initial_max_send_streams(1)
            .enable_push(false)
            .handshake(tap)
            .await
            .map_err(|error| failure(&error, &traffic, None).failure)?;
        let state = Rc::new(State { is_over: Cell::new(false), most_streams: Cell::new(1), changed });
        let shared = Rc::clone(&state);
        let mut probe = sender.clone();
        let driver = tokio::task::spawn_local(async move {
            let end = poll_fn(|context| {
                let end = Pin::new(&mut connection).poll(context);
                shared.allow(connection.max_concurrent_send_streams());
                // a peer that said goodbye may still answer what it has
                let mut nobody = Context::from_waker(Waker::noop());
                if matches!(probe.poll_ready(&mut nobody), Poll::Ready(Err(_))) {
                    shared.is_over.set(true);
                }
                end
            });
            // its exchanges are told of an error by themselves
            end.await.ok();
            shared.is_over.set(true);
        });
        Ok(Self { sender, traffic, state, driver })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.state.is_over.get()
    }

    pub(super) fn most_streams(&self) -> usize {
        self.state.most_streams.get()
    }

    pub(super) async fn exchange(
        &self,
        message: &Message,
        answer: &mut Answer,
        stamps: &mut Stamps<'_>,
    ) -> Result<(), Broken> {
        let outcome = self.run(message, answer, stamps).await;
        let (read, written) = self.traffic.claim();
        answer.received += read;
        stamps.on(|probe| probe.sent(written));
        outcome
    }

    async fn run(&self, message: &Message, answer: &mut Answer, stamps: &mut Stamps<'_>) -> Result<(), Broken> {
        let Message { head, body } = message;
        let broken = |error: &h2::Error, answer: &Answer| {
            // said here: the next request must not come before the connection's task has seen it
            if error.is_go_away() || error.is_io() {
                self.state.is_over.set(true);
            }
            failure(error, &self.traffic, Some(answer))
        };
        let mut sender = self.sender.clone();
        let (response, mut sending) =
            sender.send_request(head.clone(), body.is_empty()).map_err(|error| broken(&error, answer))?;
        if !body.is_empty() {
            // queued whole: the connection's task sends it as the peer grants room
            sending.send_data(body.clone(), true).map_err(|error| broken(&error, answer))?;
        }
        stamps.on(|probe| probe.written(0));
        let response = response.await;
        stamps.on(Probe::received);
        let (head, mut body) = response.map_err(|error| broken(&error, answer))?.into_parts();
        let length = answer.take_head(head.status.as_u16(), &head.headers)?;
        while let Some(data) = body.data().await {
            stamps.on(Probe::received);
            let data = data.map_err(|error| broken(&error, answer))?;
            // a stream that has ended meanwhile needs no room
            body.flow_control().release_capacity(data.len()).ok();
            answer.take_data(&data)?;
        }
        body.trailers().await.map_err(|error| broken(&error, answer))?;
        answer.take_end(length)?;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl State {
    fn allow(&self, streams: usize) {
        // A peer that allows none must not make us wait for ever: requests to it time out.
        let streams = streams.max(1);
        if self.most_streams.replace(streams) != streams
            && let Some(changed) = &self.changed
        {
            changed();
        }
    }
}

fn failure(error: &h2::Error, traffic: &Traffic, answer: Option<&Answer>) -> Broken {
    if traffic.is_foreign() {
        return Failure::new(FailureKind::Protocol, "the target does not speak HTTP/2").into();
    }
    if let Some(io) = error.get_io() {
        let is_end = matches!(io.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof);
        return match answer {
            Some(answer) if is_end => cut(answer),
            _ => dial::of_io(io, FailureKind::Closed),
        }
        .into();
    }
    let Some(reason) = error.reason() else {
        return Failure::new(FailureKind::Request, "a request that HTTP/2 cannot carry").into();
    };
    let reason = format!("{reason:?}");
    match (error.is_remote(), error.is_go_away()) {
        (true, true) => {
            // streams that the peer does answer go on: this one it has not looked at
            let is_unseen = error.reason() == Some(Reason::NO_ERROR);
            Broken { failure: closed(format!("GOAWAY {reason}")), is_unseen }
        }
        (true, false) => reset(reason).into(),
        (false, _) => malformed(&format!("HTTP/2 {reason}")).into(),
    }
}
