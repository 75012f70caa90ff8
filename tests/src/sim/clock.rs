//! Clocks of nodes: each has its own zero and its own rate.

use ld_shared::time::{Mono, SECOND};

/// A node's monotonic clock, as a function of true time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: u64,
    /// How much faster than true, parts in 10⁹.
    fast: i64,
}

impl Clock {
    pub(crate) fn new(base: u64, fast: i64) -> Self {
        Self { base, fast }
    }

    /// What it shows at a true instant.
    pub(crate) fn mono(self, at: u64) -> Mono {
        let drift = i128::from(at) * i128::from(self.fast) / i128::from(SECOND);
        Mono(self.base + (i128::from(at) + drift) as u64)
    }

    /// The first true instant at which it shows `mono`; `None` if that is practically never.
    pub(crate) fn when(self, mono: Mono) -> Option<u64> {
        let since = i128::from(mono.0.saturating_sub(self.base));
        if mono.0 > u64::MAX / 2 {
            return None;
        }
        let second = i128::from(SECOND);
        let mut at = (since * second / (second + i128::from(self.fast))) as u64;
        while self.mono(at) < mono {
            at += 1;
        }
        Some(at)
    }
}
