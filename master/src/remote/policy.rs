//! What callers from outside may do. Whoever started the process may do everything.
//!
//! Checked when a document comes in, so that nothing of it runs in vain, and again before each action:
//! documents may bring others. Targets are checked by workers too, on the address really dialled.

use super::files;
use crate::command::{CommandError, Commands, Found};
use crate::script::{Action, Arguments, Document};
use ld_shared::fault::Fault;
use ld_shared::load::{Load, What};
use ld_shared::plan::Plan;
use ld_shared::targets::{TargetList, TargetRule};
use ld_shared::template::Template;
use ld_shared::time::RunTime;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What callers from outside may do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Targets that may be dialled.
    pub targets: TargetList,
    /// Names of environment variables that `${env.NAME}` may read.
    pub env: Vec<String>,
    /// Files lie below it.
    pub root: PathBuf,
    /// Most load.
    pub caps: Caps,
}

/// Most load of one test.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Users at once (open model: iterations that are open at once).
    pub users: u64,
    /// Iterations per second of the open model.
    pub rate: f64,
    /// Length.
    pub time: Duration,
}

impl Default for Caps {
    fn default() -> Self {
        Self { users: 10_000, rate: 100_000.0, time: Duration::from_hours(1) }
    }
}

/// Keys of tests under which a port would be opened or another machine asked for orders.
const CLOSED_KEYS: [&str; 2] = ["runner_mode", "web_ui_dict"];
/// Deepest nesting of arguments that is looked through: JSON is read no deeper.
const DEEPEST: usize = 200;

impl Policy {
    /// Loopback alone, no environment, files below the working folder, caps that suit a test machine.
    pub fn narrow(root: PathBuf) -> Self {
        Self { targets: loopback(), env: Vec::new(), root, caps: Caps::default() }
    }

    /// What of a document is not allowed.
    pub fn faults(&self, document: &Document, commands: &Commands) -> Vec<Fault> {
        document.actions.iter().flat_map(|action| self.faults_of(action, commands)).collect()
    }

    /// What of an action is not allowed.
    pub fn faults_of(&self, action: &Action, commands: &Commands) -> Vec<Fault> {
        let mut faults = Vec::new();
        let at = action.arguments_pointer();
        let (mut arguments, mut files) = (named(action), Vec::new());
        if let Some(Found::Entry(entry)) = commands.find(&action.name) {
            (arguments, files) = (action.named(&entry.spec), entry.spec.files().collect());
            if !entry.open {
                let message = format!("`{}` is not open to callers from outside", action.name);
                let help = "run it in a document of the command line";
                faults.push(Fault::new(format!("{}/0", action.pointer), message).help(help));
            }
        }
        for (key, value) in &arguments {
            let pointer = format!("{at}/{key}");
            if action.name == "LD_start_test" && CLOSED_KEYS.contains(&key.as_str()) && is_set(key, value) {
                let message = format!("`{key}` is not open to callers from outside");
                faults.push(Fault::new(&pointer, message).help("leave it out"));
            }
            if files.contains(&key.as_str()) {
                self.each_file(value, &pointer, &mut faults);
            }
            self.walk(value, &pointer, 0, &mut faults);
        }
        faults
    }

    /// Variables of the environment that a value names.
    fn walk(&self, value: &Value, pointer: &str, depth: usize, faults: &mut Vec<Fault>) {
        if depth > DEEPEST {
            return faults.push(Fault::new(pointer, "nested too deeply"));
        }
        match value {
            Value::String(text) => {
                for name in Template::env_names(text).filter(|name| !self.env.iter().any(|known| known == name)) {
                    let message = format!("`${{env.{name}}}` may not be read by callers from outside");
                    let help = format!("start ld-master with --allow-env {name}");
                    faults.push(Fault::new(pointer, message).help(help));
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.walk(value, &format!("{pointer}/{index}"), depth + 1, faults);
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                    self.walk(value, &pointer, depth + 1, faults);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn each_file(&self, value: &Value, pointer: &str, faults: &mut Vec<Fault>) {
        match value {
            Value::String(path) => faults.extend(self.file(path).err().map(|why| {
                let help = format!("files of callers from outside lie below {}", self.root.display());
                Fault::new(pointer, why).help(help)
            })),
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.each_file(value, &format!("{pointer}/{index}"), faults);
                }
            }
            _ => {}
        }
    }

    /// Whether a file may be read or written.
    pub fn file(&self, path: &str) -> Result<(), String> {
        // a database elsewhere is neither a file nor a target that workers check
        if path.contains("://") {
            return Err(format!("`{}` is no file", crate::redact::urls(path)));
        }
        match files::is_below(&self.root, Path::new(path)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("`{path}` lies outside the working folder")),
            Err(error) => Err(format!("`{path}` cannot be used: {error}")),
        }
    }

    /// Whether `${env.NAME}` may be read.
    pub fn may_read(&self, name: &str) -> bool {
        self.env.iter().any(|known| known == name)
    }

    /// The plan within what is allowed; why it is not.
    pub fn confine(&self, plan: &mut Plan) -> Result<(), CommandError> {
        plan.allow_targets.push(self.targets.clone());
        let Caps { users, rate, time } = self.caps;
        let length = plan.test_time.map(|length| Duration::from_nanos(length.0));
        if length.is_none_or(|length| length > time) {
            let seen = length.map_or("a test without end".into(), |length| format!("{} s", length.as_secs_f64()));
            return Err(over("test_time", &seen, &format!("{} s", time.as_secs_f64()), "--max-time"));
        }
        let end = plan.test_time.unwrap_or(RunTime::MAX);
        let (mut planned_users, mut planned_rate) = (0, 0.0);
        for scenario in &plan.scenarios {
            match &scenario.load {
                Load::Closed(closed) => planned_users += closed.peak(end),
                Load::Open(open) => {
                    planned_users += open.max_in_flight;
                    planned_rate += scenario.load.profile().peak(end);
                }
            }
        }
        if planned_users > users {
            return Err(over("users", &planned_users.to_string(), &users.to_string(), "--max-users"));
        }
        if planned_rate > rate {
            return Err(over("the rate", &planned_rate.to_string(), &rate.to_string(), "--max-rate"));
        }
        Ok(())
    }

    /// Whether the load may be changed so.
    pub fn may_change(&self, what: What) -> Result<(), CommandError> {
        match what {
            What::SetUsers { users, .. } if users > self.caps.users => {
                Err(over("users", &users.to_string(), &self.caps.users.to_string(), "--max-users"))
            }
            What::SetRate { rate, .. } if rate > self.caps.rate => {
                Err(over("the rate", &rate.to_string(), &self.caps.rate.to_string(), "--max-rate"))
            }
            _ => Ok(()),
        }
    }
}

/// This machine, by whatever name.
pub fn loopback() -> TargetList {
    let rule = |text: &str| text.parse::<TargetRule>().expect("these are rules");
    TargetList(["127.0.0.0/8", "::1"].map(rule).into())
}

fn over(what: &str, seen: &str, most: &str, flag: &str) -> CommandError {
    let message = format!("{what}: {seen} is more than callers from outside may ask for, which is {most}");
    CommandError::failed("ValueError", message).with_help(format!("ask for less, or start ld-master with {flag}"))
}

/// Whether a key says more than that there is nothing to say.
fn is_set(key: &str, value: &Value) -> bool {
    !(value.is_null() || (key == "runner_mode" && value == "local"))
}

/// Arguments of a command that is not known by its parameters.
fn named(action: &Action) -> Map<String, Value> {
    match &action.arguments {
        Arguments::None => Map::new(),
        Arguments::Named(map) => map.clone(),
        Arguments::Positional(values) => {
            values.iter().enumerate().map(|(index, value)| (index.to_string(), value.clone())).collect()
        }
    }
}
