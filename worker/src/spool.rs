//! Frames between being cut and being acknowledged. Pure, but for the [`Shelf`] it is given.
//!
//! Spans gather until they are as wide as the way to the master wants them: a second as a rule,
//! doubled up to [`MOST_SECONDS`] while frames have to wait or are too many bytes. Then they are
//! sealed. A frame gets its number when it is first offered, and never changes afterwards; at most
//! [`FRAME_WINDOW`] are offered and not acknowledged.
//!
//! What waits lies in memory, up to a number of bytes, and beyond it on the shelf, if there is one.
//! Without one, or when it is full, the oldest that were never offered merge: totals and the counts
//! of each second survive, percentiles then mean a longer span, memory stays bounded.

mod estate;
mod folder;

pub use estate::{Estate, find};
pub use folder::Folders;

use bytes::Bytes;
use ld_shared::frame::FrameBody;
use ld_shared::id::RunId;
use ld_shared::message::{FRAME_WINDOW, Returning, RunBeat};
use ld_shared::time::RunTime;
use ld_shared::wire::{frame_from_bytes, frame_to_bytes};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;

/// Bytes of waiting frames in memory.
const MEMORY: usize = 16 * 1024 * 1024;
/// Bytes per second of frames that are left as they are (ENGINEERING B3).
const BYTES_PER_SECOND: usize = 300_000;
/// Bytes of a frame that keeps the reasons of failures apart: half of what a message may have.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Seconds that a frame may span before its bytes are no reason any more to make it longer.
const MOST_SECONDS: u32 = 10;

/// Where shelves are.
pub trait Shelves: Debug + Send + Sync {
    /// That of a session in a run.
    fn shelf(&self, run: &RunId, home: &Returning) -> Box<dyn Shelf>;
}

/// Where sealed frames lie beside memory, each until it is acknowledged.
pub trait Shelf: Debug + Send {
    /// Keeps the bytes of the `number`-th frame: what it has gathered so far, or all of it, instead of what was kept of it
    /// before. After an error nothing of it is kept.
    fn put(&mut self, number: u64, bytes: &[u8]) -> io::Result<()>;
    /// The bytes of a frame that is kept and was not offered.
    fn get(&mut self, number: u64) -> io::Result<Vec<u8>>;
    /// A frame that is kept is about to be offered as `seq`.
    fn offer(&mut self, number: u64, seq: u64) -> io::Result<()>;
    /// A frame that is kept will not be offered as it is.
    fn discard(&mut self, number: u64) -> io::Result<()>;
    /// A frame that was offered as `seq` is not needed any more.
    fn remove(&mut self, number: u64, seq: u64) -> io::Result<()>;
    /// How the load stands: the newest is kept.
    fn note(&mut self, stands: &RunBeat) -> io::Result<()>;
    /// What lies there is not all there is: nobody is to deliver it for this process.
    fn disinherit(&mut self);
}

/// What lies on the shelf of a session that is over.
#[derive(Debug, Default)]
pub struct Left {
    /// Frames up to this number were acknowledged.
    pub acknowledged: u64,
    /// Those after it that were offered, in order.
    pub offered: Vec<(Box<FrameBody>, RunTime)>,
    /// Numbers under which the others were sealed, in order.
    pub sealed: Vec<u64>,
}

/// Frames of one session in one run.
#[derive(Debug)]
pub struct Spool {
    /// A frame that gathers spans, and when the last of them was closed.
    open: Option<(Box<FrameBody>, RunTime)>,
    /// How many seconds a frame is to span.
    seconds: u32,
    waiting: VecDeque<Waiting>,
    /// Offered and not acknowledged, by ascending numbers: they are offered again, unchanged, to a
    /// master that is there again.
    unacknowledged: VecDeque<Offered>,
    /// So many of those have been offered over the present connection.
    repeated: usize,
    sealed: u64,
    offered: u64,
    acknowledged: u64,
    finished: bool,
    /// Bytes of waiting frames in memory, and how many there may be.
    in_memory: usize,
    memory: usize,
    shelf: Option<Box<dyn Shelf>>,
    /// The shelf has failed, and it was said.
    was_told: bool,
}

/// A sealed frame that was never offered.
#[derive(Debug)]
struct Waiting {
    number: u64,
    /// `None`: only the shelf has it.
    bytes: Option<Bytes>,
    on_shelf: bool,
}

#[derive(Debug)]
struct Offered {
    number: u64,
    body: Box<FrameBody>,
    sealed_at: RunTime,
    on_shelf: bool,
}

impl Default for Spool {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Spool {
    /// An empty spool. With a shelf every frame lies there before it is offered.
    pub fn new(shelf: Option<Box<dyn Shelf>>) -> Self {
        Self {
            open: None,
            seconds: 1,
            waiting: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            repeated: 0,
            sealed: 0,
            offered: 0,
            acknowledged: 0,
            finished: false,
            in_memory: 0,
            memory: MEMORY,
            shelf,
            was_told: false,
        }
    }

    /// What a session left on its shelf.
    pub fn found(shelf: Box<dyn Shelf>, left: Left) -> Self {
        let Left { acknowledged, offered, sealed } = left;
        // a frame that was offered has its seq for a name
        let number = u64::MAX;
        let again = |(body, sealed_at)| Offered { number, body, sealed_at, on_shelf: true };
        let waiting = |number| Waiting { number, bytes: None, on_shelf: true };
        Self {
            offered: acknowledged + offered.len() as u64,
            acknowledged,
            unacknowledged: offered.into_iter().map(again).collect(),
            waiting: sealed.into_iter().map(waiting).collect(),
            ..Self::new(Some(shelf))
        }
    }

    /// Whether frames lie somewhere beside memory.
    pub fn has_shelf(&self) -> bool {
        self.shelf.is_some()
    }

    /// How the load stands that the frames are of.
    pub fn note(&mut self, stands: &RunBeat) {
        self.ask_shelf(|shelf| shelf.note(stands));
    }

    /// Frames that are sealed and not acknowledged.
    pub fn len(&self) -> usize {
        self.unacknowledged.len() + self.waiting.len()
    }

    /// Whether every sealed frame is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a complete span that was closed at `sealed_at`.
    pub fn put(&mut self, mut body: Box<FrameBody>, sealed_at: RunTime) {
        self.finished |= body.last;
        if let Some((older, older_at)) = self.open.take() {
            if body.last {
                self.seal(&older, older_at);
            } else {
                prepend(&older, &mut body);
            }
        }
        if body.last || body.to_second.saturating_sub(body.from_second) >= self.seconds {
            self.seal(&body, sealed_at);
        } else {
            let number = self.sealed;
            if self.has_shelf() {
                // should this process die, no more is missing than the second that was open
                let bytes = encoded(&body, sealed_at);
                self.ask_shelf(|shelf| shelf.put(number, &bytes));
            }
            self.open = Some((body, sealed_at));
        }
    }

    /// The next frame to offer, with its number, if the window is open.
    pub fn offer(&mut self) -> Option<(u64, Box<FrameBody>, RunTime)> {
        if let Some(again) = self.unacknowledged.get(self.repeated) {
            self.repeated += 1;
            return Some((self.acknowledged + self.repeated as u64, again.body.clone(), again.sealed_at));
        }
        if self.unacknowledged.len() >= FRAME_WINDOW {
            return None;
        }
        loop {
            let waiting = self.waiting.pop_front()?;
            self.in_memory -= waiting.len();
            let Some((body, sealed_at)) = self.read(&waiting) else { continue };
            self.offered += 1;
            self.repeated += 1;
            let (number, on_shelf, seq) = (waiting.number, waiting.on_shelf, self.offered);
            if on_shelf {
                self.ask_shelf(|shelf| shelf.offer(number, seq));
            }
            self.unacknowledged.push_back(Offered { number, body: body.clone(), sealed_at, on_shelf });
            return Some((self.offered, body, sealed_at));
        }
    }

    /// There is a new connection: what was not acknowledged is offered again.
    pub fn reconnect(&mut self) {
        self.repeated = 0;
    }

    /// The master counted every frame up to `seq`.
    pub fn acknowledge(&mut self, seq: u64) {
        let more = seq.min(self.offered).saturating_sub(self.acknowledged);
        for _ in 0..more {
            self.acknowledged += 1;
            let seq = self.acknowledged;
            if let Some(Offered { number, on_shelf: true, .. }) = self.unacknowledged.pop_front() {
                self.ask_shelf(|shelf| shelf.remove(number, seq));
            }
        }
        self.repeated = self.repeated.saturating_sub(more as usize);
    }

    /// Whether frames, or spans that will be one, wait to be offered.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.open.is_some()
    }

    /// Whether the last frame is acknowledged.
    pub fn is_done(&self) -> bool {
        self.finished && !self.is_waiting() && self.acknowledged == self.offered
    }

    /// The frame will gather nothing more.
    fn seal(&mut self, body: &FrameBody, sealed_at: RunTime) {
        let bytes = encoded(body, sealed_at);
        let seconds = body.to_second.saturating_sub(body.from_second).max(1) as usize;
        let must_wait = !self.waiting.is_empty() || self.unacknowledged.len() >= FRAME_WINDOW;
        if must_wait || bytes.len() > BYTES_PER_SECOND * seconds {
            self.seconds = (self.seconds * 2).min(MOST_SECONDS);
        } else if 2 * bytes.len() <= BYTES_PER_SECOND * seconds {
            self.seconds = (self.seconds / 2).max(1);
        }
        let number = self.sealed;
        self.sealed += 1;
        let on_shelf = self.ask_shelf(|shelf| shelf.put(number, &bytes));
        let fits = self.in_memory + bytes.len() <= self.memory;
        let bytes = (fits || !on_shelf).then_some(bytes);
        let waiting = Waiting { number, bytes, on_shelf };
        self.in_memory += waiting.len();
        self.waiting.push_back(waiting);
        self.make_room();
    }

    /// Keeps memory within its bound.
    fn make_room(&mut self) {
        // the last ones are needed last
        for waiting in self.waiting.iter_mut().rev().filter(|waiting| waiting.on_shelf) {
            if self.in_memory <= self.memory {
                return;
            }
            self.in_memory -= waiting.bytes.take().map_or(0, |bytes| bytes.len());
        }
        while self.in_memory > self.memory {
            let pair = |fits: fn(&Waiting, &Waiting) -> bool| {
                let pairs = self.waiting.iter().zip(self.waiting.iter().skip(1));
                pairs.enumerate().find(|(_, (older, newer))| fits(older, newer)).map(|(at, _)| at)
            };
            // a shelf that takes some and not others leaves single ones between its own
            let at = pair(|older, newer| !older.on_shelf && !newer.on_shelf)
                .or_else(|| pair(|older, newer| older.bytes.is_some() || newer.bytes.is_some()));
            let Some(at) = at else { return };
            self.merge(at);
        }
    }

    /// Makes one of the frame that waits at this place and the one after it.
    fn merge(&mut self, at: usize) {
        let (Some(older), Some(newer)) = (self.waiting.remove(at), self.waiting.remove(at)) else { return };
        self.in_memory -= older.len() + newer.len();
        let merged = match (self.read(&older), self.read(&newer)) {
            (Some((older, _)), Some((mut body, sealed_at))) => {
                prepend(&older, &mut body);
                Some((body, sealed_at))
            }
            (older, newer) => newer.or(older),
        };
        for gone in [&older, &newer].into_iter().filter(|gone| gone.on_shelf) {
            self.ask_shelf(|shelf| shelf.discard(gone.number));
        }
        if let Some((body, sealed_at)) = merged {
            let bytes = Some(encoded(&body, sealed_at));
            let merged = Waiting { number: newer.number, bytes, on_shelf: false };
            self.in_memory += merged.len();
            self.waiting.insert(at, merged);
        }
    }

    /// The frame that waits; `None` if it cannot be read any more, which was said.
    fn read(&mut self, waiting: &Waiting) -> Option<(Box<FrameBody>, RunTime)> {
        if let Some(bytes) = &waiting.bytes {
            return decode(bytes);
        }
        match self.shelf.as_mut()?.get(waiting.number) {
            Ok(bytes) => decode(&bytes),
            Err(error) => {
                tracing::error!(%error, "a frame in the spool folder is lost: its counts will be missing");
                None
            }
        }
    }

    /// Has the shelf do something; whether there is one and it did.
    fn ask_shelf(&mut self, work: impl FnOnce(&mut dyn Shelf) -> io::Result<()>) -> bool {
        let Some(shelf) = &mut self.shelf else { return false };
        let Err(error) = work(shelf.as_mut()) else { return true };
        if !std::mem::replace(&mut self.was_told, true) {
            shelf.disinherit();
            tracing::warn!(
                %error,
                "the spool folder fails: frames wait in memory, merge when they are too many, and die with this process"
            );
        }
        false
    }
}

impl Waiting {
    /// Bytes in memory.
    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, Bytes::len)
    }
}

/// A frame's bytes, which fit a message: thousands of different reasons for failures may not, and then are one.
fn encoded(body: &FrameBody, sealed_at: RunTime) -> Bytes {
    let bytes = frame_to_bytes(body, sealed_at);
    if bytes.len() <= MOST_BYTES {
        return bytes;
    }
    let mut body = body.clone();
    body.counts.fold_reasons();
    frame_to_bytes(&body, sealed_at)
}

fn decode(bytes: &[u8]) -> Option<(Box<FrameBody>, RunTime)> {
    match frame_from_bytes(bytes) {
        Ok((body, sealed_at)) => Some((Box::new(body), sealed_at)),
        Err(error) => {
            tracing::error!(%error, "a frame of the spool cannot be read any more: its counts will be missing");
            None
        }
    }
}

/// Makes one frame of two that follow each other.
fn prepend(older: &FrameBody, newer: &mut FrameBody) {
    newer.from_second = older.from_second;
    newer.counts.merge(&older.counts);
    let generator = &mut newer.generator;
    generator.cpu_max_permille = generator.cpu_max_permille.max(older.generator.cpu_max_permille);
    generator.scheduler_lag.merge(&older.generator.scheduler_lag);
    generator.throttled_ms += older.generator.throttled_ms;
    generator.users_max = generator.users_max.max(older.generator.users_max);
    generator.start_skew = older.generator.start_skew.or(generator.start_skew);
}

#[cfg(test)]
mod tests;
