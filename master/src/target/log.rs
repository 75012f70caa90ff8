//! The log of arrivals: a buffer that a thread of its own writes out.

use crate::target::ledger::Arrival;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Buffered beyond this, whoever adds a line writes: a slow disk slows the target, it loses nothing.
const WRITE_THROUGH: usize = 8 << 20;
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Shared {
    buffer: Mutex<Vec<u8>>,
    /// Taken before the buffer is swapped out, so that chunks are written in order.
    file: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    file: File,
    failed: Option<io::Error>,
}

impl Shared {
    fn flush(&self) {
        let mut out = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = std::mem::take(&mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = out.file.write_all(&chunk) {
            out.failed.get_or_insert(error);
        }
    }
}

/// One text line an event, tab-separated. Complete after [`Log::finish`]; a killed process loses at
/// most the last 100 ms.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    stop: Sender<()>,
    writer: JoinHandle<()>,
}

impl Log {
    /// Creates the file, replacing one that is there.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = Mutex::new(Written { file: File::create(path)?, failed: None });
        let shared = Arc::new(Shared { buffer: Mutex::default(), file });
        let (stop, stopped) = channel();
        let theirs = Arc::clone(&shared);
        let writer =
            std::thread::Builder::new().name("target-log".to_owned()).spawn(move || write_out(&theirs, &stopped))?;
        Ok(Self { shared, stop, writer })
    }

    /// A handle that lines are added with.
    pub(super) fn lines(&self) -> Lines {
        Lines(Arc::clone(&self.shared))
    }

    /// Writes what is buffered. Fails if any line could not be written.
    pub(super) fn finish(self) -> io::Result<()> {
        // an error means that the thread has ended already
        drop(self.stop);
        self.writer.join().map_err(|_| io::Error::other("the writer of the log panicked"))?;
        self.shared.flush();
        self.shared.file.lock().unwrap_or_else(PoisonError::into_inner).failed.take().map_or(Ok(()), Err)
    }
}

fn write_out(shared: &Shared, stopped: &Receiver<()>) {
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        shared.flush();
    }
}

/// Adds lines to a [`Log`].
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

impl Lines {
    /// `ID NS CLIENT METHOD PATH STATUS PLANNED_NS`.
    pub(super) fn arrival(&self, a: &Arrival) {
        let (id, at, client, planned) = (a.id, a.at_ns, a.client, a.planned_ns);
        self.add(format_args!("{id}\t{at}\t{client}\t{}\t{}\t{}\t{planned}\n", a.method, a.path, a.status));
    }

    /// `ID HELD_NS`.
    pub(super) fn answer(&self, id: u64, held: Duration) {
        self.add(format_args!("{id}\t{}\n", held.as_nanos()));
    }

    fn add(&self, line: std::fmt::Arguments<'_>) {
        let mut buffer = self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.write_fmt(line).expect("writing into memory cannot fail");
        let full = buffer.len() > WRITE_THROUGH;
        drop(buffer);
        if full {
            self.0.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_in_the_file_after_finish() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::create(&path).unwrap();
        let lines = log.lines();
        for id in 0..1000 {
            lines.answer(id, Duration::from_nanos(id * 2));
        }
        log.finish().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert_eq!(text.lines().nth(999), Some("999\t1998"));
    }
}
