//! Who may join, what passes in the clear, and what an attacker can do to a run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::target::{Options, Target};
use ld_tests::binaries::{python, test_file, workspace};
use ld_tests::certificates::Certificates;
use ld_tests::document::{and, open, test};
use ld_tests::process::{Process, command, free_port};
use ld_tests::relay::Tap;
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);
const TOKEN: &str = "c0ffee00112233445566778899aabbccddeeff00112233445566778899aabbcc";
const OTHER: &str = "badc0de0112233445566778899aabbccddeeff00112233445566778899aabbcc";

/// A master that runs `document` on as many workers, at `address`.
fn master(
    folder: &Path,
    address: &str,
    workers: u32,
    document: &Value,
    flags: &[&str],
    token: Option<&str>,
) -> Process {
    let mut master = command("ld-master", folder);
    master.envs(token.map(|token| ("LD_TOKEN", token)));
    master.args(["--bind", address, "--expected-workers", &workers.to_string(), "--wait", "60s"]);
    master.args(["run-str", &document.to_string(), "--summary", "summary.json"]).args(flags);
    Process::start("ld-master", master)
}

fn worker(folder: &Path, address: &str, flags: &[&str], token: Option<&str>) -> Process {
    let mut worker = command("ld-worker", folder);
    worker.envs(token.map(|token| ("LD_TOKEN", token)));
    worker.args(["--master", address, "--cores", "1"]).args(flags);
    Process::start("ld-worker", worker)
}

/// What the master prints to be pasted.
fn fingerprint(master: &mut Process) -> String {
    let line = master.line_with("--ca-fingerprint");
    line.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned()
}

fn target() -> (Target, String) {
    let target = Target::start(Options::default()).unwrap();
    let url = format!("http://{}/", target.addr());
    (target, url)
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn only_who_knows_the_token_and_the_certificate_joins() {
    let (target, url) = target();
    let (folder, address) = (tempfile::tempdir().unwrap(), address());
    let document = test(&url, &open(200.0, 2.0));
    let mut master = master(folder.path(), &address, 1, &document, &[], Some(TOKEN));
    let pin = fingerprint(&mut master);
    let wrong_pin = format!("sha256:{}", "ab".repeat(32));
    let cases: [(&[&str], Option<&str>, &str); 4] = [
        (&[], None, "this master wants a token"),
        (&[], Some(OTHER), "another token than this master"),
        (&["--ca-fingerprint", &wrong_pin], Some(TOKEN), "--ca-fingerprint names"),
        (&["--tls", "off"], Some(TOKEN), "without --tls off"),
    ];
    let mut strangers: Vec<_> =
        cases.iter().map(|(flags, token, says)| (worker(folder.path(), &address, flags, *token), says)).collect();
    for (stranger, says) in &mut strangers {
        stranger.wait(LIMIT).expect_code(3).expect_said(says);
    }
    assert!(master.runs(), "nobody has joined: {}", master.stderr());
    let mut right = worker(folder.path(), &address, &["--ca-fingerprint", &pin], Some(TOKEN));
    let finished = master.wait(LIMIT);
    right.wait(LIMIT).expect_code(0);
    finished.expect_code(0).expect_said("said once for this address");
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    assert_eq!(summary.list("/workers").len(), 1);
    assert_eq!(target.stop().unwrap().total, summary.ended());
    for text in [finished.stderr, right.stderr()] {
        assert!(!text.contains(TOKEN), "the token is said aloud: {text}");
    }
}

#[test]
fn a_worker_with_a_token_leaves_a_master_without() {
    let (folder, address) = (tempfile::tempdir().unwrap(), address());
    let document = test("http://127.0.0.1:1/", &open(1.0, 1.0));
    let mut master = master(folder.path(), &address, 1, &document, &[], None);
    worker(folder.path(), &address, &[], Some(TOKEN)).wait(LIMIT).expect_code(3).expect_said("it has no token");
    master.signal(Signal::TERM);
    master.wait(LIMIT);
}

#[test]
fn nothing_passes_in_the_clear_unless_asked_for() {
    let (target, url) = target();
    let marked = |seconds| {
        let load = and(open(50.0, seconds), &json!({"variables": {"mark": "variable-4711"}}));
        let mut document = test(&format!("{url}${{var.mark}}"), &load);
        document["load_density"][0][1]["tasks"][0]["name"] = json!("name-4711");
        document
    };
    let run = |document: &Value, flags: &[&str], worker_flags: &[&str]| {
        let (folder, behind) = (tempfile::tempdir().unwrap(), address());
        fs::write(folder.path().join("secrets"), "PW=secret-4711").unwrap();
        let tap = Tap::start(behind.clone());
        let mut master = master(folder.path(), &behind, 1, document, flags, Some(TOKEN));
        let mut worker = worker(folder.path(), &tap.address(), worker_flags, Some(TOKEN));
        let finished = master.wait(LIMIT);
        if finished.code == Some(2) {
            worker.signal(Signal::TERM);
        }
        worker.wait(LIMIT);
        (finished, tap)
    };
    let mut secret = marked(2.0);
    secret["load_density"][0][1]["tasks"][0]["headers"] = json!({"X-Key": "${secret.PW}"});
    let (finished, tap) = run(&secret, &["--secrets", "secrets"], &[]);
    finished.expect_code(0);
    assert!(tap.seen().len() > 10_000, "a plan and frames passed");
    for clear in ["variable-4711", "secret-4711", "name-4711", "request_url", &url, TOKEN, "ld-worker"] {
        assert!(!tap.saw(clear.as_bytes()), "{clear} passed in the clear");
    }
    // what the tap would see, and what is refused because it would
    let (finished, tap) = run(&marked(1.0), &["--tls", "off"], &["--tls", "off"]);
    finished.expect_code(0).expect_said("--tls off: whoever sees");
    assert!(tap.saw(b"variable-4711") && tap.saw(b"name-4711"), "without TLS all is there");
    assert!(!tap.saw(TOKEN.as_bytes()), "the token never travels");
    let (finished, _) = run(&secret, &["--tls", "off", "--secrets", "secrets"], &["--tls", "off"]);
    finished.expect_code(2).expect_said("secrets would go to workers in the clear");
    target.stop().unwrap();
}

#[test]
fn a_worker_with_tls_leaves_a_master_without() {
    let (folder, address) = (tempfile::tempdir().unwrap(), address());
    let document = test("http://127.0.0.1:1/", &open(1.0, 1.0));
    let mut master = master(folder.path(), &address, 1, &document, &["--tls", "off"], None);
    master.line_with("warning: --tls off");
    worker(folder.path(), &address, &[], None).wait(LIMIT).expect_code(3).expect_said("it does not speak TLS");
    master.signal(Signal::TERM);
    master.wait(LIMIT);
}

#[test]
fn the_first_certificate_is_trusted_for_the_life_of_the_worker() {
    let (target, url) = target();
    let (folder, address) = (tempfile::tempdir().unwrap(), address());
    let document = test(&url, &open(100.0, 1.0));
    let mut staying = worker(folder.path(), &address, &["--stay"], None);
    let state = |name: &str| folder.path().join(name).display().to_string();
    // the same data folder: the same certificate
    for _ in 0..2 {
        let mut known = master(folder.path(), &address, 1, &document, &["--data-dir", &state("one")], None);
        known.wait(LIMIT).expect_code(0);
        assert!(staying.runs(), "{}", staying.stderr());
    }
    assert!(staying.stderr().contains("trusting the master's certificate"), "{}", staying.stderr());
    let mut other = master(folder.path(), &address, 1, &document, &["--data-dir", &state("two")], None);
    staying.wait(LIMIT).expect_code(3).expect_said("when this worker first joined");
    assert!(other.runs(), "nobody has joined: {}", other.stderr());
    other.signal(Signal::TERM);
    other.wait(LIMIT);
    let mode = |file: &str| {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(folder.path().join("one").join(file)).unwrap().mode() & 0o777
    };
    assert_eq!((mode("certificate.pem"), mode("session.key"), mode(".")), (0o600, 0o600, 0o700));
    target.stop().unwrap();
}

#[test]
fn own_certificates_and_those_of_workers() {
    let (target, url) = target();
    let (files, folder, address) = (Certificates::make(), tempfile::tempdir().unwrap(), address());
    let pair = |certificate: &Path, key: &Path| format!("{},{}", certificate.display(), key.display());
    let (own, of_worker) = (pair(&files.cert, &files.key), pair(&files.client_cert, &files.client_key));
    let ca = files.ca.display().to_string();
    let document = test(&url, &open(100.0, 1.0));
    let flags = ["--tls", own.as_str(), "--tls-client-ca", &ca];
    let mut master = master(folder.path(), &address, 1, &document, &flags, None);
    let pin = fingerprint(&mut master);
    let stranger = Certificates::make();
    let strange = pair(&stranger.client_cert, &stranger.client_key);
    let expired = pair(&files.expired_cert, &files.client_key);
    let foreign_key = pair(&files.client_cert, &stranger.client_key);
    let cases: [(&[&str], i32, &str); 4] = [
        (&[], 3, "it wants a certificate"),
        (&["--tls-cert", &strange], 3, "did not sign the certificate of this worker's"),
        (&["--tls-cert", &expired], 3, "has expired or is not valid yet"),
        (&["--tls-cert", &foreign_key], 2, "the key is not that of the certificate"),
    ];
    for (flags, code, says) in cases {
        // trying again cannot help: it does not take its minute
        let mut refused = worker(folder.path(), &address, flags, None);
        refused.wait(Duration::from_secs(20)).expect_code(code).expect_said(says);
    }
    assert!(master.runs(), "nobody has joined: {}", master.stderr());
    let mut right = worker(folder.path(), &address, &["--ca-fingerprint", &pin, "--tls-cert", &of_worker], None);
    master.wait(LIMIT).expect_code(0);
    right.wait(LIMIT).expect_code(0);
    target.stop().unwrap();
}

#[test]
fn a_master_whose_certificate_changes_is_a_stranger_to_who_has_pinned_it() {
    let (target, url) = target();
    let (files, folder, address) = (Certificates::make(), tempfile::tempdir().unwrap(), address());
    let pair = |certificate: &Path, key: &Path| format!("{},{}", certificate.display(), key.display());
    let (one, two) = (pair(&files.cert, &files.key), pair(&files.client_cert, &files.client_key));
    let document = test(&url, &open(100.0, 1.0));
    let mut first = master(folder.path(), &address, 1, &document, &["--tls", &one], None);
    let pin = fingerprint(&mut first);
    let mut pinned = worker(folder.path(), &address, &["--ca-fingerprint", &pin, "--stay"], None);
    first.wait(LIMIT).expect_code(0);
    let mut second = master(folder.path(), &address, 1, &document, &["--tls", &two], None);
    pinned.wait(LIMIT).expect_code(3).expect_said(&format!("--ca-fingerprint names {pin}"));
    assert!(second.runs(), "nobody has joined: {}", second.stderr());
    second.signal(Signal::TERM);
    second.wait(LIMIT);
    // files of which nothing can be made, and what contradicts itself
    let ca = files.ca.display().to_string();
    let mixed = pair(&files.cert, &files.client_key);
    let cases: [(&[&str], i32, &str); 3] = [
        (&["--tls", &mixed], 3, "the key is not that of the certificate"),
        (&["--tls", "none.pem,none.key"], 3, "cannot read the certificate `none.pem`"),
        (&["--tls", "off", "--tls-client-ca", &ca], 2, "--tls off goes with no --tls-client-ca"),
    ];
    for (flags, code, says) in cases {
        master(folder.path(), &address, 1, &document, flags, None).wait(LIMIT).expect_code(code).expect_said(says);
    }
    target.stop().unwrap();
}

#[test]
fn an_attacker_changes_nothing_of_a_run() {
    let Some(python) = python() else { return ld_tests::skip("no Python environment: tests/run makes one") };
    let (target, url) = target();
    let (folder, address) = (tempfile::tempdir().unwrap(), address());
    let document = test(&url, &open(500.0, 600.0));
    let mut master = master(folder.path(), &address, 2, &document, &[], Some(TOKEN));
    fingerprint(&mut master);
    let mut workers: Vec<_> = (0..2).map(|_| worker(folder.path(), &address, &[], Some(TOKEN))).collect();
    wait_for("load", PATIENCE, || (target.counts().total >= 500).then_some(()));
    let mut attack = Command::new(python);
    attack.arg(test_file("py/hostile_worker.py")).arg(&address).env("LD_TOKEN", TOKEN);
    attack.arg(workspace().join("proto/proto/loaddensity/cluster/v1/cluster.proto"));
    let attacked = Process::start("hostile_worker.py", attack).wait(LIMIT);
    attacked.expect_code(0).expect_said("end");
    let outcomes: BTreeMap<&str, &str> =
        attacked.stdout.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    let expected = [
        ("joined", "welcome"),
        // code 5: token; 2: hello
        ("replayed", "refused 5"),
        ("no_proof", "refused 5"),
        ("wrong_proof", "refused 5"),
        ("long_proof", "refused 5"),
        ("no_nonce", "refused 2"),
        ("short_nonce", "refused 2"),
        ("beat_first", "refused 2"),
        ("proof_first", "refused 2"),
        ("nothing", "refused 2"),
        ("hello_twice", "closed"),
        ("stolen_session", "other"),
        ("attach_wrong", "PERMISSION_DENIED"),
        ("attach_empty", "PERMISSION_DENIED"),
        ("attach_alone", "PERMISSION_DENIED"),
        ("beat_error", "closed"),
        ("beat_run", "closed"),
        ("giant_hello", "closed"),
        ("large_hello", "closed"),
        ("giant_message", "closed"),
        ("half_frame", "cut"),
        ("slow_silent", "cut"),
        ("slow_half_tls", "cut"),
        ("slow_dribble", "cut"),
        ("slow_half_http", "cut"),
        ("crowd", "enough"),
        ("joined_in_crowd", "welcome"),
    ];
    for (name, outcome) in expected {
        assert_eq!(outcomes.get(name), Some(&outcome), "{name}\n{}\n{}", attacked.stdout, attacked.stderr);
    }
    let forged = outcomes.iter().filter(|(name, _)| name.starts_with("frame_"));
    assert!(forged.clone().count() == 16 && forged.clone().all(|(_, outcome)| *outcome == "ended"), "{outcomes:?}");
    assert!(workers.iter_mut().all(Process::runs), "the workers never noticed");
    let memory = resident_mib(master.pid());
    assert!(memory < 300, "{memory} MiB after all that");
    master.signal(Signal::TERM);
    let finished = master.wait(LIMIT);
    for worker in &mut workers {
        worker.wait(LIMIT);
    }
    let summary = Summary::read(&folder.path().join("summary.json")).unwrap();
    summary.check_conservation();
    assert_eq!(summary.count("/conservation/lost"), 0);
    let arrived = target.stop().unwrap().total;
    assert_eq!(summary.ended() + summary.count("/conservation/in_flight"), arrived, "{}", summary.0["conservation"]);
    let losses = summary.list("/losses");
    let ours = |name: &str| {
        !["forger", "honest", "thief", "liar", "giant", "late"].iter().any(|theirs| name.starts_with(theirs))
    };
    assert!(!losses.iter().any(|loss| ours(loss["worker"].as_str().unwrap())), "{losses:?}");
    let once = finished.stderr.matches("said once for this address").count();
    assert_eq!(once, 1, "one peer, one complaint: {}", finished.stderr);
}

/// Memory of a process.
fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Where nobody may go: counts who does.
struct Forbidden(TcpListener, std::net::UdpSocket);

impl Forbidden {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let socket = std::net::UdpSocket::bind(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(listener, socket)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn was_reached(&self) -> bool {
        self.0.accept().is_ok() || self.1.recv(&mut [0; 9]).is_ok()
    }
}

#[test]
fn no_protocol_dials_what_is_not_allowed() {
    use ld_tests::scripted::{Answer, ScriptedServer};
    let forbidden = Forbidden::open();
    let no = forbidden.address();
    let location = format!("HTTP/1.1 302 Found\r\nLocation: http://{no}/\r\nContent-Length: 0\r\n\r\n");
    let server = ScriptedServer::start(move |_| Answer { bytes: location.clone().into_bytes(), close: false });
    let allowed = server.url().trim_start_matches("http://").to_owned();
    let one = |user: &str, task: Value| json!({"user_detail_dict": {"user": user}, "tasks": [task], "iterations": 1, "user_count": 1, "test_time": 20});
    let tests = [
        (
            "redirect",
            one("http_user", json!({"method": "get", "request_url": format!("{}/", server.url()), "name": "redirect"})),
        ),
        (
            "direct",
            one("fast_http_user", json!({"method": "get", "request_url": format!("http://{no}/"), "name": "direct"})),
        ),
        (
            "named",
            one(
                "fast_http_user",
                json!({"method": "get", "request_url": format!("http://localhost:{}/", no.rsplit_once(':').unwrap().1), "name": "named"}),
            ),
        ),
        (
            "h3",
            and(
                one("fast_http_user", json!({"method": "get", "request_url": format!("https://{no}/"), "name": "h3"})),
                &json!({"http_version": "3"}),
            ),
        ),
        ("ws", one("websocket_user", json!({"method": "connect", "request_url": format!("ws://{no}/"), "name": "ws"}))),
        ("grpc", one("grpc_user", json!({"target": no, "service": "a.B", "method": "C", "name": "grpc"}))),
        ("mqtt", one("mqtt_user", json!({"method": "connect", "broker": no, "name": "mqtt"}))),
        ("tcp", one("socket_user", json!({"protocol": "tcp", "target": no, "payload": "x", "name": "tcp"}))),
        ("udp", one("socket_user", json!({"protocol": "udp", "target": no, "payload": "x", "name": "udp"}))),
        ("sse", one("sse_user", json!({"request_url": format!("http://{no}/"), "name": "sse"}))),
    ];
    // by the document, by the flag of the process, and by a worker's own
    let run = |name: &str, test: &Value, way: usize| {
        let folder = tempfile::tempdir().unwrap();
        let mut test = test.clone();
        if way == 0 {
            test["allow_targets"] = json!([allowed]);
        }
        let document = json!({"load_density": [["LD_start_test", test]]});
        let finished = if way == 2 {
            let address = address();
            let mut master = master(folder.path(), &address, 1, &document, &[], None);
            let mut worker = worker(folder.path(), &address, &["--allow-target", &allowed], None);
            worker.wait(LIMIT).expect_code(0);
            master.wait(LIMIT)
        } else {
            let mut master = command("ld-master", folder.path());
            if way == 1 {
                master.args(["--allow-target", &allowed]);
            }
            master.args(["--cores", "1", "run-str", &document.to_string(), "--summary", "summary.json"]);
            Process::start("ld-master", master).wait(LIMIT)
        };
        let summary = Summary::read(&folder.path().join("summary.json"))
            .unwrap_or_else(|why| panic!("{name}: {why}\n{}\n{}", finished.stdout, finished.stderr));
        let reasons: Vec<&str> = summary.list("/failures").iter().filter_map(|row| row["reason"].as_str()).collect();
        assert!(
            !reasons.is_empty() && reasons.iter().all(|reason| *reason == "target not allowed"),
            "{name}: {reasons:?}"
        );
        assert!(!forbidden.was_reached(), "{name} reached what is forbidden");
    };
    for (i, (name, test)) in tests.iter().enumerate() {
        run(name, test, i % 2);
        run(name, test, 2);
    }
    assert!(server.requests() >= 1, "what is allowed is reached");
}
