//! From the first worker to the start instant: gather, prepare, arm.

use super::moves::clock_error;
use super::participant::{Participant, Stage};
use super::{Coordinator, Effect, RunError, State};
use crate::cluster::assign::{Share, Strength, assign};
use crate::cluster::handover::{Part, Tenures};
use crate::cluster::membership::{Member, Registry};
use crate::cluster::throttles::Dealer;
use ld_shared::id::SessionId;
use ld_shared::message::{PREPARE_WITHIN, ToWorker};
use ld_shared::time::Mono;
use std::time::Duration;

/// Attempts to start everybody at one instant.
pub(super) const ARM_ATTEMPTS: u32 = 3;
/// What one worker of many adds to the time that they need to confirm a start instant.
const ARM_ONE: Duration = Duration::from_micros(500);

impl Coordinator {
    pub(super) fn gather(&mut self, now: Mono, until: Mono, registry: &Registry, effects: &mut Vec<Effect>) {
        let expected = self.spec.expected.max(1);
        if registry.len() < expected {
            if now < until {
                return;
            }
            if !self.spec.allow_missing || registry.is_empty() {
                let names: Vec<String> = registry.members().map(|(_, member)| member.name.to_string()).collect();
                let (present, waited) = (registry.len(), self.spec.wait);
                self.close(now, Some(RunError::MissingWorkers { present, expected, waited, names }), effects);
                return;
            }
            self.note(now, format!("started with {} of {expected} workers", registry.len()), "on_missing_workers");
        }
        self.take_in(now, registry, effects);
        self.state = State::Preparing { until: now.after(PREPARE_WITHIN) };
    }

    pub(super) fn await_ready(&mut self, now: Mono, until: Mono, registry: &Registry, effects: &mut Vec<Effect>) {
        let strength = |p: &Participant| (p.stage == Stage::Ready).then_some(p.strength);
        let strengths: Option<Vec<Strength>> = self.participants.values().map(strength).collect();
        let Some(strengths) = strengths else {
            if now >= until {
                let late = self.participants.values().filter(|p| p.stage == Stage::Asked);
                let workers = late.map(|p| p.name.to_string()).collect();
                self.close(now, Some(RunError::NotReady { workers, waited: PREPARE_WITHIN }), effects);
            }
            return;
        };
        match assign(&self.spec.plan, &strengths) {
            Err(error) => self.close(now, Some(error.into()), effects),
            Ok(shares) => {
                let wanted: u64 = shares.iter().map(|share| share.wanted_in_flight).sum();
                let given: u64 = shares.iter().flat_map(|share| &share.max_in_flight).sum();
                if given < wanted {
                    let what = format!("max_in_flight lowered from {wanted} to {given}: open-file limits");
                    self.note(now, what, "preflight");
                }
                let parts = |share: &Share| share.throttles.iter().map(|throttle| throttle.parts).collect();
                let held = self.participants.keys().copied().zip(shares.iter().map(parts)).collect();
                self.throttles = Dealer::new(&self.spec.plan.limits(), held);
                for (participant, share) in self.participants.values_mut().zip(shares) {
                    let Share { lanes, max_in_flight, throttles, .. } = share;
                    participant.tenures = Tenures::first(Part { lanes, caps: max_in_flight });
                    participant.throttles = throttles;
                }
                self.arm(now, 1, registry, effects);
            }
        }
    }

    /// Sets a start instant far enough off that everybody can confirm it.
    pub(super) fn arm(&mut self, now: Mono, attempt: u32, registry: &Registry, effects: &mut Vec<Effect>) {
        let takes_part = |(session, _): &(SessionId, &Member)| self.participants.contains_key(session);
        let clocks = registry.members().filter(takes_part).filter_map(|(_, member)| member.clock);
        let round_trip = clock_error(clocks.map(|clock| clock.error)) * 2;
        let (t0, until) = if self.spec.local {
            // nothing but threads between us. The one worker confirms an instant that it can keep, and
            // keeps it however late its word is read; one that came too late for it is set anew
            let t0 = now.after(Duration::from_millis(2 * 10_u64.pow(attempt)));
            (t0, t0.after(Duration::from_secs(1)))
        } else {
            let all = ARM_ONE * self.participants.len() as u32;
            let t0 = now.after((round_trip * 4 + Duration::from_millis(250)).max(Duration::from_secs(1)).max(all));
            // a new instant must reach everybody before the old one comes
            let margin = (round_trip * 2 + Duration::from_millis(100)).as_nanos();
            (t0, Mono(t0.0 - margin.min(u128::from(t0.0)) as u64))
        };
        for (session, participant) in &self.participants {
            let (run, shard) = (self.spec.run.clone(), Box::new(self.shard(*session, participant)));
            effects.push(Effect::Send(*session, ToWorker::Arm { run, attempt, t0, shard }));
        }
        self.state = State::Arming { attempt, t0, until, missing: self.participants.len() };
    }

    /// A worker keeps the start instant. Once all have said so it stands, whatever is heard next: there may be load
    /// before anybody looks again.
    pub(super) fn on_armed(&mut self, session: SessionId, confirmed: u32) {
        let State::Arming { attempt, t0, missing, .. } = &mut self.state else { return };
        let is_news = |p: &&mut Participant| match p.stage {
            Stage::Ready => true,
            Stage::Armed(before) => before < confirmed,
            _ => false,
        };
        let Some(participant) = self.participants.get_mut(&session).filter(is_news) else { return };
        // not one that nobody has set
        if confirmed > *attempt {
            return;
        }
        participant.stage = Stage::Armed(confirmed);
        // the one before, which it heard of too late, is not enough
        *missing -= usize::from(confirmed == *attempt);
        if *missing == 0 {
            self.state = State::Running { t0: *t0 };
        }
    }

    /// Somebody has not confirmed the start instant.
    pub(super) fn await_armed(
        &mut self,
        now: Mono,
        (attempt, until): (u32, Mono),
        registry: &Registry,
        effects: &mut Vec<Effect>,
    ) {
        if now < until {
            return;
        }
        if attempt < ARM_ATTEMPTS {
            self.arm(now, attempt + 1, registry, effects);
        } else {
            let late = self.participants.values().filter(|p| p.stage != Stage::Armed(attempt));
            let workers = late.map(|p| p.name.to_string()).collect();
            self.close(now, Some(RunError::NotArmed { workers }), effects);
        }
    }
}
