//! The way to the master: dialled, lost, found again; the lease that hangs on it, and when a master is given up.

use super::run::Stage;
use super::{Effect, Ending, Exit, Membership, Unreached};
use bytes::Bytes;
use ld_shared::clock_estimate::ClockEstimate;
use ld_shared::id::SessionId;
use ld_shared::message::{BeatReply, GONE_AFTER, Hello, LEASE, Refusal, Returning, ToMaster};
use ld_shared::plan::MasterLoss;
use ld_shared::time::Mono;
use std::time::Duration;

/// Between two attempts to reach the master.
const REDIAL_EVERY: Duration = Duration::from_millis(500);
/// The first beats come faster, so that the clock is known before the first run.
const QUICK_BEATS: u64 = 8;
const QUICK_BEAT_EVERY: Duration = Duration::from_millis(20);
/// How long the master may take to answer the hello.
const GREET_WITHIN: Duration = Duration::from_secs(5);
/// A master that is dialled and does not answer for so long may live: it is not its process that is gone.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long load goes on without a master after its machine said that nobody listens: several
/// attempts to reach it lie within.
const ORPHAN_LEASE: Duration = LEASE;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Link {
    /// Nothing is there; dial then.
    Down {
        redial: Mono,
    },
    Dialing,
    /// The hello is sent.
    Greeting {
        until: Mono,
    },
    Joined {
        session: SessionId,
    },
}

/// What the absence of a master looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// Nothing is heard: cut off, perhaps, while the master gives the share away.
    Silent,
    /// The connection ended, and the master was not dialled since, or once, and then what stood was reset:
    /// a process that is being killed may still have its port, with nobody behind it.
    Ended {
        /// It was dialled so.
        again: bool,
    },
    /// The connection ended, and whenever it was dialled since, its machine said that nobody listens:
    /// the master's process is gone, and gives nothing away.
    Gone,
}

impl Membership {
    /// Whether the master has let it in; else, in words, why it has not.
    pub fn joined(&self) -> Result<(), String> {
        let master = &self.options.master;
        match self.link {
            Link::Joined { .. } => Ok(()),
            Link::Down { .. } | Link::Dialing | Link::Greeting { .. } if self.seen.is_empty() => {
                Err(format!("the master {master} has not answered yet"))
            }
            Link::Down { .. } | Link::Dialing | Link::Greeting { .. } => {
                Err(format!("no connection to the master {master}: {}", self.seen))
            }
        }
    }

    /// When the way to the master needs something.
    pub(super) fn link_deadline(&self) -> Mono {
        let due = match self.link {
            Link::Down { redial } => redial.min(self.gives_up_at()),
            // dialling is bounded by the shell, which dials with a time-out
            Link::Dialing => self.gives_up_at(),
            Link::Greeting { until } => until.min(self.gives_up_at()),
            Link::Joined { .. } => self.next_beat.min(self.heard.after(self.patience())),
        };
        let unanswered =
            self.trying.filter(|_| self.absence != Absence::Silent).map(|since| since.after(ANSWER_WITHIN));
        due.min(unanswered.unwrap_or(Mono(u64::MAX)))
    }

    /// How long a connection may be silent. Never shorter than a lease, or a busy master would be given
    /// up; while load is made no longer than after which it has given this worker up.
    fn patience(&self) -> Duration {
        let patience = self.options.master_timeout.max(LEASE);
        if self.run.is_some() { patience.min(GONE_AFTER) } else { patience }
    }

    /// When a master that is not there is given up for good.
    fn gives_up_at(&self) -> Mono {
        let for_ever = self.options.stay && self.run.is_none() || self.ending == Ending::Abandoned;
        if for_ever { Mono(u64::MAX) } else { self.heard.after(self.options.master_timeout) }
    }

    pub(super) fn on_connected(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        self.link = Link::Greeting { until: now.after(GREET_WITHIN) };
        let returning = self.home.clone().filter(|_| self.run.as_ref().is_some_and(|run| !run.orphaned));
        let hello = Hello { returning, ..self.options.hello.clone() };
        effects.push(Effect::Send(ToMaster::Hello(hello)));
    }

    /// There is no connection. Load that is being made goes on for as long as its lease; what it
    /// measures waits for the master to be there again.
    pub(super) fn on_disconnected(&mut self, now: Mono, why: Unreached, effects: &mut Vec<Effect>) {
        let Unreached { refused, reset, hopeless, seen } = why;
        if hopeless && self.run.is_none() {
            effects.push(Effect::Exit(Exit::Failed(seen)));
            return;
        }
        let was_joined = matches!(self.link, Link::Joined { .. });
        let master = &self.options.master;
        if was_joined {
            effects.push(Effect::Say(format!("connection to the master {master} ended: {seen}")));
        } else {
            self.tell_once(format!("no connection to the master {master}: {seen}; trying again"), effects);
        }
        self.absence = match self.absence {
            _ if was_joined => Absence::Ended { again: false },
            Absence::Ended { again: false } if reset => Absence::Ended { again: true },
            _ if !refused => Absence::Silent,
            Absence::Ended { .. } => Absence::Gone,
            Absence::Silent | Absence::Gone => self.absence,
        };
        self.seen = seen;
        self.trying = None;
        self.link = Link::Down { redial: if was_joined { now } else { now.after(REDIAL_EVERY) } };
        self.clock = ClockEstimate::default();
        self.attached = false;
        let makes_load = self.run.as_ref().is_some_and(|run| run.t0().is_some());
        if !makes_load {
            self.lease = None;
            self.drop_run(effects);
        } else if refused && self.absence == Absence::Gone && self.holds_lease(now) {
            // nobody is there who could give the share away, and while the lease lasted nobody did:
            // whoever slept through its end cannot know
            self.extend_lease(now.after(ORPHAN_LEASE), effects);
        }
    }

    fn tell_once(&mut self, text: String, effects: &mut Vec<Effect>) {
        if self.told != text {
            self.told.clone_from(&text);
            effects.push(Effect::Say(text));
        }
    }

    pub(super) fn holds_lease(&self, now: Mono) -> bool {
        self.lease.is_some_and(|until| now < until)
    }

    fn extend_lease(&mut self, until: Mono, effects: &mut Vec<Effect>) {
        if self.lease.is_none_or(|have| have < until) {
            self.lease = Some(until);
            effects.push(Effect::Lease(until));
        }
    }

    pub(super) fn on_welcome(
        &mut self,
        now: Mono,
        (session, secret): (SessionId, Bytes),
        name: &str,
        effects: &mut Vec<Effect>,
    ) {
        let same = self.home.as_ref().is_some_and(|home| home.session == session);
        self.home = Some(Returning { session, secret, heir_of: None });
        self.link = Link::Joined { session };
        self.trying = None;
        self.told.clear();
        (self.beats, self.next_beat) = (0, now);
        let master = &self.options.master;
        if same && self.run.is_some() {
            effects.push(Effect::Say(format!("back at the master {master} as {name}")));
        } else {
            effects.push(Effect::Say(format!("joined the master {master} as {name}")));
            self.attached = true;
            // a master that does not know this session does not know the run
            self.lose_run(now, effects);
        }
        self.offer_again(effects);
    }

    pub(super) fn on_refused(&mut self, now: Mono, refusal: &Refusal, effects: &mut Vec<Effect>) {
        let text = format!("the master {} refused this worker: {}", self.options.master, refusal.text);
        effects.push(Effect::Hangup);
        if refusal.retry {
            self.tell_once(text, effects);
            self.link = Link::Down { redial: now.after(REDIAL_EVERY) };
        } else {
            effects.push(Effect::Exit(Exit::Failed(text)));
        }
    }

    pub(super) fn on_beat_reply(&mut self, now: Mono, reply: &BeatReply, effects: &mut Vec<Effect>) {
        self.clock.add(reply, now);
        self.beat_every = reply.every;
        // what still drains of a run whose master is lost has no part in this one's leases
        if self.attached && self.run.as_ref().is_none_or(|run| !run.orphaned) {
            self.extend_lease(reply.sent_at.after(LEASE), effects);
        }
    }

    pub(super) fn on_goodbye(&mut self, now: Mono, text: &str, effects: &mut Vec<Effect>) {
        if self.options.stay {
            effects.push(Effect::Say(format!("the master {} said goodbye: {text}", self.options.master)));
            effects.push(Effect::Hangup);
            self.link = Link::Down { redial: now.after(REDIAL_EVERY) };
            self.lease = None;
            self.lose_run(now, effects);
        } else {
            self.drop_run(effects);
            effects.push(Effect::Exit(Exit::Done(format!("the master said goodbye: {text}"))));
        }
    }

    pub(super) fn advance_link(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let joined = matches!(self.link, Link::Joined { .. });
        if joined && now >= self.heard.after(self.patience()) {
            let seconds = self.patience().as_secs_f64();
            effects.push(Effect::Hangup);
            self.on_disconnected(now, Unreached::seen(format!("nothing was heard of it for {seconds} s")), effects);
            // that is no proof that its process is gone
            self.absence = Absence::Silent;
        }
        if !joined && now >= self.gives_up_at() {
            self.give_up(now, effects);
        }
        if self.trying.is_some_and(|since| now >= since.after(ANSWER_WITHIN)) {
            self.absence = Absence::Silent;
        }
        match self.link {
            Link::Down { redial } if now >= redial => {
                self.link = Link::Dialing;
                self.trying = Some(now);
                effects.push(Effect::Dial);
            }
            Link::Greeting { until } if now >= until => {
                effects.push(Effect::Hangup);
                self.on_disconnected(now, Unreached::seen("it did not answer the hello"), effects);
            }
            Link::Joined { .. } if now >= self.next_beat => {
                self.beats += 1;
                let every = if self.beats < QUICK_BEATS { QUICK_BEAT_EVERY } else { self.beat_every };
                self.next_beat = now.after(every);
                let run = self.run.as_ref().filter(|run| !run.orphaned);
                let run = run.and_then(|run| Some((run.run.clone(), run.t0()?)));
                effects.push(Effect::Beat { number: self.beats, run });
            }
            Link::Down { .. } | Link::Dialing | Link::Greeting { .. } | Link::Joined { .. } => {}
        }
    }

    /// The master has not been there for too long.
    fn give_up(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        if self.options.stay {
            effects.push(Effect::Say(format!("{}: its run is given up", self.lost_master())));
            self.heard = now;
            self.lose_run(now, effects);
            return;
        }
        self.ending = Ending::Abandoned;
        let Some(run) = &mut self.run else { return };
        let makes_load = match run.stage {
            Stage::Running { .. } => self.lease.is_some_and(|until| now < until),
            Stage::Draining { .. } => true,
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready | Stage::Armed { .. } | Stage::Spent { .. } => {
                false
            }
        };
        if run.ready.on_master_loss == MasterLoss::Finish && self.absence == Absence::Gone && makes_load {
            run.orphaned = true;
            effects.push(Effect::Say(format!("{}: the test is run to its end", self.lost_master())));
        } else {
            self.lose_run(now, effects);
        }
    }

    pub(super) fn lost_master(&self) -> String {
        let seconds = self.options.master_timeout.as_secs_f64();
        let why = if self.seen.is_empty() { String::new() } else { format!(" ({})", self.seen) };
        format!("nothing was heard of the master {} for {seconds} s{why}", self.options.master)
    }
}
