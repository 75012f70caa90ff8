//! The run of a worker: fetched, prepared, armed, running, drained.

use super::delivery::Shipped;
use super::{ABORT_WITHIN, Effect, Ending, Membership, Ready};
use crate::spool::Spool;
use bytes::{Bytes, BytesMut};
use ld_shared::frame::FrameBody;
use ld_shared::id::{Digest, Epoch, RunId};
use ld_shared::load::Program;
use ld_shared::message::ToMaster;
use ld_shared::plan::{MasterLoss, Pool};
use ld_shared::shard::Shard;
use ld_shared::time::{Mono, RunTime};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

/// The engine is started so long before the start instant: later, the instant could not be
/// replaced by a new one; earlier is of no use.
const START_AHEAD: Duration = Duration::from_millis(50);
/// After `graceful_stop`, how long the engine may take for its last span.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "its id is called run wherever it goes")]
pub(super) struct Run {
    pub(super) run: RunId,
    pub(super) stage: Stage,
    pub(super) spool: Spool,
    pub(super) records: Shipped,
    pub(super) ready: Ready,
    /// The newest assignment that is in force.
    epoch: Epoch,
    /// Changes of the load that came before it began here.
    program: Option<Program>,
    /// Tickets that were asked for and have not come, and pools without any: said again to a master
    /// that is there again.
    wanted: BTreeMap<Pool, u64>,
    empty: BTreeSet<Pool>,
    /// The master of this run is lost for good: what it measures goes nowhere.
    pub(super) orphaned: bool,
}

#[derive(Debug)]
pub(super) enum Stage {
    Fetching {
        plan: Digest,
        missing: VecDeque<Digest>,
        blobs: BTreeMap<Digest, Bytes>,
        partial: BytesMut,
    },
    Preparing,
    Ready,
    /// Armed: the engine is started a moment before `t0`.
    Armed {
        shard: Box<Shard>,
        t0: Mono,
    },
    Running {
        t0: Mono,
    },
    /// Nothing starts any more; the engine is cut off at `until`, forgotten later.
    Draining {
        t0: Mono,
        until: Mono,
        aborted: bool,
    },
    /// The last span is here: what remains is to deliver it.
    Spent {
        t0: Mono,
    },
}

impl Run {
    /// Whether the master has counted everything.
    pub(super) fn is_delivered(&self) -> bool {
        self.spool.is_done() && self.records.are_delivered()
    }

    pub(super) fn t0(&self) -> Option<Mono> {
        match &self.stage {
            Stage::Running { t0 } | Stage::Draining { t0, .. } | Stage::Spent { t0 } => Some(*t0),
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready | Stage::Armed { .. } => None,
        }
    }

    /// Whether its engine starts requests, or waits for open ones.
    pub(super) fn makes_load(&self) -> bool {
        matches!(self.stage, Stage::Running { .. } | Stage::Draining { .. })
    }

    /// When its stage changes by itself.
    pub(super) fn deadline(&self) -> Option<Mono> {
        match &self.stage {
            Stage::Armed { t0, shard } => Some(start_at(*t0, shard)),
            Stage::Draining { until, .. } => Some(*until),
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready | Stage::Running { .. } | Stage::Spent { .. } => {
                None
            }
        }
    }
}

impl Membership {
    /// The master of the run is lost for good: users stop, what is open ends, nothing can be delivered.
    pub(super) fn lose_run(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        run.orphaned = true;
        match run.stage {
            Stage::Running { .. } => self.stop_load(now, effects),
            Stage::Draining { .. } => {}
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready | Stage::Armed { .. } | Stage::Spent { .. } => {
                self.drop_run(effects);
            }
        }
    }

    pub(super) fn drop_run(&mut self, effects: &mut Vec<Effect>) {
        if self.run.take().is_some() {
            effects.push(Effect::DropLoad);
        }
    }

    pub(super) fn stop_load(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        match run.stage {
            Stage::Running { t0 } => {
                let until = now.after(run.ready.graceful_stop).after(DRAIN_SLACK);
                run.stage = Stage::Draining { t0, until, aborted: false };
                effects.push(Effect::StopLoad);
            }
            Stage::Draining { .. } | Stage::Spent { .. } => {}
            Stage::Armed { t0, .. } => self.start_nothing(t0, effects),
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready => self.drop_run(effects),
        }
    }

    /// The run ends before it began here: the master is told, and waits for nothing.
    fn start_nothing(&mut self, t0: Mono, effects: &mut Vec<Effect>) {
        if let Some(run) = &mut self.run {
            run.stage = Stage::Spent { t0 };
            run.spool.put(Box::new(FrameBody { last: true, ..FrameBody::default() }), RunTime(0));
            effects.push(Effect::DropLoad);
            self.offer(effects);
        }
    }

    pub(super) fn abort_load(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        match run.stage {
            Stage::Running { t0 } | Stage::Draining { t0, aborted: false, .. } => {
                run.stage = Stage::Draining { t0, until: now.after(ABORT_WITHIN), aborted: true };
                effects.push(Effect::AbortLoad);
            }
            Stage::Draining { aborted: true, .. } | Stage::Spent { .. } => {}
            Stage::Armed { t0, .. } => self.start_nothing(t0, effects),
            Stage::Fetching { .. } | Stage::Preparing | Stage::Ready => self.drop_run(effects),
        }
    }

    /// The master says what is owned, and what was before that. After a new connection that is what load waits for.
    pub(super) fn on_assign(&mut self, shard: Box<Shard>, earlier: Vec<Shard>, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        let (id, epoch) = (run.run.clone(), shard.epoch);
        if !std::mem::replace(&mut self.attached, true) {
            for (pool, want) in &run.wanted {
                effects.push(Effect::Send(ToMaster::WantTickets { run: id.clone(), pool: *pool, want: *want }));
            }
            for pool in &run.empty {
                effects.push(Effect::Send(ToMaster::PoolEmpty { run: id.clone(), pool: *pool }));
            }
        }
        effects.push(Effect::Throttles(shard.throttles.iter().map(|share| share.parts).collect()));
        for shard in earlier.into_iter().map(Box::new).chain([shard]) {
            if shard.epoch <= run.epoch {
                continue;
            }
            run.epoch = shard.epoch;
            if let Stage::Armed { t0, .. } = run.stage {
                // the engine begins what it was armed with, and changes at once
                let armed = std::mem::replace(&mut run.stage, Stage::Running { t0 });
                if let Stage::Armed { shard, .. } = armed {
                    effects.push(Effect::Start { shard, t0 });
                    effects.extend(run.program.take().map(Effect::Change));
                }
            }
            effects.push(Effect::Assign(shard));
        }
        effects.push(Effect::Send(ToMaster::Assigned { run: id, epoch }));
    }

    /// The load changes while it is made.
    pub(super) fn on_program(&mut self, program: Program, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        match run.stage {
            // the engine takes it once it runs
            Stage::Armed { .. } => run.program = Some(program),
            Stage::Running { .. } => effects.push(Effect::Change(program)),
            _ => {}
        }
    }

    pub(super) fn on_prepare(&mut self, run: RunId, plan: Digest, blobs: Vec<Digest>, effects: &mut Vec<Effect>) {
        if self.ending != Ending::Not {
            return;
        }
        if self.run.as_ref().is_some_and(|run| run.orphaned) {
            let text = "it still drains a run whose master was lost".into();
            effects.push(Effect::Send(ToMaster::CannotPrepare { run, text }));
            return;
        }
        self.drop_run(effects);
        let mut missing: VecDeque<Digest> = VecDeque::new();
        for digest in blobs {
            if !missing.contains(&digest) {
                missing.push_back(digest);
            }
        }
        let digests = missing.iter().cloned().collect();
        effects.push(Effect::Send(ToMaster::NeedBlobs { run: run.clone(), digests }));
        let stage = Stage::Fetching { plan, missing, blobs: BTreeMap::new(), partial: BytesMut::new() };
        let shelf =
            self.options.spool.as_ref().zip(self.home.as_ref()).map(|(shelves, home)| shelves.shelf(&run, home));
        self.run = Some(Run {
            run,
            stage,
            spool: Spool::new(shelf),
            records: Shipped::default(),
            ready: Ready { on_master_loss: MasterLoss::Stop, is_replaced: false, graceful_stop: Duration::ZERO },
            epoch: Epoch(0),
            program: None,
            wanted: BTreeMap::new(),
            empty: BTreeSet::new(),
            orphaned: false,
        });
    }

    pub(super) fn on_blob(
        &mut self,
        digest: &Digest,
        total: u64,
        offset: u64,
        data: &Bytes,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = &mut self.run else { return };
        let Stage::Fetching { plan, missing, blobs, partial } = &mut run.stage else { return };
        let expected = missing.front() == Some(digest) && offset == partial.len() as u64;
        if !expected || offset + data.len() as u64 > total {
            let text = format!("blob {digest} arrived out of order");
            effects.push(Effect::Send(ToMaster::CannotPrepare { run: run.run.clone(), text }));
            self.drop_run(effects);
            return;
        }
        partial.extend_from_slice(data);
        if (partial.len() as u64) < total {
            return;
        }
        let blob = std::mem::take(partial).freeze();
        missing.pop_front();
        if Digest::of(&blob) != *digest {
            let text = format!("blob {digest} arrived damaged");
            effects.push(Effect::Send(ToMaster::CannotPrepare { run: run.run.clone(), text }));
            self.drop_run(effects);
            return;
        }
        blobs.insert(digest.clone(), blob);
        if missing.is_empty() {
            let (plan, blobs) = (plan.clone(), std::mem::take(blobs));
            run.stage = Stage::Preparing;
            effects.push(Effect::Prepare { run: run.run.clone(), plan, blobs });
        }
    }

    pub(super) fn on_prepared(&mut self, id: &RunId, result: Result<Ready, String>, effects: &mut Vec<Effect>) {
        let preparing = |run: &&mut Run| run.run == *id && matches!(run.stage, Stage::Preparing);
        let Some(run) = self.run.as_mut().filter(preparing) else { return };
        match result {
            Ok(ready) => {
                run.ready = ready;
                run.stage = Stage::Ready;
                let (cores, capacity) = (self.options.hello.cores, self.options.capacity);
                effects.push(Effect::Send(ToMaster::Ready { run: id.clone(), cores, capacity }));
            }
            Err(text) => {
                effects.push(Effect::Send(ToMaster::CannotPrepare { run: id.clone(), text }));
                self.drop_run(effects);
            }
        }
    }

    pub(super) fn on_arm(&mut self, now: Mono, attempt: u32, t0: Mono, shard: Box<Shard>, effects: &mut Vec<Effect>) {
        let Some(t0) = self.clock.to_own(t0) else { return };
        let Some(run) = &mut self.run else { return };
        // an instant that has passed, or comes after the engine was started, is not confirmed; whoever
        // joins in mid-run starts as soon as it can
        let in_time = t0 > now || shard.from > RunTime(0);
        if in_time && matches!(run.stage, Stage::Ready | Stage::Armed { .. }) {
            run.epoch = shard.epoch;
            run.stage = Stage::Armed { shard, t0 };
            effects.push(Effect::Send(ToMaster::Armed { run: run.run.clone(), attempt }));
        }
    }

    pub(super) fn on_want_tickets(&mut self, pool: Pool, want: u64, effects: &mut Vec<Effect>) {
        if let Some(run) = self.run.as_mut().filter(|run| !run.orphaned) {
            run.wanted.insert(pool, want);
            effects.push(Effect::Send(ToMaster::WantTickets { run: run.run.clone(), pool, want }));
        }
    }

    pub(super) fn on_pool_empty(&mut self, pool: Pool, effects: &mut Vec<Effect>) {
        if let Some(run) = self.run.as_mut().filter(|run| !run.orphaned) {
            run.empty.insert(pool);
            effects.push(Effect::Send(ToMaster::PoolEmpty { run: run.run.clone(), pool }));
        }
    }

    pub(super) fn on_tickets(&mut self, pool: Pool, tickets: Range<u64>, exhausted: bool, effects: &mut Vec<Effect>) {
        if let Some(run) = &mut self.run {
            run.wanted.remove(&pool);
        }
        effects.push(Effect::Grant(pool, tickets, exhausted));
    }

    pub(super) fn advance_run(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        match &run.stage {
            Stage::Armed { t0, shard } if now >= start_at(*t0, shard) => {
                let t0 = *t0;
                let armed = std::mem::replace(&mut run.stage, Stage::Running { t0 });
                if let Stage::Armed { shard, .. } = armed {
                    effects.push(Effect::Start { shard, t0 });
                    effects.extend(run.program.take().map(Effect::Change));
                }
            }
            Stage::Running { .. } if run.ready.is_replaced && self.lease.is_some_and(|until| now >= until) => {
                self.lease = None;
                effects.push(Effect::LeaseLost);
            }
            Stage::Draining { until, aborted, .. } if now >= *until => {
                if *aborted {
                    // even the last span did not come: there is nothing to wait for
                    self.drop_run(effects);
                } else {
                    self.abort_load(now, effects);
                }
            }
            Stage::Fetching { .. }
            | Stage::Preparing
            | Stage::Ready
            | Stage::Armed { .. }
            | Stage::Running { .. }
            | Stage::Draining { .. }
            | Stage::Spent { .. } => {}
        }
    }

    /// Whether the end of the lease is to be said.
    pub(super) fn lease_may_end(&self) -> bool {
        let running = |run: &Run| run.ready.is_replaced && matches!(run.stage, Stage::Running { .. });
        self.lease.is_some() && self.run.as_ref().is_some_and(running)
    }
}

fn start_at(t0: Mono, shard: &Shard) -> Mono {
    Mono((t0.0 + shard.from.0).saturating_sub(START_AHEAD.as_nanos() as u64))
}
