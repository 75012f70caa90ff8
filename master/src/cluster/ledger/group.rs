//! Frames merged: what the journal keeps of them, so that its size goes with names and seconds and
//! not with workers. A ledger that is given the group is that which was given the frames.

use ld_shared::frame::{Collected, Frame, FrameBody, Odometers};
use ld_shared::id::SessionId;
use ld_shared::latency::Latency;
use ld_shared::record::RecordBatch;
use ld_shared::sample::Phase;
use ld_shared::snapshot::Snapshot;
use ld_shared::time::RunTime;
use ld_shared::wire::{self, WireError, v1};
use prost::Message;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Frames and batches of records, merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// What each session's part becomes.
    pub sessions: BTreeMap<SessionId, Delta>,
    /// What ended, by span.
    pub spans: BTreeMap<Span, Snapshot>,
    /// What a setup brought about.
    pub collected: Option<Collected>,
}

/// Frames of one span may merge: their percentiles describe the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First second.
    pub from: u32,
    /// First second after it.
    pub to: u32,
    /// The generator was the limit in it.
    pub marked: bool,
}

/// Consecutive frames and batches of one session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// The frames; `None`: there is none.
    pub frames: Option<Box<Frames>>,
    /// The newest batch of records; 0: there is none.
    pub record_seq: u64,
    /// It was the session's last.
    pub records_last: bool,
}

/// Consecutive frames of one session, without their counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frames {
    /// The newest.
    pub seq: u64,
    /// First second that none covers.
    pub to_second: u32,
    /// When the newest was closed.
    pub sealed_at: RunTime,
    /// Counters at its end.
    pub odometers: Odometers,
    /// It was the session's last.
    pub last: bool,
    /// Batches of records follow it.
    pub records_follow: bool,
    /// Requests that ended by the histograms, per phase.
    pub ended: [u64; Phase::COUNT],
    /// Most users at once in the newest.
    pub users: u64,
    /// Most users at once.
    pub users_max: u64,
    /// Greatest CPU share of one core in one second, in thousandths.
    pub cpu_max_permille: u32,
    /// The wait of cores to be polled.
    pub scheduler_lag: Latency,
    /// The first that is known.
    pub start_skew: Option<u64>,
    /// As of the newest.
    pub records_seen: [u64; 2],
}

impl Span {
    /// That of a frame.
    pub fn of(body: &FrameBody) -> Self {
        let marked = body.counts.rows.values().any(|row| row.bound_cores > 0);
        Self { from: body.from_second, to: body.to_second, marked }
    }
}

impl Delta {
    /// One frame, by whose histograms so many requests ended.
    pub fn of(seq: u64, body: &FrameBody, ended: [u64; Phase::COUNT], sealed_at: RunTime) -> Self {
        let generator = &body.generator;
        let frames = Frames {
            seq,
            to_second: body.to_second,
            sealed_at,
            odometers: body.odometers,
            last: body.last,
            records_follow: body.records_follow,
            ended,
            users: generator.users_max,
            users_max: generator.users_max,
            cpu_max_permille: generator.cpu_max_permille,
            scheduler_lag: generator.scheduler_lag.clone(),
            start_skew: generator.start_skew,
            records_seen: generator.records_seen,
        };
        Self { frames: Some(Box::new(frames)), ..Self::default() }
    }

    /// Adds those that come next.
    pub fn follow(&mut self, next: Self) {
        // a frame says anew whether records follow
        self.records_last = next.records_last || self.records_last && next.frames.is_none();
        self.record_seq = self.record_seq.max(next.record_seq);
        match (&mut self.frames, next.frames) {
            (Some(frames), Some(next)) => frames.follow(&next),
            (frames, next) => *frames = next.or_else(|| frames.take()),
        }
    }
}

impl Group {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Adds a frame that a ledger has counted, which is this delta.
    pub fn add(&mut self, frame: &Frame, delta: Delta) {
        let Frame { key, body } = frame;
        self.sessions.entry(key.session).or_default().follow(delta);
        self.spans.entry(Span::of(body)).or_default().merge(&body.counts);
        if let Some(collected) = &body.collected {
            self.collected = Some((**collected).clone());
        }
    }

    /// Adds what was counted after it.
    pub fn follow(&mut self, next: Self) {
        for (session, delta) in next.sessions {
            self.sessions.entry(session).or_default().follow(delta);
        }
        for (span, counts) in next.spans {
            match self.spans.entry(span) {
                Entry::Vacant(entry) => _ = entry.insert(counts),
                Entry::Occupied(mut entry) => entry.get_mut().merge(&counts),
            }
        }
        self.collected = next.collected.or(self.collected.take());
    }

    /// Sessions whose last frame is in it.
    pub fn finished(&self) -> impl Iterator<Item = SessionId> {
        let last = |(session, delta): (&SessionId, &Delta)| delta.frames.as_ref()?.last.then_some(*session);
        self.sessions.iter().filter_map(last)
    }

    /// Adds that a ledger has counted a batch of records. The records themselves are kept apart.
    pub fn add_records(&mut self, batch: &RecordBatch) {
        let delta = self.sessions.entry(batch.session).or_default();
        delta.record_seq = batch.seq;
        delta.records_last |= batch.body.last;
    }

    /// Its bytes.
    pub fn encoded(&self) -> Vec<u8> {
        let session = |(session, delta): (&SessionId, &Delta)| Session {
            id: session.0,
            frames: delta.frames.as_deref().map(Frames::to_wire),
            record_seq: delta.record_seq,
            records_last: delta.records_last,
        };
        let span = |(span, counts): (&Span, &Snapshot)| Counts {
            marked: span.marked,
            frame: Some(wire::counts_to_wire((span.from, span.to), counts)),
        };
        let message = Merged {
            sessions: self.sessions.iter().map(session).collect(),
            spans: self.spans.iter().map(span).collect(),
            collected: self.collected.as_ref().map(wire::collected_to_wire),
        };
        message.encode_to_vec()
    }

    /// The inverse of [`Self::encoded`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let merged = Merged::decode(bytes).map_err(|_| WireError::Missing("readable frames"))?;
        let mut group = Self::default();
        for session in merged.sessions {
            let frames = session.frames.map(|frames| Frames::from_wire(&frames).map(Box::new)).transpose()?;
            let delta = Delta { frames, record_seq: session.record_seq, records_last: session.records_last };
            group.sessions.insert(SessionId(session.id), delta);
        }
        for span in merged.spans {
            let mut frame = span.frame.ok_or(WireError::Missing("counts"))?;
            let ((from, to), counts) = wire::counts_from_wire(&mut frame)?;
            group.spans.insert(Span { from, to, marked: span.marked }, counts);
        }
        group.collected = merged.collected.as_ref().map(wire::collected_from_wire).transpose()?;
        Ok(group)
    }
}

impl Frames {
    /// Adds those that come next.
    pub fn follow(&mut self, next: &Self) {
        self.seq = next.seq;
        self.to_second = self.to_second.max(next.to_second);
        self.sealed_at = self.sealed_at.max(next.sealed_at);
        self.odometers = next.odometers;
        (self.last, self.records_follow) = (next.last, next.records_follow);
        self.ended.iter_mut().zip(next.ended).for_each(|(sum, more)| *sum += more);
        self.users = next.users;
        self.users_max = self.users_max.max(next.users_max);
        self.cpu_max_permille = self.cpu_max_permille.max(next.cpu_max_permille);
        self.scheduler_lag.merge(&next.scheduler_lag);
        self.start_skew = self.start_skew.or(next.start_skew);
        self.records_seen = next.records_seen;
    }

    /// Requests whose fate is known, per phase: ended, cut off at the end of the drain, or never sent.
    pub fn settled(&self) -> [u64; Phase::COUNT] {
        Phase::ALL.map(|phase| {
            let odometer = self.odometers.phase(phase);
            self.ended[phase.index()] + odometer.requests_in_flight + odometer.requests_unsent
        })
    }

    pub(super) fn to_wire(&self) -> Newest {
        Newest {
            seq: self.seq,
            to_second: self.to_second,
            sealed_at_ns: self.sealed_at.0,
            odometers: Some(wire::odometers_to_wire(&self.odometers)),
            last: self.last,
            records_follow: self.records_follow,
            ended: self.ended.to_vec(),
            users: self.users,
            users_max: self.users_max,
            cpu_max_permille: self.cpu_max_permille,
            scheduler_lag: self.scheduler_lag.encoded(),
            start_skew_ns: self.start_skew,
            records_seen: self.records_seen.to_vec(),
        }
    }

    pub(super) fn from_wire(newest: &Newest) -> Result<Self, WireError> {
        Ok(Self {
            seq: newest.seq,
            to_second: newest.to_second,
            sealed_at: RunTime(newest.sealed_at_ns),
            odometers: wire::odometers_from_wire(newest.odometers.as_ref().ok_or(WireError::Missing("odometers"))?)?,
            last: newest.last,
            records_follow: newest.records_follow,
            ended: numbers(&newest.ended)?,
            users: newest.users,
            users_max: newest.users_max,
            cpu_max_permille: newest.cpu_max_permille,
            scheduler_lag: latency(&newest.scheduler_lag, "scheduler lag")?,
            start_skew: newest.start_skew_ns,
            records_seen: numbers(&newest.records_seen)?,
        })
    }
}

pub(super) fn numbers<const N: usize>(list: &[u64]) -> Result<[u64; N], WireError> {
    list.try_into().map_err(|_| WireError::Length { what: "numbers", got: list.len(), expected: "one a phase or kind" })
}

pub(super) fn latency(bytes: &[u8], what: &'static str) -> Result<Latency, WireError> {
    let mut latency = Latency::default();
    latency.merge_encoded(bytes).map_err(|source| WireError::Histogram { what, source })?;
    Ok(latency)
}

#[derive(Clone, PartialEq, Message)]
struct Merged {
    #[prost(message, repeated, tag = "1")]
    sessions: Vec<Session>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Counts>,
    #[prost(message, optional, tag = "3")]
    collected: Option<v1::Collected>,
}

#[derive(Clone, PartialEq, Message)]
struct Session {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, optional, tag = "2")]
    frames: Option<Newest>,
    #[prost(uint64, tag = "3")]
    record_seq: u64,
    #[prost(bool, tag = "4")]
    records_last: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Newest {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint32, tag = "2")]
    to_second: u32,
    #[prost(uint64, tag = "3")]
    sealed_at_ns: u64,
    #[prost(message, optional, tag = "4")]
    odometers: Option<v1::Odometers>,
    #[prost(bool, tag = "5")]
    last: bool,
    #[prost(bool, tag = "6")]
    records_follow: bool,
    #[prost(uint64, repeated, tag = "7")]
    ended: Vec<u64>,
    #[prost(uint64, tag = "8")]
    users: u64,
    #[prost(uint64, tag = "9")]
    users_max: u64,
    #[prost(uint32, tag = "10")]
    cpu_max_permille: u32,
    #[prost(bytes = "vec", tag = "11")]
    scheduler_lag: Vec<u8>,
    #[prost(uint64, optional, tag = "12")]
    start_skew_ns: Option<u64>,
    #[prost(uint64, repeated, tag = "13")]
    records_seen: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Counts {
    #[prost(bool, tag = "1")]
    marked: bool,
    #[prost(message, optional, tag = "2")]
    frame: Option<v1::Frame>,
}
