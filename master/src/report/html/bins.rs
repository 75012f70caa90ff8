//! The timeline in as many points as a chart has room for. Histograms merge, so percentiles of a
//! point are those of all its samples; none is averaged.

use crate::format;
use crate::run::{Measured, timeline};
use ld_shared::latency::Latency;

/// Most points of a chart.
const POINTS: u32 = 300;

/// A point: some seconds of the run.
pub(super) struct Bin {
    /// First second.
    pub from: u32,
    /// First second after it.
    pub to: u32,
    /// Requests started, per second.
    pub started: f64,
    /// Successes, per second.
    pub succeeded: f64,
    /// Failures, per second.
    pub failed: f64,
    /// Users, on average.
    pub users: f64,
    /// Planned users, on average.
    pub planned_users: Option<f64>,
    /// Planned iterations per second.
    pub planned_rate: Option<f64>,
    /// Response times.
    pub response: Latency,
    /// The generator was the limit in one of its seconds.
    pub marked: bool,
}

impl Bin {
    /// What stands under the pointer.
    pub(super) fn tip(&self) -> String {
        let at = |p| format::latency(self.response.percentile(p) as f64 / 1e3);
        let mut lines = vec![
            super::chart::clock(f64::from(self.from)),
            format!("{} requests/s started", format::rate(self.started)),
        ];
        lines.extend(self.planned_rate.map(|planned| format!("{} iterations/s planned", format::rate(planned))));
        lines.push(format!("{} succeeded/s, {} failed/s", format::rate(self.succeeded), format::rate(self.failed)));
        lines.push(format!("{} users", format::rate(self.users)));
        if self.response.count() > 0 {
            lines.push(format!("p50 {}, p95 {}, p99 {}", at(50.0), at(95.0), at(99.0)));
        }
        if self.marked {
            lines.push("the generator was the limit".into());
        }
        lines.join("\n")
    }
}

/// The run in at most [`POINTS`] points.
pub(super) fn of(measured: &Measured) -> Vec<Bin> {
    let seconds = timeline::of(measured);
    let Some(last) = seconds.last() else {
        return Vec::new();
    };
    let width = (last.second + 1).div_ceil(POINTS);
    let mut bins: Vec<Bin> = Vec::new();
    for second in &seconds {
        let from = second.second / width * width;
        if bins.last().is_none_or(|bin| bin.from != from) {
            bins.push(Bin::empty(from, from + width));
        }
        let bin = bins.last_mut().expect("one was pushed if there was none");
        let part = 1.0 / f64::from(width);
        // counts are of all its seconds, averages of each
        let each = part * f64::from(second.seconds);
        let add =
            |sum: &mut Option<f64>, value: Option<f64>| *sum = value.map(|v| sum.unwrap_or(0.0) + v * each).or(*sum);
        bin.started += second.started as f64 * part;
        bin.succeeded += second.succeeded as f64 * part;
        bin.failed += second.failed as f64 * part;
        bin.users += second.users * each;
        add(&mut bin.planned_users, second.planned_users);
        add(&mut bin.planned_rate, second.planned_rate);
        bin.marked |= second.generator_bound;
        if let Some(row) = measured.timeline.get(&second.second) {
            bin.response.merge(&row.response);
        }
    }
    bins
}

impl Bin {
    fn empty(from: u32, to: u32) -> Self {
        Self {
            from,
            to,
            started: 0.0,
            succeeded: 0.0,
            failed: 0.0,
            users: 0.0,
            planned_users: None,
            planned_rate: None,
            response: Latency::default(),
            marked: false,
        }
    }
}

/// Points of a percentile curve: evenly spaced on the axis that gives each nine the same room, up
/// to the one sample that is the maximum.
pub(super) fn spectrum(latency: &Latency) -> Vec<(f64, f64)> {
    if latency.count() == 0 {
        return Vec::new();
    }
    let nines = (latency.count() as f64).log10();
    let steps = 30.0 * nines.max(1.0);
    let at = |i: u32| (1.0 - 10_f64.powf(-f64::from(i) / steps * nines)) * 100.0;
    let points = (0..=steps as u32).map(at).map(|p| (p, latency.percentile(p) as f64 / 1e3));
    points.collect()
}
