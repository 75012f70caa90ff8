//! `retry`: how often a request is tried again, and how long users pause before.

use crate::script::Fault;
use crate::script::reader::Reader;
use ld_shared::plan::RetryPlan;

/// What a document that names only some keys leaves to us: the seed's values.
const DEFAULT: RetryPlan = RetryPlan {
    transient: 5,
    flaky: 2,
    permanent: 0,
    base_delay: 0.1,
    max_delay: 5.0,
    backoff_factor: 2.0,
    jitter: 0.25,
};
/// More retries of one request are a slip.
const MOST: u64 = 1_000;

/// Reads `retry` of a task, a scenario or a test.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<RetryPlan> {
    let mut retry = reader.object("retry")?;
    let keys = ["transient", "flaky", "permanent", "base_delay", "max_delay", "backoff_factor", "jitter"];
    retry.only(&keys, &[]);
    let transient = times(&mut retry, "transient", DEFAULT.transient);
    let flaky = times(&mut retry, "flaky", DEFAULT.flaky);
    let permanent = times(&mut retry, "permanent", DEFAULT.permanent);
    let base_delay = retry.duration("base_delay", true, "").unwrap_or(DEFAULT.base_delay);
    let max_delay = retry.duration("max_delay", true, "").unwrap_or(DEFAULT.max_delay.max(base_delay));
    if max_delay < base_delay {
        let fault = Fault::new(retry.at("max_delay"), "`max_delay` is shorter than `base_delay`");
        retry.fault(fault.help("the pause grows from `base_delay` up to `max_delay`"));
    }
    let backoff_factor = retry.positive("backoff_factor", "1 keeps the pause, 2 doubles it each time");
    let jitter = retry.amount("jitter", "the share of the pause by which it varies, 0 to 1");
    if jitter.is_some_and(|jitter| jitter > 1.0) {
        retry.refuse("jitter", "a number from 0 to 1", "0.25 varies the pause by a quarter");
    }
    Some(RetryPlan {
        transient,
        flaky,
        permanent,
        base_delay,
        max_delay,
        backoff_factor: backoff_factor.unwrap_or(DEFAULT.backoff_factor),
        jitter: jitter.unwrap_or(DEFAULT.jitter),
    })
}

fn times(retry: &mut Reader<'_>, key: &str, default: u32) -> u32 {
    let Some(times) = retry.whole(key, 0, "so many retries of one request") else { return default };
    if times > MOST {
        retry.refuse(key, "a whole number, 1000 or less", "so many retries of one request");
    }
    times.min(MOST) as u32
}
