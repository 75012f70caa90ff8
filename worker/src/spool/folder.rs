//! A folder in which sealed frames lie, so that they outlive memory and the process.
//!
//! One file a frame, in `DIR/RUN.SESSION/`: `N.sealed` (in order of N) before it is offered,
//! `SEQ.offered` from then on until it is acknowledged. Written through the page cache, without a
//! sync: it outlives a killed process, not a lost machine.

use super::Shelf;
use ld_shared::id::{RunId, SessionId};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The frames of one session in one run.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A folder below `dir`, made with its first frame.
    pub fn new(dir: &Path, run: &RunId, session: SessionId) -> Self {
        // names of runs come from the master
        let name: String = run.0.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        Self { path: dir.join(format!("{name}.{:016x}", session.0)) }
    }

    fn sealed(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:012}.sealed"))
    }

    fn offered(&self, seq: u64) -> PathBuf {
        self.path.join(format!("{seq:012}.offered"))
    }
}

impl Shelf for Folder {
    fn put(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.sealed(number);
        // a half-written frame must not be found later
        let part = path.with_extension("part");
        let write = || fs::write(&part, bytes);
        let written = write().or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => fs::create_dir_all(&self.path).and_then(|()| write()),
            _ => Err(error),
        });
        let written = written.and_then(|()| fs::rename(&part, &path));
        written.map_err(|error| {
            // what is left of it is of no use; the first error is the one to tell
            fs::remove_file(&part).ok();
            named(&path, &error)
        })
    }

    fn get(&mut self, number: u64) -> io::Result<Vec<u8>> {
        let path = self.sealed(number);
        fs::read(&path).map_err(|error| named(&path, &error))
    }

    fn offer(&mut self, number: u64, seq: u64) -> io::Result<()> {
        let path = self.sealed(number);
        fs::rename(&path, self.offered(seq)).map_err(|error| named(&path, &error))
    }

    fn discard(&mut self, number: u64) -> io::Result<()> {
        let path = self.sealed(number);
        fs::remove_file(&path).map_err(|error| named(&path, &error))
    }

    fn remove(&mut self, number: u64, seq: u64) -> io::Result<()> {
        let path = self.offered(seq);
        // it may have failed to be renamed
        let removed = fs::remove_file(&path).or_else(|_| fs::remove_file(self.sealed(number)));
        removed.map_err(|error| named(&path, &error))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // goes if all was acknowledged; what is left in it keeps it
        fs::remove_dir(&self.path).ok();
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
