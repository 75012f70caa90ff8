//! Two runs held against each other: what moved beyond noise.
//!
//! A metric of a name has moved if the confidence interval of its change lies wholly beyond the
//! threshold (5 % unless told otherwise). Two things are thus asked for at once: that the change is
//! large enough to matter, and that chance does not explain it. The confidence is 99 % for the whole
//! comparison: each of its tests gets its share of the 1 % (Bonferroni). Since the interval must clear
//! the threshold, not zero, equal runs are mistaken for unequal ones far less often than that.
//!
//! - *Percentiles*: of each run an interval by ranks. The share of samples at or below the true
//!   percentile differs from `q` by at most `z·σ`; the values at the ranks `q ± z·σ` enclose it, whatever
//!   the distribution (Woodruff 1952). `σ` is that of the binomial law, and more where requests of one
//!   moment went well or badly together ([`noise`]). The intervals of both runs are combined on the
//!   logarithm (MOVER, Zou and Donner 2008): a change is a ratio.
//! - *Failures*: Wilson's intervals of both shares, combined by Newcombe's rule; samples count for less
//!   where failures came in bursts.
//! - *Rate*: in the open model as it is. In the closed model a slower answer lowers the rate of
//!   everything that its users do, which is no finding of its own: there a rate is held against the one
//!   that the response times explain. By the response time law `X = N / (R + Z)`, with the pauses `Z` and
//!   the users `N` of the first run and the mean response time `R` of the second, run B would have had
//!   the rate `X`. So other users, pauses or iterations show, and consequences do not.
//!
//! Pure: no clock, no files.

pub mod evidence;
mod interval;
mod noise;
mod rate;
pub mod report;
pub mod text;

use crate::compare::evidence::{Evidence, NameEvidence};
use crate::compare::interval::{Bounds, Level};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// Differences of response times below this are not told apart: a generator on a busy machine is
/// itself so much late.
const RESOLUTION_US: f64 = 50.0;

/// What is asked of a change before it counts.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Least relative change that matters, 0.05: 5 %.
    pub threshold: f64,
    /// Confidence of the comparison as a whole, 0.99.
    pub confidence: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { threshold: 0.05, confidence: 0.99 }
    }
}

/// What is compared of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Median response time.
    P50,
    /// 95th percentile of response times.
    P95,
    /// 99th percentile of response times.
    P99,
    /// Requests per second.
    Rate,
    /// Share of failures.
    Failures,
}

impl Metric {
    /// All, in the order of tables.
    pub const ALL: [Self; 5] = [Self::P50, Self::P95, Self::P99, Self::Rate, Self::Failures];

    /// `p95`.
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Rate => "rate",
            Self::Failures => "failures",
        }
    }

    /// The percentile that it is, 0..1.
    fn quantile(self) -> Option<f64> {
        match self {
            Self::P50 => Some(0.50),
            Self::P95 => Some(0.95),
            Self::P99 => Some(0.99),
            Self::Rate | Self::Failures => None,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metric that moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// Of this name.
    pub name: String,
    /// Which.
    pub metric: Metric,
    /// In the first run: ms, requests per second, or a share 0..1.
    pub a: f64,
    /// In the second run. A rate of the closed model comes with `expected`.
    pub b: f64,
    /// Rate that the second run's response times explain (closed model).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<f64>,
    /// The change: relative for times and rates (0.2: 20 % more), the difference for shares.
    pub change: f64,
    /// Lower end of its confidence interval.
    pub low: f64,
    /// Upper end; `null`: open.
    pub high: Option<f64>,
    /// For the worse: slower, fewer, more failures.
    pub worse: bool,
}

/// What two runs' comparison says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// What moved, the worse first.
    pub moved: Vec<Moved>,
    /// Names in both.
    pub names: usize,
    /// Metrics that were compared.
    pub compared: usize,
    /// Metrics with too few samples to say anything about.
    pub too_few: usize,
    /// Names that only the first run has.
    pub only_in_a: Vec<String>,
    /// Names that only the second run has.
    pub only_in_b: Vec<String>,
    /// Rates of so many names were not compared, since nothing is known of who paced them.
    pub without_rate: usize,
}

impl Comparison {
    /// What moved for the worse.
    pub fn regressions(&self) -> impl Iterator<Item = &Moved> {
        self.moved.iter().filter(|moved| moved.worse)
    }
}

/// Compares the second run with the first.
pub fn compare(a: &Evidence, b: &Evidence, options: Options) -> Comparison {
    let names: BTreeSet<&String> = a.names.keys().chain(b.names.keys()).collect();
    let mut comparison = Comparison::default();
    let mut both = Vec::new();
    for name in names {
        match (a.names.get(name), b.names.get(name)) {
            (Some(one), Some(other)) => both.push((name, one, other)),
            (Some(_), None) => comparison.only_in_a.push(name.clone()),
            (None, _) => comparison.only_in_b.push(name.clone()),
        }
    }
    comparison.names = both.len();
    let level = Level::of(1.0 - options.confidence, both.len() * Metric::ALL.len());
    let drift = noise::drift(a, b);
    for (name, one, other) in both {
        let pair = Pair { a, b, one, other, level, threshold: options.threshold, drift: &drift };
        for metric in Metric::ALL {
            match pair.test(metric) {
                Finding::Moved(seen) => comparison.moved.push(seen.of(name, metric)),
                Finding::Same => {}
                Finding::TooFew => comparison.too_few += 1,
                Finding::Unknown => {
                    comparison.without_rate += 1;
                    continue;
                }
            }
            comparison.compared += 1;
        }
    }
    comparison.moved.sort_by(|x, y| y.worse.cmp(&x.worse).then_with(|| x.name.cmp(&y.name)));
    comparison
}

/// One name in both runs, and what is asked of a change.
struct Pair<'a> {
    a: &'a Evidence,
    b: &'a Evidence,
    one: &'a NameEvidence,
    other: &'a NameEvidence,
    level: Level,
    threshold: f64,
    drift: &'a noise::Drift,
}

/// What a test says.
enum Finding {
    Moved(Seen),
    Same,
    /// The interval is open on the side that would decide.
    TooFew,
    /// Nothing is known of who paced the name.
    Unknown,
}

/// A change that counts.
struct Seen {
    a: f64,
    b: f64,
    expected: Option<f64>,
    change: f64,
    low: f64,
    high: Option<f64>,
    worse: bool,
}

impl Seen {
    fn of(self, name: &str, metric: Metric) -> Moved {
        let Self { a, b, expected, change, low, high, worse } = self;
        Moved { name: name.to_owned(), metric, a, b, expected, change, low, high, worse }
    }
}

impl Pair<'_> {
    fn test(&self, metric: Metric) -> Finding {
        match metric.quantile() {
            Some(q) => self.percentile(q),
            None if metric == Metric::Rate => self.rate(),
            None => self.failures(),
        }
    }

    fn percentile(&self, q: f64) -> Finding {
        let [one, other] = noise::spread_of_ranks(self.one, self.other, q);
        let a = interval::of_percentile(&self.one.response, q, &one, self.level);
        let b = interval::of_percentile(&self.other.response, q, &other, self.level);
        let (Some(a), Some(b)) = (a, b) else { return Finding::TooFew };
        let (a, b) = match self.drift.of_times(self.level, self.one, self.other) {
            Some([one, other]) => (a.widened(one), b.widened(other)),
            None => (a, b),
        };
        // what the generator itself was late is no change of the target: known at the 99th percentile
        let late = if q >= 0.99 { self.a.lag_p99_ms.max(self.b.lag_p99_ms) * 1e3 } else { 0.0 };
        let floor = RESOLUTION_US.max(late);
        let change = interval::ratio(a, b);
        Self::judge(a.at / 1e3, b.at / 1e3, None, &change, |low, high| {
            let slower = low > self.threshold && low * a.at > floor;
            let faster = high < 1.0 / (1.0 + self.threshold) - 1.0 && -high * a.at > floor;
            (slower, faster)
        })
    }

    fn rate(&self) -> Finding {
        let Some(expected) = rate::expected(self.a, self.b, self.one, self.other) else { return Finding::Unknown };
        let [one, other] = noise::spread_of_counts(self.a, self.b, self.one, self.other);
        let a = interval::of_count(self.one.response.count(), &one, self.level);
        let b = interval::of_count(self.other.response.count(), &other, self.level);
        let (Some(a), Some(b)) = (a, b) else { return Finding::TooFew };
        let (had, has) = (self.one.rate(self.a), self.other.rate(self.b));
        let (a, b) = (a.scaled(expected / a.at), b.scaled(has / b.at));
        let change = interval::ratio(a, b);
        let shown = ((expected - had).abs() > 1e-9 * had).then_some(expected);
        Self::judge(had, has, shown, &change, |low, high| {
            let fewer = high < 1.0 / (1.0 + self.threshold) - 1.0;
            (fewer, low > self.threshold)
        })
    }

    fn failures(&self) -> Finding {
        let [one, other] = noise::spread_of_failures(self.one, self.other, self.drift);
        let a = interval::of_share(self.one.failed, self.one.response.count(), &one, self.level);
        let b = interval::of_share(self.other.failed, self.other.response.count(), &other, self.level);
        let change = interval::difference(a, b);
        Self::judge(a.at, b.at, None, &change, |low, high| (low > self.threshold * a.at, -high > self.threshold * a.at))
    }

    /// `rule` says of the ends of the interval whether the change is for the worse, or the better.
    fn judge(
        a: f64,
        b: f64,
        expected: Option<f64>,
        change: &Bounds,
        rule: impl FnOnce(f64, f64) -> (bool, bool),
    ) -> Finding {
        let (worse, better) = rule(change.low, change.high);
        if !worse && !better {
            let open = change.high.is_infinite() || change.low.is_infinite();
            return if open { Finding::TooFew } else { Finding::Same };
        }
        let high = change.high.is_finite().then_some(change.high);
        Finding::Moved(Seen { a, b, expected, change: change.at, low: change.low, high, worse })
    }
}

#[cfg(test)]
mod tests;
