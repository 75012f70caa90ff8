//! Bytes that somebody outside sends: whatever they are, nothing panics and nothing grows without bound.
//!
//! Each decoder gets the corpus (`tests/fixtures/corpus`), noise, and mutations of what is right. The
//! seed is fixed, so a failure comes again; `PROPTEST_CASES=100000` makes a long run. What brokers and
//! servers send to users (HTTP, MQTT, SSE, sockets, gRPC) is fuzzed beside its decoders in `worker`, rows of
//! data sources and of journals in `master`, with the same corpus; here whole runs meet such servers.

#![expect(clippy::unwrap_used, reason = "a test may fail")]
#![expect(clippy::disallowed_methods, reason = "the number of cases is given by the environment")]

use ld_master::import::{Credentials, Filter, HarOptions, OpenApi};
use ld_master::import::{curl_task, har_tasks, openapi_tasks, postman_tasks};
use ld_master::script::{self, Strictness};
use ld_shared::frame::{Frame, FrameBody, FrameKey};
use ld_shared::id::{Digest, RunId, SessionId};
use ld_shared::latency::Latency;
use ld_shared::message::{Beat, Hello, PROTOCOL_VERSION, ToMaster};
use ld_shared::noise;
use ld_shared::record::{RecordBatch, RecordBody};
use ld_shared::rng::KeyedRng;
use ld_shared::sample::{Phase, SeriesKey};
use ld_shared::threshold::Threshold;
use ld_shared::time::{Mono, RunTime};
use ld_shared::wire::{self, Lines, v1};
use ld_tests::cluster::run;
use prost::Message;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use tokio_tungstenite::tungstenite;

fn cases() -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(8_000)
}

fn corpus(ending: &str) -> Vec<Vec<u8>> {
    noise::corpus(&folder(""), Some(ending))
}

/// A folder of the corpus.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/corpus").join(name)
}

fn fuzz(seed: u64, right: &[Vec<u8>], decode: impl FnMut(&[u8])) {
    noise::fuzz(seed, cases(), right, decode);
}

fn frame() -> Frame {
    let mut body = FrameBody { from_second: 3, to_second: 4, ..FrameBody::default() };
    for name in ["a", "b", "c"] {
        let key = SeriesKey { name: name.into(), request_type: "GET".into(), scenario: "s".into() };
        let series = body.counts.phase_mut(Phase::Main).series_mut(&key);
        (1..200).for_each(|micros| series.succeeded.record(micros * micros));
    }
    body.counts.rows.entry(3).or_default().succeeded = 597;
    body.odometers.phases[0].requests_started = 597;
    Frame { key: FrameKey { run: RunId("r".into()), session: SessionId(1), seq: 1 }, body }
}

/// What workers send on the stream of results: frames and records.
#[test]
fn results_of_workers() {
    let frame = ToMaster::Frame { frame: Box::new(frame()), sealed_at: RunTime(4) };
    let batch = RecordBatch { run: RunId("r".into()), session: SessionId(1), seq: 1, body: RecordBody::default() };
    let mut right: Vec<Vec<u8>> = [frame, ToMaster::Records(Box::new(batch))]
        .iter()
        .map(|message| wire::results_to_master(message).unwrap().encode_to_vec())
        .collect();
    right.extend(corpus("bin"));
    fuzz(1, &right, |bytes| {
        let Ok(message) = v1::ResultsFromWorker::decode(bytes) else { return };
        if let Ok(Err(ToMaster::Frame { frame, .. })) = wire::results_from_worker(message) {
            // a bucket is a byte at least, so there is no more in it than there are bytes
            let series: usize = frame.body.counts.phases.iter().map(|phase| phase.series.len()).sum();
            assert!(series <= bytes.len() && frame.body.counts.rows.len() <= bytes.len());
        }
    });
}

/// What workers say on the stream of control, their greeting first.
#[test]
fn control_of_workers() {
    let hello = Hello { protocol: PROTOCOL_VERSION, build: "b".into(), name: "w".into(), cores: 2, returning: None };
    let said = [
        ToMaster::NeedBlobs { run: RunId("r".into()), digests: vec![Digest::of(b"x")] },
        ToMaster::Beat(Beat { number: 1, sent_at: Mono(5), clock: None, run: None }),
        ToMaster::Goodbye { text: "bye".into() },
    ];
    let mut right: Vec<Vec<u8>> =
        said.iter().map(|message| wire::control_to_master(message).unwrap().encode_to_vec()).collect();
    right.push(wire::hello_to_master(&hello, &[7; 32]).encode_to_vec());
    right.extend(corpus("bin"));
    let mut understood = 0;
    fuzz(2, &right, |bytes| {
        let Ok(message) = v1::FromWorker::decode(bytes) else { return };
        let greeting = wire::hello_from_worker(message.clone());
        let proof = wire::proof_from_worker(message.clone());
        let control = wire::control_from_worker(message);
        understood += usize::from(greeting.is_ok() || proof.is_ok() || control.is_ok());
    });
    assert!(understood > 50, "mutations are so coarse that nothing is understood: {understood}");
}

/// What a master says: a worker believes it no more than the master believes the worker.
#[test]
fn control_of_masters() {
    use ld_shared::message::{BEAT_EVERY, BeatReply, ToWorker};
    let (sent_at, received_at, replied_at) = (Mono(1), Mono(2), Mono(3));
    let reply = BeatReply { number: 1, sent_at, received_at, replied_at, every: BEAT_EVERY };
    let said = [
        ToWorker::Prepare { run: RunId("r".into()), plan: Digest::of(b"p"), blobs: vec![Digest::of(b"p")] },
        ToWorker::BeatReply(reply),
        ToWorker::Stop { run: RunId("r".into()) },
    ];
    let mut right: Vec<Vec<u8>> =
        said.iter().map(|message| wire::control_to_worker(message).unwrap().encode_to_vec()).collect();
    right.extend(corpus("bin"));
    fuzz(3, &right, |bytes| {
        if let Ok(message) = v1::FromMaster::decode(bytes) {
            wire::challenge_from_master(&message);
            wire::control_from_master(message).ok();
        }
        if let Ok(message) = v1::ResultsFromMaster::decode(bytes) {
            wire::results_from_master(message).ok();
        }
    });
}

/// Histograms: their wire form and that of HdrHistogram. Counts never exceed what fits into them.
#[test]
fn histograms() {
    let mut latency = Latency::default();
    (1..500).for_each(|micros| latency.record(micros * 977));
    let right = [vec![latency.encoded(), latency.to_hdr().into_bytes()], corpus("bin")].concat();
    fuzz(4, &right, |bytes| {
        let mut read = Latency::default();
        if read.merge_encoded(bytes).is_ok() {
            assert!(read.percentile(50.0) <= read.percentile(100.0));
        }
        if let Ok(text) = std::str::from_utf8(bytes) {
            Latency::from_hdr(text).ok();
        }
    });
}

/// Lines of single requests.
#[test]
fn lines_of_requests() {
    let right = corpus("bin");
    fuzz(5, &right, |bytes| {
        if let Ok(lines) = Lines::decode(bytes.to_vec().into()) {
            assert!(lines.len() <= bytes.len());
        }
    });
}

/// Documents, rules in them, and a stored frame of a journal.
#[test]
fn documents() {
    fuzz(6, &corpus("json"), |bytes| {
        for strictness in [Strictness::Strict, Strictness::Lenient] {
            if let Err(faults) = script::parse(bytes, strictness) {
                assert!(!faults.is_empty(), "refused without a reason");
            }
        }
    });
    let rules = ["p95 < 5ms", "failures == 0 over 10s", "count[name=\"a\"] >= 1e3", "p99.9[type=GET] < 1s over 30s"];
    let rules: Vec<Vec<u8>> = rules.iter().map(|rule| rule.as_bytes().to_vec()).collect();
    fuzz(7, &rules, |bytes| {
        Threshold::parse(&String::from_utf8_lossy(bytes)).ok();
    });
}

/// Recordings and descriptions that are imported.
#[test]
fn imports() {
    let filter = Filter::new(&[], &[]).unwrap();
    let credentials = Credentials::Variables;
    fuzz(8, &corpus("json"), |bytes| {
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
        har_tasks(&value, &filter, HarOptions { pauses: true, credentials }).ok();
        postman_tasks(&value).ok();
        openapi_tasks(&value, &OpenApi::default()).ok();
    });
    fuzz(9, &corpus("txt"), |bytes| {
        curl_task(&String::from_utf8_lossy(bytes)).ok();
    });
}

/// Says something spoiled to each of `connections` in turn, after what `begin` does first.
fn server(
    seed: u64,
    right: Vec<Vec<u8>>,
    begin: impl Fn(TcpStream) -> Option<TcpStream> + Clone + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut rng = KeyedRng::new(seed, 0, 0);
        for stream in listener.incoming().flatten() {
            let (bytes, begin) = (noise::mutated(&mut rng, &right), begin.clone());
            thread::spawn(move || {
                if let Some(mut stream) = begin(stream) {
                    // whoever has had enough hangs up
                    stream.write_all(&bytes).ok();
                }
            });
        }
    });
    address
}

/// Reads what comes first.
fn asked(mut stream: TcpStream) -> Option<TcpStream> {
    let read = stream.read(&mut [0; 4096]).ok()?;
    (read > 0).then_some(stream)
}

/// Users of every kind meet servers that say anything: each request ends and is counted, no user ends
/// by a panic, and the answers that are right are not all failures.
#[test]
fn servers_that_say_anything() {
    let http = server(20, noise::corpus(&folder("http"), None), asked);
    let events: Vec<Vec<u8>> = noise::corpus(&folder("sse"), None)
        .into_iter()
        .map(|body| [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec(), body].concat())
        .collect();
    let sse = server(21, events, asked);
    let frames = server(22, noise::corpus(&folder("frames"), None), asked);
    let websocket = server(23, noise::corpus(&folder("websocket"), None), |stream| {
        tungstenite::accept(stream).ok().map(tungstenite::WebSocket::into_inner)
    });
    let tests = [
        (
            "fast_http_user",
            vec![json!({"method": "get", "request_url": format!("http://{http}/"), "name": "t",
            "assertions": [{"type": "contains", "value": "o"}, {"type": "json_path", "path": "token", "value": "abc"}],
            "extract": [{"from": "json_path", "path": "token", "var": "token"}]})],
        ),
        ("sse_user", vec![json!({"request_url": format!("http://{sse}/"), "name": "t", "events": 2})]),
        (
            "socket_user",
            vec![
                json!({"protocol": "tcp", "target": frames, "payload": "x", "name": "t", "framing": {"delimiter": "\n"}}),
                json!({"protocol": "tcp", "target": frames, "payload": "x", "name": "t", "framing": {"length_prefix": 4}}),
            ],
        ),
        (
            "websocket_user",
            vec![
                json!({"method": "connect", "request_url": format!("ws://{websocket}/"), "name": "t"}),
                json!({"method": "recv", "name": "t"}),
                json!({"method": "recv", "name": "t"}),
                json!({"method": "close", "name": "t"}),
            ],
        ),
    ];
    for (user, tasks) in tests {
        let document = json!({"load_density": [["LD_start_test", {
            "user_detail_dict": {"user": user}, "tasks": tasks, "user_count": 20, "spawn_rate": 10_000,
            "iterations": (cases() / 20).clamp(100, 5_000), "test_time": 60, "timeouts": {"request": 0.5},
            "connections": "per_iteration",
        }]]});
        let folder = tempfile::tempdir().unwrap();
        let (finished, summary) = run(folder.path(), &document, 0);
        assert!(!finished.stderr.contains("panic"), "{user}: {}", finished.stderr);
        let (good, bad) = (summary.count("/conservation/succeeded"), summary.count("/conservation/failed"));
        assert!(good > 0 && bad > 0, "{user}: {good} good, {bad} bad: {:#}", summary.0["failures"]);
        assert_eq!(summary.count("/conservation/in_flight"), 0, "{user}");
        assert!(summary.list("/failures").len() <= 201, "{user}: reasons are normalised");
    }
}
