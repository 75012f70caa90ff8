//! What the cluster measured: every frame, counted once by its key.
//!
//! Pure: no clock. Frames of a session must come in sequence; a gap is refused (and not
//! acknowledged, so the worker sends again), a repetition changes nothing. Hence the order in
//! which frames of different sessions arrive, and how often, does not matter.
//!
//! A frame is added to those that came shortly before it, of all workers, and these together to totals, timeline and
//! blocks ([`Ledger::fold`]) and to the journal: of a thousand workers that is one addition instead of a thousand.

mod group;
mod parts;
mod records;
#[cfg(test)]
mod tests;
mod timeline;

pub use group::{Delta, Frames, Group, Span};
pub use parts::{PartError, record_from_bytes, record_to_bytes};

use crate::run::TimelineRow;
use crate::run::blocks::Blocks;
use ld_shared::frame::{Collected, Frame, FrameBody};
use ld_shared::id::{RunId, SessionId};
use ld_shared::latency::Latency;
use ld_shared::record::{Record, RecordBatch};
use ld_shared::sample::Phase;
use ld_shared::snapshot::{Row, Snapshot};
use ld_shared::time::RunTime;
use records::Sampler;
use std::collections::BTreeMap;
use timeline::Timeline;

/// Every frame of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    run: RunId,
    sessions: BTreeMap<SessionId, SessionLedger>,
    /// Counted, and in nothing below yet.
    open: Group,
    total: Snapshot,
    /// Without seconds in which the generator was the limit; `None`: there was none, so it is the total.
    unmarked: Option<Box<Snapshot>>,
    /// Response times so far, all phases but the hooks.
    response: Latency,
    timeline: Timeline,
    blocks: Blocks,
    samplers: [Sampler; 2],
    collected: Option<Collected>,
    closed: bool,
}

/// One session's part.
#[derive(Clone, Debug, Default, PartialEq)]
struct SessionLedger {
    /// Its frames so far: seqs 1..=`frames.seq`.
    frames: Frames,
    /// Batches of records counted so far: seqs 1..=`record_seq`.
    record_seq: u64,
    /// Its last frame said that records follow, and the last of them is not in.
    records_open: bool,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// Counted now.
    New,
    /// Counted before: nothing changed. Acknowledge it again.
    Duplicate,
    /// Not counted: nothing changed.
    Refused(FrameFault),
}

/// Why a frame is not counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// It belongs to another run, or the run is closed.
    #[error("frame of a run that is not open")]
    OtherRun,
    /// Nobody of that identity takes part.
    #[error("frame of session {0}, which takes no part in this run")]
    UnknownSession(SessionId),
    /// A frame before it is missing.
    #[error("frame {seq} after {counted}: expected {}", counted + 1)]
    Gap {
        /// Its number.
        seq: u64,
        /// Frames counted so far.
        counted: u64,
    },
    /// A batch of records before it is missing.
    #[error("batch of records {seq} after {counted}: expected {}", counted + 1)]
    RecordGap {
        /// Its number.
        seq: u64,
        /// Batches counted so far.
        counted: u64,
    },
    /// It follows the session's last frame.
    #[error("frame after the session's last one")]
    AfterLast,
    /// It describes a time that is not over.
    #[error("frame describes second {second} while run time is {} s", now.as_secs())]
    Future {
        /// The second.
        second: u32,
        /// Run time now.
        now: RunTime,
    },
    /// Its span does not follow that of the frame before.
    #[error("frame spans from second {from}, expected {expected}")]
    Span {
        /// Its first second.
        from: u32,
        /// The one that follows the frame before.
        expected: u32,
    },
    /// A cumulative counter fell.
    #[error("frame with a cumulative counter lower than before")]
    FallingOdometer,
    /// Its counts hold more requests than its own counters say were started.
    #[error("frame by which {settled} requests of phase {phase} have come to their end, and {started} were started")]
    MoreEndsThanStarts {
        /// The phase's index.
        phase: usize,
        /// Ended, cut off or never sent, with all frames before.
        settled: u64,
        /// Started.
        started: u64,
    },
}

/// Clocks may disagree so much before a span counts as lying in the future.
const FUTURE_SLACK: u64 = 2 * ld_shared::time::SECOND;

impl Ledger {
    /// An empty ledger that keeps at most `keep` records of successes and of failures.
    pub fn new(run: RunId, keep: u64) -> Self {
        Self {
            run,
            sessions: BTreeMap::new(),
            open: Group::default(),
            total: Snapshot::default(),
            unmarked: None,
            response: Latency::default(),
            timeline: Timeline::default(),
            blocks: Blocks::default(),
            samplers: [Sampler::new(keep), Sampler::new(keep)],
            collected: None,
            closed: false,
        }
    }

    /// `session` takes part: its frames count.
    pub fn admit(&mut self, session: SessionId) {
        self.sessions.entry(session).or_default();
    }

    /// `session` takes no part after all: nothing of it was counted.
    pub fn dismiss(&mut self, session: SessionId) {
        if self.frames(session).is_some_and(|frames| frames.seq == 0) {
            self.sessions.remove(&session);
        }
    }

    /// Nothing counts from now on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Counts a frame once; in totals it is after the next [`Self::fold`]. `now` is run time.
    pub fn put(&mut self, frame: &Frame, sealed_at: RunTime, now: RunTime) -> Put {
        let Frame { key, body } = frame;
        if self.closed || key.run != self.run {
            return Put::Refused(FrameFault::OtherRun);
        }
        let Some(session) = self.sessions.get_mut(&key.session) else {
            return Put::Refused(FrameFault::UnknownSession(key.session));
        };
        if key.seq <= session.frames.seq {
            return Put::Duplicate;
        }
        let ended = Phase::ALL.map(|phase| body.counts.phase(phase).ended());
        if let Some(fault) = session.fault_of(key.seq, body, ended, now) {
            return Put::Refused(fault);
        }
        let delta = Delta::of(key.seq, body, ended, sealed_at);
        session.take(&delta);
        self.open.add(frame, delta);
        Put::New
    }

    /// Takes frames that were counted since the last time into everything that is summed up. Gives them, merged, for
    /// the journal; `None`: there is none.
    pub fn fold(&mut self) -> Option<Group> {
        if self.open.is_empty() {
            return None;
        }
        let open = std::mem::take(&mut self.open);
        self.count_all(&open);
        Some(open)
    }

    /// Counts frames that were counted before, merged: see [`Group`].
    pub fn apply(&mut self, group: &Group) {
        for (session, delta) in &group.sessions {
            self.sessions.entry(*session).or_default().take(delta);
        }
        self.count_all(group);
    }

    fn count_all(&mut self, group: &Group) {
        if let Some(collected) = &group.collected {
            self.collected = Some(collected.clone());
        }
        for (span, counts) in &group.spans {
            self.count(*span, counts);
        }
    }

    fn count(&mut self, span: Span, counts: &Snapshot) {
        let response = response(counts);
        self.timeline.add(span.from, span.to, &counts.rows, &response, span.marked);
        self.blocks.add(span.from, counts);
        self.response.merge(&response);
        // rows are in the timeline, where they are bounded
        let merge = |into: &mut Snapshot| {
            into.phases.iter_mut().zip(&counts.phases).for_each(|(mine, theirs)| mine.merge(theirs));
        };
        if span.marked {
            self.unmarked.get_or_insert_with(|| Box::new(self.total.clone()));
        } else if let Some(unmarked) = &mut self.unmarked {
            merge(unmarked);
        }
        merge(&mut self.total);
    }

    /// Counts a batch of records once.
    pub fn put_records(&mut self, batch: &RecordBatch) -> Put {
        if self.closed || batch.run != self.run {
            return Put::Refused(FrameFault::OtherRun);
        }
        let Some(session) = self.sessions.get_mut(&batch.session) else {
            return Put::Refused(FrameFault::UnknownSession(batch.session));
        };
        if batch.seq <= session.record_seq {
            return Put::Duplicate;
        }
        if batch.seq != session.record_seq + 1 {
            return Put::Refused(FrameFault::RecordGap { seq: batch.seq, counted: session.record_seq });
        }
        session.record_seq = batch.seq;
        session.records_open &= !batch.body.last;
        self.offer_records(&batch.body.kept);
        Put::New
    }

    /// Those of lowest priority are kept.
    pub fn offer_records(&mut self, records: &[Record]) {
        // reports list the main phase: nothing else may take its place
        for record in records.iter().filter(|record| record.phase == Phase::Main) {
            self.samplers[kind(record)].offer(record);
        }
    }

    /// Takes up records that were kept, and up to which priorities (successes, failures) they are.
    pub fn restore_records(&mut self, records: &[Record], cuts: [u64; 2]) {
        self.offer_records(records);
        self.samplers.iter_mut().zip(cuts).for_each(|(sampler, cut)| sampler.restore(cut));
    }

    /// The lowest priorities (successes, failures) that were let go: every record below is kept.
    pub fn record_cuts(&self) -> [u64; 2] {
        [self.samplers[0].cut(), self.samplers[1].cut()]
    }

    /// Nothing more comes of a session's records.
    pub fn end_records(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.records_open = false;
        }
    }

    /// Whether records of a session that has finished are still on their way.
    pub fn awaits_records(&self) -> bool {
        self.sessions.values().any(|session| session.records_open)
    }

    /// Records with priorities (successes, failures) at or above these are not wanted any more.
    pub fn record_limits(&self) -> [u64; 2] {
        [self.samplers[0].limit(), self.samplers[1].limit()]
    }

    /// Every session's frames.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Frames)> {
        self.sessions.iter().map(|(session, ledger)| (*session, &ledger.frames))
    }

    /// One session's frames.
    pub fn frames(&self, session: SessionId) -> Option<&Frames> {
        self.sessions.get(&session).map(|ledger| &ledger.frames)
    }

    /// How many of a session's frames and batches of records are counted.
    pub fn counted(&self, session: SessionId) -> Option<(u64, u64)> {
        self.sessions.get(&session).map(|ledger| (ledger.frames.seq, ledger.record_seq))
    }

    /// Everything that ended so far, without its rows.
    pub fn total(&self) -> &Snapshot {
        &self.folded().total
    }

    /// By name over spans of the run.
    pub fn blocks(&self) -> &Blocks {
        &self.folded().blocks
    }

    /// Response times so far.
    pub fn response(&self) -> &Latency {
        &self.folded().response
    }

    /// What is summed up holds all that was counted: whoever reads it has it folded first.
    fn folded(&self) -> &Self {
        debug_assert!(self.open.is_empty(), "frames are counted that are in no sum");
        self
    }

    /// Whether a session's last frame is in.
    pub fn has_finished(&self, session: SessionId) -> bool {
        self.frames(session).is_some_and(|frames| frames.last)
    }

    /// Counts of the newest second that every one of `sessions` has reported.
    pub fn newest_common_row(&self, sessions: impl Iterator<Item = SessionId>) -> Option<(u32, Row)> {
        let covered = sessions.filter_map(|s| self.sessions.get(&s)).map(|s| s.frames.to_second).min()?;
        let second = covered.checked_sub(1)?;
        Some((second, self.folded().timeline.row(second)?))
    }

    /// Where the rows of which all seconds lie before `to` end.
    pub fn whole_to(&self, to: u32) -> u32 {
        self.timeline.whole_to(to)
    }

    /// The rows that end behind `from` and before `to`; those from `end` on are of the drain.
    pub fn settled_rows(&self, from: u32, to: u32, end: RunTime) -> BTreeMap<u32, TimelineRow> {
        self.folded().timeline.between(from, to, end)
    }

    /// What a setup brought about, once its worker has said so.
    pub fn collected(&self) -> Option<&Collected> {
        self.collected.as_ref()
    }

    /// Counts starts that nobody made: they belong to no frame.
    pub fn add_row(&mut self, second: u32, row: &Row) {
        self.timeline.add_row(second, row);
    }

    /// Everything, rows included: total, unmarked, timeline.
    pub fn snapshots(&self, end: RunTime) -> (Snapshot, Snapshot, BTreeMap<u32, TimelineRow>) {
        let mut total = self.total().clone();
        let mut unmarked = self.unmarked.as_deref().unwrap_or(&total).clone();
        total.rows = self.timeline.rows();
        unmarked.rows = self.timeline.unmarked_rows();
        (total, unmarked, self.timeline.finish(end))
    }

    /// Kept records in order of their ends, and how many requests they were chosen from. The records
    /// leave the ledger: there may be hundreds of megabytes of them.
    pub fn take_records(&mut self) -> (Vec<Record>, [u64; 2]) {
        let mut records: Vec<Record> = self.samplers.iter_mut().flat_map(Sampler::take).collect();
        records.sort_unstable_by_key(|record| (record.ended_at, record.priority));
        let mut seen = [0; 2];
        for session in self.sessions.values() {
            seen[0] += session.frames.records_seen[0];
            seen[1] += session.frames.records_seen[1];
        }
        (records, seen)
    }
}

impl SessionLedger {
    /// Takes over what its next frames and batches bring.
    fn take(&mut self, delta: &Delta) {
        if let Some(frames) = &delta.frames {
            self.frames.follow(frames);
            self.records_open = frames.last && frames.records_follow;
        }
        self.record_seq = self.record_seq.max(delta.record_seq);
        self.records_open &= !delta.records_last;
    }

    fn fault_of(&self, seq: u64, body: &FrameBody, ended: [u64; Phase::COUNT], now: RunTime) -> Option<FrameFault> {
        let newest = body.to_second.saturating_sub(1).max(body.counts.rows.keys().next_back().copied().unwrap_or(0));
        let before = &self.frames;
        if before.last {
            return Some(FrameFault::AfterLast);
        }
        if seq != before.seq + 1 {
            return Some(FrameFault::Gap { seq, counted: before.seq });
        }
        if u64::from(newest) * ld_shared::time::SECOND > now.0.saturating_add(FUTURE_SLACK) {
            return Some(FrameFault::Future { second: newest, now });
        }
        // the last span may share its second with the one before, if that was cut short
        if body.from_second + 1 < before.to_second {
            return Some(FrameFault::Span { from: body.from_second, expected: before.to_second });
        }
        if !body.odometers.is_after(&before.odometers) {
            return Some(FrameFault::FallingOdometer);
        }
        // a start is counted before its end is: of one session and at any instant there are no fewer
        let phases = body.odometers.of_requests().iter().zip(ended).zip(before.ended).enumerate();
        phases
            .map(|(phase, ((odometer, ended), before))| {
                let own = [ended, odometer.requests_in_flight, odometer.requests_unsent];
                let settled = own.iter().fold(before, |sum, more| sum.saturating_add(*more));
                let started = odometer.requests_started;
                (settled > started).then_some(FrameFault::MoreEndsThanStarts { phase, settled, started })
            })
            .find_map(|fault| fault)
    }
}

/// Which sampler a record belongs to: that of successes, or that of failures.
pub fn kind(record: &Record) -> usize {
    usize::from(record.error.is_some())
}

/// Response times of everything outside the hooks.
fn response(counts: &Snapshot) -> Latency {
    let mut response = counts.phase(Phase::Main).response();
    response.merge(&counts.phase(Phase::Warmup).response());
    response
}
