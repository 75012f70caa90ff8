//! What the generator knows of itself: CPU time of a thread, throttling of its cgroup.

use std::path::PathBuf;

/// CPU time of the calling thread, ns; 0 where the system can't tell.
#[cfg(unix)]
pub(crate) fn thread_cpu() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as u64 * ld_shared::time::SECOND + t.tv_nsec as u64
}

/// CPU time of the calling thread, ns; 0 where the system can't tell.
#[cfg(not(unix))]
pub(crate) fn thread_cpu() -> u64 {
    0
}

/// Lets load cores go first: the calling thread's work can wait a little, theirs can't.
#[cfg(target_os = "linux")]
pub(crate) fn yield_to_load() {
    // on Linux this is a thread's own value; where it is refused the thread just stays as it is
    rustix::process::setpriority_process(None, 10).ok();
}

/// Lets load cores go first, where the system has priorities of threads.
#[cfg(not(target_os = "linux"))]
pub(crate) fn yield_to_load() {}

/// Reads for how long the process's cgroup was kept from running.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// `cpu.stat` files of the group and its ancestors: a quota may stand on any of them.
    files: Vec<PathBuf>,
    before: u64,
}

impl Throttle {
    /// Finds the cgroup of this process (version 2, else the `cpu` controller of version 1).
    pub(crate) fn find() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut this = Self { files: stat_files(&own, &mounts), before: 0 };
        this.before = this.total_ns();
        this
    }

    fn total_ns(&self) -> u64 {
        let read = |file: &PathBuf| throttled_ns(&std::fs::read_to_string(file).unwrap_or_default());
        self.files.iter().map(read).max().unwrap_or(0)
    }

    /// Milliseconds throttled since the last call.
    pub(crate) fn take_ms(&mut self) -> u64 {
        let now = self.total_ns();
        let ms = now.saturating_sub(self.before) / 1_000_000;
        self.before += ms * 1_000_000;
        ms
    }
}

/// Candidate `cpu.stat` files from `/proc/self/cgroup` and `/proc/self/mounts`.
fn stat_files(own: &str, mounts: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let mount = mounts.lines().find_map(|mount| {
            let fields: Vec<&str> = mount.split(' ').collect();
            let (at, kind, options) = (*fields.get(1)?, *fields.get(2)?, *fields.get(3)?);
            let fits = if controllers.is_empty() {
                kind == "cgroup2"
            } else {
                kind == "cgroup" && controllers.split(',').any(|c| c == "cpu") && options.split(',').any(|o| o == "cpu")
            };
            fits.then_some(at)
        });
        let Some(mount) = mount else { continue };
        let mut group = PathBuf::from(path.trim_start_matches('/'));
        loop {
            let file = PathBuf::from(mount).join(&group).join("cpu.stat");
            if file.exists() {
                files.push(file);
            }
            if !group.pop() {
                break;
            }
        }
    }
    files
}

/// `throttled_usec` (version 2) or `throttled_time` in ns (version 1) of a `cpu.stat`.
fn throttled_ns(stat: &str) -> u64 {
    let value =
        |key: &str| stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok());
    value("throttled_usec").map(|us| us * 1000).or_else(|| value("throttled_time")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cgroup_versions_are_read() {
        assert_eq!(throttled_ns("usage_usec 5\nnr_throttled 2\nthrottled_usec 1500\n"), 1_500_000);
        assert_eq!(throttled_ns("nr_periods 1\nnr_throttled 2\nthrottled_time 77\n"), 77);
        assert_eq!(throttled_ns("usage_usec 5\n"), 0);
    }

    #[test]
    fn thread_time_moves_forward() {
        let before = thread_cpu();
        let mut sum = 0_u64;
        for i in 0..2_000_000_u64 {
            sum = sum.wrapping_add(std::hint::black_box(i));
        }
        std::hint::black_box(sum);
        assert!(thread_cpu() > before || cfg!(not(unix)));
    }
}
