//! Limits, unique rows and secrets over a cluster, against what the target saw.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::target::{Options, Target};
use ld_tests::document::{and, closed, test};
use ld_tests::process::{Cluster, Process, command};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

fn target() -> Target {
    Target::start(Options { keep_arrivals: true, ..Options::default() }).unwrap()
}

#[test]
fn a_throttle_holds_over_three_workers() {
    for users in [20, 2] {
        let target = target();
        let url = format!("http://{}/", target.addr());
        let load = and(closed(users, 6.0), &json!({"throttle": 10}));
        let (finished, summary) = Cluster::start(&test(&url, &load), 3, &[]).finish(LIMIT);
        finished.expect_code(0);
        summary.check_conservation();
        let arrivals = target.arrivals().len();
        assert!((57..=61).contains(&arrivals), "{users} users: {arrivals} requests in 6 s at 10/s");
    }
}

#[test]
fn each_unique_row_goes_out_once_and_ends_the_test() {
    let target = target();
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.csv");
    let text = (0..500).map(|row| row.to_string()).collect::<Vec<_>>().join("\n");
    fs::write(&rows, format!("id\n{text}")).unwrap();
    let url = format!("http://{}/row/${{csv.rows.id}}", target.addr());
    let source = json!({"name": "rows", "file_path": rows, "unique": true, "at_end": "stop_test"});
    let load = and(closed(12, 60.0), &json!({"csv_sources": [source], "wait_time": 0.005}));
    let (finished, summary) = Cluster::start(&test(&url, &load), 3, &[]).finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
    assert!(summary.number("/run/duration_s") < 30.0);
    let seen: Vec<String> = target.arrivals().into_iter().map(|arrival| arrival.path).collect();
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (500, 500));
}

#[test]
fn secrets_show_nowhere_and_stay_on_this_machine() {
    const SECRET: &str = "hunter2-9/x y";
    let target = target();
    let url = format!("http://{}/${{secret.PW}}?pw=${{secret.PW}}", target.addr());
    let task = json!({"method": "get", "request_url": url, "name": "n ${secret.PW}",
        "assertions": [{"type": "contains", "value": "${secret.PW}"}]});
    let document = test(&url, &and(closed(2, 0.5), &json!({"tasks": [task], "wait_time": 0.1})));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("d.json"), document.to_string()).unwrap();
    fs::write(folder.path().join("s.env"), format!("PW={SECRET}\n")).unwrap();
    let run = |flags: &[&str]| {
        let mut command = command("ld-master", folder.path());
        command.current_dir(folder.path()).args(["run", "d.json"]).args(flags);
        Process::start("ld-master run", command).wait(LIMIT)
    };
    let missing = run(&[]);
    missing.expect_code(2).expect_said("there is no secret `PW`");
    let refused = run(&["--secrets", "s.env", "--bind", "127.0.0.1:0", "--expected-workers", "1", "--tls", "off"]);
    refused.expect_code(2).expect_said("without --tls off");
    let out = ["--secrets", "s.env", "-v", "--summary", "sum.json", "--html", "r.html", "--results", "r.jsonl"];
    let finished = run(&out);
    finished.expect_code(1);
    assert!(target.arrivals().iter().any(|arrival| arrival.path.contains("hunter2")), "it was sent");
    let files = ["sum.json", "r.html", "r.jsonl"].map(|file| fs::read_to_string(folder.path().join(file)).unwrap());
    for text in files.iter().chain([&finished.stdout, &finished.stderr]) {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(files[0].contains("n ***"));
}
