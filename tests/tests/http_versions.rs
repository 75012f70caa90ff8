//! HTTP/2 and HTTP/3: against nginx, Caddy and aioquic, and against peers that misbehave.

use ld_tests::certificates::Certificates;
use ld_tests::cluster::run;
use ld_tests::document::{and, closed, open, test};
use ld_tests::peer::Peer;
use ld_tests::process::{Process, command};
use ld_tests::summary::Summary;
use ld_tests::wait::PATIENCE;
use ld_tests::web::{Versions, Web};
use serde_json::{Value, json};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("the temporary folder is writable")
}

/// Load keys: so many users for a time, by this version, trusting the suite's authority.
fn by(version: &str, users: u64, seconds: f64, certificates: &Certificates) -> Value {
    and(closed(users, seconds), &json!({"http_version": version, "tls": {"ca": certificates.ca}}))
}

fn only(version: &str, count: u64) -> Versions {
    Versions::from([(version.to_owned(), count)])
}

/// Every request of the summary succeeded; how many there were.
#[track_caller]
fn all_well(summary: &Summary) -> u64 {
    assert_eq!(summary.count("/totals/failures"), 0, "{:#}", summary.0["failures"]);
    let count = summary.ended();
    assert!(count > 2, "only {count} requests");
    count
}

#[test]
fn nginx_counts_what_we_count_over_tls_and_by_prior_knowledge() {
    let certificates = Certificates::make();
    // connections end, with a goodbye, after 100 requests: nothing fails of it
    for (version, users, more) in [
        ("auto", 5, json!({})),
        ("2", 5, json!({"connections": "per_iteration"})),
        ("2", 5, json!({"connections": "per_request", "wait_time": 0.01})),
        ("2", 20, json!({"connections": "shared:2"})),
        ("auto", 20, json!({"connections": "shared:2", "user_detail_dict": {"user": "http_user", "streams": 5}})),
    ] {
        let Some(nginx) = Web::nginx(&certificates, 100) else { return };
        let load = and(by(version, users, 0.7, &certificates), &more);
        let (finished, summary) = run(folder().path(), &test(&nginx.url(), &load), 0);
        finished.expect_code(0);
        assert_eq!(nginx.stop(), only("HTTP/2.0", all_well(&summary)), "{version} {more}");
    }
    let Some(nginx) = Web::nginx(&certificates, 100) else { return };
    let url = format!("http://127.0.0.1:{}/", nginx.plain);
    let (finished, summary) = run(folder().path(), &test(&url, &by("2", 5, 0.7, &certificates)), 0);
    finished.expect_code(0);
    assert_eq!(nginx.stop(), only("HTTP/2.0", all_well(&summary)));
}

#[test]
fn a_target_without_http_2_is_spoken_to_as_it_can_or_named() {
    let certificates = Certificates::make();
    let Some(nginx) = Web::nginx(&certificates, 1_000) else { return };
    let url = format!("https://localhost:{}/", nginx.old);
    for connections in ["per_user", "shared:2"] {
        let load = and(by("auto", 4, 1.0, &certificates), &json!({"connections": connections}));
        all_well(&run(folder().path(), &test(&url, &load), 0).1);
    }
    let load = and(by("2", 2, 1.0, &certificates), &json!({"wait_time": 0.05}));
    let (finished, summary) = run(folder().path(), &test(&url, &load), 0);
    finished.expect_code(1);
    assert_fails(&summary, "protocol", "the target does not speak HTTP/2");
    assert!(nginx.stop().keys().all(|version| version == "HTTP/1.1"));
}

#[test]
fn three_workers_share_connections_and_add_up() {
    let certificates = Certificates::make();
    let Some(nginx) = Web::nginx(&certificates, 1_000_000) else { return };
    let load =
        and(open(200.0, 1.5), &json!({"http_version": "2", "tls": {"ca": certificates.ca}, "connections": "shared:6"}));
    let (finished, summary) = run(folder().path(), &test(&nginx.url(), &load), 3);
    finished.expect_code(0);
    let count = all_well(&summary);
    assert_eq!(nginx.stop(), only("HTTP/2.0", count));

    let Some(caddy) = Web::caddy(&certificates) else { return };
    let load = and(load, &json!({"http_version": "3"}));
    let (finished, summary) = run(folder().path(), &test(&caddy.url(), &load), 3);
    finished.expect_code(0);
    let count = all_well(&summary);
    assert_eq!(caddy.stop(), only("HTTP/3.0", count));
}

#[test]
fn caddy_counts_what_we_count_over_quic() {
    let certificates = Certificates::make();
    for more in [
        json!({}),
        json!({"http_version": "1.1", "user_detail_dict": {"user": "http3_user"}}),
        json!({"connections": "shared:2"}),
        json!({"connections": "per_request", "wait_time": 0.01}),
    ] {
        let Some(caddy) = Web::caddy(&certificates) else { return };
        let load = and(by("3", 5, 0.7, &certificates), &more);
        let (finished, summary) = run(folder().path(), &test(&caddy.url(), &load), 0);
        finished.expect_code(0);
        assert_eq!(caddy.stop(), only("HTTP/3.0", all_well(&summary)), "{more}");
    }
}

#[test]
fn one_user_may_speak_every_version() {
    let certificates = Certificates::make();
    let Some(caddy) = Web::caddy(&certificates) else { return };
    let tasks = json!([
        {"method": "get", "request_url": caddy.url(), "name": "two"},
        {"method": "get", "request_url": caddy.url(), "name": "three", "user": "http3_user"},
    ]);
    let load = and(by("2", 3, 1.0, &certificates), &json!({"tasks": tasks, "tls": {"verify": false}}));
    let (finished, summary) = run(folder().path(), &test(&caddy.url(), &load), 0);
    finished.expect_code(0);
    all_well(&summary);
    let count = |name: &str| summary.count(&format!("/per_name/{name}/count"));
    assert_eq!(
        caddy.stop(),
        Versions::from([("HTTP/2.0".to_owned(), count("two")), ("HTTP/3.0".to_owned(), count("three"))])
    );
}

#[test]
fn bench_takes_a_version() {
    let certificates = Certificates::make();
    let (Some(nginx), Some(caddy)) = (Web::nginx(&certificates, 1_000_000), Web::caddy(&certificates)) else { return };
    let plain = format!("http://127.0.0.1:{}/", nginx.plain);
    for (url, version, code) in [(plain.as_str(), "2", 0), (&plain, "3", 2)] {
        let folder = folder();
        let mut bench = command("ld-master", folder.path());
        bench.args(["bench", url, "--http", version, "--users", "2", "--duration", "1s", "--summary", "s.json"]);
        let finished = Process::start("bench", bench).wait(PATIENCE);
        finished.expect_code(code);
        if code == 0 {
            let summary = Summary::read(&folder.path().join("s.json")).unwrap();
            summary.check_conservation();
            all_well(&summary);
        } else {
            finished.expect_said("HTTP/3 needs an https:// URL");
        }
    }
    assert!(nginx.stop().keys().all(|version| version == "HTTP/2.0"));
    // the authority of the suite is none of this machine's: SSL_CERT_FILE makes it one
    let folder = folder();
    let mut bench = command("ld-master", folder.path());
    bench.env("SSL_CERT_FILE", &certificates.ca);
    bench.args(["bench", &caddy.url(), "--http", "3", "--users", "2", "--duration", "1s", "--summary", "s.json"]);
    Process::start("bench", bench).wait(PATIENCE).expect_code(0);
    let summary = Summary::read(&folder.path().join("s.json")).unwrap();
    assert_eq!(caddy.stop(), only("HTTP/3.0", all_well(&summary)));
}

/// The run's only failure is of this class and reason, and nothing succeeded.
#[track_caller]
fn assert_fails(summary: &Summary, class: &str, reason: &str) {
    let all: Vec<(&str, &str)> = summary
        .list("/failures")
        .iter()
        .map(|failure| (failure["class"].as_str().unwrap_or(""), failure["reason"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(all, [(class, reason)]);
}

/// One task a path, each its own name; a few users for a short time.
fn paths(base: &str, paths: &[&str], more: &Value) -> Value {
    let tasks: Vec<Value> = paths
        .iter()
        .map(|path| json!({"method": "get", "request_url": format!("{base}{path}"), "name": path, "timeout": 0.6}))
        .collect();
    let load = json!({"tasks": tasks, "tls": {"verify": false}, "wait_time": 0.02});
    test(base, &and(and(closed(2, 3.0), &load), more))
}

/// What failed by name: class and reason; `None`: nothing did.
fn outcome(summary: &Summary, name: &str) -> Vec<(String, String)> {
    let of_it = summary.list("/failures").iter().filter(|failure| failure["name"] == *name);
    let text = |failure: &Value, key: &str| failure[key].as_str().unwrap_or_default().to_owned();
    of_it.map(|failure| (text(failure, "class"), text(failure, "reason"))).collect()
}

/// Every path fails as expected, every time (`""`: it succeeds), and the peer saw as many requests.
#[track_caller]
fn check_paths(summary: &Summary, seen: &Value, expected: &[(&str, &str, &str)]) {
    for (path, class, reason) in expected {
        let count = summary.count(&format!("/per_name/{}/count", path.replace('/', "~1")));
        let failed = summary.count(&format!("/per_name/{}/failures", path.replace('/', "~1")));
        assert!(count > 2, "{path}: {count}");
        let found = outcome(summary, path);
        if class.is_empty() {
            assert_eq!((failed, found), (0, vec![]), "{path}");
        } else {
            assert_eq!(found, [((*class).to_owned(), (*reason).to_owned())], "{path}");
            assert_eq!(failed, count, "{path}");
        }
        assert_eq!(seen["paths"][path], count, "{path}");
    }
}

const H2: &[(&str, &str, &str)] = &[
    ("/ok", "", ""),
    ("/refused", "closed", "stream reset by peer (REFUSED_STREAM)"),
    ("/short", "protocol", "malformed answer: HTTP/2 PROTOCOL_ERROR"),
    ("/silent", "timeout", "timed out"),
    ("/half-stall", "timeout", "timed out"),
    ("/goaway", "closed", "connection closed by peer (GOAWAY ENHANCE_YOUR_CALM)"),
    ("/graceful", "", ""),
    ("/cut", "closed", "connection closed in mid-answer"),
    ("/hints", "", ""),
    ("/cut-before", "closed", "connection closed before the answer (reused connection)"),
    ("/gzip", "", ""),
    ("/reset", "closed", "connection reset by peer (reused connection)"),
    ("/big", "", ""),
    ("/noise", "protocol", "malformed answer: HTTP/2 FRAME_SIZE_ERROR"),
    ("/404", "status", "HTTP 404"),
];

#[test]
fn http_2_peers_that_misbehave_are_named() {
    let Some(peer) = Peer::start("hostile_h2.py", &[]) else { return };
    let base = format!("http://127.0.0.1:{}", peer.port("h2"));
    let names: Vec<&str> = H2.iter().map(|(path, ..)| *path).collect();
    let document = paths(&base, &names, &json!({"http_version": "2", "test_time": 2.5, "user_count": 4}));
    let (finished, summary) = run(folder().path(), &document, 0);
    finished.expect_code(1);
    let seen = peer.stop();
    check_paths(&summary, &seen, H2);
    // each time-out reset its stream
    assert!(seen["resets"].as_u64().unwrap() >= summary.count("/per_name/~1silent/count"), "{seen}");
}

#[test]
fn peers_that_speak_no_http_2_are_named() {
    let Some(peer) = Peer::start("hostile_h2.py", &[]) else { return };
    for (port, class, reason) in [
        ("http1", "protocol", "the target does not speak HTTP/2"),
        ("noise", "protocol", "malformed answer: HTTP/2 PROTOCOL_ERROR"),
        ("settings", "protocol", "malformed answer: HTTP/2 PROTOCOL_ERROR"),
        ("mute", "timeout", "timed out"),
    ] {
        // a pool must not leave users waiting for what never opened
        for connections in &["per_user", "shared:2"][usize::from(port != "http1")..] {
            let base = format!("http://127.0.0.1:{}", peer.port(port));
            let more = json!({"http_version": "2", "test_time": 0.6, "connections": connections});
            let (finished, summary) = run(folder().path(), &paths(&base, &["/"], &more), 0);
            finished.expect_code(1);
            assert_fails(&summary, class, reason);
            assert!(summary.ended() > 1, "{port}");
        }
    }
    peer.stop();
}

#[test]
fn a_request_that_the_peer_did_not_look_at_is_sent_once_more() {
    let Some(peer) = Peer::start("hostile_h2.py", &[]) else { return };
    let base = format!("http://127.0.0.1:{}", peer.port("h2"));
    let document = paths(&base, &["/unseen"], &json!({"http_version": "2", "test_time": 1.0}));
    let (finished, summary) = run(folder().path(), &document, 0);
    finished.expect_code(1);
    assert_fails(&summary, "closed", "connection closed by peer (GOAWAY NO_ERROR)");
    assert_eq!(peer.stop()["paths"]["/unseen"], 2 * summary.ended());
}

#[test]
fn streams_are_as_many_as_both_sides_allow() {
    let Some(peer) = Peer::start("hostile_h2.py", &[]) else { return };
    let url = |port| format!("http://127.0.0.1:{}/ok", peer.port(port));
    let load = |streams: u64| {
        let user = json!({"user": "fast_http_user", "streams": streams});
        let load = json!({"http_version": "2", "connections": "shared:2", "user_detail_dict": user});
        and(closed(10, 1.0), &load)
    };
    let (finished, summary) = run(folder().path(), &test(&url("few"), &load(100)), 0);
    finished.expect_code(0);
    let few = all_well(&summary);
    let seen = peer.stop();
    assert_eq!((&seen["connections"], &seen["most"], &seen["paths"]["/ok"]), (&json!(2), &json!(3), &json!(few)));

    let Some(peer) = Peer::start("hostile_h2.py", &[]) else { return };
    let url = format!("http://127.0.0.1:{}/ok", peer.port("few"));
    run(folder().path(), &test(&url, &load(2)), 0).0.expect_code(0);
    assert_eq!(peer.stop()["most"], 2);

    let faulty = and(load(2), &json!({"user_detail_dict": {"user": "fast_http_user", "streams": 0}}));
    let folder = folder();
    let mut check = command("ld-master", folder.path());
    check.args(["run-str", &test("http://127.0.0.1:1/", &faulty).to_string()]);
    let finished = Process::start("ld-master", check).wait(PATIENCE);
    finished.expect_code(2).expect_said("expected a whole number from 1 to 10000, found 0");
    finished.expect_said("/user_detail_dict/streams");
}

/// Redirects, cookies, codings, bodies and HEAD, as one user's tasks.
fn usual(base: &str) -> Value {
    let task = |method: &str, path: &str, name: &str| json!({"method": method, "request_url": format!("{base}{path}"), "name": name});
    let with = |task: Value, more: Value| and(task, &more);
    let holds = |text: &str| json!({"assertions": [{"type": "contains", "value": text}]});
    json!([
        with(task("get", "/redirect", "redirect"), holds("seen=yes")),
        with(task("get", "/cookie", "cookie"), holds("seen=yes")),
        with(task("get", "/gzip", "gzip"), holds("hello hello hello")),
        with(with(task("post", "/echo", "echo"), json!({"json": {"a": "${var.b}"}})), holds("\"c\"} ")),
        with(with(task("post", "/echo", "large"), json!({"data": "x".repeat(100_000)})), holds("xxx 100000")),
        task("get", "/big", "big"),
        with(
            task("head", "/ok", "head"),
            json!({"assertions": [{"type": "status_code", "value": 200}, {"type": "header", "name": "content-length", "value": "2"}]})
        ),
    ])
}

/// `usual` went well; each request is one record and one answer of the peer, a redirect's two.
#[track_caller]
fn check_usual(summary: &Summary, seen: &Value) {
    all_well(summary);
    let count = |name: &str| summary.0["per_name"][name]["count"].as_u64().unwrap_or(0);
    assert!(count("large") > 0 && count("big") > 0, "{:#}", summary.0["per_name"]);
    assert_eq!(seen["paths"]["/cookie"], count("redirect") + count("cookie"));
    assert_eq!(seen["paths"]["/echo"], count("echo") + count("large"));
    assert_eq!(seen["paths"]["/ok"].as_u64().unwrap_or(0), count("head"));
    let big = 2 * 1024 * 1024 * count("big");
    assert!(summary.count("/totals/bytes_received") > big);
    assert!(summary.count("/totals/bytes_sent") > 100_000 * count("large"));
}

#[test]
fn redirects_cookies_codings_and_bodies_over_http_2() {
    let Some(peer) = Peer::start("hostile_h2.py", &[]) else { return };
    let base = format!("http://127.0.0.1:{}", peer.port("h2"));
    let load = json!({"http_version": "2", "tasks": usual(&base), "variables": {"b": "c"}});
    let (finished, summary) = run(folder().path(), &test(&base, &and(closed(3, 2.0), &load)), 0);
    finished.expect_code(0);
    check_usual(&summary, &peer.stop());
}

/// aioquic with a certificate of the suite.
fn aioquic(certificates: &Certificates) -> Option<Peer> {
    let [cert, key] = [&certificates.cert, &certificates.key].map(|path| path.display().to_string());
    Peer::start("http3_target.py", &[&cert, &key])
}

#[test]
fn redirects_cookies_codings_and_bodies_over_http_3() {
    let certificates = Certificates::make();
    let Some(peer) = aioquic(&certificates) else { return };
    let base = format!("https://localhost:{}", peer.port("h3"));
    let load = json!({"tasks": usual(&base), "variables": {"b": "c"}, "user_detail_dict": {"user": "http3_user"}});
    let load = and(by("auto", 3, 4.0, &certificates), &load);
    let (finished, summary) = run(folder().path(), &test(&base, &load), 0);
    finished.expect_code(0);
    check_usual(&summary, &peer.stop());
}

const H3: &[(&str, &str, &str)] = &[
    ("/ok", "", ""),
    ("/rejected", "closed", "stream reset by peer (H3_REQUEST_REJECTED)"),
    ("/short", "protocol", "malformed answer: the body is not as long as Content-Length"),
    ("/silent", "timeout", "timed out"),
    ("/half-stall", "timeout", "timed out"),
    ("/half-reset", "closed", "stream reset by peer (H3_INTERNAL_ERROR)"),
    ("/close", "closed", "connection closed by peer (H3_EXCESSIVE_LOAD)"),
    ("/gzip", "", ""),
    ("/noise", "protocol", "malformed answer: HTTP/3 H3_FRAME_UNEXPECTED"),
    ("/404", "status", "HTTP 404"),
];

#[test]
fn http_3_peers_that_misbehave_are_named() {
    let certificates = Certificates::make();
    let Some(peer) = aioquic(&certificates) else { return };
    let base = format!("https://localhost:{}", peer.port("h3"));
    let names: Vec<&str> = H3.iter().map(|(path, ..)| *path).collect();
    let (finished, summary) = run(
        folder().path(),
        &paths(&base, &names, &json!({"http_version": "3", "test_time": 2.5, "user_count": 4})),
        0,
    );
    finished.expect_code(1);
    let seen = peer.stop();
    check_paths(&summary, &seen, H3);
    assert!(seen["resets"].as_u64().unwrap() >= summary.count("/per_name/~1silent/count"), "{seen}");
}

#[test]
fn udp_ports_without_http_3_are_named() {
    let certificates = Certificates::make();
    let Some(peer) = aioquic(&certificates) else { return };
    for (port, class, reason) in [
        ("other", "protocol", "the target does not speak HTTP/3"),
        ("noise", "timeout", "connection timed out"),
        ("mute", "timeout", "connection timed out"),
        ("closed", "timeout", "connection timed out"),
    ] {
        // short for those that are silent; who answers has the time that a busy machine may take
        let limit = if port == "other" { 30.0 } else { 0.2 };
        for connections in &["per_user", "shared:2"][usize::from(port != "other")..] {
            let url = format!("https://127.0.0.1:{}/", peer.port(port));
            let load = json!({
                "http_version": "3", "tls": {"verify": false}, "wait_time": 0.02,
                "connections": connections, "timeouts": {"connect": limit},
            });
            let (finished, summary) = run(folder().path(), &test(&url, &and(closed(2, 0.6), &load)), 0);
            finished.expect_code(1);
            assert_fails(&summary, class, reason);
            assert!(summary.ended() > 1, "{port}");
        }
    }
    let base = format!("https://localhost:{}", peer.port("h3"));
    let load = and(closed(2, 1.0), &json!({"http_version": "3", "wait_time": 0.02}));
    let (_, summary) = run(folder().path(), &test(&base, &load), 0);
    assert_fails(&summary, "tls", "tls: certificate not trusted (unknown issuer or self-signed)");
    peer.stop();
}
