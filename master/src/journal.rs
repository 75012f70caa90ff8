//! The journal of a run under way: what a master must know that takes the run up after another one
//! was killed, and what reports are made of if nobody takes it up.
//!
//! The way: the driver appends an [`Entry`] for whatever was counted, decided or promised, and its
//! [`Gate`] holds back what depends on it until it is [committed](Journal::committed). A thread of the
//! journal's own ([`DiskJournal`]) merges entries into writes ([`book`]), a transaction each, of a
//! SQLite file below the data folder ([`folder`]). After the master's death [`Recovered`] is the fold
//! of all entries; [`rescue`] makes a result of it.
//!
//! The coordinator never waits for the disk: if that is slow, acknowledgements come late, workers
//! send coarser frames, and the load goes on. If it fails, the run goes on without a journal.

pub mod book;
mod disk;
mod entry;
mod file;
pub mod folder;
mod gate;
mod memory;
mod recovered;
pub mod rescue;
#[cfg(test)]
mod tests;

pub use disk::{DiskJournal, Wake};
pub use entry::{Assignment, Cause, Control, Entry, Order, Rule, Started, ThrottlePart};
pub use folder::{Folder, Found, JournalError, Unfinished};
pub use gate::Gate;
pub use memory::MemoryJournal;
pub use recovered::{Fate, Limits, Lost, Member, RecoverError, Recovered};

use ld_shared::id::{Digest, RunId};
use ld_shared::plan::Plan;
use std::sync::Arc;
use std::time::Duration;

/// Frames wait so long for others, so that one commit serves many.
pub const GROUP: Duration = Duration::from_millis(500);
/// The whole ledger is written so often; groups of frames before it are not needed any more.
pub const WHOLE: Duration = Duration::from_secs(10);

/// Where entries go.
pub trait Journal: Send {
    /// Appends an entry; never waits. Gives its number: they ascend by one.
    fn append(&mut self, entry: Entry) -> u64;
    /// Every entry up to this number is durable.
    fn committed(&self) -> u64;
    /// Why nothing more is committed; `None`: all is well.
    fn failure(&self) -> Option<String>;
}

/// What the journal of a run to come is made from.
#[derive(Clone, Debug)]
pub struct JournalOrder {
    /// Below which folder.
    pub folder: Folder,
    /// Names the command that starts the run.
    pub command: Digest,
    /// Label given by the document, if any.
    pub label: Option<String>,
    /// The plan that the document gives, if the run's own differs from it.
    pub given: Option<Arc<Plan>>,
}

impl JournalOrder {
    /// Begins the journal of `run`: opens its file in the background. What goes wrong is its
    /// [`Journal::failure`].
    pub fn begin(&self, run: &RunId, entry: Entry, wake: Wake) -> Box<dyn Journal> {
        Box::new(DiskJournal::begin(self.folder.of(run), entry, wake))
    }
}

/// The start instant of a run that is taken up, on this machine's clock: the monotonic clock goes on
/// over a restart of the process, the wall clock over one of the machine.
pub fn t0(started: &Started, now: ld_shared::time::Mono, wall: chrono::DateTime<chrono::Utc>) -> ld_shared::time::Mono {
    if !started.boot.is_empty() && started.boot == boot() {
        return started.mono;
    }
    let ago = (wall - started.wall).num_nanoseconds().unwrap_or(0).max(0);
    ld_shared::time::Mono(now.0.saturating_sub(ago.cast_unsigned()))
}

/// Names the machine's boot. Other systems do not tell: then the wall clock has to do.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The start instant on the clocks of this machine.
pub fn started(t0: ld_shared::time::Mono, wall: chrono::DateTime<chrono::Utc>) -> Started {
    Started { boot: boot(), mono: t0, wall }
}
