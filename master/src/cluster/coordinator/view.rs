//! What can be seen of a run while it goes on.

use super::{Coordinator, Participant, State};
use crate::cluster::membership::Registry;
use crate::cluster::view::{Look, RunView, WorkerNow};
use crate::run::Progress;
use ld_shared::frame::Odometers;
use ld_shared::id::SessionId;
use ld_shared::time::{Mono, RunTime};
use std::time::Duration;

impl Coordinator {
    /// Where the run stands.
    pub fn progress(&self, now: Mono, registry: &Registry) -> Progress {
        let state = match &self.state {
            State::Gathering { .. } => "waiting",
            State::Preparing { .. } | State::Arming { .. } => "preparing",
            State::Running { t0 } if now.since(*t0) > Duration::from_nanos(self.spec.plan.end().0) => "draining",
            State::Running { .. } => "running",
            State::Draining { .. } | State::Collecting { .. } => "draining",
            State::Closed { .. } => "done",
        };
        let waiting = matches!(self.state, State::Gathering { .. });
        let present = || registry.members().map(|(_, member)| member.name.to_string()).collect();
        let working = || self.participants.iter().filter(|(_, p)| p.makes_load());
        // who joined in mid-run and has told nothing yet is in no second
        let is_new = |session, p: &Participant| {
            p.tenures.first_from() > RunTime(0) && self.ledger.counted(session).is_none_or(|(frames, _)| frames == 0)
        };
        let told = working().map(|(session, p)| (*session, p)).filter(|(session, p)| !is_new(*session, p));
        let row = self.ledger.newest_common_row(told.map(|(session, _)| session));
        let response = self.ledger.response();
        let total = self.ledger.total();
        let there = if waiting { registry.len() } else { working().count() };
        Progress {
            state,
            elapsed_s: self.t0().map_or_else(|| now.since(self.began), |t0| now.since(t0)).as_secs_f64(),
            planned_s: self.spec.plan.test_time.map(RunTime::as_secs),
            users: row.map_or(0, |(_, row)| (row.user_ms + 500) / 1_000),
            rate: row.map_or(0.0, |(_, row)| row.requests_started as f64),
            percentiles: [50.0, 95.0, 99.0].map(|p| response.percentile(p)),
            requests: response.count(),
            failures: total.phases[0].failed() + total.phases[1].failed(),
            workers: [there as u32, self.spec.expected as u32],
            present: if waiting { present() } else { Vec::new() },
        }
    }

    /// What is to be seen of it. The caller knows the wall clock of the start.
    pub fn view(&self, look: Look) -> RunView {
        let settled_to = self.ledger.whole_to(self.settled_to());
        let mut odometers = Odometers::default();
        for (_, frames) in self.ledger.sessions() {
            odometers.add(&frames.odometers);
        }
        RunView {
            run: self.spec.run.clone(),
            started_at: None,
            program: self.program.clone(),
            settled_to,
            rows: self.ledger.settled_rows(look.from, settled_to, self.starting_ends()),
            total: look.totals.then(|| self.ledger.total().clone()),
            odometers,
            events: self.events.clone(),
        }
    }

    /// Every worker of the registry, and what it does in this run.
    pub fn workers(&self, now: Mono, registry: &Registry) -> Vec<WorkerNow> {
        let mut workers = present(now, registry);
        for ((session, _), worker) in registry.members().zip(&mut workers) {
            self.part_of(session, worker);
        }
        workers
    }

    fn part_of(&self, session: SessionId, worker: &mut WorkerNow) {
        worker.takes_part = self.participants.get(&session).is_some_and(Participant::makes_load);
        let Some(frames) = self.ledger.frames(session) else { return };
        worker.users = frames.users;
        worker.requests = frames.ended.iter().sum();
        worker.cpu_max = f64::from(frames.cpu_max_permille) / 1e3;
        worker.lag_p99_ms = frames.scheduler_lag.percentile(99.0) as f64 / 1e3;
    }

    /// Run time from which on nothing is started, as far as is known.
    fn starting_ends(&self) -> RunTime {
        self.spec.plan.end().min(self.stopped_at.unwrap_or(RunTime::MAX))
    }

    /// The first second that somebody who makes load has not reported.
    fn settled_to(&self) -> u32 {
        if matches!(self.state, State::Gathering { .. } | State::Preparing { .. } | State::Arming { .. }) {
            return 0;
        }
        let reported = |session: SessionId| self.ledger.frames(session).map_or(0, |frames| frames.to_second);
        let working = self.participants.iter().filter(|(_, p)| p.makes_load());
        let least = working.map(|(session, _)| reported(*session)).min();
        // nobody is at work any more: nothing comes
        least.unwrap_or_else(|| self.participants.keys().map(|s| reported(*s)).max().unwrap_or(0))
    }
}

/// Every worker of the registry, without a run.
pub(in crate::cluster) fn present(now: Mono, registry: &Registry) -> Vec<WorkerNow> {
    let worker = |(session, member): (SessionId, &crate::cluster::membership::Member)| WorkerNow {
        name: member.name.to_string(),
        cores: member.cores,
        late: registry.is_late(session, now),
        takes_part: false,
        users: 0,
        requests: 0,
        cpu_max: 0.0,
        lag_p99_ms: 0.0,
        clock_offset_ms: member.clock.map(|clock| clock.offset as f64 / 1e6),
    };
    registry.members().map(worker).collect()
}
