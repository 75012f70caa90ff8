//! Pass-fail rules: `p95 < 200ms`, `failure_rate < 1% over 10s`, `p99 of service <= 1s for name:GET /a*`.
//!
//! ```text
//! METRIC [of response|service|lag] OP NUMBER[us|ms|s|%|/s] [for name:GLOB|scenario:X|type:T] [over DURATION]
//! ```
//!
//! | metric | unit | meaning |
//! |---|---|---|
//! | `p50` … `p99`, `p999`, `p9999` | us, ms (default), s | percentile; digits after the second are decimals |
//! | `mean` `max` | us, ms (default), s | of the same times |
//! | `rate` | /s | requests started in the main window per second; with `for`: requests that ended |
//! | `count` `failures` | | requests that ended; that failed |
//! | `failure_rate` | a share: `0.01` or `1%` | failures / count |
//! | `dropped` | a number, or with `%` a share of what was due | iterations that were not started; has no `for` |
//!
//! Operators: `<` `<=` `>` `>=` `==` `!=`. In a `GLOB` `*` is any text, `?` one character and `\`
//! takes what follows as it is. What `for` selects runs to ` over ` or to the end, or stands in
//! quotes.
//!
//! Without `over` a rule looks at the whole main phase, the answers of the drain among it; without
//! samples it fails (`dropped` aside: it is not about samples). With `over` every full window of
//! whole run-clock seconds inside the main window must hold, sliding by one second: samples belong
//! to the second in which they ended. A window without samples fails a rule about times or
//! `failure_rate`; the other metrics are 0 there. Windows are merges of histograms: a percentile is
//! never averaged.

mod parse;
mod selector;
mod tally;
#[cfg(test)]
mod tests;

pub use selector::Selector;
pub use tally::{Tally, Work};

use crate::fault::Fault;
use crate::latency::Latency;
use crate::snapshot::PhaseSnapshot;
use crate::time::RunTime;

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    rule: String,
    metric: Metric,
    operator: Operator,
    /// In the metric's base unit: milliseconds, a share from 0 to 1, per second, or a number.
    limit: f64,
    selector: Option<Selector>,
    /// Length of its windows, seconds.
    over: Option<u32>,
    abort: bool,
    after: RunTime,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    Time(Statistic, Basis),
    Rate,
    Count,
    Failures,
    FailureRate,
    Dropped,
    DroppedShare,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    /// 0..100.
    Percentile(f64),
    Mean,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    Response,
    Service,
    Lag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    NotEqual,
}

/// What a rule saw, and whether it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// In the metric's base unit: milliseconds, a share from 0 to 1, per second, or a number.
    /// `None` if there were no samples to tell it from.
    pub value: Option<f64>,
    /// Whether the rule holds.
    pub ok: bool,
}

/// The unit in which a metric is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// Per second.
    PerSecond,
    /// A share from 0 to 1.
    Share,
    /// A number.
    Number,
}

impl Threshold {
    /// Parses a rule.
    ///
    /// # Errors
    ///
    /// A [`Fault`] without pointer: what of the rule is not understood.
    pub fn parse(rule: &str) -> Result<Self, Fault> {
        parse::parse(rule)
    }

    /// The same rule, which ends the test as soon as it fails.
    ///
    /// # Errors
    ///
    /// A [`Fault`] without pointer if the rule asks for something to be reached: at its start every
    /// test would fail it. `over` or [`Self::after`], set before, make it a rule that can be judged.
    pub fn aborting(mut self) -> Result<Self, Fault> {
        if self.over.is_none() && self.after == RunTime(0) && !self.holds_at_the_start() {
            let message = format!("`{}` would abort every test at its start", self.rule);
            let help = "say from when on it is judged, like \"after\": \"10s\", or over which window, like `over 10s`";
            return Err(Fault::new("", message).help(help));
        }
        self.abort = true;
        Ok(self)
    }

    /// The same rule, not judged before `after` in run time: a window that ends earlier is left
    /// out.
    #[must_use]
    pub fn after(mut self, after: RunTime) -> Self {
        self.after = after;
        self
    }

    /// The rule as written.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// What it selects; `None`: everything.
    pub fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    /// Length of its windows in seconds; `None`: it looks at the whole main phase.
    pub fn over(&self) -> Option<u32> {
        self.over
    }

    /// Whether the test ends when it fails.
    pub fn aborts(&self) -> bool {
        self.abort
    }

    /// Run time before which it is not judged.
    pub fn judged_from(&self) -> RunTime {
        self.after
    }

    /// Whether it is about failures: then failed requests alone don't fail the run.
    pub fn names_failures(&self) -> bool {
        matches!(self.metric, Metric::Failures | Metric::FailureRate)
    }

    /// Whether it is about iterations that were not started.
    pub fn is_about_drops(&self) -> bool {
        matches!(self.metric, Metric::Dropped | Metric::DroppedShare)
    }

    /// The series of which service time and lag must be kept for it, apart from all others.
    pub fn detail(&self) -> Option<&Selector> {
        let apart = matches!(self.metric, Metric::Time(_, Basis::Service | Basis::Lag));
        self.selector.as_ref().filter(|_| apart)
    }

    /// The unit of what it observes.
    pub fn unit(&self) -> Unit {
        match self.metric {
            Metric::Time(..) => Unit::Millis,
            Metric::Rate => Unit::PerSecond,
            Metric::FailureRate | Metric::DroppedShare => Unit::Share,
            Metric::Count | Metric::Failures | Metric::Dropped => Unit::Number,
        }
    }

    /// What it looks at of a span: `phase` is what ended in it, `work` what was to be done.
    pub fn tally(&self, phase: &PhaseSnapshot, work: Work) -> Tally {
        let mut tally = Tally { work, ..Tally::default() };
        let selected =
            phase.series.iter().filter(|(key, _)| self.selector.as_ref().is_none_or(|selector| selector.matches(key)));
        for (_, series) in selected {
            tally.succeeded += series.succeeded.count();
            tally.failed += series.failed.count();
            match (self.metric, &self.selector) {
                (Metric::Time(_, Basis::Response), _) => {
                    tally.times.merge(&series.succeeded);
                    tally.times.merge(&series.failed);
                }
                (Metric::Time(_, Basis::Service), Some(_)) => tally.times.merge(&series.service),
                (Metric::Time(_, Basis::Lag), Some(_)) => tally.times.merge(&series.lag),
                _ => {}
            }
        }
        match (self.metric, &self.selector) {
            (Metric::Time(_, Basis::Service), None) => tally.times.merge(&phase.service),
            (Metric::Time(_, Basis::Lag), None) => tally.times.merge(&phase.lag),
            // starts are counted over all names
            (_, Some(_)) => tally.work = Work { started: tally.ended(), ..Work::default() },
            _ => {}
        }
        tally
    }

    /// Holds the rule against the whole main phase, `seconds` long: without samples it fails.
    pub fn judge_run(&self, tally: &Tally, seconds: f64) -> Observed {
        if tally.ended() == 0 && !self.is_about_drops() {
            return Observed { value: None, ok: false };
        }
        self.judge(tally, seconds)
    }

    /// Holds the rule against a span of `seconds`: without samples it fails if it needs some.
    pub fn judge(&self, tally: &Tally, seconds: f64) -> Observed {
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let value = match self.metric {
            Metric::Time(statistic, _) => (tally.times.count() > 0).then(|| statistic.of(&tally.times)),
            Metric::FailureRate => (tally.ended() > 0).then(|| share(tally.failed, tally.ended())),
            Metric::Rate if seconds > 0.0 => Some(tally.work.started as f64 / seconds),
            Metric::Rate => Some(0.0),
            Metric::Count => Some(tally.ended() as f64),
            Metric::Failures => Some(tally.failed as f64),
            Metric::Dropped => Some(tally.work.dropped as f64),
            Metric::DroppedShare => Some(share(tally.work.dropped, tally.work.due)),
        };
        Observed { value, ok: value.is_some_and(|value| self.operator.holds(value, self.limit)) }
    }

    /// Whether `a` is further on the wrong side than `b`; nothing is worse than no samples.
    pub fn is_worse(&self, a: Observed, b: Observed) -> bool {
        let (Some(x), Some(y)) = (a.value, b.value) else { return a.value.is_none() && b.value.is_some() };
        let distance = |value: f64| (value - self.limit).abs();
        match self.operator {
            Operator::Less | Operator::AtMost => x > y,
            Operator::Greater | Operator::AtLeast => x < y,
            Operator::Equal => distance(x) > distance(y),
            Operator::NotEqual => distance(x) < distance(y),
        }
    }

    /// Whether a test that has just begun holds it, so that failing it early says something.
    fn holds_at_the_start(&self) -> bool {
        match self.operator {
            Operator::Less | Operator::AtMost => true,
            // nothing has failed yet, and what has failed stays so
            Operator::Equal => self.limit == 0.0 && !matches!(self.metric, Metric::Time(..)),
            Operator::Greater | Operator::AtLeast | Operator::NotEqual => false,
        }
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.rule)
    }
}

impl Statistic {
    /// In milliseconds.
    fn of(self, times: &Latency) -> f64 {
        match self {
            Self::Percentile(p) => times.percentile(p) as f64 / 1_000.0,
            Self::Mean => times.mean() / 1_000.0,
            Self::Max => times.max() as f64 / 1_000.0,
        }
    }
}

impl Operator {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Less => value < limit,
            Self::AtMost => value <= limit,
            Self::Greater => value > limit,
            Self::AtLeast => value >= limit,
            Self::Equal => value.total_cmp(&limit).is_eq(),
            Self::NotEqual => value.total_cmp(&limit).is_ne(),
        }
    }
}
