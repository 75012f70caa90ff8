//! `socket_user` against Python servers that count for themselves, well-meaning and hostile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_tests::binaries::test_file;
use ld_tests::certificates::Certificates;
use ld_tests::document::{and, closed};
use ld_tests::peer::Peer;
use ld_tests::process::{Cluster, Finished, Process, command, free_port};
use ld_tests::summary::Summary;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

fn peer() -> Option<Peer> {
    Peer::start("socket_target.py", &[])
}

/// A peer that has a certificate.
fn peer_with(certificates: &Certificates) -> Option<Peer> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    Peer::start("socket_target.py", &[&text(&certificates.cert), &text(&certificates.key)])
}

/// A document of these steps.
fn steps(tasks: &Value, load: &Value) -> Value {
    let test = and(json!({"user_detail_dict": {"user": "socket_user"}, "tasks": tasks}), load);
    json!({"load_density": [["LD_start_test", test]]})
}

/// Each step once.
fn once() -> Value {
    json!({"user_count": 1, "iterations": 1, "test_time": 20})
}

#[track_caller]
fn run(document: &Value, workers: usize, code: i32) -> Summary {
    let (finished, summary) = Cluster::start(document, workers, &[]).finish(LIMIT);
    finished.expect_code(code);
    summary.check_conservation();
    assert_eq!(summary.count("/conservation/lost"), 0);
    assert_eq!(summary.count("/conservation/in_flight"), 0);
    summary
}

fn count(summary: &Summary, name: &str) -> u64 {
    summary.0["per_name"][name]["count"].as_u64().unwrap_or(0)
}

/// Name, class, reason of every failure, by name.
fn failures(summary: &Summary) -> Vec<(String, String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    // what is wrong with a certificate that signs itself depends on what this machine trusts
    let text = |row: &Value, key: &str| {
        text(row, key).split(" (unknown").next().unwrap().replace(" (malformed or of the wrong kind)", "")
    };
    let rows = summary.list("/failures").iter();
    let mut rows: Vec<_> = rows.map(|row| (text(row, "name"), text(row, "class"), text(row, "reason"))).collect();
    rows.sort();
    rows
}

#[expect(clippy::needless_pass_by_value, reason = "callers write it with json!")]
fn tcp(peer: &Peer, service: &str, more: Value) -> Value {
    let target = format!("127.0.0.1:{}", peer.port(service));
    and(json!({"target": target, "name": service}), &more)
}

fn run_document_12(peer: &Peer, flags: &[&str]) -> (Finished, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("ld-master", folder.path());
    command
        .env("LD_TCP_PORT", peer.port("tcp").to_string())
        .env("LD_UDP_PORT", peer.port("udp").to_string())
        .env("LD_DEAD_PORT", free_port().to_string());
    command.args(["run"]).arg(test_file("fixtures/actions/12_tcp_udp.json"));
    command.args(["--summary", "summary.json"]).args(flags);
    (Process::start("ld-master run", command).wait(LIMIT), folder)
}

#[test]
fn document_12_fails_as_the_seed_did_and_is_refused_strictly() {
    let Some(peer) = peer() else { return };
    let (finished, folder) = run_document_12(&peer, &["--lenient"]);
    finished.expect_code(1);
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    let mut names: Vec<(String, bool)> = summary
        .names()
        .into_iter()
        .map(|(name, of)| {
            let (successes, failures) = (of["successes"].as_u64().unwrap(), of["failures"].as_u64().unwrap());
            assert!(successes == 0 || failures == 0, "{name}: {successes} + {failures}");
            (name, failures == 0)
        })
        .collect();
    let udp = format!("udp:127.0.0.1:{}", peer.port("udp"));
    let mut wanted = [
        ("tcp-ping", true),
        ("tcp-short-read", false),
        ("substring-needs-expect_bytes", false),
        ("tcp-send-only", true),
        (&*udp, true),
        ("udp-text", true),
        ("udp-no-answer", false),
        ("bad-protocol", false),
    ]
    .map(|(name, good)| (name.to_owned(), good));
    names.sort();
    wanted.sort();
    assert_eq!(names, wanted);
    let reasons = failures(&summary);
    let reason = |name: &str| &*reasons.iter().find(|(n, ..)| n == name).unwrap().2;
    assert_eq!(reason("tcp-short-read"), "timed out");
    assert_eq!(reason("substring-needs-expect_bytes"), "expected 'abc' in response");
    assert_eq!(reason("udp-no-answer"), "connection refused");
    assert_eq!(reason("bad-protocol"), "unsupported protocol: sctp");
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().map(|file| file.path()).collect();
    let csv = files.iter().filter(|file| file.extension().is_some_and(|end| end == "csv"));
    let records: String = csv.map(|file| fs::read_to_string(file).unwrap()).collect();
    assert!(records.contains("SCTP") && records.contains("unsupported protocol: sctp"), "{records}");
    let tries = ["tcp-ping", "tcp-short-read", "tcp-send-only"].map(|name| count(&summary, name)).iter().sum::<u64>();
    let datagrams = count(&summary, &udp) + count(&summary, "udp-text");

    let (finished, _folder) = run_document_12(&peer, &[]);
    finished.expect_code(2);
    for text in ["tasks/2/expect_substring", "tasks/7/protocol", "unsupported protocol `sctp`", "accepted: tcp, udp"] {
        finished.expect_said(text);
    }
    let seen = peer.stop();
    assert_eq!([&seen["tcp_connections"], &seen["udp_datagrams"]], [tries, datagrams]);
}

#[test]
fn the_readmes_example_runs_as_printed() {
    let Some(peer) = peer() else { return };
    let target = format!("127.0.0.1:{}", peer.port("once"));
    // the target of the example answers and closes: fewer than 64 bytes are a reply all the same
    let tasks = json!([
        {"protocol": "tcp", "target": target, "payload": "PING\n", "expect_bytes": 64, "expect_substring": "PONG"},
        {"protocol": "udp", "target": format!("127.0.0.1:{}", peer.port("udp")), "payload": "hex:DEADBEEF", "expect_bytes": 4},
    ]);
    let load = json!({"user_count": 20, "spawn_rate": 50, "test_time": 2, "wait_time": 0.05});
    let summary = run(&steps(&tasks, &load), 0, 0);
    let seen = peer.stop();
    assert_eq!(seen["once_frames"], count(&summary, &format!("tcp:{target}")));
    assert_eq!(seen["udp_datagrams"], summary.ended() - count(&summary, &format!("tcp:{target}")));
}

/// Every transport, with connections kept or new.
fn transports(peer: &Peer, keeps: bool) -> Vec<Value> {
    let step = |name: &str, target: String, more: Value| {
        let step = json!({"name": name, "target": target, "keep": keeps, "payload": "PING ${uuid()}",
            "expect_bytes": 46, "expect_substring": "PONG PING"});
        and(step, &more)
    };
    let v4 = |service: &str| format!("127.0.0.1:{}", peer.port(service));
    let udp = json!({"expect_bytes": 0, "payload": "hex:00 ff", "expect_substring": null, "expect_reply": true});
    vec![
        step("tcp", v4("tcp"), json!({})),
        step("tcp6", format!("[::1]:{}", peer.port("tcp6")), json!({})),
        step("unix", format!("unix:{}", peer.file("echo.sock").display()), json!({})),
        step("tls", v4("tls"), json!({"tls": true})),
        step("udp", format!("udp://{}", v4("udp")), udp.clone()),
        step("udp6", String::new(), and(udp, &json!({"target": format!("udp://[::1]:{}", peer.port("udp6"))}))),
    ]
}

#[track_caller]
fn every_transport(keeps: bool, workers: usize) {
    let certificates = Certificates::make();
    let Some(peer) = peer_with(&certificates) else { return };
    let load = json!({"tls": {"ca": certificates.ca}, "wait_time": 0.02});
    let document = steps(&json!(transports(&peer, keeps)), &and(closed(6, 2.0), &load));
    let summary = run(&document, workers, 0);
    let seen = peer.stop();
    for name in ["tcp", "tcp6", "unix", "tls"] {
        let steps = count(&summary, name);
        assert!(steps > 20, "{name}: {steps}");
        assert_eq!(seen[format!("{name}_bytes")], steps * 41, "{name}");
        assert_eq!(seen[format!("{name}_connections")], if keeps { 6 } else { steps }, "{name}");
    }
    for name in ["udp", "udp6"] {
        assert_eq!(seen[format!("{name}_datagrams")], count(&summary, name), "{name}");
    }
}

#[test]
fn every_transport_with_new_connections() {
    every_transport(false, 0);
}

#[test]
fn every_transport_with_kept_connections() {
    every_transport(true, 0);
}

#[test]
fn every_transport_over_three_workers() {
    every_transport(true, 3);
}

#[test]
fn frames_are_written_and_read() {
    let Some(peer) = peer() else { return };
    let prefix = json!({"length_prefix": 4});
    let tasks = json!([
        tcp(
            &peer,
            "lines",
            json!({"keep": true, "payload": "a ${randint(1, 9)}", "framing": {"delimiter": "\n"}, "expect_substring": "ok a"})
        ),
        // sends one frame without waiting: what comes is thrown away
        tcp(
            &peer,
            "lines",
            json!({"name": "unread", "keep": true, "payload": "b\n", "framing": {"delimiter": "\n"}, "expect_reply": false, "target": format!("localhost:{}", peer.port("lines"))})
        ),
        tcp(
            &peer,
            "prefix",
            json!({"keep": true, "payload": "x".repeat(70_000), "framing": prefix, "expect_substring": "xxx"})
        ),
        tcp(&peer, "prefix", json!({"name": "prefix new", "payload": "", "framing": prefix})),
        tcp(&peer, "tcp", json!({"payload": "12345678", "framing": {"fixed": 3}, "name": "fixed"})),
        // its own rest comes first for the next step
        tcp(&peer, "once", json!({"payload": "a\n", "framing": {"fixed": 2}, "keep": true})),
        tcp(&peer, "once", json!({"name": "rest", "framing": {"delimiter": "\n"}, "keep": true})),
    ]);
    let load = and(closed(5, 2.0), &json!({"wait_time": 0.02}));
    let summary = run(&steps(&tasks, &load), 0, 0);
    let seen = peer.stop();
    let counts = |names: &[&str]| names.iter().map(|name| count(&summary, name)).sum::<u64>();
    assert_eq!(seen["lines_frames"], counts(&["lines", "unread"]));
    assert_eq!(seen["lines_connections"], 10);
    assert_eq!(seen["prefix_frames"], counts(&["prefix", "prefix new"]));
    assert_eq!(seen["prefix_connections"], 5 + counts(&["prefix new"]));
    assert_eq!(seen["once_frames"], counts(&["once"]));
    // the end of the test may come between the two, once for each user
    let unread = counts(&["once"]) - counts(&["rest"]);
    assert!(unread <= 5, "{unread}");
}

#[test]
fn hostile_peers_fail_in_their_class() {
    let Some(peer) = peer_with(&Certificates::make()) else { return };
    let short = json!({"payload": "PING", "timeout": 0.3, "expect_bytes": 8});
    let framed = |framing: Value| json!({"payload": "PING", "timeout": 2, "framing": framing});
    let udp = |service: &str, more: Value| and(tcp(&peer, service, json!({"protocol": "udp", "timeout": 0.3})), &more);
    let dead = free_port();
    let tasks = json!([
        tcp(&peer, "reset", short.clone()),
        tcp(&peer, "stall", short.clone()),
        tcp(&peer, "truncate", framed(json!({"length_prefix": 4}))),
        tcp(&peer, "truncate", and(framed(json!({"fixed": 8})), &json!({"name": "truncate fixed"}))),
        tcp(&peer, "garbage", framed(json!({"length_prefix": 4}))),
        tcp(&peer, "endless", framed(json!({"delimiter": "END"}))),
        tcp(&peer, "endless", json!({"name": "endless ok", "expect_bytes": 1_000_000})),
        tcp(&peer, "endless", json!({"name": "endless unread", "payload": "x", "keep": true})),
        tcp(&peer, "garbage", json!({"name": "not tls", "tls": true, "payload": "x", "expect_bytes": 1})),
        tcp(&peer, "tls", json!({"name": "not trusted", "tls": true, "payload": "x", "expect_bytes": 1})),
        tcp(&peer, "tcp", json!({"name": "other", "payload": "abc", "expect_bytes": 3, "expect_substring": "zz"})),
        tcp(&peer, "tcp", json!({"name": "hex", "payload": "hex:${var.digits}"})),
        {"name": "refused", "target": format!("127.0.0.1:{dead}"), "expect_bytes": 1},
        {"name": "no name", "target": "no-such-host.invalid:1", "expect_bytes": 1},
        {"name": "no path", "target": "unix:/no/such/path"},
        udp("udp_silent", json!({"payload": "x", "expect_reply": true})),
        {"name": "udp refused", "target": format!("udp://127.0.0.1:{dead}"), "expect_bytes": 1, "timeout": 2},
        {"name": "udp unread", "target": format!("udp://127.0.0.1:{dead}"), "payload": "x"},
    ]);
    let load = and(once(), &json!({"variables": {"digits": "0g"}}));
    let summary = run(&steps(&tasks, &load), 0, 1);
    let mut wanted = [
        ("reset", "closed", "connection reset by peer"),
        ("stall", "timeout", "timed out"),
        ("truncate", "closed", "connection closed in mid-answer"),
        ("truncate fixed", "closed", "connection closed in mid-answer"),
        ("garbage", "protocol", "a reply longer than 64 MiB"),
        ("endless", "protocol", "a reply longer than 64 MiB"),
        ("not tls", "tls", "tls: the peer does not speak TLS"),
        ("not trusted", "tls", "tls: certificate not trusted"),
        ("other", "assertion", "expected 'zz' in response"),
        ("hex", "request", "non-hexadecimal number found in fromhex() arg at position 1"),
        ("refused", "connect", "connection refused"),
        ("no name", "dns", "name not resolved"),
        ("no path", "connect", "no socket at this path"),
        ("udp_silent", "timeout", "timed out"),
        ("udp refused", "connect", "connection refused"),
    ]
    .map(|(name, class, reason)| (name.to_owned(), class.to_owned(), reason.to_owned()));
    wanted.sort();
    assert_eq!(failures(&summary), wanted);
    assert_eq!(summary.count("/conservation/succeeded"), 3);
    assert_eq!(peer.stop()["udp_silent_datagrams"], 1);
}

#[test]
fn a_kept_connection_that_the_peer_closes_is_replaced_or_fails_once() {
    let Some(peer) = peer() else { return };
    let line = json!({"payload": "a", "framing": {"delimiter": "\n"}, "keep": true});
    let tasks = json!([tcp(&peer, "once", line.clone()), tcp(&peer, "once_late", line)]);
    let load = json!({"user_count": 4, "iterations": 80, "test_time": 30, "wait_time": 0.1});
    let summary = run(&steps(&tasks, &load), 0, 1);
    let seen = peer.stop();
    let reused = ("once_late", "closed", "connection closed before the answer (reused connection)");
    let (name, class, reason) = reused;
    // on a machine that is busy enough, the end of an idle connection may come after the next request
    let failed: Vec<_> = failures(&summary).into_iter().filter(|(name, ..)| name != "once").collect();
    assert_eq!(failed, [(name.to_owned(), class.to_owned(), reason.to_owned())]);
    let late = &summary.0["per_name"]["once_late"];
    let (good, bad) = (late["successes"].as_u64().unwrap(), late["failures"].as_u64().unwrap());
    assert!(good + bad == 80 && (bad..=bad + 4).contains(&good), "every second one of each user fails: {good} + {bad}");
    assert_eq!(seen["once_late_frames"], 80, "no request is sent twice");
    assert_eq!(seen["once_frames"], summary.0["per_name"]["once"]["successes"]);
}
