//! What a closed run measured.

use super::super::assign::own_due;
use super::super::handover::{Tenures, nobodys};
use super::super::ledger::Frames;
use super::super::loss::{Known, bound, due, hooks};
use super::{Coordinator, Participant, RunError, Stage, State};
use crate::journal::Cause;
use crate::run::{Ending, Event, Loss, Measured, WorkerResult};
use chrono::{DateTime, TimeDelta, Utc};
use ld_shared::frame::Odometers;
use ld_shared::id::SessionId;
use ld_shared::lanes::LaneSet;
use ld_shared::load::Load;
use ld_shared::plan::{AtEnd, Dealing, Plan, Pool, ScenarioPlan, SourcePlan};
use ld_shared::record::Record;
use ld_shared::sample::Phase;
use ld_shared::snapshot::{DropReason, Row};
use ld_shared::time::{RunTime, SECOND};

impl Coordinator {
    /// What the closed run measured, or why it could not be run. `wall` is the wall clock at the
    /// moment at which it closed. [`RunError::Closed`] before that.
    pub fn measured(&mut self, wall: DateTime<Utc>) -> Result<Measured, RunError> {
        let State::Closed { t0, error } = self.state.clone() else { return Err(RunError::Closed) };
        let (None, Some(t0), Some(closed_at)) = (&error, t0, self.closed_at) else {
            return Err(error.unwrap_or(RunError::Stopped));
        };
        let ran = closed_at.since(t0);
        let end = self.starting_ended(ran.into());
        let mut odometers = Odometers::default();
        let mut lost_by_phase = [0; Phase::COUNT];
        let (mut workers, mut losses) = (Vec::new(), Vec::new());
        for (session, participant) in self.participants.clone() {
            let fate = self.fate(session, &participant, end);
            odometers.add(&fate.odometers);
            for (sum, part) in lost_by_phase.iter_mut().zip(fate.lost) {
                *sum += part;
            }
            for (second, row) in fate.nobody {
                self.ledger.add_row(second, &row);
            }
            losses.extend(self.absences(&participant));
            losses.extend(fate.loss);
            workers.push(self.worker(session, &participant, &fate.odometers));
        }
        let fate = self.nobodys(end);
        odometers.add(&fate.odometers);
        for (second, row) in fate.nobody {
            self.ledger.add_row(second, &row);
        }
        let lost = |p: &Participant| matches!(p.stage, Stage::Lost { .. });
        let gone = |p: &Participant| lost(p) || matches!(p.stage, Stage::Left { .. });
        let everybody_lost = self.participants.values().all(gone) && self.participants.values().any(lost);
        let ending = if let Some(Cause::Failed(failed)) = self.cause.clone() {
            Ending::Failed(failed)
        } else if everybody_lost && self.stopped_at.is_none() {
            let names: Vec<String> = self.participants.values().map(|p| p.name.to_string()).collect();
            Ending::Failed(format!("all workers were lost: {}", names.join(", ")))
        } else if self.everybody_left(ran.into(), &odometers) {
            let names: Vec<String> = self.participants.values().map(|p| p.name.to_string()).collect();
            let of = self.spec.plan.test_time.map_or_else(String::new, |time| format!(" of {} s", time.as_secs()));
            let names = names.join(", ");
            Ending::Failed(format!("all workers left after {:.1} s{of}; the rest was not run: {names}", end.as_secs()))
        } else if self.cause == Some(Cause::Rule) {
            Ending::Breached
        } else if self.stopped_at.is_some() && self.cause != Some(Cause::UsedUp) {
            Ending::Stopped
        } else {
            Ending::Completed
        };
        let (total, unmarked, timeline) = self.ledger.snapshots(end);
        let (records, records_seen) = self.ledger.take_records();
        let shortage = self.shortage(&records, records_seen, ran.into());
        Ok(Measured {
            run: self.spec.run.clone(),
            plan: self.spec.plan.clone(),
            program: self.program.clone(),
            plan_digest: self.spec.digest.clone(),
            mode: if self.spec.local { "local" } else { "cluster" },
            started_at: wall - TimeDelta::nanoseconds(ran.as_nanos() as i64),
            ended_at: wall,
            duration_s: end.as_secs(),
            total,
            unmarked,
            timeline,
            blocks: self.ledger.blocks().clone(),
            odometers,
            lost: lost_by_phase.iter().sum(),
            lost_by_phase,
            workers,
            losses,
            events: self.events.iter().cloned().chain(shortage).collect(),
            watched: self.watch.finish(end),
            records,
            records_seen,
            all_records: None,
            ending,
            collected: self.ledger.collected().cloned(),
        })
    }

    /// Fewer requests are kept than the plan wants, and why.
    fn shortage(&self, records: &[Record], seen: [u64; 2], at: RunTime) -> Option<Event> {
        let failures = records.iter().filter(|record| record.error.is_some()).count() as u64;
        let kept = [records.len() as u64 - failures, failures];
        let wanted = seen.map(|seen| seen.min(self.spec.plan.records.keep));
        if kept.iter().zip(wanted).all(|(kept, wanted)| *kept >= wanted) {
            return None;
        }
        let lost = self.participants.values().filter(|p| matches!(p.stage, Stage::Lost { .. }));
        let lost: Vec<&str> = lost.map(|p| &*p.name.0).collect();
        let why = if lost.is_empty() {
            "they are too large, or did not arrive in time".to_owned()
        } else {
            format!("what {} had not sent yet was lost with it, so the sample has less of its end", lost.join(", "))
        };
        let (kept, wanted) = (kept.iter().sum::<u64>(), wanted.iter().sum::<u64>());
        Some(Event {
            at_s: at.as_secs(),
            what: format!("kept {kept} of {wanted} requests: {why}"),
            by: "records".into(),
        })
    }

    /// Whether the run is over at `ran` only because its workers were ended: neither the plan nor anybody
    /// who may end it did so.
    fn everybody_left(&self, ran: RunTime, odometers: &Odometers) -> bool {
        let plan = &self.spec.plan;
        let ended = self.stopped_at.is_some() || self.cause.is_some() || self.spec.one_worker;
        // a worker ends by its own clock
        if ended || self.participants.values().any(|p| p.latest(ran) >= plan.end()) {
            return false;
        }
        let has_none = |pool| self.tickets.left(pool) == 0;
        let stops_users = |source: &SourcePlan| source.dealing == Dealing::Once(AtEnd::StopUser);
        let mut sources = plan.sources.iter().zip(0..);
        let rows_end = sources.any(|(source, index)| stops_users(source) && has_none(Pool::Source(index)));
        let due = || odometers.phases.iter().map(|phase| phase.due).sum::<u64>();
        let iterations_end = plan.iterations.is_some()
            && self.arrivals().map_or_else(|| has_none(Pool::Iterations), |arrivals| due() >= arrivals);
        !rows_end && !iterations_end
    }

    /// Arrivals of the whole plan; `None`: not all of its load is arrivals.
    fn arrivals(&self) -> Option<u64> {
        let (plan, full) = (&self.load, LaneSet::full());
        let all_open = plan.scenarios.iter().all(|s| matches!(s.load, Load::Open(_)));
        all_open.then(|| plan.scenarios.iter().map(|s| own_due(plan, s, &full, RunTime(0), plan.end())).sum())
    }

    /// Run time at which starting ended: by plan, because somebody stopped it, or because there
    /// was nothing more to start.
    fn starting_ended(&self, ran: RunTime) -> RunTime {
        // workers end by their own clocks, which may be ahead
        let latest = self.participants.values().map(|p| p.latest(ran)).max().unwrap_or(ran);
        let planned = self.spec.plan.end().min(self.stopped_at.unwrap_or(RunTime::MAX)).min(latest);
        // a plan with fewer arrivals than iterations ends by its time
        let may_use_up = |iterations| self.arrivals().is_none_or(|arrivals| arrivals >= iterations);
        let used_up = self.spec.plan.test_time.is_none() || self.spec.plan.iterations.is_some_and(may_use_up);
        let is_done = |p: &Participant| matches!(p.stage, Stage::Finished | Stage::Left { .. });
        let all_finished = self.participants.values().all(|p| is_done(p) || p.tenures.newest().is_none());
        let sealed =
            self.participants.keys().filter_map(|s| self.ledger.frames(*s)).map(|frames| frames.sealed_at).max();
        match sealed {
            Some(sealed) if used_up && all_finished => planned.min(sealed),
            _ => planned,
        }
    }

    fn fate(&self, session: SessionId, participant: &Participant, end: RunTime) -> Fate {
        let frames = self.ledger.frames(session).cloned().unwrap_or_default();
        let mut fate = Fate { odometers: frames.odometers, ..Fate::default() };
        match &participant.stage {
            Stage::Lost { until, how, .. } if participant.tenures.newest().is_some() => {
                self.settle_lost(participant, &frames, (*until, how, end), &mut fate);
            }
            Stage::Left { at } => {
                // its share was nobody's from its last start on
                let from = frames.sealed_at.min(*at).min(end);
                self.settle_unstarted(participant, from, &mut fate);
                self.settle_nobody((from, end), |from, to| due(&self.load, &participant.tenures, from, to), &mut fate);
                let reason = "it left before the end; its share was not taken over".to_owned();
                let to = taken_over(participant, from).unwrap_or(end);
                let reason = if to < end { "it left before the end".to_owned() } else { reason };
                let planned = planned(&fate);
                fate.loss = Some(loss(participant, (from, to), (planned, 0), 0, reason));
            }
            Stage::Finished => self.settle_unstarted(participant, end, &mut fate),
            Stage::Asked | Stage::Ready | Stage::Armed(_) | Stage::Lost { .. } => {}
        }
        fate
    }

    fn settle_lost(
        &self,
        participant: &Participant,
        frames: &Frames,
        (until, how, end): (RunTime, &str, RunTime),
        fate: &mut Fate,
    ) {
        let plan = &self.load;
        let until = until.min(last_start(plan));
        let started = |o: &Odometers| o.of_requests().iter().map(|p| p.requests_started).sum::<u64>();
        let iterations =
            |o: &Odometers| o.phases.iter().map(|p| p.iterations + p.dropped.iter().sum::<u64>()).sum::<u64>();
        // the newest report: the last beat, unless a frame says more
        let span_end = RunTime(u64::from(frames.to_second) * SECOND).min(frames.sealed_at);
        let (newest, reported_at) = match &participant.beat {
            Some(beat) if beat.odometers.is_after(&frames.odometers) => (beat.odometers, beat.at),
            Some(beat) => (frames.odometers, span_end.max(beat.at)),
            None => (frames.odometers, span_end),
        };
        // before it owned anything it started nothing
        let reported_at = reported_at.max(participant.tenures.first_from());
        let settled = frames.settled();
        let settled = &settled[..Phase::LEAST];
        let known = Known {
            settled: settled.iter().sum(),
            started: started(&newest),
            iterations: iterations(&newest),
            taken: newest.phases.iter().map(|p| p.due).sum(),
            reported_at,
            until,
            top_rate: self.top_rate(participant, until),
            users: frames.users_max.max(participant.beat.as_ref().map_or(0, |beat| beat.users)),
        };
        let mut total = bound(plan, &participant.tenures, &known);
        // what is certain belongs to its phase, the rest to the phase in which it could have begun
        let mut rest = total;
        fate.odometers = newest;
        // messages that no frame brought are not known of at all
        fate.odometers.phases[Phase::Messages.index()] = *frames.odometers.phase(Phase::Messages);
        for (index, settled) in settled.iter().enumerate() {
            let certain = newest.phases[index].requests_started.saturating_sub(*settled).min(rest);
            fate.lost[index] = certain;
            rest -= certain;
        }
        fate.lost[plan.phase_at(reported_at).index()] += rest;
        // nobody knows which of the rest were hooks: each of the two lines holds by itself
        let begun = newest.phase(Phase::Hooks).requests_started;
        let in_hooks = hooks(plan, &participant.tenures, &known, begun).min(rest);
        fate.lost[Phase::Hooks.index()] += in_hooks;
        total += in_hooks;
        for (index, settled) in settled.iter().enumerate() {
            let odometer = &mut fate.odometers.phases[index];
            odometer.requests_in_flight = frames.odometers.phases[index].requests_in_flight;
            odometer.requests_ended = frames.odometers.phases[index].requests_ended;
            odometer.requests_unsent = frames.odometers.phases[index].requests_unsent;
            odometer.requests_started = settled + fate.lost[index];
        }
        let before_plan_end = until < end;
        // arrivals between the report and `until` are in doubt: they count as started
        for (from, to, phase) in phases(plan.warmup, RunTime(0), until) {
            let own = due(plan, &participant.tenures, from, to);
            let odometer = &mut fate.odometers.phases[phase.index()];
            let dropped: u64 = odometer.dropped.iter().sum();
            if own > odometer.iterations + dropped {
                odometer.iterations = own - dropped;
            }
            odometer.due = odometer.iterations + dropped;
        }
        if before_plan_end {
            self.settle_nobody((until, end), |from, to| due(plan, &participant.tenures, from, to), fate);
        }
        let taken_over = taken_over(participant, until).filter(|from| *from < end);
        let to = if before_plan_end { taken_over.unwrap_or(end) } else { until };
        let planned = planned(fate);
        let certain = known.started.saturating_sub(known.settled);
        let then = taken_over.map_or_else(
            || "its share was not taken over".to_owned(),
            |from| format!("its share was taken over at {:.1} s", from.as_secs()),
        );
        let reason =
            format!("{how}; {certain} of the requests it had started by its last report are unaccounted for; {then}");
        fate.loss = Some(loss(participant, (until, to), (planned, 0), total, reason));
    }

    /// Highest rate of starts of a worker until then: what it or others have shown by as many lanes, and as much more
    /// as users have become more. One that fell silent early has shown too little. Beats of another master's time are
    /// not known; then frames tell at least the average.
    fn top_rate(&self, participant: &Participant, until: RunTime) -> f64 {
        let users = |at: RunTime| {
            let closed = |s: &ScenarioPlan| match &s.load {
                Load::Closed(load) => load.peak(at.min(self.load.end())),
                Load::Open(_) => 0,
            };
            self.load.scenarios.iter().map(closed).sum::<u64>().max(1) as f64
        };
        let most = users(until);
        let grown = |rate: f64, at: RunTime| rate * (most / users(at)).max(1.0);
        let average = |frames: &Frames| {
            let started: u64 = frames.odometers.of_requests().iter().map(|p| p.requests_started).sum();
            // the last second may be no whole one
            let seconds = frames.sealed_at.as_secs().min(frames.to_second.into()).max(0.1);
            grown(started as f64 / seconds, frames.sealed_at)
        };
        let by_lane = |(session, p): (&SessionId, &Participant)| {
            let average = self.ledger.frames(*session).map_or(0.0, average) / p.tenures.most_lanes().max(1) as f64;
            grown(p.busiest.starts_by_lane, p.busiest.at).max(average)
        };
        self.participants.iter().map(by_lane).fold(0.0, f64::max) * participant.tenures.most_lanes() as f64
    }

    /// Arrivals that are due in a span in which nobody owned the lanes.
    fn settle_nobody(&self, (from, to): (RunTime, RunTime), due: impl Fn(RunTime, RunTime) -> u64, fate: &mut Fate) {
        let plan = &self.load;
        if !plan.scenarios.iter().any(|s| matches!(s.load, Load::Open(_))) {
            return;
        }
        let reason = DropReason::NoOwner.index();
        for (from, to, phase) in phases(plan.warmup, from, to) {
            let mut at = from;
            while at < to {
                let next = RunTime((at.0 / SECOND + 1) * SECOND).min(to);
                let due = due(at, next);
                let odometer = &mut fate.odometers.phases[phase.index()];
                odometer.due += due;
                odometer.dropped[reason] += due;
                let mut row = Row::default();
                row.dropped[reason] = due;
                fate.nobody.push((at.second(), row));
                at = next;
            }
        }
    }

    /// Arrivals that were due on lanes while they had no owner at all.
    fn nobodys(&self, end: RunTime) -> Fate {
        let plan = &self.load;
        let mut fate = Fate::default();
        let tenures: Vec<&Tenures> = self.participants.values().map(|p| &p.tenures).collect();
        for (from, to, lanes) in nobodys(&tenures, end) {
            let due = |from, to| plan.scenarios.iter().map(|s| own_due(plan, s, &lanes, from, to)).sum();
            self.settle_nobody((from, to), due, &mut fate);
        }
        fate
    }

    /// Arrivals that a worker owned until `sealed` and has not counted: due when it had stopped starting
    /// and not yet sealed its last span, or on lanes that it was given when it had finished.
    fn settle_unstarted(&self, participant: &Participant, sealed: RunTime, fate: &mut Fate) {
        let plan = &self.load;
        // in the closed model iterations are due when they start
        if plan.scenarios.iter().any(|s| matches!(s.load, Load::Closed(_))) {
            return;
        }
        let reason = DropReason::NoOwner.index();
        for (from, to, phase) in phases(plan.warmup, RunTime(0), sealed) {
            let own = due(plan, &participant.tenures, from, to);
            let odometer = &mut fate.odometers.phases[phase.index()];
            let missing = own.saturating_sub(odometer.due);
            odometer.due += missing;
            odometer.dropped[reason] += missing;
            let mut row = Row::default();
            row.dropped[reason] = missing;
            fate.nobody.push((to.second(), row));
        }
    }

    /// Spans in which a worker was lost before it came back and delivered what it had measured: its own
    /// counters say what nobody started.
    fn absences(&self, participant: &Participant) -> Vec<Loss> {
        let spans = participant.absences.iter().map(|absence| {
            let to = taken_over(participant, absence.from).map_or(absence.to, |taken| taken.min(absence.to));
            let planned = due(&self.load, &participant.tenures, absence.from, to);
            let back = absence.to.as_secs();
            let reason = format!("{}; it came back at {back:.1} s with what it had measured", absence.how);
            loss(participant, (absence.from, to), (planned, 0), 0, reason)
        });
        spans.collect()
    }

    fn worker(&self, session: SessionId, participant: &Participant, odometers: &Odometers) -> WorkerResult {
        let frames = self.ledger.frames(session).cloned().unwrap_or_default();
        let (state, lost_at) = match &participant.stage {
            Stage::Lost { at, .. } => ("lost", Some(*at)),
            Stage::Left { at } => ("left", Some(*at)),
            _ if participant.was_late => ("late", None),
            _ => ("ok", None),
        };
        WorkerResult {
            name: participant.name.to_string(),
            cores: participant.cores,
            users_max: frames.users_max,
            requests: odometers.of_requests().iter().map(|p| p.requests_started).sum(),
            cpu_max: f64::from(frames.cpu_max_permille) / 1_000.0,
            lag_p99_ms: frames.scheduler_lag.percentile(99.0) as f64 / 1_000.0,
            clock_offset_ms: participant.clock.offset as f64 / 1e6,
            clock_error_ms: participant.clock.error as f64 / 1e6,
            start_skew_ms: frames.start_skew.map_or(0.0, |skew| skew as f64 / 1e6),
            state,
            lost_at_s: lost_at.map(RunTime::as_secs),
        }
    }
}

/// What became of one worker's share.
#[derive(Default)]
struct Fate {
    odometers: Odometers,
    lost: [u64; Phase::COUNT],
    /// Starts that nobody made, by second.
    nobody: Vec<(u32, Row)>,
    loss: Option<Loss>,
}

/// When others took over what a worker owned at `from`.
fn taken_over(participant: &Participant, from: RunTime) -> Option<RunTime> {
    participant.tenures.next_after(from)
}

fn planned(fate: &Fate) -> u64 {
    fate.nobody.iter().map(|(_, row)| row.dropped[DropReason::NoOwner.index()]).sum()
}

fn loss(
    participant: &Participant,
    (from, to): (RunTime, RunTime),
    (planned, achieved): (u64, u64),
    bound: u64,
    reason: String,
) -> Loss {
    let worker = participant.name.to_string();
    Loss { from_s: from.as_secs(), to_s: to.as_secs(), worker, planned, achieved, bound, reason }
}

/// The last instant at which anything may start: the planned end, or that of the grace in which
/// users do what they do last.
fn last_start(plan: &Plan) -> RunTime {
    let stops = plan.scenarios.iter().any(|scenario| !scenario.on_stop.is_empty());
    let grace = if stops { plan.graceful_stop.0 } else { 0 };
    RunTime(plan.end().0.saturating_add(grace))
}

/// Cuts a span where the warm-up ends.
fn phases(warmup: RunTime, from: RunTime, to: RunTime) -> impl Iterator<Item = (RunTime, RunTime, Phase)> {
    let parts = [(from, to.min(warmup), Phase::Warmup), (from.max(warmup), to, Phase::Main)];
    parts.into_iter().filter(|(from, to, _)| from < to)
}
