//! Names, resolved once per core.

use super::DialError;
use ld_shared::boot::clock;
use ld_shared::time::Mono;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// A name that did not resolve is asked for again after this time, so that users who fail at full
/// speed don't hammer the name server.
const RETRY: Duration = Duration::from_secs(1);
/// Most names that are kept; beyond it all are forgotten.
const MAX_NAMES: usize = 4_096;

/// Cache of one core. A name is asked for by the first who needs it; others wait for its answer,
/// which holds until every address of it fails to connect.
#[derive(Default)]
pub struct Names {
    entries: RefCell<HashMap<Rc<str>, Rc<Entry>>>,
}

#[derive(Default)]
struct Entry {
    answer: OnceCell<Answer>,
    /// Counts dials, so that they spread over the addresses.
    turn: Cell<usize>,
    /// The family that worked last.
    is_v6: Cell<Option<bool>>,
}

struct Answer {
    addresses: Vec<IpAddr>,
    at: Mono,
}

impl Names {
    /// Addresses of a name, in the order in which they should be tried.
    pub async fn resolve(&self, name: &Rc<str>) -> Result<Vec<IpAddr>, DialError> {
        let entry = self.entry(name);
        let answer = entry
            .answer
            .get_or_init(|| async {
                // The port is not part of the question; the resolver only wants one.
                let found = tokio::net::lookup_host((&**name, 0)).await;
                let mut addresses = Vec::new();
                for address in found.into_iter().flatten() {
                    if !addresses.contains(&address.ip()) {
                        addresses.push(address.ip());
                    }
                }
                Answer { addresses, at: clock::mono() }
            })
            .await;
        let Some(first) = answer.addresses.first() else { return Err(DialError::unresolved()) };
        let is_v6 = entry.is_v6.get().unwrap_or(first.is_ipv6());
        let turn = entry.turn.replace(entry.turn.get().wrapping_add(1));
        Ok(in_turn(&answer.addresses, is_v6, turn))
    }

    /// An address of the name answered: its family is tried first from now on.
    pub fn worked(&self, name: &Rc<str>, address: IpAddr) {
        if let Some(entry) = self.entries.borrow().get(name) {
            entry.is_v6.set(Some(address.is_ipv6()));
        }
    }

    /// No address of the name answered: it is asked for again, if its answer is not fresh.
    pub fn forget(&self, name: &Rc<str>) {
        let is_stale = self.entries.borrow().get(name).is_some_and(|entry| is_older(entry, RETRY));
        if is_stale {
            self.entries.borrow_mut().remove(name);
        }
    }

    fn entry(&self, name: &Rc<str>) -> Rc<Entry> {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.get(name) {
            let failed = entry.answer.get().is_some_and(|answer| answer.addresses.is_empty());
            if !(failed && is_older(entry, RETRY)) {
                return entry.clone();
            }
        }
        if entries.len() >= MAX_NAMES {
            entries.clear();
        }
        let entry = Rc::<Entry>::default();
        entries.insert(name.clone(), entry.clone());
        entry
    }
}

fn is_older(entry: &Entry, age: Duration) -> bool {
    entry.answer.get().is_some_and(|answer| clock::mono().since(answer.at) > age)
}

/// One family in turn, then the other.
fn in_turn(addresses: &[IpAddr], is_v6: bool, turn: usize) -> Vec<IpAddr> {
    let (mut first, second): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv6() == is_v6);
    if !first.is_empty() {
        let by = turn % first.len();
        first.rotate_left(by);
    }
    first.extend(second);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dials_spread_over_one_family_then_try_the_other() {
        let [a, b, c]: [IpAddr; 3] = ["10.0.0.1", "10.0.0.2", "::1"].map(|text| text.parse().unwrap());
        assert_eq!(in_turn(&[c, a, b], false, 0), [a, b, c]);
        assert_eq!(in_turn(&[c, a, b], false, 3), [b, a, c]);
        assert_eq!(in_turn(&[c, a, b], true, 5), [c, a, b]);
        assert_eq!(in_turn(&[a], true, 5), [a]);
    }
}
