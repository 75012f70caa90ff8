//! Closed model: a number of users over time.

use super::Profile;
use crate::time::RunTime;
use serde::{Deserialize, Serialize};

/// A number of users over time. User `u` lives while `u < users(t)`, so the highest numbers end
/// first when the number falls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    /// Users over run time.
    pub users: Profile,
}

/// A span in which a user lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its first instant.
    pub start: RunTime,
    /// The instant at which it starts nothing any more; [`RunTime::MAX`] if the profile never ends it.
    pub end: RunTime,
}

impl Closed {
    /// The spans of user `u`'s life, in order.
    pub fn lives(&self, u: u64) -> Vec<Life> {
        let level = u as f64;
        let mut lives = Vec::new();
        let mut born: Option<RunTime> = None;
        for segment in self.users.segments() {
            let at = |value: f64| {
                let part = (value - segment.from) / (segment.to - segment.from);
                RunTime(segment.start.saturating_add((part * segment.length as f64).round() as u64).min(segment.end()))
            };
            let start = RunTime(segment.start);
            if let Some(since) = born.take_if(|_| segment.from <= level) {
                lives.push(Life { start: since, end: start });
            }
            if born.is_none() && segment.from > level {
                born = Some(start);
            }
            match born {
                None if segment.last() > level => born = Some(at(level)),
                Some(since) if segment.last() <= level => {
                    lives.push(Life { start: since, end: at(level) });
                    born = None;
                }
                _ => {}
            }
        }
        let tail = self.users.length();
        match born {
            Some(start) if self.users.tail() > level => lives.push(Life { start, end: RunTime::MAX }),
            Some(start) => lives.push(Life { start, end: tail }),
            None if self.users.tail() > level => lives.push(Life { start: tail, end: RunTime::MAX }),
            None => {}
        }
        lives.retain(|life| life.start < life.end);
        lives
    }

    /// How many users the plan wants at `t`.
    pub fn planned(&self, t: RunTime) -> u64 {
        self.users.at(t).max(0.0).ceil() as u64
    }

    /// The highest number of users before `end`.
    pub fn peak(&self, end: RunTime) -> u64 {
        self.users.peak(end).max(0.0).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn users_start_at_the_spawn_rate() {
        let load = Closed { users: Profile::default().then(5.0, 0.0, 50.0) };
        let start = |u| load.lives(u)[0].start;
        assert_eq!(start(0), RunTime(0));
        assert_eq!(start(10), RunTime::from_secs(1.0));
        assert_eq!(start(49), RunTime::from_secs(4.9));
        assert!(load.lives(50).is_empty());
        assert_eq!(load.lives(3)[0].end, RunTime::MAX);
    }

    #[test]
    fn surplus_users_end_highest_first_and_may_live_again() {
        let users = Profile::default().then(1.0, 4.0, 4.0).then(4.0, 4.0, 0.0).then(1.0, 2.0, 2.0).then(1.0, 0.0, 0.0);
        let load = Closed { users };
        assert_eq!(load.lives(3), [Life { start: RunTime(0), end: RunTime::from_secs(2.0) }]);
        let lives = load.lives(1);
        assert_eq!(lives[0], Life { start: RunTime(0), end: RunTime::from_secs(4.0) });
        assert_eq!(lives[1], Life { start: RunTime::from_secs(5.0), end: RunTime::from_secs(6.0) });
    }

    proptest! {
        /// At every instant as many users live as the profile says.
        #[test]
        fn lives_add_up_to_the_profile(
            pieces in prop::collection::vec((1u32..5, 0u32..20, 0u32..20), 1..6),
            at in 0u32..3000,
        ) {
            let mut users = Profile::default();
            for (seconds, from, to) in pieces {
                users = users.then(f64::from(seconds), f64::from(from), f64::from(to));
            }
            let load = Closed { users };
            // off the grid on which segments begin and users cross whole numbers
            let t = RunTime(u64::from(at) * 10_000_000 + 1_234_567);
            let living = (0..25).filter(|u| load.lives(*u).iter().any(|l| l.start <= t && t < l.end)).count();
            prop_assert_eq!(living as u64, load.planned(t));
        }
    }
}
