//! The cluster's state machines under every fault that a seed can think of.
//!
//! `LD_SIM_SEED=17 cargo test -p ld-tests --test sim -- --nocapture one_seed` tells the story of one.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use ld_tests::sim::{Sabotage, simulate};
use std::io::Write as _;

fn seeds(range: std::ops::Range<u64>) {
    for seed in range {
        if let Err(violation) = simulate(seed, Sabotage::None) {
            panic!("{violation}");
        }
    }
}

#[test]
fn hundreds_of_seeds() {
    seeds(0..300);
}

/// Some thousands more: `tests/run --long`.
#[test]
#[ignore = "takes minutes"]
fn thousands_of_seeds() {
    seeds(300..5_000);
}

#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("LD_SIM_SEED") else { return };
    let outcome = simulate(seed.parse().unwrap(), Sabotage::None);
    let text = outcome.map_or_else(|violation| violation.to_string(), |outcome| format!("{outcome:#?}"));
    writeln!(std::io::stderr(), "{text}").unwrap();
}

#[test]
fn planted_faults_are_found() {
    let planted = [
        Sabotage::SkipLease,
        Sabotage::MergeOffered,
        Sabotage::TicketTwice,
        Sabotage::GiveAwayEarly,
        Sabotage::RaiseLimitsFirst,
    ];
    for sabotage in planted {
        let found = (0..200).find_map(|seed| simulate(seed, sabotage).err());
        let found = found.unwrap_or_else(|| panic!("{sabotage:?} is not found within 200 seeds"));
        writeln!(std::io::stderr(), "{sabotage:?}: seed {}: {}", found.seed, found.what).unwrap();
    }
}
