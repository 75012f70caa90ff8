//! One worker in one run.

use crate::cluster::assign::Strength;
use crate::cluster::handover::Tenures;
use ld_shared::id::{Epoch, WorkerName};
use ld_shared::message::{LEASE, RunBeat};
use ld_shared::throttle::ThrottleShare;
use ld_shared::time::{RunTime, SECOND};

#[derive(Clone, Debug)]
pub(super) struct Participant {
    pub(super) name: WorkerName,
    pub(super) cores: u32,
    pub(super) stage: Stage,
    pub(super) asked_blobs: bool,
    pub(super) strength: Strength,
    /// What it owns, and since when.
    pub(super) tenures: Tenures,
    /// The newest assignment that it has confirmed.
    pub(super) confirmed: Epoch,
    /// Its shares of limits at the start.
    pub(super) throttles: Vec<ThrottleShare>,
    /// Spans in which it was lost before it came back.
    pub(super) absences: Vec<Absence>,
    pub(super) beat: Option<RunBeat>,
    /// Between these instants of its own run clock its process died, says its heir.
    pub(super) died: Option<(RunTime, RunTime)>,
    pub(super) busiest: Busiest,
    pub(super) clock: ld_shared::message::ClockReport,
    pub(super) pace: Option<Pace>,
    pub(super) was_late: bool,
}

/// The time between two reports in which a worker started most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busiest {
    /// Requests per second and lane.
    pub(super) starts_by_lane: f64,
    pub(super) at: RunTime,
}

/// How far a worker's run clock is ahead of ours, ns, by the beats of a span and of the one before: the
/// one that was fastest on its way tells best.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    since: RunTime,
    ahead: i64,
    before: i64,
}

/// Beats of so long count together.
const SPAN: u64 = 5 * SECOND;
/// Clocks drift apart by one in so many at most, each by half of it.
const DRIFT: u64 = 500;

impl Pace {
    fn take(known: Option<Self>, at: RunTime, received: RunTime) -> Self {
        let ahead = at.0.cast_signed() - received.0.cast_signed();
        match known {
            None => Self { since: received, ahead, before: ahead },
            Some(pace) if received.0.saturating_sub(pace.since.0) > SPAN => {
                Self { since: received, ahead, before: pace.ahead }
            }
            Some(pace) => Self { ahead: pace.ahead.max(ahead), ..pace },
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// Got the plan.
    Asked,
    /// Can start.
    Ready,
    /// Will start at the instant of this attempt.
    Armed(u32),
    /// Its last frame is in.
    Finished,
    /// Said goodbye after its last frame, before the others ended.
    Left { at: RunTime },
    /// Gone: it started nothing after `until`. `silent`: it may come back.
    Lost { at: RunTime, until: RunTime, silent: bool, how: String },
}

/// A worker was lost, and came back.
#[derive(Clone, Debug)]
pub(super) struct Absence {
    pub(super) from: RunTime,
    pub(super) to: RunTime,
    pub(super) how: String,
}

impl Participant {
    pub(super) fn makes_load(&self) -> bool {
        matches!(self.stage, Stage::Armed(_))
    }

    /// The latest that the worker's run clock can show when ours shows `at`.
    pub(super) fn latest(&self, at: RunTime) -> RunTime {
        let error = 2 * self.clock.error;
        let ahead = match self.pace {
            Some(Pace { since, ahead, before }) => {
                let drift = (at.0.saturating_sub(since.0) + SPAN) / DRIFT;
                u64::try_from(ahead.max(before)).unwrap_or(0) + drift
            }
            // no beat has told: what its clock can have gained since the start
            None => at.0 / DRIFT,
        };
        RunTime(at.0.saturating_add(ahead + error))
    }

    /// It is back at `at`, if it was lost; `finished`: with all that it had measured.
    pub(super) fn return_from_loss(&mut self, at: RunTime, finished: bool) -> bool {
        let Stage::Lost { until, how, .. } = &self.stage else { return false };
        self.absences.push(Absence { from: *until, to: at, how: how.clone() });
        self.stage = if finished { Stage::Finished } else { Stage::Armed(0) };
        true
    }

    /// Its process has died, says its heir at `now`; `word`: the newest that is known of its load. The thread that
    /// writes it down is the one that renews the lease.
    pub(super) fn take_last_word(&mut self, word: Option<RunBeat>, now: RunTime) {
        let lived = word.as_ref().map_or(RunTime(0), |word| word.at);
        let lease = word.as_ref().map_or(u64::MAX, |word| word.at.0.saturating_add(LEASE.as_nanos() as u64));
        let dead_by = self.latest(now).min(RunTime(lease)).max(lived);
        self.died = Some((lived, dead_by));
        if let Stage::Lost { until, silent, .. } = &mut self.stage {
            (*until, *silent) = ((*until).clamp(lived, dead_by), false);
        }
        let is_news = |word: &RunBeat| {
            self.beat.as_ref().is_none_or(|had| word.at > had.at && word.odometers.is_after(&had.odometers))
        };
        self.beat = word.filter(is_news).or(self.beat.take());
    }

    /// It is lost: by the master's run clock it started nothing after `until`.
    pub(super) fn lose(&mut self, at: RunTime, until: RunTime, silent: bool, how: String) {
        // it started by its own clock
        let (lived, dead_by) = self.died.unwrap_or((RunTime(0), RunTime::MAX));
        let until = self.latest(until).clamp(lived, dead_by);
        self.stage = Stage::Lost { at, until, silent, how };
    }

    /// Takes what a beat tells that was received at `received`.
    pub(super) fn take_report(&mut self, report: RunBeat, received: RunTime) {
        self.pace = Some(Pace::take(self.pace, report.at, received));
        if let Some(before) = &self.beat {
            if report.at <= before.at || !report.odometers.is_after(&before.odometers) {
                return;
            }
            let started = |beat: &RunBeat| beat.odometers.of_requests().iter().map(|p| p.requests_started).sum::<u64>();
            let seconds = RunTime(report.at.0 - before.at.0).as_secs();
            let rate = (started(&report) - started(before)) as f64 / seconds;
            let starts_by_lane = rate / self.tenures.part().lanes.len().max(1) as f64;
            if starts_by_lane > self.busiest.starts_by_lane {
                self.busiest = Busiest { starts_by_lane, at: report.at };
            }
        }
        self.beat = Some(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_a_clock_that_drifts_through_beats_that_are_late() {
        let mut pace = None;
        // a clock that gains 200 ppm for an hour; beats take 1 to 60 ms
        for beat in 1..18_000_u64 {
            let at = beat * SECOND / 5;
            let received = RunTime(at + (1 + beat * 7 % 60) * 1_000_000);
            pace = Some(Pace::take(pace, RunTime(at + at / 5_000), received));
        }
        let Pace { since, ahead, before } = pace.unwrap();
        let gained = 3_600_000_000_000 / 5_000;
        let known = ahead.max(before);
        assert!((gained - 10_000_000..gained).contains(&known), "{known} of {gained}");
        assert!(since.0 > 3_590 * SECOND);
    }
}
