//! A host's disk: what its processes keep there outlives them.

use ld_shared::id::{RunId, SessionId};
use ld_shared::message::{Returning, RunBeat};
use ld_shared::wire::frame_from_bytes;
use ld_worker::heir::Heir;
use ld_worker::spool::{Left, Shelf, Shelves, Spool};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What lies there, by session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<BTreeMap<SessionId, Lying>>>);

#[derive(Debug)]
struct Lying {
    run: RunId,
    home: Returning,
    sealed: BTreeMap<u64, Vec<u8>>,
    offered: BTreeMap<u64, Vec<u8>>,
    counted: u64,
    stands: Option<RunBeat>,
}

impl Disk {
    /// Heirs of all that lies there: nobody whose it is lives.
    pub(crate) fn heirs(&self) -> Vec<Heir> {
        let heir = |(session, lying): (&SessionId, &Lying)| {
            let frame = |bytes: &Vec<u8>| {
                let (body, sealed_at) = frame_from_bytes(bytes).expect("what was written can be read");
                (Box::new(body), sealed_at)
            };
            let left = Left {
                acknowledged: lying.counted,
                offered: lying.offered.values().map(frame).collect(),
                sealed: lying.sealed.keys().copied().collect(),
            };
            let spool = Spool::found(Box::new(Board { disk: self.clone(), session: *session }), left);
            Heir::new(lying.run.clone(), (*session, lying.home.secret.clone()), spool, lying.stands.clone())
        };
        let lying = self.lying();
        let is_left = |(_, lying): &(&SessionId, &Lying)| {
            lying.stands.is_some() || !lying.sealed.is_empty() || !lying.offered.is_empty()
        };
        lying.iter().filter(is_left).map(heir).collect()
    }

    /// Nobody wants what a session left.
    pub(crate) fn clear(&self, session: SessionId) {
        self.lying().remove(&session);
    }

    fn lying(&self) -> MutexGuard<'_, BTreeMap<SessionId, Lying>> {
        self.0.lock().expect("a simulation has one thread")
    }
}

impl Shelves for Disk {
    fn shelf(&self, run: &RunId, home: &Returning) -> Box<dyn Shelf> {
        let new = Lying {
            run: run.clone(),
            home: home.clone(),
            sealed: BTreeMap::new(),
            offered: BTreeMap::new(),
            counted: 0,
            stands: None,
        };
        self.lying().insert(home.session, new);
        Box::new(Board { disk: self.clone(), session: home.session })
    }
}

/// One session's part of a disk.
#[derive(Debug)]
struct Board {
    disk: Disk,
    session: SessionId,
}

impl Board {
    fn with<T>(&self, act: impl FnOnce(&mut Lying) -> Option<T>) -> io::Result<T> {
        let mut disk = self.disk.lying();
        disk.get_mut(&self.session).and_then(act).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Shelf for Board {
    fn put(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|lying| Some(_ = lying.sealed.insert(number, bytes.to_vec())))
    }

    fn get(&mut self, number: u64) -> io::Result<Vec<u8>> {
        self.with(|lying| lying.sealed.get(&number).cloned())
    }

    fn offer(&mut self, number: u64, seq: u64) -> io::Result<()> {
        self.with(|lying| {
            let frame = lying.sealed.remove(&number)?;
            Some(_ = lying.offered.insert(seq, frame))
        })
    }

    fn discard(&mut self, number: u64) -> io::Result<()> {
        self.with(|lying| lying.sealed.remove(&number).map(drop))
    }

    fn remove(&mut self, _number: u64, seq: u64) -> io::Result<()> {
        self.with(|lying| {
            lying.counted = seq;
            lying.offered.remove(&seq).map(drop)
        })
    }

    fn note(&mut self, stands: &RunBeat) -> io::Result<()> {
        self.with(|lying| {
            lying.stands = Some(stands.clone());
            Some(())
        })
    }

    fn disinherit(&mut self) {}
}
