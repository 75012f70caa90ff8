//! Bytes that are kept for long and hardly ever looked at, in a file without a name: an hour of a busy run is some
//! fifteen megabytes of response times by second.
//!
//! Without a folder for it, or when its disk takes nothing, they stay in memory.

use crate::data_dir::DataDir;
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What is shorter is not worth a look-up.
const WORTH: usize = 512;

static ATTIC: OnceLock<Mutex<Attic>> = OnceLock::new();

#[derive(Debug)]
struct Attic {
    folder: DataDir,
    /// Made for the first piece.
    file: Option<File>,
    /// Where the next piece goes.
    end: u64,
    /// Pieces that somebody still has. Once there is none, the file begins anew.
    pieces: u64,
    /// The disk takes nothing, and it was said.
    is_full: bool,
}

/// Bytes in memory, or in the attic.
#[derive(Clone, Debug, Default)]
pub(super) enum Stored {
    #[default]
    Nothing,
    Memory(Arc<[u8]>),
    Attic(Arc<Piece>),
}

/// A piece of the attic's file.
#[derive(Debug)]
pub(super) struct Piece {
    at: u64,
    length: usize,
}

/// This process's attic is in a folder, if it has none yet. Nothing is made there before there is something to keep.
pub(crate) fn open(folder: &DataDir) {
    // a second cluster of this process shares the first one's
    drop(ATTIC.set(Mutex::new(Attic { folder: folder.clone(), file: None, end: 0, pieces: 0, is_full: false })));
}

fn attic() -> Option<MutexGuard<'static, Attic>> {
    ATTIC.get().map(|attic| attic.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Stored {
    /// Keeps bytes, out of memory if they are worth it.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            return Self::Nothing;
        }
        let piece = attic().filter(|_| bytes.len() >= WORTH).and_then(|mut attic| attic.put(&bytes));
        piece.map_or_else(|| Self::Memory(bytes.into()), |piece| Self::Attic(Arc::new(piece)))
    }

    /// They.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Nothing => Cow::Borrowed(&[]),
            Self::Memory(bytes) => Cow::Borrowed(bytes),
            // counts that are missing must not pass for a result
            Self::Attic(piece) => Cow::Owned(piece.read().expect("a file that only this process has can be read")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

impl Attic {
    fn put(&mut self, bytes: &[u8]) -> Option<Piece> {
        let at = self.end;
        if let Err(error) = self.file().and_then(|file| write_at(file, bytes, at)) {
            let folder = self.folder.root().display();
            if self.file.is_none() {
                tracing::debug!("no attic in `{folder}`, seconds that are over stay in memory: {error}");
            } else if !std::mem::replace(&mut self.is_full, true) {
                tracing::warn!("`{folder}` takes nothing, seconds that are over stay in memory: {error}");
            }
            return None;
        }
        self.end += bytes.len() as u64;
        self.pieces += 1;
        Some(Piece { at, length: bytes.len() })
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            self.folder.create()?;
            self.file = Some(tempfile::tempfile_in(self.folder.root())?);
        }
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Piece {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        let attic = attic().ok_or(io::ErrorKind::NotFound)?;
        read_at(attic.file.as_ref().ok_or(io::ErrorKind::NotFound)?, &mut bytes, self.at)?;
        Ok(bytes)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Some(mut attic) = attic() else { return };
        attic.pieces -= 1;
        if attic.pieces == 0 {
            attic.end = 0;
            // if it stays long, it is written over
            drop(attic.file.as_ref().map(|file| file.set_len(0)));
        }
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    use std::io::{Seek as _, SeekFrom, Write as _};
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_the_file_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let before = Stored::new(vec![9; WORTH]);
        let inside = folder.path().join("new");
        open(&DataDir::new(inside.clone()));
        assert!(!inside.exists(), "there is nothing to keep yet");
        let short = Stored::new(vec![1; WORTH - 1]);
        let long: Vec<Stored> = (0..9_u8).map(|n| Stored::new(vec![n; WORTH + usize::from(n)])).collect();
        assert!(matches!(short, Stored::Memory(_)) && matches!(long[0], Stored::Attic(_)));
        for (n, stored) in (0..9_u8).zip(&long) {
            assert_eq!(*stored.clone().bytes(), vec![n; WORTH + usize::from(n)]);
        }
        assert_eq!(before.bytes().len(), WORTH);
        assert_eq!(std::fs::read_dir(inside).unwrap().count(), 0, "it has no name");
        assert!(attic().unwrap().end > 0);
        drop(long);
        let attic = attic().unwrap();
        let length = attic.file.as_ref().unwrap().metadata().unwrap().len();
        assert_eq!((attic.end, attic.pieces, length), (0, 0, 0));
    }
}
