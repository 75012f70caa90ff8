//! What a journal is told.

use crate::cluster::ledger::Group;
use crate::run::Event;
use bytes::Bytes;
use ld_shared::fault::Fault;
use ld_shared::id::{Digest, Epoch, RunId, SessionId};
use ld_shared::lanes::LaneSet;
use ld_shared::load::Intervention;
use ld_shared::plan::{Plan, Pool};
use ld_shared::record::RecordBatch;
use ld_shared::shard::Shard;
use ld_shared::threshold::Threshold;
use ld_shared::throttle::ThrottleShare;
use ld_shared::time::{Mono, RunTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Something that must be known after a restart.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// What the run is. Always the first; its blobs travel beside it.
    Order(Box<Order>, BTreeMap<Digest, Bytes>),
    /// What the cluster decided or saw.
    Control(Control),
    /// Tickets that nobody else may get.
    Granted {
        /// Of what.
        pool: Pool,
        /// Whose they are.
        session: SessionId,
        /// They.
        tickets: Range<u64>,
    },
    /// Frames that were counted since the last time.
    Frames(Box<Group>),
    /// A batch of records that was counted now.
    Records(Box<RecordBatch>),
}

/// What a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    pub run: RunId,
    /// Names the command that started it: the same command takes it up again.
    pub command: Digest,
    /// Label given by the document, if any.
    pub label: Option<String>,
    /// The plan that is run.
    pub plan: Arc<Plan>,
    /// Digest of its canonical JSON.
    pub digest: Digest,
    /// The plan that the document gives, of which results are: that of `plan` before its setup.
    /// `None`: they are the same.
    pub given: Option<Arc<Plan>>,
    /// Pass-fail rules.
    pub rules: Vec<Rule>,
    /// Workers to wait for.
    pub expected: usize,
    /// How long to wait for them.
    pub wait: Duration,
    /// Start with those that are there when the wait is over.
    pub allow_missing: bool,
    /// The only worker lived in the master's process: nobody can come back.
    pub local: bool,
    /// One worker makes all of it.
    pub one_worker: bool,
}

/// A pass-fail rule as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its text.
    pub rule: String,
    /// It ends the test.
    pub abort: bool,
    /// From when on.
    pub after: RunTime,
}

impl From<&Threshold> for Rule {
    fn from(rule: &Threshold) -> Self {
        Self { rule: rule.rule().to_owned(), abort: rule.aborts(), after: rule.judged_from() }
    }
}

impl Rule {
    /// The rule.
    pub fn read(&self) -> Result<Threshold, Fault> {
        let rule = Threshold::parse(&self.rule)?;
        let rule = if self.abort { rule.aborting()? } else { rule };
        Ok(rule.after(self.after))
    }
}

/// What the cluster decided or saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// A master took the run up: the first, the second, …. For people who look into a journal.
    Term(u64),
    /// The start instant, certain.
    Started(Started),
    /// A session takes part.
    Joined {
        /// Which.
        session: SessionId,
        /// The name it is shown under.
        name: Arc<str>,
        /// Load cores.
        cores: u32,
        /// Proves that it is the same when it comes back.
        secret: Vec<u8>,
    },
    /// A session can open so many files at once for load.
    Ready {
        /// Which.
        session: SessionId,
        /// Open files.
        capacity: u64,
    },
    /// A session owns lanes from an instant on: all of them, not the difference.
    Assigned {
        /// Whose.
        session: SessionId,
        /// What.
        assignment: Assignment,
    },
    /// A session is to go by these parts of the limits on the rate of requests.
    Limits {
        /// Which.
        session: SessionId,
        /// What it confirms.
        number: u64,
        /// Parts of every limit.
        parts: Vec<u32>,
    },
    /// A session was lost: it started nothing after `until`.
    Lost {
        /// Which.
        session: SessionId,
        /// When that was found.
        at: RunTime,
        /// When it ended at the latest.
        until: RunTime,
        /// It fell silent: it may live, and come back.
        silent: bool,
        /// What was seen.
        how: String,
    },
    /// A session that was lost is there again.
    Returned {
        /// Which.
        session: SessionId,
        /// When.
        at: RunTime,
    },
    /// A session said goodbye.
    Left {
        /// Which.
        session: SessionId,
        /// When.
        at: RunTime,
        /// Why.
        text: String,
    },
    /// Nothing is started any more.
    Stopping {
        /// From when on.
        at: RunTime,
        /// Open requests are cut off.
        abort: bool,
    },
    /// Why the run is about to end before its plan does, if not because somebody asked for it.
    Ends(Cause),
    /// A line of the result's events.
    Event {
        /// Run time, seconds.
        at_s: f64,
        /// What.
        what: String,
        /// By whom.
        by: String,
    },
    /// The load was changed while it ran.
    Program(Intervention),
    /// The run is over and its result was taken.
    Closed,
}

impl Control {
    /// An event.
    pub fn event(event: &Event) -> Self {
        Self::Event { at_s: event.at_s, what: event.what.clone(), by: event.by.clone() }
    }

    /// What a shard that is sent promises.
    pub fn assigned(session: SessionId, shard: &Shard) -> Self {
        let assignment = Assignment {
            epoch: shard.epoch,
            from: shard.from,
            lanes: shard.lanes.clone(),
            caps: shard.max_in_flight.clone(),
            throttles: shard.throttles.iter().map(ThrottlePart::from).collect(),
        };
        Self::Assigned { session, assignment }
    }
}

/// What ends a run before its plan does, but for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A rule that aborts does not hold.
    Rule,
    /// The plan itself: a source that ends the test has no row left.
    UsedUp,
    /// A failure: what happened.
    Failed(String),
}

/// The start instant on three clocks: which of them still goes after a restart depends on what
/// ended the master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Names the machine's boot; empty if the system does not tell.
    pub boot: String,
    /// On the master's monotonic clock, which goes on over a restart of the process.
    pub mono: Mono,
    /// On the wall clock.
    pub wall: chrono::DateTime<chrono::Utc>,
}

/// What a session owns from an instant on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its number.
    pub epoch: Epoch,
    /// Run time of its first instant.
    pub from: RunTime,
    /// The lanes.
    pub lanes: LaneSet,
    /// Caps on open iterations, one entry a scenario.
    pub caps: Vec<u64>,
    /// Shares of limits on the rate of requests.
    pub throttles: Vec<ThrottlePart>,
}

/// [`ThrottleShare`], to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottlePart {
    /// Of the rate.
    pub parts: u32,
    /// Of the burst.
    pub burst: u64,
    /// Run time of its first request, ns.
    pub first: u64,
}

impl From<&ThrottleShare> for ThrottlePart {
    fn from(share: &ThrottleShare) -> Self {
        Self { parts: share.parts, burst: share.burst, first: share.first }
    }
}

impl From<&ThrottlePart> for ThrottleShare {
    fn from(part: &ThrottlePart) -> Self {
        Self { parts: part.parts, burst: part.burst, first: part.first }
    }
}
