mod scenarios;

use super::*;
use crate::script::{Arguments, Document, Strictness, check, parse};
use ld_shared::load::{Arrivals, Load};
use ld_shared::plan::{AtEnd, Connections, Dealing, Mode, StatusCheck};
use ld_shared::record::{Bodies, RecordPolicy};
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/command/start_test/tests")
}

fn document(name: &str) -> Document {
    parse(&std::fs::read(folder().join("actions").join(name)).unwrap(), Strictness::Strict).unwrap()
}

/// The arguments of the tests in a document.
fn tests_of(document: &Document) -> Vec<Map<String, Value>> {
    let tests = document.actions.iter().filter(|action| action.name == SPEC.name);
    tests.map(|action| action.named(&SPEC)).collect()
}

fn faults_of(arguments: &Map<String, Value>) -> Vec<String> {
    let mut faults = Vec::new();
    StartTest::read(arguments, "", &mut faults);
    faults.iter().map(ToString::to_string).collect()
}

fn env(name: &str) -> Option<String> {
    match name {
        "LD_HTTP_PORT" => Some("18080".into()),
        "LD_DEAD_PORT" => Some("1".into()),
        "LD_NAME" => Some("env-value".into()),
        _ => None,
    }
}

fn compiled_with(
    arguments: &Map<String, Value>,
    variables: &Value,
    sources: &[CsvSource],
) -> Result<Compiled, Vec<Fault>> {
    let mut faults = Vec::new();
    let test = StartTest::read(arguments, "", &mut faults).ok_or(faults)?;
    let variables = variables.as_object().unwrap();
    let (base_dir, secrets) = (folder(), crate::secrets::SecretStore::default());
    let context = CompileContext {
        pointer: "/1/1",
        variables,
        sources,
        env: &env,
        secrets: &secrets,
        files: &Files::of_the_user(&base_dir),
        seed: 42,
    };
    compile(test, &context)
}

fn compiled(arguments: &Value) -> Result<Compiled, Vec<Fault>> {
    compiled_with(arguments.as_object().unwrap(), &json!({}), &[])
}

fn test(extra: &Value) -> Value {
    let mut arguments = json!({
        "user_detail_dict": {"user": "fast_http_user"},
        "tasks": [{"method": "get", "request_url": "http://127.0.0.1/"}],
    });
    for (key, value) in extra.as_object().unwrap() {
        arguments[key] = value.clone();
    }
    arguments
}

#[test]
fn the_seeds_documents_compile() {
    for name in [
        "01_http_smoke_all_reports",
        "03_auth_login_extract",
        "04_weighted",
        "07_builtin_placeholders",
        "08_legacy_method_map",
    ] {
        let document = document(&format!("{name}.json"));
        for arguments in tests_of(&document) {
            let compiled = compiled_with(&arguments, &json!({}), &[]).unwrap();
            let json = compiled.plan.to_json();
            assert_eq!(serde_json::from_slice::<ld_shared::plan::Plan>(&json).unwrap(), *compiled.plan, "{name}");
        }
    }
    let weighted = compiled_with(&tests_of(&document("04_weighted.json"))[0], &json!({}), &[]).unwrap();
    let scenario = &weighted.plan.scenarios[0];
    assert_eq!(scenario.mode, Mode::Weighted);
    assert_eq!(scenario.tasks.iter().map(|task| task.weight).collect::<Vec<_>>(), [3, 1, 1, 2, 0]);
    let legacy = compiled_with(&tests_of(&document("08_legacy_method_map.json"))[0], &json!({}), &[]).unwrap();
    let methods: Vec<&Value> = legacy.plan.scenarios[0].tasks.iter().map(|task| &task.fields["method"]).collect();
    assert_eq!(methods, ["get", "post", "patch"]);
    assert_eq!(legacy.plan.env["LD_HTTP_PORT"], "18080");
}

/// 05 and 21 hold one operator and one assertion that the seed ignores in silence.
#[test]
fn what_the_seed_ignores_is_refused_and_the_rest_compiles() {
    let without = |name: &str, task: &str| {
        let mut arguments = tests_of(&document(name)).remove(0);
        let seen = faults_of(&arguments);
        let tasks = arguments.get_mut("tasks").unwrap();
        let list = if tasks.is_array() { tasks } else { &mut tasks["tasks"] };
        list.as_array_mut().unwrap().retain(|entry| entry["name"] != task);
        compiled_with(&arguments, &json!({"stage": "beta"}), &[]).unwrap();
        seen
    };
    assert_eq!(
        without("05_conditional.json", "unknown-op-skip"),
        [
            "error: unknown operator `gt` in a condition at /tasks/tasks/13/run_if/gt\n help: accepted: equals, not_equals, in, truthy"
        ]
    );
    assert_eq!(
        without("21_success_decided_by_assertions.json", "unknown-assertion-ignored"),
        [
            "error: unknown assertion type `regex` at /tasks/3/assertions/0/type\n help: accepted: status_code, contains, not_contains, json_path, header"
        ]
    );
}

#[test]
fn registered_sources_reach_the_plan() {
    let document = document("06_csv_sources.json");
    let mut sources = Vec::new();
    for action in &document.actions[..2] {
        let Arguments::Named(arguments) = &action.arguments else { panic!() };
        let order = match arguments.get("sources") {
            Some(list) => list[0].clone(),
            None => Value::Object(arguments.clone()),
        };
        let order = CsvOrder::read(&order, "", &mut vec![]).unwrap();
        sources.push(order.load(&Files::of_the_user(&folder())).unwrap());
    }
    let compiled = compiled_with(&tests_of(&document)[0], &json!({}), &sources).unwrap();
    let seen: Vec<_> =
        compiled.plan.sources.iter().map(|source| (&*source.name, source.rows, source.dealing)).collect();
    assert_eq!(seen, [("once", 3, Dealing::Once(AtEnd::Placeholder)), ("users", 3, Dealing::Cycle)]);
    let blob = &compiled.blobs[&compiled.plan.sources[0].blob];
    assert_eq!(serde_json::from_slice::<Vec<Vec<String>>>(blob).unwrap().len(), 3);
    assert_eq!(compiled.warnings, ["`${csv.none.x}` at /tasks/2/name has no value and is sent as written"]);
}

#[test]
fn a_missing_file_is_named_with_its_place() {
    let arguments = test(&json!({"csv_sources": [{"name": "u", "file_path": "data/missing.csv"}]}));
    let faults = compiled(&arguments).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].pointer, "/1/1/csv_sources/0/file_path");
    assert_eq!(
        faults[0].message,
        "cannot read `data/missing.csv` of the data source `u`: No such file or directory (os error 2)"
    );
    let faults = compiled(&test(&json!({"tls": {"ca": "data/once.csv"}}))).unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "error: `data/once.csv` holds no certificate at /1/1/tls/ca\n help: give a file in PEM form"
    );
}

#[test]
fn every_key_of_part_1_is_understood() {
    let compiled = compiled(&test(&json!({
        "arrival_rate": 200, "arrivals": "poisson", "max_in_flight": 7, "test_time": "2m", "warmup": "10s",
        "iterations": 1000, "wait_time": [0.1, "200ms"], "thresholds": ["p95 < 200ms", "failure_rate < 1%"],
        "connections": "shared:10", "timeouts": {"connect": "500ms", "request": 5}, "tls": {"verify": false},
        "http_version": "1.1", "graceful_stop": 0, "on_missing_workers": "start", "seed": 9,
        "records": {"keep": 10, "bodies": "all:2KiB"}, "status_check": "assertions", "runner_mode": "local",
        "host": "http://${env.LD_NAME}", "variables": {"a": 1}, "web_ui_dict": null,
    })))
    .unwrap();
    let plan = &compiled.plan;
    let scenario = &plan.scenarios[0];
    let Load::Open(load) = &scenario.load else { panic!() };
    assert_eq!((load.arrivals, load.max_in_flight, load.rate.tail()), (Arrivals::Poisson, 7, 200.0));
    assert_eq!((plan.test_time, plan.warmup), (Some(RunTime::from_secs(120.0)), RunTime::from_secs(10.0)));
    assert_eq!((plan.iterations, plan.seed, plan.graceful_stop), (Some(1000), 9, RunTime(0)));
    assert_eq!((plan.records.keep, plan.records.bodies), (10, Bodies::All(2048)));
    assert_eq!((scenario.connections, scenario.status_check), (Connections::Shared(10), StatusCheck::Assertions));
    assert_eq!((scenario.connect_timeout, scenario.request_timeout), (0.5, 5.0));
    assert_eq!((scenario.wait_time, scenario.host.as_deref()), (Some((0.1, 0.2)), Some("http://env-value")));
    assert!(!scenario.tls.verify && compiled.allow_missing_workers && compiled.thresholds.len() == 2);
    assert_eq!(compiled.warnings.len(), 1, "wait_time: {:?}", compiled.warnings);
}

#[test]
fn all_requests_go_to_a_file_of_a_known_form() {
    let compiled_with = |records: Value| compiled(&test(&json!({"records": records})));
    let all = compiled_with(json!({"all": "all.csv.zst", "keep": 0})).unwrap();
    assert!(all.plan.records.all && all.plan.records.keep == 0);
    assert!(all.records_file.unwrap().ends_with("all.csv.zst"));
    let none = compiled_with(json!({"keep": 5})).unwrap();
    assert_eq!((none.plan.records.all, none.records_file), (false, None));
    let faults = compiled_with(json!({"all": "missing/all.jsonl"})).unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "error: cannot write `missing/all.jsonl`: its folder does not exist at /1/1/records/all"
    );
    for (records, message) in [
        (json!({"all": "all.txt"}), "`all` takes the name of a file that ends in .csv.zst, .csv, .jsonl.zst, .jsonl"),
        (json!({"all": ".csv"}), "`all` takes the name of a file"),
        (json!({"all": true}), "`all` takes a text"),
        (json!({"bodies": "all:900MiB"}), "`bodies` takes a size of at most 4 MiB"),
    ] {
        let seen = faults_of(test(&json!({"records": records})).as_object().unwrap());
        assert!(seen.len() == 1 && seen[0].contains(message), "{records}: {seen:?}");
    }
}

#[test]
fn defaults_are_the_seeds() {
    let compiled = compiled(&test(&json!({}))).unwrap();
    let plan = &compiled.plan;
    let Load::Closed(load) = &plan.scenarios[0].load else { panic!() };
    assert_eq!((load.peak(RunTime::MAX), load.users.length()), (50, RunTime::from_secs(5.0)));
    assert_eq!((plan.test_time, plan.graceful_stop), (Some(RunTime::from_secs(60.0)), RunTime::from_secs(5.0)));
    assert_eq!((plan.seed, plan.scenarios[0].connect_timeout), (42, 60.0));
    assert_eq!(plan.records, RecordPolicy::default());
    assert!(compiled.warnings.is_empty());
    let endless = serde_json::from_value::<StartTest>(test(&json!({"test_time": null}))).unwrap();
    assert!(endless.is_endless());
    assert_eq!(endless.outcome()["test_time"], Value::Null);
    assert_eq!(endless.outcome()["user_count"], 50);
    let refused = serde_json::from_value::<StartTest>(test(&json!({"user_count": 0}))).unwrap_err();
    assert!(refused.to_string().starts_with("`user_count` takes a whole number, 1 or more, found 0"));
}

#[test]
fn task_forms_and_coercions() {
    let faults = |tasks: Value| faults_of(test(&json!({"tasks": tasks})).as_object().unwrap());
    let get = json!({"method": "get", "url": "http://x/"});
    assert_eq!(faults(json!({"mode": "CONDITIONAL", "tasks": {"get": {"url": "http://x/"}}})), Vec::<String>::new());
    assert_eq!(
        faults(json!([{"method": "get", "url": "http://x/", "weight": null, "run_if": null, "timeout": null}])),
        Vec::<String>::new()
    );
    let table = [
        (json!([]), "a test needs at least one task"),
        (json!(null), "a test without `tasks` sends nothing"),
        (json!("x"), "`tasks` is a list or an object, found 'x'"),
        (get.clone(), "`tasks` is a list of tasks, found a single task"),
        (
            json!({"mode": "weighted", "tasks": [{"method": "get", "url": "http://x/", "weight": -1}]}),
            "all weights are 0",
        ),
        (json!([{"method": "get", "url": "http://x/", "weight": "${var.w}"}]), "`weight` takes a number"),
        (
            json!([{"method": "get", "url": "http://x/", "waight": 1}]),
            "unknown key `waight` in a task of fast_http_user",
        ),
        (json!([{"method": "get", "url": "http://x/", "throttle": {}}]), "a throttle without `rps`"),
        (
            json!([{"method": "get", "url": "http://x/?n=${faker.frist_name}"}]),
            "`${faker.frist_name}` names no method of Faker",
        ),
        (json!([{"method": "get", "url": "http://x/", "user": "mqt_user"}]), "unknown user type `mqt_user`"),
        (json!({"get": "http://x/"}), "the task of `get` is an object"),
        (
            json!([{"method": "get", "url": "http://x/", "think_time": [2, 1]}]),
            "`think_time` takes seconds or [min, max]",
        ),
        (
            json!([{"method": "get", "url": "http://x/", "data": {"a": ["${randint(a,b)}"]}}]),
            "randint: `a` is not a whole number at /tasks/0/data/a/0",
        ),
    ];
    for (tasks, message) in table {
        let seen = faults(tasks.clone());
        assert!(seen.len() == 1 && seen[0].contains(message), "{tasks}: {seen:?}");
    }
    assert!(
        check(&document("03_auth_login_extract.json"), &[SPEC][..])
            .iter()
            .all(|fault| fault.message.contains("command"))
    );
}

/// The tasks that the seed skips in silence are for the protocol to refuse.
#[test]
fn fields_of_a_protocol_are_its_matter() {
    let arguments = tests_of(&document("02_http_user_all_methods.json")).remove(0);
    let pointers: Vec<_> =
        faults_of(&arguments).iter().filter_map(|f| Some(f.split(" at ").nth(1)?.to_owned())).collect();
    assert!(pointers.iter().all(|at| ["/tasks/11", "/tasks/12", "/tasks/13"].iter().any(|task| at.starts_with(task))));
}
