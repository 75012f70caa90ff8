//! Documents, exit codes and ends of a run, as a user meets them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::target::{Law, Options, Target};
use ld_tests::binaries::{test_file, workspace};
use ld_tests::document::{and, closed, open, test};
use ld_tests::process::{Cluster, Finished, Process, command, free_port};
use ld_tests::scripted::{Answer, ScriptedServer};
use ld_tests::seed::http_target as seed_target;
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, pause, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// Runs a document file strictly in `folder`, with a summary.
fn run_file(folder: &Path, document: &Path, port: u16) -> Finished {
    let mut command = command("ld-master", folder);
    command.env("LD_HTTP_PORT", port.to_string()).arg("run").arg(document);
    command.args(["--summary", "summary.json"]);
    Process::start("ld-master run", command).wait(LIMIT)
}

/// Successes and failures of every name.
fn outcomes(summary: &Summary) -> Vec<(String, u64, u64)> {
    let of = |v: &Value, key: &str| v[key].as_u64().expect("names have counts");
    summary.names().into_iter().map(|(name, v)| (name, of(v, "successes"), of(v, "failures"))).collect()
}

#[test]
fn document_03_logs_in_and_only_the_request_without_auth_fails() {
    let Some((_target, port)) = seed_target() else { return };
    let folder = tempfile::tempdir().unwrap();
    let finished = run_file(folder.path(), &test_file("fixtures/actions/03_auth_login_extract.json"), port);
    finished.expect_code(1);
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    let mut names = Vec::new();
    for (name, successes, failures) in outcomes(&summary) {
        let failing = name == "no-auth";
        assert_eq!((successes == 0, failures == 0), (failing, !failing), "{name}: {successes} + {failures}");
        names.push(name);
    }
    names.sort();
    // the engine fills environment and registered variables into names, never what users extract
    assert_eq!(names.len(), 6, "{names:?}");
    for name in ["login", "profile", "basic", "bearer", "no-auth"] {
        assert!(names.iter().any(|n| n == name), "{name} not in {names:?}");
    }
    assert!(fs::read_dir(folder.path()).unwrap().flatten().any(|f| f.path().extension().is_some_and(|e| e == "csv")));
}

#[test]
fn document_04_deals_by_weight() {
    let Some((_target, port)) = seed_target() else { return };
    let folder = tempfile::tempdir().unwrap();
    run_file(folder.path(), &test_file("fixtures/actions/04_weighted.json"), port).expect_code(0);
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    let all = outcomes(&summary);
    let of = |name: &str| all.iter().find(|(n, ..)| n == name).map_or(0, |(_, s, _)| *s) as f64;
    assert!(all.iter().all(|(name, _, failures)| *failures == 0 && name != "w-negative"), "{all:?}");
    let unit = all.iter().map(|(_, s, _)| *s).sum::<u64>() as f64 / 7.0;
    for (name, weight) in [("w3", 3.0), ("w1", 1.0), ("w-default", 1.0), ("w-string", 2.0)] {
        let share = of(name) / unit;
        // five standard deviations of a multinomial share
        let tolerance = 5.0 * (weight / unit).sqrt();
        assert!((share - weight).abs() < tolerance, "{name}: {share} instead of {weight}");
    }
}

#[test]
fn document_08_maps_methods() {
    let Some((_target, port)) = seed_target() else { return };
    let folder = tempfile::tempdir().unwrap();
    run_file(folder.path(), &test_file("fixtures/actions/08_legacy_method_map.json"), port).expect_code(0);
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    let mut methods: Vec<_> =
        summary.names().iter().map(|(_, v)| v["request_type"].as_str().unwrap_or_default().to_uppercase()).collect();
    methods.sort();
    assert_eq!(methods, ["GET", "PATCH", "POST"]);
}

#[test]
fn the_readme_example_of_the_seed_runs() {
    let Some((_target, port)) = seed_target() else { return };
    let folder = tempfile::tempdir().unwrap();
    let document = json!({"load_density": [
        ["LD_register_variables", {"variables": {"base": format!("http://127.0.0.1:{port}")}}],
        ["LD_start_test", {
            "user_detail_dict": {"user": "fast_http_user"},
            "user_count": 20, "spawn_rate": 10, "test_time": 4,
            "tasks": [
                {"method": "get",  "request_url": "${var.base}/get"},
                {"method": "post", "request_url": "${var.base}/post", "json": {"hello": "world"}}
            ]
        }],
        ["LD_generate_summary_report", {"report_name": "smoke"}]
    ]});
    let file = folder.path().join("smoke-test.json");
    fs::write(&file, document.to_string()).unwrap();
    run_file(folder.path(), &file, port).expect_code(0);
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    assert_eq!(summary.names().len(), 2, "{:?}", outcomes(&summary));
    assert!(folder.path().join("smoke.json").is_file(), "the report of the document");
}

/// Refusals: exit 2, nothing sent, and the place of the fault where the document is JSON at all.
#[test]
fn bad_documents_are_refused_before_anything_runs() {
    // (file, what the message must hold)
    for (file, said) in [
        ("01_syntax_error", "line 1"),
        ("02_wrong_top_level_key", "load_density"),
        ("03_empty_list", "empty"),
        ("04_scalar_document", "list"),
        ("05_too_many_elements", "/0"),
        ("06_unknown_command", "LD_start_test"),
        ("07_unknown_user_type", "/0/1/user_detail_dict/user"),
        ("08_missing_required_argument", "/0/1"),
        ("10_action_is_string", "/0"),
        ("12_bad_numbers_are_swallowed", "/0/1/user_count"),
        ("13_bom", "byte order mark"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command("ld-master", folder.path());
        command.arg("run").arg(workspace().join(format!("master/src/script/tests/bad/{file}.json")));
        let finished = Process::start(file, command).wait(LIMIT);
        assert_eq!(finished.code, Some(2), "{file}: {} {}", finished.stdout, finished.stderr);
        assert!(finished.stderr.contains(said), "{file}: no `{said}` in\n{}", finished.stderr);
        assert!(!finished.stderr.contains("panicked"), "{file}: {}", finished.stderr);
    }
}

#[test]
fn every_fault_is_listed_with_its_pointer_and_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let document = r#"[["LD_start_test", {"user_detail_dict": {"user": "fast_http_user"}, "user_cuont": 3, "test_time": "soon",
        "tasks": [{"method": "get", "request_url": "http://127.0.0.1:1/", "asertions": []}]}]]"#;
    let mut command = command("ld-master", folder.path());
    command.args(["run-str", document]);
    let finished = Process::start("run-str", command).wait(LIMIT);
    finished.expect_code(2);
    for text in ["/0/1/user_cuont", "user_count", "/0/1/test_time", "/0/1/tasks/0/asertions", "assertions"] {
        finished.expect_said(text);
    }
}

#[test]
fn a_file_that_is_not_there_and_an_unknown_flag_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (args, said) in [(&["run", "missing.json"][..], "missing.json"), (&["--no-such-flag"], "--no-such-flag")] {
        let mut command = command("ld-master", folder.path());
        command.args(args);
        Process::start("ld-master", command).wait(LIMIT).expect_code(2).expect_said(said);
    }
}

#[test]
fn missing_workers_end_the_wait_with_exit_3_and_who_came_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let document = test("http://127.0.0.1:1/", &closed(1, 1.0)).to_string();
    let mut master = command("ld-master", folder.path());
    master.args(["--bind", &address, "--expected-workers", "2", "--wait", "5s", "run-str", &document]);
    let mut master = Process::start("ld-master", master);
    let mut worker = command("ld-worker", folder.path());
    worker.args(["--master", &address, "--name", "alice", "--master-timeout", "20s"]);
    let mut worker = Process::start("ld-worker", worker);
    master.wait(LIMIT).expect_code(3).expect_said("alice");
    worker.wait(LIMIT);
}

#[test]
fn a_taken_port_is_said_with_exit_3() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("ld-master", folder.path());
    let document = test("http://127.0.0.1:1/", &closed(1, 1.0)).to_string();
    command.args(["--bind", &address, "--expected-workers", "1", "--wait", "5s", "run-str", &document]);
    Process::start("ld-master", command).wait(LIMIT).expect_code(3).expect_said(&address);
}

#[test]
fn refused_connections_are_failures_with_a_reason() {
    let url = format!("http://127.0.0.1:{}/", free_port());
    let mut cluster = Cluster::start(&test(&url, &and(closed(2, 2.0), &json!({"wait_time": 0.1}))), 0, &[]);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(1);
    summary.check_conservation();
    assert!(summary.count("/totals/failures") > 0 && summary.count("/totals/successes") == 0);
    let reason = summary.list("/failures")[0]["reason"].as_str().unwrap().to_lowercase();
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn a_failure_threshold_decides_instead_of_the_failures() {
    let target = Target::start(Options { fail: 0.2, ..Options::default() }).unwrap();
    let url = format!("http://{}/", target.addr());
    for (rule, code) in [("failure_rate < 50%", 0), ("failure_rate < 1%", 1)] {
        let load = and(closed(2, 4.0), &json!({"thresholds": [rule], "wait_time": 0.005}));
        Cluster::start(&test(&url, &load), 0, &[]).finish(LIMIT).0.expect_code(code);
    }
}

fn interrupted(signal: Signal, workers: usize) {
    let target =
        Target::start(Options { latency: Law::Fixed(Duration::from_millis(20)), ..Options::default() }).unwrap();
    let url = format!("http://{}/", target.addr());
    let mut cluster = Cluster::start(&test(&url, &closed(10, 120.0)), workers, &[]);
    wait_for("load", PATIENCE, || (target.counts().total > 500).then_some(()));
    cluster.master.signal(signal);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(130);
    summary.check_conservation();
    assert_eq!(target.counts().total, summary.count("/conservation/requests_started"));
    assert_eq!(summary.count("/conservation/lost"), 0);
}

#[test]
fn ctrl_c_drains_and_writes_the_summary() {
    interrupted(Signal::INT, 0);
}

#[test]
fn sigterm_drains_a_cluster_and_writes_the_summary() {
    interrupted(Signal::TERM, 2);
}

#[test]
fn without_an_end_one_signal_is_the_normal_end() {
    let target =
        Target::start(Options { latency: Law::Fixed(Duration::from_millis(20)), ..Options::default() }).unwrap();
    let load = json!({"user_count": 5, "spawn_rate": 100, "test_time": null});
    let mut cluster = Cluster::start(&test(&format!("http://{}/", target.addr()), &load), 0, &[]);
    wait_for("load", PATIENCE, || (target.counts().total > 100).then_some(()));
    cluster.master.signal(Signal::INT);
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
}

#[test]
fn a_full_disk_is_said_and_the_numbers_still_are_printed() {
    if !ld_tests::root_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("full");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"]).arg(&mount).status().unwrap();
    if !mounted.success() {
        return ld_tests::skip("tmpfs cannot be mounted");
    }
    fs::write(mount.join("filler"), [0; 4096]).unwrap();
    let target = Target::start(Options::default()).unwrap();
    let document = test(&format!("http://{}/", target.addr()), &and(closed(2, 2.0), &json!({"wait_time": 0.01})));
    let mut command = command("ld-master", folder.path());
    command.args(["run-str", &document.to_string(), "--html"]).arg(mount.join("report.html"));
    command.args(["--summary", "summary.json"]);
    let finished = Process::start("ld-master", command).wait(LIMIT);
    let unmounted = Command::new("umount").arg("-l").arg(&mount).status().unwrap();
    assert!(unmounted.success());
    assert!(matches!(finished.code, Some(1..)), "{:?}", finished.code);
    finished.expect_said("report.html").expect_said("hit");
    Summary::read(&folder.path().join("summary.json")).unwrap().check_conservation();
}

#[test]
fn answers_that_break_off_or_are_no_http_are_failures() {
    for (bytes, close) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"[..], true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", true),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", true),
        (b"", true),
    ] {
        let server = ScriptedServer::start(move |_| Answer { bytes: bytes.to_vec(), close });
        let load = and(closed(1, 1.5), &json!({"wait_time": 0.05}));
        let (finished, summary) = Cluster::start(&test(&server.url(), &load), 0, &[]).finish(LIMIT);
        finished.expect_code(1);
        summary.check_conservation();
        assert_eq!(summary.count("/totals/successes"), 0, "{}", String::from_utf8_lossy(bytes));
        assert_eq!(summary.count("/conservation/requests_started"), server.requests());
    }
}

#[test]
fn odd_but_legal_answers_are_successes() {
    for bytes in [
        &b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nTrailer: 1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 \r\ncontent-length:0\r\n\r\n",
    ] {
        let server = ScriptedServer::start(move |_| Answer { bytes: bytes.to_vec(), close: false });
        let load = and(closed(1, 1.5), &json!({"wait_time": 0.05}));
        let (finished, summary) = Cluster::start(&test(&server.url(), &load), 0, &[]).finish(LIMIT);
        finished.expect_code(0);
        summary.check_conservation();
        assert_eq!(summary.count("/totals/requests"), server.requests(), "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn tls_is_checked_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("ld-master", folder.path());
    command.args(["target", "--tls-certificate", "ca.pem"]);
    let mut target = Process::start("ld-master target", command);
    let url = target.line_with("listening https://").trim().strip_prefix("listening ").unwrap().to_owned();
    let ca = folder.path().join("ca.pem");
    for (tls, code) in [(json!({}), 1), (json!({"verify": false}), 0), (json!({"ca": ca}), 0)] {
        let load = and(closed(2, 1.5), &json!({"tls": tls, "wait_time": 0.02}));
        let (finished, summary) = Cluster::start(&test(&format!("{url}/"), &load), 0, &[]).finish(LIMIT);
        finished.expect_code(code);
        summary.check_conservation();
    }
}

#[test]
fn a_local_run_binds_no_port_and_two_run_side_by_side() {
    let target =
        Target::start(Options { latency: Law::Fixed(Duration::from_millis(5)), ..Options::default() }).unwrap();
    let document = test(&format!("http://{}/", target.addr()), &closed(3, 3.0));
    let mut one = Cluster::start(&document, 0, &[]);
    let mut two = Cluster::start(&document, 0, &[]);
    let sum: u64 = [&mut one, &mut two]
        .map(|c| {
            let (finished, summary) = c.finish(LIMIT);
            finished.expect_code(0);
            summary.check_conservation();
            summary.count("/conservation/requests_started")
        })
        .iter()
        .sum();
    assert_eq!(target.stop().unwrap().total, sum);
}

#[test]
fn bench_and_demo_need_one_line() {
    let target = Target::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut bench = command("ld-master", folder.path());
    bench.args([
        "bench",
        &format!("http://{}/", target.addr()),
        "--users",
        "5",
        "--duration",
        "2s",
        "--summary",
        "s.json",
    ]);
    Process::start("bench", bench).wait(LIMIT).expect_code(0);
    let summary = Summary::read(&folder.path().join("s.json")).unwrap();
    summary.check_conservation();
    assert_eq!(summary.count("/conservation/requests_started"), target.stop().unwrap().total);

    let mut demo = command("ld-master", folder.path());
    demo.args(["demo", "--html", "demo.html", "--summary", "demo.json"]);
    let finished = Process::start("demo", demo).wait(LIMIT);
    assert!(matches!(finished.code, Some(0)), "{} {}", finished.stdout, finished.stderr);
    Summary::read(&folder.path().join("demo.json")).unwrap().check_conservation();
    let html = fs::read_to_string(folder.path().join("demo.html")).unwrap();
    assert!(html.len() < 2 << 20, "{} bytes of HTML", html.len());
    assert!(!html.contains("src=\"http") && !html.contains("href=\"http://cdn"), "the report is one offline file");
}

#[test]
fn open_runs_end_on_time_with_answers_still_open() {
    let target = Target::start(Options { latency: Law::Fixed(Duration::from_mins(1)), ..Options::default() }).unwrap();
    let load = and(open(20.0, 2.0), &json!({"graceful_stop": "1s"}));
    let (_, summary) = Cluster::start(&test(&format!("http://{}/", target.addr()), &load), 2, &[]).finish(LIMIT);
    summary.check_conservation();
    assert_eq!(summary.count("/conservation/in_flight"), 40, "{}", summary.0["conservation"]);
    assert_eq!(target.stop().unwrap().total, 40);
}

#[test]
fn a_second_signal_aborts_the_drain() {
    let target = Target::start(Options { latency: Law::Fixed(Duration::from_mins(1)), ..Options::default() }).unwrap();
    let load = and(closed(5, 100.0), &json!({"graceful_stop": "90s"}));
    let mut cluster = Cluster::start(&test(&format!("http://{}/", target.addr()), &load), 0, &[]);
    wait_for("load", PATIENCE, || (target.counts().total == 5).then_some(()));
    cluster.master.signal(Signal::INT);
    pause(Duration::from_millis(500));
    cluster.master.signal(Signal::INT);
    cluster.master.wait(Duration::from_secs(30)).expect_code(130);
}
