//! A ledger as bytes, in parts: most of a long run's parts do not change any more, so that whoever
//! stores it again and again writes only a few.

use super::group::{Frames, Newest, latency, numbers};
use super::records::Sampler;
use super::timeline::{Entry, Timeline};
use super::{Ledger, SessionLedger};
use crate::run::blocks::{Blocks, StoredCell};
use crate::run::folded::Folded;
use ld_shared::id::{RunId, SessionId};
use ld_shared::latency::DecodeError;
use ld_shared::record::Record;
use ld_shared::snapshot::Snapshot;
use ld_shared::wire::{self, Texts, WireError, v1};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of the timeline in one part.
const ROWS: u32 = 64;

/// Why parts are no ledger.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// A part that is not there.
    #[error("the part `{0}` is missing")]
    Missing(&'static str),
    /// A part that nobody knows.
    #[error("unknown part `{0}`")]
    Unknown(String),
    /// Bytes that are no message.
    #[error("the part `{0}` cannot be read")]
    Unreadable(String),
    /// A message that contradicts itself.
    #[error("the part `{key}` is damaged")]
    Wire {
        /// Its key.
        key: String,
        /// How.
        #[source]
        source: WireError,
    },
}

impl Ledger {
    /// All of it but kept records, by key.
    pub fn parts(&self) -> BTreeMap<String, Vec<u8>> {
        self.folded();
        let mut parts = BTreeMap::new();
        let head = Head {
            run: self.run.0.to_string(),
            closed: self.closed,
            response: self.response.encoded(),
            timeline_scale: self.timeline.scale,
            blocks_scale: self.blocks.scale(),
            keep: self.samplers[0].keep(),
            cuts: self.samplers.iter().map(Sampler::cut).collect(),
            collected: self.collected.as_ref().map(wire::collected_to_wire),
        };
        parts.insert("head".to_owned(), head.encode_to_vec());
        let sessions = self.sessions.iter().map(|(id, session)| session_to_wire(*id, session)).collect();
        parts.insert("sessions".to_owned(), Sessions { sessions }.encode_to_vec());
        for (key, counts) in [("total", Some(&self.total)), ("unmarked", self.unmarked.as_deref())] {
            let Some(counts) = counts else { continue };
            parts.insert(key.to_owned(), wire::counts_to_wire((0, 0), counts).encode_to_vec());
        }
        let mut rows: BTreeMap<u32, Rows> = BTreeMap::new();
        for (second, entry) in &self.timeline.rows {
            rows.entry(second / self.seconds_a_part()).or_default().rows.push(entry.to_wire(*second));
        }
        parts.extend(rows.into_iter().map(|(part, rows)| (rows_key(part), rows.encode_to_vec())));
        for (from, cells) in self.blocks.cells() {
            let cell = |(name, failed, response): StoredCell<'_>| Cell {
                name: name.to_string(),
                failed,
                response: response.into_owned(),
            };
            let cells = cells.into_iter().map(cell).collect();
            parts.insert(format!("block/{from}"), Cells { from, cells }.encode_to_vec());
        }
        parts
    }

    /// Forgets the seconds of parts to which hardly anything is added any more, once they are stored. Gives the keys of
    /// these parts: [`Self::parts`] has them again if a late frame does add to them, and then with nothing else.
    pub fn forget_old_rows(&mut self) -> Vec<String> {
        let Some(newest) = self.timeline.rows.keys().last() else { return Vec::new() };
        let seconds = self.seconds_a_part();
        let young = self.timeline.rows.split_off(&((newest / seconds).saturating_sub(1) * seconds));
        let old = std::mem::replace(&mut self.timeline.rows, young);
        let parts: BTreeSet<u32> = old.into_keys().map(|second| second / seconds).collect();
        parts.into_iter().map(rows_key).collect()
    }

    fn seconds_a_part(&self) -> u32 {
        self.timeline.scale.saturating_mul(ROWS)
    }

    /// The inverse of [`Self::parts`], without records ([`Self::restore_records`]). Keys may have a further `/` and something behind it,
    /// so that one part can be stored in pieces.
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, PartError> {
        let mut head = None;
        let mut ledger = Self::new(RunId("".into()), 0);
        let (mut rows, mut cells) = (BTreeMap::new(), Vec::new());
        for (key, bytes) in parts {
            let damaged = |source| PartError::Wire { key: key.to_owned(), source };
            let (kind, _) = key.split_once('/').unwrap_or((key, ""));
            match kind {
                "head" => head = Some(read::<Head>(key, bytes)?),
                "sessions" => {
                    for session in read::<Sessions>(key, bytes)?.sessions {
                        let (id, session) = session_from_wire(&session).map_err(damaged)?;
                        ledger.sessions.insert(id, session);
                    }
                }
                "total" => ledger.total = counts(key, bytes)?,
                "unmarked" => ledger.unmarked = Some(Box::new(counts(key, bytes)?)),
                "rows" => {
                    for row in read::<Rows>(key, bytes)?.rows {
                        let (second, entry) = Entry::from_wire(row).map_err(damaged)?;
                        rows.entry(second).or_insert_with(Entry::default).merge(&entry);
                    }
                }
                "block" => {
                    let Cells { from, cells: list } = read(key, bytes)?;
                    cells.extend(list.into_iter().map(|cell| (from, cell.name.into(), cell.failed, cell.response)));
                }
                _ => return Err(PartError::Unknown(key.to_owned())),
            }
        }
        let head = head.ok_or(PartError::Missing("head"))?;
        let damaged = |source| PartError::Wire { key: "head".to_owned(), source };
        ledger.run = RunId(head.run.into());
        ledger.closed = head.closed;
        ledger.response = latency(&head.response, "response time").map_err(damaged)?;
        ledger.timeline = Timeline::of(rows, head.timeline_scale.max(1));
        ledger.blocks = Blocks::restore(head.blocks_scale, cells)
            .map_err(|source: DecodeError| WireError::Histogram { what: "a block", source })
            .map_err(damaged)?;
        ledger.collected = head.collected.as_ref().map(wire::collected_from_wire).transpose().map_err(damaged)?;
        ledger.samplers = [Sampler::new(head.keep), Sampler::new(head.keep)];
        let cuts: [u64; 2] = numbers(&head.cuts).map_err(damaged)?;
        ledger.samplers.iter_mut().zip(cuts).for_each(|(sampler, cut)| sampler.restore(cut));
        Ok(ledger)
    }
}

fn rows_key(part: u32) -> String {
    format!("rows/{part}")
}

/// One kept record, with its worker.
pub fn record_to_bytes(record: &Record) -> Vec<u8> {
    Kept { record: Some(wire::record_to_wire(record)), worker: record.worker.to_string() }.encode_to_vec()
}

/// The inverse of [`record_to_bytes`].
pub fn record_from_bytes(bytes: &[u8], texts: &mut Texts) -> Result<Record, PartError> {
    let key = "records";
    let kept: Kept = read(key, bytes)?;
    let damaged = |source| PartError::Wire { key: key.to_owned(), source };
    let record = kept.record.ok_or(WireError::Missing("record")).map_err(damaged)?;
    let worker = texts.one(&kept.worker);
    Ok(Record { worker, ..wire::record_from_wire(record, texts).map_err(damaged)? })
}

fn read<M: Message + Default>(key: &str, bytes: &[u8]) -> Result<M, PartError> {
    M::decode(bytes).map_err(|_| PartError::Unreadable(key.to_owned()))
}

fn counts(key: &str, bytes: &[u8]) -> Result<Snapshot, PartError> {
    let mut frame = read::<v1::Frame>(key, bytes)?;
    let counts = wire::counts_from_wire(&mut frame);
    Ok(counts.map_err(|source| PartError::Wire { key: key.to_owned(), source })?.1)
}

fn session_to_wire(id: SessionId, session: &SessionLedger) -> Session {
    let SessionLedger { frames, record_seq, records_open } = session;
    Session { id: id.0, frames: Some(frames.to_wire()), record_seq: *record_seq, records_open: *records_open }
}

fn session_from_wire(session: &Session) -> Result<(SessionId, SessionLedger), WireError> {
    let frames = Frames::from_wire(session.frames.as_ref().ok_or(WireError::Missing("frames"))?)?;
    let Session { record_seq, records_open, .. } = *session;
    Ok((SessionId(session.id), SessionLedger { frames, record_seq, records_open }))
}

impl Entry {
    fn to_wire(&self, second: u32) -> TimelineRow {
        TimelineRow {
            row: Some(wire::row_to_wire(second, &self.row)),
            unmarked: Some(wire::row_to_wire(second, &self.unmarked)),
            response: self.response.packed().into_owned(),
            span: self.span,
        }
    }

    fn from_wire(row: TimelineRow) -> Result<(u32, Self), WireError> {
        let missing = || WireError::Missing("counts of a second");
        let (counts, unmarked) = (row.row.ok_or_else(missing)?, row.unmarked.ok_or_else(missing)?);
        let damaged = |source| WireError::Histogram { what: "response time of a second", source };
        let entry = Self {
            row: wire::row_from_wire(&counts)?,
            unmarked: wire::row_from_wire(&unmarked)?,
            response: Folded::from_packed(row.response).map_err(damaged)?,
            span: row.span,
        };
        Ok((counts.second, entry))
    }
}

#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "1")]
    run: String,
    #[prost(bool, tag = "2")]
    closed: bool,
    #[prost(bytes = "vec", tag = "3")]
    response: Vec<u8>,
    #[prost(uint32, tag = "4")]
    timeline_scale: u32,
    #[prost(uint32, tag = "5")]
    blocks_scale: u32,
    #[prost(uint64, tag = "6")]
    keep: u64,
    #[prost(uint64, repeated, tag = "7")]
    cuts: Vec<u64>,
    #[prost(message, optional, tag = "8")]
    collected: Option<v1::Collected>,
}

#[derive(Clone, PartialEq, Message)]
struct Sessions {
    #[prost(message, repeated, tag = "1")]
    sessions: Vec<Session>,
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
    records_open: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Rows {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<TimelineRow>,
}

#[derive(Clone, PartialEq, Message)]
struct TimelineRow {
    #[prost(message, optional, tag = "1")]
    row: Option<v1::Row>,
    #[prost(message, optional, tag = "2")]
    unmarked: Option<v1::Row>,
    #[prost(bytes = "vec", tag = "3")]
    response: Vec<u8>,
    #[prost(uint32, tag = "4")]
    span: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Cells {
    #[prost(uint32, tag = "1")]
    from: u32,
    #[prost(message, repeated, tag = "2")]
    cells: Vec<Cell>,
}

#[derive(Clone, PartialEq, Message)]
struct Cell {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    failed: u64,
    #[prost(bytes = "vec", tag = "3")]
    response: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(message, optional, tag = "1")]
    record: Option<v1::Record>,
    #[prost(string, tag = "2")]
    worker: String,
}
