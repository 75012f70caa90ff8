//! Scenarios, hooks and retries.

use super::*;
use ld_shared::plan::{Plan, RetryPlan};

fn get(path: &str) -> Value {
    json!([{"method": "get", "request_url": format!("http://127.0.0.1{path}")}])
}

fn several(extra: &Value, scenarios: &Value) -> Value {
    let mut arguments = json!({"user_detail_dict": {"user": "fast_http_user"}, "scenarios": scenarios});
    for (key, value) in extra.as_object().unwrap() {
        arguments[key] = value.clone();
    }
    arguments
}

fn plan(arguments: &Value) -> Plan {
    Plan::clone(&compiled(arguments).unwrap().plan)
}

fn faults(arguments: &Value) -> Vec<String> {
    faults_of(arguments.as_object().unwrap())
}

#[test]
fn scenarios_take_what_they_leave_out_from_the_test() {
    let extra =
        json!({"host": "http://a", "wait_time": 1, "user_count": 7, "timeouts": {"request": 9}, "test_time": 5});
    let plan = plan(&several(
        &extra,
        &json!([
            {"tasks": get("/")},
            {"name": "open", "arrival_rate": 30, "host": "http://b", "wait_time": null, "tasks": get("/")},
            {"user_detail_dict": {"user": "http_user"}, "user_count": 3, "timeouts": {"connect": 1}, "tasks": get("/")},
        ]),
    ));
    let names: Vec<&str> = plan.scenarios.iter().map(|s| &*s.name).collect();
    assert_eq!(names, ["scenario-1", "open", "scenario-3"]);
    let first_numbers: Vec<u64> = plan.scenarios.iter().map(|s| s.first_number).collect();
    assert_eq!(first_numbers, [0, 7, 157]);
    let [a, b, c] = &plan.scenarios[..] else { panic!() };
    assert_eq!((a.host.as_deref(), a.wait_time, a.request_timeout), (Some("http://a"), Some((1.0, 1.0)), 9.0));
    assert_eq!((b.host.as_deref(), b.wait_time, b.load.model()), (Some("http://b"), None, "open"));
    assert_eq!((&*c.user, c.connect_timeout, c.request_timeout), ("http_user", 1.0, 60.0));
    let Load::Closed(load) = &c.load else { panic!() };
    assert_eq!(load.peak(RunTime::MAX), 3);
}

#[test]
fn faults_of_scenarios_point_at_what_is_wrong() {
    let tasks = || get("/");
    let table = [
        (
            json!({"tasks": get("/")}),
            json!([{"tasks": tasks()}]),
            "`tasks` beside `scenarios`: it is not clear who runs them at /tasks",
        ),
        (json!({}), json!([]), "at least one scenario, found none at /scenarios"),
        (json!({}), json!([{}]), "a scenario without `tasks` sends nothing at /scenarios/0\n"),
        (json!({}), json!([5]), "a scenario is an object, found 5 at /scenarios/0"),
        (
            json!({}),
            json!([{"tasks": tasks(), "user_cont": 1}]),
            "unknown key `user_cont` of a scenario at /scenarios/0/user_cont\n help: did you mean `user_count`?",
        ),
        (
            json!({}),
            json!([{"tasks": tasks(), "test_time": 1}]),
            "`test_time` in a scenario: it belongs to the whole test at /scenarios/0/test_time",
        ),
        (
            json!({}),
            json!([{"tasks": tasks(), "name": "x"}, {"tasks": tasks(), "name": "x"}]),
            "two scenarios are named `x` at /scenarios/1/name",
        ),
        (
            json!({"user_count": 0}),
            json!([{"tasks": tasks()}, {"tasks": tasks()}]),
            "`user_count` takes a whole number, 1 or more, found 0 at /user_count",
        ),
        (json!({"wait_time": -1}), json!([{"tasks": tasks(), "wait_time": 1}]), "found -1 at /wait_time"),
        (json!({}), json!([{"tasks": tasks(), "user_count": 0}]), "found 0 at /scenarios/0/user_count"),
        (
            json!({}),
            json!([{"tasks": tasks()}, {"tasks": {"tasks": [{"method": "get", "url": "http://x/", "waight": 1}]}}]),
            "at /scenarios/1/tasks/tasks/0/waight",
        ),
        (
            json!({"on_start": [{"method": "gett", "url": "http://x/"}]}),
            json!([{"tasks": tasks()}, {"tasks": tasks()}]),
            "at /on_start/0/method",
        ),
        (
            json!({"iterations": 5}),
            json!([{"tasks": tasks()}, {"tasks": tasks(), "arrival_rate": 1}]),
            "scenarios of users and of arrivals",
        ),
        (json!({"setup": [{"method": "get", "url": "/relative"}]}), json!([{"tasks": tasks()}]), "at /setup/0"),
        (
            json!({"retry": {"transiant": 1}}),
            json!([{"tasks": tasks()}]),
            "unknown key `transiant` at /retry/transiant",
        ),
    ];
    for (extra, scenarios, message) in table {
        let seen = faults(&several(&extra, &scenarios));
        assert!(seen.len() == 1 && seen[0].contains(message), "{extra} {scenarios}: {seen:?}");
    }
    let nobody = faults(&json!({"tasks": get("/")}));
    assert_eq!(nobody, ["error: `LD_start_test` without `user_detail_dict`\n help: add `user_detail_dict`: an object"]);
    assert_eq!(faults(&json!({"scenarios": [{"tasks": get("/")}]})), Vec::<String>::new());
}

#[test]
fn certificates_are_a_scenarios_own() {
    let scenarios = json!([{"tasks": get("/")}, {"tasks": get("/"), "tls": {"ca": "missing.pem"}}]);
    let faults = compiled(&several(&json!({"tls": {"ca": "data/once.csv"}}), &scenarios)).unwrap_err();
    let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/1/1/tls/ca", "/1/1/scenarios/1/tls/ca"]);
}

#[test]
fn a_test_of_shapes_ends_with_the_longest() {
    let shape = |seconds| json!({"stages": [{"duration": seconds, "users": 4, "spawn_rate": 100}]});
    let shaped = |seconds| json!({"tasks": get("/"), "load_shape": "stages", "shape_config": shape(seconds)});
    let both = plan(&several(&json!({}), &json!([shaped(3), shaped(8)])));
    assert_eq!(both.test_time, Some(RunTime::from_secs(8.0)));
    let users: Vec<f64> = both.scenarios.iter().map(|s| s.load.profile().at(RunTime::from_secs(5.0))).collect();
    assert_eq!(users, [0.0, 4.0], "the shorter shape is over");
    let mixed = plan(&several(&json!({"test_time": 20}), &json!([shaped(3), {"tasks": get("/")}])));
    assert_eq!(mixed.test_time, Some(RunTime::from_secs(20.0)));
    let endless = plan(&several(&json!({"test_time": null}), &json!([shaped(3), {"tasks": get("/")}])));
    assert_eq!(endless.test_time, None);
}

#[test]
fn iterations_are_shared_by_arrivals_in_their_order() {
    let scenarios = json!([
        {"tasks": get("/"), "arrival_rate": 10}, {"tasks": get("/"), "arrival_rate": 30},
        {"tasks": get("/"), "arrival_rate": 20, "arrivals": "poisson"},
    ]);
    for total in [1, 2, 3, 60, 61, 599] {
        let plan = plan(&several(&json!({"iterations": total, "test_time": 10}), &scenarios));
        let most: Vec<u64> = plan.scenarios.iter().map(|s| plan.most_arrivals(s).unwrap()).collect();
        assert_eq!(most.iter().sum::<u64>(), total, "{most:?}");
        assert!(total < 60 || most[1] >= 3 * most[0] - 3, "{most:?}");
    }
}

#[test]
fn hooks_and_retries_reach_the_plan() {
    let plan = plan(&test(&json!({
        "on_start": [{"method": "post", "url": "http://x/login", "extract": [{"from": "json_path", "path": "t", "var": "t"}]}],
        "on_stop": {"get": {"url": "http://x/out"}}, "retry": {"transient": 1, "base_delay": "50ms"},
        "setup": get("/setup"), "teardown": [{"method": "get", "url": "http://x/", "retry": {}}], "on_start_": null,
    })));
    let scenario = &plan.scenarios[0];
    assert_eq!((scenario.on_start.len(), scenario.on_stop.len(), plan.setup.len(), plan.teardown.len()), (1, 1, 1, 1));
    let retry = RetryPlan {
        transient: 1,
        flaky: 2,
        permanent: 0,
        base_delay: 0.05,
        max_delay: 5.0,
        backoff_factor: 2.0,
        jitter: 0.25,
    };
    assert!(plan.all_tasks().take(3).all(|task| task.retry == Some(retry)));
    assert_eq!(plan.teardown[0].retry, Some(RetryPlan { transient: 5, base_delay: 0.1, ..retry }));
    assert!(plan.stage.is_some());
    let without = super::compiled(&test(&json!({}))).unwrap();
    assert!(without.plan.stage.is_none());
    for (retry, message) in [
        (json!({"jitter": 2}), "`jitter` takes a number from 0 to 1, found 2 at /retry/jitter"),
        (json!({"base_delay": 9, "max_delay": 1}), "`max_delay` is shorter than `base_delay` at /retry/max_delay"),
        (json!(3), "`retry` takes an object, found 3 at /retry"),
    ] {
        let seen = faults(&test(&json!({"retry": retry})));
        assert!(seen.len() == 1 && seen[0].contains(message), "{seen:?}");
    }
}
