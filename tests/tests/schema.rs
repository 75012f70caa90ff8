//! The JSON Schema of documents, held against a validator that is not ours, and a project of `init`.

use ld_master::command::Commands;
use ld_master::script::{self, Strictness};
use ld_tests::binaries::{python, test_file, workspace};
use ld_tests::process::{Process, command};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

/// Faults by document, as the validator sees them. `None`: there is no Python.
fn validate(schema: &Value, documents: &BTreeMap<String, String>) -> Option<BTreeMap<String, Vec<String>>> {
    let mut child = Command::new(python()?)
        .arg(test_file("py/check_schema.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let order = json!({"schema": schema, "documents": documents}).to_string();
    child.stdin.take().expect("it is piped").write_all(order.as_bytes()).expect("Python reads its input");
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "the validator refuses the schema itself: see above");
    Some(serde_json::from_slice(&output.stdout).expect("the script prints JSON"))
}

fn schema() -> Value {
    let mut master = command("ld-master", Path::new("/"));
    master.arg("schema");
    let finished = Process::start("ld-master", master).wait(LIMIT);
    finished.expect_code(0);
    serde_json::from_str(&finished.stdout).expect("the schema is JSON")
}

/// Documents of the suites and of `init`, by name.
fn documents() -> BTreeMap<String, String> {
    let folders = ["tests/fixtures/actions", "master/src/command/start_test/tests/actions", "master/assets/init"];
    let mut documents = BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(workspace().join(folder)).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|ending| ending == "json") && name != "settings.json" {
                documents.insert(name, fs::read_to_string(path).expect("it is text"));
            }
        }
    }
    documents
}

/// What the checker accepts, the schema must accept; the editor would cry wolf otherwise.
#[test]
fn what_the_checker_accepts_is_valid() {
    let mut documents = documents();
    let test = |more: Value| {
        let mut test =
            json!({"user_detail_dict": {"user": "fast_http_user"}, "tasks": [{"method": "get", "url": "http://h/"}]});
        test.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([["LD_start_test", test]]).to_string()
    };
    let task = |more: Value| {
        let mut task = json!({"method": "get", "url": "http://h/"});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        test(json!({"tasks": [task]}))
    };
    let good = [
        json!([["LD_clear_records"], ["LD_clear_records", {}], ["LD_clear_records", []], ["LD_summary"]]).to_string(),
        json!({"$schema": "x", "metadata": {"a": 1}, "load_density": [["LD_register_variable", ["a", 1]]]}).to_string(),
        json!([["LD_har_to_tasks", {"har": {"log": {"entries": []}}, "include": ["a"], "exclude": null, "credentials": "Secrets"}]]).to_string(),
        json!([["LD_evaluate_sla", {"rules": [{"type": "latency_p95", "value": "5", "op": "LTE", "name": "x"}]}]]).to_string(),
        json!([["LD_curl_to_task", ["curl http://h"]], ["LD_execute_action", {"action_list": [["LD_summary"]]}]]).to_string(),
        test(json!({"user_count": 2.0, "spawn_rate": 0.5, "test_time": null, "warmup": "1s", "wait_time": {"min": 0, "max": "1s"}})),
        test(json!({"arrival_rate": 5, "max_in_flight": 3, "arrivals": "POISSON", "connections": "shared:3", "timeouts": {"connect": "1s"}})),
        test(json!({"load_shape": "spike", "shape_config": {"baseline_users": 1, "spike_users": 5}, "tls": {"verify": false, "ca": null}})),
        test(json!({"records": "none", "seed": 1, "http_version": "1.1", "runner_mode": null, "variables": {"a": [1]}, "thresholds": ["p95 < 1s"]})),
        test(json!({"records": {"keep": 5, "bodies": "all: 2 KiB"}, "retry": {"transient": 1}, "on_start": [], "setup": null})),
        test(json!({"tasks": {"get": {"url": "http://h/"}, "Post": {"url": "http://h/", "weight": null}}})),
        test(json!({"tasks": {"mode": "Weighted", "tasks": {"get": {"url": "http://h/"}}}})),
        task(json!({"method": " PATCH ", "weight": "2", "run_if": {"EQUALS": [1, "a"]}, "skip_if": 0, "timeout": "5", "cookies": "a=1; b=2"})),
        task(json!({"run_if": {"truthy": "${var.x}"}, "extract": [{"var": "a", "path": "x.y"}, {"var": "b", "from": "STATUS_CODE"}]})),
        task(json!({"assertions": [{"type": "Header", "name": "X"}, {"type": "contains", "value": 5}, {"type": "status_code", "value": "${var.s}"}]})),
        task(json!({"name": 5, "params": {"a": [1, 2], "b": null}, "headers": {"A": null, "B": 1}, "data": {"x": true}, "files": {"f": "x"}})),
        task(json!({"auth": {"type": "BASIC", "username": 1}, "think_time": [0, "1s"], "verify": null, "cert": null, "json": [null]})),
    ];
    documents.extend(good.into_iter().enumerate().map(|(i, text)| (format!("good {i}"), text)));
    let commands = Commands::default();
    let accepted: BTreeMap<String, String> = documents
        .into_iter()
        .filter(|(name, text)| {
            let faults = script::read(text.as_bytes(), Strictness::Strict, &commands).err().unwrap_or_default();
            assert!(faults.is_empty() || !name.starts_with("good"), "{name}: {faults:?}\n{text}");
            faults.is_empty()
        })
        .collect();
    assert!(accepted.len() >= 20, "{} documents", accepted.len());
    let Some(faults) = validate(&schema(), &accepted) else {
        return ld_tests::skip("no Python environment: tests/run makes one");
    };
    for (name, faults) in faults {
        assert!(faults.is_empty(), "{name}: {faults:?}\n{}", accepted[&name]);
    }
}

/// What has a wrong shape is invalid; both say so.
#[test]
fn what_has_a_wrong_shape_is_invalid() {
    let test = |more: Value| {
        let mut test =
            json!({"user_detail_dict": {"user": "fast_http_user"}, "tasks": [{"method": "get", "url": "http://h/"}]});
        test.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([["LD_start_test", test]])
    };
    let task = |more: Value| {
        let mut task = json!({"method": "get", "url": "http://h/"});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        test(json!({"tasks": [task]}))
    };
    let bad = [
        json!([]),
        json!(5),
        json!({"load_densty": [["LD_summary"]]}),
        json!({"load_density": [["LD_summary"]], "more": 1}),
        json!(["LD_summary"]),
        json!([[]]),
        json!([["LD_summary", {}, {}]]),
        json!([["LD_summary", 5]]),
        json!([["LD_summry"]]),
        json!([["LD_summary", {"x": 1}]]),
        json!([["LD_register_variable"]]),
        json!([["LD_register_variable", ["a"]]]),
        json!([["LD_register_variable", ["a", 1, 2]]]),
        json!([["LD_register_variable", {"name": 5, "value": 1}]]),
        json!([["LD_start_test"]]),
        json!([["LD_start_test", {}]]),
        json!([["LD_execute_action", {"action_list": [["LD_summry"]]}]]),
        json!([["LD_evaluate_sla", {"rules": [{"type": "p95", "value": 1}]}]]),
        json!([["LD_har_to_tasks", {"har": {}, "credentials": "hide"}]]),
        test(json!({"user_detail_dict": {"user": "fast_user"}})),
        test(json!({"user_detail_dict": {"usr": "fast_http_user"}})),
        test(json!({"usercount": 5})),
        test(json!({"user_count": 0})),
        test(json!({"user_count": "5"})),
        test(json!({"spawn_rate": 0})),
        test(json!({"test_time": "soon"})),
        test(json!({"wait_time": [1]})),
        test(json!({"connections": "many"})),
        test(json!({"load_shape": "stages", "shape_config": {"stages": [{"users": 5}]}})),
        test(json!({"thresholds": [5]})),
        test(json!({"records": "all"})),
        test(json!({"csv_sources": [{"name": "a"}]})),
        test(json!({"tasks": []})),
        test(json!({"tasks": {"mode": "random", "tasks": [{"method": "get", "url": "http://h/"}]}})),
        test(json!({"tasks": [{"method": "get"}]})),
        // without a method; a mere URL would be a task of sse_user
        test(json!({"tasks": [{"url": "http://h/", "allow_redirects": false}]})),
        task(json!({"method": "gte"})),
        task(json!({"assertion": []})),
        task(json!({"assertions": [{"type": "regex", "value": "a"}]})),
        task(json!({"assertions": [{"type": "contains"}]})),
        task(json!({"extract": [{"from": "header", "var": "x"}]})),
        task(json!({"run_if": {"gt": [1, 2]}})),
        task(json!({"run_if": {"equals": [1]}})),
        task(json!({"headers": []})),
        task(json!({"auth": {"type": "digest"}})),
    ];
    let commands = Commands::default();
    let documents: BTreeMap<String, String> =
        bad.iter().enumerate().map(|(i, document)| (format!("{i:02}"), document.to_string())).collect();
    for text in documents.values() {
        assert!(script::read(text.as_bytes(), Strictness::Strict, &commands).is_err(), "the checker accepts {text}");
    }
    let Some(faults) = validate(&schema(), &documents) else {
        return ld_tests::skip("no Python environment: tests/run makes one");
    };
    let accepted: Vec<_> =
        faults.iter().filter(|(_, faults)| faults.is_empty()).map(|(name, _)| &documents[name]).collect();
    assert!(accepted.is_empty(), "the schema accepts {accepted:#?}");
}

/// `init`, then the command that it names.
#[test]
fn a_project_runs_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut init = command("ld-master", folder.path());
    init.args(["init", "project"]);
    Process::start("ld-master", init).wait(LIMIT).expect_code(0).expect_said("executor_folder.sh");
    let mut again = command("ld-master", folder.path());
    again.args(["-c", "project"]);
    Process::start("ld-master", again).wait(LIMIT).expect_code(2).expect_said("nothing was written");
    let address = format!("127.0.0.1:{}", ld_tests::process::free_port());
    for name in ["keyword1.json", "keyword2.json"] {
        let path = folder.path().join("project/LoadDensity/keyword").join(name);
        let text = fs::read_to_string(&path).expect("init wrote it");
        fs::write(&path, text.replace("127.0.0.1:18080", &address)).expect("it can be changed");
    }
    let mut target = command("ld-master", folder.path());
    target.args(["target", "--listen", &address]);
    let target = Process::start("ld-master target", target);
    let mut run = command("ld-master", &folder.path().join("project"));
    run.args(["run-dir", "LoadDensity/keyword", "--summary", "summary.json"]);
    let finished = Process::start("ld-master", run).wait(LIMIT);
    drop(target);
    finished.expect_code(0);
    for report in ["keyword1.html", "keyword2.html", "keyword2.csv", "summary.json"] {
        assert!(folder.path().join("project").join(report).is_file(), "{report}");
    }
}
