//! What one user keeps: its connection, and what it needs to open the next one.

use super::link::Link;
use super::stamp::Numbers;
use super::task::Ways;
use std::rc::Rc;
use tokio::task::AbortHandle;

/// One user's connection.
#[derive(Default)]
pub struct Session {
    pub(super) connection: Option<Connection>,
    /// How it was opened: a connection that broke is opened again like this.
    pub(super) last: Option<Rc<Ways>>,
    /// The user's own client id, from its first connection on.
    pub(super) client_id: Option<Box<str>>,
    /// Made by the first message with a stamp.
    pub(super) numbers: Option<Box<Numbers>>,
}

/// An open connection, and the task that keeps it.
pub(super) struct Connection {
    pub(super) link: Rc<Link>,
    pub(super) ways: Rc<Ways>,
    pub(super) keeper: AbortHandle,
}

impl Session {
    /// The connection, if it is open.
    pub(super) fn open(&self) -> Option<&Connection> {
        self.connection.as_ref().filter(|connection| connection.link.is_open())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.keeper.abort();
        self.link.close(true);
    }
}
