//! One page to look at: verdict, how it was run, key figures, charts, tables. No script and no
//! network; it prints and mails well.

mod bins;
mod chart;

use super::{Findings, Report, ReportError};
use crate::format;
use crate::run::Run;
use crate::run::result::{NameResult, RunResult};
use bins::Bin;
use chart::{Chart, Curve, Line};
use ld_shared::latency::Latency;
use ld_shared::load::Load;
use ld_shared::plan::{Connections, Plan, ScenarioPlan};
use ld_shared::sample::Phase;
use ld_shared::time::RunTime;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};

/// The page.
pub(super) struct Html;

impl Report for Html {
    fn format(&self) -> &'static str {
        "html"
    }

    fn render(&self, findings: &Findings) -> Result<Vec<u8>, ReportError> {
        let Some(last) = findings.runs.last() else {
            return Err(ReportError::NoRecords);
        };
        let page = environment().get_template("report.html").and_then(|template| {
            template.render(context! {
                r => Value::from(Serde(&findings.result)),
                names => names(&findings.result),
                names_left_out => findings.result.per_name.0.len().saturating_sub(TABLE_ROWS),
                setup => setup(last),
                target => target(&last.measured.plan),
                charts => charts(last, &findings.result),
                parts => timing(&findings.result),
                thresholds => findings.result.verdict.thresholds.iter()
                    .map(|t| context! { rule => t.rule.as_str(), seen => t.seen.as_str(), ok => t.ok, unsure => t.ok != t.ok_unmarked })
                    .collect::<Vec<_>>(),
                version => env!("CARGO_PKG_VERSION"),
            })
        });
        Ok(page.map_err(ReportError::Render)?.into_bytes())
    }
}

/// Most lines of a table: a page must stay a page.
const TABLE_ROWS: usize = 300;

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.add_filter("count", |n: u64| format::count(n));
    environment.add_filter("latency", |ms: f64| format::latency(ms));
    environment.add_filter("rate", |r: f64| format::rate(r));
    environment.add_filter("percent", |share: f64| format::percent(share));
    environment.add_filter("duration", |s: f64| format::duration(s));
    environment.add_filter("bytes", |n: u64| format::bytes(n));
    environment.add_filter("clock", |s: f64| chart::clock(s));
    environment
        .add_template("report.html", include_str!("../../assets/report.html"))
        .expect("the template is part of the program and parses");
    environment
}

fn names(result: &RunResult) -> Vec<Value> {
    let slowest = result.per_name.0.iter().map(|(_, n)| n.latency.p95_ms).fold(0.0, f64::max);
    let row = |(name, n): &(std::sync::Arc<str>, NameResult)| {
        let bar = if slowest > 0.0 { n.latency.p95_ms / slowest * 100.0 } else { 0.0 };
        let share = if result.totals.requests == 0 { 0.0 } else { n.count as f64 / result.totals.requests as f64 };
        let rate = share * result.totals.requests_per_s;
        context! { name => &**name, bar => format!("{bar:.1}"), rate, ..Value::from(Serde(n)) }
    };
    result.per_name.0.iter().take(TABLE_ROWS).map(row).collect()
}

fn timing(result: &RunResult) -> Vec<Value> {
    let parts = result.timing.parts().into_iter().filter(|(_, part)| part.count > 0);
    parts.map(|(name, part)| context! { name => name.replace('_', " "), ..Value::from(Serde(part)) }).collect()
}

/// Where the load went: hosts of the scenarios.
fn target(plan: &Plan) -> Option<String> {
    let mut hosts: Vec<&str> = plan.scenarios.iter().filter_map(|s| s.host.as_deref()).collect();
    hosts.dedup();
    (!hosts.is_empty()).then(|| hosts.join(", "))
}

/// How it was run, as pairs.
fn setup(run: &Run) -> Vec<(&'static str, String)> {
    let measured = &run.measured;
    let plan = &measured.plan;
    let mut rows = vec![("Load", each(plan, |s| load(&s.load, plan)))];
    if let Some(target) = target(plan) {
        rows.push(("Target", target));
    }
    rows.push(("Users", each(plan, |s| s.user.to_string())));
    rows.push(("Pause", each(plan, |s| pause(s.wait_time))));
    rows.push(("Connections", each(plan, |s| connections(s.connections))));
    let duration = plan.test_time.map_or("until stopped".into(), |t| format::duration(t.as_secs()));
    let warmup = plan.warmup.as_secs();
    rows.push((
        "Duration",
        if warmup > 0.0 { format!("{duration}, {} of it warm-up", format::duration(warmup)) } else { duration },
    ));
    let cores: u32 = measured.workers.iter().map(|w| w.cores).sum();
    let workers = measured.workers.len();
    let s = if workers == 1 { "" } else { "s" };
    rows.push(("Generator", format!("{}, {workers} worker{s}, {cores} cores", measured.mode)));
    rows.push(("Started", measured.started_at.format("%Y-%m-%d %H:%M:%S UTC").to_string()));
    rows.push(("Seed", plan.seed.to_string()));
    rows.push(("Run", measured.run.to_string()));
    rows.push(("Plan", format!("sha256 {}", measured.plan_digest)));
    rows
}

/// What holds for all scenarios, or for each by its name.
fn each(plan: &Plan, of: impl Fn(&ScenarioPlan) -> String) -> String {
    let mut texts: Vec<String> = plan.scenarios.iter().map(&of).collect();
    if texts.windows(2).any(|pair| pair[0] != pair[1]) {
        texts = plan.scenarios.iter().map(|s| format!("{}: {}", s.name, of(s))).collect();
        return texts.join(" · ");
    }
    let several = plan.scenarios.len() > 1;
    texts.pop().map(|text| if several { format!("{text} (each scenario)") } else { text }).unwrap_or_default()
}

fn load(load: &Load, plan: &Plan) -> String {
    let peak = load.profile().peak(plan.test_time.unwrap_or(RunTime::MAX));
    match load {
        Load::Closed(_) => format!("closed model, up to {} users", format::count(peak.ceil() as u64)),
        Load::Open(open) => format!(
            "open model, up to {} iterations/s, {} arrivals, at most {} open",
            format::rate(peak),
            match open.arrivals {
                ld_shared::load::Arrivals::Constant => "evenly spaced",
                ld_shared::load::Arrivals::Poisson => "Poisson",
            },
            format::count(open.max_in_flight)
        ),
    }
}

fn pause(wait_time: Option<(f64, f64)>) -> String {
    match wait_time {
        None => "none between iterations".into(),
        Some((low, high)) if low >= high => format!("{} after each iteration", format::duration(low)),
        Some((low, high)) => format!("{low}–{high} s after each iteration"),
    }
}

fn connections(connections: Connections) -> String {
    match connections {
        Connections::PerUser => "one a user, kept open".into(),
        Connections::Shared(n) => format!("{n} shared by all users"),
        Connections::PerIteration => "new for each iteration".into(),
        Connections::PerRequest => "new for each request".into(),
    }
}

fn charts(run: &Run, result: &RunResult) -> Value {
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

fn chart(label: &'static str, bins: &[Bin], run: &Run, lines: Vec<Line>, unit: fn(f64) -> String) -> String {
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
    chart("requests per second", bins, run, lines, format::rate)
}

fn users(bins: &[Bin], run: &Run) -> String {
    let planned = line("plan", false, bins, |b| b.planned_users);
    let lines = vec![line("users", true, bins, |b| Some(b.users)), planned];
    chart("users over time", bins, run, lines, format::rate)
}

fn response_over_time(bins: &[Bin], run: &Run) -> String {
    let at = |p: f64| move |b: &Bin| (b.response.count() > 0).then(|| b.response.percentile(p) as f64 / 1e3);
    let lines =
        vec![line("p99", false, bins, at(99.0)), line("p95", false, bins, at(95.0)), line("p50", true, bins, at(50.0))];
    chart("response time over time", bins, run, lines, format::latency)
}
