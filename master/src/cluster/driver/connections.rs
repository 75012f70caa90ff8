//! Connections, and which session each of them belongs to.

use super::ConnectionId;
use bytes::Bytes;
use ld_shared::id::{Digest, SessionId};
use ld_shared::message::{BLOB_CHUNK, ToWorker};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::DropGuard;

/// Messages that may wait for a worker when a chunk of a blob is sent after them, and how soon that is looked at.
const CHUNKS_AHEAD: usize = 4;
const CHUNK_APART: Duration = Duration::from_millis(2);

pub(super) struct Connection {
    /// What a worker may be behind before it counts as stuck: see [`ld_shared::message::LINK_QUEUE`].
    out: mpsc::Sender<ToWorker>,
    results: Option<mpsc::Sender<ToWorker>>,
    session: Option<(SessionId, Bytes)>,
    /// It is not the session's worker, which has died, but delivers what that one had measured.
    is_heir: bool,
    /// Dropped with it, it closes the connection.
    _open: Option<DropGuard>,
}

impl Connection {
    /// Whose it is; `None`: it has not said hello.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|(session, _)| *session)
    }

    pub(super) fn is_heir(&self) -> bool {
        self.is_heir
    }

    /// Sends the last message of a connection.
    pub(super) fn send_last(&self, message: ToWorker) {
        // full: it does not read, and sees the end of the connection instead
        drop(self.out.try_send(message));
    }
}

/// A worker reads nothing of what it is sent.
#[derive(Debug)]
pub(super) struct Stuck;

/// All connections. A session has one at most.
#[derive(Default)]
pub(super) struct Connections {
    all: BTreeMap<ConnectionId, Connection>,
    reached_by: BTreeMap<SessionId, ConnectionId>,
}

impl Connections {
    pub(super) fn open(&mut self, id: ConnectionId, out: mpsc::Sender<ToWorker>, open: Option<DropGuard>) {
        self.all.insert(id, Connection { out, results: None, session: None, is_heir: false, _open: open });
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.all.get(&id)
    }

    pub(super) fn of(&self, session: SessionId) -> Option<&Connection> {
        self.all.get(self.reached_by.get(&session)?)
    }

    /// Whether a session's own worker is there, not its heir.
    pub(super) fn has_worker(&self, session: SessionId) -> bool {
        self.of(session).is_some_and(|connection| !connection.is_heir)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Connection> {
        self.all.values()
    }

    /// A connection is that of a session, or of its heir, from now on; the one that the session had ends.
    pub(super) fn belongs(&mut self, id: ConnectionId, session: SessionId, secret: &Bytes, is_heir: bool) {
        self.hang_up(session);
        if let Some(connection) = self.all.get_mut(&id) {
            (connection.session, connection.is_heir) = (Some((session, secret.clone())), is_heir);
            self.reached_by.insert(session, id);
        }
    }

    /// A second stream joins a session's connection, if it proves the session: what acknowledges results goes there.
    pub(super) fn attach(
        &mut self,
        session: SessionId,
        secret: &Bytes,
        results: mpsc::Sender<ToWorker>,
    ) -> Option<ConnectionId> {
        let id = *self.reached_by.get(&session)?;
        let connection = self.all.get_mut(&id)?;
        connection.session.as_ref().filter(|(_, known)| known == secret)?;
        connection.results = Some(results);
        Some(id)
    }

    /// Lets go of a connection, which ends it.
    pub(super) fn end(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.all.remove(&id)?;
        if let Some(session) = connection.session()
            && self.reached_by.get(&session) == Some(&id)
        {
            self.reached_by.remove(&session);
        }
        Some(connection)
    }

    /// Ends the connection of a session, if it has one.
    pub(super) fn hang_up(&mut self, session: SessionId) {
        if let Some(id) = self.reached_by.get(&session).copied() {
            self.end(id);
        }
    }

    /// Sends a message to whom a session's connection leads, if it has one.
    pub(super) fn send(&self, session: SessionId, message: ToWorker) -> Result<(), Stuck> {
        let Some(connection) = self.of(session) else { return Ok(()) };
        let out = match (&message, &connection.results) {
            (ToWorker::FrameAck { .. } | ToWorker::RecordAck { .. }, Some(results)) => results,
            _ => &connection.out,
        };
        match out.try_send(message) {
            // if its connection has ended, that is on its way to us
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Stuck),
        }
    }

    /// Sends blobs as fast as the worker takes them, between other messages: few chunks wait at a time, so that no
    /// answer to a beat waits long, nor finds the queue full.
    pub(super) fn send_blobs(&self, session: SessionId, digests: Vec<Digest>, blobs: Arc<BTreeMap<Digest, Bytes>>) {
        let Some(connection) = self.of(session) else { return };
        let out = connection.out.clone();
        tokio::spawn(async move {
            for digest in digests {
                let Some(blob) = blobs.get(&digest) else { return };
                let total = blob.len() as u64;
                let mut offset = 0;
                loop {
                    let end = (offset + BLOB_CHUNK).min(blob.len());
                    let data = blob.slice(offset..end);
                    let chunk = ToWorker::Blob { digest: digest.clone(), total, offset: offset as u64, data };
                    while out.capacity() + CHUNKS_AHEAD < out.max_capacity() {
                        tokio::time::sleep(CHUNK_APART).await;
                    }
                    if out.send(chunk).await.is_err() {
                        return;
                    }
                    offset = end;
                    if offset == blob.len() {
                        break;
                    }
                }
            }
        });
    }
}
