//! The charts of the page.

use super::bins::{self, Bin};
use super::chart::{self, Chart, Curve, Line};
use crate::format;
use crate::run::Run;
use crate::run::result::RunResult;
use ld_shared::latency::Latency;
use ld_shared::sample::Phase;
use minijinja::context;
use minijinja::value::Value;

/// All of them, and what their legends say.
pub(super) fn of(run: &Run, result: &RunResult) -> Value {
    let bins = bins::of(&run.measured);
    let curve = |class, latency: &Latency| Curve { class, points: bins::spectrum(latency) };
    let response = run.measured.total.phase(Phase::Main).response();
    // the whole first, then the names with most samples
    let mut names: Vec<_> = result.per_name.0.iter().collect();
    names.sort_by_key(|(_, n)| std::cmp::Reverse(n.count));
    let shown = if names.len() > 1 { &names[..names.len().min(COLOURS.len())] } else { &[] };
    let by_name = shown.iter().zip(COLOURS).map(|((_, n), class)| curve(class, &n.response));
    let mut curves = vec![curve("all", &response)];
    curves.extend(by_name);
    let legend: Vec<Value> =
        shown.iter().zip(COLOURS).map(|((name, _), class)| context! { class, name => format::cut(name, 40) }).collect();
    context! {
        requests => requests(&bins, run),
        users => users(&bins, run),
        response => response_over_time(&bins, run),
        spectrum => chart::spectrum(&curves, response.count(), 300.0),
        legend => legend,
        marked => bins.iter().any(|b| b.marked),
        warmup => run.measured.plan.warmup.as_secs() > 0.0,
        planned_rate => bins.iter().any(|b| b.planned_rate.is_some()),
        planned_users => bins.iter().any(|b| b.planned_users.is_some()),
        seconds_a_point => bins.first().map_or(1, |b| b.to - b.from),
    }
}

const COLOURS: [&str; 6] = ["c1", "c2", "c3", "c4", "c5", "c6"];

fn over_time(label: &'static str, bins: &[Bin], run: &Run, lines: Vec<Line>, unit: fn(f64) -> String) -> String {
    let tip = |bin: &Bin| bin.tip();
    Chart {
        label,
        height: 230.0,
        edges: bins.iter().map(|b| f64::from(b.from)).chain(bins.last().map(|b| f64::from(b.to))).collect(),
        lines,
        marked: bins.iter().map(|b| b.marked).collect(),
        warmup: run.measured.plan.warmup.as_secs(),
        tips: bins.iter().map(tip).collect(),
        unit,
    }
    .svg()
}

fn line(class: &'static str, area: bool, bins: &[Bin], value: impl Fn(&Bin) -> Option<f64>) -> Line {
    Line { class, area, values: bins.iter().map(value).collect() }
}

fn requests(bins: &[Bin], run: &Run) -> String {
    let lines = vec![
        line("ok", true, bins, |b| Some(b.succeeded + b.failed)),
        line("bad", true, bins, |b| Some(b.failed)),
        line("started", false, bins, |b| Some(b.started)),
    ];
    over_time("requests per second", bins, run, lines, format::rate)
}

fn users(bins: &[Bin], run: &Run) -> String {
    let planned = line("plan", false, bins, |b| b.planned_users);
    let lines = vec![line("users", true, bins, |b| Some(b.users)), planned];
    over_time("users over time", bins, run, lines, format::rate)
}

fn response_over_time(bins: &[Bin], run: &Run) -> String {
    let at = |p: f64| move |b: &Bin| (b.response.count() > 0).then(|| b.response.percentile(p) as f64 / 1e3);
    let lines =
        vec![line("p99", false, bins, at(99.0)), line("p95", false, bins, at(95.0)), line("p50", true, bins, at(50.0))];
    over_time("response time over time", bins, run, lines, format::latency)
}
