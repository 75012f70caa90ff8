//! Frames between being cut and being acknowledged. Pure.
//!
//! A frame gets its number when it is first offered, and never changes afterwards. At most
//! [`FRAME_WINDOW`] are offered and not acknowledged; more wait, and if too many do, the oldest
//! never-offered ones merge: totals survive, resolution goes, memory stays bounded.

use ld_shared::frame::FrameBody;
use ld_shared::message::FRAME_WINDOW;
use ld_shared::time::RunTime;
use std::collections::VecDeque;

/// Frames that wait before their oldest are merged.
const MOST_WAITING: usize = 60;

/// Frames of one session in one run.
#[derive(Debug, Default)]
pub struct Spool {
    waiting: VecDeque<(Box<FrameBody>, RunTime)>,
    /// Offered and not acknowledged, by ascending numbers: they are offered again, unchanged, to a
    /// master that is there again.
    unacknowledged: VecDeque<(Box<FrameBody>, RunTime)>,
    /// So many of those have been offered over the present connection.
    repeated: usize,
    offered: u64,
    acknowledged: u64,
    finished: bool,
}

impl Spool {
    /// Takes a complete span that was closed at `sealed_at`.
    pub fn put(&mut self, body: Box<FrameBody>, sealed_at: RunTime) {
        self.finished |= body.last;
        self.waiting.push_back((body, sealed_at));
        if self.waiting.len() > MOST_WAITING {
            let older = self.waiting.pop_front();
            if let (Some((older, _)), Some((newer, _))) = (older, self.waiting.front_mut()) {
                prepend(&older, newer);
            }
        }
    }

    /// The next frame to offer, with its number, if the window is open.
    pub fn offer(&mut self) -> Option<(u64, Box<FrameBody>, RunTime)> {
        if let Some((body, sealed_at)) = self.unacknowledged.get(self.repeated) {
            self.repeated += 1;
            return Some((self.acknowledged + self.repeated as u64, body.clone(), *sealed_at));
        }
        if self.unacknowledged.len() >= FRAME_WINDOW {
            return None;
        }
        let (body, sealed_at) = self.waiting.pop_front()?;
        self.offered += 1;
        self.unacknowledged.push_back((body.clone(), sealed_at));
        self.repeated += 1;
        Some((self.offered, body, sealed_at))
    }

    /// There is a new connection: what was not acknowledged is offered again.
    pub fn reconnect(&mut self) {
        self.repeated = 0;
    }

    /// The master counted every frame up to `seq`.
    pub fn acknowledge(&mut self, seq: u64) {
        let more = seq.min(self.offered).saturating_sub(self.acknowledged);
        self.acknowledged += more;
        self.unacknowledged.drain(..more as usize);
        self.repeated = self.repeated.saturating_sub(more as usize);
    }

    /// Whether frames wait to be offered.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the last frame is acknowledged.
    pub fn is_done(&self) -> bool {
        self.finished && self.waiting.is_empty() && self.acknowledged == self.offered
    }
}

/// Makes one frame of two that follow each other.
fn prepend(older: &FrameBody, newer: &mut FrameBody) {
    newer.from_second = older.from_second;
    newer.counts.merge(&older.counts);
    let generator = &mut newer.generator;
    generator.cpu_max_permille = generator.cpu_max_permille.max(older.generator.cpu_max_permille);
    generator.scheduler_lag.merge(&older.generator.scheduler_lag);
    generator.throttled_ms += older.generator.throttled_ms;
    generator.users_max = generator.users_max.max(older.generator.users_max);
    generator.start_skew = older.generator.start_skew.or(generator.start_skew);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_and_nothing_is_lost_while_the_master_is_away() {
        let mut spool = Spool::default();
        for second in 0..500 {
            let mut body = FrameBody { from_second: second, to_second: second + 1, ..FrameBody::default() };
            body.counts.rows.entry(second).or_default().succeeded = 1;
            body.last = second == 499;
            spool.put(Box::new(body), RunTime(0));
        }
        let (mut sum, mut next_second, mut offered) = (0, 0, Vec::new());
        while !spool.is_done() {
            while let Some((seq, body, _)) = spool.offer() {
                assert_eq!(body.from_second, next_second);
                next_second = body.to_second;
                sum += body.counts.rows.values().map(|row| row.succeeded).sum::<u64>();
                offered.push(seq);
            }
            assert!(spool.offered - spool.acknowledged <= FRAME_WINDOW as u64);
            spool.reconnect();
            let again: Vec<u64> = std::iter::from_fn(|| spool.offer()).map(|(seq, ..)| seq).collect();
            assert_eq!(again, (spool.acknowledged + 1..=spool.offered).collect::<Vec<_>>());
            spool.acknowledge(spool.offered);
        }
        assert_eq!((sum, next_second), (500, 500));
        assert_eq!(offered, (1..=offered.len() as u64).collect::<Vec<_>>());
        assert!(offered.len() <= MOST_WAITING);
    }
}
