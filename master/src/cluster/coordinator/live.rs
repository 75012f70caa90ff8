//! Changes of the load while it is made.

use super::super::assign::{files, fixed_need};
use super::{Coordinator, Effect, State};
use ld_shared::load::{Load, What};
use ld_shared::message::ToWorker;
use ld_shared::time::Mono;
use std::sync::Arc;
use std::time::Duration;

/// A change holds so long from now: every worker knows of it by then.
const KNOWN_WITHIN: Duration = Duration::from_millis(500);
/// Most changes of a run.
const MOST: usize = 10_000;
/// Nobody means a higher rate than this, per second.
const HIGHEST_RATE: f64 = 1e9;

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no load to change.
    #[error("no test is running")]
    NotRunning,
    /// There is no such scenario.
    #[error("there is no scenario number {0}")]
    NoScenario(u32),
    /// Users of a scenario that goes by a rate, or the other way round.
    #[error("scenario `{scenario}` goes by {has}: set that")]
    OtherModel {
        /// Its name.
        scenario: String,
        /// What it has.
        has: &'static str,
    },
    /// Not a rate.
    #[error("a rate is a number from 0 to 1e9")]
    Rate,
    /// More connections than the workers can open.
    #[error("that needs {needed} connections at once, and the workers can open {capacity}")]
    Capacity {
        /// At once.
        needed: u64,
        /// What all workers can open.
        capacity: u64,
    },
    /// Nothing to pause, or to resume.
    #[error("{0}")]
    Nothing(&'static str),
    /// Too often.
    #[error("the load of this test was changed {MOST} times, which is as often as can be")]
    TooMany,
}

impl Coordinator {
    /// Whether a change can be made now.
    pub fn may_change(&self, what: What) -> Result<(), ChangeError> {
        if !matches!(self.state, State::Running { .. }) {
            return Err(ChangeError::NotRunning);
        }
        if self.program.changes().len() >= MOST {
            return Err(ChangeError::TooMany);
        }
        let scenario = |index: u32| self.load.scenarios.get(index as usize).ok_or(ChangeError::NoScenario(index));
        let paused = self.program.pauses().last().is_some_and(|(_, end)| *end == ld_shared::time::RunTime::MAX);
        match what {
            What::SetUsers { scenario: index, .. } | What::SetRate { scenario: index, .. } => {
                let scenario = scenario(index)?;
                let (wants_users, is_closed) =
                    (matches!(what, What::SetUsers { .. }), matches!(scenario.load, Load::Closed(_)));
                if wants_users != is_closed {
                    let has = if is_closed { "users" } else { "a rate" };
                    return Err(ChangeError::OtherModel { scenario: scenario.name.to_string(), has });
                }
            }
            What::Pause if paused => return Err(ChangeError::Nothing("the test is paused already")),
            What::Resume if !paused => return Err(ChangeError::Nothing("the test is not paused")),
            What::Pause | What::Resume => {}
        }
        if let What::SetRate { rate, .. } = what
            && !(0.0..=HIGHEST_RATE).contains(&rate)
        {
            return Err(ChangeError::Rate);
        }
        self.has_room(what)
    }

    /// Whether every worker can open what its lanes would need.
    fn has_room(&self, what: What) -> Result<(), ChangeError> {
        let mut program = self.program.clone();
        // from the start on, or from the change before: whenever it is, that many it needs
        program.push(ld_shared::time::RunTime(0), what);
        let plan = self.spec.plan.with(&program);
        let living = || self.participants.values().filter(|p| p.makes_load());
        let fits = living().all(|p| files(&plan, &p.tenures.part()) <= p.strength.capacity);
        if fits {
            return Ok(());
        }
        let needed = living().map(|p| fixed_need(&plan, &p.tenures.part().lanes)).sum();
        Err(ChangeError::Capacity { needed, capacity: living().map(|p| p.strength.capacity).sum() })
    }

    pub(super) fn on_change(&mut self, now: Mono, what: What, by: &str, effects: &mut Vec<Effect>) {
        if self.may_change(what).is_err() {
            return;
        }
        let at = self.soon(now, KNOWN_WITHIN);
        self.program.push(at, what);
        self.load = Arc::new(self.spec.plan.with(&self.program));
        let name = |index: u32| self.spec.plan.scenarios.get(index as usize).map_or("", |scenario| &*scenario.name);
        let text = match what {
            What::SetUsers { scenario, users } => format!("users of `{}` set to {users}", name(scenario)),
            What::SetRate { scenario, rate } => format!("rate of `{}` set to {rate}/s", name(scenario)),
            What::Pause => "paused".to_owned(),
            What::Resume => "resumed".to_owned(),
        };
        self.note(now, format!("{text} from {:.1} s on", at.as_secs()), by);
        let program = self.program.clone();
        self.tell_all(effects, |_, run| ToWorker::Program { run, program: program.clone() });
    }
}
