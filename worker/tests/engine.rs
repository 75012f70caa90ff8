//! The engine against a real server on loopback: every start and every end is accounted for.

#![expect(clippy::unwrap_used, reason = "tests panic")]

#[path = "engine/changes.rs"]
mod changes;
#[path = "engine/hooks.rs"]
mod hooks;
#[path = "engine/moves.rs"]
mod moves;

use ld_shared::boot::clock::mono;
use ld_shared::frame::{FrameBody, PhaseOdometer};
use ld_shared::id::{Digest, Epoch};
use ld_shared::lanes::LaneSet;
use ld_shared::plan::{Plan, Pool};
use ld_shared::record::{Bodies, Record, RecordPolicy, RequestLine};
use ld_shared::sample::Phase;
use ld_shared::shard::Shard;
use ld_shared::snapshot::Snapshot;
use ld_shared::targets::TargetList;
use ld_shared::throttle::split;
use ld_shared::time::{Mono, RunTime};
use ld_shared::wire::Lines;
use ld_worker::engine::{Engine, EngineEvent, EngineSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Answers every request after a delay; counts requests.
fn server(delay: Duration) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n) = stream.read(&mut buffer) {
                    if n == 0 {
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    #[expect(clippy::disallowed_methods, reason = "a blocking thread that plays a slow target")]
                    std::thread::sleep(delay);
                    let status = if buffer.starts_with(b"GET /bad") { "404 Not Found" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

fn task(address: SocketAddr, path: &str) -> Value {
    json!({"name": path, "user": null, "weight": 1, "run_if": null, "skip_if": null, "assertions": [],
            "extract": [], "think_time": null, "status_check": null,
            "fields": {"method": "get", "request_url": format!("http://{address}{path}")}})
}

fn plan(address: SocketAddr, load: &Value, seconds: f64) -> Plan {
    let task = |path: &str| task(address, path);
    let scenario = json!({"name": "default", "user": "fast_http_user", "load": load, "first_number": 0,
        "mode": "sequence", "tasks": [task("/ok"), task("/bad")], "wait_time": null, "host": null,
        "connections": "per_user", "connect_timeout": 5.0, "request_timeout": 5.0,
        "tls": {"verify": true, "ca": null, "certificate": null, "key": null}, "status_check": "always"});
    serde_json::from_value(json!({"seed": 7, "scenarios": [scenario], "variables": {}, "env": {}, "sources": [],
        "test_time": (seconds * 1e9) as u64, "warmup": 0, "graceful_stop": 2_000_000_000_u64, "iterations": null,
        "records": {"keep": 50, "bodies": "none"}}))
    .unwrap()
}

fn closed(users: u64) -> Value {
    json!({"closed": {"users": {"segments": [], "tail": users}}})
}

fn open(rate: u64, cap: u64) -> Value {
    json!({"open": {"rate": {"segments": [], "tail": rate}, "arrivals": "constant", "max_in_flight": cap}})
}

struct Run {
    frames: Vec<FrameBody>,
    records: Vec<Record>,
    lines: Vec<RequestLine>,
    total: Snapshot,
}

impl Run {
    fn odometer(&self) -> PhaseOdometer {
        *self.frames.last().unwrap().odometers.phase(Phase::Main)
    }

    /// Both identities, with starts and ends from their own paths.
    fn assert_conserved(&self) {
        let odometer = self.odometer();
        let main = self.total.phase(Phase::Main);
        assert_eq!(odometer.due, odometer.iterations + odometer.dropped.iter().sum::<u64>(), "{odometer:?}");
        assert_eq!(
            odometer.requests_started - odometer.requests_unsent,
            main.succeeded() + main.failed() + odometer.requests_in_flight,
            "{odometer:?}"
        );
        let rows: (u64, u64) = self.total.rows.values().fold((0, 0), |(s, f), r| (s + r.succeeded, f + r.failed));
        let warmup = self.total.phase(Phase::Warmup);
        assert_eq!(rows, (main.succeeded() + warmup.succeeded(), main.failed() + warmup.failed()));
        assert_eq!(main.failures.values().map(|f| f.count).sum::<u64>(), main.failed());
    }
}

/// Runs a plan on two cores; `tickets` are granted in blocks as they are asked for.
async fn run(plan: Plan, mut tickets: u64, stop: impl Fn(&Engine, u32)) -> Run {
    let (events, mut received) = mpsc::unbounded_channel();
    let scenarios = plan.scenarios.len();
    let cap = plan.scenarios.iter().map(|s| match &s.load {
        ld_shared::load::Load::Open(open) => open.max_in_flight,
        ld_shared::load::Load::Closed(_) => 0,
    });
    let shard = Shard {
        plan: Digest::of(&plan.to_json()),
        lanes: LaneSet::full(),
        epoch: Epoch(1),
        from: RunTime(0),
        max_in_flight: cap.collect(),
        throttles: plan.limits().iter().flat_map(|limit| split(limit, &[1])).collect(),
    };
    assert_eq!(shard.max_in_flight.len(), scenarios);
    let spec = EngineSpec { plan: Arc::new(plan), blobs: Arc::new(BTreeMap::new()), cores: 2 };
    let engine = tokio::task::spawn_blocking(move || Engine::prepare(spec, events)).await.unwrap().unwrap();
    engine.set_lease(Mono(u64::MAX));
    engine.start(&shard, mono().after(Duration::from_millis(20)));
    let mut run = Run { frames: Vec::new(), records: Vec::new(), lines: Vec::new(), total: Snapshot::default() };
    let (mut next_ticket, mut over) = (0, false);
    while let Some(event) = received.recv().await {
        match event {
            EngineEvent::Span(frame) => {
                run.total.merge(&frame.counts);
                let (last, follow, second) = (frame.last, frame.records_follow, frame.to_second);
                run.frames.push(*frame);
                over = last && !follow;
                if !last {
                    stop(&engine, second);
                }
            }
            EngineEvent::Records(body) => {
                over = body.last;
                run.records.extend(body.kept);
                run.lines.extend(Lines::decode(body.lines).unwrap());
                engine.records_acknowledged();
            }
            EngineEvent::WantTickets { pool, want } => {
                assert_eq!(pool, Pool::Iterations);
                let block = want.min(tickets).min(7);
                tickets -= block;
                engine.grant(pool, next_ticket..next_ticket + block, tickets == 0);
                next_ticket += block;
            }
            EngineEvent::PoolEmpty(_) => {}
        }
        if over {
            break;
        }
    }
    tokio::task::spawn_blocking(move || drop(engine)).await.unwrap();
    run
}

#[tokio::test]
async fn a_closed_run_accounts_for_every_request() {
    let (address, seen) = server(Duration::from_millis(1));
    let run = run(plan(address, &closed(8), 1.5), 0, |_, _| {}).await;
    run.assert_conserved();
    let odometer = run.odometer();
    assert_eq!(odometer.requests_in_flight, 0);
    assert_eq!(odometer.requests_written, seen.load(Ordering::SeqCst));
    let main = run.total.phase(Phase::Main);
    assert!(main.succeeded() > 100);
    assert!(main.succeeded().abs_diff(main.failed()) <= 8);
    for failed in [false, true] {
        // 50 at the end of each second, of which the master keeps 50
        let shipped = run.records.iter().filter(|r| r.error.is_some() == failed).count();
        assert!((50..=150).contains(&shipped), "{shipped}");
    }
    assert!(run.records.iter().all(|r| r.started_at < r.ended_at && &*r.scenario == "default"));
    assert!(run.lines.is_empty());
    assert!(run.frames.windows(2).all(|w| w[1].from_second == w[0].to_second));
}

#[tokio::test]
async fn every_request_of_the_main_phase_is_listed_if_asked_for() {
    let (address, _) = server(Duration::from_millis(1));
    let mut plan = plan(address, &closed(8), 1.5);
    plan.warmup = RunTime::from_secs(0.5);
    plan.records = RecordPolicy { keep: 1_000_000, bodies: Bodies::All(1), all: true };
    let run = run(plan, 0, |_, _| {}).await;
    run.assert_conserved();
    let main = run.total.phase(Phase::Main);
    assert!(run.total.phase(Phase::Warmup).succeeded() > 0);
    let failed = |errors: Vec<bool>| errors.into_iter().filter(|failed| *failed).count() as u64;
    assert_eq!(run.lines.len() as u64, main.succeeded() + main.failed());
    assert_eq!(failed(run.lines.iter().map(|line| line.error.is_some()).collect()), main.failed());
    assert_eq!(run.records.len(), run.lines.len());
    assert_eq!(failed(run.records.iter().map(|r| r.error.is_some()).collect()), main.failed());
    assert!(run.records.iter().all(|r| r.answer.as_ref().unwrap().body == b"o"));
    let seen = run.frames.last().unwrap().generator.records_seen;
    assert_eq!(seen, [main.succeeded(), main.failed()]);
}

#[tokio::test]
async fn an_open_run_starts_exactly_what_is_due() {
    let (address, _) = server(Duration::ZERO);
    let run = run(plan(address, &open(200, 100), 1.5), 0, |_, _| {}).await;
    run.assert_conserved();
    assert_eq!(run.odometer().due, 300);
    assert_eq!(run.odometer().iterations, 300);
    assert_eq!(run.odometer().requests_started, 600);
}

#[tokio::test]
async fn arrivals_beyond_the_cap_are_dropped_and_counted() {
    let (address, _) = server(Duration::from_millis(200));
    let run = run(plan(address, &open(100, 4), 1.0), 0, |_, _| {}).await;
    run.assert_conserved();
    assert_eq!(run.odometer().due, 100);
    assert!(run.odometer().dropped[0] > 50, "{:?}", run.odometer());
}

#[tokio::test]
async fn arrivals_that_the_end_overtakes_are_counted() {
    let (address, _) = server(Duration::from_millis(2));
    for abort in [false, true] {
        let end = |engine: &Engine, _| if abort { engine.abort() } else { engine.stop() };
        let run = run(plan(address, &open(20_000, 60), 60.0), 0, end).await;
        run.assert_conserved();
        assert!(run.odometer().dropped[0] > 0, "{:?}", run.odometer());
    }
}

#[tokio::test]
async fn an_aborted_run_counts_what_it_cut_off() {
    let (address, _) = server(Duration::from_secs(3));
    let run = run(plan(address, &closed(5), 60.0), 0, |engine, _| engine.abort()).await;
    run.assert_conserved();
    assert_eq!(run.odometer().requests_in_flight, 5);
    assert_eq!(run.odometer().requests_started, 5);
}

#[tokio::test]
async fn a_stopped_run_drains() {
    let (address, _) = server(Duration::from_millis(300));
    let run = run(plan(address, &closed(5), 60.0), 0, |engine, _| engine.stop()).await;
    run.assert_conserved();
    assert_eq!(run.odometer().requests_in_flight, 0);
    assert!(run.odometer().requests_started >= 5);
}

#[tokio::test]
async fn limited_iterations_are_done_exactly_once_each() {
    let (address, seen) = server(Duration::from_millis(1));
    let mut plan = plan(address, &closed(6), 60.0);
    plan.iterations = Some(101);
    let run = run(plan, 101, |_, _| {}).await;
    run.assert_conserved();
    assert_eq!(run.odometer().iterations, 101);
    assert_eq!(seen.load(Ordering::SeqCst), 202);
}

#[tokio::test]
async fn without_a_lease_nothing_starts() {
    let (address, seen) = server(Duration::ZERO);
    let (events, mut received) = mpsc::unbounded_channel();
    let plan = plan(address, &open(100, 10), 0.5);
    let shard = Shard {
        plan: Digest::of(b""),
        lanes: LaneSet::full(),
        epoch: Epoch(1),
        from: RunTime(0),
        max_in_flight: vec![10],
        throttles: Vec::new(),
    };
    let spec = EngineSpec { plan: Arc::new(plan), blobs: Arc::new(BTreeMap::new()), cores: 1 };
    let engine = tokio::task::spawn_blocking(move || Engine::prepare(spec, events)).await.unwrap().unwrap();
    engine.start(&shard, mono());
    let mut last = None;
    while let Some(EngineEvent::Span(frame)) = received.recv().await {
        let done = frame.last;
        // the end of the test alone does not tell whether a new lease would have found the work its own
        assert!(done || frame.to_second <= 3);
        if frame.to_second == 2 {
            assert_eq!(frame.odometers.phase(Phase::Main).due, 0);
            engine.stop();
        }
        last = Some(frame);
        if done {
            break;
        }
    }
    let odometer = *last.unwrap().odometers.phase(Phase::Main);
    assert_eq!((odometer.due, odometer.dropped[2], odometer.requests_started), (50, 50, 0));
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    tokio::task::spawn_blocking(move || drop(engine)).await.unwrap();
}

/// A target that is not allowed fails without any wait, as does a connection for which no port is free: whoever
/// waits for nothing must not keep the core.
#[tokio::test]
async fn users_whose_requests_fail_at_once_leave_the_core_to_others() {
    let (alive, seen) = server(Duration::from_millis(20));
    let mut plan = plan("127.0.0.1:1".parse().unwrap(), &closed(4), 2.0);
    plan.allow_targets = vec![TargetList(vec![alive.to_string().parse().unwrap()])];
    let mut other = plan.scenarios[0].clone();
    other.name = "alive".into();
    other.first_number = 4;
    other.tasks = vec![serde_json::from_value(task(alive, "/ok")).unwrap()];
    plan.scenarios.push(other);
    let run = run(plan, 0, |_, _| {}).await;
    run.assert_conserved();
    // four users, a request each 20 ms, two seconds: 400 on a free machine
    let answered = seen.load(Ordering::SeqCst);
    assert!(answered > 100, "{answered} requests beside those that fail at once");
}
