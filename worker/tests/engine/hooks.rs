//! What users do before their first and after their last iteration, and retries.

use super::*;
use ld_shared::boot::clock::mono;
use ld_shared::frame::Collected;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// How often each path was asked for, and in which order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn count(&self, path: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|seen| *seen == path).count()
    }

    fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Logs paths. `answer` gives the status from the path and how often it was asked for before.
fn target(answer: fn(&str, usize) -> u16) -> (SocketAddr, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let log = Log::default();
    let seen = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, log) = (stream.unwrap(), seen.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    let path = text.split(' ').nth(1).unwrap().to_owned();
                    let before = log.count(&path);
                    log.0.lock().unwrap().push(path.clone());
                    let body = format!(r#"{{"path":"{path}","n":{before}}}"#);
                    let status = answer(&path, before);
                    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, log)
}

fn tasks(address: SocketAddr, paths: &[&str]) -> Vec<ld_shared::plan::TaskPlan> {
    paths.iter().map(|path| serde_json::from_value(task(address, path)).unwrap()).collect()
}

fn hooked(address: SocketAddr, load: &Value, seconds: f64) -> Plan {
    let mut plan = plan(address, load, seconds);
    let scenario = &mut plan.scenarios[0];
    scenario.tasks = tasks(address, &["/work"]);
    scenario.on_start = tasks(address, &["/login", "/profile"]);
    scenario.on_stop = tasks(address, &["/logout"]);
    scenario.wait_time = Some((0.05, 0.05));
    plan
}

/// The hooks' ledger holds, and it holds all of this.
fn assert_hooks(run: &Run, requests: u64, failed: u64) {
    run.assert_conserved();
    let counted = *run.frames.last().unwrap().odometers.phase(Phase::Hooks);
    let ended = run.total.phase(Phase::Hooks);
    assert_eq!((counted.due, counted.iterations), (0, 0));
    assert_eq!((ended.succeeded() + ended.failed(), ended.failed()), (requests, failed), "{counted:?}");
    assert_eq!(counted.requests_started, requests + counted.requests_in_flight);
}

#[tokio::test]
async fn users_begin_and_end_once_each() {
    let (address, log) = target(|_, _| 200);
    let run = run(hooked(address, &closed(7), 0.6), 0, |_, _| {}).await;
    assert_hooks(&run, 21, 0);
    assert_eq!(["/login", "/profile", "/logout"].map(|path| log.count(path)), [7, 7, 7]);
    assert_eq!(run.total.phase(Phase::Main).succeeded() as usize, log.count("/work"));
    assert!(run.total.phase(Phase::Main).series.keys().all(|key| &*key.name == "/work"));
}

#[tokio::test]
async fn a_failed_hook_is_counted_apart_and_stops_nobody() {
    let (address, log) = target(|path, _| if path == "/login" { 500 } else { 200 });
    let run = run(hooked(address, &closed(3), 0.4), 0, |_, _| {}).await;
    assert_hooks(&run, 9, 3);
    assert_eq!((log.count("/profile"), log.count("/logout")), (3, 3));
    assert_eq!(run.total.phase(Phase::Main).failed(), 0);
}

#[tokio::test]
async fn a_pause_does_not_keep_users_from_their_end() {
    let (address, log) = target(|_, _| 200);
    let mut thinking = hooked(address, &closed(4), 60.0);
    thinking.scenarios[0].tasks[0].think_time = Some((600.0, 600.0));
    let began = mono();
    let run = run(thinking, 0, |engine, _| engine.stop()).await;
    assert_hooks(&run, 12, 0);
    assert_eq!((log.count("/work"), log.count("/logout")), (4, 4));
    assert!(mono().since(began) < Duration::from_secs(5), "the grace is not used up");
}

#[tokio::test]
async fn users_whose_life_or_iterations_end_say_goodbye_at_once() {
    let (address, log) = target(|_, _| 200);
    let mut plan = hooked(address, &closed(5), 60.0);
    plan.iterations = Some(23);
    let limited = run(plan, 23, |_, _| {}).await;
    assert_hooks(&limited, 15, 0);
    assert_eq!((log.count("/work"), log.count("/logout")), (23, 5));

    let (address, log) = target(|_, _| 200);
    let spike = json!({"closed": {"users": {"segments": [
        {"start": 0, "length": 300_000_000, "from": 6.0, "to": 6.0},
        {"start": 300_000_000, "length": 300_000_000, "from": 2.0, "to": 2.0},
        {"start": 600_000_000, "length": 300_000_000, "from": 4.0, "to": 4.0}], "tail": 0.0}}});
    let twice = run(hooked(address, &spike, 1.0), 0, |_, _| {}).await;
    assert_hooks(&twice, 24, 0);
    assert_eq!((log.count("/login"), log.count("/logout")), (8, 8), "two users live twice");
}

#[tokio::test]
async fn arrivals_start_from_what_their_user_began_with() {
    let (address, log) = target(|_, _| 200);
    let mut plan = hooked(address, &open(200, 100), 1.0);
    let extract = |path: &str, var: &str| json!([{"from": "json_path", "path": path, "var": var}]);
    let with = |path: &str, extract: Value| {
        let mut task = task(address, path);
        task["extract"] = serde_json::to_value(
            extract
                .as_array()
                .unwrap()
                .iter()
                .map(|e| ld_shared::check::Extractor::parse(e).unwrap())
                .collect::<Vec<_>>(),
        )
        .unwrap();
        serde_json::from_value(task).unwrap()
    };
    plan.scenarios[0].on_start = vec![with("/login", extract("path", "token"))];
    // a second arrival of the same user would show the first one's extract
    plan.scenarios[0].tasks = vec![with("/work?${var.token}&${var.leak}", extract("n", "leak"))];
    let run = run(plan, 0, |_, _| {}).await;
    let users = log.count("/login");
    assert_hooks(&run, 2 * users as u64, 0);
    assert_eq!(log.count("/logout"), users, "{users} users");
    assert_eq!(run.odometer().iterations, 200);
    let work: Vec<String> = log.paths().into_iter().filter(|path| path.starts_with("/work")).collect();
    assert_eq!(work.len(), 200);
    assert!(work.iter().all(|path| path.contains("/login") && path.contains("leak")), "{:?}", &work[..3]);
}

#[tokio::test]
async fn without_a_lease_nobody_says_goodbye() {
    let (address, log) = target(|_, _| 200);
    let mut plan = hooked(address, &closed(3), 60.0);
    plan.graceful_stop = RunTime::from_secs(1.0);
    let (events, mut received) = mpsc::unbounded_channel();
    let shard = Shard {
        plan: Digest::of(b""),
        lanes: LaneSet::full(),
        epoch: Epoch(1),
        from: RunTime(0),
        max_in_flight: vec![0],
        throttles: Vec::new(),
    };
    let spec = EngineSpec { plan: Arc::new(plan), blobs: Arc::new(BTreeMap::new()), cores: 1 };
    let engine = tokio::task::spawn_blocking(move || Engine::prepare(spec, events)).await.unwrap().unwrap();
    engine.set_lease(mono().after(Duration::from_millis(500)));
    engine.start(&shard, mono());
    while let Some(EngineEvent::Span(frame)) = received.recv().await {
        if frame.to_second == 2 {
            engine.stop();
        }
        if frame.last {
            break;
        }
    }
    assert_eq!((log.count("/login"), log.count("/logout")), (3, 0));
    tokio::task::spawn_blocking(move || drop(engine)).await.unwrap();
}

/// A run as `setup` makes it.
async fn set_up(mut plan: Plan) -> (Run, Collected) {
    plan.scenarios[0].on_stop.clear();
    plan.scenarios[0].tasks.clear();
    (plan.iterations, plan.test_time, plan.collect) = (Some(0), None, true);
    let run = run(plan, 0, |_, _| {}).await;
    let collected = run.frames.last().unwrap().collected.clone().unwrap();
    assert!(run.frames.iter().rev().skip(1).all(|frame| frame.collected.is_none()));
    (run, *collected)
}

#[tokio::test]
async fn a_setup_hands_on_what_it_extracted() {
    let (address, log) = target(|_, _| 200);
    let mut plan = hooked(address, &closed(1), 60.0);
    let extractor = json!({"from": "json_path", "path": "path", "var": "token"});
    plan.scenarios[0].on_start[1].extract.push(ld_shared::check::Extractor::parse(&extractor).unwrap());
    let (run, collected) = set_up(plan).await;
    assert_hooks(&run, 2, 0);
    assert_eq!(Value::Object(collected.variables), json!({"token": "/profile"}));
    assert_eq!((collected.failure, log.paths()), (None, vec!["/login".into(), "/profile".into()]));
}

#[tokio::test]
async fn a_setup_ends_with_its_first_failure() {
    let (address, log) = target(|_, before| if before == 0 { 503 } else { 404 });
    let mut plan = hooked(address, &closed(1), 60.0);
    plan.scenarios[0].on_start[0].retry = serde_json::from_value(json!({"transient": 3, "flaky": 0, "permanent": 0,
        "base_delay": 0.01, "max_delay": 0.01, "backoff_factor": 1.0, "jitter": 0.0}))
    .unwrap();
    let (run, collected) = set_up(plan).await;
    assert_hooks(&run, 2, 2);
    let failure = collected.failure.unwrap();
    assert!(failure.starts_with("step 1 of 2, `/login` (GET): ") && failure.contains("404"), "{failure}");
    assert_eq!(log.paths(), ["/login", "/login"]);
}

#[tokio::test]
async fn each_retry_is_a_request_after_its_pause() {
    // the third try goes well
    let (address, log) = target(|_, before| if before % 3 < 2 { 503 } else { 200 });
    let mut plan = plan(address, &closed(1), 60.0);
    plan.scenarios[0].tasks = tasks(address, &["/flaky"]);
    plan.scenarios[0].tasks[0].retry = serde_json::from_value(json!({"transient": 5, "flaky": 0, "permanent": 0,
        "base_delay": 0.05, "max_delay": 9.0, "backoff_factor": 2.0, "jitter": 0.0}))
    .unwrap();
    plan.iterations = Some(4);
    let began = mono();
    let run = run(plan, 4, |_, _| {}).await;
    run.assert_conserved();
    let main = run.total.phase(Phase::Main);
    assert_eq!((main.succeeded(), main.failed(), run.odometer().iterations), (4, 8, 4));
    assert_eq!(log.count("/flaky"), 12);
    assert!(mono().since(began) >= Duration::from_millis(4 * 150), "{:?}", mono().since(began));
    // intended when it starts: the pause is nobody's response time
    let median = main.response().percentile(50.0);
    assert!(median < 45_000, "{median}");
}

#[tokio::test]
async fn a_retry_does_not_start_after_the_end() {
    let (address, log) = target(|_, _| 503);
    for load in [closed(2), open(2, 10)] {
        let mut plan = plan(address, &load, 0.5);
        plan.scenarios[0].tasks = tasks(address, &["/down"]);
        plan.scenarios[0].tasks[0].retry = serde_json::from_value(json!({"transient": 99, "flaky": 0,
            "permanent": 0, "base_delay": 30.0, "max_delay": 30.0, "backoff_factor": 1.0, "jitter": 0.0}))
        .unwrap();
        let before = log.paths().len();
        let began = mono();
        let run = run(plan, 0, |_, _| {}).await;
        run.assert_conserved();
        assert_eq!(log.paths().len() - before, run.total.phase(Phase::Main).failed() as usize);
        assert!(mono().since(began) < Duration::from_secs(4));
    }
}
