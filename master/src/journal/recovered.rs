//! What a journal tells after its master is gone: the fold of all its entries.

use super::book::{Image, Stored, pool_of};
use super::entry::{Assignment, Cause, Control, Order, Started};
use crate::cluster::ledger::{Group, Ledger, PartError, record_from_bytes};
use crate::run::Event;
use bytes::Bytes;
use ld_shared::id::{Digest, SessionId};
use ld_shared::load::Program;
use ld_shared::ticket::Dispenser;
use ld_shared::time::RunTime;
use ld_shared::wire::{Texts, WireError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A run as far as its journal tells.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What it is.
    pub order: Order,
    /// The plan's blobs, but for secrets.
    pub blobs: BTreeMap<Digest, Bytes>,
    /// The newest term.
    pub term: u64,
    /// Its start instant; `None`: it had not begun.
    pub started: Option<Started>,
    /// Who took part.
    pub sessions: BTreeMap<SessionId, Member>,
    /// The tickets that are left, and who was granted how many.
    pub tickets: Dispenser,
    /// Nothing is started from that instant on, and whether open requests were cut off.
    pub stopping: Option<(RunTime, bool)>,
    /// Why, if not because somebody asked for it.
    pub cause: Option<Cause>,
    /// What people and policies did.
    pub events: Vec<Event>,
    /// How the load was changed, in order.
    pub program: Program,
    /// The run was over, and its result was taken.
    pub closed: bool,
    /// Every frame and record that was acknowledged.
    pub ledger: Ledger,
}

/// Who took part.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// The name it was shown under.
    pub name: Arc<str>,
    /// Load cores.
    pub cores: u32,
    /// Open files that load may use.
    pub capacity: u64,
    /// Proves that it is the same when it comes back.
    pub secret: Bytes,
    /// What it owned, by ascending instants; of two with one number the later one counts.
    pub assignments: Vec<Assignment>,
    /// Its parts of the limits on the rate of requests.
    pub limits: Limits,
    /// What became of it.
    pub fate: Fate,
    /// When it was lost before it came back, and when it was there again.
    pub absences: Vec<(Lost, RunTime)>,
}

/// A session's parts of the limits on the rate of requests. It may still go by those before the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Those before.
    pub before: Vec<u32>,
    /// The newest that were on their way to it.
    pub newest: Vec<u32>,
    /// The highest number of an order that it was to confirm.
    pub number: u64,
}

impl Limits {
    fn take(&mut self, parts: Vec<u32>) {
        if self.newest.is_empty() {
            self.before.clone_from(&parts);
        } else if parts != self.newest {
            self.before = std::mem::take(&mut self.newest);
        }
        self.newest = parts;
    }
}

/// What became of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fate {
    /// It takes part, or its last frame is in (which the ledger tells).
    #[default]
    There,
    /// It was lost.
    Lost(Lost),
    /// It said goodbye.
    Left {
        /// When.
        at: RunTime,
        /// Why.
        text: String,
    },
}

/// A session was lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// When that was found.
    pub at: RunTime,
    /// It started nothing after that.
    pub until: RunTime,
    /// It fell silent: it may live.
    pub silent: bool,
    /// What was seen.
    pub how: String,
}

/// Why a journal tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It ends before its first entry.
    #[error("it was ended before it said what its run is")]
    Empty,
    /// An entry of another version, or damage.
    #[error("its entry {number} cannot be read")]
    Entry {
        /// Which.
        number: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Frames that contradict themselves.
    #[error("its frames {number} cannot be read")]
    Frames {
        /// Which.
        number: u64,
        /// Why.
        #[source]
        source: WireError,
    },
    /// A ledger that contradicts itself.
    #[error("its totals cannot be read")]
    Ledger(#[from] PartError),
}

impl Recovered {
    /// The fold of all entries.
    pub fn of(image: &Image) -> Result<Self, RecoverError> {
        let mut entries = Vec::new();
        for (number, bytes) in &image.entries {
            let stored = serde_json::from_slice(bytes);
            entries.push(stored.map_err(|source| RecoverError::Entry { number: *number, source })?);
        }
        let mut entries = entries.into_iter();
        let Some(Stored::Order(order)) = entries.next() else { return Err(RecoverError::Empty) };
        let mut recovered = Self::begin(*order);
        recovered.blobs.clone_from(&image.blobs);
        for stored in entries {
            if let Stored::Control(control) = stored {
                recovered.take(control);
            }
        }
        recovered.count(image)?;
        for ((pool, session), (granted, next)) in &image.tickets {
            recovered.tickets.restore(pool_of(*pool), SessionId(*session), *granted, *next);
        }
        for (session, member) in &recovered.sessions {
            recovered.ledger.admit(*session);
            if member.fate != Fate::There {
                recovered.ledger.end_records(*session);
            }
        }
        Ok(recovered)
    }

    fn begin(order: Order) -> Self {
        Self {
            ledger: Ledger::new(order.run.clone(), order.plan.records.keep),
            tickets: Dispenser::new(order.plan.pools()),
            order,
            blobs: BTreeMap::new(),
            term: 0,
            started: None,
            sessions: BTreeMap::new(),
            stopping: None,
            cause: None,
            events: Vec::new(),
            program: Program::default(),
            closed: false,
        }
    }

    fn take(&mut self, control: Control) {
        match control {
            Control::Term(term) => self.term = self.term.max(term),
            Control::Started(started) => self.started = Some(started),
            Control::Joined { session, name, cores, secret } => {
                let member = self.sessions.entry(session).or_default();
                (member.name, member.cores, member.secret) = (name, cores, secret.into());
            }
            Control::Ready { session, capacity } => self.sessions.entry(session).or_default().capacity = capacity,
            Control::Assigned { session, assignment } => {
                let member = self.sessions.entry(session).or_default();
                member.limits.take(assignment.throttles.iter().map(|share| share.parts).collect());
                member.assignments.retain(|known| known.epoch != assignment.epoch);
                member.assignments.push(assignment);
            }
            Control::Limits { session, number, parts } => {
                let limits = &mut self.sessions.entry(session).or_default().limits;
                limits.number = limits.number.max(number);
                limits.take(parts);
            }
            Control::Lost { session, at, until, silent, how } => {
                self.sessions.entry(session).or_default().fate = Fate::Lost(Lost { at, until, silent, how });
            }
            Control::Returned { session, at } => {
                let member = self.sessions.entry(session).or_default();
                if let Fate::Lost(lost) = std::mem::take(&mut member.fate) {
                    member.absences.push((lost, at));
                }
            }
            Control::Left { session, at, text } => {
                self.sessions.entry(session).or_default().fate = Fate::Left { at, text };
            }
            Control::Stopping { at, abort } => {
                let (first, _) = *self.stopping.get_or_insert((at, abort));
                self.stopping = Some((first, abort));
            }
            Control::Ends(cause) => self.cause = Some(cause),
            Control::Event { at_s, what, by } => self.events.push(Event { at_s, what, by }),
            Control::Program(change) => self.program.push(change.at, change.what),
            Control::Closed => self.closed = true,
        }
    }

    fn count(&mut self, image: &Image) -> Result<(), RecoverError> {
        if image.ledger_at > 0 {
            let parts = image.ledger.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice()));
            self.ledger = Ledger::from_parts(parts)?;
        }
        for (number, bytes) in image.frames.range(image.ledger_at + 1..) {
            let group = Group::decode(bytes).map_err(|source| RecoverError::Frames { number: *number, source })?;
            self.ledger.apply(&group);
        }
        let mut texts = Texts::default();
        let mut records = Vec::new();
        for bytes in image.records.values() {
            records.push(record_from_bytes(bytes, &mut texts)?);
        }
        self.ledger.restore_records(&records, image.cuts);
        Ok(())
    }
}
