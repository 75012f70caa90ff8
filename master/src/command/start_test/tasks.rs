//! Tasks in all forms that documents may write them.
//!
//! | form | meaning |
//! |---|---|
//! | list of tasks | a sequence |
//! | `{"mode": M, "tasks": list or map}` | a scenario: `sequence`, `conditional` (the same), `weighted` |
//! | `{"get": {…}, "post": {…}}` | a sequence; the key is the method unless the task names one |

use super::seed::{self, Passes};
use super::{driver, throttle};
use crate::script::Fault;
use crate::script::reader::Reader;
use crate::script::spec::shown;
use ld_shared::check::{Assertion, Extractor};
use ld_shared::fault::{did_you_mean, step};
use ld_shared::plan::{Covers, Mode, ScenarioPlan, StatusCheck, TaskPlan};
use ld_shared::predicate::Predicate;
use ld_shared::template::Template;
use serde_json::{Map, Value};

/// Keys that every task may have, whatever its protocol.
pub(crate) const COMMON: [&str; 11] = [
    "name",
    "user",
    "weight",
    "run_if",
    "skip_if",
    "assertions",
    "extract",
    "think_time",
    "status_check",
    "throttle",
    "retry",
];

/// Reads `tasks` of `whom` (a test, a scenario), whose other settings are there already.
pub(super) fn read(reader: &mut Reader<'_>, whom: &str, scenario: &mut ScenarioPlan) {
    let pointer = reader.at("tasks");
    let example = r#"add "tasks": [{"method": "get", "request_url": "http://…"}]"#;
    let Some(tasks) = reader.value("tasks") else {
        let fault = Fault::new(reader.pointer(), format!("a {whom} without `tasks` sends nothing"));
        reader.fault(fault.help(example).ignored());
        return;
    };
    let faults = reader.faults();
    match tasks {
        Value::Object(map) if map.contains_key("tasks") || map.contains_key("mode") => {
            let mut inner = Reader::new(map, pointer.as_str(), faults);
            inner.only(&["mode", "tasks"], &[]);
            if let Some("weighted") =
                inner.forgiving(|inner| inner.choice("mode", &["sequence", "weighted", "conditional"]))
            {
                scenario.mode = Mode::Weighted;
            }
            let pointer = inner.at("tasks");
            match map.get("tasks").filter(|tasks| !tasks.is_null()) {
                Some(tasks) => scenario.tasks = some(tasks, &pointer, whom, scenario, faults),
                None => faults.push(Fault::new(pointer, "a scenario without `tasks`").help(example).ignored()),
            }
        }
        other => scenario.tasks = some(other, &pointer, whom, scenario, faults),
    }
    let idle = scenario.mode == Mode::Weighted && scenario.tasks.iter().all(|task| task.weight == 0);
    if idle && !scenario.tasks.is_empty() {
        let fault = Fault::new(reader.at("tasks"), "all weights are 0: no task would ever run");
        reader.fault(fault.help("give at least one task a weight above 0").ignored());
    }
}

/// Tasks that are no part of an iteration, run in order: `on_start`, `setup` and the like.
pub(super) fn hook(reader: &mut Reader<'_>, key: &str, scenario: &ScenarioPlan) -> Vec<TaskPlan> {
    let pointer = reader.at(key);
    let Some(tasks) = reader.value(key) else { return Vec::new() };
    list_or_map(tasks, &pointer, key, scenario, reader.faults())
}

/// At least one task.
fn some(tasks: &Value, pointer: &str, whom: &str, scenario: &ScenarioPlan, faults: &mut Vec<Fault>) -> Vec<TaskPlan> {
    if matches!(tasks, Value::Array(items) if items.is_empty()) || matches!(tasks, Value::Object(map) if map.is_empty())
    {
        let fault = Fault::new(pointer, format!("a {whom} needs at least one task, found none"));
        faults.push(fault.help(r#"add a task, like {"method": "get", "request_url": "http://…"}"#).ignored());
    }
    list_or_map(tasks, pointer, "tasks", scenario, faults)
}

fn list_or_map(
    tasks: &Value,
    pointer: &str,
    key: &str,
    scenario: &ScenarioPlan,
    faults: &mut Vec<Fault>,
) -> Vec<TaskPlan> {
    let mut entries: Vec<(String, Map<String, Value>)> = Vec::new();
    match tasks {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                let pointer = format!("{pointer}/{i}");
                match item {
                    Value::Object(map) => entries.push((pointer, map.clone())),
                    other => {
                        let message = format!("a task is an object, found {}", shown(other));
                        faults.push(Fault::new(pointer, message).ignored());
                    }
                }
            }
        }
        Value::Object(map) => {
            if map.contains_key("method") || map.contains_key("request_url") {
                let fault = Fault::new(pointer, format!("`{key}` is a list of tasks, found a single task"));
                faults.push(fault.help("put it in brackets: [{…}]").ignored());
                return Vec::new();
            }
            for (method, item) in map {
                let pointer = format!("{pointer}{}", step(method));
                let Value::Object(task) = item else {
                    let message = format!("the task of `{method}` is an object, found {}", shown(item));
                    faults.push(
                        Fault::new(pointer, message)
                            .help("write {\"get\": {\"request_url\": \"http://…\"}}, or a list of tasks")
                            .ignored(),
                    );
                    continue;
                };
                let mut task = task.clone();
                if task.get("method").is_none_or(Value::is_null) {
                    task.insert("method".into(), method.as_str().into());
                }
                entries.push((pointer, task));
            }
        }
        other => {
            let fault = Fault::new(pointer, format!("`{key}` is a list or an object, found {}", shown(other)));
            faults.push(fault.help(r#"write [{"method": "get", "request_url": "http://…"}]"#).ignored());
        }
    }
    entries.iter().filter_map(|(pointer, map)| task(map, pointer, scenario, faults)).collect()
}

/// A task; `None` if the seed passes over the whole of it: it skips the task, or loses its every
/// request without a record.
fn task(map: &Map<String, Value>, pointer: &str, scenario: &ScenarioPlan, faults: &mut Vec<Fault>) -> Option<TaskPlan> {
    let mut lost = placeholders(&Value::Object(map.clone()), pointer, faults);
    let mut reader = Reader::new(map, pointer, faults);
    let user = reader.text("user");
    let driver = driver::of(user.unwrap_or(&scenario.user));
    if let (Some(user), None) = (user, &driver) {
        let pointer = reader.at("user");
        reader.fault(super::unknown_user(user).under(&pointer));
    }
    if let Some(driver) = driver {
        for key in map.keys() {
            let known = COMMON.iter().chain(driver.fields);
            let pointer = reader.at(key);
            if !known.clone().any(|known| known == key) {
                let user = user.unwrap_or(&scenario.user);
                let fault = Fault::new(pointer, format!("unknown key `{key}` in a task of {user}"));
                reader.fault(fault.help(did_you_mean(key, known.copied())).ignored());
            }
        }
    }
    let fields = map.iter().filter(|(key, value)| !COMMON.contains(&key.as_str()) && !value.is_null());
    let fields: Map<String, Value> = fields.map(|(key, value)| (key.clone(), value.clone())).collect();
    let name = name(&mut reader);
    let mut task = TaskPlan {
        throttle: throttle::read(&mut reader, name.as_deref().unwrap_or("default"), Covers::Tasks),
        name,
        user: user.map(Into::into),
        weight: weight(&mut reader, scenario.mode),
        run_if: predicate(&mut reader, "run_if"),
        skip_if: predicate(&mut reader, "skip_if"),
        assertions: each(&mut reader, "assertions", Assertion::read, &mut lost),
        extract: each(&mut reader, "extract", Extractor::read, &mut lost),
        think_time: reader.pause("think_time"),
        status_check: match reader.choice("status_check", &["always", "assertions"]) {
            Some("assertions") => Some(StatusCheck::Assertions),
            Some(_) => Some(StatusCheck::Always),
            None => None,
        },
        retry: super::retry::read(&mut reader),
        refused: None,
        fields,
    };
    if let Some(driver) = driver {
        // protocols read the key of a task's users from its scenario
        let own = user.map(|user| ScenarioPlan { user: user.into(), ..scenario.clone() });
        let scenario = own.as_ref().unwrap_or(scenario);
        let found = driver::faults(driver, &task.fields, scenario);
        task.refused = driver.refused(&task.fields, scenario, &found);
        for fault in found.into_iter().map(driver::fault) {
            if task.refused.is_some() {
                // the seed records it as failed
                faults.push(fault.under(pointer).recorded());
                continue;
            }
            let passes = seed::passes_over(&fault, &task.fields);
            match passes {
                None => {}
                Some(Passes::Task) => lost = true,
                Some(Passes::Field(key)) => drop(task.fields.remove(key)),
            }
            let fault = fault.under(pointer);
            faults.push(if passes.is_some() { fault.ignored() } else { fault });
        }
    }
    (!lost).then_some(task)
}

/// Converted to text; empty is as if absent.
fn name(reader: &mut Reader<'_>) -> Option<String> {
    let name = match reader.value("name")? {
        Value::String(text) => text.clone(),
        value @ (Value::Number(_) | Value::Bool(_)) => ld_shared::pytext::Str(value).to_string(),
        other => {
            reader.forgiving(|reader| reader.refuse("name", "a text", ""));
            ld_shared::pytext::Str(other).to_string()
        }
    };
    Some(name).filter(|name| !name.is_empty())
}

/// The whole part of a number, or of a text with a whole number; below 0 it is 0.
fn weight(reader: &mut Reader<'_>, mode: Mode) -> u64 {
    let Some(value) = reader.value("weight") else { return 1 };
    let weight = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.trim().parse::<i64>().ok().map(|n| n as f64),
        _ => None,
    };
    let Some(weight) = weight.filter(|weight| *weight < 1e12) else {
        let refuse = |reader: &mut Reader<'_>| {
            reader.refuse("weight", "a number, or a text with a whole number", "placeholders cannot stand here");
        };
        // only a weighted tick looks at weights, and there the seed's breaks off
        if mode == Mode::Weighted {
            refuse(reader);
        } else {
            reader.forgiving(refuse);
        }
        return 1;
    };
    weight.max(0.0) as u64
}

fn predicate(reader: &mut Reader<'_>, key: &str) -> Option<Predicate> {
    let value = reader.value(key)?;
    // whatever the seed does not understand is false there
    let (predicate, fault) = Predicate::read(value);
    let pointer = reader.at(key);
    if let Some(fault) = fault {
        reader.fault(fault.under(&pointer).ignored());
    }
    Some(predicate)
}

/// What an entry of a list is, as far as it is any, and what is wrong with it.
type Entry<T> = fn(&Value) -> (Option<T>, Option<Fault>);

/// Reads a list; `lost` becomes true if the seed loses the task for an entry of it.
fn each<T>(reader: &mut Reader<'_>, key: &str, read: Entry<T>, lost: &mut bool) -> Vec<T> {
    let base = reader.at(key);
    let mut entries = Vec::new();
    for (i, item) in reader.list(key).unwrap_or_default().iter().enumerate() {
        let (entry, fault) = read(item);
        entries.extend(entry);
        if let Some(fault) = fault {
            *lost |= !fault.is_ignored();
            reader.fault(fault.under(&format!("{base}/{i}")).ignored());
        }
    }
    entries
}

/// Notes placeholders that can never be filled in: the seed loses such a task.
fn placeholders(value: &Value, pointer: &str, faults: &mut Vec<Fault>) -> bool {
    let mut lost = false;
    each_text(value, pointer, &mut |pointer, text| {
        if let Some(reason) = Template::fault(text) {
            let help = "write ${randint(LOWEST,HIGHEST)} with two whole numbers";
            faults.push(Fault::new(pointer, reason).help(help).ignored());
            lost = true;
        }
        for (placeholder, remedy) in Template::unknown_fakers(text) {
            // the seed sends its text
            let fault = Fault::new(pointer, format!("`{placeholder}` names no method of Faker"));
            faults.push(fault.help(remedy).ignored());
        }
    });
    lost
}

/// Calls `with` for every text in `value` (not for keys), with its pointer.
pub(crate) fn each_text(value: &Value, pointer: &str, with: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) => with(pointer, text),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                each_text(item, &format!("{pointer}/{i}"), with);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                each_text(item, &format!("{pointer}{}", step(key)), with);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
