//! Whether a failed request is tried again, and when.

use super::{Failed, Task, User};
use ld_shared::plan::RetryPlan;
use ld_shared::sample::FailureKind;
use std::time::Duration;

/// Statuses of a target that is busy or away for a moment.
const TRANSIENT: [u16; 6] = [408, 425, 429, 502, 503, 504];

impl Failed {
    /// How many retries such a failure may have.
    fn retries(&self, plan: &RetryPlan) -> u32 {
        if let Some(status) = self.status {
            if TRANSIENT.contains(&status) {
                return plan.transient;
            }
            if status >= 500 {
                return plan.flaky;
            }
        }
        match self.kind {
            FailureKind::Dns
            | FailureKind::Connect
            | FailureKind::Tls
            | FailureKind::Closed
            | FailureKind::Timeout
            | FailureKind::Protocol => plan.transient,
            FailureKind::Assertion => plan.flaky,
            FailureKind::Status | FailureKind::Request => plan.permanent,
        }
    }
}

impl User {
    /// The pause before the next try of a request that has been tried again so often; `None`: it
    /// went well, or that was its last try.
    pub(super) fn retry_after(&mut self, task: &Task, retries: u32) -> Option<Duration> {
        let plan = task.retry.as_ref()?;
        let allowed = self.failed.as_ref()?.retries(plan);
        (retries < allowed).then(|| pause(plan, retries, self.rng.between(-1.0, 1.0)))
    }
}

/// The pause before retry `n` (from 0); `swing` in −1..1 is how much of the jitter it has.
fn pause(plan: &RetryPlan, n: u32, swing: f64) -> Duration {
    // of an exponent beyond any sense only the bound matters
    let grown = plan.base_delay * plan.backoff_factor.powi(n.min(1_000).cast_signed());
    Duration::from_secs_f64(grown.min(plan.max_delay) * (1.0 + plan.jitter * swing).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: RetryPlan = RetryPlan {
        transient: 5,
        flaky: 2,
        permanent: 1,
        base_delay: 0.1,
        max_delay: 5.0,
        backoff_factor: 2.0,
        jitter: 0.25,
    };

    #[test]
    fn each_kind_of_failure_has_its_number_of_retries() {
        let table = [
            (FailureKind::Connect, None, 5),
            (FailureKind::Timeout, None, 5),
            (FailureKind::Status, Some(503), 5),
            (FailureKind::Status, Some(429), 5),
            (FailureKind::Assertion, Some(503), 5),
            (FailureKind::Status, Some(500), 2),
            (FailureKind::Assertion, Some(200), 2),
            (FailureKind::Assertion, Some(404), 2),
            (FailureKind::Status, Some(404), 1),
            (FailureKind::Request, None, 1),
        ];
        for (kind, status, retries) in table {
            let failed = Failed { kind, status, reason: "r".into() };
            assert_eq!(failed.retries(&PLAN), retries, "{kind:?} {status:?}");
        }
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        let seconds = |n, swing| pause(&PLAN, n, swing).as_secs_f64();
        let millis = |n, swing: f64| (seconds(n, swing) * 1_000.0).round() as u64;
        assert_eq!([0, 1, 2, 3].map(|n| millis(n, 0.0)), [100, 200, 400, 800]);
        assert_eq!((millis(90, 0.0), millis(u32::MAX, 1.0), millis(90, -1.0)), (5_000, 6_250, 3_750));
    }
}
