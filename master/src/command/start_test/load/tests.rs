use super::*;
use serde_json::{Map, json};

/// A load and the end of its test.
struct Seen {
    load: Load,
    test_time: Option<RunTime>,
}

fn read_load(arguments: &Value) -> Result<(Seen, Vec<String>), Vec<String>> {
    let map: &Map<String, Value> = arguments.as_object().unwrap();
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(map, "", &mut faults);
    let end = End::read(&mut reader);
    let LoadPlan { load, length } = read(&mut reader, end, &mut warnings);
    let plan = Seen { load, test_time: end.of([length]) };
    if faults.is_empty() { Ok((plan, warnings)) } else { Err(faults.iter().map(ToString::to_string).collect()) }
}

/// The values of the load at these seconds, and its end.
fn values(arguments: &Value, at: &[f64]) -> (Vec<f64>, Option<f64>) {
    let (plan, _) = read_load(arguments).unwrap();
    let profile = plan.load.profile();
    let rounded = |s: &f64| (profile.at(RunTime::from_secs(*s)) * 1e6).round() / 1e6;
    (at.iter().map(rounded).collect(), plan.test_time.map(RunTime::as_secs))
}

#[test]
fn loads() {
    let seen = values(&json!({"user_count": 20, "spawn_rate": 0.5, "test_time": null}), &[0.0, 10.0, 40.0, 99.0]);
    assert_eq!(seen, (vec![0.0, 5.0, 20.0, 20.0], None));
    let seen = values(&json!({"arrival_rate": 0.5, "test_time": 3}), &[0.0, 9.0]);
    assert_eq!(seen, (vec![0.5, 0.5], Some(3.0)));

    // up to 10 at 5/s, hold, down by 2/s from there: after 3 s only 4 is reached
    let stages = json!({"load_shape": "stages", "shape_config": {"stages": [
        {"duration": 4, "users": 10, "spawn_rate": 5}, {"duration": "3s", "users": 0, "spawn_rate": 2},
        {"duration": 10, "users": 6},
    ]}});
    let seen = values(&stages, &[0.0, 1.0, 2.0, 4.0, 6.0, 7.0, 8.0, 9.0, 16.0]);
    assert_eq!(seen, (vec![0.0, 5.0, 10.0, 10.0, 6.0, 4.0, 5.0, 6.0, 6.0], Some(17.0)));

    let rates = json!({"load_shape": "stages", "test_time": 5, "shape_config": {"stages": [
        {"duration": 2, "rate": 100}, {"duration": 4, "rate": 50, "spawn_rate": 25}, {"duration": 1, "rate": 0},
    ]}});
    let seen = values(&rates, &[0.0, 1.9, 2.0, 3.0, 4.0, 6.5]);
    assert_eq!(seen, (vec![100.0, 100.0, 100.0, 75.0, 50.0, 0.0], Some(5.0)));
    let Load::Open(open) = read_load(&rates).unwrap().0.load else { panic!() };
    assert_eq!(open.max_in_flight, 1000);

    let spike = json!({"load_shape": "SPIKE", "shape_config": {
        "baseline_users": 10, "spike_users": 30, "pre_seconds": 5, "spike_seconds": 5, "post_seconds": 5}});
    let seen = values(&spike, &[1.0, 4.0, 6.0, 9.0, 11.0, 14.0]);
    assert_eq!(seen, (vec![10.0, 10.0, 20.0, 30.0, 20.0, 10.0], Some(15.0)));
    let spike =
        json!({"load_shape": "spike", "shape_config": {"baseline_rate": 10, "spike_rate": 30, "post_seconds": 0}});
    assert_eq!(values(&spike, &[0.0, 29.0, 30.0]), (vec![10.0, 10.0, 30.0], Some(60.0)));

    let soak = json!({"load_shape": "soak", "shape_config": {"users": 60}});
    assert_eq!(values(&soak, &[30.0, 60.0, 660.0, 690.0]), (vec![30.0, 60.0, 60.0, 30.0], Some(720.0)));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let table = [
        (json!({"user_count": -1}), "`user_count` takes a whole number, 1 or more, found -1"),
        (json!({"user_count": "2"}), "`user_count` takes a whole number, 1 or more, found '2'"),
        (json!({"spawn_rate": 0}), "`spawn_rate` takes a number above 0, found 0"),
        (json!({"test_time": 0}), "`test_time` takes a time above 0"),
        (json!({"test_time": -1}), "`test_time` takes a time above 0"),
        (json!({"test_time": 1e12}), "`test_time` takes a time above 0"),
        (json!({"arrival_rate": 0}), "`arrival_rate` takes a number above 0, found 0"),
        (json!({"arrival_rate": 5, "user_count": 5}), "`user_count` beside `arrival_rate`: two loads for one test"),
        (json!({"max_in_flight": 5}), "`max_in_flight` goes with a rate of arrivals"),
        (json!({"arrivals": "poisson"}), "`arrivals` goes with a rate of arrivals"),
        (json!({"shape_config": {}}), "`shape_config` without `load_shape`"),
        (json!({"load_shape": "stages"}), "`load_shape` `stages` without `shape_config`"),
        (json!({"load_shape": "zzz", "shape_config": {}}), "unknown `load_shape` `zzz`"),
        (json!({"load_shape": "stages", "shape_config": {"stages": []}}), "a shape of stages without a stage"),
        (
            json!({"load_shape": "stages", "shape_config": {"stages": [{"users": 1}]}}),
            "a stage without `duration` at /shape_config/stages/0",
        ),
        (
            json!({"load_shape": "stages", "shape_config": {"stages": [{"duration": 1}]}}),
            "a stage without `users` or `rate` at /shape_config/stages/0",
        ),
        (
            json!({"load_shape": "stages", "shape_config": {"stages": [
                {"duration": 1, "users": 1}, {"duration": 1, "rate": 1}]}}),
            "users and rates are mixed in one shape at /shape_config/stages/1",
        ),
        (
            json!({"load_shape": "spike", "shape_config": {"baseline_users": 1, "spike_rate": 2}}),
            "users and rates are mixed in one shape at /shape_config",
        ),
        (json!({"load_shape": "soak", "shape_config": {"users": 0}}), "the shape `soak` never has any load"),
        (
            json!({"load_shape": "soak", "shape_config": {"users": 5, "hold_secods": 5}}),
            "unknown key `hold_secods` at /shape_config/hold_secods\n help: did you mean `hold_seconds`?",
        ),
    ];
    for (arguments, message) in table {
        let faults = read_load(&arguments).map(|_| ()).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains(message), "{arguments}: {faults:?}");
    }
}

#[test]
fn a_shape_replaces_users() {
    let both = json!({"user_count": 5, "load_shape": "soak", "shape_config": {"users": 5, "spawn_rate": 3}});
    let (_, warnings) = read_load(&both).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}
