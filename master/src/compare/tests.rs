//! Equal runs give nothing, moved ones give what moved: over many seeds, with noise that lasts.

use super::evidence::{Evidence, NameEvidence, Scenario};
use super::{Metric, Options, compare};
use crate::run::blocks::{Block, NameBlocks};
use ld_shared::latency::Latency;
use ld_shared::rng::KeyedRng;

const SECONDS: u32 = 30;
const NAMES: [(&str, f64); 4] = [("home", 9.0), ("search", 38.0), ("cart", 21.0), ("checkout", 64.0)];

/// How a made-up target behaves.
#[derive(Clone, Copy, Debug)]
struct Law {
    /// Factor of the times of `cart`.
    cart: f64,
    /// Share of failures of `cart`.
    failures: f64,
    /// Noise that all requests of a second share, as a standard deviation of the logarithm.
    shared: f64,
    /// How much of it lasts into the next second.
    lasting: f64,
    /// Growth over the run, as from a ramp.
    ramp: f64,
    /// Users.
    users: f64,
    open: bool,
}

const CALM: Law = Law { cart: 1.0, failures: 0.01, shared: 0.02, lasting: 0.5, ramp: 0.0, users: 20.0, open: false };

fn normal(rng: &mut KeyedRng) -> f64 {
    (-2.0 * (1.0 - rng.next_f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.next_f64()).cos()
}

fn run(seed: u64, law: Law) -> Evidence {
    let mut rng = KeyedRng::new(seed, 1, 2);
    let mut evidence = Evidence {
        seconds: f64::from(SECONDS),
        windows: vec![(0.0, f64::from(SECONDS))],
        scenarios: vec![Scenario { name: "s".into(), open: law.open, users: law.users }],
        lag_p99_ms: 0.3,
        ..Evidence::default()
    };
    let blocks: Vec<Vec<Block>> = vec![Vec::new(); NAMES.len()];
    let mut all: Vec<(Vec<Block>, Latency, u64)> = blocks.into_iter().map(|b| (b, Latency::default(), 0)).collect();
    // a user goes through all names in turn: slower answers, fewer iterations
    let iteration: f64 =
        NAMES.iter().map(|(name, ms)| ms * if *name == "cart" { law.cart } else { 1.0 }).sum::<f64>() * 1.13 + 100.0;
    let mut noise = 0.0;
    for second in 0..SECONDS {
        noise = noise * law.lasting + normal(&mut rng) * law.shared;
        let level = (noise + law.ramp * f64::from(second) / f64::from(SECONDS)).exp();
        let rate = if law.open { 100.0 } else { law.users * 1e3 / iteration / level.sqrt() };
        for (i, (name, ms)) in NAMES.iter().enumerate() {
            let mut block = Block { from: second, ..Block::default() };
            for _ in 0..(rate + rng.next_f64()) as u64 {
                let factor = if *name == "cart" { law.cart } else { 1.0 };
                let micros = (ms * 1e3 * factor * level * (0.5 * normal(&mut rng)).exp()) as u64;
                block.response.record(micros);
                block.failed += u64::from(*name == "cart" && rng.next_f64() < law.failures);
            }
            let (blocks, response, failed) = &mut all[i];
            response.merge(&block.response);
            *failed += block.failed;
            blocks.push(block);
        }
    }
    for ((name, _), (blocks, response, failed)) in NAMES.iter().zip(all) {
        let blocks = Some(NameBlocks { scale: 1, blocks });
        evidence.names.insert((*name).into(), NameEvidence { response, failed, scenario: Some("s".into()), blocks });
    }
    evidence
}

/// What moved, over pairs of runs: all of it, in words.
fn moved(pairs: u64, a: Law, b: Law) -> Vec<Vec<String>> {
    let pair = |seed| {
        let comparison = compare(&run(seed * 2, a), &run(seed * 2 + 1, b), Options::default());
        assert_eq!(comparison.compared, 20);
        let words = |m: &super::Moved| format!("{} {}{}", m.name, m.metric, if m.worse { "" } else { " better" });
        comparison.moved.iter().map(words).collect()
    };
    (0..pairs).map(pair).collect()
}

#[test]
fn equal_runs_give_nothing() {
    let noisy = Law { shared: 0.08, lasting: 0.6, ..CALM };
    for (law, allowed) in [(CALM, 0), (Law { open: true, ..CALM }, 0), (Law { ramp: 1.0, ..CALM }, 0), (noisy, 1)] {
        let alarms: Vec<_> = moved(15, law, law).into_iter().filter(|m| !m.is_empty()).collect();
        assert!(alarms.len() <= allowed, "{alarms:?}");
    }
}

#[test]
fn a_slower_name_is_named_and_nothing_else() {
    // where the level itself wanders by 5 % from second to second, half a minute often says too little
    let wandering = (Law { shared: 0.05, ..CALM }, 3);
    for (law, least) in [(CALM, 5), (Law { open: true, ..CALM }, 5), (Law { ramp: 1.0, ..CALM }, 5), wandering] {
        let all = moved(6, law, Law { cart: 1.2, ..law });
        for found in &all {
            assert!(found.iter().all(|f| f.starts_with("cart p") && !f.ends_with("better")), "{found:?}");
        }
        let named = all.iter().filter(|found| found.iter().any(|f| f == "cart p50")).count();
        assert!(named >= least, "{law:?}: {all:?}");
    }
}

#[test]
fn a_faster_name_is_better() {
    for found in moved(4, Law { cart: 1.25, ..CALM }, CALM) {
        assert!(
            !found.is_empty() && found.iter().all(|f| f.starts_with("cart p") && f.ends_with("better")),
            "{found:?}"
        );
    }
}

#[test]
fn more_failures_are_found_and_a_few_are_not() {
    for found in moved(4, CALM, Law { failures: 0.08, ..CALM }) {
        assert_eq!(found, ["cart failures"]);
    }
    for found in moved(4, CALM, Law { failures: 0.013, ..CALM }) {
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn half_the_users_are_half_the_rate() {
    for found in moved(2, CALM, Law { users: 10.0, ..CALM }) {
        assert_eq!(found, ["cart rate", "checkout rate", "home rate", "search rate"]);
    }
}

#[test]
fn names_of_one_run_only_are_told() {
    let (mut a, mut b) = (run(1, CALM), run(2, CALM));
    a.names.remove("home");
    b.names.remove("cart");
    let comparison = compare(&a, &b, Options::default());
    assert_eq!((comparison.only_in_a, comparison.only_in_b), (vec!["cart".to_owned()], vec!["home".to_owned()]));
    assert_eq!(comparison.names, 2);
}

#[test]
fn few_samples_decide_nothing() {
    let (mut a, mut b) = (run(1, CALM), run(2, CALM));
    for run in [&mut a, &mut b] {
        for name in run.names.values_mut() {
            name.blocks = None;
            name.response = Latency::default();
            (1..30).for_each(|v| name.response.record(v * 1_000));
        }
    }
    let comparison = compare(&a, &b, Options::default());
    assert!(comparison.moved.is_empty() && comparison.too_few >= 8, "{comparison:?}");
    let nothing = compare(&Evidence::default(), &Evidence::default(), Options::default());
    assert_eq!((nothing.names, nothing.compared), (0, 0));
}

#[test]
fn the_text_fits_80_columns() {
    let (a, b) = (run(1, CALM), run(2, Law { cart: 1.4, failures: 0.2, ..CALM }));
    let comparison = compare(&a, &b, Options::default());
    let text = super::text::render(&comparison, Options::default(), 80);
    assert!(text.lines().take_while(|line| !line.is_empty()).all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!("compare", text);
    assert_eq!(comparison.regressions().filter(|m| m.metric == Metric::Failures).count(), 1);
}
