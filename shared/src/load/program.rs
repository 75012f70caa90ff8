//! What is changed of the load while a test runs: set users, set rate, pause, resume.
//!
//! The loads of the plan and the changes together make new loads: pure, so that whoever holds the
//! program finds the same due instants. Before the first change that two programs differ in, their
//! loads are the same to the last bit.

use super::{Closed, Load, Open, Profile};
use crate::time::RunTime;
use serde::{Deserialize, Serialize};

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervention {
    /// From then on.
    pub at: RunTime,
    /// What.
    pub what: What,
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// So many users of a scenario, for good: the rest of its profile is void.
    SetUsers {
        /// Index in [`crate::plan::Plan::scenarios`].
        scenario: u32,
        /// How many.
        users: u64,
    },
    /// So many iterations per second of a scenario, for good: the rest of its profile is void.
    SetRate {
        /// Index in [`crate::plan::Plan::scenarios`].
        scenario: u32,
        /// Per second.
        rate: f64,
    },
    /// Nothing new starts: no arrival is due, and users begin no iteration and are neither started
    /// nor ended; they keep their state. Users set and rates set meanwhile hold from the end of the
    /// pause on.
    Pause,
    /// What was paused goes on from where it stood: the profile comes later by the pause. The end of
    /// the test stays where it is.
    Resume,
}

/// The changes of a run, in order. Empty: it runs as planned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Program {
    changes: Vec<Intervention>,
}

impl Program {
    /// Appends a change. It takes effect at the earliest together with the one before.
    pub fn push(&mut self, at: RunTime, what: What) {
        let at = self.changes.last().map_or(at, |last| last.at.max(at));
        self.changes.push(Intervention { at, what });
    }

    /// The changes, in order.
    pub fn changes(&self) -> &[Intervention] {
        &self.changes
    }

    /// The load of the scenario with this index whose load the plan says.
    #[must_use]
    pub fn load(&self, scenario: u32, planned: &Load) -> Load {
        match planned {
            Load::Closed(load) => Load::Closed(Closed { users: self.profile(scenario, &load.users, true) }),
            Load::Open(load) => Load::Open(Open { rate: self.profile(scenario, &load.rate, false), ..load.clone() }),
        }
    }

    fn profile(&self, scenario: u32, planned: &Profile, closed: bool) -> Profile {
        let mut profile = planned.clone();
        // what is to come after the pause that is on
        let mut paused: Option<Profile> = None;
        for Intervention { at, what } in &self.changes {
            let value = match what {
                What::SetUsers { scenario: own, users } if closed && *own == scenario => *users as f64,
                What::SetRate { scenario: own, rate } if !closed && *own == scenario => rate.max(0.0),
                What::SetUsers { .. } | What::SetRate { .. } => continue,
                What::Pause => {
                    if paused.is_none() {
                        let held = if closed { profile.at(*at) } else { 0.0 };
                        paused = Some(profile.after(*at));
                        profile = profile.followed_by(*at, &Profile::constant(held));
                    }
                    continue;
                }
                What::Resume => {
                    if let Some(rest) = paused.take() {
                        profile = profile.followed_by(*at, &rest);
                    }
                    continue;
                }
            };
            match &mut paused {
                Some(rest) => *rest = Profile::constant(value),
                None => profile = profile.followed_by(*at, &Profile::constant(value)),
            }
        }
        profile
    }

    /// The pauses, in order; the last one may be without an end ([`RunTime::MAX`]).
    pub fn pauses(&self) -> Vec<(RunTime, RunTime)> {
        let mut pauses: Vec<(RunTime, RunTime)> = Vec::new();
        for Intervention { at, what } in &self.changes {
            let open = pauses.last_mut().filter(|(_, end)| *end == RunTime::MAX);
            match (what, open) {
                (What::Pause, None) => pauses.push((*at, RunTime::MAX)),
                (What::Resume, Some(pause)) => pause.1 = *at,
                _ => {}
            }
        }
        pauses.retain(|(from, to)| from < to);
        pauses
    }

    /// The instant from which the loads of two programs may differ; `None`: never.
    pub fn differs_from(&self, other: &Self) -> Option<RunTime> {
        let same = self.changes.iter().zip(&other.changes).take_while(|(a, b)| a == b).count();
        let next = |program: &Self| program.changes.get(same).map(|change| change.at);
        [next(self), next(other)].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
