//! Waiting for an instant, to microseconds: arrivals of the open model are timed with it.
//!
//! A runtime's timer wheel has a grain of 1 ms (p99 of 1.9 ms measured at 5,000/s); an absolute
//! `timerfd` wakes within tens of microseconds.

use ld_shared::boot::clock::mono;
use std::io;
use std::time::Duration;

/// Waits until instants of this node's monotonic clock.
pub(crate) struct Pacer {
    #[cfg(target_os = "linux")]
    timer: tokio::io::unix::AsyncFd<rustix::fd::OwnedFd>,
}

impl Pacer {
    /// A pacer on the current runtime.
    #[cfg(target_os = "linux")]
    #[expect(deprecated, reason = "its replacement is unsafe; an `OwnedFd` lives as long as the registration")]
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let timer = tokio::io::unix::AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)?;
        Ok(Self { timer })
    }

    /// A pacer on the current runtime.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unnecessary_wraps, reason = "the Linux form can fail")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits until `at`, ns of this node's clock.
    #[cfg(target_os = "linux")]
    pub(crate) async fn until(&self, at: u64) {
        use ld_shared::time::SECOND;
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: (at / SECOND).cast_signed(), tv_nsec: (at % SECOND).cast_signed() };
        // armed anew each time and never read: setting it makes the next expiry a new edge
        let armed = timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec { it_interval: zero, it_value: value },
        );
        while mono().0 < at {
            if armed.is_err() {
                tokio::time::sleep(Duration::from_nanos(at.saturating_sub(mono().0))).await;
                continue;
            }
            match self.timer.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Waits until `at`, ns of this node's clock.
    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn until(&self, at: u64) {
        tokio::time::sleep(Duration::from_nanos(at.saturating_sub(mono().0))).await;
    }
}
