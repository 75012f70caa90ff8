//! Who is logged in by a cookie: random names of sessions, kept here and nowhere else, so that the
//! token itself lies in no browser.

use crate::remote::Level;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use ld_shared::boot::clock;
use ld_shared::handshake::fresh_nonce;
use ld_shared::time::Mono;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most sessions: the oldest gives way.
const MOST: usize = 256;
/// How long one lasts.
pub(super) const LASTS: Duration = Duration::from_hours(12);

/// Who is logged in.
#[derive(Default)]
pub(super) struct Sessions(Mutex<VecDeque<Session>>);

struct Session {
    name: String,
    level: Level,
    ends: Mono,
}

impl Sessions {
    /// Opens one; gives its name.
    pub(super) fn open(&self, level: Level) -> String {
        let name = fresh_nonce().iter().fold(String::new(), |mut name, byte| {
            write!(name, "{byte:02x}").expect("writing to a String cannot fail");
            name
        });
        let mut sessions = self.all();
        if sessions.len() == MOST {
            sessions.pop_front();
        }
        sessions.push_back(Session { name: name.clone(), level, ends: clock::mono().after(LASTS) });
        name
    }

    /// What a session may do, while it lasts.
    pub(super) fn level(&self, name: &str) -> Option<Level> {
        let now = clock::mono();
        let mut sessions = self.all();
        sessions.retain(|session| session.ends > now);
        // every one is compared: how long it takes says nothing
        let mut found = None;
        for session in sessions.iter() {
            if same_secret(session.name.as_bytes(), name.as_bytes()) {
                found = Some(session.level);
            }
        }
        found
    }

    /// Ends a session.
    pub(super) fn close(&self, name: &str) {
        self.all().retain(|session| !same_secret(session.name.as_bytes(), name.as_bytes()));
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<Session>> {
        // sessions are added and taken away in one go
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same_secret(a: &[u8], b: &[u8]) -> bool {
    // names are all of one length, which is no secret
    verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way() {
        let sessions = Sessions::default();
        let first = sessions.open(Level::Viewer);
        assert_eq!(sessions.level(&first), Some(Level::Viewer));
        for _ in 0..MOST {
            sessions.open(Level::Full);
        }
        assert_eq!((sessions.level(&first), sessions.level("")), (None, None));
        assert_eq!(sessions.all().len(), MOST);
    }
}
