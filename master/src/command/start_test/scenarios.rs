//! The kinds of users of a test: those under `scenarios`, or the test itself as the only one.
//!
//! A scenario takes what it leaves out from the test, so both are read by one function: over the
//! test's arguments, or over a scenario's with the test's where it has none. A fault of a value
//! that came from the test points at the test.

use super::load::{self, End};
use super::settings::{self, TlsFiles};
use super::{retry, tasks, throttle, user};
use crate::script::Fault;
use crate::script::reader::Reader;
use crate::script::spec::shown;
use ld_shared::fault::{did_you_mean, step};
use ld_shared::load::{Closed, Load, Open, Profile};
use ld_shared::plan::{Covers, Mode, RetryPlan, ScenarioPlan, StatusCheck, TaskPlan, ThrottlePlan, TlsPlan};
use ld_shared::time::RunTime;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Keys that say how much load there is.
const LOAD: [&str; 7] =
    ["user_count", "spawn_rate", "arrival_rate", "max_in_flight", "arrivals", "load_shape", "shape_config"];
/// Keys of users that a scenario takes from the test if it leaves them out; null is a value.
const SETTINGS: [&str; 9] = [
    "user_detail_dict",
    "host",
    "wait_time",
    "connections",
    "timeouts",
    "tls",
    "http_version",
    "status_check",
    "retry",
];
/// Hooks of users, likewise.
const HOOKS: [&str; 2] = ["on_start", "on_stop"];
/// Without an end, numbers of a scenario's arrivals are reckoned for so long.
const ENDLESS: f64 = 24.0 * 3_600.0;

/// One kind of users, read; its certificates are still files.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Its users. Texts that are compiled later are as written.
    pub(super) plan: ScenarioPlan,
    /// Its certificates.
    pub(super) tls: TlsFiles,
    /// Where `tls` stands, from the arguments.
    pub(super) tls_at: String,
    /// Where `user_detail_dict` stands, likewise.
    pub(super) options_at: String,
    /// How its tasks are tried again, unless they say it themselves.
    retry: Option<RetryPlan>,
    /// Limit on the rate of its requests; that of the test is not its own.
    pub(super) throttle: Option<ThrottlePlan>,
    /// How long its load has a shape; `None`: it goes on for ever.
    length: Option<RunTime>,
}

impl Draft {
    /// Tasks of this user that are no part of an iteration.
    pub(super) fn hook(&self, reader: &mut Reader<'_>, key: &str) -> Vec<TaskPlan> {
        let mut tasks = tasks::hook(reader, key, &self.plan);
        self.with_retry(&mut tasks);
        tasks
    }

    fn with_retry(&self, tasks: &mut [TaskPlan]) {
        for task in tasks {
            task.retry = task.retry.or(self.retry);
        }
    }
}

/// What the users of a test are.
pub(super) struct Drafts {
    /// Each kind.
    pub(super) scenarios: Vec<Draft>,
    /// The user that runs what is run once a test: as the test says, else as its first scenario.
    pub(super) stage: Draft,
    /// When the test ends.
    pub(super) test_time: Option<RunTime>,
}

/// Reads the scenarios of a test.
pub(super) fn read(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Drafts {
    let end = End::read(reader);
    let listed = reader.value("scenarios").is_some();
    let mut scenarios =
        if listed { list(reader, end, warnings) } else { vec![draft(reader, ("test", "default"), end, warnings)] };
    let stage = stage(reader, scenarios.first());
    let test_time = end.of(scenarios.iter().map(|scenario| scenario.length));
    let limit = test_time.unwrap_or(RunTime::from_secs(ENDLESS));
    let mut number = 0_u64;
    for scenario in &mut scenarios {
        scenario.plan.first_number = number;
        // at least 1: what is random in a scenario depends on its first number
        number = number.saturating_add(numbers(&scenario.plan.load, limit).max(1));
    }
    Drafts { scenarios, stage, test_time }
}

/// How many users or arrivals there may be.
fn numbers(load: &Load, end: RunTime) -> u64 {
    match load {
        Load::Closed(load) => load.peak(end),
        Load::Open(load) => load.rate.integral(end).ceil() as u64,
    }
}

/// One kind of users with its tasks and hooks: those of `whom`, a test or a scenario.
fn draft(reader: &mut Reader<'_>, (whom, name): (&str, &str), end: End, warnings: &mut Vec<String>) -> Draft {
    let load = load::read(reader, end, warnings);
    let mut draft = settings(reader, name, load.load);
    draft.length = load.length;
    if draft.plan.wait_time.is_some() && draft.plan.load.model() == "open" {
        warnings.push("`wait_time` has no effect on arrivals: their rate says when iterations start".into());
    }
    tasks::read(reader, whom, &mut draft.plan);
    let mut tasks = std::mem::take(&mut draft.plan.tasks);
    draft.with_retry(&mut tasks);
    draft.plan.tasks = tasks;
    draft.plan.on_start = draft.hook(reader, "on_start");
    draft.plan.on_stop = draft.hook(reader, "on_stop");
    draft
}

/// One kind of users without anything to do.
fn settings(reader: &mut Reader<'_>, name: &str, load: Load) -> Draft {
    let (connect_timeout, request_timeout) = settings::timeouts(reader);
    let (verify, tls) = settings::tls(reader);
    let (user, options) = user(reader);
    let plan = ScenarioPlan {
        name: name.into(),
        user,
        load,
        first_number: 0,
        mode: Mode::Sequence,
        tasks: Vec::new(),
        on_start: Vec::new(),
        on_stop: Vec::new(),
        wait_time: reader.pause("wait_time"),
        host: reader.text("host").map(Into::into),
        connections: settings::connections(reader),
        connect_timeout,
        request_timeout,
        tls: TlsPlan { verify, ..TlsPlan::default() },
        http_version: settings::http_version(reader),
        options,
        status_check: settings::status_check(reader).unwrap_or(StatusCheck::Always),
    };
    let (tls_at, options_at) = ("/tls".into(), "/user_detail_dict".into());
    Draft { plan, tls, tls_at, options_at, retry: retry::read(reader), throttle: None, length: None }
}

/// The user of `setup` and `teardown`. Read also if there are none, so that a setting of the test
/// which every scenario has for itself is looked at all the same.
fn stage(reader: &mut Reader<'_>, first: Option<&Draft>) -> Draft {
    let load = Load::Closed(Closed { users: Profile::constant(1.0) });
    let items = reader.value("scenarios").and_then(Value::as_array);
    let own = items.and_then(|items| items.first()).and_then(Value::as_object);
    let Some(own) = own else {
        // the test is its own scenario, which has been read
        return match first {
            Some(first) => {
                let nothing =
                    ScenarioPlan { tasks: Vec::new(), on_start: Vec::new(), on_stop: Vec::new(), ..first.plan.clone() };
                Draft {
                    plan: ScenarioPlan { name: "default".into(), load, mode: Mode::Sequence, ..nothing },
                    ..first.clone()
                }
            }
            None => settings(reader, "default", load),
        };
    };
    let test = reader.map();
    let mut merged = Map::new();
    for key in SETTINGS {
        if let Some(value) = test.get(key).or_else(|| own.get(key)) {
            merged.insert(key.into(), value.clone());
        }
    }
    let at = |key: &str| if test.contains_key(key) { step(key) } else { format!("/scenarios/0{}", step(key)) };
    let mut faults = Vec::new();
    let mut draft = settings(&mut Reader::new(&merged, "", &mut faults), "default", load);
    draft.tls_at = at("tls");
    draft.options_at = at("user_detail_dict");
    let pointer = reader.pointer().to_owned();
    for fault in faults {
        let (key, deeper) = split(&fault.pointer);
        let place = format!("{pointer}{}{deeper}", at(key));
        note(reader, Fault { pointer: place, ..fault });
    }
    draft
}

/// `scenarios`: at least one, each with its name and tasks.
fn list(reader: &mut Reader<'_>, end: End, warnings: &mut Vec<String>) -> Vec<Draft> {
    let base = reader.at("scenarios");
    let test = reader.map();
    if reader.value("tasks").is_some() {
        let fault = Fault::new(reader.at("tasks"), "`tasks` beside `scenarios`: it is not clear who runs them");
        reader.fault(fault.help("give every scenario its own `tasks`"));
    }
    let Some(items) = reader.list("scenarios") else { return Vec::new() };
    if items.is_empty() {
        let fault = Fault::new(base.as_str(), "a test needs at least one scenario, found none");
        reader.fault(fault.help(r#"add one, like {"user_count": 10, "tasks": […]}, or leave `scenarios` out"#));
    }
    let mut names = BTreeSet::new();
    let mut drafts = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let pointer = format!("{base}/{i}");
        let Value::Object(own) = item else {
            reader.fault(Fault::new(pointer, format!("a scenario is an object, found {}", shown(item))));
            continue;
        };
        known_keys(own, &pointer, reader);
        let name = name(own, &pointer, i, reader);
        if !names.insert(name.clone()) {
            let fault = Fault::new(format!("{pointer}/name"), format!("two scenarios are named `{name}`"));
            reader.fault(fault.help("reports and rules tell scenarios apart by their names"));
        }
        let (merged, inherited) = with_defaults(test, own);
        let mut faults = Vec::new();
        let mut said = Vec::new();
        let mut draft =
            draft(&mut Reader::new(&merged, pointer.as_str(), &mut faults), ("scenario", &name), end, &mut said);
        if draft.length.is_some() {
            // the others may go on
            draft.plan.load = ended(draft.plan.load);
        }
        let key = format!("(scenario {name})");
        draft.throttle = throttle::read(
            &mut Reader::new(&merged, pointer.as_str(), &mut faults),
            &key,
            Covers::Scenario(drafts.len() as u32),
        );
        let place = |key: &str| {
            if inherited.contains(key) { format!("/{key}") } else { format!("/scenarios/{i}/{key}") }
        };
        draft.tls_at = place("tls");
        draft.options_at = place("user_detail_dict");
        for fault in faults {
            let (key, deeper) = split(fault.pointer.strip_prefix(&pointer).unwrap_or_default());
            let place =
                if inherited.contains(key) { format!("{}{deeper}", reader.at(key)) } else { fault.pointer.clone() };
            note(reader, Fault { pointer: place, ..fault });
        }
        warnings.extend(said.into_iter().map(|text| format!("{text} (scenario `{name}`)")));
        drafts.push(draft);
    }
    unused(test, items, warnings);
    drafts
}

/// A fault that several scenarios have from the test counts once.
fn note(reader: &mut Reader<'_>, fault: Fault) {
    if !reader.faults().contains(&fault) {
        reader.fault(fault);
    }
}

/// The first step of a pointer, without its slash, and the rest.
fn split(pointer: &str) -> (&str, &str) {
    let inner = pointer.strip_prefix('/').unwrap_or(pointer);
    inner.split_at(inner.find('/').unwrap_or(inner.len()))
}

/// Nothing is due after the end of the shape.
fn ended(load: Load) -> Load {
    let stop = |profile: Profile| {
        let last = profile.tail();
        profile.then(0.0, last, 0.0)
    };
    match load {
        Load::Closed(load) => Load::Closed(Closed { users: stop(load.users) }),
        Load::Open(load) => Load::Open(Open { rate: stop(load.rate), ..load }),
    }
}

fn known_keys(own: &Map<String, Value>, pointer: &str, reader: &mut Reader<'_>) {
    let known = || ["name", "tasks", "throttle"].iter().chain(&LOAD).chain(&SETTINGS).chain(&HOOKS).copied();
    for key in own.keys().filter(|key| !known().any(|known| known == key.as_str())) {
        let place = format!("{pointer}{}", step(key));
        let of_test = super::SPEC.parameters.iter().any(|p| p.name == key);
        reader.fault(if of_test {
            let fault = Fault::new(place, format!("`{key}` in a scenario: it belongs to the whole test"));
            fault.help(format!("give `{key}` beside `scenarios`"))
        } else {
            Fault::new(place, format!("unknown key `{key}` of a scenario")).help(did_you_mean(key, known()))
        });
    }
}

fn name(own: &Map<String, Value>, pointer: &str, index: usize, reader: &mut Reader<'_>) -> String {
    let default = format!("scenario-{}", index + 1);
    match own.get("name") {
        None | Some(Value::Null) => default,
        Some(Value::String(name)) if !name.trim().is_empty() => name.clone(),
        Some(other) => {
            let message = format!("the name of a scenario is a text, found {}", shown(other));
            reader.fault(Fault::new(format!("{pointer}/name"), message).help("leave it out to have it numbered"));
            default
        }
    }
}

/// A scenario's keys and, where it leaves one out, the test's; and which those are.
fn with_defaults(test: &Map<String, Value>, own: &Map<String, Value>) -> (Map<String, Value>, BTreeSet<&'static str>) {
    let has = |key: &str| own.get(key).is_some_and(|value| !value.is_null());
    // a scenario with a load of its own takes no other load from the test
    let load: &[&'static str] = if has("load_shape") {
        &[]
    } else if has("arrival_rate") {
        &["arrivals", "max_in_flight"]
    } else if has("user_count") {
        &["spawn_rate"]
    } else {
        &LOAD
    };
    let mut merged = own.clone();
    let mut inherited = BTreeSet::new();
    for key in load.iter().chain(&SETTINGS).chain(&HOOKS).copied() {
        if let (false, Some(value)) = (own.contains_key(key), test.get(key)) {
            merged.insert(key.into(), value.clone());
            inherited.insert(key);
        }
    }
    (merged, inherited)
}

/// Warns of loads of the test that no scenario takes.
fn unused(test: &Map<String, Value>, items: &[Value], warnings: &mut Vec<String>) {
    let scenarios: Vec<_> = items.iter().filter_map(Value::as_object).map(|own| with_defaults(test, own).1).collect();
    for key in LOAD {
        let given = test.get(key).is_some_and(|value| !value.is_null());
        if given && !scenarios.is_empty() && !scenarios.iter().any(|inherited| inherited.contains(key)) {
            warnings.push(format!("`{key}` of the test has no effect: every scenario has a load of its own"));
        }
    }
}
