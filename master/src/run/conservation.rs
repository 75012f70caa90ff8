//! Both ledgers of a run, counted on two paths and held against each other.
//!
//! Starts, drops and requests in flight come from the engines' odometers; ends from the merged
//! histograms. Neither is ever derived from the other, so a sample that gets lost on the way shows.

use super::Measured;
use super::result::Totals;
use ld_shared::frame::PhaseOdometer;
use ld_shared::sample::Phase;
use ld_shared::snapshot::DropReason;
use serde::Serialize;
use std::collections::BTreeMap;

/// The ledgers of one phase: `due = started + dropped` in iterations,
/// `requests_started = succeeded + failed + in_flight + lost` in requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conservation {
    /// Iterations that were due.
    pub due: u64,
    /// Iterations started.
    pub started: u64,
    /// Iterations dropped.
    pub dropped: u64,
    /// Those by reason, where there are any.
    pub dropped_by: BTreeMap<&'static str, u64>,
    /// Requests started, before DNS and connect.
    pub requests_started: u64,
    /// Requests written to a socket: the number to hold against a target's log.
    pub requests_written: u64,
    /// Requests ended with success.
    pub succeeded: u64,
    /// Requests ended with failure.
    pub failed: u64,
    /// Requests cut off at the end of the drain.
    pub in_flight: u64,
    /// Upper bound of requests whose end a lost worker took with it.
    pub lost: u64,
    /// Whether both identities hold to the unit.
    pub ok: bool,
}

impl Default for Conservation {
    /// Nothing ran: both identities hold.
    fn default() -> Self {
        Self {
            due: 0,
            started: 0,
            dropped: 0,
            dropped_by: BTreeMap::new(),
            requests_started: 0,
            requests_written: 0,
            succeeded: 0,
            failed: 0,
            in_flight: 0,
            lost: 0,
            ok: true,
        }
    }
}

impl Conservation {
    /// Of the main phase.
    pub fn of_main(measured: &Measured) -> Self {
        Self::of(measured, Phase::Main)
    }

    /// Of `phase`.
    pub fn of(measured: &Measured, phase: Phase) -> Self {
        let counted = measured.odometers.phase(phase);
        let ended = measured.total.phase(phase);
        let (succeeded, failed) = (ended.succeeded(), ended.failed());
        let lost = measured.lost_by_phase[phase.index()];
        let requests_started = sent(counted);
        let dropped = counted.dropped.iter().sum();
        let by = |reason: DropReason| (reason.name(), counted.dropped[reason.index()]);
        Self {
            due: counted.due,
            started: counted.iterations,
            dropped,
            dropped_by: DropReason::ALL.map(by).into_iter().filter(|(_, n)| *n > 0).collect(),
            requests_started,
            requests_written: counted.requests_written,
            succeeded,
            failed,
            in_flight: counted.requests_in_flight,
            lost,
            ok: counted.due == counted.iterations + dropped
                && requests_started == succeeded + failed + counted.requests_in_flight + lost,
        }
    }

    /// Whether the identities hold in every phase.
    pub fn holds(measured: &Measured) -> bool {
        Phase::ALL.iter().all(|phase| Self::of(measured, *phase).ok)
    }
}

/// Requests started. What a limit of this machine stopped before a byte left is no request of the
/// target's: it counts as dropped.
pub(crate) fn sent(counted: &PhaseOdometer) -> u64 {
    counted.requests_started.saturating_sub(counted.requests_unsent)
}

/// The warm-up: the same ledgers, and its totals.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Warmup {
    /// Its ledgers.
    #[serde(flatten)]
    pub conservation: Conservation,
    /// Its requests.
    pub totals: Totals,
}

impl Warmup {
    /// Of `measured`.
    pub fn of(measured: &Measured) -> Self {
        let conservation = Conservation::of(measured, Phase::Warmup);
        let seconds = measured.duration_s - measured.main_seconds();
        let rate = if seconds > 0.0 { conservation.requests_started as f64 / seconds } else { 0.0 };
        let totals = Totals { requests_per_s: rate, ..Totals::of(measured.total.phase(Phase::Warmup)) };
        Self { conservation, totals }
    }
}

/// What users do before their first and after their last iteration, and what is done once a test:
/// the same ledgers, and their totals. They belong to no window, so they have no rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Hooks {
    /// Their ledgers.
    #[serde(flatten)]
    pub conservation: Conservation,
    /// Their requests.
    pub totals: Totals,
}

impl Hooks {
    /// Of `measured`.
    pub fn of(measured: &Measured) -> Self {
        let totals = Totals::of(measured.total.phase(Phase::Hooks));
        Self { conservation: Conservation::of(measured, Phase::Hooks), totals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    #[test]
    fn what_is_run_once_counts_as_hooks() {
        let mut measured = fixture::measured();
        let (main, stage) = (Conservation::of_main(&measured), fixture::measured());
        measured.add_hooks(&stage);
        let hooks = Hooks::of(&measured).conservation;
        let apart = Warmup::of(&stage).conservation;
        assert_eq!(hooks.requests_started, main.requests_started + apart.requests_started);
        assert!(hooks.ok && Conservation::of_main(&measured) == main);
    }

    #[test]
    fn a_sample_lost_on_the_way_shows() {
        let mut measured = fixture::measured();
        assert!(Conservation::holds(&measured));
        measured.odometers.phases[0].requests_started += 1;
        let main = Conservation::of_main(&measured);
        assert!(!main.ok && !Conservation::holds(&measured));
        // a killed worker may account for it
        measured.lost += 1;
        measured.lost_by_phase[Phase::Main.index()] += 1;
        assert!(Conservation::of_main(&measured).ok);
    }

    #[test]
    fn an_iteration_that_was_neither_started_nor_dropped_shows() {
        let mut measured = fixture::measured();
        measured.odometers.phases[1].due += 1;
        assert!(Conservation::of_main(&measured).ok, "the main phase is sound");
        assert!(!Conservation::holds(&measured));
    }
}
