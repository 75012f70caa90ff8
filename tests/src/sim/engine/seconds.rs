//! Seconds that become frames, and the end.

use super::{Act, Engine, Job, Kind, Said};
use ld_shared::frame::{FrameBody, Generator};
use ld_shared::snapshot::DropReason;
use ld_shared::time::RunTime;

impl Engine {
    pub(super) fn roll(&mut self, now: u64) {
        let Some(t0) = self.t0.filter(|t0| now >= *t0 && !self.finished) else { return };
        let second = RunTime(now - t0).second();
        while self.second < second {
            self.emit();
        }
    }

    pub(super) fn emit(&mut self) {
        let second = self.second;
        let mut counts = self.building.remove(&second).unwrap_or_default();
        counts.rows.entry(second).or_default();
        let body = FrameBody { from_second: second, to_second: second + 1, counts, ..self.body() };
        self.said.push(Said::Span(Box::new(body)));
        self.second += 1;
    }

    pub(super) fn body(&self) -> FrameBody {
        let generator = Generator { cores: 1, users_max: self.users_max, ..Generator::default() };
        FrameBody { odometers: self.odometers, generator, ..FrameBody::default() }
    }

    pub(super) fn begin_drain(&mut self, now: u64) {
        if self.drain.is_some() {
            return;
        }
        let (t0, to, leased) = (self.t0.unwrap_or(0), now.min(self.end), !self.lease_over(now));
        for scenario in 0..self.arrivals.len() {
            if !leased {
                self.drop_unleased(scenario, to, 0);
            }
            while let Some(due) = self.next_due(scenario).map(|due| t0 + due.0).filter(|due| *due <= to) {
                self.take_next(scenario);
                let phase = self.phase_at(due);
                self.odometers.phases[phase.index()].due += 1;
                self.drop_arrival(due, DropReason::GeneratorLate);
            }
        }
        let until = now.saturating_add(self.plan.graceful_stop.0);
        self.drain = Some(until);
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(_, job)| job);
        // those whose tickets are here, and that were about to begin
        let begins = |act: &Act| matches!(act, Act::Next(Job { kind: Kind::Arrival { .. }, step: 0, .. }));
        let about = self.acts.extract_if(.., |_, act| begins(act)).filter_map(|(_, act)| match act {
            Act::Next(job) => Some(job),
            _ => None,
        });
        let jobs: Vec<Job> = waiting.chain(about).chain(std::mem::take(&mut self.parked)).collect();
        for job in jobs {
            self.refuse(now, job);
        }
        self.at(until, Act::Over);
    }

    /// Ends, if nothing is left to do.
    pub(super) fn settle(&mut self, now: u64) {
        if self.finished || self.t0.is_none() {
            return;
        }
        let idle = self.users == 0 && self.open.is_empty() && self.waiting.is_empty() && self.parked.is_empty();
        let to_come = |act: &Act| matches!(act, Act::Begin(_) | Act::Next(_) | Act::Arrive(_) | Act::Caps);
        let done = if let Some(until) = self.drain {
            self.open.is_empty() || now >= until || self.aborted
        } else {
            // users end by themselves only when the iterations are used up; else it waits for more lanes
            let used_up = self.plan.iterations.is_some() && !self.lanes.is_empty();
            let next = (0..self.arrivals.len()).any(|scenario| self.next_due(scenario).is_some());
            used_up && idle && !next && !self.lease_over(now) && !self.acts.values().any(to_come)
        };
        if !done {
            return;
        }
        for open in std::mem::take(&mut self.open).into_values() {
            self.odometers.phases[open.phase.index()].requests_in_flight += 1;
        }
        self.emit();
        let second = self.second;
        let last = FrameBody { from_second: second, to_second: second, last: true, ..self.body() };
        self.said.push(Said::Span(Box::new(last)));
        self.finished = true;
        self.acts.clear();
    }
}
