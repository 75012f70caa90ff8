//! The journal's thread: merges entries as they come, and writes them as fast as the disk takes them.

use super::book::{Book, Write};
use super::entry::Entry;
use super::file::{FileError, JournalFile};
use super::folder::Locked;
use super::{Journal, WHOLE};
use crate::command::with_causes;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;

/// Entries that may wait for the journal's thread. It merges them whether or not the disk is busy, so
/// that this many only wait if it gets no processor at all.
const QUEUE: usize = 8_192;

/// Called when more is committed, or when the journal has failed.
pub type Wake = Box<dyn Fn() + Send>;

/// A journal in a file. Dropping it writes what was appended and closes the file, in the background.
#[derive(Debug)]
pub struct DiskJournal {
    entries: mpsc::Sender<Entry>,
    shared: Arc<Shared>,
    newest: u64,
}

#[derive(Debug, Default)]
struct Shared {
    committed: AtomicU64,
    failure: OnceLock<String>,
}

impl DiskJournal {
    /// Begins a journal in `folder` with its first entry.
    pub fn begin(folder: PathBuf, first: Entry, wake: Wake) -> Self {
        let order = match &first {
            Entry::Order(order, _) => (**order).clone(),
            Entry::Control(_) | Entry::Granted { .. } | Entry::Frames(_) | Entry::Records(_) => {
                unreachable!("the first entry of a journal is its order")
            }
        };
        let open = async move {
            let file = JournalFile::create(&folder).await?;
            Ok((file, Book::new(&order)))
        };
        let mut journal = Self::spawn(0, open, wake);
        journal.append(first);
        journal
    }

    /// Goes on in a file, after what it holds.
    pub(super) fn resume(file: JournalFile, book: Book, wake: Wake) -> Self {
        let newest = book.newest();
        Self::spawn(newest, async move { Ok((file, book)) }, wake)
    }

    /// Number of the newest entry.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    fn spawn<F>(newest: u64, open: F, wake: Wake) -> Self
    where
        F: Future<Output = Result<(JournalFile, Book), FileError>> + Send + 'static,
    {
        let (entries, received) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared { committed: AtomicU64::new(newest), failure: OnceLock::new() });
        let journal = Self { entries, shared: Arc::clone(&shared), newest };
        let body = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return shared.fail(&format!("no runtime: {error}"), &wake),
            };
            let outcome = runtime.block_on(async {
                let (file, book) = open.await?;
                let writer = Writer { book, file: Some(file), shared: &shared, wake: &wake };
                writer.run(received).await
            });
            if let Err(error) = outcome {
                shared.fail(&with_causes(&error), &wake);
            }
        };
        let spawned = std::thread::Builder::new().name("ld-journal".into()).spawn(body);
        if let Err(error) = spawned {
            // whoever appends sees it: nobody sleeps yet who would have to be woken
            journal.shared.failure.get_or_init(|| format!("no thread: {error}"));
        }
        journal
    }
}

impl Shared {
    fn fail(&self, why: &str, wake: &Wake) {
        self.failure.get_or_init(|| why.to_owned());
        wake();
    }
}

impl Journal for DiskJournal {
    fn append(&mut self, entry: Entry) -> u64 {
        self.newest += 1;
        match self.entries.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.shared.failure.get_or_init(|| format!("{QUEUE} entries wait for it"));
            }
            Err(TrySendError::Closed(_)) => {
                self.shared.failure.get_or_init(|| "its thread has ended".to_owned());
            }
        }
        self.newest
    }

    fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Acquire)
    }

    fn failure(&self) -> Option<String> {
        self.shared.failure.get().cloned()
    }
}

type Writing = Pin<Box<dyn Future<Output = (JournalFile, u64, Result<(), FileError>)>>>;

struct Writer<'a> {
    book: Book,
    /// `None` while it is written to.
    file: Option<JournalFile>,
    shared: &'a Shared,
    wake: &'a Wake,
}

impl Writer<'_> {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) -> Result<(), FileError> {
        let mut due: Option<Instant> = None;
        let mut whole_at = Instant::now() + WHOLE;
        let mut writing: Option<Writing> = None;
        // if somebody let it go, what waits is not worth a write
        while self.shared.failure.get().is_none() {
            if let Some(file) = self.file.take_if(|_| due.is_some_and(|due| due <= Instant::now())) {
                let whole = whole_at <= Instant::now();
                if whole {
                    whole_at = Instant::now() + WHOLE;
                }
                due = None;
                writing = Some(Box::pin(write(file, self.book.seal(whole))));
            }
            let idle = self.file.is_some();
            tokio::select! {
                biased;
                (file, number, outcome) = finished(&mut writing) => {
                    writing = None;
                    self.done(file, number, outcome)?;
                }
                entry = entries.recv() => {
                    let Some(entry) = entry else { break };
                    let by = Instant::now() + self.book.may_wait(&entry);
                    due = Some(due.map_or(by, |due| due.min(by)));
                    self.book.add(entry);
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if idle && due.is_some() => {}
            }
        }
        if let Some(writing) = writing {
            let (file, number, outcome) = writing.await;
            self.done(file, number, outcome)?;
        }
        if let Some(mut file) = self.file.take() {
            if self.shared.failure.get().is_some() {
                file.mark_incomplete();
            } else if !self.book.is_empty() {
                file.write(&self.book.seal(false)).await?;
            }
            file.close().await;
        }
        Ok(())
    }

    fn done(&mut self, file: JournalFile, number: u64, outcome: Result<(), FileError>) -> Result<(), FileError> {
        if let Err(error) = outcome {
            // what it lacks was let go all the same: nobody may take the run up from it
            file.mark_incomplete();
            return Err(error);
        }
        self.file = Some(file);
        self.shared.committed.store(number, Ordering::Release);
        (self.wake)();
        Ok(())
    }
}

async fn write(mut file: JournalFile, write: Write) -> (JournalFile, u64, Result<(), FileError>) {
    let outcome = file.write(&write).await;
    (file, write.number, outcome)
}

/// The end of the write that goes on; pending if there is none.
async fn finished(writing: &mut Option<Writing>) -> (JournalFile, u64, Result<(), FileError>) {
    match writing {
        Some(writing) => writing.await,
        None => std::future::pending().await,
    }
}

/// The journal of an unfinished run, ready to go on.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) file: JournalFile,
    pub(super) book: Book,
}

impl Ready {
    /// Reads a file to its end.
    pub(super) async fn read(locked: Locked) -> Result<(Box<Self>, super::Recovered), FileError> {
        let (file, image) = JournalFile::open(locked).await?;
        let recovered = super::Recovered::of(&image).map_err(FileError::Recover)?;
        let book = Book::resume(&image, recovered.ledger.clone());
        Ok((Box::new(Self { file, book }), recovered))
    }
}
