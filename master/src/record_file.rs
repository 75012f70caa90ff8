//! The file of all requests: `records: {"all": "file.csv.zst"}`.
//!
//! Workers send every request of the main phase in batches of encoded lines. A thread of its own
//! decodes them, writes rows and compresses: neither the coordinator nor the load ever waits for a
//! disk. What its bounded queue cannot take, and what comes after the disk has failed, is left out;
//! the result says how many requests are in the file and how many are missing.

mod rows;

use crate::report::files;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use ld_shared::wire::Lines;
use rows::{Form, Rows};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of lines that may wait for the writer.
const MOST_WAITING: usize = 64 * 1024 * 1024;
/// What was written this long ago is readable, whatever befalls the master.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Compresses 300 MB/s on one core; higher levels cost more than they save here.
const LEVEL: i32 = 3;

/// Endings of names, and what they mean.
pub const ENDINGS: [&str; 4] = [".csv.zst", ".csv", ".jsonl.zst", ".jsonl"];

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write all requests to `{}`: {}", path.display(), files::cause(source))]
pub struct CreateError {
    path: PathBuf,
    source: io::Error,
}

/// A file that is being written.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    sink: LineSink,
    thread: JoinHandle<Written>,
}

/// Takes batches of lines from the cluster. Never waits.
#[derive(Clone, Debug)]
pub struct LineSink {
    out: Sender<LineBatch>,
    waiting: Arc<AtomicUsize>,
}

/// Encoded lines of one worker.
#[derive(Debug)]
pub struct LineBatch {
    /// The worker.
    pub worker: Arc<str>,
    /// Wall clock of the run's start instant.
    pub run_started: DateTime<Utc>,
    /// They: see [`Lines`].
    pub lines: Bytes,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Written {
    /// Requests in the file.
    pub requests: u64,
    /// Why no more are: what happened, and the run time at which the last request in the file started.
    pub fault: Option<(String, f64)>,
}

/// Whether a file can be written there, as far as can be told without touching it.
pub fn check(path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err("its folder does not exist".into());
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err("it is a folder".into()),
        // opening a pipe would wait for its reader
        Ok(meta) if meta.is_file() => {
            File::options().append(true).open(path).map(drop).map_err(|error| files::cause(&error))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(files::cause(&error)),
    }
}

impl RecordFile {
    /// Creates the file, whose form is that of its ending, with its header, and starts the writer.
    pub fn create(path: &Path) -> Result<Self, CreateError> {
        let fault = |source| CreateError { path: path.to_owned(), source };
        let (form, compressed) = form_of(path);
        let file = File::create(path).map_err(fault)?;
        let output = Output::new(file, compressed).map_err(fault)?;
        let mut writer = Writer { rows: Rows::new(form), output, rows_written: 0, safe: Written::default() };
        // a disk without room shows here, before the test
        writer.begin().map_err(fault)?;
        let (out, input) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sink = LineSink { out, waiting: Arc::clone(&waiting) };
        let name = path.display().to_string();
        let thread = std::thread::Builder::new()
            .name("ld-records".into())
            .spawn(move || writer.run(&name, &input, &waiting))
            .map_err(fault)?;
        Ok(Self { path: path.to_owned(), sink, thread })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where lines go. The file is finished once every sink is dropped.
    pub fn sink(&self) -> LineSink {
        self.sink.clone()
    }

    /// Waits until everything that sinks took is written.
    pub async fn finish(self) -> Written {
        let Self { sink, thread, .. } = self;
        drop(sink);
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        let died = || Written { requests: 0, fault: Some(("its writer stopped".into(), 0.0)) };
        joined.ok().and_then(Result::ok).unwrap_or_else(died)
    }
}

impl LineSink {
    /// Takes a batch, or leaves it out if too much waits already.
    pub fn offer(&self, batch: LineBatch) {
        let size = batch.lines.len();
        if self.waiting.fetch_add(size, Ordering::Relaxed) > MOST_WAITING || self.out.send(batch).is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
        }
    }
}

fn form_of(path: &Path) -> (Form, bool) {
    let ends = |path: &Path, ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    let compressed = ends(path, "zst");
    let inner = if compressed { path.with_extension("") } else { path.to_owned() };
    let form = if ends(&inner, "jsonl") { Form::JsonLines } else { Form::Csv };
    (form, compressed)
}

/// A plain or a compressed file.
enum Output {
    Plain(File),
    Zstd(zstd::Encoder<'static, File>),
}

impl Output {
    fn new(file: File, compressed: bool) -> io::Result<Self> {
        Ok(if compressed { Self::Zstd(zstd::Encoder::new(file, LEVEL)?) } else { Self::Plain(file) })
    }

    fn write(&mut self, rows: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(rows),
            Self::Zstd(encoder) => encoder.write_all(rows),
        }
    }

    /// Makes everything so far readable.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    fn finish(self) -> io::Result<()> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        // delayed allocation reports a full disk only here; devices and pipes have nothing to sync
        if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) }
    }
}

struct Writer {
    rows: Rows,
    output: Output,
    /// Rows given to the output.
    rows_written: u64,
    /// What is in the file for certain.
    safe: Written,
}

impl Writer {
    fn begin(&mut self) -> io::Result<()> {
        let header = self.rows.header();
        self.output.write(&header)?;
        self.output.flush()
    }

    fn run(mut self, name: &str, input: &Receiver<LineBatch>, waiting: &AtomicUsize) -> Written {
        let (mut newest, mut dirty) = (0, false);
        let mut flush_at = ld_shared::boot::clock::mono().after(FLUSH_EVERY);
        loop {
            let result = match input.recv_timeout(FLUSH_EVERY) {
                Ok(batch) => {
                    waiting.fetch_sub(batch.lines.len(), Ordering::Relaxed);
                    dirty = true;
                    self.write(&batch).map(|at| newest = newest.max(at))
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let due = dirty && ld_shared::boot::clock::mono() >= flush_at;
            let result = if due { result.and_then(|()| self.flush()) } else { result };
            if due {
                dirty = false;
                flush_at = ld_shared::boot::clock::mono().after(FLUSH_EVERY);
            }
            if let Err(error) = result {
                return self.give_up(name, &error, newest, input, waiting);
            }
        }
        let all = self.rows_written;
        let Self { output, mut safe, .. } = self;
        match output.finish() {
            Ok(()) => safe.requests = all,
            Err(error) => safe.fault = Some((files::cause(&error), seconds(newest))),
        }
        safe
    }

    /// Writes the rows of a batch; gives the run time at which the last of them started.
    fn write(&mut self, batch: &LineBatch) -> io::Result<u64> {
        let lines = match Lines::decode(batch.lines.clone()) {
            Ok(lines) => lines,
            Err(error) => {
                // what is left out shows in the result
                tracing::warn!(worker = %batch.worker, "lines of requests are unreadable: {error}");
                return Ok(0);
            }
        };
        let rows = self.rows.of(&lines, &batch.worker, batch.run_started);
        self.output.write(&rows)?;
        self.rows_written += lines.len() as u64;
        Ok(lines.iter().map(|line| line.started_at).max().unwrap_or(0))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()?;
        self.safe.requests = self.rows_written;
        Ok(())
    }

    /// The file takes no more: the run goes on, and what still comes is left out.
    fn give_up(
        mut self,
        name: &str,
        error: &io::Error,
        newest: u64,
        input: &Receiver<LineBatch>,
        waiting: &AtomicUsize,
    ) -> Written {
        let why = files::cause(error);
        tracing::warn!("cannot write `{name}` any more: {why}; the run goes on, further requests are not in it");
        self.safe.fault = Some((why, seconds(newest)));
        for batch in input {
            waiting.fetch_sub(batch.lines.len(), Ordering::Relaxed);
        }
        self.safe
    }
}

fn seconds(at: u64) -> f64 {
    ld_shared::time::RunTime(at).as_secs()
}

#[cfg(test)]
mod tests;
