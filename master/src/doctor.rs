//! What this machine can do as a load generator: limits, noise, and what to do about them.

use ld_shared::boot::clock;
use ld_shared::latency::Latency;
use std::fs;
use std::time::Duration;

/// Limits and noise of this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Most open files: soft limit, hard limit; `None` is without limit or unknown.
    pub files: [Option<u64>; 2],
    /// First and last port of outgoing connections.
    pub ports: Option<(u32, u32)>,
    /// Cores that the process may use.
    pub cores: usize,
    /// CPU quota of the control group, in cores.
    pub quota: Option<f64>,
    /// Grain of the monotonic clock, ns.
    pub clock_grain_ns: u64,
    /// Cost of one reading of it, ns.
    pub clock_cost_ns: f64,
    /// How late a timer of 5 ms fires.
    pub timer_lateness: Latency,
}

/// Readings by which the cost of a clock is found.
const READINGS: u32 = 200_000;
/// Timers by which the noise is found: half a second of them.
const TIMERS: u32 = 100;

impl Machine {
    /// Looks at this machine. Takes about half a second.
    pub async fn look() -> Self {
        let ports = read("/proc/sys/net/ipv4/ip_local_port_range");
        Self {
            files: files(),
            ports: ports.as_deref().and_then(range),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            quota: read("/sys/fs/cgroup/cpu.max").as_deref().and_then(quota),
            clock_grain_ns: grain(),
            clock_cost_ns: clock_cost(),
            timer_lateness: lateness().await,
        }
    }

    /// What was found, line by line.
    pub fn lines(&self) -> Vec<String> {
        let limit = |n: Option<u64>| n.map_or("unlimited".into(), crate::format::count);
        let at = |p| crate::format::latency(self.timer_lateness.percentile(p) as f64 / 1e3);
        let ports = match self.ports {
            Some((first, last)) => format!("{first} to {last} ({} to one address)", last.saturating_sub(first) + 1),
            None => "unknown".into(),
        };
        let quota = self.quota.map_or("no quota".into(), |q| format!("a quota of {q:.2} cores"));
        vec![
            format!("open files   {} (may be raised to {})", limit(self.files[0]), limit(self.files[1])),
            format!("ports        {ports}"),
            format!("cores        {}, {quota}", self.cores),
            format!("clock        grain {} ns, {:.0} ns a reading", self.clock_grain_ns, self.clock_cost_ns),
            format!("noise        a 5 ms timer is late by p50 {}, p99 {}, max {}", at(50.0), at(99.0), at(100.0)),
        ]
    }

    /// What to do about it.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if let Some(files) = self.files[0].filter(|files| *files < 10_000) {
            advice.push(format!(
                "about {} connections at most: raise it with `ulimit -n 65536`",
                files.saturating_sub(256)
            ));
        }
        if let Some((first, last)) = self.ports.filter(|(first, last)| last.saturating_sub(*first) < 20_000) {
            advice.push(format!(
                "only {} connections to one address: `sysctl net.ipv4.ip_local_port_range=\"1024 65535\"`",
                last.saturating_sub(first) + 1
            ));
        }
        if let Some(quota) = self.quota.filter(|quota| *quota < self.cores as f64) {
            advice.push(format!(
                "the control group grants {quota:.2} of {} cores: use --cores, or raise the quota",
                self.cores
            ));
        }
        if self.clock_cost_ns > 200.0 {
            advice
                .push("reading the clock is slow: the kernel does not use the CPU's counter (see clocksource)".into());
        }
        if self.timer_lateness.percentile(99.0) > 5_000 {
            advice.push("timers are late: something else uses the cores; numbers from here will be noisy".into());
        }
        advice
    }
}

#[cfg(unix)]
fn files() -> [Option<u64>; 2] {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    [limit.current, limit.maximum]
}

#[cfg(not(unix))]
fn files() -> [Option<u64>; 2] {
    [None, None]
}

#[cfg(unix)]
fn grain() -> u64 {
    let grain = rustix::time::clock_getres(rustix::time::ClockId::Monotonic);
    u64::try_from(grain.tv_sec).unwrap_or(0) * ld_shared::time::SECOND + u64::try_from(grain.tv_nsec).unwrap_or(0)
}

#[cfg(not(unix))]
fn grain() -> u64 {
    0
}

fn clock_cost() -> f64 {
    let from = clock::mono();
    for _ in 1..READINGS {
        std::hint::black_box(clock::mono());
    }
    clock::mono().since(from).as_nanos() as f64 / f64::from(READINGS)
}

async fn lateness() -> Latency {
    const PERIOD: Duration = Duration::from_millis(5);
    let mut late = Latency::default();
    for _ in 0..TIMERS {
        let due = clock::mono().after(PERIOD);
        tokio::time::sleep(PERIOD).await;
        late.record(clock::mono().since(due).as_micros() as u64);
    }
    late
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// `32768 60999`, with a tab.
fn range(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `20000 100000`, quota and period in µs; `max 100000` is none.
fn quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files() {
        assert_eq!(range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(range("x"), None);
        assert_eq!(quota("20000 100000\n"), Some(0.2));
        assert_eq!(quota("max 100000\n"), None);
    }

    #[test]
    fn advice_is_given_where_it_is_needed() {
        let good = Machine {
            files: [Some(1 << 20), None],
            ports: Some((1_024, 65_535)),
            cores: 4,
            clock_cost_ns: 22.0,
            ..Machine::default()
        };
        assert_eq!(good.advice(), Vec::<String>::new());
        let mut poor = Machine { files: [Some(1_024); 2], ports: Some((60_000, 60_999)), quota: Some(0.2), ..good };
        poor.clock_cost_ns = 1_500.0;
        poor.timer_lateness.record(90_000);
        insta::assert_snapshot!("advice", [poor.lines(), poor.advice()].concat().join("\n"));
    }
}
