//! What was measured goes to the master, and is kept until it has counted it.

use super::link::Link;
use super::run::Stage;
use super::{Effect, Membership};
use ld_shared::frame::{Frame, FrameBody, FrameKey};
use ld_shared::message::ToMaster;
use ld_shared::record::{RecordBatch, RecordBody};
use ld_shared::time::{Mono, RunTime};
use std::collections::VecDeque;

/// Batches of records, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Shipped {
    /// Batches that wait for the frames before them: what is listed is counted first. The engine
    /// hands out no more than a window of them.
    waiting: VecDeque<RecordBody>,
    /// Sent and not acknowledged.
    offered: VecDeque<RecordBody>,
    sent: u64,
    acknowledged: u64,
    /// The last frame said that more follow, and the last batch has not come.
    open: bool,
}

impl Shipped {
    /// Whether the master has counted every one, and no more come.
    pub(super) fn are_delivered(&self) -> bool {
        !self.open && self.waiting.is_empty() && self.acknowledged == self.sent
    }
}

impl Membership {
    pub(super) fn on_span(&mut self, now: Mono, body: Box<FrameBody>, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        let last = body.last;
        run.records.open = body.records_follow;
        if run.orphaned {
            if last {
                self.drop_run(effects);
            }
            return;
        }
        let Some(t0) = run.t0() else { return };
        run.spool.put(body, RunTime::from(now.since(t0)));
        if last {
            run.stage = Stage::Spent { t0 };
        }
        self.offer(effects);
    }

    pub(super) fn on_records(&mut self, body: RecordBody, effects: &mut Vec<Effect>) {
        let Some(run) = self.run.as_mut().filter(|run| !run.orphaned) else { return };
        run.records.open &= !body.last;
        run.records.waiting.push_back(body);
        self.offer(effects);
    }

    pub(super) fn offer(&mut self, effects: &mut Vec<Effect>) {
        let Link::Joined { session } = self.link else { return };
        let Some(run) = &mut self.run else { return };
        while let Some((seq, body, sealed_at)) = run.spool.offer() {
            let key = FrameKey { run: run.run.clone(), session, seq };
            let frame = Box::new(Frame { key, body: *body });
            effects.push(Effect::Send(ToMaster::Frame { frame, sealed_at }));
        }
        if run.spool.is_waiting() {
            return;
        }
        while let Some(body) = run.records.waiting.pop_front() {
            run.records.sent += 1;
            run.records.offered.push_back(body.clone());
            let batch = RecordBatch { run: run.run.clone(), session, seq: run.records.sent, body };
            effects.push(Effect::Send(ToMaster::Records(Box::new(batch))));
        }
    }

    /// What was offered on a connection that ended is offered again.
    pub(super) fn offer_again(&mut self, effects: &mut Vec<Effect>) {
        let Some(run) = self.run.as_mut().filter(|run| !run.orphaned) else { return };
        run.spool.reconnect();
        let records = &mut run.records;
        records.sent = records.acknowledged;
        while let Some(body) = records.offered.pop_back() {
            records.waiting.push_front(body);
        }
        self.offer(effects);
    }

    pub(super) fn on_frame_ack(&mut self, seq: u64, effects: &mut Vec<Effect>) {
        if let Some(run) = &mut self.run {
            run.spool.acknowledge(seq);
        }
        self.offer(effects);
    }

    /// What the master did not count by now is kept in the spool's folder, if there is one: nobody else has it.
    pub(super) fn on_run_closed(&mut self, frames: u64, effects: &mut Vec<Effect>) {
        if let Some(run) = &mut self.run {
            run.spool.acknowledge(frames);
        }
        self.drop_run(effects);
    }

    pub(super) fn on_record_ack(&mut self, seq: u64, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        let records = &mut run.records;
        let more = seq.min(records.sent).saturating_sub(records.acknowledged);
        records.acknowledged += more;
        records.offered.drain(..(more as usize).min(records.offered.len()));
        effects.push(Effect::RecordsAcknowledged(more));
    }
}
