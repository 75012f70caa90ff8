//! The open model: arrivals on the lanes that are owned, by tenure.

use super::super::net::MS;
use super::super::truth::Truth;
use super::{Act, Engine, Job, Kind, Tenure};
use ld_shared::lanes::LaneSet;
use ld_shared::load::{ArrivalCursor, ArrivalId, Load};
use ld_shared::plan::ScenarioPlan;
use ld_shared::shard::Shard;
use ld_shared::snapshot::DropReason;
use ld_shared::time::{RunTime, SECOND};
use std::sync::Arc;

impl Engine {
    pub(super) fn change_arrivals(&mut self, index: usize, scenario: &ScenarioPlan, shard: &Shard, added: &LaneSet) {
        let Load::Open(load) = &scenario.load else { return };
        let Some(arrivals) = &mut self.arrivals[index] else { return };
        let load = Arc::new(load.clone());
        let plan = &self.plan;
        let tenure = |lanes: LaneSet, from: RunTime| {
            let list: Arc<[u16]> = lanes.iter().collect();
            let (seed, first) = (scenario.arrival_seed(plan), scenario.first_number);
            let cursor = ArrivalCursor::new(Arc::clone(&load), seed, first, list, from, plan.end());
            Tenure { lanes, until: RunTime::MAX, cursor: cursor.limited(plan.most_arrivals(scenario)) }
        };
        let mut new = vec![tenure(added.clone(), shard.from)];
        for old in arrivals.tenures.iter_mut().filter(|old| old.until == RunTime::MAX) {
            let mut kept = old.lanes.clone();
            old.lanes.iter().filter(|lane| !shard.lanes.contains(*lane)).for_each(|lane| kept.remove(lane));
            // what was taken of a lane that is kept is not taken again
            let from = old.next().map_or(RunTime::MAX, |next| next.max(shard.from));
            new.push(tenure(kept, from));
            old.until = shard.from;
        }
        arrivals.tenures.extend(new);
        arrivals.tenures.retain(|tenure| tenure.next().is_some());
    }

    /// Drops what was due by `to` and was not started for want of a lease since `lapsed`.
    pub(super) fn drop_unleased(&mut self, scenario: usize, to: u64, lapsed: u64) {
        let t0 = self.t0.unwrap_or(0);
        let gone = |due: u64| due >= lapsed || to.saturating_sub(due) > SECOND;
        while let Some(due) = self.next_due(scenario).map(|due| t0 + due.0).filter(|due| *due <= to && gone(*due)) {
            self.take_next(scenario);
            let phase = self.phase_at(due);
            self.odometers.phases[phase.index()].due += 1;
            self.drop_arrival(due, DropReason::NoOwner);
        }
    }

    pub(super) fn change_caps(&mut self, now: u64, truth: &mut Truth) {
        let Some((_, caps)) = self.next_caps.take_if(|(at, _)| *at <= now) else { return };
        truth.caps(self.who, &caps);
        for (arrivals, cap) in self.arrivals.iter_mut().zip(caps) {
            if let Some(arrivals) = arrivals {
                arrivals.cap = cap;
            }
        }
    }

    pub(super) fn next_due(&self, scenario: usize) -> Option<RunTime> {
        self.arrivals.get(scenario)?.as_ref()?.tenures.iter().filter_map(Tenure::next).min()
    }

    pub(super) fn take_next(&mut self, scenario: usize) -> Option<(ArrivalId, RunTime)> {
        let tenures = &mut self.arrivals.get_mut(scenario)?.as_mut()?.tenures;
        let next = tenures.iter_mut().filter(|tenure| tenure.next().is_some()).min_by_key(|tenure| tenure.next())?;
        let taken = next.cursor.take();
        tenures.retain(|tenure| tenure.next().is_some());
        taken
    }

    pub(super) fn expect_arrival(&mut self, scenario: usize, now: u64) {
        let t0 = self.t0.unwrap_or(0);
        if let Some(due) = self.next_due(scenario).filter(|_| self.drain.is_none()) {
            // a pacer is a little late
            let lag = self.rng.below(MS);
            self.at((t0 + due.0 + lag).max(now), Act::Arrive(scenario));
        }
    }

    /// The next arrival that is due and may be started. Without a lease none is taken.
    pub(super) fn take_arrival(&mut self, scenario: usize, now: u64) -> Option<(ArrivalId, u64)> {
        let t0 = self.t0?;
        if self.drain.is_some() || self.lease_over(now) || self.is_over(now) {
            return None;
        }
        loop {
            self.next_due(scenario).filter(|due| t0 + due.0 <= now)?;
            let (id, due) = self.take_next(scenario)?;
            let due = t0 + due.0;
            let phase = self.phase_at(due);
            self.odometers.phases[phase.index()].due += 1;
            if now - due <= SECOND {
                return Some((id, due));
            }
            self.drop_arrival(due, DropReason::GeneratorLate);
        }
    }

    pub(super) fn drop_arrival(&mut self, due: u64, reason: DropReason) {
        let phase = self.phase_at(due);
        self.odometers.phases[phase.index()].dropped[reason.index()] += 1;
    }

    pub(super) fn refuse_arrival(&mut self, now: u64, due: u64) {
        let reason = if self.lease_over(now) { DropReason::NoOwner } else { DropReason::GeneratorLate };
        self.drop_arrival(due, reason);
    }

    pub(super) fn serve(&mut self, now: u64, scenario: usize, (id, due): (ArrivalId, u64), truth: &mut Truth) {
        let Some(arrivals) = &mut self.arrivals[scenario] else { return };
        if arrivals.open >= arrivals.cap {
            self.drop_arrival(due, DropReason::InFlightCap);
            return;
        }
        arrivals.open += 1;
        self.users_changed(1);
        self.go_on(now, Job { scenario, kind: Kind::Arrival { id, due }, step: 0, next_source: 0 }, truth);
    }
}
