//! Waiting for what happens outside of this process, with a deadline and a name.

use ld_master::target::Target;
use ld_shared::boot::clock;
use std::time::Duration;

/// Longest wait for anything that is not a run: generous, since CI shares its cores.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Polls `probe` every 20 ms until it gives a value. Panics after `limit`, naming `what`.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = clock::mono().after(limit);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(clock::mono() < end, "waited {limit:?} for {what}");
        pause(Duration::from_millis(20));
    }
}

/// Lets time pass for a process under test: between polls, and until the middle of a run where a
/// fault is to strike.
#[expect(clippy::disallowed_methods, reason = "other processes run in real time; nothing here can be awaited")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until the target has seen so many requests.
pub fn under_load(target: &Target, arrivals: u64) {
    wait_for("load", PATIENCE, || (target.counts().total >= arrivals).then_some(()));
}
