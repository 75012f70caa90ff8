//! The HTTP API from outside: who is let in, a run followed and changed while it goes on, refusals by the
//! rules, clients that are slow, silent, large or many, and a foreign reader of the `OpenAPI` document.

use ld_master::target::{Options, Target};
use ld_tests::api::{Api, Event, Service};
use ld_tests::binaries::python;
use ld_tests::document;
use ld_tests::process::{Process, command, free_port};
use ld_tests::wait::{PATIENCE, pause, under_load, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

const RUNS: &str = "/api/v1/runs";

fn target() -> Target {
    Target::start(Options::default()).expect("loopback has free ports")
}

fn url(target: &Target) -> String {
    format!("http://{}/", target.addr())
}

/// Starts a document; gives the path of its job.
#[track_caller]
fn start(api: &Api, document: &Value) -> String {
    let answer = api.post(RUNS, document).expect(202);
    answer.header("location").expect("what was taken has a place").to_owned()
}

/// The run once it is over.
#[track_caller]
fn finished(api: &Api, place: &str) -> Value {
    wait_for("the end of a run", PATIENCE, || {
        let run = api.get(place).expect(200).json();
        (run["state"] == "finished").then_some(run)
    })
}

#[test]
fn without_the_token_there_is_nothing_but_the_refusal() {
    let target = target();
    let secrets = [("LD_TOKEN", "all-0123456789"), ("LD_VIEWER_TOKEN", "look-0123456789")];
    let mut service = Service::start(1, &[], &secrets);
    let nobody = &service.api;
    for wrong in ["", "Authorization: Bearer wrong", "Authorization: Basic YQ==", "Cookie: ld_session=0"] {
        let api = if wrong.is_empty() { nobody.clone() } else { nobody.with(wrong) };
        let refusal = api.get("/").expect(401);
        assert_eq!(refusal.code(), "token_needed");
        assert!(refusal.header("www-authenticate").is_some());
        for path in ["/", "/openapi.json", RUNS, "/api/v1/workers", "/nowhere", "/login", "/metrics", "//", "/healthz/"]
        {
            for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
                let answer = api.send(method, path, b"{}").expect(401);
                assert_eq!(answer.body, refusal.body, "{method} {path}");
            }
            assert_eq!(api.send("HEAD", path, b"").expect(401).body, b"");
        }
        for path in ["/healthz", "/readyz"] {
            api.get(path).expect(200);
            api.poke(path).expect(401);
        }
    }
    let operator = nobody.with("Authorization: Bearer all-0123456789");
    let viewer = nobody.with("Authorization: Bearer look-0123456789");
    let place = start(&operator, &document::test(&url(&target), &document::closed(1, 1.0)));
    for path in ["/", "/openapi.json", RUNS, "/api/v1/workers", "/api/v1/schema", &place] {
        operator.get(path).expect(200);
        viewer.get(path).expect(200);
    }
    for path in [RUNS, "/api/v1/validate", &format!("{place}/stop"), "/api/v1/runs/current/pause", "/nowhere"] {
        assert_eq!(viewer.post(path, &json!([])).expect(403).code(), "viewers_may_only_look");
    }

    // a browser shows the token once, and has a cookie from then on
    for wrong in [&json!({"token": "wrong"}), &json!({}), &json!(5)] {
        assert_eq!(nobody.post("/login", wrong).expect(401).code(), "token_needed");
    }
    let form = nobody.with("Content-Type: application/x-www-form-urlencoded");
    form.send("POST", "/login", b"token=look-0123456789").expect(303);
    let login = nobody.post("/login", &json!({"token": "all-0123456789"})).expect(200);
    let set = login.header("set-cookie").expect("that is what it is for").to_owned();
    assert!(["HttpOnly", "SameSite=Strict", "Path=/"].iter().all(|part| set.contains(part)), "{set}");
    assert!(!set.contains("all-0123456789") && !set.contains("Secure"), "{set}");
    let proxied = nobody.with("X-Forwarded-Proto: https").post("/login", &json!({"token": "all-0123456789"}));
    assert!(proxied.header("set-cookie").is_some_and(|set| set.contains("; Secure")));
    let cookie = nobody.with(&format!("Cookie: other=1; {}", set.split(';').next().expect("it has a value")));
    cookie.get(RUNS).expect(200);
    let own = cookie.with(&format!("Origin: http://127.0.0.1:{}", nobody.port));
    own.post("/api/v1/validate", &json!([["LD_summary"]])).expect(200);
    for other in ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "X-Nothing: 1"] {
        let answer = cookie.with(other).post("/api/v1/validate", &json!([["LD_summary"]]));
        assert_eq!(answer.expect(403).code(), "cross_site", "{other}");
    }
    own.poke("/logout").expect(204);
    cookie.get(RUNS).expect(401);
    // no page of another site may read anything
    assert!(!operator.with("Origin: http://evil.example").get(RUNS).expect(200).head.contains("access-control"));
    finished(&operator, &place);
    service.master.signal(Signal::TERM);
    let ended = service.master.wait(PATIENCE);
    for (_, secret) in secrets {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret));
    }
}

/// The seconds of a stream, and what came after them.
fn split(events: Vec<Event>) -> (Vec<Value>, Vec<Event>) {
    let (seconds, others): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.name == "second");
    for second in &seconds {
        assert_eq!(second.id, second.data["second"].to_string());
    }
    (seconds.into_iter().map(|event| event.data).collect(), others)
}

#[test]
fn a_run_is_followed_and_changed_while_it_goes_on() {
    let target = target();
    let service = Service::start(3, &["--max-rate", "5000"], &[]);
    let api = &service.api;
    let place = start(api, &document::test(&url(&target), &document::open(100.0, 8.0)));
    let live = format!("{place}/live");
    // whoever opens a stream and reads nothing holds up nobody
    let idle: Vec<_> = (0..20).map(|_| api.events(&live)).collect();
    let mut first = Vec::new();
    for event in api.events(&live) {
        first.push(event);
        if first.last().is_some_and(|event| event.id == "2") {
            break;
        }
    }
    // the connection is gone; meanwhile the load changes
    let current = format!("{RUNS}/current");
    let control = |what: &str, body: Value| api.post(&format!("{current}/{what}"), &body);
    assert_eq!(control("users", json!({"users": 5})).expect(409).code(), "other_model");
    assert_eq!(control("rate", json!({"rate": 5001})).expect(403).code(), "not_allowed");
    assert_eq!(control("rate", json!({"rate": 5, "scenario": "x"})).expect(422).code(), "no_such_scenario");
    assert_eq!(control("resume", json!({})).expect(409).code(), "already_so");
    let test = control("rate", json!({"rate": 300, "scenario": "default"})).expect(200).json();
    assert_eq!((&test["workers"], &test["scenarios"][0]["model"]), (&json!(3), &json!("open")));
    assert_eq!(api.get("/api/v1/workers").json()["workers"].as_array().map(Vec::len), Some(3));
    let second: Vec<_> = api.with("Last-Event-ID: 2").events(&live).collect();
    let (seconds, others) = split(first.into_iter().chain(second).collect());
    let names: Vec<_> = others.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["run", "run", "end"]);
    drop(idle);

    let run = finished(api, &place);
    let result = &run["result"];
    assert_eq!(Value::from(seconds), result["timeline"], "every second once, and as the result has it");
    assert_eq!(others[2].data, json!({"verdict": run["verdict"], "exit_code": run["exit_code"]}));
    let due = |second: usize| result["timeline"][second]["planned_rate"].as_f64().map(f64::round);
    assert_eq!((due(1), due(7)), (Some(100.0), Some(300.0)), "{}", result["timeline"]);
    assert!(target.counts().total > 1_000, "{} of the target", target.counts().total);
    assert_eq!(result["totals"]["requests"], target.counts().total);
    let by =
        |event: &Value| event["by"] == "api 127.0.0.1" && event["what"].as_str().is_some_and(|w| w.contains("300/s"));
    assert!(result["events"].as_array().is_some_and(|events| events.iter().any(by)), "{}", result["events"]);
    let page = api.get("/metrics").expect(200);
    let page = String::from_utf8(page.body).expect("metrics are text");
    let counted = page.lines().filter(|line| line.starts_with("loaddensity_requests_total{"));
    let counted: f64 = counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert!((counted - target.counts().total as f64).abs() < 0.5, "{page}");
    // who was there to the end need not come back
    api.with("Last-Event-ID: end").get(&live).expect(204);
    let kept = api.get(&format!("{RUNS}/latest")).expect(200).json();
    assert_eq!((&kept["kind"], &kept["result"]["totals"]), (&json!("kept"), &result["totals"]));
    let (again, _) = split(api.events(&format!("{RUNS}/latest/live")).collect());
    assert_eq!(Value::from(again), result["timeline"]);
    reports(api, &place);
    let compared = api.get("/api/v1/compare?a=latest&b=job-1").expect(200).json();
    assert_eq!((&compared["regression"], &compared["plans_differ"]), (&json!(false), &json!(false)));
}

fn reports(api: &Api, place: &str) {
    for (format, content, begin) in [
        ("html", "text/html; charset=utf-8", "<!doctype html>"),
        ("json", "application/json", "{"),
        ("xml", "application/xml", "<?xml"),
        ("csv", "text/csv; charset=utf-8", ""),
        ("junit", "application/xml", "<?xml"),
        ("summary", "application/json", "{"),
    ] {
        let report = api.get(&format!("{place}/reports/{format}")).expect(200);
        assert_eq!(report.header("content-type"), Some(content));
        let text = String::from_utf8(report.body).expect("reports are text");
        assert!(text.to_lowercase().starts_with(begin) && text.contains("hit"), "{format}: {text:.200}");
    }
    let failures = api.get(&format!("{place}/reports/json?part=failures")).expect(200);
    assert_eq!(failures.json(), json!({}));
    assert_eq!(api.get(&format!("{RUNS}/latest/reports/html")).expect(404).code(), "no_such_report");
}

#[test]
fn documents_wait_for_their_turn_and_can_be_ended() {
    let target = target();
    let service = Service::start(1, &[], &[]);
    let api = &service.api;
    let long = document::test(&url(&target), &document::closed(2, 60.0));
    let (first, second) = (start(api, &long), start(api, &long));
    assert_eq!(api.get(&second).json()["position"], 1);
    under_load(&target, 10);
    // users are set, and what is paused starts nothing
    let users = |n: u64| api.post(&format!("{first}/users"), &json!({"users": n}));
    assert_eq!(api.post(&format!("{second}/users"), &json!({"users": 1})).expect(409).code(), "not_running");
    assert_eq!(users(10_001).expect(403).code(), "not_allowed");
    users(7).expect(200);
    let live = |of: &str| api.get(&format!("{first}?")).json()["test"][of].as_u64();
    wait_for("seven users", PATIENCE, || (live("users") == Some(7)).then_some(()));
    api.poke(&format!("{first}/pause")).expect(200);
    assert_eq!(api.poke(&format!("{first}/pause")).expect(409).code(), "already_so");
    wait_for("the pause", PATIENCE, || {
        let before = target.counts().total;
        pause(Duration::from_millis(300));
        (target.counts().total == before).then_some(())
    });
    let paused = target.counts().total;
    api.poke(&format!("{RUNS}/current/resume")).expect(200);
    under_load(&target, paused + 10);
    // the one that waits never begins, the other drains
    api.poke(&format!("{second}/stop")).expect(202);
    assert_eq!(finished(api, &second)["result"], Value::Null);
    api.poke(&format!("{first}/stop")).expect(202);
    let run = finished(api, &first);
    assert_eq!(run["exit_code"], 130);
    let ended: u64 =
        ["requests_started", "succeeded"].map(|key| run["result"]["conservation"][key].as_u64().unwrap_or(0))[0];
    assert_eq!(ended, target.counts().total);
    assert_eq!(api.poke(&format!("{first}/abort")).expect(409).code(), "not_running");
    assert_eq!(api.get(&format!("{RUNS}/current")).expect(404).code(), "nothing_runs");

    // what one may not do from outside
    let narrow = |test: &Value, what: &str| {
        let problem = api.post(RUNS, &document::test(&url(&target), test)).expect(422);
        assert_eq!(problem.code(), "faults");
        let errors = problem.json()["errors"].to_string();
        assert!(errors.contains(what), "{errors}");
    };
    narrow(&json!({"user_conut": 5}), "/load_density/0/1/user_conut");
    narrow(&json!({"variables": {"x": "${env.HOME}"}}), "${env.HOME}");
    let file =
        document::and(document::closed(1, 0.5), &json!({"csv_sources": [{"name": "a", "file_path": "/etc/passwd"}]}));
    let run = finished(api, &start(api, &document::test(&url(&target), &file)));
    assert!(run["actions"][0]["error"]["message"].as_str().is_some_and(|text| text.contains("/etc/passwd")), "{run}");
    let run = finished(api, &start(api, &document::test("http://192.0.2.1/", &document::closed(1, 0.5))));
    assert_eq!(run["result"]["totals"]["successes"], 0);
}

#[test]
fn a_run_of_the_command_line_is_looked_at_and_changed() {
    let target = target();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let port = free_port();
    let api = Api { port, headers: Vec::new() };
    let test = document::test(&url(&target), &document::open(50.0, 4.0));
    let mut master = command("ld-master", folder.path());
    master.args(["--web", &format!("127.0.0.1:{port}"), "--cores", "1", "run-str", &test.to_string()]);
    let mut master = Process::start("ld-master", master);
    under_load(&target, 20);
    assert_eq!(api.post(RUNS, &test).expect(409).code(), "starts_nothing");
    api.post(&format!("{RUNS}/current/rate"), &json!({"rate": 200})).expect(200);
    let (seconds, others) = split(api.events(&format!("{RUNS}/current/live")).collect());
    let started: u64 = seconds.iter().filter_map(|second| second["started"].as_u64()).sum();
    assert!(started > 200 && started == target.counts().total, "{seconds:?}");
    assert_eq!(others.last().map(|event| event.name.as_str()), Some("end"), "{others:?}");
    master.wait(PATIENCE).expect_code(0).expect_said("HTTP API at");

    // the same for one test that asks for it
    let (port, at) = (free_port(), "127.0.0.1");
    let load = document::and(document::open(50.0, 60.0), &json!({"web_ui_dict": {"host": at, "port": port}}));
    let mut master = command("ld-master", folder.path());
    master.args(["--cores", "1", "run-str", &document::test(&url(&target), &load).to_string()]);
    let mut master = Process::start("ld-master", master);
    let api = Api { port, ..api };
    under_load(&target, target.counts().total + 10);
    api.poke(&format!("{RUNS}/current/stop")).expect(202);
    master.wait(PATIENCE).expect_code(130);
}

#[test]
fn refusals_are_by_the_rules() {
    let mut service = Service::start(0, &[], &[]);
    let api = &service.api;
    let json_of = |text: &str| api.with("Content-Type: application/json").send("POST", RUNS, text.as_bytes());
    let broken = json_of(r#"{"load_density": [["LD_start_test", {"tasks": x}]]}"#).expect(400);
    assert_eq!((broken.code().as_str(), &broken.json()["pointer"]), ("bad_json", &json!("/load_density/0/1/tasks")));
    assert_eq!(json_of(&"[".repeat(1_000_000)).expect(400).code(), "bad_json");
    assert_eq!(json_of("").expect(400).code(), "bad_json");
    assert_eq!(json_of("{}").expect(422).code(), "faults");
    let text = api.with("Content-Type: text/plain").send("POST", RUNS, b"[]").expect(415);
    assert_eq!(text.code(), "other_type");
    let put = api.send("PUT", RUNS, b"").expect(405);
    assert_eq!((put.code().as_str(), put.header("allow")), ("no_such_method", Some("GET,HEAD,POST")));
    assert_eq!(api.send("OPTIONS", "/api/v1/workers", b"").expect(405).code(), "no_such_method");
    assert_eq!(api.get("/api/v1/nothing").expect(404).code(), "no_such_page");
    assert_eq!(api.get(&format!("{RUNS}/job-7")).expect(404).code(), "no_such_run");
    for bad in ["?limit=0", "?limit=x", "?limti=5", "?limit=5&limit=6", "?limit=%ff"] {
        assert_eq!(api.get(&format!("{RUNS}{bad}")).expect(400).code(), "bad_value", "{bad}");
    }
    assert_eq!(api.get("/api/v1/runs/%ff").expect(400).code(), "bad_value");
    assert_eq!(api.with("Last-Event-ID: x").get("/api/v1/runs/current/live").expect(400).code(), "bad_value");
    // a document that is too large: the answer comes, however much is still to be sent
    let large = format!("[{}]", " ".repeat(5 << 20));
    assert_eq!(json_of(&large).expect(413).code(), "too_large");
    // without a token: no name that somebody else resolves, no page of another site
    assert_eq!(api.with("Host: evil.example").get(RUNS).expect(421).code(), "other_host");
    assert_eq!(api.with("Origin: http://evil.example").post(RUNS, &json!([])).expect(403).code(), "cross_site");
    api.with("Host: localhost").get(RUNS).expect(200);
    api.get("/").expect(200);

    service.master.signal(Signal::TERM);
    service.master.wait(PATIENCE).expect_code(0);
}

/// Clients that send nothing, half a head, half a body, garbage: all of them at once. Those that can
/// only be shut out by time.
fn hostile(port: u16) -> Vec<TcpStream> {
    let connect = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it takes connections");
        stream.write_all(bytes).expect("a fresh connection takes bytes");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        stream
    };
    let head = format!("POST {RUNS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n");
    let half = format!("{head}Authorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n[[");
    let garbage = b"\x16\x03\x01\x00\xff garbage \r\n\r\n".as_slice();
    let kinds = [(b"".as_slice(), 150), (head.as_bytes(), 50), (half.as_bytes(), 50), (garbage, 10)];
    kinds.into_iter().flat_map(|(bytes, n)| (0..n).map(move |_| bytes)).map(connect).collect()
}

/// Whether it ends with an answer, a close or a reset: it ends.
fn shut_out(mut stream: TcpStream) {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

const TOKEN: &str = "t0ken-0123456789";

/// A foreign reader of the `OpenAPI` document, which asks everything in every way while hostile clients
/// hang on: no failure of the server, and no answer that is not told of.
#[test]
fn schemathesis_finds_nothing_whoever_else_is_there() {
    let Some(python) = python() else { return ld_tests::skip("no Python environment: tests/run makes one") };
    let mut service = Service::start(1, &[], &[("LD_TOKEN", TOKEN)]);
    let hostile = hostile(service.api.port);
    let mut command = Command::new(python.with_file_name("st"));
    command.arg("run").arg(format!("http://127.0.0.1:{}/openapi.json", service.api.port));
    command.args(["-H", &format!("Authorization: Bearer {TOKEN}"), "--seed", "7", "--max-examples", "3"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--no-color"]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                  response_schema_conformance,unsupported_method,ignored_auth";
    command.args(["--checks", checks]).current_dir(service.folder.path());
    let mut tool = Process::start("schemathesis", command);
    let ended = tool.wait(Duration::from_mins(2));
    assert!(ended.code == Some(0), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("Tested: 21"), "{}", ended.stdout);
    hostile.into_iter().for_each(shut_out);
    service.api.get("/healthz").expect(200);
    assert!(service.master.runs());
}
