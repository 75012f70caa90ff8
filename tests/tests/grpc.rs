//! gRPC users against Python's grpcio, and against a server that breaks the rules. Every run is held
//! against the server's own counts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_tests::binaries::{python, test_file};
use ld_tests::certificates::Certificates;
use ld_tests::cluster::run_with;
use ld_tests::document::{and, closed};
use ld_tests::grpc::{RawServer, Step, answer_head, frame, headers, message, trailers};
use ld_tests::peer::Peer;
use ld_tests::process::{Finished, Process, command, free_port};
use ld_tests::summary::Summary;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

/// Python's server with these flags.
fn start(flags: &[&str]) -> Option<Peer> {
    Peer::start("grpc_target.py", flags)
}

fn address(target: &Peer) -> String {
    format!("127.0.0.1:{}", target.port("grpc"))
}

/// Calls that the server saw.
fn calls(seen: &Value) -> u64 {
    let by_method = seen["calls"].as_object().unwrap();
    by_method.values().map(|count| count.as_u64().unwrap()).sum()
}

fn fixture(name: &str) -> String {
    test_file("fixtures/grpc").join(name).display().to_string()
}

/// Options that name the service's own file.
fn described() -> Value {
    json!({"proto": fixture("hello.proto")})
}

/// A test of these tasks, each to `target` unless it says otherwise.
fn document(target: &str, options: &Value, load: &Value, tasks: &Value) -> Value {
    let mut test = json!({
        "user_detail_dict": and(json!({"user": "grpc_user"}), options), "host": target, "tasks": tasks,
        "records": {"keep": 1000},
    });
    ld_tests::document::merge(&mut test, load);
    json!({"load_density": [["LD_start_test", test], ["LD_generate_csv_report", {"csv_name": "all"}]]})
}

/// What came of a run.
struct Ran {
    finished: Finished,
    summary: Summary,
    /// Status, length and error of the kept records, by name.
    records: BTreeMap<String, Vec<[String; 3]>>,
}

impl Ran {
    /// A strict run; without workers in one process.
    fn of(document: &Value, workers: usize) -> Self {
        Self::with(document, workers, &[])
    }

    /// A run as the seed's.
    fn lenient(document: &Value) -> Self {
        Self::with(document, 0, &["--lenient"])
    }

    fn with(document: &Value, workers: usize, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = [flags, &["--cores", "1"]].concat();
        let (finished, summary) = run_with(folder.path(), document, workers, &flags);
        assert_eq!(summary.count("/conservation/lost"), 0);
        let csv = fs::read_to_string(folder.path().join("all.csv")).unwrap();
        let mut records = BTreeMap::<String, Vec<[String; 3]>>::new();
        for line in csv.lines().skip(1) {
            // no text of these tests has a comma before the error
            let fields: Vec<&str> = line.splitn(8, ',').collect();
            let [_, kind, _, name, status, _, length, error] = fields[..] else { panic!("{line}") };
            assert_eq!(kind, "GRPC", "{line}");
            records.entry(name.into()).or_default().push([status, length, error].map(str::to_owned));
        }
        Self { finished, summary, records }
    }

    fn count(&self, name: &str, what: &str) -> u64 {
        self.summary.count(&format!("/per_name/{name}/{what}"))
    }

    /// Asserts that every request of a name went well.
    #[track_caller]
    fn went_well(&self, names: &[&str]) {
        for name in names {
            let failures = self.summary.list("/failures");
            assert!(self.count(name, "count") > 0, "{name}");
            assert_eq!(self.count(name, "failures"), 0, "{name}: {failures:#?}");
        }
    }

    /// Asserts that every request of a name failed with this class, reason and status.
    #[track_caller]
    fn failed(&self, name: &str, class: &str, reason: &str, status: &str) {
        let failures: Vec<_> = self.summary.list("/failures").iter().filter(|f| f["name"] == name).collect();
        assert_eq!(failures.len(), 1, "{name}: {failures:#?}");
        assert_eq!((&failures[0]["class"], &failures[0]["reason"]), (&class.into(), &reason.into()), "{name}");
        assert_eq!(failures[0]["count"], self.count(name, "count"), "{name}");
        for [seen, ..] in &self.records[name] {
            assert_eq!(seen, status, "{name}");
        }
    }

    /// Asserts that the server saw what was counted here.
    #[track_caller]
    fn agrees_with(&self, seen: &Value) {
        assert_eq!(calls(seen), self.summary.count("/conservation/requests_started"), "{seen}");
        assert_eq!(self.summary.count("/conservation/in_flight"), 0);
    }
}

/// All four kinds of calls, and what they are called.
fn all_kinds() -> Value {
    let three = json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]);
    json!([
        {"name": "unary", "service": "hello.v1.Greeter", "method": "SayHello",
         "payload": {"name": "w", "person": {"name": "p", "tags": ["t"], "scores": {"s": 1}}, "at": "2024-01-01T00:00:00Z"},
         "assertions": [{"type": "status_code", "value": 0}, {"type": "json_path", "path": "message", "value": "Hello wp"},
                        {"type": "header", "name": "x-initial", "value": "first"},
                        {"type": "header", "name": "x-trailing", "value": "last"}]},
        {"name": "server_stream", "method": "hello.v1.Greeter/SayMany", "rpc": "server_stream",
         "payload": {"name": "m", "times": 4, "pause": 5},
         "assertions": [{"type": "json_path", "path": "3.message", "value": "m3"},
                        {"type": "json_path", "path": "0.number", "value": 0}]},
        {"name": "client_stream", "service": "Greeter", "method": "Collect", "payload": three,
         "assertions": [{"type": "json_path", "path": "message", "value": "a,b,c"}]},
        {"name": "bidi", "stub_path": "x.hello_pb2_grpc.GreeterStub", "request_path": "x.hello_pb2.HelloRequest",
         "method": "Chat", "payload": three,
         "assertions": [{"type": "json_path", "path": "2.message", "value": "c"}]},
    ])
}

const KINDS: [&str; 4] = ["unary", "server_stream", "client_stream", "bidi"];

/// Runs all kinds, and holds them against the server's counts.
fn run_all_kinds(target: Peer, options: &Value, users: u64, workers: usize) -> Value {
    let load = and(closed(users, 1.2), &json!({}));
    let ran = Ran::of(&document(&address(&target), options, &load, &all_kinds()), workers);
    ran.finished.expect_code(0);
    ran.went_well(&KINDS);
    let seen = target.stop();
    ran.agrees_with(&seen);
    for (name, method) in KINDS.iter().zip(["SayHello", "SayMany", "Collect", "Chat"]) {
        assert_eq!(ran.count(name, "count"), seen["calls"][method], "{name}");
    }
    let of = |name: &str| ran.count(name, "count");
    assert_eq!(seen["in"], of("unary") + of("server_stream") + 3 * (of("client_stream") + of("bidi")));
    // each message of a stream is a sample of its own
    let messages = |name: &str| ran.summary.count(&format!("/messages/per_name/{name}/count"));
    assert_eq!((messages("server_stream"), messages("bidi")), (4 * of("server_stream"), 3 * of("bidi")));
    assert_eq!(ran.summary.count("/messages/received"), messages("server_stream") + messages("bidi"));
    assert_eq!(seen["out"], ran.summary.count("/messages/received") + of("unary") + of("client_stream"));
    // the pauses between them are seen from here
    let gap = ran.summary.number("/messages/per_name/server_stream/p50_ms");
    assert!(gap >= 4.0, "{gap} ms between messages that are sent every 5 ms");
    seen
}

#[test]
fn all_four_kinds_of_calls_by_reflection() {
    let Some(target) = start(&["--reflection"]) else { return };
    let seen = run_all_kinds(target, &json!({}), 10, 0);
    assert_eq!(seen["channels"], 10, "each user has a channel of its own");
}

#[test]
fn the_same_on_three_workers_that_share_five_channels() {
    let Some(target) = start(&["--reflection"]) else { return };
    let seen = run_all_kinds(target, &json!({"channels": "pool(5)"}), 30, 3);
    assert_eq!(seen["channels"], 5);
}

#[test]
fn the_same_by_a_file_of_descriptors() {
    let Some(python) = python() else { return ld_tests::skip("no Python environment: tests/run makes one") };
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("hello.binpb").display().to_string();
    let include = format!("-I{}", fixture(""));
    let made = Command::new(python)
        .args(["-m", "grpc_tools.protoc", &include, "--include_imports", "--descriptor_set_out", &set, "hello.proto"])
        .status();
    assert!(made.unwrap().success());
    let Some(target) = start(&[]) else { return };
    let seen = run_all_kinds(target, &json!({"descriptor_set": set, "channels": "pool(1)"}), 10, 0);
    assert_eq!(seen["channels"], 1);
}

#[test]
fn the_same_by_proto_files_on_three_workers() {
    let Some(target) = start(&[]) else { return };
    let options = json!({"proto": ["hello.proto"], "import_paths": fixture("")});
    let seen = run_all_kinds(target, &options, 30, 3);
    assert_eq!(seen["channels"], 30);
}

#[test]
fn metadata_placeholders_statuses_and_deadlines() {
    let Some(target) = start(&[]) else { return };
    let say = |name: &str, payload: Value, more: Value| {
        and(json!({"name": name, "method": "hello.v1.Greeter/SayHello", "payload": payload}), &more)
    };
    let tasks = json!([
        say(
            "extract",
            json!({"name": "size:3"}),
            json!({"extract": [{"var": "text", "from": "json_path", "path": "message"}]})
        ),
        say(
            "metadata",
            json!({"name": "${var.text}", "times": "${var.n}"}),
            json!({
                "metadata": [["X-Token", "t-${var.text}"], ["x-number", 7], ["x-raw-bin", "AQID_w"]],
                "assertions": [
                    {"type": "json_path", "path": "message", "value": "Hello xxx"},
                    {"type": "json_path", "path": "metadata.x-token", "value": "t-xxx"},
                    {"type": "json_path", "path": "metadata.x-number", "value": "7"},
                    {"type": "json_path", "path": "metadata.x-raw-bin", "value": "AQID/w=="}],
            })
        ),
        say("boom", json!({"name": "boom"}), json!({})),
        say("boom accepted", json!({"name": "boom"}), json!({"assertions": [{"type": "status_code", "value": 3}]})),
        say("deadline", json!({"name": "stall"}), json!({"timeout": 0.2})),
        say(
            "many deadline",
            json!({"name": "d", "times": 100, "pause": 50}),
            json!({"method": "hello.v1.Greeter/SayMany", "timeout": 0.3})
        ),
        say("too large", json!({"name": "size:2000"}), json!({"max_message": 1000})),
        say("large", json!({"name": "size:1000000"}), json!({"assertions": [{"type": "contains", "value": "xxxx"}]})),
        say("bad payload", json!({"times": "${var.text}"}), json!({})),
    ]);
    let load = and(closed(3, 3.0), &json!({"variables": {"n": 4}}));
    let ran = Ran::of(&document(&address(&target), &described(), &load, &tasks), 0);
    ran.finished.expect_code(1);
    ran.went_well(&["extract", "metadata", "boom accepted", "large"]);
    ran.failed("boom", "status", "INVALID_ARGUMENT: boom arg", "3");
    ran.failed("deadline", "timeout", "DEADLINE_EXCEEDED", "4");
    ran.failed("many deadline", "timeout", "DEADLINE_EXCEEDED", "4");
    ran.failed("too large", "status", "RESOURCE_EXHAUSTED: a message larger than `max_message`", "8");
    let reason = "the payload is no hello.v1.HelloRequest: invalid digit found in string";
    ran.failed("bad payload", "request", reason, "");
    // a message of a million letters: field 1, its length, the letters
    assert!(ran.records["large"].iter().all(|[_, length, _]| length == "1000004"));
    assert!(ran.records["deadline"].iter().all(|[_, length, _]| length == "0"));
    let p50 = ran.summary.number("/per_name/deadline/p50_ms");
    assert!((200.0..400.0).contains(&p50), "{p50} ms");
    let seen = target.stop();
    assert_eq!(calls(&seen), ran.summary.count("/conservation/requests_started") - ran.count("bad payload", "count"));
    assert_eq!(seen["channels"], 3, "a call that was given up leaves its channel whole");
}

#[test]
fn large_messages_many_messages_and_a_limit_of_streams() {
    let Some(target) = start(&["--streams", "2"]) else { return };
    // more than the server takes at once without looking
    let letters = "y".repeat(90_000);
    let tasks = json!([
        {"name": "large", "method": "hello.v1.Greeter/SayHello", "payload": {"name": letters},
         "assertions": [{"type": "contains", "value": "Hello yyy"}]},
        {"name": "many in", "method": "hello.v1.Greeter/Collect", "payload": vec![json!({"name": "z"}); 2_000]},
        {"name": "many out", "method": "hello.v1.Greeter/SayMany", "payload": {"times": 5_000}},
    ]);
    // six users on one channel that carries two calls
    let load = and(closed(6, 1.0), &json!({"iterations": 6, "graceful_stop": 30, "test_time": 30}));
    let options = and(described(), &json!({"channels": "pool(1)"}));
    let ran = Ran::of(&document(&address(&target), &options, &load, &tasks), 0);
    ran.finished.expect_code(0);
    ran.went_well(&["large", "many in", "many out"]);
    assert_eq!(ran.summary.count("/messages/received"), 6 * 5_000);
    let seen = target.stop();
    ran.agrees_with(&seen);
    assert_eq!((calls(&seen), &seen["in"], &seen["channels"]), (18, &json!(6 * 2_002), &json!(1)));
}

#[test]
fn services_that_are_unknown_or_ambiguous_are_refused() {
    let Some(target) = start(&["--reflection", "--twice"]) else { return };
    let load = closed(2, 1.0);
    let both = json!({"proto": [fixture("hello.proto"), fixture("second.proto")]});
    let tasks = json!([
        {"name": "either", "service": "Greeter", "method": "SayHello"},
        {"name": "none", "service": "hello.v1.Greter", "method": "SayHello"},
        {"name": "no method", "service": "hello.v1.Greeter", "method": "SayHelo"},
        {"name": "no field", "method": "hello.v1.Greeter/SayHello", "payload": {"person": {"nam": 1}}},
        {"name": "no number", "method": "hello.v1.Greeter/SayHello", "payload": {"times": "x"}},
        {"name": "kind", "method": "hello.v1.Greeter/SayHello", "rpc": "bidi"},
        {"name": "list", "method": "hello.v1.Greeter/SayHello", "payload": [{}]},
    ]);
    // asked itself, the server says it when it is called; what the files show is known before
    let known = ["either", "none", "no method", "no field", "no number", "kind", "list"];
    let ran = Ran::of(&document(&address(&target), &json!({}), &load, &tasks), 0);
    ran.failed("either", "request", "`Greeter` may be any of hello.v1.Greeter, hello.v2.Greeter", "");
    ran.failed("none", "request", "no service `hello.v1.Greter`", "");
    ran.failed("no method", "request", "the service `hello.v1.Greeter` has no method `SayHelo`", "");
    let reason = "the payload is no hello.v1.HelloRequest: unrecognized field name 'nam'";
    ran.failed("no field", "request", reason, "");
    ran.failed("kind", "request", "`hello.v1.Greeter.SayHello` is a call of kind unary, not bidi", "");
    ran.failed("list", "request", "`hello.v1.Greeter.SayHello` takes one message, found a list", "");
    assert_eq!(calls(&target.stop()), 0);

    let strict = document("127.0.0.1:1", &both, &load, &tasks);
    let folder = tempfile::tempdir().unwrap();
    let refused = run_str(folder.path(), &strict, &[]);
    refused.expect_code(2);
    for place in ["0/service", "1/service", "2/method", "3/payload/person/nam", "4/payload", "5/rpc", "6/payload"] {
        refused.expect_said(&format!("at /load_density/0/1/tasks/{place}\n"));
    }
    refused.expect_said("did you mean `hello.v1.Greeter`?").expect_said("did you mean `SayHello`?");
    let ran = Ran::lenient(&strict);
    assert_eq!(ran.summary.names().len(), known.len());
    for name in known {
        assert_eq!(ran.count(name, "failures"), ran.count(name, "count"));
    }
}

/// Runs a document that may never start.
fn run_str(folder: &Path, document: &Value, flags: &[&str]) -> Finished {
    let mut command = command("ld-master", folder);
    command.args(["run-str", &document.to_string()]).args(flags);
    Process::start("ld-master", command).wait(LIMIT)
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.proto"), "syntax = \"proto3\"; message {").unwrap();
    fs::write(folder.path().join("lost.proto"), "syntax = \"proto3\"; import \"x/y.proto\";").unwrap();
    fs::write(folder.path().join("bad.binpb"), "no descriptors").unwrap();
    let tasks = json!([{"method": "hello.v1.Greeter/SayHello"}]);
    for (options, said) in [
        (json!({"proto": "none.proto"}), "cannot read `none.proto`: there is no such file at /user_detail_dict/proto"),
        (json!({"proto": ["bad.proto"]}), "cannot compile `bad.proto`"),
        (json!({"proto": ["lost.proto"]}), "'x/y.proto' not found at /user_detail_dict/proto/0"),
        (json!({"descriptor_set": "bad.binpb"}), "`bad.binpb` holds no usable descriptors"),
        (
            json!({"proto": "bad.proto", "import_paths": ["nowhere"]}),
            "`nowhere` is no folder at /user_detail_dict/import_paths/0",
        ),
    ] {
        let finished = run_str(folder.path(), &document("127.0.0.1:1", &options, &closed(1, 1.0), &tasks), &[]);
        finished.expect_code(1).expect_said(said);
    }
    let wrong = json!({"proto": 1, "channels": "pool"});
    let finished = run_str(folder.path(), &document("127.0.0.1:1", &wrong, &closed(1, 1.0), &tasks), &[]);
    finished.expect_code(2).expect_said("at /load_density/0/1/user_detail_dict/proto");
    finished.expect_said("unknown channels `pool` at /load_density/0/1/user_detail_dict/channels");
}

#[test]
fn tls_and_client_certificates() {
    let made = Certificates::make();
    let [ca, certificate, key, client, client_key] =
        [&made.ca, &made.cert, &made.key, &made.client_cert, &made.client_key].map(|path| path.display().to_string());
    let tasks = |target: &Peer| json!([{"name": "hello", "target": format!("grpcs://{}", address(target)), "method": "hello.v1.Greeter/SayHello"}]);
    let run = |target: &Peer, tls: Value, options: &Value| {
        let load = and(closed(3, 0.6), &json!({"tls": tls}));
        Ran::of(&document("", options, &load, &tasks(target)), 0)
    };

    let Some(target) = start(&["--reflection", "--tls", &certificate, &key]) else { return };
    let ran = run(&target, json!({"ca": ca}), &json!({}));
    ran.went_well(&["hello"]);
    assert_eq!(ran.summary.count("/timing/tls/count"), 3);
    let untrusting = run(&target, json!({}), &described());
    untrusting.failed("hello", "tls", "tls: certificate not trusted (unknown issuer or self-signed)", "14");
    let careless = run(&target, json!({"verify": false}), &described());
    careless.went_well(&["hello"]);
    let seen = target.stop();
    assert_eq!(calls(&seen), ran.count("hello", "count") + careless.count("hello", "count"));

    let Some(target) = start(&["--tls", &certificate, &key, &ca]) else { return };
    let known = run(&target, json!({"ca": ca, "cert": client, "key": client_key}), &described());
    known.went_well(&["hello"]);
    let unknown = run(&target, json!({"ca": ca}), &described());
    // this server closes the connection without a word
    let failures = unknown.summary.list("/failures");
    assert!(!failures.is_empty() && failures.iter().all(|f| f["class"] == "closed"), "{failures:#?}");
    assert_eq!(unknown.count("hello", "successes"), 0);
    assert_eq!(calls(&target.stop()), known.count("hello", "count"));
}

#[test]
fn a_target_without_reflection_or_none_at_all() {
    let Some(target) = start(&[]) else { return };
    let tasks = json!([{"name": "hello", "method": "hello.v1.Greeter/SayHello"}]);
    let ran = Ran::of(&document(&address(&target), &json!({}), &closed(2, 0.6), &tasks), 0);
    let reason = "the target has no server reflection: give `proto` or `descriptor_set`";
    ran.failed("hello", "request", reason, "");
    assert_eq!(calls(&target.stop()), 0);
    let nobody = format!("127.0.0.1:{}", free_port());
    for options in [json!({}), described(), and(described(), &json!({"channels": "pool(1)"}))] {
        let load = and(closed(4, 0.6), &json!({"wait_time": 0.05}));
        let ran = Ran::of(&document(&nobody, &options, &load, &tasks), 0);
        ran.failed("hello", "connect", "connection refused", "14");
    }
}

/// Streams of one connection are odd numbers; most of these servers do not care.
fn raw(answer: impl Fn(u32) -> Vec<Step> + Send + Sync + 'static) -> RawServer {
    RawServer::start(move |_, stream| answer(stream))
}

#[test]
fn servers_that_break_the_rules() {
    let send = |bytes: Vec<u8>| vec![Step::Send(bytes)];
    let reply = [0x0a, 1, b'x'];
    let answer =
        move |stream, middle: Vec<u8>, status: &str| [answer_head(stream), middle, trailers(stream, status)].concat();
    let cases: Vec<(&str, RawServer, &str, &str, &str)> = vec![
        ("stalls", raw(|_| vec![]), "timeout", "DEADLINE_EXCEEDED", "4"),
        (
            "stalls midway",
            raw(move |s| send([answer_head(s), message(s, &reply)].concat())),
            "timeout",
            "DEADLINE_EXCEEDED",
            "4",
        ),
        ("closes", raw(|_| vec![Step::Close]), "closed", "connection closed", "14"),
        (
            "closes midway",
            raw(move |s| vec![Step::Send(answer_head(s)), Step::Close]),
            "closed",
            "connection closed",
            "14",
        ),
        ("resets", raw(|_| vec![Step::Reset]), "closed", "connection reset by peer", "14"),
        (
            "answers garbage",
            raw(move |_| vec![Step::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Step::Close]),
            "protocol",
            "HTTP/2: the peer breaks the protocol (FRAME_SIZE_ERROR)",
            "13",
        ),
        (
            "resets streams",
            raw(move |s| send(frame(3, 0, s, &8_u32.to_be_bytes()))),
            "closed",
            "stream reset by the peer (CANCEL)",
            "1",
        ),
        (
            "refuses streams",
            raw(move |s| send(frame(3, 0, s, &7_u32.to_be_bytes()))),
            "closed",
            "stream reset by the peer (REFUSED_STREAM)",
            "14",
        ),
        (
            "goes away",
            raw(move |_| send(frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]))),
            "closed",
            "connection closed by the peer (GOAWAY ENHANCE_YOUR_CALM)",
            "14",
        ),
        (
            "compresses",
            raw(move |s| send(answer(s, frame(0, 0, s, &[1, 0, 0, 0, 1, 0]), "0"))),
            "protocol",
            "a compressed message, though no compression was offered",
            "13",
        ),
        (
            "truncates",
            raw(move |s| send(answer(s, frame(0, 0, s, &[0, 0, 0, 0, 99, 10, 1]), "0"))),
            "protocol",
            "the answer ends within a message",
            "13",
        ),
        (
            "gives no status",
            raw(move |s| send([answer_head(s), message(s, &reply), frame(0, 1, s, &[])].concat())),
            "protocol",
            "the answer ends without a status",
            "2",
        ),
        (
            "gives no number",
            raw(move |s| send(answer(s, message(s, &reply), "fine"))),
            "protocol",
            "the answer's status is no number",
            "2",
        ),
        (
            "gives no message",
            raw(move |s| {
                send(headers(
                    s,
                    &[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")],
                    true,
                ))
            }),
            "protocol",
            "an answer without a message",
            "13",
        ),
        (
            "gives two",
            raw(move |s| send(answer(s, [message(s, &reply), message(s, &reply)].concat(), "0"))),
            "protocol",
            "more than one message",
            "13",
        ),
        (
            "talks nonsense",
            raw(move |s| send(answer(s, message(s, &[0x0a, 99]), "0"))),
            "protocol",
            "a message that is no hello.v1.HelloReply",
            "13",
        ),
        (
            "is busy",
            raw(move |s| send(headers(s, &[(":status", "503")], true))),
            "status",
            "UNAVAILABLE: HTTP 503",
            "14",
        ),
        (
            "is a web page",
            raw(move |s| {
                send(
                    [
                        headers(s, &[(":status", "200"), ("content-type", "text/html; x")], false),
                        frame(0, 1, s, b"<p>"),
                    ]
                    .concat(),
                )
            }),
            "protocol",
            "the answer is no gRPC: it is text/html",
            "2",
        ),
        (
            "is boundless",
            raw(move |s| {
                let begin = [answer_head(s), frame(0, 0, s, &[0, 255, 255, 255, 255])].concat();
                vec![Step::Send(begin), Step::Flood(frame(0, 0, s, &[7; 16_000]))]
            }),
            "status",
            "RESOURCE_EXHAUSTED: a message larger than `max_message`",
            "8",
        ),
        ("has an own status", raw(move |s| send(answer(s, vec![], "77"))), "status", "status 77", "77"),
    ];
    let task = |(name, server, class, ..): &(&str, RawServer, &str, &str, &str)| {
        let timeout = if *class == "timeout" { 0.3 } else { 5.0 };
        json!({"name": name, "target": server.address(), "method": "hello.v1.Greeter/SayHello", "timeout": timeout})
    };
    let tasks: Vec<_> = cases.iter().map(task).collect();
    let load = and(closed(3, 3.0), &json!({}));
    let ran = Ran::of(&document("", &described(), &load, &json!(tasks)), 0);
    for (name, server, class, reason, status) in &cases {
        ran.failed(name, class, reason, status);
        let (sent, seen) = (ran.count(name, "count"), server.calls());
        assert!(sent >= 3, "{name}: {sent}");
        // what the server says it has not looked at is sent once more
        let retried = ["refuses streams", "goes away"].contains(name);
        assert!(seen == if retried { 2 * sent } else { sent }, "{name}: {sent} sent, {seen} seen");
    }
}

#[test]
fn a_broken_channel_is_replaced_and_one_that_goes_away_loses_no_call() {
    let reply = [0x0a, 1, b'x'];
    let well = move |s| Step::Send([answer_head(s), message(s, &reply), trailers(s, "0")].concat());
    // every second connection breaks with its first call; the others carry ten calls
    let breaking = RawServer::start(move |connection, stream| match (connection % 2, stream) {
        (0, _) => vec![Step::Close],
        (_, 0..=17) => vec![well(stream)],
        _ => vec![well(stream), Step::Close],
    });
    // each connection says after five calls that it takes no more, and leaves the sixth unanswered
    let leaving = RawServer::start(move |_, stream| match stream {
        0..=9 => vec![well(stream)],
        _ => vec![Step::Send(frame(7, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 0]))],
    });
    let task = |name: &str, server: &RawServer| json!({"name": name, "target": server.address(), "method": "hello.v1.Greeter/SayHello"});
    for pool in [json!({}), json!({"channels": "pool(2)"})] {
        for (name, server) in [("breaking", &breaking), ("leaving", &leaving)] {
            let (calls, connections) = (server.calls(), server.connections());
            let load = and(closed(1, 1.0), &json!({"iterations": 110}));
            let tasks = json!([task(name, server)]);
            let ran = Ran::of(&document("", &and(described(), &pool), &load, &tasks), 0);
            let (calls, connections) = (server.calls() - calls, server.connections() - connections);
            assert_eq!(ran.count(name, "count"), 110);
            if name == "leaving" {
                ran.went_well(&[name]);
                // the unanswered ones came again
                assert!(calls > 110 && connections >= 20, "{calls} calls, {connections} connections");
            } else {
                ran.failed_partly(name, "connection closed");
                // a call may cross the end of its connection, and then the server does not see it
                assert!((55..=110).contains(&calls), "{calls} calls");
            }
        }
    }
}

impl Ran {
    /// Asserts that some requests failed, all for this reason.
    #[track_caller]
    fn failed_partly(&self, name: &str, reason: &str) {
        let failures: Vec<_> = self.summary.list("/failures").iter().map(|f| f["reason"].as_str().unwrap()).collect();
        assert_eq!(failures, [reason]);
        assert!(self.count(name, "successes") > 0 && self.count(name, "failures") > 0);
    }
}

#[test]
fn the_seeds_document() {
    let Some(target) = start(&["--seed", "--reflection"]) else { return };
    let port = target.port("grpc").to_string();
    let text = fs::read_to_string(test_file("fixtures/actions/10_grpc.json")).unwrap();
    let text = text.replace("${env.LD_GRPC_PORT}", &port).replace("\"10\"", "\"all\"");
    let asked: Value = serde_json::from_str(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let proto = folder.path().join("greeter.proto");
    let described = "syntax = \"proto3\"; package greeter;
        service Greeter { rpc SayHello (HelloRequest) returns (HelloReply); }
        message HelloRequest { string name = 1; int32 times = 2; } message HelloReply { string message = 1; }";
    fs::write(&proto, described).unwrap();
    let mut given = asked.clone();
    given["load_density"][0][1]["user_detail_dict"]["proto"] = proto.display().to_string().into();
    let mut sent = 0;
    for document in [&asked, &given] {
        let ran = Ran::lenient(document);
        let failing = ["invalid_argument", "deadline", "bad_path", "bad_field", "no_method"];
        ran.went_well(&["say_hello", "pkg.greeter_pb2_grpc.GreeterStub.SayHello"]);
        for name in failing {
            assert_eq!(ran.count(name, "successes"), 0, "{name}");
        }
        assert_eq!(ran.summary.names().len(), 7);
        ran.failed("bad_path", "request", "invalid dotted import path: '../evil.Stub'", "");
        ran.failed("invalid_argument", "status", "INVALID_ARGUMENT: boom arg", "3");
        ran.failed("deadline", "timeout", "DEADLINE_EXCEEDED", "4");
        sent += 4 * ran.count("say_hello", "count");
    }
    assert_eq!(calls(&target.stop()), sent);
    let strict = run_str(folder.path(), &asked, &[]);
    strict.expect_code(2).expect_said("/tasks/4/stub_path");
    let strict = run_str(folder.path(), &given, &[]);
    strict.expect_code(2).expect_said("/tasks/4/stub_path").expect_said("/tasks/5/payload/nofield");
    strict.expect_said("/tasks/6/method");
}

#[test]
fn the_example_of_the_seeds_readme() {
    let Some(target) = start(&["--seed", "--reflection"]) else { return };
    let document = json!({"load_density": [["LD_start_test", {
        "user_detail_dict": {"user": "grpc_user"},
        "user_count": 20, "spawn_rate": 5, "test_time": 5,
        "tasks": [{
            "name": "say_hello",
            "target": address(&target),
            "stub_path": "pkg.greeter_pb2_grpc.GreeterStub",
            "request_path": "pkg.greeter_pb2.HelloRequest",
            "method": "SayHello",
            "payload": {"name": "world"},
            "metadata": [["x-token", "abc"]],
            "timeout": 5,
        }],
    }], ["LD_generate_csv_report", {"csv_name": "all"}]]});
    let ran = Ran::of(&document, 0);
    ran.finished.expect_code(0);
    ran.went_well(&["say_hello"]);
    let seen = target.stop();
    ran.agrees_with(&seen);
    assert_eq!(seen["channels"], 20);
    // "Hello worldabc" and its two bytes of protobuf
    assert!(ran.records["say_hello"].iter().all(|[status, length, _]| (&**status, &**length) == ("0", "16")));
}
