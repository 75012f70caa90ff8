//! How a run ends: by plan, by somebody, because a source has no more rows, at once.

use super::participant::Participant;
use super::{Coordinator, Effect, Empty, RunError, State};
use crate::journal::Cause;
use ld_shared::id::SessionId;
use ld_shared::message::ToWorker;
use ld_shared::plan::{AtEnd, Dealing, Pool};
use ld_shared::time::Mono;
use std::collections::BTreeSet;
use std::time::Duration;

/// After the planned end and `graceful_stop`, how long last frames may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// They may take longer while there is none that comes so long after the one before: the master is what is slow.
pub(super) const QUIET: Duration = Duration::from_secs(3);
/// Yet no more than so much longer.
const CLOSE_LATE: Duration = Duration::from_mins(2);
/// After an abort, how long last frames may take.
pub(super) const ABORT_WITHIN: Duration = Duration::from_secs(5);
/// After the first worker found a source empty, how long others may use up the rows that they have.
const USE_UP_WITHIN: Duration = Duration::from_secs(1);
/// After everybody's last frame, how long records that are left may take.
const RECORDS_WITHIN: Duration = Duration::from_secs(10);
/// The same after an abort.
const ABORTED_RECORDS_WITHIN: Duration = Duration::from_secs(2);

impl Coordinator {
    /// When a run with a planned end is closed at the latest, if its master keeps up.
    pub(super) fn planned_close(&self, t0: Mono) -> Option<Mono> {
        let plan = &self.spec.plan;
        let end = plan.test_time?.0.saturating_add(plan.graceful_stop.0);
        Some(t0.after(Duration::from_nanos(end)).after(CLOSE_WITHIN))
    }

    /// When last frames are due after a stop at `now`.
    pub(super) fn drained_by(&self, now: Mono) -> Mono {
        now.after(Duration::from_nanos(self.spec.plan.graceful_stop.0)).after(CLOSE_WITHIN)
    }

    /// `until`, or later while measurements still come in.
    pub(super) fn quiet_after(&self, until: Mono) -> Mono {
        if self.aborted { until } else { until.max(self.counted_at.after(QUIET)).min(until.after(CLOSE_LATE)) }
    }

    pub(super) fn on_stop(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Gathering { .. } | State::Preparing { .. } | State::Arming { .. } => {
                self.close(now, Some(RunError::Stopped), effects);
            }
            State::Running { t0 } => self.drain(now, *t0, "stopped", "user", effects),
            State::Draining { .. } | State::Collecting { .. } | State::Closed { .. } => {}
        }
    }

    /// Lets everybody start nothing more.
    pub(super) fn drain(&mut self, now: Mono, t0: Mono, what: &str, by: &str, effects: &mut Vec<Effect>) {
        self.stopped_at = Some(self.run_now(now));
        self.note(now, what, by);
        self.tell_all(effects, |_, run| ToWorker::Stop { run });
        self.state = State::Draining { t0, until: self.drained_by(now) };
    }

    /// A worker's users find no row in a source. If that ends the test, those workers that were
    /// given rows of it may use them up first, for a moment.
    pub(super) fn on_empty(&mut self, now: Mono, session: SessionId, pool: Pool) {
        let Pool::Source(index) = pool else { return };
        let dealing = self.spec.plan.sources.get(index as usize).map(|source| source.dealing);
        if dealing != Some(Dealing::Once(AtEnd::StopTest)) {
            return;
        }
        let until = now.after(USE_UP_WITHIN);
        let empty = self.empty.get_or_insert_with(|| Empty { pool, until, said: BTreeSet::new() });
        if empty.pool == pool {
            empty.said.insert(session);
        }
    }

    /// Ends the test if a source that is to end it is used up.
    pub(super) fn end_with_source(&mut self, now: Mono, t0: Mono, effects: &mut Vec<Effect>) {
        let Some(Empty { pool: pool @ Pool::Source(index), until, said }) = &self.empty else { return };
        let uses_up = |(session, p): (&SessionId, &Participant)| {
            p.makes_load() && !said.contains(session) && self.tickets.granted(*pool, *session) > 0
        };
        if now < *until && self.participants.iter().any(uses_up) {
            return;
        }
        let name = self.spec.plan.sources.get(*index as usize).map(|source| source.name.to_string());
        self.cause = Some(Cause::UsedUp);
        let what = format!("ended: the data source `{}` has no row left", name.unwrap_or_default());
        self.drain(now, t0, &what, "at_end", effects);
    }

    pub(super) fn on_abort(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Gathering { .. } | State::Preparing { .. } | State::Arming { .. } => {
                self.close(now, Some(RunError::Stopped), effects);
            }
            State::Running { t0 } | State::Draining { t0, .. } => {
                let t0 = *t0;
                self.stopped_at = self.stopped_at.or(Some(self.run_now(now)));
                self.aborted = true;
                self.note(now, "aborted", "user");
                self.tell_all(effects, |_, run| ToWorker::Abort { run });
                self.state = State::Draining { t0, until: now.after(ABORT_WITHIN) };
            }
            State::Collecting { .. } => self.close(now, None, effects),
            State::Closed { .. } => {}
        }
    }

    /// Everything is counted; only records may still be missing.
    pub(super) fn collect(&mut self, now: Mono, t0: Mono, effects: &mut Vec<Effect>) {
        if self.ledger.awaits_records() {
            let within = if self.aborted { ABORTED_RECORDS_WITHIN } else { RECORDS_WITHIN };
            self.state = State::Collecting { t0, until: now.after(within) };
        } else {
            self.close(now, None, effects);
        }
    }

    pub(super) fn close(&mut self, now: Mono, error: Option<RunError>, effects: &mut Vec<Effect>) {
        self.tell_all(effects, |session, run| {
            let frames = self.ledger.counted(session).map_or(0, |(frames, _)| frames);
            ToWorker::RunClosed { run, frames }
        });
        let t0 = self.t0();
        if t0.is_some() {
            self.settle_silent(now);
        }
        self.ledger.close();
        self.closed_at = Some(now);
        self.state = State::Closed { t0, error };
        effects.push(Effect::Closed);
    }

    /// Whoever has not sent its last frame by now counts as lost.
    pub(super) fn settle_silent(&mut self, now: Mono) {
        let at = self.run_now(now);
        for participant in self.participants.values_mut().filter(|p| p.makes_load()) {
            let how = "no last frame by the end of the run".to_owned();
            participant.lose(at, at, true, how);
        }
    }
}
