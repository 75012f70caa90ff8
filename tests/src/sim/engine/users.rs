//! The closed model: users whose lanes come and go.

use super::super::net::MS;
use super::super::truth::Truth;
use super::{Act, Engine, Job, Kind, Open};
use ld_shared::lanes::{LANES, LaneSet};
use ld_shared::load::Load;
use ld_shared::plan::ScenarioPlan;
use ld_shared::sample::Phase;
use ld_shared::shard::Shard;
use ld_shared::time::{RunTime, SECOND};

impl Engine {
    /// Users whose lane is lost start nothing more.
    pub(super) fn end_users(&mut self, scenario: &ScenarioPlan, shard: &Shard, t0: u64) {
        let lost = |number: u64| !shard.lanes.contains(((scenario.first_number + number) % LANES as u64) as u16);
        let at = t0.saturating_add(shard.from.0);
        let living = self.open.values().map(|open| open.job).chain(self.parked.iter().copied());
        let waiting = self.waiting.iter().map(|(_, job)| *job);
        let acting = self.acts.values().filter_map(|act| match act {
            Act::Begin(job) | Act::Next(job) => Some(*job),
            Act::Arrive(_) | Act::Answer(_) | Act::Over | Act::Roll | Act::Caps => None,
        });
        for job in living.chain(waiting).chain(acting) {
            if let Kind::User { number, life, .. } = job.kind
                && self.plan.scenarios[job.scenario].name == scenario.name
                && lost(number)
                && let Some(end) = self.ends.get_mut(&life)
            {
                *end = at.min(*end);
            }
        }
    }

    /// Users on lanes that are owned anew from `from` on: those who live then begin over a second.
    pub(super) fn plan_users(
        &mut self,
        now: u64,
        index: usize,
        scenario: &ScenarioPlan,
        from: RunTime,
        lanes: &LaneSet,
        truth: &mut Truth,
    ) {
        let (Load::Closed(load), Some(t0)) = (&scenario.load, self.t0) else { return };
        let end = self.plan.end();
        let own = |number: &u64| lanes.contains(((scenario.first_number + number) % LANES as u64) as u16);
        let numbers: Vec<u64> = (0..load.peak(end)).filter(own).collect();
        let count = numbers.len().max(1) as u64;
        for (position, number) in numbers.into_iter().enumerate() {
            for life in load.lives(number).into_iter().filter(|life| life.start < end && life.end > from) {
                let room = SECOND / 5;
                let moved = life.start < from;
                let spread = if moved { room + (SECOND - room) * position as u64 / count } else { 0 };
                let kind = Kind::User { number, life: truth.new_life(from), ticket: false };
                let Kind::User { life: name, .. } = kind else { continue };
                self.ends.insert(name, t0.saturating_add(life.end.min(end).0));
                let job = Job { scenario: index, kind, step: 0, next_source: 0 };
                let begin = t0 + life.start.max(from).0 + spread;
                self.at(begin.max(now), Act::Begin(job));
            }
        }
    }

    pub(super) fn begin_user(&mut self, now: u64, job: Job, truth: &mut Truth) {
        let Kind::User { number, .. } = job.kind else { return };
        if self.is_over(now) || self.has_ended(now, job) {
            return;
        }
        let busy = |open: &Open| {
            open.job.scenario == job.scenario && matches!(open.job.kind, Kind::User { number: n, .. } if n == number)
        };
        if self.open.values().any(busy) {
            // one with this number, of an earlier tenure, still waits for its answer
            self.at(now + 20 * MS, Act::Begin(job));
            return;
        }
        self.users_changed(1);
        if self.plan.scenarios[job.scenario].on_start.is_empty() {
            self.go_on(now, job, truth);
        } else {
            self.request(now, job, Phase::Hooks, truth);
        }
    }

    /// Whether a user's time is over.
    pub(super) fn has_ended(&self, now: u64, job: Job) -> bool {
        match job.kind {
            Kind::User { life, .. } => self.ends.get(&life).is_none_or(|end| now >= *end),
            Kind::Arrival { .. } => false,
        }
    }
}
