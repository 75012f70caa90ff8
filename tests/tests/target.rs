//! The truth target itself: if it miscounts, nothing else here is worth anything.

use ld_master::target::{Law, Options, Target};
use ld_tests::process::{Process, command};
use ld_tests::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Sends requests over one connection and returns all answers, up to the end of the connection or
/// until `answers` have come.
fn exchange(address: SocketAddr, requests: &[&str], answers: usize) -> String {
    let mut stream = TcpStream::connect(address).expect("the target listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a minute is a time-out");
    let mut all = String::new();
    for request in requests {
        if stream.write_all(request.as_bytes()).is_err() {
            break;
        }
    }
    let mut buffer = [0; 4096];
    while all.matches("HTTP/1.1 ").count() < answers || !all.ends_with('x') {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => all.push_str(&String::from_utf8_lossy(&buffer[..n])),
        }
    }
    all
}

const GET: &str = "GET /a?x=1 HTTP/1.1\r\nHost: t\r\n\r\n";

#[test]
fn every_arrival_is_counted_and_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let target = Target::start(Options { log: Some(log.clone()), keep_arrivals: true, ..Options::default() }).unwrap();
    let post = "POST /b HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody";
    let answers = exchange(
        target.addr(),
        &[GET, post, GET, "GET /__counts HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"],
        99,
    );
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 4, "{answers}");
    let arrivals = target.arrivals();
    let paths: Vec<_> = arrivals.iter().map(|a| (a.id, a.method.as_str(), a.path.as_str())).collect();
    assert_eq!(paths, [(0, "GET", "/a"), (1, "POST", "/b"), (2, "GET", "/a")]);
    assert!(arrivals.iter().all(|a| a.held_ns.is_some() && a.status == 200));
    let counts = target.stop().unwrap();
    assert_eq!((counts.total, counts.answered, counts.connections, counts.open_connections), (3, 3, 1, 0));
    assert_eq!((counts.by_path["/a"], counts.by_path["/b"], counts.by_client["127.0.0.1"]), (2, 1, 3));
    let lines = std::fs::read_to_string(log).unwrap();
    assert_eq!(lines.lines().count(), 3);
    assert_eq!(lines.lines().nth(1).unwrap().split('\t').nth(4), Some("/b"));
}

#[test]
fn an_arrival_counts_even_if_nobody_waits_for_the_answer() {
    let target = Target::start(Options { latency: Law::Fixed(Duration::from_mins(5)), ..Options::default() }).unwrap();
    let mut stream = TcpStream::connect(target.addr()).unwrap();
    stream.write_all(GET.as_bytes()).unwrap();
    wait_for("the arrival", PATIENCE, || (target.counts().total == 1).then_some(()));
    drop(stream);
    wait_for("the end of the connection", PATIENCE, || (target.counts().open_connections == 0).then_some(()));
    let counts = target.stop().unwrap();
    assert_eq!((counts.total, counts.answered), (1, 0));
}

#[test]
fn delays_are_imposed_and_measured() {
    let options = Options { latency: Law::Fixed(Duration::from_millis(30)), keep_arrivals: true, ..Options::default() };
    let target = Target::start(options).unwrap();
    exchange(target.addr(), &[GET, GET, "GET /?ms=2 HTTP/1.1\r\nHost: t\r\n\r\n"], 3);
    let arrivals = target.arrivals();
    let planned: Vec<_> = arrivals.iter().map(|a| a.planned_ns / 1_000_000).collect();
    assert_eq!(planned, [30, 30, 2]);
    assert!(arrivals.iter().all(|a| a.held_ns.unwrap() >= a.planned_ns), "{arrivals:?}");
    let held = target.counts().held;
    assert!(held.count == 3 && held.min_ms >= 2.0 && held.max_ms >= 30.0, "{held:?}");
}

#[test]
fn connections_are_closed_and_reset_as_asked() {
    let target = Target::start(Options { close_after: Some(2), ..Options::default() }).unwrap();
    let answers = exchange(target.addr(), &[GET, GET], 99);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    assert!(answers.to_lowercase().contains("connection: close"), "{answers}");

    let target = Target::start(Options { reset: 1.0, ..Options::default() }).unwrap();
    let mut stream = TcpStream::connect(target.addr()).unwrap();
    stream.write_all(GET.as_bytes()).unwrap();
    let error = stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let counts = target.stop().unwrap();
    assert_eq!((counts.total, counts.by_status[&0]), (1, 1));
}

#[test]
fn shares_of_failures_repeat_with_the_seed() {
    let failures = |seed| {
        let target = Target::start(Options { fail: 0.3, seed, keep_arrivals: true, ..Options::default() }).unwrap();
        exchange(target.addr(), &[GET; 200], 200);
        target.arrivals().iter().map(|a| a.status).collect::<Vec<_>>()
    };
    let first = failures(5);
    assert_eq!(first, failures(5));
    assert_ne!(first, failures(6));
    let failed = first.iter().filter(|s| **s == 503).count();
    assert!((30..=95).contains(&failed), "{failed} of 200");
}

#[test]
fn as_a_program_it_prints_its_address_and_its_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("ld-master", folder.path());
    command.args(["target", "--listen", "[::1]:0", "--arrivals", "log"]);
    let mut target = Process::start("ld-master target", command);
    let line = target.line_with("listening http://");
    let address: SocketAddr = line.trim().strip_prefix("listening http://").unwrap().parse().unwrap();
    assert!(address.is_ipv6());
    exchange(address, &[GET, GET], 2);
    target.signal(Signal::INT);
    let finished = target.wait(PATIENCE);
    finished.expect_code(0).expect_said(r#""total":2"#);
    assert_eq!(std::fs::read_to_string(folder.path().join("log")).unwrap().lines().count(), 2);
}
