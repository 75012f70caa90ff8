//! What one user keeps between requests, and the connections that users share.

use super::cookies::Jar;
use super::link::Link;
use super::origin::Origin;
use crate::dial::Stream;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Most connections that one user keeps; the oldest give way.
const MAX_KEPT: usize = 16;

/// One user's connections and cookies. Small while the user is idle.
#[derive(Default)]
pub struct Session {
    pub(super) kept: Vec<Connection>,
    /// Those of HTTP/2 and HTTP/3.
    pub(super) links: Vec<Rc<Link>>,
    pub(super) jar: Option<Box<Jar>>,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) origin: Rc<Origin>,
    /// It has carried a request before.
    pub(super) is_reused: bool,
}

/// Connections that all users of a scenario on this core share.
pub(super) struct Pool {
    size: usize,
    free: RefCell<Vec<Connection>>,
    permits: Semaphore,
}

impl Pool {
    pub(super) fn new(size: usize) -> Self {
        Self { size, free: RefCell::default(), permits: Semaphore::new(size) }
    }

    /// Waits for the right to use one connection, first come, first served.
    pub(super) async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the pool's semaphore is never closed")
    }

    /// A free connection to `origin`. If there is none and the caller would open one too many, an
    /// idle one to another origin is closed for it.
    pub(super) async fn take(&self, origin: &Rc<Origin>) -> Option<Connection> {
        loop {
            let found = take(&mut self.free.borrow_mut(), origin);
            let Some(mut connection) = found else { break };
            if is_idle(&mut connection).await {
                return Some(connection);
            }
        }
        let in_use = self.size - self.permits.available_permits();
        let mut free = self.free.borrow_mut();
        if in_use + free.len() > self.size {
            free.remove(0);
        }
        None
    }

    /// Closes connections that nobody uses now.
    pub(super) fn close_idle(&self) {
        self.free.borrow_mut().clear();
    }

    pub(super) fn give(&self, connection: Connection) {
        self.free.borrow_mut().push(connection);
    }
}

impl Session {
    /// The connection to `origin`, if there is one that can be used again.
    pub(super) async fn take(&mut self, origin: &Rc<Origin>) -> Option<Connection> {
        while let Some(mut connection) = take(&mut self.kept, origin) {
            if is_idle(&mut connection).await {
                return Some(connection);
            }
        }
        None
    }

    pub(super) fn give(&mut self, connection: Connection) {
        if self.kept.len() >= MAX_KEPT {
            self.kept.remove(0);
        }
        if self.kept.capacity() == 0 {
            // Nearly every user talks to one origin; growth by doubling would begin at four.
            self.kept.reserve_exact(1);
        }
        self.kept.push(connection);
    }

    pub(super) fn keep(&mut self, link: Rc<Link>) {
        if self.links.len() >= MAX_KEPT {
            self.links.remove(0);
        }
        if self.links.capacity() == 0 {
            self.links.reserve_exact(1);
        }
        self.links.push(link);
    }
}

/// The connection used last: the one that is least likely to be closed soon.
fn take(connections: &mut Vec<Connection>, origin: &Rc<Origin>) -> Option<Connection> {
    let at = connections.iter().rposition(|connection| Rc::ptr_eq(&connection.origin, origin))?;
    Some(connections.swap_remove(at))
}

/// Looks at what is known of the stream; waits for nothing.
pub(super) async fn is_idle(connection: &mut Connection) -> bool {
    poll_fn(|context| Poll::Ready(connection.stream.is_idle(context))).await
}
