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
mod timeline;

pub use group::{Delta, Group, Span};
pub use parts::{PartError, record_from_bytes, record_to_bytes};

use crate::run::TimelineRow;
use crate::run::blocks::Blocks;
use ld_shared::frame::{Collected, Frame, FrameBody, Odometers};
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
pub struct SessionLedger {
    /// Frames counted so far: seqs 1..=`seq`.
    pub seq: u64,
    /// First second that no counted frame covers.
    pub to_second: u32,
    /// Run time at which the newest counted span was closed.
    pub sealed_at: RunTime,
    /// Counters at the end of the newest counted span.
    pub odometers: Odometers,
    /// Requests that ended by the merged histograms, per phase.
    pub ended: [u64; Phase::COUNT],
    /// Most users at once.
    pub users_max: u64,
    /// Most users at once in the newest span.
    pub users: u64,
    /// Greatest CPU share of one core in one second, in thousandths.
    pub cpu_max_permille: u32,
    /// The wait of its cores to be polled.
    pub scheduler_lag: Latency,
    /// First start − start instant, ns.
    pub start_skew: Option<u64>,
    /// Requests of the main phase that records are chosen from: successes, failures.
    pub records_seen: [u64; 2],
    /// Its last frame is in.
    pub finished: bool,
    /// Batches of records counted so far: seqs 1..=`record_seq`.
    pub record_seq: u64,
    /// Its last frame said that records follow, and the last of them is not in.
    pub records_open: bool,
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
        if key.seq <= session.seq {
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

    /// Every session's part.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionLedger)> {
        self.sessions.iter().map(|(session, ledger)| (*session, ledger))
    }

    /// One session's part.
    pub fn session(&self, session: SessionId) -> Option<&SessionLedger> {
        self.sessions.get(&session)
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

    /// Counts of the newest second that every one of `sessions` has reported.
    pub fn newest_common_row(&self, sessions: impl Iterator<Item = SessionId>) -> Option<(u32, Row)> {
        let covered = sessions.filter_map(|s| self.sessions.get(&s)).map(|s| s.to_second).min()?;
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
            seen[0] += session.records_seen[0];
            seen[1] += session.records_seen[1];
        }
        (records, seen)
    }
}

impl SessionLedger {
    /// Takes over what its next frames and batches bring.
    fn take(&mut self, delta: &Delta) {
        if let Some(frames) = &delta.frames {
            self.seq = frames.seq;
            self.to_second = self.to_second.max(frames.to_second);
            self.sealed_at = self.sealed_at.max(frames.sealed_at);
            self.odometers = frames.odometers;
            self.finished = frames.last;
            self.records_open = frames.last && frames.records_follow;
            self.ended.iter_mut().zip(frames.ended).for_each(|(sum, part)| *sum += part);
            self.users = frames.users;
            self.users_max = self.users_max.max(frames.users_max);
            self.cpu_max_permille = self.cpu_max_permille.max(frames.cpu_max_permille);
            self.scheduler_lag.merge(&frames.scheduler_lag);
            self.start_skew = self.start_skew.or(frames.start_skew);
            self.records_seen = frames.records_seen;
        }
        self.record_seq = self.record_seq.max(delta.record_seq);
        self.records_open &= !delta.records_last;
    }

    /// Requests whose fate is known, per phase: ended, cut off at the end of the drain, or never sent.
    pub fn settled(&self) -> [u64; Phase::COUNT] {
        Phase::ALL.map(|phase| {
            let odometer = self.odometers.phase(phase);
            self.ended[phase.index()] + odometer.requests_in_flight + odometer.requests_unsent
        })
    }

    fn fault_of(&self, seq: u64, body: &FrameBody, ended: [u64; Phase::COUNT], now: RunTime) -> Option<FrameFault> {
        let newest = body.to_second.saturating_sub(1).max(body.counts.rows.keys().next_back().copied().unwrap_or(0));
        if self.finished {
            return Some(FrameFault::AfterLast);
        }
        if seq != self.seq + 1 {
            return Some(FrameFault::Gap { seq, counted: self.seq });
        }
        if u64::from(newest) * ld_shared::time::SECOND > now.0.saturating_add(FUTURE_SLACK) {
            return Some(FrameFault::Future { second: newest, now });
        }
        // the last span may share its second with the one before, if that was cut short
        if body.from_second + 1 < self.to_second {
            return Some(FrameFault::Span { from: body.from_second, expected: self.to_second });
        }
        if !body.odometers.is_after(&self.odometers) {
            return Some(FrameFault::FallingOdometer);
        }
        // a start is counted before its end is: of one session and at any instant there are no fewer
        let phases = body.odometers.of_requests().iter().zip(ended).zip(self.ended).enumerate();
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

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::frame::FrameKey;
    use ld_shared::record::RecordBody;
    use ld_shared::sample::SeriesKey;
    use proptest::prelude::*;
    use std::sync::Arc;

    const NOW: RunTime = RunTime(1_000 * ld_shared::time::SECOND);

    fn frames(session: u64, samples: &[Vec<u64>]) -> Vec<Frame> {
        let mut odometers = Odometers::default();
        let body = |(index, values): (usize, &Vec<u64>)| {
            let second = index as u32;
            let mut body = FrameBody { from_second: second, to_second: second + 1, ..FrameBody::default() };
            let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
            let mut row = Row { bound_cores: u64::from(values.len() == 3), ..Row::default() };
            for value in values {
                body.counts.phase_mut(Phase::Main).series_mut(&key).succeeded.record(*value);
                row.succeeded += 1;
                odometers.phases[0].requests_started += 1;
            }
            body.counts.rows.insert(second, row);
            body.odometers = odometers;
            body.last = index + 1 == samples.len();
            let key = FrameKey { run: RunId("r".into()), session: SessionId(session), seq: u64::from(second) + 1 };
            Frame { key, body }
        };
        samples.iter().enumerate().map(body).collect()
    }

    fn batches(session: u64, samples: &[Vec<u64>]) -> Vec<RecordBatch> {
        let record = |value: &u64| Record {
            priority: value.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            ended_at: *value,
            started_at: *value,
            phase: if value.is_multiple_of(7) { Phase::Warmup } else { Phase::Main },
            request_type: "GET".into(),
            url: "u".into(),
            name: Arc::from("n"),
            scenario: "s".into(),
            worker: "".into(),
            status: None,
            response_us: *value,
            body_bytes: 0,
            error: value.is_multiple_of(3).then(|| "e".into()),
            answer: None,
        };
        let batch = |(index, values): (usize, &Vec<u64>)| {
            let kept = values.iter().map(record).collect();
            let body = RecordBody { kept, last: index + 1 == samples.len(), ..RecordBody::default() };
            RecordBatch { run: RunId("r".into()), session: SessionId(session), seq: index as u64 + 1, body }
        };
        samples.iter().enumerate().map(batch).collect()
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(RunId("r".into()), 10);
        ledger.admit(SessionId(1));
        ledger.admit(SessionId(2));
        ledger
    }

    proptest! {
        #[test]
        fn any_multiset_in_any_order_gives_the_same_ledger(
            a in prop::collection::vec(prop::collection::vec(0u64..100_000, 0..5), 1..6),
            b in prop::collection::vec(prop::collection::vec(0u64..100_000, 0..5), 1..6),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let all: Vec<Frame> = frames(1, &a).into_iter().chain(frames(2, &b)).collect();
            let mut straight = ledger();
            for frame in &all {
                prop_assert_eq!(straight.put(frame, RunTime(0), NOW), Put::New);
                prop_assert!(straight.fold().is_some());
            }
            let mut shaken = ledger();
            let mut groups = Vec::new();
            for (number, index) in order.iter().enumerate() {
                let _any = shaken.put(index.get(&all), RunTime(0), NOW);
                groups.extend(number.is_multiple_of(7).then(|| shaken.fold()).flatten());
            }
            // what was refused for a gap was not acknowledged, so it is sent again
            for frame in &all {
                prop_assert!(!matches!(shaken.put(frame, RunTime(0), NOW), Put::Refused(_)));
            }
            groups.extend(shaken.fold());
            prop_assert_eq!(&shaken, &straight);
            // the journal's groups are the frames, one by one or together
            let (mut one_by_one, mut together) = (ledger(), Group::default());
            for group in groups {
                one_by_one.apply(&group);
                together.follow(group);
            }
            prop_assert_eq!(&one_by_one, &straight);
            let mut at_once = ledger();
            at_once.apply(&Group::decode(&together.encoded()).unwrap());
            prop_assert_eq!(&at_once, &straight);
            let samples: usize = a.iter().chain(&b).map(Vec::len).sum();
            prop_assert_eq!(straight.total().phase(Phase::Main).succeeded(), samples as u64);
            let rows: u64 = straight.snapshots(NOW).0.rows.values().map(|r| r.succeeded).sum();
            prop_assert_eq!(rows, samples as u64);
            let unmarked: usize = a.iter().chain(&b).map(Vec::len).filter(|n| *n != 3).sum();
            prop_assert_eq!(straight.snapshots(NOW).1.phase(Phase::Main).succeeded(), unmarked as u64);
        }
    }

    proptest! {
        #[test]
        fn batches_in_any_order_and_number_give_the_same_sample(
            a in prop::collection::vec(prop::collection::vec(0u64..100_000, 0..5), 1..6),
            b in prop::collection::vec(prop::collection::vec(0u64..100_000, 0..5), 1..6),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let all: Vec<RecordBatch> = batches(1, &a).into_iter().chain(batches(2, &b)).collect();
            let (mut straight, mut shaken) = (ledger(), ledger());
            for batch in &all {
                prop_assert_eq!(straight.put_records(batch), Put::New);
            }
            for index in order {
                let _any = shaken.put_records(index.get(&all));
            }
            for batch in &all {
                prop_assert!(!matches!(shaken.put_records(batch), Put::Refused(_)));
            }
            let (kept, _) = straight.take_records();
            prop_assert_eq!(&shaken.take_records().0, &kept);
            prop_assert!(kept.iter().all(|record| record.phase == Phase::Main));
            // requests that are alike in every respect count as one
            let mut values: Vec<u64> = a.iter().chain(&b).flatten().copied().filter(|v| v % 7 != 0).collect();
            values.sort_unstable();
            values.dedup();
            let failed = values.iter().filter(|v| **v % 3 == 0).count();
            prop_assert_eq!(kept.iter().filter(|r| r.error.is_some()).count(), failed.min(10));
            prop_assert_eq!(kept.iter().filter(|r| r.error.is_none()).count(), (values.len() - failed).min(10));
        }
    }

    #[test]
    fn records_are_awaited_until_the_last_batch_or_the_session_ends() {
        let mut ledger = ledger();
        for session in [1, 2] {
            let mut frame = frames(session, &[vec![1]]).remove(0);
            frame.body.records_follow = true;
            assert_eq!(ledger.put(&frame, RunTime(0), NOW), Put::New);
        }
        let all = batches(1, &[vec![1], vec![2]]);
        let gap = FrameFault::RecordGap { seq: 2, counted: 0 };
        assert_eq!(ledger.put_records(&all[1]), Put::Refused(gap));
        assert_eq!(ledger.put_records(&all[0]), Put::New);
        assert_eq!(ledger.put_records(&all[1]), Put::New);
        assert!(ledger.awaits_records());
        ledger.end_records(SessionId(2));
        assert!(!ledger.awaits_records());
        let stranger = batches(9, &[vec![1]]).remove(0);
        assert_eq!(ledger.put_records(&stranger), Put::Refused(FrameFault::UnknownSession(SessionId(9))));
    }

    type Change = fn(&mut Frame);

    #[test]
    fn faulty_frames_change_nothing() {
        let good = frames(1, &[vec![1, 2], vec![3]]);
        let mut ledger = ledger();
        assert_eq!(ledger.put(&good[0], RunTime(0), NOW), Put::New);
        let before = ledger.clone();
        let cases: [(Change, FrameFault); 7] = [
            (|f| f.key.run = RunId("other".into()), FrameFault::OtherRun),
            (|f| f.key.session = SessionId(9), FrameFault::UnknownSession(SessionId(9))),
            (|f| f.key.seq = 3, FrameFault::Gap { seq: 3, counted: 1 }),
            (|f| f.body.to_second = 2_000, FrameFault::Future { second: 1_999, now: NOW }),
            (|f| f.body.odometers = Odometers::default(), FrameFault::FallingOdometer),
            (
                |f| f.body.odometers.phases[0].requests_started = 2,
                FrameFault::MoreEndsThanStarts { phase: 0, settled: 3, started: 2 },
            ),
            (
                |f| f.body.odometers.phases[0].requests_in_flight = u64::MAX,
                FrameFault::MoreEndsThanStarts { phase: 0, settled: u64::MAX, started: 3 },
            ),
        ];
        for (change, fault) in cases {
            let mut frame = good[1].clone();
            change(&mut frame);
            assert_eq!(ledger.put(&frame, RunTime(0), NOW), Put::Refused(fault));
            assert_eq!(ledger, before);
        }
        ledger.close();
        assert_eq!(ledger.put(&good[1], RunTime(0), NOW), Put::Refused(FrameFault::OtherRun));
    }
}
