//! Where calls go. Equal places are the same object, so that comparing is cheap and what is known of
//! one is found at once.

use super::channel::{Channel, Lease};
use super::descriptors::Descriptors;
use super::status::Trouble;
use crate::protocol::target::{Scheme, Target};
use futures_util::future::Shared;
use http::uri::Authority;
use ld_shared::sample::Failure;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Where calls go if nothing says it: the seed's.
pub(super) const DEFAULT: &str = "localhost:50051";
/// Most places that are kept; beyond it the table starts anew.
const MOST_PLACES: usize = 4_096;

const SCHEMES: [Scheme; 4] = [
    Scheme { name: "grpc", is_tls: false, port: 50_051 },
    Scheme { name: "grpcs", is_tls: true, port: 443 },
    Scheme { name: "http", is_tls: false, port: 80 },
    Scheme { name: "https", is_tls: true, port: 443 },
];

/// A target.
pub(super) struct Place {
    pub(super) target: Target,
    /// As records show it.
    pub(super) text: Arc<str>,
    pub(super) authority: Authority,
    /// What its services are, if it was asked.
    pub(super) known: RefCell<Known>,
    pool: OnceCell<Pool>,
}

/// What is known of a place's services.
pub(super) enum Known {
    Nothing,
    /// It is being asked.
    Asked(Asked),
    Services(Rc<Descriptors>),
    /// It does not say, and will not.
    Silent(Failure),
}

/// A question that everybody who needs the answer waits for.
pub(super) type Asked = Shared<Pin<Box<dyn Future<Output = Result<Rc<Descriptors>, Unmet>>>>>;

/// What a call needs before it starts cannot be had.
#[derive(Clone, Debug)]
pub(super) struct Unmet {
    pub(super) trouble: Trouble,
    /// A limit of this machine was the cause.
    pub(super) is_local: bool,
    /// There is no sense in trying again.
    pub(super) is_final: bool,
}

/// Every place of a scenario on one core.
#[derive(Default)]
pub(super) struct Places(RefCell<HashMap<Box<str>, Rc<Place>>>);

/// Parses a target.
pub(super) fn parse(text: &str) -> Result<Target, String> {
    // gRPC's own way to say "by DNS", which is the only one
    let text = text.trim();
    Target::parse(text.strip_prefix("dns:///").unwrap_or(text), &SCHEMES)
}

impl Places {
    pub(super) fn get(&self, text: &str) -> Result<Rc<Place>, String> {
        let mut places = self.0.borrow_mut();
        if let Some(place) = places.get(text) {
            return Ok(Rc::clone(place));
        }
        let target = parse(text)?;
        let host = match &target.host {
            crate::dial::Host::Name(name) => name.to_string(),
            crate::dial::Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
            crate::dial::Host::Address(address) => address.to_string(),
        };
        let authority = format!("{host}:{}", target.port);
        let authority = authority.parse().map_err(|_| format!("`{host}` is no host name; expected host:port"))?;
        let place = Rc::new(Place {
            target,
            text: text.into(),
            authority,
            known: RefCell::new(Known::Nothing),
            pool: OnceCell::new(),
        });
        if places.len() >= MOST_PLACES {
            places.clear();
        }
        places.insert(text.into(), Rc::clone(&place));
        Ok(place)
    }
}

impl Place {
    /// Its channels that users share, so many on this core.
    pub(super) fn pool(&self, size: usize) -> &Pool {
        self.pool.get_or_init(|| Pool { slots: (0..size).map(|_| RefCell::default()).collect(), next: Cell::new(0) })
    }
}

/// Channels to one place that users share. Calls take them in turn.
pub(super) struct Pool {
    slots: Box<[RefCell<Slot>]>,
    next: Cell<usize>,
}

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Opening(Rc<Attempt>),
    Open(Rc<Channel>),
}

/// The opening of a channel, for those who wait for it.
#[derive(Default)]
struct Attempt {
    /// `None` while it goes on, and when whoever did it has given up.
    outcome: RefCell<Option<Result<Rc<Channel>, Unmet>>>,
    is_over: Cell<bool>,
    ended: Notify,
}

/// What a call gets of a pool.
pub(super) enum Turn<'a> {
    Ready(Lease),
    /// It has to open the channel first.
    First(Opening<'a>),
}

/// The duty to open a channel; dropped, it passes to one of those who wait.
pub(super) struct Opening<'a> {
    slot: &'a RefCell<Slot>,
    attempt: Rc<Attempt>,
}

impl Pool {
    /// The number of the channel whose turn it is.
    pub(super) fn next(&self) -> usize {
        let index = self.next.get();
        self.next.set((index + 1) % self.slots.len());
        index
    }

    /// The channel of that number: waits while another call opens it, and for room on it.
    pub(super) async fn turn(&self, index: usize, place: &Rc<Place>) -> Result<Turn<'_>, Unmet> {
        let slot = &self.slots[index];
        loop {
            let attempt = match &*slot.borrow() {
                Slot::Open(channel) if channel.serves(place) => Err(Rc::clone(channel)),
                Slot::Opening(attempt) => Ok(Rc::clone(attempt)),
                Slot::Open(_) | Slot::Empty => break,
            };
            let channel = match attempt {
                Err(channel) => channel,
                Ok(attempt) => match attempt.wait().await {
                    Some(channel) => channel?,
                    None => continue,
                },
            };
            return Ok(Turn::Ready(channel.lease().await));
        }
        let attempt = Rc::<Attempt>::default();
        *slot.borrow_mut() = Slot::Opening(Rc::clone(&attempt));
        Ok(Turn::First(Opening { slot, attempt }))
    }
}

impl Attempt {
    async fn wait(&self) -> Option<Result<Rc<Channel>, Unmet>> {
        let ended = self.ended.notified();
        if !self.is_over.get() {
            ended.await;
        }
        self.outcome.borrow().clone()
    }
}

impl Opening<'_> {
    /// It is open, or cannot be opened.
    pub(super) fn done(self, outcome: Result<Rc<Channel>, Unmet>) {
        if let Ok(channel) = &outcome {
            *self.slot.borrow_mut() = Slot::Open(Rc::clone(channel));
        }
        *self.attempt.outcome.borrow_mut() = Some(outcome);
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut slot = self.slot.borrow_mut();
        if matches!(&*slot, Slot::Opening(attempt) if Rc::ptr_eq(attempt, &self.attempt)) {
            *slot = Slot::Empty;
        }
        self.attempt.is_over.set(true);
        self.attempt.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_once_and_have_an_authority() {
        let places = Places::default();
        let one = places.get("127.0.0.1:99").unwrap();
        assert!(Rc::ptr_eq(&one, &places.get("127.0.0.1:99").unwrap()));
        for (text, authority, is_tls) in [
            (DEFAULT, "localhost:50051", false),
            ("grpcs://b", "b:443", true),
            ("https://b/x", "b:443", true),
            ("[::1]:7", "[::1]:7", false),
            ("dns:///h:5", "h:5", false),
            ("h", "h:50051", false),
        ] {
            let place = places.get(text).unwrap();
            assert_eq!((place.authority.as_str(), place.target.is_tls), (authority, is_tls), "{text}");
        }
        assert!(places.get("ftp://h").is_err());
    }
}
