//! How far a run scatters within itself.
//!
//! Requests of one moment share their fate: a pause of the target slows all that are open. So 1,000
//! requests say less than 1,000 independent ones, and a run's percentiles differ from those of the
//! next by more than the binomial law has it. How much more is seen in the run itself: each span
//! ([`crate::run::blocks`]) deviates from the run's level, and the sum of the squared deviations
//! estimates the variance of that level (batch means). Spans are also taken two and four at a time if
//! there are enough,
//! since noise may last longer than a span; the greatest estimate counts.
//!
//! What both runs have at the same run time, like a ramp, is no noise: where the deviations of both
//! match, only their difference counts.

use super::evidence::{Evidence, NameEvidence};
use super::interval::Level;
use std::collections::BTreeMap;

/// Fewest batches from which a variance is estimated.
const FEWEST: usize = 12;
/// Deviations of both runs are held against each other if that explains at least half of them:
/// less happens by chance.
const MATCHING: f64 = 0.5;

/// Variance of an estimate, as seen in the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// The variance.
    pub variance: f64,
    /// Degrees of freedom of the estimate.
    pub degrees: usize,
}

impl Spread {
    /// Nothing is known beyond the law of chance.
    pub(super) const NONE: Self = Self { variance: 0.0, degrees: 1 };
}

/// By how much each span moved the estimate of its run. They add up to about 0.
type Deviations = BTreeMap<u32, f64>;

/// Spreads of both runs from deviations by the number of the span.
fn spreads(a: &Deviations, b: &Deviations) -> [Spread; 2] {
    let mut best = [Spread::NONE; 2];
    for width in [1, 2, 4] {
        let (one, other) = (batches(a, width), batches(b, width));
        let (m, n) = (length(&one), length(&other));
        if width > 1 && m.min(n) < FEWEST {
            break;
        }
        let (va, vb) = (sum_of_squares(one.values().copied(), m), sum_of_squares(other.values().copied(), n));
        let keys = one.keys().chain(other.keys()).copied().collect::<std::collections::BTreeSet<_>>();
        let at = |of: &Deviations, key| of.get(key).copied().unwrap_or(0.0);
        let apart = sum_of_squares(keys.iter().map(|key| at(&other, key) - at(&one, key)), m.max(n));
        let share = if va + vb > 0.0 { apart / (va + vb) } else { 1.0 };
        let share = if share < MATCHING { share } else { 1.0 };
        for (best, (variance, batches)) in best.iter_mut().zip([(va * share, m), (vb * share, n)]) {
            if variance > best.variance {
                *best = Spread { variance, degrees: batches.saturating_sub(1) };
            }
        }
    }
    best
}

fn batches(spans: &Deviations, width: u32) -> Deviations {
    let mut wide = Deviations::new();
    for (span, deviation) in spans {
        *wide.entry(span / width).or_default() += deviation;
    }
    wide
}

/// Batches from the first to the last, quiet ones among them.
fn length(batches: &Deviations) -> usize {
    match (batches.keys().next(), batches.keys().next_back()) {
        (Some(first), Some(last)) => (last - first + 1) as usize,
        _ => 0,
    }
}

fn sum_of_squares(deviations: impl Iterator<Item = f64>, batches: usize) -> f64 {
    if batches < 2 {
        return 0.0;
    }
    let n = batches as f64;
    deviations.map(|d| d * d).sum::<f64>() * n / (n - 1.0)
}

/// Both names' spans at one scale.
fn aligned(one: &NameEvidence, other: &NameEvidence) -> Option<[crate::run::blocks::NameBlocks; 2]> {
    let (a, b) = (one.blocks.as_ref()?, other.blocks.as_ref()?);
    let scale = a.scale.max(b.scale);
    Some([a.clone().coarsened(scale), b.clone().coarsened(scale)])
}

/// Of the share of samples at or below the percentile `q` of their run.
pub(super) fn spread_of_ranks(one: &NameEvidence, other: &NameEvidence, q: f64) -> [Spread; 2] {
    let Some(blocks) = aligned(one, other) else { return [Spread::NONE; 2] };
    let [a, b] = [(one, &blocks[0]), (other, &blocks[1])].map(|(name, blocks)| {
        let value = name.response.percentile(q * 100.0);
        let below = |response: &ld_shared::latency::Latency| response.count_at_or_below(value) as f64;
        let all = blocks.blocks.iter().map(|block| block.response.count()).sum::<u64>().max(1) as f64;
        let share = blocks.blocks.iter().map(|block| below(&block.response)).sum::<f64>() / all;
        let deviation = |response| (below(response) - share * response.count() as f64) / all;
        blocks.blocks.iter().map(|block| (block.from / blocks.scale, deviation(&block.response))).collect()
    });
    spreads(&a, &b)
}

/// Of the number of samples, relative to it.
pub(super) fn spread_of_counts(a: &Evidence, b: &Evidence, one: &NameEvidence, other: &NameEvidence) -> [Spread; 2] {
    let Some(blocks) = aligned(one, other) else { return [Spread::NONE; 2] };
    let [a, b] = [(a, &blocks[0]), (b, &blocks[1])].map(|(run, blocks)| {
        let mut spans: BTreeMap<u32, f64> =
            blocks.blocks.iter().map(|block| (block.from / blocks.scale, block.response.count() as f64)).collect();
        let all = spans.values().sum::<f64>().max(1.0);
        for (span, share) in run.shares_of_window(blocks.scale) {
            *spans.entry(span).or_default() -= all * share;
        }
        for deviation in spans.values_mut() {
            *deviation /= all;
        }
        spans
    });
    spreads(&a, &b)
}

/// Of the share of failures.
pub(super) fn spread_of_failures(one: &NameEvidence, other: &NameEvidence, drift: &Drift) -> [Spread; 2] {
    let Some(blocks) = aligned(one, other) else { return drift.of_failures(one, other) };
    let [a, b] = [&blocks[0], &blocks[1]].map(|blocks| {
        let counts = blocks.blocks.iter().map(|b| (b.from / blocks.scale, b.response.count() as f64, b.failed as f64));
        deviations_of_shares(&counts.collect::<Vec<_>>())
    });
    spreads(&a, &b)
}

/// Deviations of a share from (span, whole, part).
fn deviations_of_shares(counts: &[(u32, f64, f64)]) -> Deviations {
    let all = counts.iter().map(|(_, whole, _)| whole).sum::<f64>().max(1.0);
    let share = counts.iter().map(|(.., part)| part).sum::<f64>() / all;
    counts.iter().map(|(span, whole, part)| (*span, (part - share * whole) / all)).collect()
}

/// How far both runs scatter as wholes: all that is known of runs whose names come without spans
/// (`--summary` files).
#[derive(Clone, Debug)]
pub(super) struct Drift {
    /// Of the logarithm of the mean response time.
    times: [Spread; 2],
    /// Of the share of failures, and that share's variance by the binomial law.
    failures: [(Spread, f64); 2],
}

/// From the timelines of two runs.
pub(super) fn drift(a: &Evidence, b: &Evidence) -> Drift {
    let [ta, tb] = [a, b].map(|run| {
        let all = run.timeline.iter().map(|second| second.ended).sum::<f64>().max(1.0);
        let sum = run.timeline.iter().map(|second| second.ended * second.mean_ms).sum::<f64>();
        let mean = (sum / all).max(1e-6);
        run.timeline.iter().map(|s| (s.second, s.ended * (s.mean_ms / mean - 1.0) / all)).collect::<Deviations>()
    });
    let counts = [a, b].map(|run| run.timeline.iter().map(|s| (s.second, s.ended, s.failed)).collect::<Vec<_>>());
    let laws = [0, 1].map(|run: usize| {
        let all = counts[run].iter().map(|(_, whole, _)| whole).sum::<f64>().max(1.0);
        let share = counts[run].iter().map(|(.., part)| part).sum::<f64>() / all;
        share * (1.0 - share) / all
    });
    let [fa, fb] = spreads(&deviations_of_shares(&counts[0]), &deviations_of_shares(&counts[1]));
    Drift { times: spreads(&ta, &tb), failures: [(fa, laws[0]), (fb, laws[1])] }
}

impl Drift {
    /// Further errors of the logarithms of a name's times; `None` if its own spans tell them.
    pub(super) fn of_times(&self, level: Level, one: &NameEvidence, other: &NameEvidence) -> Option<[f64; 2]> {
        let own = one.blocks.is_some() && other.blocks.is_some();
        (!own).then(|| self.times.map(|spread| level.width(&spread)))
    }

    /// A name's failures come in bursts as those of all names do.
    fn of_failures(&self, one: &NameEvidence, other: &NameEvidence) -> [Spread; 2] {
        let of = |(spread, law): (Spread, f64), name: &NameEvidence| {
            let count = name.response.count().max(1) as f64;
            let share = name.failed as f64 / count;
            let inflation = if law > 0.0 { spread.variance / law } else { 1.0 };
            Spread { variance: share * (1.0 - share) / count * inflation, degrees: spread.degrees }
        };
        [of(self.failures[0], one), of(self.failures[1], other)]
    }
}
