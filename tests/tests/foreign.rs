//! A worker in another language, written from `cluster.proto` alone.

use ld_master::target::{Options, Target};
use ld_tests::binaries::{python, test_file, workspace};
use ld_tests::document::{open, test};
use ld_tests::process::{Process, command, free_port};
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, wait_for};
use serde_json::Value;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);
const TOKEN: &str = "5a1f6c3e9b0d47288e6f1c2d3b4a59687766554433221100ffeeddccbbaa9988";

fn master(folder: &Path, address: &str, workers: u32, document: &Value) -> Process {
    let mut master = command("ld-master", folder);
    master.env("LD_TOKEN", TOKEN);
    master.args(["--bind", address, "--expected-workers", &workers.to_string(), "--wait", "30s"]);
    master.args(["run-str", &document.to_string(), "--summary", "summary.json"]);
    Process::start("ld-master", master)
}

fn foreign(python: &Path, address: &str, name: &str, version: u32) -> Process {
    let mut command = Command::new(python);
    command.env("LD_TOKEN", TOKEN);
    command.arg(test_file("py/foreign_worker.py")).arg(address);
    command.arg(workspace().join("proto/proto/loaddensity/cluster/v1/cluster.proto"));
    command.args([name, &version.to_string()]);
    Process::start("foreign_worker.py", command)
}

/// This worker does not redial, so the master must be there first.
fn listening(master: &mut Process, address: &str) {
    wait_for("the master's port", PATIENCE, || {
        assert!(master.runs(), "{}", master.stderr());
        TcpStream::connect(address).ok()
    });
}

#[test]
fn a_worker_in_python_and_one_of_ours_share_a_run_exactly() {
    let Some(python) = python() else { return ld_tests::skip("no Python environment: tests/run makes one") };
    let target = Target::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let document = test(&format!("http://{}/", target.addr()), &open(200.0, 5.0));
    let mut master = master(folder.path(), &address, 2, &document);
    listening(&mut master, &address);
    let mut python = foreign(&python, &address, "snake", 2);
    let mut worker = command("ld-worker", folder.path());
    worker.env("LD_TOKEN", TOKEN).args(["--master", &address, "--name", "crab", "--cores", "1"]);
    let mut worker = Process::start("ld-worker", worker);
    let finished = master.wait(LIMIT);
    let said = python.wait(LIMIT);
    worker.wait(LIMIT);
    finished.expect_code(0);
    said.expect_code(0).expect_said("done 500");
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    // on a busy machine the end may overtake the last arrival of ours
    let dropped = summary.count("/conservation/dropped");
    assert_eq!(target.stop().unwrap().total, 1000 - dropped);
    for worker in summary.list("/workers") {
        let due = if worker["name"] == "snake" { 500 } else { 500 - dropped };
        assert_eq!((&worker["requests"], &worker["state"]), (&Value::from(due), &Value::from("ok")), "{worker}");
    }
    assert!(dropped <= 2, "{dropped} dropped");
    assert_eq!(summary.names().len(), 1, "both name their requests the same: {:?}", summary.names());
}

#[test]
fn a_worker_of_another_protocol_version_is_refused_with_a_sentence() {
    let Some(python) = python() else { return ld_tests::skip("no Python environment: tests/run makes one") };
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut master = master(folder.path(), &address, 1, &test("http://127.0.0.1:1/", &open(1.0, 1.0)));
    listening(&mut master, &address);
    let refused = foreign(&python, &address, "old", 99).wait(LIMIT);
    // code 1: version; retry: no
    refused.expect_said("refused 1 False").expect_said("99");
    master.signal(rustix::process::Signal::TERM);
    master.wait(LIMIT);
}
