//! Whether an engine has come to its end by itself: iterations used up, say.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which cores of an engine have nothing left to do.
#[derive(Debug)]
pub(crate) struct Rest(Mutex<Cores>);

#[derive(Debug)]
struct Cores {
    idle: Vec<bool>,
    /// The worker holds lanes: one without any waits for some.
    has_lanes: bool,
    /// Changes that cores were told of: what a core said of itself before counts no more.
    word: u64,
    is_over: bool,
}

impl Rest {
    pub(crate) fn new(cores: usize) -> Self {
        Self(Mutex::new(Cores { idle: vec![false; cores], has_lanes: false, word: 0, is_over: false }))
    }

    fn cores(&self) -> MutexGuard<'_, Cores> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the cores of a change by `tell`, unless the engine has come to its end. Afterwards it
    /// holds lanes or not, if that is given.
    pub(crate) fn tell(&self, has_lanes: Option<bool>, tell: impl FnOnce()) {
        let mut cores = self.cores();
        if cores.is_over {
            return;
        }
        cores.word += 1;
        cores.idle.fill(false);
        cores.has_lanes = has_lanes.unwrap_or(cores.has_lanes);
        tell();
    }

    /// How many changes cores were told of.
    pub(crate) fn word(&self) -> u64 {
        self.cores().word
    }

    /// A core says whether it has nothing left to do, knowing so many changes. Returns whether the
    /// engine has come to its end.
    pub(crate) fn is_over(&self, core: usize, idle: bool, word: u64) -> bool {
        let mut cores = self.cores();
        if cores.word == word {
            cores.idle[core] = idle;
            cores.is_over |= cores.has_lanes && cores.idle.iter().all(|idle| *idle);
        }
        cores.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_all_cores_rest_and_know_everything() {
        let rest = Rest::new(2);
        assert!(!rest.is_over(0, true, 0) && !rest.is_over(1, true, 0), "it waits for lanes");
        rest.tell(Some(true), || {});
        assert!(!rest.is_over(0, true, 0), "it did not know");
        let word = rest.word();
        assert!(!rest.is_over(0, true, word) && !rest.is_over(1, false, word));
        assert!(rest.is_over(1, true, word) && rest.is_over(0, false, word));
        rest.tell(Some(true), || panic!("nobody is there any more"));
    }
}
