//! A simulator of the cluster: the production state machines under faults, in one thread and no time.
//!
//! What decides is the real thing: [`Coordinator`] and [`Registry`] of the master, [`Membership`]
//! (with its spool) of the workers, arrivals by the real [`ArrivalCursor`], lives by the real
//! [`Closed::lives`]. What acts is modelled: the network (`net`), the clocks (`clock`), the shells
//! (`master`, `worker`), the engine (`engine`), the target, which counts (`truth`). `setup` draws
//! the test and its faults from a seed, `world` turns the wheel, `truth` holds the invariants of
//! ENGINEERING.md A–D against every step.
//!
//! A run is a function of its seed. [`Sabotage`] plants a fault in the modelled shells: a simulator
//! that does not find it within some hundred seeds is no proof of anything.
//!
//! The journal is the real one, on a disk that loses what was not committed: a
//! master that is killed comes back over it. Deliberately absent: threads, sockets, SQLite, bytes (messages pass as values; their wire form
//! has a property test of its own), single requests as records.
//!
//! [`Coordinator`]: ld_master::cluster::coordinator::Coordinator
//! [`Registry`]: ld_master::cluster::membership::Registry
//! [`Membership`]: ld_worker::membership::Membership
//! [`ArrivalCursor`]: ld_shared::load::ArrivalCursor
//! [`Closed::lives`]: ld_shared::load::Closed::lives

mod clock;
mod disk;
mod engine;
mod journal;
mod master;
mod net;
mod setup;
mod tickets;
mod truth;
mod worker;
mod world;

use std::fmt;

/// A fault planted in the modelled shells on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// The engine starts whether or not its lease is over.
    SkipLease,
    /// A frame that waits is merged with one that was offered and is not acknowledged.
    MergeOffered,
    /// A block of tickets is granted twice.
    TicketTwice,
    /// A silent worker's share is given away 2.4 s after its last beat.
    GiveAwayEarly,
    /// Frames are acknowledged before they are on the disk.
    AcknowledgeEarly,
    /// Tickets are handed out before that is on the disk.
    GrantEarly,
    /// New shares of limits are used before those that shrink have shrunk.
    RaiseLimitsFirst,
}

/// What a run came to, if no invariant broke.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How the run ended, or why it did not begin.
    pub ending: String,
    /// Requests that reached the target.
    pub target: u64,
    /// Upper bound of lost requests.
    pub lost: u64,
    /// Workers that were lost.
    pub losses: usize,
    /// Frames of dead workers that their heirs delivered.
    pub inherited: u64,
    /// Things that happened.
    pub steps: u64,
    /// Faults that were injected, for people.
    pub story: Vec<String>,
}

/// An invariant that broke.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed that leads here.
    pub seed: u64,
    /// What broke.
    pub what: String,
    /// What was to be run and which faults were injected.
    pub story: Vec<String>,
    /// The last events before it.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        writeln!(f, "  last events:")?;
        self.trace.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Runs the cluster that `seed` describes to its end.
///
/// # Errors
///
/// An invariant broke. The run is repeated with a trace, which costs nothing when all is well.
pub fn simulate(seed: u64, sabotage: Sabotage) -> Result<Outcome, Box<Violation>> {
    let run = |traced| {
        let outcome = std::panic::catch_unwind(|| world::World::new(seed, sabotage, traced).run());
        outcome.unwrap_or_else(|_| {
            let what = "a panic, told above".to_owned();
            Err(Box::new(Violation { seed, what, story: world::story(seed), trace: Vec::new() }))
        })
    };
    run(false).map_err(|untraced| match run(true) {
        Err(traced) => traced,
        Ok(_) => Box::new(Violation { what: format!("not deterministic: {}", untraced.what), ..*untraced }),
    })
}
