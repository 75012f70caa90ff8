//! Workers that are lost, come back, or join in mid-run, and the parts that change hands for it.
//!
//! Of a worker that is lost nobody can ask anything: its part goes to the others from an instant
//! after its lease. A worker that lives and is to give something up says so first: only then is it
//! handed on. Either way no lane has two owners at any instant.

use super::super::assign::{files, fixed_need, lanes_for, lower_caps, own_caps, uneven, users};
use super::super::handover::{Part, Tenures, targets};
use super::super::membership::Registry;
use super::ending::{ABORT_WITHIN, QUIET};
use super::{Balanced, Busiest, Coordinator, Effect, Handover, Participant, Stage, State, Strength};
use crate::journal::{Cause, Control, Entry};
use ld_shared::id::{Epoch, RunId, SessionId};
use ld_shared::lanes::{LANES, LaneSet};
use ld_shared::message::{LEASE, RunBeat, ToWorker};
use ld_shared::plan::{Connections, WorkerLoss};
use ld_shared::shard::Shard;
use ld_shared::throttle::ThrottleShare;
use ld_shared::time::{Mono, RunTime};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A lost worker's part is owned anew so long after it was given away: its new owners know by then.
const TAKE_OVER_AFTER: Duration = Duration::from_millis(200);
/// Whoever gives something up has so long to hear and confirm it before it happens.
const HAND_OVER_AFTER: Duration = Duration::from_secs(1);
/// Parts are evened out when somebody has so much too little, in parts of its due.
const UNEVEN: usize = 20;

impl Coordinator {
    /// Takes those members in that do not take part yet: they get the plan.
    pub(super) fn take_in(&mut self, now: Mono, registry: &Registry, effects: &mut Vec<Effect>) {
        for (session, member) in registry.members() {
            let waits = self.unable.get(&session).is_some_and(|until| now < *until);
            if waits || self.participants.contains_key(&session) {
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
    pub(super) fn invite(&mut self, now: Mono, registry: &Registry, effects: &mut Vec<Effect>) {
        let plan = &self.spec.plan;
        // shared connections were dealt over the cores of the start
        let fixed = plan.scenarios.iter().any(|s| matches!(s.connections, Connections::Shared(_)));
        let hooks_only = self.spec.one_worker;
        if !fixed && !hooks_only && registry.len() > self.living().count() {
            self.take_in(now, registry, effects);
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
        self.note_room(now);
    }

    /// Says for how many users nobody has room, if that has changed.
    fn note_room(&mut self, now: Mono) {
        if !self.participants.values().any(Participant::may_take) {
            return;
        }
        let users = users(&self.load, &self.unowned.lanes);
        if users == std::mem::replace(&mut self.without_room, users) {
            return;
        }
        let what = match users {
            0 => "there is room for all users again".to_owned(),
            users => format!("no worker has room for {users} of the users: they are missing"),
        };
        self.note(now, what, "capacity");
    }

    /// Those that may take something, how many lanes each of them holds, and how many it should hold once `free` ones
    /// are owned as well.
    fn due(&self, free: &Part, room: &Room) -> Vec<(SessionId, usize, usize)> {
        let all: Vec<_> = self.participants.iter().filter(|(_, p)| p.may_take()).collect();
        let parts: Vec<Part> = all.iter().map(|(_, p)| p.tenures.part()).collect();
        let lanes = parts.iter().map(|part| part.lanes.len()).sum::<usize>() + free.lanes.len();
        let mut needed = fixed_need(&self.load, &LaneSet::full());
        if needed > 0 && room.with_caps {
            needed += parts.iter().chain([free]).map(|part| own_caps(&self.load, &part.caps)).sum::<u64>();
        }
        let limit = |(session, p): &(&SessionId, &Participant), part: &Part| {
            let used = if room.with_caps { files(&self.load, part) } else { fixed_need(&self.load, &part.lanes) };
            let left = p.strength.capacity.saturating_sub(used + room.spared);
            part.lanes.len() + if room.full.contains(session) { 0 } else { lanes_for(left, needed) }
        };
        let limits: Vec<usize> = all.iter().zip(&parts).map(|(one, part)| limit(one, part)).collect();
        let cores: Vec<u32> = all.iter().map(|(_, p)| p.cores).collect();
        let targets = targets(lanes, &cores, &limits);
        all.into_iter().zip(parts).zip(targets).map(|(((s, _), part), target)| (*s, part.lanes.len(), target)).collect()
    }

    /// Gives a part to those that make load, so that each has what is due to its cores, within what it can open; what
    /// nobody can take stays nobody's. Returns who takes something.
    fn hand_out(&mut self, mut part: Part, from: RunTime, effects: &mut Vec<Effect>) -> Vec<String> {
        let mut takers = BTreeMap::new();
        let mut room = Room { with_caps: true, ..Room::default() };
        let t0 = self.t0();
        while let Some(t0) = t0.filter(|_| !part.is_empty()) {
            let due = self.due(&part, &room);
            let lacks: Vec<u32> = due.iter().map(|(_, held, target)| target.saturating_sub(*held) as u32).collect();
            let lacking = lacks.iter().map(|lanes| *lanes as usize).sum();
            let given = part.take(lacking);
            if given.is_empty() && !room.with_caps {
                break;
            }
            if given.is_empty() {
                // users come before caps, which are lowered
                room = Room::default();
                continue;
            }
            // what one of them could not open after all another one may
            for (index, more) in given.cut(&lacks) {
                let rest = self.deal((due[index].0, more), (from, t0), &mut takers, effects);
                if !rest.is_empty() {
                    room.full.insert(due[index].0);
                    part.add(&rest);
                }
            }
        }
        self.unowned.add(&part);
        takers.into_values().collect()
    }

    /// A worker gets more from `from` on, as far as it can open that: its name goes to `takers`. Returns the rest.
    fn deal(
        &mut self,
        (session, mut more): (SessionId, Part),
        (from, t0): (RunTime, Mono),
        takers: &mut BTreeMap<SessionId, String>,
        effects: &mut Vec<Effect>,
    ) -> Part {
        let Some(participant) = self.participants.get(&session) else { return more };
        let (held, capacity) = (participant.tenures.part(), participant.strength.capacity);
        let with = |more: &Part| {
            let mut part = held.clone();
            part.add(more);
            part
        };
        let needs = |part: &Part| fixed_need(&self.load, &part.lanes);
        let mut rest = Part::default();
        if needs(&with(&more)) > capacity {
            let fits = |lanes| needs(&with(&more.clone().take(lanes))) <= capacity;
            let lanes = most(more.lanes.len(), fits);
            let some = more.take(lanes);
            rest = std::mem::replace(&mut more, some);
            if more.is_empty() {
                return rest;
            }
        }
        let mut part = with(&more);
        let left = capacity.saturating_sub(needs(&part));
        lower_caps(&self.load, &mut part.caps, left);
        takers.insert(session, participant.name.to_string());
        self.assign_to(session, from, part, t0, effects);
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
        let free = self.unowned.lanes.len();
        let takers = || self.participants.values().filter(|p| p.may_take());
        let held: Vec<usize> =
            takers().map(|p| p.tenures.newest().map_or(0, |tenure| tenure.part.lanes.len())).collect();
        let cores: Vec<u32> = takers().map(|p| p.cores).collect();
        let even = targets(held.iter().sum::<usize>() + free, &cores, &vec![LANES; cores.len()]);
        // what each can open is looked at only if somebody has too little, and only once
        let newest = self.participants.last_key_value().map(|(session, _)| *session);
        let (epoch, takers, changes) = (self.epoch, cores.len(), self.program.changes().len());
        let state = Balanced { epoch, takers, newest, free, changes };
        let is_even = free == 0 && !held.iter().zip(even).any(|(held, target)| is_lacking(*held, target));
        if is_even || self.balanced.replace(state) == Some(state) {
            return;
        }
        let spared = if free > 0 { 0 } else { uneven(&self.load) };
        let due = self.due(&self.unowned, &Room { spared, with_caps: true, ..Room::default() });
        let moves = due.iter().any(|(_, held, target)| is_lacking(*held, *target));
        if !moves && free == 0 {
            return;
        }
        let from = self.soon(now, HAND_OVER_AFTER);
        let free = std::mem::take(&mut self.unowned);
        let mut handover = Handover { from, donors: BTreeMap::new(), free };
        for (session, held, target) in due.iter().filter(|_| moves) {
            let Some(participant) = self.participants.get_mut(session).filter(|_| held > target) else { continue };
            let mut part = participant.tenures.part();
            let given = part.take(held - target);
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
        let names = self.hand_out(handover.free, from, effects);
        self.note_room(now);
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

/// Which room for lanes a worker is said to have.
#[derive(Debug, Default)]
struct Room {
    /// Connections by which it stays below what it can open.
    spared: u64,
    /// Caps on open iterations need room too.
    with_caps: bool,
    /// These have none.
    full: BTreeSet<SessionId>,
}

/// Whether somebody has so much too little that it is worth a move.
fn is_lacking(held: usize, target: usize) -> bool {
    let lacks = target.saturating_sub(held);
    lacks > 1 && lacks > (held + 1) / UNEVEN
}

/// The highest number below `all` that fits, of those that do up to some number; 0 always does.
fn most(all: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, all);
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Names for a sentence: the first few, and how many more.
fn listed(names: &[String]) -> String {
    const MOST: usize = 10;
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}
