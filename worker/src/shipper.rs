//! A worker's single requests on their way to the master. Pure.
//!
//! Kept ones: the `k` lowest of the worker's cores, which are shipped lowest first, a little at a
//! time while load is made, the rest at the end; the limit that comes back with acknowledgements
//! thins out what is held here and what the cores keep. All of them, if the plan wants that: encoded
//! lines in a bounded buffer; what does not fit is left out, and the master sees the difference.
//!
//! A request leaves only after the frame that counts it: the master never lists what it has not counted.

mod lowest;

use crate::kept::Kept;
use crate::recorder::LineBacklog;
use crate::sampler::RecordLimits;
use bytes::Bytes;
use ld_shared::message::RECORD_WINDOW;
use ld_shared::record::{Record, RecordBody, RecordPolicy, RequestLine};
use ld_shared::wire::Lines;
use lowest::Lowest;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of kept records that leave per second while load is made (ENGINEERING F4).
const BYTES_PER_SECOND: isize = 50_000;
/// Bytes of a batch: far below any message limit.
const BATCH: usize = 256 * 1024;
/// Bytes of lines that wait for the link.
const MOST_LINES: usize = 16 * 1024 * 1024;
/// Bytes of kept records of one kind that are held; beyond it fewer are kept, still uniformly.
pub(crate) const MOST_KEPT: usize = 512 * 1024 * 1024;

/// A shipper, and what it shares with the load cores.
pub(crate) struct Shipping {
    pub(crate) shipper: Shipper,
    pub(crate) limits: RecordLimits,
    pub(crate) backlog: LineBacklog,
}

/// What the worker ships.
pub(crate) struct Shipper {
    kinds: [Lowest; 2],
    /// Of seconds whose frames have not left.
    pending: BTreeMap<u32, Pending>,
    sealed: VecDeque<Bytes>,
    /// Bytes of sealed lines, pending ones among them.
    sealed_bytes: usize,
    /// What kept records may still take of the current second; negative after a large one.
    budget: isize,
    unacknowledged: usize,
    /// No more comes from the cores.
    ending: bool,
    last_sent: bool,
}

/// What a second brought so far of those that are all wanted.
#[derive(Default)]
struct Pending {
    lines: Lines,
    sealed: Vec<Bytes>,
}

impl Pending {
    fn seal(&mut self, sealed_bytes: &mut usize) {
        if self.lines.is_empty() {
            return;
        }
        let lines = self.lines.take();
        // no room: they are left out, and missing from what the master writes
        if *sealed_bytes + lines.len() <= MOST_LINES {
            *sealed_bytes += lines.len();
            self.sealed.push(lines);
        }
    }
}

impl Shipper {
    pub(crate) fn new(policy: RecordPolicy) -> Self {
        Self::with_bytes(policy, MOST_KEPT)
    }

    fn with_bytes(policy: RecordPolicy, most_bytes: usize) -> Self {
        Self {
            kinds: [0, 1].map(|_| Lowest::new(policy.keep, most_bytes)),
            pending: BTreeMap::new(),
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            budget: 0,
            unacknowledged: 0,
            ending: false,
            last_sent: false,
        }
    }

    /// Takes requests that a core gave away in this second.
    pub(crate) fn offer(&mut self, second: u32, kept: impl IntoIterator<Item = Kept>) {
        for kept in kept {
            self.kinds[kept.kind()].offer(second, kept);
        }
    }

    /// Takes a request of those that are all wanted, counted in this second.
    pub(crate) fn list(&mut self, second: u32, line: &RequestLine) {
        let pending = self.pending.entry(second).or_default();
        pending.lines.push(line);
        if pending.lines.size() >= BATCH {
            pending.seal(&mut self.sealed_bytes);
        }
    }

    /// The frame of this second has left: so may its requests.
    pub(crate) fn second(&mut self, second: u32) {
        self.budget = (self.budget + BYTES_PER_SECOND).min(BYTES_PER_SECOND);
        for kind in &mut self.kinds {
            kind.second(second);
        }
        if let Some(pending) = self.pending.remove(&second) {
            self.release(pending);
        }
    }

    fn release(&mut self, mut pending: Pending) {
        pending.seal(&mut self.sealed_bytes);
        self.sealed.extend(pending.sealed);
    }

    /// Priorities at or above which nobody needs records: successes, failures.
    pub(crate) fn limits(&self) -> [u64; 2] {
        [self.kinds[0].limit(), self.kinds[1].limit()]
    }

    /// The master knows better limits.
    pub(crate) fn thin(&mut self, limits: [u64; 2]) {
        for (kind, limit) in self.kinds.iter_mut().zip(limits) {
            if limit < kind.limit() {
                kind.thin(limit);
            }
        }
    }

    /// The master has counted a batch.
    pub(crate) fn acknowledge(&mut self) {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
    }

    /// Nothing more comes: what is left may leave as fast as it is acknowledged. Whether there is
    /// anything.
    pub(crate) fn end(&mut self) -> bool {
        self.ending = true;
        for kind in &mut self.kinds {
            kind.second(u32::MAX);
        }
        for pending in std::mem::take(&mut self.pending).into_values() {
            self.release(pending);
        }
        self.last_sent = !self.is_waiting();
        !self.last_sent
    }

    fn is_waiting(&self) -> bool {
        !self.sealed.is_empty() || self.kinds.iter().any(Lowest::is_waiting)
    }

    /// Whether everything has been handed out, after [`Self::end`].
    pub(crate) fn is_done(&self) -> bool {
        self.last_sent
    }

    /// The next batch, if there is something to ship and it may leave now. `spell` knows the texts
    /// of a kept request.
    pub(crate) fn next(&mut self, mut spell: impl FnMut(Kept) -> Record) -> Option<RecordBody> {
        if self.unacknowledged >= RECORD_WINDOW || self.last_sent {
            return None;
        }
        let mut body = RecordBody::default();
        if let Some(lines) = self.sealed.pop_front() {
            self.sealed_bytes -= lines.len();
            body.lines = lines;
        }
        let mut room = BATCH.saturating_sub(body.lines.len());
        while room > 0 && (self.ending || self.budget > 0) {
            // one of each kind in turn: neither waits for the other
            let before = body.kept.len();
            for kept in self.kinds.iter_mut().filter_map(|kind| kind.ship(self.ending)) {
                let record = spell(kept);
                room = room.saturating_sub(record.size());
                self.budget -= record.size().cast_signed();
                body.kept.push(record);
            }
            if body.kept.len() == before {
                // what still comes in this second waits for its end, so that the lowest of it leave
                self.budget = self.budget.min(0);
                break;
            }
        }
        body.last = self.ending && !self.is_waiting();
        if body.kept.is_empty() && body.lines.is_empty() && !body.last {
            return None;
        }
        self.last_sent = body.last;
        self.unacknowledged += 1;
        Some(body)
    }
}

#[cfg(test)]
mod tests;
