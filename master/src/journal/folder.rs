//! Where journals are: `runs/<id>/journal.sqlite` below the data folder, each with a lock of its own,
//! so that runs side by side do not meet.
//!
//! The lock is a file beside the journal and not the journal itself: SQLite's own locks on a file end
//! when the process closes any handle of it.

use super::disk::{DiskJournal, Ready, Wake};
use super::entry::{Control, Entry};
use super::file::FileError;
use super::recovered::Recovered;
use ld_shared::id::{Digest, RunId};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The journal's file.
pub(super) const NAME: &str = "journal.sqlite";
const LOCK: &str = "lock";
const INCOMPLETE: &str = "incomplete";
/// How long a journal that was let go may take to be closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// The folder that holds what outlives a process.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// A journal's folder that nobody else uses.
#[derive(Debug)]
pub struct Locked {
    folder: PathBuf,
    lock: File,
}

/// Why a journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A living master has it.
    #[error("the run {run} is under way: its master lives")]
    Busy {
        /// Which run.
        run: RunId,
    },
    /// There is none.
    #[error("there is no journal of the run {run} in `{}`", .folder.display())]
    Missing {
        /// Which run.
        run: RunId,
        /// Where.
        folder: PathBuf,
    },
    /// The folder cannot be used.
    #[error("cannot use the folder `{}`", .folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be used.
    #[error("the journal of the run {run} cannot be used")]
    File {
        /// Which run.
        run: RunId,
        /// Why.
        #[source]
        source: FileError,
    },
}

/// A journal on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its run.
    pub run: RunId,
    /// A living master has it.
    pub busy: bool,
}

/// The journal of a run whose master is gone, and all it tells.
#[derive(Debug)]
pub struct Unfinished {
    /// What it tells.
    pub recovered: Recovered,
    /// The disk failed in the run: not everything that was acknowledged is in it.
    pub incomplete: bool,
    ready: Box<Ready>,
}

impl Folder {
    /// At this path.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder of a run.
    pub fn of(&self, run: &RunId) -> PathBuf {
        self.0.join("runs").join(&*run.0)
    }

    /// Every journal, the newest run first.
    pub fn journals(&self) -> Result<Vec<Found>, JournalError> {
        let folder = self.0.join("runs");
        let failed = |source| JournalError::Folder { folder: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if !entry.path().join(NAME).is_file() {
                continue;
            }
            let run = RunId(entry.file_name().to_string_lossy().into());
            let busy = matches!(Locked::take(&entry.path()), Err(TryLockError::WouldBlock));
            found.push(Found { run, busy });
        }
        // ids ascend by time
        found.sort_by(|a, b| b.run.cmp(&a.run));
        Ok(found)
    }

    /// Opens the journal of a run whose master is gone.
    pub async fn open(&self, run: &RunId) -> Result<Unfinished, JournalError> {
        let locked = self.lock(run)?;
        let incomplete = locked.folder.join(INCOMPLETE).exists();
        let opened = Box::pin(Ready::read(locked)).await;
        let (ready, recovered) = opened.map_err(|source| JournalError::File { run: run.clone(), source })?;
        Ok(Unfinished { recovered, incomplete, ready })
    }

    /// Opens the newest journal that `command` can take up: unfinished, of a run whose workers may
    /// still be there, and nobody's. Its term is raised, and that is on the disk when this returns.
    ///
    /// Journals that cannot be read are passed over with a warning.
    pub async fn open_unfinished(&self, command: &Digest) -> Result<Option<Unfinished>, JournalError> {
        for Found { run, busy } in self.journals()? {
            if busy {
                continue;
            }
            let mut found = match Box::pin(self.open(&run)).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%run, "{}", crate::command::with_causes(&error));
                    continue;
                }
            };
            let Recovered { order, closed, started, .. } = &found.recovered;
            let resumable = !closed && !found.incomplete && !order.local && started.is_some();
            if order.command == *command && resumable {
                found.raise_term().await.map_err(|source| JournalError::File { run: run.clone(), source })?;
                return Ok(Some(found));
            }
            found.close().await;
        }
        Ok(None)
    }

    /// Removes the journal of a run that nobody has, or what is there of one that could not be made.
    pub fn remove(&self, run: &RunId) -> Result<(), JournalError> {
        let folder = self.of(run);
        if folder.is_dir() { Self::take(run, folder)?.remove() } else { Ok(()) }
    }

    /// Removes the journal of a run of this process, once it is closed.
    pub async fn remove_closed(&self, run: &RunId) -> Result<(), JournalError> {
        let until = tokio::time::Instant::now() + CLOSED_WITHIN;
        loop {
            match self.remove(run) {
                Err(JournalError::Busy { .. }) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn lock(&self, run: &RunId) -> Result<Locked, JournalError> {
        let folder = self.of(run);
        if !folder.join(NAME).is_file() {
            return Err(JournalError::Missing { run: run.clone(), folder });
        }
        Self::take(run, folder)
    }

    fn take(run: &RunId, folder: PathBuf) -> Result<Locked, JournalError> {
        Locked::take(&folder).map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Busy { run: run.clone() },
            TryLockError::Error(source) => JournalError::Folder { folder, source },
        })
    }
}

impl Unfinished {
    async fn raise_term(&mut self) -> Result<(), FileError> {
        self.recovered.term += 1;
        self.ready.book.add(Entry::Control(Control::Term(self.recovered.term)));
        self.ready.file.write(&self.ready.book.seal(false)).await
    }

    /// Goes on writing it.
    pub fn resume(self, wake: Wake) -> (Recovered, DiskJournal) {
        (self.recovered, DiskJournal::resume(self.ready.file, self.ready.book, wake))
    }

    /// Leaves it as it is.
    pub async fn close(self) {
        drop(self.ready.file.close().await);
    }

    /// Its result is elsewhere: removes it.
    pub async fn remove(self) -> Result<(), JournalError> {
        self.ready.file.close().await.remove()
    }
}

impl Locked {
    /// Makes a folder, readable by its owner only, and locks it.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
        let locked = Self::take(folder).map_err(io::Error::from)?;
        // the folder's own entry must outlive a power cut as well
        #[cfg(unix)]
        for made in [folder, folder.parent().unwrap_or(folder)] {
            File::open(made)?.sync_all()?;
        }
        Ok(locked)
    }

    fn take(folder: &Path) -> Result<Self, TryLockError> {
        let options = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK));
        let lock = options.map_err(TryLockError::Error)?;
        lock.try_lock()?;
        Ok(Self { folder: folder.to_owned(), lock })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Marks that the journal lacks something that was acknowledged.
    pub(super) fn mark_incomplete(&self) {
        if let Err(error) = File::create(self.folder.join(INCOMPLETE)) {
            // then nobody may find it at all
            tracing::warn!("cannot mark the journal as incomplete: {error}");
            fs::remove_file(self.folder.join(NAME)).unwrap_or_else(|error| {
                tracing::error!("cannot remove the journal that lacks frames: {error}");
            });
        }
    }

    fn remove(self) -> Result<(), JournalError> {
        let failed = |source| JournalError::Folder { folder: self.folder.clone(), source };
        let log = [format!("{NAME}-wal"), format!("{NAME}-shm")];
        // the journal first: without it the rest is nothing
        for file in [NAME, &log[0], &log[1], INCOMPLETE, LOCK] {
            match fs::remove_file(self.folder.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        fs::remove_dir(&self.folder).map_err(failed)?;
        drop(self.lock);
        Ok(())
    }
}

/// Reads a journal's content, for tests of what is in it.
#[cfg(test)]
pub(super) async fn image(folder: &Folder, run: &RunId) -> super::book::Image {
    let (file, image) = super::file::JournalFile::open(folder.lock(run).unwrap()).await.unwrap();
    drop(file.close().await);
    image
}
