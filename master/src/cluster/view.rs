//! What can be seen of the cluster at a moment, by whoever asks.

use crate::run::{Event, TimelineRow};
use chrono::{DateTime, Utc};
use ld_shared::frame::Odometers;
use ld_shared::id::RunId;
use ld_shared::load::Program;
use ld_shared::snapshot::Snapshot;
use serde::Serialize;
use std::collections::BTreeMap;

/// What is to be seen of the run that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Seconds from this one on.
    pub from: u32,
    /// Counts and histograms by name: they cost a copy of all of them.
    pub totals: bool,
}

/// The cluster at a moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Workers that are there.
    pub workers: Vec<WorkerNow>,
    /// The run that goes on.
    pub run: Option<RunView>,
}

/// A worker that is there.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerNow {
    /// Its name.
    pub name: String,
    /// Its load cores.
    pub cores: u32,
    /// Nothing was heard of it for a second or more.
    pub late: bool,
    /// Whether it takes part in the run that goes on.
    pub takes_part: bool,
    /// Users that live on it (open model: open iterations).
    pub users: u64,
    /// Requests that it has ended in this run, as far as the master knows.
    pub requests: u64,
    /// Greatest CPU share of one of its cores in one second of this run: 1.0 is the whole core.
    pub cpu_max: f64,
    /// How long its cores waited to be polled, 99th percentile of this run, ms.
    pub lag_p99_ms: f64,
    /// The master's clock − its, ms; `null`: not measured yet.
    pub clock_offset_ms: Option<f64>,
}

/// A run that goes on.
#[derive(Clone, Debug)]
pub struct RunView {
    /// The run.
    pub run: RunId,
    /// Wall clock of the start instant, once there is one.
    pub started_at: Option<DateTime<Utc>>,
    /// What was changed of its load.
    pub program: Program,
    /// Every second before this one is final: all workers that make load have reported it.
    pub settled_to: u32,
    /// Final seconds from the one that was asked for on, or from the first of those that stand in one row
    /// with it.
    pub rows: BTreeMap<u32, TimelineRow>,
    /// Everything that ended so far, if asked for; without rows.
    pub total: Option<Snapshot>,
    /// Counters so far, as far as frames tell.
    pub odometers: Odometers,
    /// What people and policies did to it.
    pub events: Vec<Event>,
}
