//! A run that another master began: taken up from its journal.

use super::super::handover::{Part, Tenure, Tenures};
use super::super::ledger::Frames;
use super::super::rule_watch::Watch;
use super::super::throttles::Dealer;
use super::{Absence, Busiest, Coordinator, Participant, Resuming, Spec, Stage, State, Strength, left_early};
use crate::journal::{Fate, Lost, Member, Recovered};
use ld_shared::id::{Epoch, SessionId, WorkerName};
use ld_shared::lanes::LaneSet;
use ld_shared::message::{GONE_AFTER, LEASE};
use ld_shared::plan::WorkerLoss;
use ld_shared::sample::Phase;
use ld_shared::throttle::ThrottleShare;
use ld_shared::time::{Mono, RunTime};
use std::sync::Arc;
use std::time::Duration;

/// Whoever took part is back by then, or its lease is over and it is given up.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

impl Coordinator {
    /// Takes a run up that began at `t0`. Its workers are to come back ([`super::Event::Returned`]) or
    /// to be lost, as if they had all been heard of at this moment.
    pub fn resume(now: Mono, spec: Spec, t0: Mono, recovered: Recovered) -> Self {
        let mut run = Self::new(now, spec);
        let Recovered { sessions, tickets, stopping, cause, events, program, ledger, .. } = recovered;
        run.load = Arc::new(run.spec.plan.with(&program));
        (run.program, run.tickets, run.events, run.ledger) = (program, tickets, events, ledger);
        run.cause = cause;
        let end = run.spec.plan.end().min(stopping.map_or(RunTime::MAX, |(at, _)| at));
        let used_up = run.spec.plan.iterations.is_some();
        // whoever had joined and owned nothing yet joins anew
        for (session, member) in sessions.iter().filter(|(_, member)| !member.assignments.is_empty()) {
            let finished = run.ledger.has_finished(*session);
            run.participants.insert(*session, participant(member, finished, (end, used_up)));
        }
        let epochs = sessions.values().flat_map(|member| &member.assignments).map(|assignment| assignment.epoch);
        run.epoch = epochs.max().unwrap_or(Epoch(1));
        run.state = State::Running { t0 };
        if let Some((at, abort)) = stopping {
            (run.stopped_at, run.aborted) = (Some(at), abort);
            run.state = State::Draining { t0, until: run.drained_by(now) };
        }
        let mut owned = LaneSet::empty();
        for participant in run.participants.values() {
            owned.extend(&participant.tenures.part().lanes);
        }
        if run.spec.plan.on_worker_loss != WorkerLoss::Degrade {
            // the other master may have died between a loss and what follows from it
            let gone = |(_, p): &(&SessionId, &Participant)| {
                matches!(p.stage, Stage::Lost { .. } | Stage::Left { .. }) && !p.tenures.part().is_empty()
            };
            run.gone = run.participants.iter().filter(gone).map(|(session, _)| *session).collect();
        }
        let caps = run.participants.values().map(|p| p.tenures.part().caps.len()).max().unwrap_or(0);
        let mut free = LaneSet::full();
        owned.iter().for_each(|lane| free.remove(lane));
        run.unowned = Part { lanes: free, caps: vec![0; caps] };
        let held = |(session, member): (&SessionId, &Member)| {
            let holds = run.participants.get(session).is_some_and(Participant::makes_load);
            holds.then(|| (*session, member.limits.clone()))
        };
        let lost = |member: &Member| {
            let Fate::Lost(lost) = &member.fate else { return None };
            Some((t0.after(Duration::from_nanos(lost.at.0)).after(LEASE), member.limits.clone()))
        };
        let held = sessions.iter().filter_map(held).collect();
        let lost = sessions.values().filter_map(lost).collect();
        run.throttles = Dealer::resume(&run.spec.plan.limits(), held, lost);
        // what was seen second by second is not in the journal
        let reported =
            |(session, frames): (SessionId, &Frames)| (session, frames.to_second, *frames.odometers.phase(Phase::Main));
        run.watch = Watch::resume(&run.spec.thresholds, run.spec.plan.warmup, run.ledger.sessions().map(reported));
        run.judged_to = run.watch.settled();
        run.resuming = Some(Resuming { until: now.after(GONE_AFTER).after(SETTLED_AFTER), somebody: false });
        let newest = run.ledger.sessions().map(|(_, frames)| frames.sealed_at).max().unwrap_or(RunTime(0));
        let away = RunTime(run.run_now(now).0.saturating_sub(newest.0)).as_secs();
        run.note(now, format!("another master takes the run up, {away:.1} s after its newest entry"), "journal");
        if run.spec.thresholds.iter().any(|rule| rule.rule().contains(" over ")) {
            let what = "rules with `over` are judged from here on: what they saw before is not known";
            run.note(now, what, "journal");
        }
        run
    }

    /// When a run that was taken up ends, because none of its workers is back.
    pub(super) fn nobody_back_by(&self) -> Option<Mono> {
        self.resuming.as_ref().filter(|resuming| !resuming.somebody).map(|resuming| resuming.until)
    }

    /// Those who may come back: session, name, load cores.
    pub fn awaited(&self) -> impl Iterator<Item = (SessionId, &WorkerName, u32)> {
        let waits = |p: &Participant| !matches!(p.stage, Stage::Left { .. } | Stage::Lost { .. });
        self.participants.iter().filter(move |(_, p)| waits(p)).map(|(session, p)| (*session, &p.name, p.cores))
    }
}

/// What the other master made of a worker: whoever had finished and is gone before `end` has left, but for one that was lost
/// when it had used its iterations up.
fn participant(member: &Member, finished: bool, (end, used_up): (RunTime, bool)) -> Participant {
    let tenures = member.assignments.iter().map(|assignment| Tenure {
        epoch: assignment.epoch,
        from: assignment.from,
        part: Part { lanes: assignment.lanes.clone(), caps: assignment.caps.clone() },
    });
    let stage = match &member.fate {
        Fate::Left { at, .. } if finished && *at < end => Stage::Left { at: *at },
        Fate::Lost(Lost { at, .. }) if finished && *at < end && !used_up => Stage::Left { at: *at },
        _ if finished => Stage::Finished,
        _ => Stage::Armed(0),
    };
    let absence = |(lost, to): &(Lost, RunTime)| Absence { from: lost.until, to: *to, how: lost.how.clone() };
    let mut participant = Participant {
        name: WorkerName(Arc::clone(&member.name)),
        cores: member.cores.max(1),
        stage,
        asked_blobs: true,
        strength: Strength { cores: member.cores.max(1), capacity: member.capacity },
        tenures: Tenures::of(tenures),
        throttles: member
            .assignments
            .last()
            .map(|assignment| assignment.throttles.iter().map(ThrottleShare::from).collect())
            .unwrap_or_default(),
        absences: member.absences.iter().map(absence).collect(),
        beat: None,
        died: None,
        busiest: Busiest::default(),
        confirmed: Epoch(0),
        clock: ld_shared::message::ClockReport::default(),
        pace: None,
        was_late: true,
    };
    let lost = match &member.fate {
        Fate::Lost(lost) => Some(lost.clone()),
        Fate::Left { at, text } => Some(Lost { at: *at, until: *at, silent: false, how: left_early(text) }),
        Fate::There => None,
    };
    if let Some(Lost { at, until, silent, how }) = lost.filter(|_| !finished) {
        // what was known of its clock is not in the journal
        participant.lose(at, until, silent, how);
    }
    participant
}
