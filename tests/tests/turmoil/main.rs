//! The real shells over a simulated network: the master's service and driver, the workers' link, gRPC between them
//! over turmoil's sockets, with a double of the engine that makes load by its lanes.
//!
//! What a seed decides: the plan, the network's latency, and the faults. The shells read the real clock, so the
//! simulation is turned at its pace, some seeds side by side. A seed is therefore no script to the millisecond: what
//! is checked are invariants, which hold whatever comes first. Strictly repeatable are the runs of `sim`, over the
//! state machines without their shells; there the master is killed too, and clocks drift.
//!
//! `LD_TURMOIL_SEED=17 cargo test -p ld-tests --test turmoil -- --nocapture one_seed` runs one.

#![expect(clippy::disallowed_methods, reason = "seeds are given by the environment")]
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod arrivals;
mod load;
mod network;
mod setup;
mod truth;
mod world;

use world::{Outcome, Violation, simulate};

/// A fault planted in the double on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// It starts arrivals whether or not there is a lease.
    NoLease,
    /// It starts some requests of which it tells nobody.
    Forget,
}

/// All at once, each on a thread of its own.
fn side_by_side(seeds: impl Iterator<Item = u64>, sabotage: Sabotage) -> Vec<Result<Outcome, Violation>> {
    let start = |seed| {
        let thread = std::thread::Builder::new().name(format!("seed-{seed}"));
        thread.spawn(move || simulate(seed, sabotage)).unwrap()
    };
    let threads: Vec<_> = seeds.map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// What the seeds of `results` came to, if no invariant broke.
fn outcomes(results: Vec<Result<Outcome, Violation>>) -> Vec<Outcome> {
    let broken: Vec<String> = results.iter().filter_map(|r| r.as_ref().err()).map(Violation::to_string).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    results.into_iter().flatten().collect()
}

#[test]
fn tens_of_seeds() {
    let outcomes = outcomes(side_by_side(0..24, Sabotage::None));
    for (seed, outcome) in outcomes.iter().enumerate() {
        eprintln!("{seed}: {outcome}");
    }
    // the faults do something: some lose a worker, others only its connection
    assert!(outcomes.iter().all(|outcome| outcome.started > 0));
    assert!(outcomes.iter().filter(|outcome| outcome.lost_workers > 0).count() >= 3);
    assert!(outcomes.iter().any(|outcome| outcome.returns > 0));
    assert!(outcomes.iter().all(|outcome| outcome.has_faults || outcome.lost_workers == 0));
}

/// Some hundreds more: `tests/run --long`.
#[test]
#[ignore = "takes minutes"]
fn hundreds_of_seeds() {
    for from in (24..312).step_by(36) {
        assert_eq!(outcomes(side_by_side(from..from + 36, Sabotage::None)).len(), 36);
    }
}

#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("LD_TURMOIL_SEED") else { return };
    match simulate(seed.parse().unwrap(), Sabotage::None) {
        Ok(outcome) => eprintln!("{outcome}"),
        Err(violation) => panic!("{violation}"),
    }
}

#[test]
fn planted_faults_are_found() {
    for (sabotage, of) in [(Sabotage::NoLease, "was started by"), (Sabotage::Forget, "were started")] {
        let violations = side_by_side(0..24, sabotage).into_iter().filter_map(Result::err);
        let found: Vec<_> = violations.filter(|v| v.what.iter().any(|what| what.contains(of))).collect();
        assert!(!found.is_empty(), "{sabotage:?} is not found");
        eprintln!("{sabotage:?}: found by {} of 24 seeds: {}", found.len(), found[0].what[0]);
    }
}
