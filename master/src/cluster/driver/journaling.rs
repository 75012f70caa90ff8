//! The driver's journal: what [`Promises`] says goes into it, and what it says waits is held back.

use super::super::coordinator::{Coordinator, Effect, Event, Spec};
use super::super::promises::{Joined, Promise, Promises, follows};
use super::{Driver, Input};
use crate::journal::{self, Control, Entry, Gate, Journal, JournalOrder, Order, Recovered, Rule, Unfinished, Wake};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use ld_shared::boot::clock;
use ld_shared::id::{Digest, RunId, SessionId};
use ld_shared::message::ToWorker;
use ld_shared::time::{Mono, RunTime};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// A journal that is so far behind is said to be.
const BEHIND: Duration = Duration::from_secs(2);
/// How long a result waits for the journal. It is whole without: this only keeps its workers' frames
/// from being forgotten before a restarted master could know of them.
const RESULT_WAITS: Duration = Duration::from_secs(10);

/// A run's journal, and what waits for it.
pub(super) struct Journaling {
    order: JournalOrder,
    run: RunId,
    /// Until somebody is asked to get ready: what it will begin with.
    first: Option<(Entry, Wake)>,
    journal: Option<Box<dyn Journal>>,
    gate: Gate<Effect>,
    /// Number of the newest entry.
    newest: u64,
    promises: Promises,
    /// The only worker is in this process.
    local: bool,
    /// It is, and its last frame is in.
    finished: bool,
    /// It was said to be behind, and by how much it was at most.
    behind: Option<Duration>,
}

/// What is to be known of a run before it begins.
pub(super) struct Beginning<'a> {
    pub(super) spec: &'a Spec,
    pub(super) blobs: &'a BTreeMap<Digest, Bytes>,
    pub(super) inputs: mpsc::WeakSender<Input>,
}

impl Journaling {
    pub(super) fn new(order: JournalOrder, beginning: Beginning<'_>) -> Self {
        let Beginning { spec, blobs, inputs } = beginning;
        let first = Order {
            run: spec.run.clone(),
            command: order.command.clone(),
            label: order.label.clone(),
            plan: spec.plan.clone(),
            digest: spec.digest.clone(),
            given: order.given.clone(),
            rules: spec.thresholds.iter().map(Rule::from).collect(),
            expected: spec.expected,
            wait: spec.wait,
            allow_missing: spec.allow_missing,
            local: spec.local,
            one_worker: spec.one_worker,
        };
        // secrets are not written anywhere: whoever takes the run up reads them anew
        let blobs = blobs.iter().filter(|(digest, _)| spec.plan.secrets.as_ref() != Some(*digest));
        let first = Entry::Order(Box::new(first), blobs.map(|(digest, blob)| (digest.clone(), blob.clone())).collect());
        let wake = wake(inputs);
        Self {
            order,
            run: spec.run.clone(),
            first: Some((first, wake)),
            journal: None,
            gate: Gate::default(),
            newest: 0,
            promises: Promises::default(),
            local: spec.local,
            finished: false,
            behind: None,
        }
    }

    /// Goes on with the journal of a run that is taken up.
    pub(super) fn resume(
        order: JournalOrder,
        unfinished: Unfinished,
        inputs: mpsc::WeakSender<Input>,
    ) -> (Recovered, Self) {
        let (recovered, disk) = unfinished.resume(wake(inputs));
        let journaling = Self {
            order,
            run: recovered.order.run.clone(),
            first: None,
            newest: disk.newest(),
            journal: Some(Box::new(disk)),
            gate: Gate::default(),
            promises: Promises::of(&recovered),
            local: false,
            finished: false,
            behind: None,
        };
        (recovered, journaling)
    }

    fn append(&mut self, entry: Entry) {
        if let Some(journal) = &mut self.journal {
            self.newest = journal.append(entry);
        }
    }

    fn control(&mut self, control: Control) {
        self.append(Entry::Control(control));
    }

    /// The run is about to need it.
    fn begin(&mut self) {
        if let Some((first, wake)) = self.first.take() {
            self.newest = 1;
            self.journal = Some(self.order.begin(&self.run, first, wake));
            self.control(Control::Term(1));
        }
    }

    /// Journals what an effect depends on. Gives it back if it may be carried out now.
    fn pass(
        &mut self,
        now: Mono,
        ran: RunTime,
        effect: Effect,
        member: impl Fn(SessionId) -> Joined,
    ) -> Option<Effect> {
        let effect = match effect {
            Effect::Journal(entry) => {
                if self.is_wanted(&entry) {
                    self.append(*entry);
                }
                return None;
            }
            effect => effect,
        };
        if matches!(effect, Effect::Send(_, ToWorker::Prepare { .. })) {
            self.begin();
        }
        let Promise { entries, waits } = self.promises.of_effect(&effect, ran, member);
        for entry in entries {
            self.append(entry);
        }
        let waits = waits || follows(&effect, &self.gate);
        if waits && self.journal.is_some() { self.gate.hold(now, self.newest, effect) } else { Some(effect) }
    }

    /// The worker in this process dies with it, and nobody takes its run up. So the records that it
    /// delivers after all its load, which may be a hundred thousand, are not worth their time on a disk.
    fn is_wanted(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Frames(group) => {
                self.finished |= self.local && group.finished().next().is_some();
                true
            }
            Entry::Records(_) => !self.finished,
            Entry::Order(..) | Entry::Control(_) | Entry::Granted { .. } => true,
        }
    }

    /// Journals what an event tells before the coordinator acts on it.
    fn hear(&mut self, event: &Event, t0: Mono, now: Mono) {
        if let Some(control) = Promises::of_event(event, t0, now) {
            self.control(control);
        }
    }

    /// Journals what came of it.
    fn note(&mut self, coordinator: &Coordinator, started: Option<(Mono, DateTime<Utc>)>) {
        let started = started.map(|(t0, wall)| journal::started(t0, wall));
        for control in self.promises.of_outcome(coordinator, started) {
            self.control(control);
        }
    }

    /// What may be carried out now, and what people should know.
    fn turn(&mut self, now: Mono, over: bool) -> (Vec<Effect>, Option<String>) {
        let Some(journal) = &self.journal else {
            // it did not begin yet: nothing is held; or it is no more: nothing has to be
            let released = if self.first.is_some() { Vec::new() } else { self.gate.open() };
            return (released, None);
        };
        if let Some(why) = journal.failure() {
            self.journal = None;
            tracing::error!(run = %self.run, "the journal failed, and the run goes on without: {why}");
            let said = format!("journal failed: {why}; the run goes on, and could not be taken up after a crash");
            return (self.gate.open(), Some(said));
        }
        let released = self.gate.release(journal.committed());
        let waited = self.gate.waited(now);
        if over && waited > RESULT_WAITS {
            self.journal = None;
            let said = format!("the journal was {:.0} s behind at the end: not waited for", waited.as_secs_f64());
            return (released.into_iter().chain(self.gate.open()).collect(), Some(said));
        }
        let said = match self.behind {
            None if waited > BEHIND => {
                self.behind = Some(waited);
                tracing::warn!(run = %self.run, "the journal is behind: is its disk slow?");
                Some(format!("the journal is {:.1} s behind: acknowledgements wait for its disk", waited.as_secs_f64()))
            }
            Some(most) if waited <= BEHIND / 4 => {
                self.behind = None;
                Some(format!("the journal is up to date again; it was up to {:.1} s behind", most.as_secs_f64()))
            }
            Some(most) => {
                self.behind = Some(most.max(waited));
                None
            }
            None => None,
        };
        (released, said)
    }

    /// The run could not be run: nobody wants to know of it.
    pub(super) fn discard(mut self) {
        if self.journal.take().is_some() {
            let (folder, run) = (self.order.folder, self.run);
            tokio::spawn(async move {
                if let Err(error) = folder.remove_closed(&run).await {
                    tracing::warn!(%run, "a journal is left: {error}");
                }
            });
        }
    }
}

fn wake(inputs: mpsc::WeakSender<Input>) -> Wake {
    Box::new(move || {
        // full: then the driver is awake
        if let Some(inputs) = inputs.upgrade() {
            drop(inputs.try_send(Input::Committed));
        }
    })
}

impl Driver {
    /// Journals what an effect depends on. Gives it back if it may be carried out now.
    pub(super) fn journaled(&mut self, effect: Effect) -> Option<Effect> {
        let now = clock::mono();
        let journaling = self.active.as_mut().and_then(|active| {
            let ran = active.coordinator.t0().map_or(RunTime(0), |t0| now.since(t0).into());
            active.journaling.as_mut().map(|journaling| (journaling, ran))
        });
        match (journaling, effect) {
            (Some((journaling, ran)), effect) => {
                let secret = |session| self.secrets.get(&session).map(|secret| secret.to_vec()).unwrap_or_default();
                let joined = |session| Joined::of(&self.registry, session, secret(session));
                journaling.pass(now, ran, effect, joined)
            }
            (None, Effect::Journal(_)) => None,
            (None, effect) => Some(effect),
        }
    }

    /// Journals what happens to the run, before it is acted on.
    pub(super) fn journal_event(&mut self, event: &Event) {
        if let Some(active) = &mut self.active
            && let Some(t0) = active.coordinator.t0()
            && let Some(journaling) = &mut active.journaling
        {
            journaling.hear(event, t0, clock::mono());
        }
    }

    /// Journals what came of it.
    pub(super) fn journal_outcome(&mut self) {
        let Some(active) = &mut self.active else { return };
        let wall = active.started_at(clock::mono());
        let started = active.coordinator.t0().zip(wall);
        if let Some(journaling) = &mut active.journaling {
            journaling.note(&active.coordinator, started);
        }
    }

    /// Carries out what the journal has got by now.
    pub(super) fn on_committed(&mut self) {
        let now = clock::mono();
        let Some(active) = &mut self.active else { return };
        let Some(journaling) = &mut active.journaling else { return };
        let (released, said) = journaling.turn(now, active.coordinator.is_closed());
        if let Some(said) = said {
            active.coordinator.note(now, said, "journal");
        }
        for effect in released {
            self.act(effect);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ledger::{Delta, Group};
    use crate::journal::{Folder, MemoryJournal};
    use crate::run::fixture;
    use ld_shared::frame::FrameBody;
    use ld_shared::id::Epoch;
    use ld_shared::lanes::LaneSet;
    use ld_shared::plan::Pool;
    use ld_shared::sample::Phase;
    use ld_shared::shard::Shard;
    use std::sync::Arc;

    const SESSION: SessionId = SessionId(1);

    fn journaling() -> (Journaling, Order) {
        let plan = Arc::new(fixture::plan());
        let spec = Spec {
            run: RunId("r".into()),
            digest: Digest::of(&plan.to_json()),
            plan,
            blobs: Vec::new(),
            expected: 1,
            wait: Duration::ZERO,
            allow_missing: false,
            thresholds: Vec::new(),
            local: false,
            one_worker: false,
        };
        let (folder, command) = (Folder::new("nowhere".into()), Digest("c".into()));
        let order = JournalOrder { folder, command, label: None, given: None };
        let (inputs, _) = mpsc::channel(1);
        let beginning = Beginning { spec: &spec, blobs: &BTreeMap::new(), inputs: inputs.downgrade() };
        let journaling = Journaling::new(order, beginning);
        let Some((Entry::Order(order, _), _)) = &journaling.first else { panic!("it begins with its order") };
        let order = (**order).clone();
        (journaling, order)
    }

    fn frame() -> Effect {
        let delta = Delta::of(1, &FrameBody::default(), [0; Phase::COUNT], RunTime(1));
        let group = Group { sessions: BTreeMap::from([(SESSION, delta)]), ..Group::default() };
        Effect::Journal(Box::new(Entry::Frames(Box::new(group))))
    }

    fn send(message: ToWorker) -> Effect {
        Effect::Send(SESSION, message)
    }

    fn ack() -> Effect {
        send(ToWorker::FrameAck { run: RunId("r".into()), seq: 1, record_limits: [0; 2] })
    }

    fn pass(journaling: &mut Journaling, effect: Effect) -> Option<Effect> {
        let member = |_| Joined { name: "w".into(), cores: 1, secret: Vec::new() };
        journaling.pass(Mono(0), RunTime(0), effect, member)
    }

    #[test]
    fn nothing_that_depends_on_an_entry_leaves_before_its_commit() {
        let (mut journaling, order) = journaling();
        // workers are awaited for a while: that must not open the gate for good
        assert_eq!(journaling.turn(Mono(0), false), (vec![], None));
        let journal = MemoryJournal::new(&order);
        journaling.journal = Some(Box::new(journal.clone()));
        journaling.first = None;
        let run = RunId("r".into());
        let tickets =
            send(ToWorker::Tickets { run: run.clone(), pool: Pool::Iterations, tickets: 0..4, exhausted: false });
        assert_eq!(pass(&mut journaling, frame()), None);
        assert_eq!(pass(&mut journaling, ack()), None);
        assert_eq!(pass(&mut journaling, tickets.clone()), None);
        let stop = send(ToWorker::Stop { run: run.clone() });
        assert_eq!(pass(&mut journaling, stop.clone()), Some(stop), "a slow disk delays no stop");
        assert_eq!(journaling.turn(Mono(0), false), (vec![], None));
        let (released, said) = journaling.turn(Mono(3_000_000_000), false);
        assert!(released.is_empty() && said.unwrap().contains("3.0 s behind"));
        journal.commit(false);
        let (released, said) = journaling.turn(Mono(3_000_000_001), false);
        assert_eq!(released, [ack(), tickets]);
        assert!(said.unwrap().contains("up to date again"));
        // the end of the run waits as well, yet not for ever
        assert_eq!(pass(&mut journaling, Effect::Closed), None);
        assert_eq!(journaling.turn(Mono(1), true), (vec![], None));
        let (released, said) = journaling.turn(Mono(11_000_000_000), true);
        assert_eq!(released, [Effect::Closed]);
        assert!(said.unwrap().contains("not waited for"));
    }

    #[test]
    fn a_stop_follows_an_arm_that_waits_and_no_other() {
        let (mut journaling, order) = journaling();
        let journal = MemoryJournal::new(&order);
        journaling.journal = Some(Box::new(journal.clone()));
        journaling.first = None;
        let run = RunId("r".into());
        let shard = Box::new(Shard {
            plan: order.digest.clone(),
            lanes: LaneSet::full(),
            epoch: Epoch(1),
            from: RunTime(0),
            max_in_flight: Vec::new(),
            throttles: Vec::new(),
        });
        let arm = send(ToWorker::Arm { run: run.clone(), attempt: 0, t0: Mono(0), shard });
        let stop = send(ToWorker::Stop { run: run.clone() });
        let other = Effect::Send(SessionId(2), ToWorker::Stop { run });
        assert_eq!(pass(&mut journaling, arm.clone()), None);
        assert_eq!(pass(&mut journaling, stop.clone()), None);
        assert_eq!(pass(&mut journaling, other.clone()), Some(other));
        journal.commit(false);
        assert_eq!(journaling.turn(Mono(1), false).0, [arm, stop]);
    }

    #[test]
    fn without_a_disk_the_run_goes_on() {
        let (mut journaling, order) = journaling();
        let journal = MemoryJournal::new(&order);
        journaling.journal = Some(Box::new(journal.clone()));
        journaling.first = None;
        assert_eq!(pass(&mut journaling, frame()), None);
        assert_eq!(pass(&mut journaling, ack()), None);
        journal.fail("no space left");
        let (released, said) = journaling.turn(Mono(0), false);
        assert_eq!(released, [ack()]);
        assert!(said.unwrap().contains("journal failed: no space left"));
        assert_eq!(pass(&mut journaling, frame()), None);
        assert_eq!(pass(&mut journaling, ack()), Some(ack()));
    }
}
