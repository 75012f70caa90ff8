//! Hops that may travel by HTTP/2 or HTTP/3.

use super::answer::Answer;
use super::link::{Broken, Link};
use super::message::Message;
use super::origin::Origin;
use super::session::{Connection, Session, is_idle};
use super::streams::{Found, Lease, Streams};
use super::version::Way;
use super::{Http, Task, wire};
use crate::dial::{NO_PROTOCOL, Stamps};
use ld_shared::plan::Connections;
use ld_shared::sample::{Failure, FailureKind};
use std::borrow::Cow;
use std::rc::Rc;

/// Streams of a shared connection, unless `streams` says otherwise.
pub(super) const STREAMS: u64 = 100;

/// A request as a hop sends it: in the terms of HTTP/1.1, translated when that is needed.
pub(super) struct Sending<'a> {
    pub(super) bytes: &'a [u8],
    /// The task's own request, which is translated once if it never changes.
    pub(super) fixed: Option<&'a Task>,
    pub(super) closes: bool,
}

impl<'a> Sending<'a> {
    fn message(&self, origin: &Origin) -> Result<Cow<'a, Message>, Failure> {
        let Some(task) = self.fixed else { return Ok(Cow::Owned(Message::of(self.bytes, origin)?)) };
        if let Some(message) = task.message.get() {
            return Ok(Cow::Borrowed(message));
        }
        let message = Message::of(self.bytes, origin)?;
        Ok(Cow::Borrowed(task.message.get_or_init(|| message)))
    }
}

impl Http {
    /// Waits for the right to a stream of a shared connection.
    pub(super) async fn lease(&self, origin: &Rc<Origin>, way: Way) -> Option<Lease> {
        match self.streams() {
            Some(streams) => Some(streams.lease(origin, way).await),
            None => None,
        }
    }

    fn streams(&self) -> Option<&Rc<Streams>> {
        let make = || match self.scenario.connections {
            Connections::Shared(size) => {
                let most = self.scenario.options.get("streams").and_then(super::fields::streams).unwrap_or(STREAMS);
                Some(Streams::new(self.share(size), usize::try_from(most).unwrap_or(usize::MAX)))
            }
            Connections::PerUser | Connections::PerIteration | Connections::PerRequest => None,
        };
        self.streams.get_or_init(make).as_ref()
    }

    /// One request and its answer over a connection to `origin` that may carry others too.
    pub(super) async fn hop_many(
        &self,
        session: &mut Session,
        (origin, way): (&Rc<Origin>, Way),
        sending: &Sending<'_>,
        lease: Option<Lease>,
        answer: &mut Answer,
        stamps: &mut Stamps<'_>,
    ) -> Result<(), Failure> {
        if way == Way::H3 && !origin.is_https {
            return Err(Failure::new(FailureKind::Request, "HTTP/3 needs an https:// URL"));
        }
        let mut lease = lease;
        let mut is_again = false;
        loop {
            if lease.is_none() {
                lease = self.lease(origin, way).await;
            }
            let found = match &lease {
                Some(lease) => usable(lease.take()).await,
                None => self.kept(session, origin, way).await,
            };
            let found = match found {
                Some(found) => found,
                None => self.connect(origin, way, session, lease.as_ref(), stamps).await?,
            };
            let link = match found {
                Found::One(connection) => return self.one(session, lease, connection, sending, answer, stamps).await,
                Found::Many(link) => link,
            };
            let message = sending.message(origin)?;
            let outcome = link.exchange(&message, answer, stamps).await;
            match outcome {
                Ok(()) => return Ok(()),
                // once: a peer that closes each connection unused would keep us busy
                Err(Broken { is_unseen: true, .. }) if !is_again => {
                    is_again = true;
                    session.links.retain(|kept| !Rc::ptr_eq(kept, &link));
                    lease.take().iter().for_each(Lease::give_up);
                }
                Err(Broken { failure, .. }) => return Err(failure),
            }
        }
    }

    /// The user's own connection.
    async fn kept(&self, session: &mut Session, origin: &Rc<Origin>, way: Way) -> Option<Found> {
        session.links.retain(|link| link.is_open());
        if let Some(link) = session.links.iter().find(|link| link.leads(origin, way)) {
            return Some(Found::Many(Rc::clone(link)));
        }
        if way == Way::Chosen { session.take(origin).await.map(Found::One) } else { None }
    }

    /// Opens a connection. One that can carry many requests is kept at once: a time-out of the first
    /// must not close it.
    async fn connect(
        &self,
        origin: &Rc<Origin>,
        way: Way,
        session: &mut Session,
        lease: Option<&Lease>,
        stamps: &mut Stamps<'_>,
    ) -> Result<Found, Failure> {
        let link = match Box::pin(self.open_many(origin, way, stamps)).await? {
            Found::One(connection) => return Ok(Found::One(connection)),
            Found::Many(link) => link,
        };
        match lease {
            Some(lease) => lease.keep_many(Rc::clone(&link)),
            None if self.scenario.connections != Connections::PerRequest => session.keep(Rc::clone(&link)),
            None => {}
        }
        Ok(Found::Many(link))
    }

    async fn open_many(&self, origin: &Rc<Origin>, way: Way, stamps: &mut Stamps<'_>) -> Result<Found, Failure> {
        let limit = self.scenario.connect_timeout;
        if way == Way::H3 {
            let link = self.quic.open(&self.dialer, origin, &self.tls, limit, stamps).await?;
            return Ok(Found::Many(Rc::new(link)));
        }
        let config = if origin.is_https { Some(self.tls.config(origin.verify, way.alpn())?) } else { None };
        let foreign = || Failure::new(FailureKind::Protocol, "the target does not speak HTTP/2");
        let dialled = self.dialer.open(&origin.dialled, origin.port, config, limit, stamps).await;
        let stream = dialled.map_err(|failure| if &*failure.reason == NO_PROTOCOL { foreign() } else { failure })?;
        match (way, stream.alpn()) {
            (Way::H2, None) if !origin.is_https => {}
            (Way::H2 | Way::Chosen, Some(b"h2")) => {}
            (Way::H2, _) => return Err(foreign()),
            _ => return Ok(Found::One(Connection { stream, origin: Rc::clone(origin), is_reused: false })),
        }
        let changed = self.streams().map(|streams| streams.changed());
        Ok(Found::Many(Rc::new(Link::over(stream, origin, way, changed).await?)))
    }

    /// The target chose HTTP/1.1.
    async fn one(
        &self,
        session: &mut Session,
        lease: Option<Lease>,
        mut connection: Connection,
        sending: &Sending<'_>,
        answer: &mut Answer,
        stamps: &mut Stamps<'_>,
    ) -> Result<(), Failure> {
        let keeps = wire::round_trip(&mut connection, sending.bytes, answer, &self.core.scratch, stamps).await?;
        if keeps && !sending.closes && self.scenario.connections != Connections::PerRequest {
            connection.is_reused = true;
            match lease {
                Some(lease) => lease.keep_one(connection),
                None => session.give(connection),
            }
        }
        Ok(())
    }
}

/// What a lease found, if it can be used again.
async fn usable(found: Option<Found>) -> Option<Found> {
    match found? {
        Found::One(mut connection) => is_idle(&mut connection).await.then_some(Found::One(connection)),
        Found::Many(link) => Some(Found::Many(link)),
    }
}
