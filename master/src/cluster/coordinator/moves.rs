//! Workers that are lost, come back, or join in mid-run, and the parts that change hands for it.
//!
//! Of a worker that is lost nobody can ask anything: its part goes to the others from an instant
//! after its lease. A worker that lives and is to give something up says so first: only then is it
//! handed on. Either way no lane has two owners at any instant.

use super::super::assign::fixed_need;
use super::super::handover::{Part, Tenures, surplus};
use super::super::membership::Registry;
use super::ending::{ABORT_WITHIN, QUIET};
use super::{Busiest, Coordinator, Effect, Handover, Participant, Stage, State, Strength};
use crate::journal::{Cause, Control, Entry};
use ld_shared::id::{Epoch, RunId, SessionId};
use ld_shared::message::{LEASE, RunBeat, ToWorker};
use ld_shared::plan::{Connections, WorkerLoss};
use ld_shared::shard::Shard;
use ld_shared::throttle::ThrottleShare;
use ld_shared::time::{Mono, RunTime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A lost worker's part is owned anew so long after it was given away: its new owners know by then.
const TAKE_OVER_AFTER: Duration = Duration::from_millis(200);
/// Whoever gives something up has so long to hear and confirm it before it happens.
const HAND_OVER_AFTER: Duration = Duration::from_secs(1);
/// Parts are evened out when somebody has so much too little, in parts of its due.
const UNEVEN: usize = 20;

impl Coordinator {
    /// Takes those members in that do not take part yet: they get the plan.
    pub(super) fn take_in(&mut self, registry: &Registry, effects: &mut Vec<Effect>) {
        for (session, member) in registry.members() {
            if self.participants.contains_key(&session) {
                continue;
            }
            let participant = Participant {
                name: member.name.clone(),
                cores: member.cores,
                stage: Stage::Asked,
                asked_blobs: false,
                strength: Strength { cores: member.cores, capacity: 0 },
                tenures: Tenures::default(),
                throttles: Vec::new(),
                absences: Vec::new(),
                beat: None,
                died: None,
                busiest: Busiest::default(),
                confirmed: Epoch(0),
                clock: member.clock.unwrap_or_default(),
                pace: None,
                was_late: false,
            };
            self.participants.insert(session, participant);
            self.ledger.admit(session);
            let (run, plan) = (self.spec.run.clone(), self.spec.digest.clone());
            effects.push(Effect::Send(session, ToWorker::Prepare { run, plan, blobs: self.spec.blobs.clone() }));
        }
    }

    /// Workers that join in mid-run get the plan, and their part once they are ready.
    pub(super) fn invite(&mut self, registry: &Registry, effects: &mut Vec<Effect>) {
        let plan = &self.spec.plan;
        // shared connections were dealt over the cores of the start
        let fixed = plan.scenarios.iter().any(|s| matches!(s.connections, Connections::Shared(_)));
        let hooks_only = self.spec.one_worker;
        if !fixed && !hooks_only && registry.len() > self.living().count() {
            self.take_in(registry, effects);
        }
    }

    /// Workers that make load.
    fn living(&self) -> impl Iterator<Item = (&SessionId, &Participant)> {
        self.participants.iter().filter(|(_, participant)| participant.makes_load())
    }

    /// Whether nobody makes load any more, nor is likely to come back for it.
    pub(super) fn nobody_works(&self, now: Mono) -> bool {
        let at = self.run_now(now);
        let comes_back = |p: &Participant| match &p.stage {
            Stage::Lost { .. } if let Some(died) = p.died => {
                at.0 < died.heard.0.saturating_add(QUIET.as_nanos() as u64)
            }
            Stage::Lost { at: since, silent: true, .. } => {
                let patience = self.spec.wait.as_nanos() as u64;
                !self.aborted
                    && !matches!(self.cause, Some(Cause::Failed(_)))
                    && at.0 < since.0.saturating_add(patience)
            }
            _ => false,
        };
        self.living().next().is_none() && !self.participants.values().any(comes_back)
    }

    /// What a worker owns by its newest assignment, and its parts of limits that are in force.
    pub(super) fn shard(&self, session: SessionId, participant: &Participant) -> Shard {
        let first = participant.throttles.iter().copied().chain(std::iter::repeat(ThrottleShare::default()));
        let share = |(parts, first): (u32, ThrottleShare)| ThrottleShare { parts, ..first };
        let throttles = self.throttles.parts(session).into_iter().zip(first).map(share).collect();
        let newest = participant.tenures.newest();
        let part = newest.map(|tenure| tenure.part.clone()).unwrap_or_default();
        Shard {
            plan: self.spec.digest.clone(),
            lanes: part.lanes,
            epoch: newest.map_or(Epoch(0), |tenure| tenure.epoch),
            from: participant.tenures.newest_from(),
            max_in_flight: part.caps,
            throttles,
        }
    }

    /// A worker that took part is gone, lost or with goodbye: what becomes of its part.
    pub(super) fn on_gone(&mut self, now: Mono, session: SessionId, effects: &mut Vec<Effect>) {
        let Some(participant) = self.participants.get_mut(&session) else { return };
        let name = participant.name.to_string();
        // what it was asked to give up and has not confirmed it may still have used
        if let Some(handover) = &mut self.handover
            && let Some((epoch, part)) = handover.donors.remove(&session)
        {
            participant.tenures.keep(epoch, &part);
            self.journal_tenures(session, epoch, effects);
        }
        let Some(participant) = self.participants.get(&session) else { return };
        let State::Running { t0 } = self.state else { return };
        let left = matches!(participant.stage, Stage::Left { .. });
        match self.spec.plan.on_worker_loss {
            WorkerLoss::Abort if !left => {
                self.cause = Some(Cause::Failed(format!("worker {name} was lost, and `on_worker_loss` is abort")));
                self.note(now, "aborted: a worker was lost", "on_worker_loss");
                self.stopped_at = self.stopped_at.or(Some(self.run_now(now)));
                self.aborted = true;
                self.tell_all(effects, |_, run| ToWorker::Abort { run });
                self.state = State::Draining { t0, until: now.after(ABORT_WITHIN) };
                return;
            }
            WorkerLoss::Redistribute | WorkerLoss::Abort => self.gone.push(session),
            WorkerLoss::Degrade => self.note(now, format!("goes on without {name}'s share"), "on_worker_loss"),
        }
        self.hand_over_if_confirmed(now, effects);
    }

    /// The others take the parts of those that are gone over: of all at once, for half of a cluster may be.
    pub(super) fn give_away(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let gone = std::mem::take(&mut self.gone);
        if gone.is_empty() || !matches!(self.state, State::Running { .. }) {
            return;
        }
        let from = self.soon(now, TAKE_OVER_AFTER);
        let (mut owed, mut names) = (Part::default(), Vec::new());
        for session in gone {
            self.epoch.0 += 1;
            let epoch = self.epoch;
            // whoever is back by now keeps what it has
            let Some(participant) = self.participants.get_mut(&session).filter(|p| !p.makes_load()) else { continue };
            let part = participant.tenures.part();
            if part.is_empty() {
                continue;
            }
            names.push(participant.name.to_string());
            participant.tenures.end(epoch, from);
            owed.add(&part);
            if let Some(participant) = self.participants.get(&session) {
                // nobody is told: it is gone
                let ended = Control::assigned(session, &self.shard(session, participant));
                effects.push(Effect::Journal(Box::new(Entry::Control(ended))));
            }
        }
        if names.is_empty() {
            return;
        }
        let takers = self.hand_out(owed, from, effects);
        let shares = match &names[..] {
            [name] => format!("{name}'s share"),
            names => format!("the shares of {}", listed(names)),
        };
        let what = if takers.is_empty() {
            format!("nobody can take {shares} over")
        } else {
            let go = if names.len() == 1 { "goes" } else { "go" };
            format!("{shares} {go} to {} from {:.1} s on", listed(&takers), from.as_secs())
        };
        self.note(now, what, "on_worker_loss");
    }

    /// Gives a part to those that make load, so that each has what is due to its cores; what nobody can take stays
    /// nobody's. Returns who takes something.
    fn hand_out(&mut self, part: Part, from: RunTime, effects: &mut Vec<Effect>) -> Vec<String> {
        let Some(t0) = self.t0() else { return Vec::new() };
        let plan = Arc::clone(&self.load);
        let mut owed = part;
        let mut takers = Vec::new();
        // by what each lacks; what does not fit goes to those that have room
        for round in 0..2 {
            let all = || self.participants.iter().filter(|(_, p)| p.may_take());
            let room = |p: &Participant| {
                let part = p.tenures.part();
                let used = fixed_need(&plan, &part.lanes) + part.caps.iter().sum::<u64>();
                (p.strength.capacity.saturating_sub(used) / 16).min(u64::from(u32::MAX)) as u32
            };
            let sessions: Vec<SessionId> = all().map(|(session, _)| *session).collect();
            let weights: Vec<u32> = if round == 0 {
                let held: Vec<usize> =
                    all().map(|(_, p)| p.tenures.newest().map_or(0, |tenure| tenure.part.lanes.len())).collect();
                let cores: Vec<u32> = all().map(|(_, p)| p.cores).collect();
                lacks(&surplus(&held, owed.lanes.len(), &cores))
            } else {
                all().map(|(_, p)| room(p)).collect()
            };
            if owed.is_empty() || weights.iter().all(|weight| *weight == 0) {
                break;
            }
            let cut = owed.cut(&weights).into_iter().map(|(index, more)| (sessions[index], more));
            owed = self.deal(cut.collect(), (from, t0), &mut takers, effects);
        }
        self.unowned.add(&owed);
        takers
    }

    /// Each gets more from `from` on, if it can bear that: their names go to `takers`. Returns the rest.
    fn deal(
        &mut self,
        parts: Vec<(SessionId, Part)>,
        (from, t0): (RunTime, Mono),
        takers: &mut Vec<String>,
        effects: &mut Vec<Effect>,
    ) -> Part {
        let plan = Arc::clone(&self.load);
        let mut rest = Part::default();
        for (session, more) in parts {
            let Some(participant) = self.participants.get(&session) else { continue };
            let mut part = participant.tenures.part();
            part.add(&more);
            let needed = fixed_need(&plan, &part.lanes);
            if needed > participant.strength.capacity {
                rest.add(&more);
                continue;
            }
            lower_caps(&mut part, participant.strength.capacity - needed);
            takers.push(participant.name.to_string());
            self.assign_to(session, from, part, t0, effects);
        }
        rest
    }

    /// A worker owns `part` from `from` on.
    fn assign_to(&mut self, session: SessionId, from: RunTime, part: Part, t0: Mono, effects: &mut Vec<Effect>) {
        self.epoch.0 += 1;
        let epoch = self.epoch;
        let Some(participant) = self.participants.get_mut(&session) else { return };
        let starts = participant.stage == Stage::Ready;
        participant.tenures.change(epoch, from, part);
        if starts {
            participant.stage = Stage::Armed(0);
            self.throttles.join(session);
        }
        let Some(participant) = self.participants.get(&session) else { return };
        let (run, shard) = (self.spec.run.clone(), Box::new(self.shard(session, participant)));
        let changed = starts && !self.program.changes().is_empty();
        let program = changed.then(|| ToWorker::Program { run: run.clone(), program: self.program.clone() });
        let message = if starts { ToWorker::Arm { run, attempt: 0, t0, shard } } else { assign(run, shard) };
        effects.push(Effect::Send(session, message));
        effects.extend(program.map(|program| Effect::Send(session, program)));
    }

    /// Evens parts out when somebody has too little, or when there is a part that nobody owns: asks
    /// those that have more than their due to give it up.
    pub(super) fn balance(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        if self.handover.is_some() || self.resuming.as_ref().is_some_and(|resuming| now < resuming.until) {
            return;
        }
        let all: Vec<(SessionId, u32, usize)> = self
            .participants
            .iter()
            .filter(|(_, p)| p.may_take())
            .map(|(session, p)| (*session, p.cores, p.tenures.newest().map_or(0, |t| t.part.lanes.len())))
            .collect();
        let held: Vec<usize> = all.iter().map(|(_, _, lanes)| *lanes).collect();
        let weights: Vec<u32> = all.iter().map(|(_, cores, _)| *cores).collect();
        let surplus = surplus(&held, self.unowned.lanes.len(), &weights);
        let wants =
            |(lacks, held): (&i64, &usize)| -*lacks > (((held + 1) / UNEVEN) as u64).cast_signed() && *lacks < -1;
        let lacking = surplus.iter().zip(&held).any(wants);
        if !lacking || (held.iter().all(|held| *held == 0) && self.unowned.is_empty()) {
            return;
        }
        let from = self.soon(now, HAND_OVER_AFTER);
        let free = std::mem::take(&mut self.unowned);
        let mut handover = Handover { from, donors: BTreeMap::new(), free };
        for ((session, ..), surplus) in all.iter().zip(&surplus) {
            let Some(participant) = self.participants.get_mut(session).filter(|_| *surplus > 0) else { continue };
            let mut part = participant.tenures.part();
            let given = part.take(usize::try_from(*surplus).unwrap_or(0));
            self.epoch.0 += 1;
            participant.tenures.change(self.epoch, from, part);
            handover.donors.insert(*session, (self.epoch, given));
            if let Some(participant) = self.participants.get(session) {
                let (run, shard) = (self.spec.run.clone(), Box::new(self.shard(*session, participant)));
                effects.push(Effect::Send(*session, assign(run, shard)));
            }
        }
        self.handover = Some(handover);
        self.hand_over_if_confirmed(now, effects);
    }

    /// A worker has done all it will do: what it was asked to give up, and its parts of limits, it does
    /// not use.
    pub(super) fn on_finished(&mut self, now: Mono, session: SessionId, effects: &mut Vec<Effect>) {
        self.throttles.lose(now, session);
        self.on_assigned(now, session, self.epoch, effects);
    }

    /// A worker goes by an assignment.
    pub(super) fn on_assigned(&mut self, now: Mono, session: SessionId, epoch: Epoch, effects: &mut Vec<Effect>) {
        let at = self.run_now(now);
        if let Some(participant) = self.participants.get_mut(&session) {
            participant.confirmed = participant.confirmed.max(epoch);
        }
        let Some(handover) = &mut self.handover else { return };
        // a confirmation of an assignment before that one says nothing of it
        if handover.donors.get(&session).is_some_and(|(asked, _)| *asked <= epoch)
            && let Some((asked, part)) = handover.donors.remove(&session)
        {
            handover.free.add(&part);
            // heard of late: until then it went on
            if at > handover.from
                && let Some(participant) = self.participants.get_mut(&session)
            {
                participant.tenures.delay(asked, at);
                self.journal_tenures(session, asked, effects);
            }
        }
        self.hand_over_if_confirmed(now, effects);
    }

    /// What a worker owns by its assignments from `since` on turned out to be other than they said.
    fn journal_tenures(&self, session: SessionId, since: Epoch, effects: &mut Vec<Effect>) {
        let Some(participant) = self.participants.get(&session) else { return };
        for tenure in participant.tenures.since(since) {
            let control = Control::assigned(session, &tenure.shard(&self.shard(session, participant)));
            effects.push(Effect::Journal(Box::new(Entry::Control(control))));
        }
    }

    /// Hands on what was given up, once all have confirmed it.
    fn hand_over_if_confirmed(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(handover) = self.handover.take_if(|handover| handover.donors.is_empty()) else { return };
        let running = matches!(self.state, State::Running { .. });
        if handover.free.is_empty() || !running {
            self.unowned.add(&handover.free);
            return;
        }
        // confirmed late: nobody owned it in between
        let from = handover.from.max(self.run_now(now));
        let all = self.participants.iter().filter(|(_, p)| p.may_take());
        let (mut held, mut weights, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
        for (session, participant) in all {
            held.push(participant.tenures.newest().map_or(0, |t| t.part.lanes.len()));
            weights.push(participant.cores);
            sessions.push(*session);
        }
        let lacks = lacks(&surplus(&held, handover.free.lanes.len(), &weights));
        let Some(t0) = self.t0() else { return };
        let mut names = Vec::new();
        let rest = if sessions.is_empty() {
            handover.free
        } else {
            let cut = handover.free.cut(&lacks).into_iter().map(|(index, more)| (sessions[index], more));
            self.deal(cut.collect(), (from, t0), &mut names, effects)
        };
        self.unowned.add(&rest);
        if names.is_empty() {
            return;
        }
        let take = if names.len() == 1 { "takes" } else { "take" };
        self.note(now, format!("{} {take} a share from {:.1} s on", listed(&names), from.as_secs()), "balance");
    }

    /// A worker of this run is there again. It is told how the load stands, and what it owns of it. Frames that were
    /// counted and not acknowledged it offers again.
    pub(super) fn on_returned(
        &mut self,
        now: Mono,
        session: SessionId,
        registry: &Registry,
        effects: &mut Vec<Effect>,
    ) {
        let at = self.run_now(now);
        if let Some(resuming) = &mut self.resuming {
            resuming.somebody = true;
        }
        let Some(participant) = self.participants.get_mut(&session) else { return };
        let was_lost = participant.return_from_loss(at, self.ledger.has_finished(session));
        participant.died = None;
        let name = participant.name.to_string();
        let finished = participant.stage == Stage::Finished;
        if was_lost {
            self.note(now, format!("worker {name} is back"), &name);
            self.throttles.join(session);
        }
        let Some(participant) = self.participants.get(&session) else { return };
        let run = || self.spec.run.clone();
        if finished {
            return;
        }
        if let State::Draining { .. } = self.state {
            let (run, aborted) = (run(), self.aborted);
            let message = if aborted { ToWorker::Abort { run } } else { ToWorker::Stop { run } };
            effects.push(Effect::Send(session, message));
        }
        if !self.program.changes().is_empty() {
            effects.push(Effect::Send(session, ToWorker::Program { run: run(), program: self.program.clone() }));
        }
        let shard = Box::new(self.shard(session, participant));
        // what it missed was counted on: others own what it lost in between, and have what it had not been told of
        let missed = participant.tenures.since(Epoch(participant.confirmed.0 + 1)).filter(|t| t.epoch < shard.epoch);
        let earlier = missed.map(|tenure| Shard { throttles: Vec::new(), ..tenure.shard(&shard) }).collect();
        effects.push(Effect::Send(session, ToWorker::Assign { run: run(), shard, earlier }));
        if let Some(order) = self.throttles.unconfirmed(session) {
            let (run, number, parts) = (run(), order.number, order.parts);
            effects.push(Effect::Send(session, ToWorker::Throttles { run, number, parts }));
        }
        self.watch_late(now, registry);
    }

    /// What a worker had measured when it died arrives.
    pub(super) fn on_heir(&mut self, now: Mono, session: SessionId, word: Option<RunBeat>) {
        let (at, word) = (self.run_now(now), word.filter(|word| word.run == self.spec.run));
        let told = self.ledger.frames(session).map_or(RunTime(0), |frames| frames.sealed_at);
        let Some(participant) = self.participants.get_mut(&session) else { return };
        let is_new = participant.died.is_none();
        participant.take_last_word(word, told, at);
        let name = participant.name.to_string();
        if is_new {
            self.note(now, format!("what worker {name} had measured when it died arrives from its spool"), &name);
        }
    }

    /// Run time so long from now, and as much later as clocks may differ.
    pub(super) fn soon(&self, now: Mono, after: Duration) -> RunTime {
        let error = clock_error(self.participants.values().map(|p| p.clock.error));
        RunTime(self.run_now(now).0 + (after + error).as_nanos() as u64)
    }
}

fn assign(run: RunId, shard: Box<Shard>) -> ToWorker {
    ToWorker::Assign { run, shard, earlier: Vec::new() }
}

/// How far apart clocks may be: the greatest error that counts. Whose clock is less certain than that holds no lease.
pub(super) fn clock_error(errors: impl Iterator<Item = u64>) -> Duration {
    Duration::from_nanos(errors.max().unwrap_or(0)).min(LEASE)
}

/// How many lanes each lacks, of those that do.
fn lacks(surplus: &[i64]) -> Vec<u32> {
    surplus.iter().map(|lanes| u32::try_from(-lanes).unwrap_or(0)).collect()
}

/// Names for a sentence: the first few, and how many more.
fn listed(names: &[String]) -> String {
    const MOST: usize = 10;
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}

/// Lowers caps to so many open iterations in all, each by the same share.
fn lower_caps(part: &mut Part, most: u64) {
    let sum: u64 = part.caps.iter().sum();
    if sum > most {
        part.caps.iter_mut().for_each(|cap| *cap = (u128::from(*cap) * u128::from(most) / u128::from(sum)) as u64);
    }
}
