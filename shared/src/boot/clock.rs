//! The process's clocks. Everything else takes time as a value.

use crate::time::Mono;

/// Now, on this node's monotonic clock. About 20 ns.
#[cfg(unix)]
pub fn mono() -> Mono {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Mono(t.tv_sec as u64 * crate::time::SECOND + t.tv_nsec as u64)
}

/// Now, on this node's monotonic clock.
#[cfg(not(unix))]
pub fn mono() -> Mono {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    Mono(START.get_or_init(Instant::now).elapsed().as_nanos() as u64)
}

/// Wall-clock time, for `started_at` and display only.
pub fn wall() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}
