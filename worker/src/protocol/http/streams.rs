//! Connections that users share and that may carry many streams each.

use super::link::{Changed, Link};
use super::origin::Origin;
use super::session::Connection;
use super::version::Way;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use tokio::sync::oneshot;

/// This core's part of the shared connections. Who finds no free stream waits, first come, first
/// served.
pub(super) struct Streams {
    size: usize,
    /// Most streams of a connection.
    most: usize,
    slots: RefCell<Vec<Rc<Slot>>>,
    queue: RefCell<VecDeque<Waiting>>,
    me: Weak<Self>,
}

struct Waiting {
    origin: Rc<Origin>,
    way: Way,
    hand: oneshot::Sender<Lease>,
}

/// Room for one connection.
struct Slot {
    origin: Rc<Origin>,
    way: Way,
    users: Cell<usize>,
    held: RefCell<Held>,
}

/// What a slot holds.
enum Held {
    /// Nothing: its one user opens the connection, or is using one that carries one request.
    Nothing,
    /// A connection that carries one request at a time.
    One(Connection),
    Many(Rc<Link>),
}

/// What a lease found in its slot.
pub(super) enum Found {
    One(Connection),
    Many(Rc<Link>),
}

/// The right to one stream.
pub(super) struct Lease {
    streams: Rc<Streams>,
    slot: Rc<Slot>,
}

impl Streams {
    pub(super) fn new(size: usize, most: usize) -> Rc<Self> {
        Rc::new_cyclic(|me| Self { size, most, slots: RefCell::default(), queue: RefCell::default(), me: me.clone() })
    }

    /// Waits for a stream to `origin`. Cancel safe.
    pub(super) async fn lease(&self, origin: &Rc<Origin>, way: Way) -> Lease {
        if self.queue.borrow().is_empty()
            && let Some(lease) = self.free(origin, way)
        {
            return lease;
        }
        let (hand, waiting) = oneshot::channel();
        self.queue.borrow_mut().push_back(Waiting { origin: Rc::clone(origin), way, hand });
        waiting.await.expect("the queue belongs to the pool, which the waiting user keeps alive")
    }

    /// Called when a connection's limit of streams changes.
    pub(super) fn changed(&self) -> Changed {
        let me = self.me.clone();
        Box::new(move || {
            if let Some(streams) = me.upgrade() {
                streams.serve();
            }
        })
    }

    /// An idle connection, a new one if there is room for it, the least busy one, or the room of one
    /// that is idle and leads elsewhere.
    fn free(&self, origin: &Rc<Origin>, way: Way) -> Option<Lease> {
        let mut slots = self.slots.borrow_mut();
        slots.retain(|slot| !slot.is_over());
        let is_it = |slot: &&Rc<Slot>| slot.way == way && Rc::ptr_eq(&slot.origin, origin);
        let best = slots.iter().filter(is_it).filter(|slot| slot.users.get() < slot.room(self.most));
        let best = best.min_by_key(|slot| slot.users.get()).cloned();
        if let Some(slot) = best.filter(|slot| slot.users.get() == 0 || slots.len() >= self.size) {
            return Some(self.lend(slot));
        }
        if slots.len() >= self.size {
            let idle = slots.iter().position(|slot| slot.users.get() == 0)?;
            slots.remove(idle);
        }
        let slot =
            Rc::new(Slot { origin: Rc::clone(origin), way, users: Cell::new(0), held: RefCell::new(Held::Nothing) });
        slots.push(Rc::clone(&slot));
        Some(self.lend(slot))
    }

    fn lend(&self, slot: Rc<Slot>) -> Lease {
        slot.users.set(slot.users.get() + 1);
        Lease { streams: self.me.upgrade().expect("a pool that is called exists"), slot }
    }

    /// Hands free streams to those who wait.
    fn serve(&self) {
        loop {
            let mut queue = self.queue.borrow_mut();
            let Some(first) = queue.front() else { return };
            if first.hand.is_closed() {
                queue.pop_front();
                continue;
            }
            let Some(lease) = self.free(&first.origin, first.way) else { return };
            let first = queue.pop_front().expect("the queue has a front");
            // a lease that comes back serves the queue when it is dropped
            drop(queue);
            first.hand.send(lease).ok();
        }
    }
}

impl Slot {
    /// How many users it takes at a time.
    fn room(&self, most: usize) -> usize {
        match &*self.held.borrow() {
            Held::Nothing | Held::One(_) => 1,
            Held::Many(link) => most.min(link.most_streams()),
        }
    }

    fn is_over(&self) -> bool {
        matches!(&*self.held.borrow(), Held::Many(link) if !link.is_open())
    }
}

impl Lease {
    /// The connection, if there is one already.
    pub(super) fn take(&self) -> Option<Found> {
        let mut held = self.slot.held.borrow_mut();
        match &*held {
            Held::Nothing => None,
            Held::Many(link) => Some(Found::Many(Rc::clone(link))),
            Held::One(_) => match std::mem::replace(&mut *held, Held::Nothing) {
                Held::One(connection) => Some(Found::One(connection)),
                Held::Nothing | Held::Many(_) => None,
            },
        }
    }

    /// Keeps a connection that carries one request at a time for the next user.
    pub(super) fn keep_one(&self, connection: Connection) {
        self.slot.held.replace(Held::One(connection));
    }

    /// Opens the slot's new connection to others.
    pub(super) fn keep_many(&self, link: Rc<Link>) {
        self.slot.held.replace(Held::Many(link));
        self.streams.serve();
    }

    /// The connection takes no more requests.
    pub(super) fn give_up(&self) {
        let mut slots = self.streams.slots.borrow_mut();
        slots.retain(|slot| !Rc::ptr_eq(slot, &self.slot));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slot.users.set(self.slot.users.get() - 1);
        if self.slot.users.get() == 0 && matches!(&*self.slot.held.borrow(), Held::Nothing) {
            self.give_up();
        }
        self.streams.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin::Origins;
    use super::super::url::Url;
    use super::*;
    use futures_util::FutureExt;

    fn origin(origins: &Origins, url: &str) -> Rc<Origin> {
        origins.get(&Url::parse(url).unwrap(), true)
    }

    #[test]
    fn who_finds_no_stream_waits_in_turn() {
        let origins = Origins::default();
        let a = origin(&origins, "https://a");
        let streams = Streams::new(1, 100);
        let first = streams.lease(&a, Way::H2).now_or_never().unwrap();
        let mut second = Box::pin(streams.lease(&a, Way::H2));
        let mut third = Box::pin(streams.lease(&a, Way::H2));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        let third = third.now_or_never().unwrap();
        assert!(third.take().is_none(), "it opens the connection anew");
        assert!(streams.lease(&a, Way::H2).now_or_never().is_none());
    }

    #[test]
    fn room_is_for_one_origin_at_a_time() {
        let origins = Origins::default();
        let [a, b] = ["https://a", "https://b"].map(|url| origin(&origins, url));
        let streams = Streams::new(2, 100);
        let first = streams.lease(&a, Way::H2).now_or_never().unwrap();
        let second = streams.lease(&b, Way::H2).now_or_never().unwrap();
        let mut third = Box::pin(streams.lease(&b, Way::H2));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        let third = third.now_or_never().unwrap();
        assert!(!Rc::ptr_eq(&second.slot, &third.slot));
        assert_eq!(streams.slots.borrow().len(), 2);
    }
}
