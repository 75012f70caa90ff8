//! Folders in which sealed frames lie, so that they outlive memory and the process.
//!
//! One a session and run, `DIR/RUN.SESSION/`. One file a frame: `N.sealed` (in order of N) before it is offered,
//! `SEQ.offered` from then on until it is acknowledged; the last one that was is `SEQ.counted`. `home` says whose they
//! are, and is locked as long as that process lives; `stands` how far the load was a moment ago. Written through the
//! page cache, without a sync: it outlives a killed process, not a lost machine.

use super::{Shelf, Shelves};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ld_shared::id::{RunId, SessionId};
use ld_shared::message::{Returning, RunBeat};
use ld_shared::wire::{run_beat_from_bytes, run_beat_to_bytes};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub(super) const SEALED: &str = "sealed";
pub(super) const OFFERED: &str = "offered";
pub(super) const COUNTED: &str = "counted";
const PART: &str = "part";
const HOME: &str = "home";
const STANDS: &str = "stands";
/// Bytes of one note, which is one of two in turn: a process that is killed spoils at most the one that it writes.
const NOTE: usize = 1024;

/// Locks of folders in which frames were left: as long as this process lives nobody is its heir.
static LEFT: Mutex<Vec<Open>> = Mutex::new(Vec::new());

/// As if this process had died.
#[cfg(test)]
pub(super) fn die() {
    LEFT.lock().unwrap().clear();
}

/// Folders below this one.
#[derive(Debug)]
pub struct Folders(pub PathBuf);

impl Shelves for Folders {
    fn shelf(&self, run: &RunId, home: &Returning) -> Box<dyn Shelf> {
        Box::new(Folder::new(&self.0, Home { run: run.clone(), session: home.session, secret: home.secret.clone() }))
    }
}

/// Whose frames lie in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) run: RunId,
    pub(super) session: SessionId,
    /// Proves the session to its master.
    pub(super) secret: Bytes,
}

/// [`Home`] in its file, as JSON.
#[derive(Debug, Deserialize, Serialize)]
struct HomeFile {
    run: RunId,
    session: u64,
    secret: String,
}

/// The frames of one session in one run. Its files are made with the first of them.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    home: Home,
    open: Option<Open>,
    /// Frames in it, and the newest that was put there.
    frames: usize,
    newest: Option<u64>,
    /// The newest frame that was acknowledged.
    counted: Option<u64>,
    /// Nothing has failed: somebody may deliver it all.
    is_whole: bool,
}

#[derive(Debug)]
struct Open {
    /// Locked as long as this process lives.
    home: File,
    stands: File,
    notes: u64,
}

impl Folder {
    fn new(dir: &Path, home: Home) -> Self {
        // names of runs come from the master
        let name = home.run.0.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' });
        let path = dir.join(format!("{}.{:016x}", name.collect::<String>(), home.session.0));
        Self { path, home, open: None, frames: 0, newest: None, counted: None, is_whole: true }
    }

    /// One that another process left; `None`: it lives, or this is no such folder.
    pub(super) fn of_the_dead(path: PathBuf) -> Option<Self> {
        let file = File::open(path.join(HOME)).ok()?;
        file.try_lock().ok()?;
        let home: HomeFile = serde_json::from_reader(&file).ok()?;
        let secret = STANDARD.decode(home.secret).ok()?.into();
        let home = Home { run: home.run, session: SessionId(home.session), secret };
        let stands =
            File::options().read(true).write(true).create(true).truncate(false).open(path.join(STANDS)).ok()?;
        let open = Some(Open { home: file, stands, notes: 0 });
        // until it is known what is in it nothing of it is removed
        Some(Self { path, home, open, frames: 1, newest: None, counted: None, is_whole: true })
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Numbers of the frames in it with this ending, ascending.
    pub(super) fn numbers(&self, ending: &str) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|have| have == ending) {
                numbers.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()));
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The bytes of a frame with this number and ending.
    pub(super) fn read(&self, number: u64, ending: &str) -> io::Result<Vec<u8>> {
        let path = self.frame(number, ending);
        fs::read(&path).map_err(|error| named(&path, &error))
    }

    /// How far the load was, by the newest note that can be read.
    pub(super) fn last_note(&self) -> Option<RunBeat> {
        let bytes = fs::read(self.path.join(STANDS)).ok()?;
        bytes.chunks(NOTE).filter_map(note_from).max_by_key(|stands| stands.at)
    }

    /// So many frames are in it, and these were counted, of which only the newest is needed.
    pub(super) fn take_over(&mut self, frames: usize, counted: &[u64]) {
        (self.frames, self.counted) = (frames, counted.last().copied());
        // a process that was killed may have left more
        let older = counted.iter().rev().skip(1).map(|seq| self.counted(*seq));
        let parts = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in older.chain(parts.filter(|path| path.extension().is_some_and(|ending| ending == PART))) {
            fs::remove_file(path).ok();
        }
    }

    fn frame(&self, number: u64, ending: &str) -> PathBuf {
        self.path.join(format!("{number:012}.{ending}"))
    }

    fn sealed(&self, number: u64) -> PathBuf {
        self.frame(number, SEALED)
    }

    fn offered(&self, seq: u64) -> PathBuf {
        self.frame(seq, OFFERED)
    }

    fn counted(&self, seq: u64) -> PathBuf {
        self.frame(seq, COUNTED)
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            fs::create_dir_all(&self.path)?;
            let mut options = File::options();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut home = options.open(self.path.join(HOME))?;
            // whoever looks for the dead's lets go of it at once: there is nothing in it yet
            home.lock()?;
            let Home { run, session, secret } = &self.home;
            let file = HomeFile { run: run.clone(), session: session.0, secret: STANDARD.encode(secret) };
            home.write_all(&serde_json::to_vec(&file)?)?;
            let stands = options.open(self.path.join(STANDS))?;
            if !self.is_whole {
                home.set_len(0)?;
            }
            self.open = Some(Open { home, stands, notes: 0 });
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Shelf for Folder {
    fn put(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.sealed(number);
        // a half-written frame must not be found later
        let part = path.with_extension(PART);
        let opened = self.open().map(|_| ());
        let written = opened.and_then(|()| fs::write(&part, bytes)).and_then(|()| fs::rename(&part, &path));
        let is_new = self.newest != Some(number);
        if let Err(error) = written {
            // what is left of it is of no use; the first error is the one to tell
            fs::remove_file(&part).ok();
            if !is_new && fs::remove_file(&path).is_ok() {
                (self.frames, self.newest) = (self.frames.saturating_sub(1), None);
            }
            return Err(named(&path, &error));
        }
        self.frames += usize::from(is_new);
        self.newest = Some(number);
        Ok(())
    }

    fn get(&mut self, number: u64) -> io::Result<Vec<u8>> {
        self.read(number, SEALED)
    }

    fn offer(&mut self, number: u64, seq: u64) -> io::Result<()> {
        let path = self.sealed(number);
        fs::rename(&path, self.offered(seq)).map_err(|error| named(&path, &error))
    }

    fn discard(&mut self, number: u64) -> io::Result<()> {
        let path = self.sealed(number);
        self.frames = self.frames.saturating_sub(1);
        fs::remove_file(&path).map_err(|error| named(&path, &error))
    }

    fn remove(&mut self, number: u64, seq: u64) -> io::Result<()> {
        let path = self.offered(seq);
        self.frames = self.frames.saturating_sub(1);
        // it may have failed to be renamed
        let counted =
            fs::rename(&path, self.counted(seq)).or_else(|_| fs::rename(self.sealed(number), self.counted(seq)));
        counted.map_err(|error| named(&path, &error))?;
        if let Some(before) = self.counted.replace(seq) {
            let path = self.counted(before);
            fs::remove_file(&path).map_err(|error| named(&path, &error))?;
        }
        Ok(())
    }

    fn disinherit(&mut self) {
        self.is_whole = false;
        // without a name for its session nobody can; if not even that can be done, the master still counts nothing twice
        if let Some(open) = &self.open {
            open.home.set_len(0).ok();
        }
    }

    fn note(&mut self, stands: &RunBeat) -> io::Result<()> {
        if !self.is_whole {
            return Ok(());
        }
        let note = note_of(stands);
        let path = self.path.join(STANDS);
        let open = self.open()?;
        let at = open.notes % 2 * NOTE as u64;
        open.notes += 1;
        let written = open.stands.seek(SeekFrom::Start(at)).and_then(|_| open.stands.write_all(&note));
        written.map_err(|error| named(&path, &error))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        if self.frames > 0 {
            return LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(open);
        }
        // all was acknowledged; what cannot be removed, or was put there by others, stays
        let counted = self.counted.map(|seq| self.counted(seq));
        for path in [self.path.join(STANDS), self.path.join(HOME)].into_iter().chain(counted) {
            fs::remove_file(path).ok();
        }
        fs::remove_dir(&self.path).ok();
    }
}

/// Checksum, length and bytes of a report, filled up.
fn note_of(stands: &RunBeat) -> Vec<u8> {
    let bytes = run_beat_to_bytes(stands);
    let mut note = crc32fast::hash(&bytes).to_le_bytes().to_vec();
    note.extend((bytes.len() as u32).to_le_bytes());
    note.extend(bytes);
    // the id of a run is the master's: a longer one is not noted
    note.resize(NOTE, 0);
    note
}

fn note_from(note: &[u8]) -> Option<RunBeat> {
    let (sum, rest) = note.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let bytes = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let is_whole = crc32fast::hash(bytes) == u32::from_le_bytes(*sum);
    is_whole.then(|| run_beat_from_bytes(bytes).ok()).flatten()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
