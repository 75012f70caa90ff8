//! What of a run is compared: made from a run that has just ended, from what a store kept of one, or
//! from a `--summary` file.

use crate::run::Measured;
use crate::run::Run;
use crate::run::blocks::NameBlocks;
use crate::run::result::RunResult;
use ld_shared::latency::Latency;
use ld_shared::load::Load;
use ld_shared::sample::Phase;
use ld_shared::time::RunTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A run, or several in a row, as they are compared.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Length of the main windows, s.
    pub seconds: f64,
    /// Main windows on the clock of the blocks, s. Empty where names come without blocks.
    pub windows: Vec<(f64, f64)>,
    /// Kinds of users. Empty if nothing is known of who paced the names.
    pub scenarios: Vec<Scenario>,
    /// p99 of how long load cores waited to be polled, the worst of the workers.
    pub lag_p99_ms: f64,
    /// By name.
    pub names: BTreeMap<String, NameEvidence>,
    /// The whole second by second; empty where names come with blocks.
    pub timeline: Vec<Second>,
}

/// The part of [`Evidence`] that is not of a name: a store keeps it as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    seconds: f64,
    windows: Vec<(f64, f64)>,
    scenarios: Vec<Scenario>,
    lag_p99_ms: f64,
}

/// One kind of users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Whether its iterations come at a rate, whatever the target does.
    pub open: bool,
    /// Planned users, on average over the main window (open model: iterations per second).
    pub users: f64,
}

/// One name.
#[derive(Clone, Debug, Default)]
pub struct NameEvidence {
    /// Response times of all.
    pub response: Latency,
    /// Failures.
    pub failed: u64,
    /// The scenario that all of it belongs to, where there is one.
    pub scenario: Option<String>,
    /// Over spans of the run.
    pub blocks: Option<NameBlocks>,
}

/// One second of all names.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// Run-clock second.
    pub second: u32,
    /// Requests that ended.
    pub ended: f64,
    /// Failures among them.
    pub failed: f64,
    /// Mean response time.
    pub mean_ms: f64,
}

impl NameEvidence {
    /// Requests per second.
    pub(super) fn rate(&self, run: &Evidence) -> f64 {
        if run.seconds > 0.0 { self.response.count() as f64 / run.seconds } else { 0.0 }
    }
}

impl Evidence {
    /// Of runs that are over, and their common result.
    pub fn of(runs: &[Arc<Run>], result: &RunResult) -> Self {
        let mut offset = 0;
        let mut evidence = Self::default();
        // one scale for all, so that spans of one run follow those of the other
        let scale = runs.iter().map(|run| run.measured.blocks.scale()).max().unwrap_or(1);
        for run in runs {
            let measured = &run.measured;
            let from = measured.duration_s - measured.main_seconds() + f64::from(offset);
            evidence.windows.push((from, measured.duration_s + f64::from(offset)));
            evidence.seconds += measured.main_seconds();
            let lag = measured.workers.iter().map(|worker| worker.lag_p99_ms).fold(0.0, f64::max);
            evidence.lag_p99_ms = evidence.lag_p99_ms.max(lag);
            for (name, _) in &result.per_name.0 {
                let mut blocks = measured.blocks.of(name).coarsened(scale);
                blocks.blocks.iter_mut().for_each(|block| block.from += offset);
                let known = evidence.names.entry(name.to_string()).or_default();
                known
                    .blocks
                    .get_or_insert_with(|| NameBlocks { scale, blocks: Vec::new() })
                    .blocks
                    .extend(blocks.blocks);
            }
            // the drain may reach beyond the window
            let last = measured.timeline.keys().next_back().map_or(0, |second| second + 1);
            offset = (offset + last.max(measured.duration_s.ceil() as u32)).next_multiple_of(scale);
        }
        // of several tests nobody can say who paced a name
        if let [run] = runs {
            evidence.scenarios = scenarios(&run.measured);
        }
        for (name, result) in &result.per_name.0 {
            let known = evidence.names.entry(name.to_string()).or_default();
            known.response = (*result.response).clone();
            known.failed = result.failures;
            known.scenario = if let [run] = runs { only_scenario(&run.measured, name) } else { None };
        }
        evidence
    }

    /// From what a `--summary` file holds. `Err`: what is wrong with it.
    pub fn of_summary(summary: &Value) -> Result<Self, String> {
        if summary["schema"] != crate::run::result::SCHEMA {
            return Err(format!("its schema is not {}", crate::run::result::SCHEMA));
        }
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let names = summary["per_name"].as_object().ok_or("it has no `per_name`")?;
        let open = summary["run"]["model"] == "open";
        let mut evidence = Self { seconds: main_seconds(summary), ..Self::default() };
        for (name, found) in names {
            let hdr = found["hdr"].as_str().ok_or_else(|| format!("`{name}` has no `hdr`"))?;
            let response = Latency::from_hdr(hdr).map_err(|error| format!("the `hdr` of `{name}`: {error}"))?;
            let failed = found["failures"].as_u64().unwrap_or(0);
            let scenario = open.then(String::new);
            evidence.names.insert(name.clone(), NameEvidence { response, failed, scenario, blocks: None });
        }
        if open {
            evidence.scenarios.push(Scenario { name: String::new(), open: true, users: 0.0 });
        }
        let lag = |worker: &Value| number(&worker["lag_p99_ms"]);
        evidence.lag_p99_ms = summary["workers"].as_array().into_iter().flatten().map(lag).fold(0.0, f64::max);
        evidence.timeline = summary["timeline"].as_array().into_iter().flatten().filter_map(second).collect();
        Ok(evidence)
    }

    /// From what a store kept.
    pub fn of_parts(frame: Frame, names: impl IntoIterator<Item = (String, NameEvidence)>) -> Self {
        let Frame { seconds, windows, scenarios, lag_p99_ms } = frame;
        let mut evidence = Self { seconds, windows, scenarios, lag_p99_ms, ..Self::default() };
        for (name, found) in names {
            match evidence.names.entry(name) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(found);
                }
                // two names that only what was taken out of them told apart
                std::collections::btree_map::Entry::Occupied(mut place) => {
                    let known = place.get_mut();
                    known.response.merge(&found.response);
                    known.failed += found.failed;
                    known.blocks = None;
                    known.scenario = None;
                }
            }
        }
        evidence
    }

    /// What is not of a name.
    pub fn frame(&self) -> Frame {
        Frame {
            seconds: self.seconds,
            windows: self.windows.clone(),
            scenarios: self.scenarios.clone(),
            lag_p99_ms: self.lag_p99_ms,
        }
    }

    /// The scenario that paced a name.
    pub(super) fn scenario_of(&self, name: &NameEvidence) -> Option<&Scenario> {
        let wanted = name.scenario.as_ref()?;
        self.scenarios.iter().find(|scenario| scenario.name == *wanted)
    }

    /// Share of the main windows that lies in each span of `scale` seconds.
    pub(super) fn shares_of_window(&self, scale: u32) -> BTreeMap<u32, f64> {
        let mut shares = BTreeMap::new();
        let wide = f64::from(scale.max(1));
        for (from, to) in &self.windows {
            let mut at = *from;
            while at < *to && self.seconds > 0.0 {
                let span = (at / wide) as u32;
                let end = (f64::from(span + 1) * wide).min(*to);
                *shares.entry(span).or_default() += (end - at) / self.seconds;
                at = end;
            }
        }
        shares
    }
}

fn scenarios(measured: &Measured) -> Vec<Scenario> {
    let to = RunTime::from_secs(measured.duration_s);
    let from = measured.plan.warmup.min(to);
    let seconds = measured.main_seconds().max(1e-9);
    let of = |scenario: &ld_shared::plan::ScenarioPlan| {
        let profile = scenario.load.profile();
        Scenario {
            name: scenario.name.to_string(),
            open: matches!(scenario.load, Load::Open(_)),
            users: (profile.integral(to) - profile.integral(from)) / seconds,
        }
    };
    measured.plan.scenarios.iter().map(of).collect()
}

fn only_scenario(measured: &Measured, name: &str) -> Option<String> {
    let series = measured.total.phase(Phase::Main).series.keys();
    let scenarios: BTreeSet<_> = series.filter(|key| &*key.name == name).map(|key| &key.scenario).collect();
    match scenarios.into_iter().collect::<Vec<_>>()[..] {
        [one] => Some(one.to_string()),
        _ => None,
    }
}

/// Length of the main windows of a summary: its totals give requests started and their rate.
fn main_seconds(summary: &Value) -> f64 {
    let runs = summary["runs"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |run: &Value| {
        let started = run["conservation"]["requests_started"].as_f64()?;
        let rate = run["totals"]["requests_per_s"].as_f64().filter(|rate| *rate > 0.0)?;
        Some(started / rate)
    };
    runs.iter().filter_map(of).sum()
}

fn second(row: &Value) -> Option<Second> {
    let count = |key: &str| row[key].as_f64();
    let (succeeded, failed) = (count("succeeded")?, count("failed")?);
    let second = u32::try_from(row["second"].as_u64()?).ok()?;
    Some(Second { second, ended: succeeded + failed, failed, mean_ms: count("mean_ms")? })
}
