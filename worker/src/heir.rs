//! Delivers what a session had measured whose process died. Pure.

use crate::spool::Spool;
use bytes::Bytes;
use ld_shared::frame::{Frame, FrameKey};
use ld_shared::id::{RunId, SessionId};
use ld_shared::message::{Beat, Hello, Returning, RunBeat, ToMaster};
use ld_shared::time::Mono;

/// The heir of one session in one run.
#[derive(Debug)]
pub struct Heir {
    run: RunId,
    session: SessionId,
    secret: Bytes,
    spool: Spool,
    /// The newest that is known of what it had started.
    last_word: Option<RunBeat>,
    /// The master has that.
    is_heard: bool,
}

impl Heir {
    /// Of a session with its secret, its frames, and how far its load was at last.
    pub fn new(run: RunId, (session, secret): (SessionId, Bytes), spool: Spool, last_word: Option<RunBeat>) -> Self {
        let last_word = last_word.filter(|word| word.run == run);
        Self { run, session, secret, spool, is_heard: last_word.is_none(), last_word }
    }

    /// Whose it is.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Frames that are left.
    pub fn frames(&self) -> usize {
        self.spool.len()
    }

    /// What it says first; `own`: what this process says of itself.
    pub fn hello(&self, own: &Hello) -> Hello {
        let returning =
            Returning { session: self.session, secret: self.secret.clone(), heir_of: Some(self.run.clone()) };
        Hello { returning: Some(returning), ..own.clone() }
    }

    /// A master let it in: what to say now.
    pub fn begin(&mut self, now: Mono) -> Vec<ToMaster> {
        self.spool.reconnect();
        let beat = |run| ToMaster::Beat(Beat { number: 1, sent_at: now, clock: None, run });
        let mut messages = vec![beat(self.last_word.clone())];
        messages.extend(self.offer());
        messages
    }

    /// The last word is taken.
    pub fn heard(&mut self) {
        self.is_heard = true;
    }

    /// Every frame up to `seq` is counted: what to say now.
    pub fn acknowledge(&mut self, seq: u64) -> Vec<ToMaster> {
        self.spool.acknowledge(seq);
        self.offer()
    }

    /// Whether the master has everything.
    pub fn is_done(&self) -> bool {
        self.spool.is_empty() && self.is_heard
    }

    fn offer(&mut self) -> Vec<ToMaster> {
        let mut messages = Vec::new();
        while let Some((seq, body, sealed_at)) = self.spool.offer() {
            let key = FrameKey { run: self.run.clone(), session: self.session, seq };
            messages.push(ToMaster::Frame { frame: Box::new(Frame { key, body: *body }), sealed_at });
        }
        messages
    }
}
