//! A result of a run that ended with its master. Pure.
//!
//! It counts what was acknowledged: what workers had not delivered by then is not in it, neither as
//! started nor as lost. Requests that were open in a worker's last frame are lost.

use super::recovered::{Fate, Member, Recovered};
use crate::cluster::ledger::Frames;
use crate::cluster::rule_watch::Watched;
use crate::run::thresholds;
use crate::run::verdict::Verdict;
use crate::run::{Ending, Event, Loss, Measured, Run, WorkerResult};
use chrono::TimeDelta;
use ld_shared::frame::Odometers;
use ld_shared::id::Digest;
use ld_shared::sample::Phase;
use ld_shared::threshold::Threshold;
use ld_shared::time::RunTime;
use std::sync::Arc;

/// Why the run has no other end.
pub const REASON: &str = "the master ended before the run did";

/// The result, with the verdict `error`; `None` if the run had not begun. `incomplete`: the journal
/// failed before the master ended.
pub fn result(mut recovered: Recovered, incomplete: bool) -> Option<Run> {
    let rules = whole_rules(&recovered);
    let label = recovered.order.label.clone();
    let measured = measured(&mut recovered, incomplete)?;
    let mut verdict = Verdict::of(&measured, thresholds::judge(&rules, &measured));
    if rules.len() < recovered.order.rules.len() {
        verdict.reasons.push("warning: rules with windows (`over`) could not be judged".into());
    }
    Some(Run { measured, verdict, label })
}

/// Rules over the whole run: windows were watched by the master, and are gone with it.
fn whole_rules(recovered: &Recovered) -> Vec<Threshold> {
    let rules = recovered.order.rules.iter().filter_map(|rule| rule.read().ok());
    rules.filter(|rule| rule.over().is_none()).collect()
}

fn measured(recovered: &mut Recovered, incomplete: bool) -> Option<Measured> {
    let started = recovered.started.clone()?;
    let order = &recovered.order;
    let plan = order.given.clone().unwrap_or_else(|| Arc::clone(&order.plan));
    let newest = recovered.ledger.sessions().map(|(_, frames)| frames.sealed_at).max().unwrap_or(RunTime(0));
    let end = newest.min(plan.end());
    let mut odometers = Odometers::default();
    let mut lost = [0; Phase::COUNT];
    let (mut workers, mut losses) = (Vec::new(), Vec::new());
    // whoever had joined and owned nothing yet did nothing
    for (session, member) in recovered.sessions.iter().filter(|(_, member)| !member.assignments.is_empty()) {
        let frames = recovered.ledger.frames(*session).cloned().unwrap_or_default();
        let (own, own_lost) = settled(&frames);
        odometers.add(&own);
        lost.iter_mut().zip(own_lost).for_each(|(sum, part)| *sum += part);
        losses.extend(loss(member, &frames, own_lost.iter().sum(), end));
        workers.push(worker(member, &frames, &own));
    }
    let (total, unmarked, timeline) = recovered.ledger.snapshots(end);
    let (records, records_seen) = recovered.ledger.take_records();
    let mut events = recovered.events.clone();
    let by = "journal";
    let mut note = |what: &str| events.push(Event { at_s: newest.as_secs(), what: what.into(), by: by.into() });
    note("the master ended; what its workers had not delivered by then is not in this result");
    if incomplete {
        note("the journal had failed before: this result ends where the journal does");
    }
    Some(Measured {
        run: order.run.clone(),
        program: recovered.program.clone(),
        plan_digest: Digest::of(&plan.to_json()),
        plan,
        mode: if order.local { "local" } else { "cluster" },
        started_at: started.wall,
        ended_at: started.wall + TimeDelta::nanoseconds(newest.0.cast_signed()),
        duration_s: end.as_secs(),
        total,
        unmarked,
        timeline,
        blocks: recovered.ledger.blocks().clone(),
        odometers,
        lost: lost.iter().sum(),
        lost_by_phase: lost,
        workers,
        losses,
        events,
        watched: vec![Watched::default(); whole_rules(recovered).len()],
        records,
        records_seen,
        all_records: None,
        ending: Ending::Failed(REASON.into()),
        collected: recovered.ledger.collected().cloned(),
    })
}

/// A session's counters as of its newest frame, and what was open then.
fn settled(frames: &Frames) -> (Odometers, [u64; Phase::COUNT]) {
    let mut odometers = frames.odometers;
    let mut lost = [0; Phase::COUNT];
    for (index, settled) in frames.settled().iter().enumerate().take(Phase::LEAST) {
        let counted = &mut odometers.phases[index];
        lost[index] = counted.requests_started.saturating_sub(*settled);
        counted.due = counted.iterations + counted.dropped.iter().sum::<u64>();
    }
    (odometers, lost)
}

fn loss(member: &Member, frames: &Frames, bound: u64, end: RunTime) -> Option<Loss> {
    if frames.last {
        return None;
    }
    let reason = match &member.fate {
        Fate::Lost(lost) => lost.how.clone(),
        Fate::Left { text, .. } => format!("it left without its last frame: {text}"),
        Fate::There => format!("{REASON}; {bound} requests were open in its newest frame"),
    };
    let from_s = frames.sealed_at.min(end).as_secs();
    Some(Loss { from_s, to_s: end.as_secs(), worker: member.name.to_string(), planned: 0, achieved: 0, bound, reason })
}

fn worker(member: &Member, frames: &Frames, odometers: &Odometers) -> WorkerResult {
    let (state, lost_at) = match &member.fate {
        Fate::Lost(lost) => ("lost", Some(lost.at)),
        Fate::Left { at, .. } => ("left", Some(*at)),
        Fate::There if frames.last => ("ok", None),
        Fate::There => ("lost", Some(frames.sealed_at)),
    };
    WorkerResult {
        name: member.name.to_string(),
        cores: member.cores,
        users_max: frames.users_max,
        requests: odometers.of_requests().iter().map(|phase| phase.requests_started).sum(),
        cpu_max: f64::from(frames.cpu_max_permille) / 1_000.0,
        lag_p99_ms: frames.scheduler_lag.percentile(99.0) as f64 / 1_000.0,
        clock_offset_ms: 0.0,
        clock_error_ms: 0.0,
        start_skew_ms: frames.start_skew.map_or(0.0, |skew| skew as f64 / 1e6),
        state,
        lost_at_s: lost_at.map(RunTime::as_secs),
    }
}
