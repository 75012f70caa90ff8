//! The two clocks that measurements use. Neither is the wall clock.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// A node's monotonic clock, in nanoseconds since an arbitrary instant of that node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mono(pub u64);

impl Mono {
    /// This instant plus `d`.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(d.as_nanos() as u64))
    }

    /// Time from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The run clock: nanoseconds since the run's start instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunTime(pub u64);

impl RunTime {
    /// Later than every instant of every run.
    pub const MAX: Self = Self(u64::MAX);

    /// From seconds; negative and absurd values are clamped.
    pub fn from_secs(seconds: f64) -> Self {
        Self((seconds.max(0.0) * SECOND as f64) as u64)
    }

    /// In seconds.
    pub fn as_secs(self) -> f64 {
        self.0 as f64 / SECOND as f64
    }

    /// The run-clock second that holds this instant.
    pub fn second(self) -> u32 {
        (self.0 / SECOND) as u32
    }
}

impl From<Duration> for RunTime {
    fn from(d: Duration) -> Self {
        Self(d.as_nanos() as u64)
    }
}

/// Seconds of `"500ms"`, `"10s"`, `"2m"`, `"1.5h"` or a plain number; `None` for anything else.
pub fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: f64 = digits.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" => number / 1_000.0,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return None,
    };
    seconds.is_finite().then_some(seconds)
}
