//! What of a run goes to disk, and in which form. Pure: [`Book`] turns entries into [`Write`]s, an
//! [`Image`] is what they leave behind.
//!
//! A write is one transaction. Frames of a group are merged by second ([`Group`]); every so often
//! the ledger itself is written, in parts of which most stay as they are, and groups before it are
//! not needed any more. Hence the size goes with names and seconds, not with workers.

use super::GROUP;
use super::entry::{Control, Entry, Order};
use crate::cluster::ledger::{self, Group, Ledger};
use bytes::Bytes;
use ld_shared::id::{Digest, SessionId};
use ld_shared::plan::Pool;
use ld_shared::record::Record;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

/// Turns entries into writes.
#[derive(Debug)]
pub struct Book {
    /// All that was added, frames and records counted, without the seconds that only the disk holds.
    ledger: Box<Ledger>,
    tickets: BTreeMap<Pool, Tickets>,
    /// Number of the newest entry.
    newest: u64,
    open: Open,
    /// Sessions whose last frame is in.
    finished: BTreeSet<SessionId>,
    /// Hashes of the ledger's parts as they were written last.
    parts: BTreeMap<String, u64>,
    /// Parts that are on the disk only, in so many pieces.
    forgotten: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Default)]
struct Tickets {
    next: u64,
    granted: BTreeMap<SessionId, u64>,
}

/// Entries that no write holds yet.
#[derive(Debug, Default)]
struct Open {
    entries: Vec<(u64, Vec<u8>)>,
    blobs: Vec<(Digest, Bytes)>,
    group: Group,
    granted: BTreeSet<(Pool, SessionId)>,
    records: Vec<Record>,
    any: bool,
}

/// One transaction.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Everything up to this entry is in it or in one before.
    pub number: u64,
    /// Entries that are kept as they are.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// Blobs of the plan.
    pub blobs: Vec<(Digest, Bytes)>,
    /// Frames, merged; not needed beside `ledger`.
    pub frames: Option<Vec<u8>>,
    /// Tickets by pool and session: how many it was granted in all, and the pool's next one.
    pub tickets: BTreeMap<(i64, u64), (u64, u64)>,
    /// Records that are kept.
    pub records: BTreeMap<RecordKey, Vec<u8>>,
    /// Records of successes and failures with these priorities or higher are not kept.
    pub cuts: [u64; 2],
    /// The ledger's parts that have changed, and those that are no more.
    pub ledger: Option<Parts>,
}

/// Parts of the ledger that have changed, and the keys of those that are no more.
pub type Parts = (Vec<(String, Vec<u8>)>, Vec<String>);

/// Success or failure, and the place in the order of priorities.
pub type RecordKey = (u8, u64, u64, u64);

/// What is on the disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Everything up to this entry is in it.
    pub number: u64,
    /// Entries that are kept as they are.
    pub entries: BTreeMap<u64, Vec<u8>>,
    /// Blobs of the plan.
    pub blobs: BTreeMap<Digest, Bytes>,
    /// Groups of frames by their writes' numbers; those up to `ledger_at` are not needed.
    pub frames: BTreeMap<u64, Vec<u8>>,
    /// As [`Write::tickets`].
    pub tickets: BTreeMap<(i64, u64), (u64, u64)>,
    /// Kept records.
    pub records: BTreeMap<RecordKey, Vec<u8>>,
    /// As [`Write::cuts`].
    pub cuts: [u64; 2],
    /// Every entry up to this one is in `ledger`; 0: there is none.
    pub ledger_at: u64,
    /// The ledger's parts.
    pub ledger: BTreeMap<String, Vec<u8>>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            number: 0,
            entries: BTreeMap::new(),
            blobs: BTreeMap::new(),
            frames: BTreeMap::new(),
            tickets: BTreeMap::new(),
            records: BTreeMap::new(),
            cuts: [u64::MAX; 2],
            ledger_at: 0,
            ledger: BTreeMap::new(),
        }
    }
}

/// The form of an entry that is kept as it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stored {
    /// The first.
    Order(Box<Order>),
    /// All others.
    Control(Control),
}

impl Book {
    /// Of a new run.
    pub fn new(order: &Order) -> Self {
        Self::over(Ledger::new(order.run.clone(), order.plan.records.keep), 0)
    }

    /// Goes on where an image ends, of which `ledger` was recovered.
    pub fn resume(image: &Image, ledger: Ledger) -> Self {
        let mut book = Self::over(ledger, image.number);
        for ((pool, session), (granted, next)) in &image.tickets {
            let tickets = book.tickets.entry(pool_of(*pool)).or_default();
            tickets.next = tickets.next.max(*next);
            tickets.granted.insert(SessionId(*session), *granted);
        }
        book.parts = image.ledger.iter().map(|(key, bytes)| (key.clone(), hash(bytes))).collect();
        book
    }

    fn over(ledger: Ledger, newest: u64) -> Self {
        let finished = ledger.sessions().filter(|(_, frames)| frames.last).map(|(id, _)| id).collect();
        let (tickets, open) = (BTreeMap::new(), Open::default());
        let (parts, forgotten) = (BTreeMap::new(), BTreeMap::new());
        Self { ledger: Box::new(ledger), tickets, newest, open, finished, parts, forgotten }
    }

    /// Number of the newest entry.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        !self.open.any
    }

    /// How long an entry may wait for others, so that one commit serves many. What a promise depends
    /// on, and what ends a session, goes at once; so do records that are all that a session still has
    /// to deliver, for the run waits for them.
    pub fn may_wait(&self, entry: &Entry) -> Duration {
        let waits = match entry {
            Entry::Order(..) | Entry::Control(_) | Entry::Granted { .. } => false,
            Entry::Frames(group) => group.finished().next().is_none(),
            Entry::Records(batch) => !batch.body.last && !self.finished.contains(&batch.session),
        };
        if waits { GROUP } else { Duration::ZERO }
    }

    /// Adds an entry. Gives its number.
    pub fn add(&mut self, entry: Entry) -> u64 {
        self.newest += 1;
        self.open.any = true;
        let number = self.newest;
        match entry {
            Entry::Order(order, blobs) => {
                self.open.entries.push((number, stored(&Stored::Order(order))));
                self.open.blobs.extend(blobs);
            }
            Entry::Control(control) => {
                if let Control::Joined { session, .. } = &control {
                    self.ledger.admit(*session);
                }
                self.open.entries.push((number, stored(&Stored::Control(control))));
            }
            Entry::Granted { pool, session, tickets } => {
                let known = self.tickets.entry(pool).or_default();
                known.next = known.next.max(tickets.end);
                *known.granted.entry(session).or_default() += tickets.end.saturating_sub(tickets.start);
                self.open.granted.insert((pool, session));
            }
            Entry::Frames(group) => {
                self.finished.extend(group.finished());
                self.open.group.follow(*group);
            }
            Entry::Records(batch) => {
                self.open.group.add_records(&batch);
                self.ledger.offer_records(&batch.body.kept);
                self.open.records.extend(batch.body.kept);
            }
        }
        number
    }

    /// Closes what was added into a write; `whole`: with the ledger.
    pub fn seal(&mut self, whole: bool) -> Write {
        let open = std::mem::take(&mut self.open);
        let frames = (!open.group.is_empty()).then(|| {
            self.ledger.apply(&open.group);
            // beside the whole ledger they are not needed
            (!whole).then(|| open.group.encoded())
        });
        let cuts = self.ledger.record_cuts();
        let mut records = BTreeMap::new();
        for record in &open.records {
            let kind = ledger::kind(record);
            if record.priority < cuts[kind] && record.phase == ld_shared::sample::Phase::Main {
                let key = (kind as u8, record.priority, record.ended_at, record.response_us);
                records.insert(key, ledger::record_to_bytes(record));
            }
        }
        let ticket = |(pool, session): (Pool, SessionId)| {
            let known = self.tickets.get(&pool)?;
            Some(((pool_number(pool), session.0), (*known.granted.get(&session)?, known.next)))
        };
        Write {
            number: self.newest,
            entries: open.entries,
            blobs: open.blobs,
            frames: frames.flatten(),
            tickets: open.granted.into_iter().filter_map(ticket).collect(),
            records,
            cuts,
            ledger: whole.then(|| self.changed_parts()),
        }
    }

    fn changed_parts(&mut self) -> Parts {
        let mut changed = Vec::new();
        let mut hashes = BTreeMap::new();
        for (part, bytes) in self.ledger.parts() {
            let key = self.piece(part);
            let hash = hash(&bytes);
            hashes.insert(key.clone(), hash);
            if self.parts.get(&key) != Some(&hash) {
                changed.push((key, bytes));
            }
        }
        let gone = self.parts.keys().filter(|key| !hashes.contains_key(*key)).cloned().collect();
        self.parts = hashes;
        for part in self.ledger.forget_old_rows() {
            self.parts.remove(&self.piece(part.clone()));
            *self.forgotten.entry(part).or_default() += 1;
        }
        (changed, gone)
    }

    /// The key under which a part is stored, beside its pieces that were stored before and are forgotten here.
    fn piece(&self, part: String) -> String {
        match self.forgotten.get(&part) {
            Some(pieces) => format!("{part}/{pieces}"),
            None => part,
        }
    }
}

impl Image {
    /// What is there after a write.
    pub fn apply(&mut self, write: &Write) {
        self.number = write.number;
        self.entries.extend(write.entries.iter().cloned());
        self.blobs.extend(write.blobs.iter().cloned());
        self.frames.extend(write.frames.clone().map(|frames| (write.number, frames)));
        self.tickets.extend(&write.tickets);
        self.records.extend(write.records.clone());
        self.cuts = write.cuts;
        let cuts = write.cuts;
        self.records.retain(|(kind, priority, ..), _| *priority < cuts[usize::from(*kind)]);
        if let Some((changed, gone)) = &write.ledger {
            self.ledger.retain(|key, _| !gone.contains(key));
            self.ledger.extend(changed.iter().cloned());
            self.ledger_at = write.number;
            self.frames.retain(|number, _| *number > write.number);
        }
    }
}

/// A pool as a number.
pub(super) fn pool_number(pool: Pool) -> i64 {
    match pool {
        Pool::Iterations => -1,
        Pool::Source(index) => i64::from(index),
    }
}

/// The inverse of [`pool_number`].
pub(super) fn pool_of(number: i64) -> Pool {
    u32::try_from(number).map_or(Pool::Iterations, Pool::Source)
}

fn stored(entry: &Stored) -> Vec<u8> {
    serde_json::to_vec(entry).expect("entries hold only types with a JSON form")
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
