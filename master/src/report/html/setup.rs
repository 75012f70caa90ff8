//! How a run was made, in words.

use crate::format::{self, cut};
use crate::run::Run;
use ld_shared::load::Load;
use ld_shared::plan::{Connections, Plan, ScenarioPlan};
use ld_shared::time::RunTime;
use minijinja::context;
use minijinja::value::Value;

/// Longest value that is shown.
const LONGEST: usize = 300;

/// What ran, for the page's head.
pub(super) fn run(run: &Run) -> Value {
    let measured = &run.measured;
    context! {
        label => run.label.as_ref().map(|label| cut(label, 100)),
        day => measured.started_at.format("%Y-%m-%d").to_string(),
        time => measured.started_at.format("%H:%M").to_string(),
        duration_s => measured.duration_s,
        open => !measured.plan.scenarios.is_empty() && measured.plan.scenarios.iter().all(|s| matches!(s.load, Load::Open(_))),
        workers => measured.workers.len(),
    }
}

/// Where the load went: hosts of the scenarios.
pub(super) fn target(plan: &Plan) -> Option<String> {
    let mut hosts: Vec<&str> = plan.scenarios.iter().filter_map(|s| s.host.as_deref()).collect();
    hosts.dedup();
    (!hosts.is_empty()).then(|| cut(&hosts.join(", "), LONGEST))
}

/// How it was run, as pairs.
pub(super) fn of(run: &Run) -> Vec<(&'static str, String)> {
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
    rows.into_iter().map(|(name, value)| (name, cut(&value, LONGEST))).collect()
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
