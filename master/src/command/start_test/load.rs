//! The load of a test: how many users or arrivals, and until when.

use crate::script::Fault;
use crate::script::reader::Reader;
use crate::script::spec::shown;
use ld_shared::fault::Seed;
use ld_shared::load::{Arrivals, Closed, Load, Open, Profile};
use ld_shared::pytext::Repr;
use ld_shared::time::RunTime;
use serde_json::Value;

/// Default of `user_count`.
pub(super) const USER_COUNT: u64 = 50;
/// Default of `spawn_rate`, users per second.
pub(super) const SPAWN_RATE: u64 = 10;
/// Default of `test_time`, seconds.
pub(super) const TEST_TIME: u64 = 60;
/// The length of a test that ends at once.
const AT_ONCE: RunTime = RunTime(1_000_000);
/// Open iterations that are allowed by default: as many as start in so many seconds.
const IN_FLIGHT_SECONDS: f64 = 10.0;

/// What a document says of the load of one kind of users.
pub(super) struct LoadPlan {
    pub(super) load: Load,
    /// How long its shape is; `None`: it has none and goes on for ever.
    pub(super) length: Option<RunTime>,
}

/// What a document says of the end of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Default,
    /// null: when its load ends, or somebody stops it.
    Open,
    /// At this instant.
    At(RunTime),
}

impl End {
    /// Reads `test_time`.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        if reader.is_null("test_time") {
            return Self::Open;
        }
        let help = "a test takes some time: seconds, or null to run until it is stopped";
        if reader.value("test_time").and_then(Value::as_f64).is_some_and(|seconds| seconds <= 0.0) {
            reader.forgiving(|reader| reader.duration("test_time", false, help));
            return Self::At(AT_ONCE);
        }
        let raises = Seed::Raises("TypeError", "must be real number, not str".into());
        let seconds = reader.with_seed(&raises, |reader| reader.duration("test_time", false, help));
        seconds.map_or(Self::Default, |seconds| Self::At(RunTime::from_secs(seconds)))
    }

    /// The end of a test of loads with these lengths: a test of shapes ends with the longest, or
    /// at `test_time` if that is earlier. `None`: when somebody stops it.
    pub(super) fn of(self, lengths: impl IntoIterator<Item = Option<RunTime>>) -> Option<RunTime> {
        let (mut longest, mut for_ever) = (None, false);
        for length in lengths {
            longest = longest.max(length);
            for_ever |= length.is_none();
        }
        match (self, longest) {
            (Self::At(end), Some(longest)) if !for_ever => Some(end.min(longest)),
            (Self::At(end), _) => Some(end),
            (Self::Open, _) if for_ever => None,
            (_, Some(longest)) => Some(longest),
            (_, None) => Some(RunTime::from_secs(TEST_TIME as f64)),
        }
    }
}

/// Which of the two models a value over time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Users,
    Rate,
}

/// Reads all keys that say how much load there is.
pub(super) fn read(reader: &mut Reader<'_>, end: End, warnings: &mut Vec<String>) -> LoadPlan {
    let mut length = None;
    let (unit, profile) = if reader.value("load_shape").is_some() {
        let (unit, profile) = shape(reader, warnings);
        length = Some(profile.length());
        (unit, profile)
    } else {
        if reader.value("shape_config").is_some() {
            let fault = Fault::new(reader.at("shape_config"), "`shape_config` without `load_shape`");
            reader.fault(fault.help("add `load_shape`: stages, spike or soak").ignored());
        }
        plain(reader)
    };
    let load = match unit {
        Unit::Users => {
            for key in ["max_in_flight", "arrivals"] {
                if reader.value(key).is_some() {
                    let fault = Fault::new(reader.at(key), format!("`{key}` goes with a rate of arrivals"));
                    reader.fault(fault.help("add `arrival_rate` instead of users, or leave it out"));
                }
            }
            Load::Closed(Closed { users: profile })
        }
        Unit::Rate => {
            let peak = profile.peak(end.of([length]).unwrap_or(RunTime::MAX));
            let default = (peak * IN_FLIGHT_SECONDS).ceil().max(1.0) as u64;
            let max_in_flight = reader.whole("max_in_flight", 1, "it caps iterations that are open at once");
            let arrivals = match reader.choice("arrivals", &["constant", "poisson"]) {
                Some("poisson") => Arrivals::Poisson,
                _ => Arrivals::Constant,
            };
            Load::Open(Open { rate: profile, arrivals, max_in_flight: max_in_flight.unwrap_or(default) })
        }
    };
    LoadPlan { load, length }
}

/// `arrival_rate`, or `user_count` and `spawn_rate`.
fn plain(reader: &mut Reader<'_>) -> (Unit, Profile) {
    if reader.value("arrival_rate").is_some() {
        for key in ["user_count", "spawn_rate"] {
            if reader.value(key).is_some() {
                let fault =
                    Fault::new(reader.at(key), format!("`{key}` beside `arrival_rate`: two loads for one test"));
                reader
                    .fault(fault.help(
                        "`user_count` is a number of users, `arrival_rate` of iterations per second: choose one",
                    ));
            }
        }
        let rate = reader.positive("arrival_rate", "iterations per second, over the whole cluster");
        return (Unit::Rate, Profile::constant(rate.unwrap_or(1.0)));
    }
    let help = "a test needs at least one user";
    let part = reader.value("user_count").and_then(Value::as_f64).filter(|users| users.fract() != 0.0 && *users > 1.0);
    let users = match part {
        // the whole part counts
        Some(part) => {
            reader.forgiving(|reader| reader.whole("user_count", 1, help));
            part.trunc()
        }
        None => reader.whole("user_count", 1, help).unwrap_or(USER_COUNT) as f64,
    };
    let help = "users started per second, fractions allowed, for example 10";
    let spawn_rate = reader.positive("spawn_rate", help).unwrap_or(SPAWN_RATE as f64);
    (Unit::Users, Profile::default().then(users / spawn_rate, 0.0, users))
}

fn shape(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> (Unit, Profile) {
    let nothing = (Unit::Users, Profile::default());
    for key in ["user_count", "spawn_rate"] {
        if reader.value(key).is_some() {
            warnings.push(format!("`{key}` has no effect: `load_shape` says how many users there are"));
        }
    }
    if reader.value("arrival_rate").is_some() {
        let fault = Fault::new(reader.at("arrival_rate"), "`arrival_rate` beside `load_shape`: two loads for one test");
        reader.fault(fault.help("a stage may give `rate` instead of `users`"));
    }
    let named = reader.value("load_shape").map(|shape| Repr(shape).to_string()).unwrap_or_default();
    let text = format!("unknown load shape: {named}; choose from ['soak', 'spike', 'stages']");
    let shape = reader.with_seed(&Seed::Raises("ValueError", text), |reader| {
        reader.choice("load_shape", &["stages", "spike", "soak"])
    });
    let Some(shape) = shape else { return nothing };
    if reader.value("shape_config").is_none() {
        let fault = Fault::new(reader.at("load_shape"), format!("`load_shape` `{shape}` without `shape_config`"));
        reader.fault(fault.help(match shape {
            "stages" => r#"add "shape_config": {"stages": [{"duration": 60, "users": 100, "spawn_rate": 10}]}"#,
            "spike" => r#"add "shape_config": {"baseline_users": 10, "spike_users": 100}"#,
            _ => r#"add "shape_config": {"users": 100, "ramp_seconds": 60, "hold_seconds": 600}"#,
        }));
        return nothing;
    }
    let before = reader.faults().len();
    let Some(mut config) = reader.object("shape_config") else { return nothing };
    let (unit, profile) = match shape {
        "stages" => stages(&mut config),
        "spike" => spike(&mut config),
        _ => soak(&mut config, warnings),
    };
    let idle = profile.peak(RunTime::MAX) <= 0.0 || profile.length() == RunTime(0);
    let pointer = config.pointer().to_owned();
    if idle && reader.faults().len() == before {
        let fault = Fault::new(pointer, format!("the shape `{shape}` never has any load"));
        reader.fault(fault.help("give `users` or `rate` above 0, and times above 0"));
    }
    (unit, profile)
}

/// One target of a shape: go to `level` at `speed` per second (at once if `None`), then hold.
struct Stage {
    seconds: f64,
    level: f64,
    speed: Option<f64>,
}

/// One stage after another, each from where the one before got to.
fn follow(stages: impl IntoIterator<Item = Stage>) -> Profile {
    let mut profile = Profile::default();
    let mut at = 0.0;
    for Stage { seconds, level, speed } in stages {
        let distance: f64 = level - at;
        let needed = speed.map_or(0.0, |speed| distance.abs() / speed);
        if needed > seconds {
            let reached = at + distance.signum() * speed.unwrap_or(0.0) * seconds;
            profile = profile.then(seconds, at, reached);
            at = reached;
        } else {
            profile = profile.then(needed, at, level).then(seconds - needed, level, level);
            at = level;
        }
    }
    profile
}

fn stages(config: &mut Reader<'_>) -> (Unit, Profile) {
    config.only(&["stages"], &[]);
    let base = config.at("stages");
    let items = config.list("stages").unwrap_or_default();
    if items.is_empty() && config.value("stages").is_none_or(Value::is_array) {
        let fault = Fault::new(config.pointer(), "a shape of stages without a stage");
        config.fault(fault.help(r#"add "stages": [{"duration": 60, "users": 100, "spawn_rate": 10}]"#));
    }
    let mut first: Option<Unit> = None;
    let mut read = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let pointer = format!("{base}/{i}");
        let Value::Object(map) = item else {
            config.fault(Fault::new(pointer, format!("a stage is an object, found {}", shown(item))));
            continue;
        };
        let mut stage = Reader::new(map, pointer, config.faults());
        stage.only(&["duration", "users", "rate", "spawn_rate"], &[]);
        if stage.value("duration").is_none() {
            let fault = Fault::new(stage.pointer(), "a stage without `duration`");
            stage.fault(fault.help("add `duration`, seconds"));
        }
        let seconds = stage.duration("duration", false, "").unwrap_or(1.0);
        let Some((unit, level)) = level(&mut stage, "users", "rate") else {
            if stage.value("users").is_none() && stage.value("rate").is_none() {
                let fault = Fault::new(stage.pointer(), "a stage without `users` or `rate`");
                stage.fault(fault.help("add `users`, or `rate` for iterations per second"));
            }
            continue;
        };
        let speed = stage.positive("spawn_rate", "how many more (or fewer) per second").or(default_speed(unit, 1.0));
        if *first.get_or_insert(unit) != unit {
            let fault = Fault::new(stage.pointer(), "users and rates are mixed in one shape");
            stage.fault(fault.help("give `users` in all stages, or `rate` in all"));
        }
        read.push(Stage { seconds, level, speed });
    }
    (first.unwrap_or(Unit::Users), follow(read))
}

/// Users come and go one after another, rates jump unless the document says otherwise.
fn default_speed(unit: Unit, users: f64) -> Option<f64> {
    (unit == Unit::Users).then_some(users)
}

/// The level under one of two keys: a number of users, or a rate.
fn level(reader: &mut Reader<'_>, users: &str, rate: &str) -> Option<(Unit, f64)> {
    if reader.value(users).is_some() && reader.value(rate).is_some() {
        let fault = Fault::new(reader.at(rate), format!("`{rate}` beside `{users}`"));
        reader.fault(fault.help("`users` is a number of users, `rate` of iterations per second: choose one"));
        return None;
    }
    if let Some(users) = reader.whole(users, 0, "") {
        return Some((Unit::Users, users as f64));
    }
    reader.amount(rate, "").map(|rate| (Unit::Rate, rate))
}

fn spike(config: &mut Reader<'_>) -> (Unit, Profile) {
    config.only(
        &[
            "baseline_users",
            "baseline_rate",
            "spike_users",
            "spike_rate",
            "spawn_rate",
            "pre_seconds",
            "spike_seconds",
            "post_seconds",
        ],
        &[],
    );
    let baseline = level(config, "baseline_users", "baseline_rate");
    let spike = level(config, "spike_users", "spike_rate");
    let unit = spike.or(baseline).map_or(Unit::Users, |(unit, _)| unit);
    if baseline.is_some_and(|(other, _)| other != unit) {
        let fault = Fault::new(config.pointer(), "users and rates are mixed in one shape");
        config.fault(fault.help("give `baseline_users` and `spike_users`, or `baseline_rate` and `spike_rate`"));
    }
    let baseline = baseline.map_or(0.0, |(_, level)| level);
    let spike = spike.map_or(baseline, |(_, level)| level);
    let speed = config.positive("spawn_rate", "how many more (or fewer) per second").or(default_speed(unit, 10.0));
    let mut stage = |key, level| Stage { seconds: config.duration(key, true, "").unwrap_or(30.0), level, speed };
    let stages = [stage("pre_seconds", baseline), stage("spike_seconds", spike), stage("post_seconds", baseline)];
    (unit, follow(stages))
}

/// Linear up, hold, linear down.
fn soak(config: &mut Reader<'_>, warnings: &mut Vec<String>) -> (Unit, Profile) {
    config.only(&["users", "rate", "spawn_rate", "ramp_seconds", "hold_seconds", "cooldown_seconds"], &[]);
    let (unit, level) = level(config, "users", "rate").unwrap_or((Unit::Users, 0.0));
    if config.positive("spawn_rate", "").is_some() {
        warnings.push("`spawn_rate` has no effect on a soak: `ramp_seconds` says how fast it goes up".into());
    }
    let mut seconds = |key, default| config.duration(key, true, "").unwrap_or(default);
    let (ramp, hold, cooldown) =
        (seconds("ramp_seconds", 60.0), seconds("hold_seconds", 600.0), seconds("cooldown_seconds", 60.0));
    let mut profile = Profile::default().then(ramp, 0.0, level).then(hold, level, level);
    if cooldown > 0.0 {
        profile = profile.then(cooldown, level, 0.0);
    }
    (unit, profile)
}

#[cfg(test)]
mod tests;
