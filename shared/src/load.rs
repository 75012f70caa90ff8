//! How much load, and when: what is due at which run-clock instant.
//!
//! All answers are random-access functions of the plan: anybody who holds a lane at some instant
//! finds the same starts in it as anybody else.

mod agenda;
mod closed;
mod open;
mod profile;
mod program;

pub use agenda::Agenda;
pub use closed::{Closed, Life};
pub use open::{ArrivalCursor, ArrivalId, Arrivals, Open};
pub use profile::{Profile, Segment};
pub use program::{Intervention, Program, What};

use serde::{Deserialize, Serialize};

/// The load of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// A number of users, each starting its next iteration when the one before has ended.
    Closed(Closed),
    /// A rate of iterations, whatever the target does.
    Open(Open),
}

impl Load {
    /// `closed` or `open`, as results name it.
    pub fn model(&self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::Open(_) => "open",
        }
    }

    /// Its arrivals, if it is a rate.
    pub fn open(&self) -> Option<&Open> {
        match self {
            Self::Closed(_) => None,
            Self::Open(load) => Some(load),
        }
    }

    /// The profile: users or iterations per second over time.
    pub fn profile(&self) -> &Profile {
        match self {
            Self::Closed(load) => &load.users,
            Self::Open(load) => &load.rate,
        }
    }
}
