//! `LD_start_test`: a test as documents write it, and the plan that is made of it.
//!
//! The way: [`StartTest::read`] turns arguments into typed values and notes every fault (the
//! checker of documents runs it before anything starts), [`compile`] reads the files and the
//! environment and makes the [`Plan`](ld_shared::plan::Plan).

mod compile;
mod csv_source;
mod descriptors;
mod driver;
mod files;
mod load;
mod retry;
mod runner;
mod scenarios;
mod seed;
mod settings;
mod tasks;
mod thresholds;
mod throttle;

pub use compile::{CompileContext, Compiled, TEMPLATES, compile};
pub use csv_source::{CsvOrder, CsvSource};
pub use files::Files;
pub use runner::Runner;
pub(crate) use tasks::{COMMON, each_text};

use crate::script::reader::Reader;
use crate::script::{CommandSpec, Fault, Kind, Parameter};
use ld_shared::fault::did_you_mean;
use ld_shared::plan::{Covers, MasterLoss, TaskPlan, ThrottlePlan, WorkerLoss};
use ld_shared::targets::TargetList;
use ld_shared::threshold::Threshold;
use ld_shared::time::RunTime;
use scenarios::{Draft, Drafts};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A test, read and checked but for what only its files and the environment can tell.
#[derive(Clone, Debug)]
pub struct StartTest {
    /// As they were given.
    arguments: Map<String, Value>,
    /// Its kinds of users.
    scenarios: Vec<Draft>,
    /// The user that runs `setup` and `teardown`.
    stage: Draft,
    setup: Vec<TaskPlan>,
    teardown: Vec<TaskPlan>,
    /// `None`: until somebody stops it.
    test_time: Option<RunTime>,
    warmup: RunTime,
    graceful_stop: RunTime,
    iterations: Option<u64>,
    records: settings::Records,
    throttle: Option<ThrottlePlan>,
    seed: Option<u64>,
    variables: Map<String, Value>,
    csv_sources: Vec<CsvOrder>,
    thresholds: Vec<Threshold>,
    on_worker_loss: WorkerLoss,
    on_master_loss: MasterLoss,
    allow_targets: Option<TargetList>,
    allow_missing_workers: bool,
    runner: Runner,
    web: Option<(String, u16)>,
    warnings: Vec<String>,
}

const ANY: Kind = Kind::Any;

/// The command.
pub const SPEC: CommandSpec = CommandSpec {
    name: "LD_start_test",
    parameters: &[
        // the seed's first six, in its order
        // required unless every scenario has its own: `read` sees to that
        Parameter::new("user_detail_dict", Kind::OrNull(&Kind::Object)),
        Parameter::new("user_count", ANY),
        Parameter::new("spawn_rate", ANY),
        Parameter::new("test_time", ANY),
        Parameter::new("web_ui_dict", Kind::OrNull(&Kind::Object)),
        Parameter::new("runner_mode", ANY),
        Parameter::new("tasks", ANY).keyword(),
        Parameter::new("variables", Kind::OrNull(&Kind::Object)).keyword(),
        Parameter::new("csv_sources", Kind::OrNull(&Kind::List)).keyword(),
        Parameter::new("host", Kind::OrNull(&Kind::Text)).keyword(),
        Parameter::new("arrival_rate", ANY).keyword(),
        Parameter::new("max_in_flight", ANY).keyword(),
        Parameter::new("arrivals", ANY).keyword(),
        Parameter::new("load_shape", ANY).keyword(),
        Parameter::new("shape_config", ANY).keyword(),
        Parameter::new("iterations", ANY).keyword(),
        Parameter::new("warmup", ANY).keyword(),
        Parameter::new("wait_time", ANY).keyword(),
        Parameter::new("thresholds", ANY).keyword(),
        Parameter::new("connections", ANY).keyword(),
        Parameter::new("timeouts", ANY).keyword(),
        Parameter::new("tls", ANY).keyword(),
        Parameter::new("http_version", ANY).keyword(),
        Parameter::new("graceful_stop", ANY).keyword(),
        Parameter::new("on_missing_workers", ANY).keyword(),
        Parameter::new("records", ANY).keyword(),
        Parameter::new("seed", ANY).keyword(),
        Parameter::new("status_check", ANY).keyword(),
        Parameter::new("expected_workers", ANY).keyword(),
        Parameter::new("scenarios", Kind::OrNull(&Kind::List)).keyword(),
        Parameter::new("on_start", ANY).keyword(),
        Parameter::new("on_stop", ANY).keyword(),
        Parameter::new("setup", ANY).keyword(),
        Parameter::new("teardown", ANY).keyword(),
        Parameter::new("retry", ANY).keyword(),
        Parameter::new("master_bind_host", ANY).keyword(),
        Parameter::new("master_bind_port", ANY).keyword(),
        Parameter::new("master_host", ANY).keyword(),
        Parameter::new("master_port", ANY).keyword(),
        Parameter::new("throttle", ANY).keyword(),
        Parameter::new("on_worker_loss", ANY).keyword(),
        Parameter::new("on_master_loss", ANY).keyword(),
        Parameter::new("allow_targets", ANY).keyword(),
        // known, with a later version
        Parameter::new("proxy", Kind::Later).keyword(),
    ],
    check: Some(|arguments, pointer, faults| {
        StartTest::read(arguments, pointer, faults);
    }),
};

impl StartTest {
    /// Reads the arguments (by name), which stand at `pointer`. `None` if there was any fault;
    /// all of them are added to `faults`. Which keys there are is the checker's matter ([`SPEC`]).
    pub fn read(arguments: &Map<String, Value>, pointer: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let before = faults.len();
        let mut warnings = Vec::new();
        let mut of_runner = Reader::new(arguments, pointer, faults);
        let (runner, web) = (runner::read(&mut of_runner, &mut warnings), runner::web_ui(&mut of_runner));
        let arguments = &with_tasks(arguments, &runner);
        let mut reader = Reader::new(arguments, pointer, faults);
        if arguments.get("user_detail_dict").is_none_or(Value::is_null) && reader.value("scenarios").is_none() {
            let fault = Fault::new(pointer, format!("`{}` without `user_detail_dict`", SPEC.name));
            let given = arguments.contains_key("user_detail_dict");
            let (class, text) = if given {
                ("AttributeError", "'NoneType' object has no attribute 'get'")
            } else {
                ("TypeError", "start_test() missing 1 required positional argument: 'user_detail_dict'")
            };
            reader.fault(fault.help("add `user_detail_dict`: an object").raised(class, text));
        }
        let Drafts { scenarios, stage, test_time } = scenarios::read(&mut reader, &mut warnings);
        let length = thresholds::Length { test_time, warmup: warmup(&mut reader, test_time) };
        let test = Self {
            arguments: arguments.clone().into_owned(),
            runner,
            web,
            setup: stage.hook(&mut reader, "setup"),
            teardown: stage.hook(&mut reader, "teardown"),
            test_time,
            warmup: length.warmup,
            graceful_stop: RunTime::from_secs(reader.duration("graceful_stop", true, "").unwrap_or(5.0)),
            iterations: reader.whole("iterations", 1, "leave it out for as many as the time allows"),
            records: settings::records(&mut reader),
            throttle: throttle::read(&mut reader, "(test)", Covers::Test),
            seed: reader.whole("seed", 0, ""),
            variables: reader.object("variables").map(|variables| variables.map().clone()).unwrap_or_default(),
            csv_sources: csv_sources(&mut reader),
            thresholds: thresholds::read(&mut reader, length, &mut warnings),
            on_worker_loss: match reader.choice("on_worker_loss", &["redistribute", "degrade", "abort"]) {
                Some("degrade") => WorkerLoss::Degrade,
                Some("abort") => WorkerLoss::Abort,
                _ => WorkerLoss::Redistribute,
            },
            allow_targets: settings::allow_targets(&mut reader),
            on_master_loss: match reader.choice("on_master_loss", &["stop", "finish"]) {
                Some("finish") => MasterLoss::Finish,
                _ => MasterLoss::Stop,
            },
            allow_missing_workers: reader.choice("on_missing_workers", &["refuse", "start"]) == Some("start"),
            scenarios,
            stage,
            warnings,
        };
        test.shared_iterations(&mut reader);
        faults.iter().skip(before).all(Fault::is_ignored).then_some(test)
    }

    /// A total of iterations can be dealt among users, or among arrivals, but not between both.
    fn shared_iterations(&self, reader: &mut Reader<'_>) {
        let models: BTreeSet<_> = self.scenarios.iter().map(|scenario| scenario.plan.load.model()).collect();
        if self.iterations.is_some() && models.len() > 1 {
            let message = "`iterations` over scenarios of users and of arrivals: it is not clear whose they are";
            let fault = Fault::new(reader.at("iterations"), message);
            reader.fault(fault.help("leave it out and give `test_time`, or make two tests of it"));
        }
    }

    /// The command's result, as the seed gives it: the arguments that it ran with.
    pub fn outcome(&self) -> Value {
        let given = |key: &str, default: Value| self.arguments.get(key).cloned().unwrap_or(default);
        json!({
            "user_detail": given("user_detail_dict", Value::Null),
            "user_count": given("user_count", load::USER_COUNT.into()),
            "spawn_rate": given("spawn_rate", load::SPAWN_RATE.into()),
            "test_time": given("test_time", load::TEST_TIME.into()),
            "web_ui": given("web_ui_dict", Value::Null),
            "runner_mode": given("runner_mode", "local".into()),
        })
    }

    /// Where it runs.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// Host and port at which the HTTP API is served while it runs.
    pub fn web(&self) -> Option<&(String, u16)> {
        self.web.as_ref()
    }

    /// What the user should know before it starts, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether it runs until somebody stops it.
    pub fn is_endless(&self) -> bool {
        self.test_time.is_none() && self.iterations.is_none()
    }
}

/// From an object of arguments by name; the error names the first fault. The checker of documents
/// has been there before, so there is none.
impl<'de> Deserialize<'de> for StartTest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let arguments = Map::deserialize(deserializer)?;
        let mut faults = Vec::new();
        Self::read(&arguments, "", &mut faults).ok_or_else(|| {
            let first = faults.first().map(ToString::to_string).unwrap_or_default();
            serde::de::Error::custom(first.trim_start_matches("error: "))
        })
    }
}

/// `user_detail_dict`: the key of the users' protocol, and options of protocols.
fn user(reader: &mut Reader<'_>) -> (Arc<str>, Map<String, Value>) {
    const DEFAULT: &str = "fast_http_user";
    let Some(mut detail) = reader.object("user_detail_dict") else { return (DEFAULT.into(), Map::new()) };
    let known: Vec<&str> = std::iter::once("user").chain(driver::options()).collect();
    detail.only(&known, &[]);
    let key = detail.text("user").unwrap_or(DEFAULT);
    let pointer = detail.at("user");
    if driver::of(key).is_none() {
        detail.fault(unknown_user(key).under(&pointer));
    }
    let is_option = |key: &String| key != "user" && known.contains(&key.as_str());
    let given = detail.map().iter().filter(|(key, value)| is_option(key) && !value.is_null());
    let mut options: Map<String, Value> = given.map(|(key, value)| (key.clone(), value.clone())).collect();
    let base = pointer.trim_end_matches("/user").to_owned();
    for fault in driver::option_faults(&options) {
        detail.fault(fault.under(&base));
    }
    descriptors::attach(&mut options);
    (key.into(), options)
}

/// The fault of a user key that there is none for.
fn unknown_user(key: &str) -> Fault {
    let fault = Fault::new("", format!("unknown user type `{key}`")).help(did_you_mean(key, driver::keys()));
    fault.raised("ValueError", format!("Unsupported user type: {key}"))
}

/// A worker gets its tasks from its master: it need not have any of its own.
fn with_tasks<'a>(arguments: &'a Map<String, Value>, runner: &Runner) -> Cow<'a, Map<String, Value>> {
    let has = |key: &str| arguments.get(key).is_some_and(|value| !value.is_null());
    if !matches!(runner, Runner::Worker { .. }) || has("tasks") || has("scenarios") {
        return Cow::Borrowed(arguments);
    }
    let mut arguments = arguments.clone();
    arguments.insert("tasks".into(), json!([{"method": "get", "request_url": "http://localhost/"}]));
    Cow::Owned(arguments)
}

/// The warm-up lies inside the test's time and leaves some of it.
fn warmup(reader: &mut Reader<'_>, test_time: Option<RunTime>) -> RunTime {
    let warmup = RunTime::from_secs(reader.duration("warmup", true, "").unwrap_or(0.0));
    if test_time.is_some_and(|end| warmup >= end) {
        let help = "the warm-up lies inside `test_time`: make it shorter or the test longer";
        let fault = Fault::new(reader.at("warmup"), "the warm-up leaves nothing of the test to measure");
        reader.fault(fault.help(help));
    }
    warmup
}

fn csv_sources(reader: &mut Reader<'_>) -> Vec<CsvOrder> {
    let base = reader.at("csv_sources");
    let items = reader.list("csv_sources").unwrap_or_default();
    let orders = items.iter().enumerate();
    orders.filter_map(|(i, item)| CsvOrder::read(item, &format!("{base}/{i}"), reader.faults())).collect()
}

#[cfg(test)]
mod tests;
