//! A connection that carries many requests at a time: HTTP/2 or HTTP/3.

mod h2;
mod h3;
mod tap;

use super::answer::Answer;
use super::message::Message;
use super::origin::Origin;
use super::version::Way;
use crate::dial::{Stamps, Stream};
use ld_shared::sample::{Failure, FailureKind};
use std::cell::Cell;
use std::rc::Rc;

pub(super) use h3::Quic;

/// Called when the peer's limit of streams changes.
pub(super) type Changed = Box<dyn Fn()>;

/// An open connection.
pub(super) struct Link {
    pub(super) origin: Rc<Origin>,
    pub(super) way: Way,
    /// It has carried a request before.
    is_reused: Cell<bool>,
    kind: Kind,
}

enum Kind {
    H2(h2::Connection),
    H3(h3::Connection),
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) failure: Failure,
    /// The peer was about to close the connection and says that it has not looked at the request: it
    /// may be sent again elsewhere.
    pub(super) is_unseen: bool,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, is_unseen: false }
    }
}

impl Link {
    /// HTTP/2 over an open stream. Sends the preface; does not wait for the peer's.
    pub(super) async fn over(
        stream: Stream,
        origin: &Rc<Origin>,
        way: Way,
        changed: Option<Changed>,
    ) -> Result<Self, Failure> {
        Ok(Self::new(origin, way, Kind::H2(h2::Connection::open(stream, changed).await?)))
    }

    fn new(origin: &Rc<Origin>, way: Way, kind: Kind) -> Self {
        Self { origin: Rc::clone(origin), way, is_reused: Cell::new(false), kind }
    }

    pub(super) fn leads(&self, origin: &Rc<Origin>, way: Way) -> bool {
        self.way == way && Rc::ptr_eq(&self.origin, origin)
    }

    /// As far as is known, the peer takes another request.
    pub(super) fn is_open(&self) -> bool {
        match &self.kind {
            Kind::H2(connection) => connection.is_open(),
            Kind::H3(connection) => connection.is_open(),
        }
    }

    /// Most streams that the peer allows at a time, as far as is known.
    pub(super) fn most_streams(&self) -> usize {
        match &self.kind {
            Kind::H2(connection) => connection.most_streams(),
            // QUIC grants streams as others end; opening one waits for that
            Kind::H3(_) => usize::MAX,
        }
    }

    /// One request and its answer. Cancel safe: a dropped exchange resets its stream.
    pub(super) async fn exchange(
        &self,
        message: &Message,
        answer: &mut Answer,
        stamps: &mut Stamps<'_>,
    ) -> Result<(), Broken> {
        let is_reused = self.is_reused.replace(true);
        let outcome = match &self.kind {
            Kind::H2(connection) => connection.exchange(message, answer, stamps).await,
            Kind::H3(connection) => connection.exchange(message, answer, stamps).await,
        };
        outcome.map_err(|broken| {
            let Failure { kind, reason } = &broken.failure;
            // the peer may have closed it before it saw the request; one that said why did see it
            if is_reused && answer.status == 0 && *kind == FailureKind::Closed && !reason.ends_with(')') {
                let reason = format!("{reason} (reused connection)");
                return Broken { failure: Failure::new(FailureKind::Closed, reason), ..broken };
            }
            broken
        })
    }
}

/// The peer ended a stream.
fn reset(code: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Closed, format!("stream reset by peer ({code})"))
}

/// The peer ended the connection, saying so.
fn closed(code: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Closed, format!("connection closed by peer ({code})"))
}

/// The connection ended without a word.
fn cut(answer: &Answer) -> Failure {
    let when = if answer.status == 0 { "before the answer" } else { "in mid-answer" };
    Failure::new(FailureKind::Closed, format!("connection closed {when}"))
}
