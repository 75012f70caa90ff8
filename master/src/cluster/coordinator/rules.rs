//! Rules that are judged while the run goes on, and what the first breach of one that aborts does.

use super::super::loss::due;
use super::super::rule_watch::Breach;
use super::{Coordinator, Effect, Participant, Stage, State};
use crate::journal::Cause;
use crate::run::thresholds;
use ld_shared::id::SessionId;
use ld_shared::message::ToWorker;
use ld_shared::time::{Mono, RunTime, SECOND};

impl Coordinator {
    /// Judges the seconds that every worker has reported; ends the test if a rule that aborts fails.
    pub(super) fn judge(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let (State::Running { t0 } | State::Draining { t0, .. }) = self.state else { return };
        let working = self.participants.iter().filter(|(_, participant)| participant.makes_load());
        // once nobody works the end of the run is known, and the rest is judged by it
        let Some(covered) = working.map(|(session, _)| self.watch.reported(*session)).min() else { return };
        if covered <= self.judged_to {
            return;
        }
        self.add_unowned(covered);
        self.judged_to = covered;
        let end = self.spec.plan.end().min(self.stopped_at.unwrap_or(RunTime::MAX));
        let breach = self.watch.advance(covered, end);
        let at = self.run_now(now);
        if let (Some(breach), State::Running { .. }) = (breach, &self.state)
            && at < end
        {
            self.on_breach(now, (t0, at), &breach, effects);
        }
    }

    /// Nothing more starts, open requests may finish: as if somebody had stopped the test.
    fn on_breach(&mut self, now: Mono, (t0, at): (Mono, RunTime), breach: &Breach, effects: &mut Vec<Effect>) {
        let threshold = self.watch.threshold(breach.rule);
        let (rule, span) = (threshold.rule(), thresholds::span(&breach.seen));
        let seen = thresholds::seen(threshold, breach.seen.observed.value);
        let what = format!("threshold `{rule}` failed over {span} (seen {seen}): aborted");
        tracing::warn!("{what}");
        self.watch.abort(breach, at);
        self.stopped_at = Some(at);
        self.cause = Some(Cause::Rule);
        self.note(now, what, "threshold");
        self.tell_all(effects, |_, run| ToWorker::Stop { run });
        self.state = State::Draining { t0, until: self.drained_by(now) };
    }

    /// Counts the iterations that were due before `covered` on lanes whose owner is gone.
    fn add_unowned(&mut self, covered: u32) {
        if !self.watch.wants_drops() {
            return;
        }
        let mut unowned = Vec::new();
        for (session, participant) in &self.participants {
            let Some(gone) = self.gone_at(*session, participant) else { continue };
            unowned.extend((self.judged_to..covered).map(|second| (second, self.due_in(second, gone, participant))));
        }
        for (second, due) in unowned.into_iter().filter(|(_, due)| *due > 0) {
            self.watch.add_unowned(second, due);
        }
    }

    /// From when on nobody owned a worker's share.
    fn gone_at(&self, session: SessionId, participant: &Participant) -> Option<RunTime> {
        match &participant.stage {
            Stage::Lost { until, .. } => Some(*until),
            Stage::Left { at } => Some(self.ledger.frames(session).map_or(*at, |frames| frames.sealed_at.min(*at))),
            Stage::Asked | Stage::Ready | Stage::Armed(_) | Stage::Finished => None,
        }
    }

    /// Iterations of the main phase that a worker's share had due in a second, from `gone` on.
    fn due_in(&self, second: u32, gone: RunTime, participant: &Participant) -> u64 {
        let plan = &self.load;
        let from = RunTime(u64::from(second) * SECOND).max(gone).max(plan.warmup);
        let to = RunTime((u64::from(second) + 1) * SECOND);
        due(plan, &participant.tenures, from, to)
    }
}
