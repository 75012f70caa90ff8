//! Runs in databases: what a document keeps, what is kept by itself, and how two are compared.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::store::{self, Missing};
use ld_master::target::{Law, Options, Target};
use ld_tests::document::{and, closed};
use ld_tests::postgres::Postgres;
use ld_tests::process::{Cluster, Finished, Process, command, output_of};
use ld_tests::wait::{PATIENCE, pause};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// Columns of a request as both databases list them.
const ROWS: &str = "SELECT outcome, method, test_url, name, status_code, response_time_ms, response_length, error \
                    FROM load_density_records ORDER BY id";

fn target() -> Target {
    Target::start(Options { latency: Law::LogNormal(Duration::from_millis(8), 0.3), ..Options::default() }).unwrap()
}

fn start_test(target: &Target, load: &Value) -> Value {
    let url = |path: &str| format!("http://{}{path}", target.addr());
    let test = json!({
        "user_detail_dict": {"user": "fast_http_user"},
        "tasks": [
            {"method": "get", "request_url": url("/a"), "name": "a", "headers": {"Authorization": "Bearer hunter2"}},
            {"method": "get", "request_url": url("/b"), "name": "b"},
        ],
    });
    json!(["LD_start_test", and(test, load)])
}

fn ld_master(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = command("ld-master", folder);
    command.args(arguments);
    Process::start("ld-master", command).wait(LIMIT)
}

/// Rows of a query by Python's own module, as JSON lists: the seed reads its files so.
fn sqlite(path: &Path, sql: &str) -> Vec<Value> {
    let script =
        "import json,sqlite3,sys\nfor r in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(json.dumps(r))";
    let text = output_of("python3", &["-c", script, &path.display().to_string(), sql]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn three_workers_leave_the_same_rows_in_both_databases() {
    let Some(server) = Postgres::start() else {
        ld_tests::skip("PostgreSQL is not installed");
        return;
    };
    let target = target();
    let persist =
        |path: &str| json!(["LD_persist_records", {"database_path": path, "label": "ünï", "metadata": {"n": 1}}]);
    let document = json!([start_test(&target, &closed(6, 2.0)), persist("runs.db"), persist(&server.url)]);
    let mut cluster = Cluster::start(&document, 3, &["-v"]);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    assert!(!finished.stderr.contains("hunter2") && !finished.stdout.contains("hunter2"), "{}", finished.stderr);
    let file = cluster.folder.path().join("runs.db");
    let rows = sqlite(&file, ROWS);
    assert_eq!(rows.len() as u64, summary.ended());
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        number => number.to_string(),
    };
    // each database writes numbers in its own way
    let bits = |text: &str| text.parse::<f64>().map(f64::to_bits).ok();
    let same = |a: &str, b: &str| a == b || bits(a).is_some() && bits(a) == bits(b);
    for (row, line) in rows.iter().zip(server.query(ROWS)) {
        let fields: Vec<String> = row.as_array().unwrap().iter().map(text).collect();
        let others: Vec<&str> = line.split('|').collect();
        assert!(fields.iter().zip(&others).all(|(a, b)| same(a, b)) && fields.len() == others.len(), "{row} {line}");
    }
    assert_eq!(server.query("SELECT count(*) FROM load_density_records"), [rows.len().to_string()]);
    assert_eq!(sqlite(&file, "SELECT label, metadata_json FROM load_density_runs"), [json!(["ünï", "{\"n\": 1}"])]);
    let kept = fs::read(&file).unwrap();
    assert!(!String::from_utf8_lossy(&kept).contains("hunter2"), "a header's secret is in the plan that is kept");
    same_answers(&file.display().to_string(), &server.url);
    let database = format!("{}2", server.url);
    server.query("CREATE DATABASE postgres2");
    let finished = ld_master(cluster.folder.path(), &["runs", "compare", "1", "1", "--store", &server.url]);
    finished.expect_code(0).expect_said("nothing moved");
    let list = json!([["LD_list_runs", [database]], ["LD_fetch_run_records", [database, 7]]]).to_string();
    let finished = ld_master(cluster.folder.path(), &["run-str", &list, "--results", "-"]);
    finished.expect_code(0);
    assert_eq!(finished.stdout.matches(r#""value":[]"#).count(), 2, "{}", finished.stdout);
}

/// Both stores, which hold the same run, answer everything alike.
fn same_answers(file: &str, server: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut one = store::open(file, Missing::Fail).await.unwrap();
        let mut other = store::open(server, Missing::Fail).await.unwrap();
        assert_eq!(one.fetch(1).await.unwrap(), other.fetch(1).await.unwrap());
        assert_eq!(one.saved(5).await.unwrap(), other.saved(5).await.unwrap());
        let id = one.saved(5).await.unwrap().remove(0).measured.unwrap().uuid.unwrap();
        for name in ["1", "latest", "previous", "ünï", &id, id.get(..9).unwrap(), "7", "nobody"] {
            assert_eq!(one.find(name).await.unwrap(), other.find(name).await.unwrap(), "{name}");
        }
        let (a, b) = (one.kept(1).await.unwrap().unwrap(), other.kept(1).await.unwrap().unwrap());
        assert_eq!((&a.plan, &a.result, a.evidence.frame()), (&b.plan, &b.result, b.evidence.frame()));
        for (name, kept) in &a.evidence.names {
            let also = &b.evidence.names[name];
            assert_eq!((&kept.response, kept.failed, &kept.blocks), (&also.response, also.failed, &also.blocks));
        }
        one.prune(1, 1).await.unwrap();
        other.prune(1, 1).await.unwrap();
        assert_eq!(one.list(-1).await.unwrap().len(), other.list(-1).await.unwrap().len());
        one.close().await;
        other.close().await;
    });
}

#[test]
fn a_database_that_cannot_be_written_fails_its_action_and_nothing_else() {
    let target = target();
    let folder = tempfile::tempdir().unwrap();
    let persist = json!(["LD_persist_records", ["missing/runs.db"]]);
    let document = json!([start_test(&target, &closed(2, 1.0)), persist]).to_string();
    let finished = ld_master(folder.path(), &["run-str", &document, "--summary", "s.json", "--results", "r.jsonl"]);
    finished.expect_code(1).expect_said("its folder does not exist").expect_said("counts add up");
    let summary: Value = serde_json::from_slice(&fs::read(folder.path().join("s.json")).unwrap()).unwrap();
    assert!(summary["totals"]["requests"].as_u64().unwrap() > 0);
    let results = fs::read_to_string(folder.path().join("r.jsonl")).unwrap();
    assert!(results.contains(r#""kind":"OperationalError""#), "{results}");
}

#[test]
fn runs_are_kept_by_themselves_and_compared() {
    let target = target();
    let folder = tempfile::tempdir().unwrap();
    let document = json!([start_test(&target, &closed(8, 4.0))]).to_string();
    for n in 1..=2 {
        let said = format!("kept as run {n}");
        let finished = ld_master(folder.path(), &["run-str", &document, "--data-dir", "state", "--summary", "s.json"]);
        finished.expect_code(0).expect_said(&said);
    }
    let runs = |arguments: &[&str]| ld_master(folder.path(), &[&["--data-dir", "state", "runs"], arguments].concat());
    runs(&["list"]).expect_code(0).expect_said("passed");
    runs(&["show", "latest"]).expect_code(0).expect_said("total");
    runs(&["compare", "previous", "latest", "--fail-on", "regression"]).expect_code(0).expect_said("nothing moved");
    runs(&["compare", "1", "s.json", "--json"]).expect_code(0).expect_said("loaddensity.compare/1");
    runs(&["compare", "1", "nobody"]).expect_code(2).expect_said("no run `nobody`");
    runs(&["list", "--store", "nowhere.db"]).expect_code(2).expect_said("there is no such file");
    runs(&["rescue"]).expect_code(0).expect_said("no run is left without its master");
    fs::write(folder.path().join("file"), "").unwrap();
    let finished = ld_master(folder.path(), &["run-str", &document, "--data-dir", "file/state"]);
    finished.expect_code(3).expect_said("cannot make its folder");
}

#[test]
fn a_slower_name_is_named_and_nothing_else() {
    let (base, slow) =
        (target(), Options { latency: Law::LogNormal(Duration::from_micros(9_600), 0.3), ..Options::default() });
    let slow = Target::start(slow).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = |b: &Target| {
        let mut test = start_test(&base, &closed(10, 10.0));
        test[1]["tasks"][1]["request_url"] = format!("http://{}/b", b.addr()).into();
        ld_master(folder.path(), &["run-str", &json!([test]).to_string(), "--data-dir", "state"]).expect_code(0);
    };
    run(&base);
    run(&slow);
    let compare = ["runs", "compare", "1", "2", "--data-dir", "state", "--json", "--fail-on", "regression"];
    let finished = ld_master(folder.path(), &compare);
    finished.expect_code(1);
    let value: Value = serde_json::from_str(&finished.stdout).unwrap();
    let moved = value["moved"].as_array().unwrap();
    assert!(moved.iter().all(|m| m["name"] == "b" && m["worse"] == true), "{value}");
    assert!(moved.iter().any(|m| m["metric"] == "p50"), "{value}");
}

#[test]
fn a_kill_in_the_middle_of_a_write_leaves_a_sound_database() {
    let target = target();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("k.db");
    let mut actions = vec![start_test(&target, &closed(50, 2.0))];
    actions.extend((0..400).map(|_| json!(["LD_persist_records", ["k.db"]])));
    let mut command = command("ld-master", folder.path());
    command.args(["run-str", &json!(actions).to_string()]);
    let mut process = Process::start("ld-master", command);
    ld_tests::wait::wait_for("the first rows", PATIENCE, || file.metadata().ok().filter(|meta| meta.len() > 200_000));
    pause(Duration::from_millis(70));
    process.signal(Signal::KILL);
    process.wait(PATIENCE);
    assert_eq!(sqlite(&file, "PRAGMA integrity_check"), [json!(["ok"])]);
    // every run has all of its records, or is not there
    let counts =
        "SELECT DISTINCT (SELECT count(*) FROM load_density_records WHERE run_id = r.id) FROM load_density_runs r";
    assert_eq!(sqlite(&file, counts).len(), 1);
    assert_eq!(
        sqlite(
            &file,
            "SELECT count(*) FROM load_density_records WHERE run_id NOT IN (SELECT id FROM load_density_runs)"
        ),
        [json!([0])]
    );
}
