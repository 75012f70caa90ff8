//! One worker in one run.

use crate::cluster::assign::Strength;
use crate::cluster::handover::Tenures;
use ld_shared::id::{Epoch, WorkerName};
use ld_shared::message::{BEAT_EVERY, LEASE, RunBeat};
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
    /// Its process has died, says its heir.
    pub(super) died: Option<Died>,
    pub(super) busiest: Busiest,
    pub(super) clock: ld_shared::message::ClockReport,
    pub(super) pace: Option<Pace>,
    pub(super) was_late: bool,
}

/// When a process died, by its own run clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Died {
    after: RunTime,
    before: RunTime,
    /// When its heir was heard of last, by the master's.
    pub(super) heard: RunTime,
}

impl Died {
    /// When it had started everything, if nothing else is known than that it was by `until`.
    fn bound(self, until: RunTime) -> RunTime {
        // it outlived what was taken for its end
        if until < self.after { self.before } else { until.min(self.before) }
    }
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

    /// Its process has died, says its heir at `now`; `word`: the newest that is known of its load; counted frames tell of
    /// it up to `told`. The thread that writes it down is the one that renews the lease.
    pub(super) fn take_last_word(&mut self, word: Option<RunBeat>, told: RunTime, now: RunTime) {
        let told = self.beat.as_ref().map_or(told, |beat| told.max(beat.at));
        // what could not be written down for long says nothing of its end
        let newest = word.as_ref().map(|word| word.at).filter(|at| at.0.saturating_add(SECOND) > told.0);
        let renewed = (LEASE + BEAT_EVERY).as_nanos() as u64;
        let leased = newest.map_or(RunTime::MAX, |at| RunTime(at.0.saturating_add(renewed)));
        let after = newest.map_or(told, |at| at.max(told));
        let before = self.latest(now).min(leased).max(after);
        let known = self.died;
        let died = Died {
            after: known.map_or(after, |known| known.after.max(after)),
            before: known.map_or(before, |known| known.before.min(before)).max(after),
            heard: now,
        };
        self.died = Some(died);
        if let Stage::Lost { until, .. } = &mut self.stage {
            *until = died.bound(*until);
        }
        let is_news = |word: &RunBeat| {
            self.beat.as_ref().is_none_or(|had| word.at > had.at && word.odometers.is_after(&had.odometers))
        };
        self.beat = word.filter(is_news).or(self.beat.take());
    }

    /// Whether it can be given something to do.
    pub(super) fn may_take(&self) -> bool {
        // a ready one makes load from its first part on
        (self.makes_load() || self.stage == Stage::Ready) && self.died.is_none()
    }

    /// It is lost: by the master's run clock it started nothing after `until`.
    pub(super) fn lose(&mut self, at: RunTime, until: RunTime, silent: bool, how: String) {
        // it started by its own clock
        let until = self.latest(until);
        let until = self.died.map_or(until, |died| died.bound(until));
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
            let owned = self.tenures.within(before.at, report.at).map(|(.., lanes)| lanes.len()).max();
            let starts_by_lane = rate / owned.unwrap_or_else(|| self.tenures.most_lanes()).max(1) as f64;
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
