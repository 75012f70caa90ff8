//! Runs over real links (channels and gRPC on loopback) with a double of the engine.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use ld_master::cluster::{Cluster, ClusterError, ClusterOptions, RunControl, RunError, RunOrder, Security};
use ld_master::run::{Ending, Measured, Progress};
use ld_shared::boot::clock;
use ld_shared::frame::{FrameBody, Odometers};
use ld_shared::id::Digest;
use ld_shared::load::{Closed, Load, Profile, Program};
use ld_shared::message::{Hello, PROTOCOL_VERSION};
use ld_shared::plan::{Connections, HttpVersion, Mode, Plan, Pool, ScenarioPlan, StatusCheck, TlsPlan};
use ld_shared::record::RecordPolicy;
use ld_shared::sample::{Phase, SeriesKey};
use ld_shared::shard::Shard;
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::{Mono, RunTime};
use ld_worker::engine::{EngineEvent, EngineSpec};
use ld_worker::link::{
    self, LoadMaker,
    grpc::{Credentials, GrpcDial},
};
use ld_worker::membership::{Exit, Options};
use ld_worker::protocol::PrepareError;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Makes no load: after `test_time` (or a stop) it reports one request a lane.
struct Double {
    plan: Arc<Plan>,
    events: mpsc::UnboundedSender<EngineEvent>,
    stop: CancellationToken,
    odometers: Arc<Mutex<Odometers>>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl LoadMaker for Double {
    fn prepare(spec: EngineSpec, events: mpsc::UnboundedSender<EngineEvent>) -> Result<Self, PrepareError> {
        if spec.plan.seed == 13 {
            return Err(PrepareError("this plan is unlucky".into()));
        }
        let (stop, odometers) = (CancellationToken::new(), Arc::default());
        Ok(Self { plan: spec.plan, events, stop, odometers })
    }

    fn start(&self, shard: Shard, t0: Mono) {
        let events = self.events.clone();
        let (stop, odometers) = (self.stop.clone(), Arc::clone(&self.odometers));
        let end = t0.after(Duration::from_nanos(self.plan.end().0.min(60_000_000_000)));
        tokio::spawn(async move {
            let requests = shard.lanes.len() as u64;
            tokio::time::sleep(t0.since(clock::mono())).await;
            odometers.lock().unwrap().phases[0].requests_started = requests;
            tokio::select! {
                () = tokio::time::sleep(end.since(clock::mono())) => {}
                () = stop.cancelled() => {}
            }
            let mut body = FrameBody { to_second: 1, last: true, ..FrameBody::default() };
            let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
            body.counts.phase_mut(Phase::Main).series_mut(&key).succeeded.record_n(1_000, requests);
            body.counts.rows.entry(0).or_default().succeeded = requests;
            let mut ended = odometers.lock().unwrap();
            ended.phases[0].requests_ended = requests;
            body.odometers = *ended;
            events.send(EngineEvent::Span(Box::new(body))).ok();
        });
    }

    fn assign(&self, _shard: Shard) {}

    fn change(&self, _program: &Program) {}

    fn set_lease(&self, _until: Mono) {}

    fn lease_lost(&self) {}

    fn stop(&self) {
        self.stop.cancel();
    }

    fn abort(&self) {
        self.stop.cancel();
    }

    fn odometers(&self) -> Odometers {
        *self.odometers.lock().unwrap()
    }

    fn grant(&self, _pool: Pool, _tickets: Range<u64>, _exhausted: bool) {}

    fn records_acknowledged(&self) {}

    fn set_record_limits(&self, _limits: [u64; 2]) {}

    fn set_throttles(&self, _parts: &[u32]) {}

    fn throttle_use(&self) -> Vec<ThrottleUse> {
        Vec::new()
    }
}

fn plan(seconds: f64, seed: u64) -> Plan {
    let scenario = ScenarioPlan {
        name: "s".into(),
        user: "fast_http_user".into(),
        load: Load::Closed(Closed { users: Profile::constant(10.0) }),
        first_number: 0,
        mode: Mode::Sequence,
        tasks: Vec::new(),
        on_start: Vec::new(),
        on_stop: Vec::new(),
        wait_time: None,
        host: None,
        connections: Connections::PerUser,
        connect_timeout: 60.0,
        request_timeout: 60.0,
        tls: TlsPlan::default(),
        http_version: HttpVersion::Auto,
        options: serde_json::Map::new(),
        status_check: StatusCheck::Always,
    };
    Plan {
        seed,
        scenarios: vec![scenario],
        variables: serde_json::Map::new(),
        env: BTreeMap::new(),
        sources: Vec::new(),
        test_time: Some(RunTime::from_secs(seconds)),
        warmup: RunTime(0),
        graceful_stop: RunTime::from_secs(1.0),
        iterations: None,
        records: RecordPolicy::default(),
        throttles: Vec::new(),
        stage: None,
        setup: Vec::new(),
        teardown: Vec::new(),
        collect: false,
        details: Vec::new(),
        allow_targets: Vec::new(),
        on_worker_loss: ld_shared::plan::WorkerLoss::default(),
        on_master_loss: ld_shared::plan::MasterLoss::default(),
        secrets: None,
    }
}

fn order(plan: Plan) -> RunOrder {
    let digest = Digest::of(&plan.to_json());
    // more than two chunks, so that reassembly is seen to work
    let blob = bytes::Bytes::from(vec![7; 600_000]);
    let blobs = BTreeMap::from([(Digest::of(&blob), blob), (Digest::of(b""), bytes::Bytes::new())]);
    let (thresholds, lines) = (Vec::new(), None);
    RunOrder {
        run: ld_shared::id::RunId::random(),
        plan: Arc::new(plan),
        digest,
        blobs,
        thresholds,
        allow_missing_workers: false,
        any_worker: false,
        lines,
        journal: None,
        resumes: None,
    }
}

async fn run(cluster: &Cluster, plan: Plan) -> Result<Measured, RunError> {
    let (progress, _) = watch::channel(Arc::new(Progress::default()));
    cluster.run(order(plan), RunControl::default(), progress).await
}

fn listening(expected_workers: u32, wait: Duration) -> ClusterOptions {
    let bind = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    ClusterOptions { bind, local_cores: None, expected_workers, wait, security: Security::default() }
}

fn options(master: String, protocol: u32) -> Options {
    let hello = Hello { protocol, build: "test".into(), name: "w".into(), cores: 1, returning: None };
    Options {
        hello,
        capacity: 1_000,
        stay: false,
        master_timeout: Duration::from_secs(5),
        master,
        targets: None,
        spool: None,
    }
}

/// A worker on a thread of its own; dropping the sender's clone signals nothing.
fn worker(master: SocketAddr, protocol: u32) -> (mpsc::Sender<()>, std::thread::JoinHandle<Exit>) {
    let (signal, signals) = mpsc::channel(2);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dial = GrpcDial {
            master: master.to_string(),
            credentials: Credentials::first_use(),
            connect: ld_worker::link::socket::Tcp,
        };
        runtime.block_on(link::run::<Double>(options(master.to_string(), protocol), dial, signals, link::unwatched()))
    });
    (signal, thread)
}

fn requests(measured: &Measured) -> u64 {
    measured.total.phase(Phase::Main).succeeded()
}

#[tokio::test]
async fn a_local_run_needs_no_port() {
    let options = ClusterOptions { bind: None, local_cores: Some(1), ..listening(1, Duration::from_secs(5)) };
    let cluster = Cluster::open_with::<Double>(options).await.unwrap();
    assert_eq!(cluster.bound_addr(), None);
    for _ in 0..2 {
        let measured = run(&cluster, plan(0.1, 1)).await.unwrap();
        assert_eq!((requests(&measured), measured.lost, &measured.ending), (16_384, 0, &Ending::Completed));
        assert_eq!((measured.mode, measured.duration_s), ("local", 0.1));
        assert_eq!((measured.workers.len(), measured.workers[0].state), (1, "ok"));
    }
    let error = run(&cluster, plan(0.1, 13)).await.unwrap_err();
    assert_eq!(error.to_string(), "worker local cannot run the plan: this plan is unlucky");
    cluster.close().await;
}

#[tokio::test]
async fn workers_share_a_plan_over_grpc_and_end_with_their_master() {
    let cluster = Cluster::open_with::<Double>(listening(3, Duration::from_secs(10))).await.unwrap();
    let workers: Vec<_> = (0..3).map(|_| worker(cluster.bound_addr().unwrap(), PROTOCOL_VERSION)).collect();
    for _ in 0..2 {
        let measured = run(&cluster, plan(0.2, 1)).await.unwrap();
        assert_eq!((requests(&measured), measured.lost, &measured.ending), (16_384, 0, &Ending::Completed));
        assert_eq!(measured.odometers.phases[0].requests_started, 16_384);
        let names: Vec<&str> = measured.workers.iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["w", "w#2", "w#3"]);
        assert!(measured.workers.iter().all(|w| w.state == "ok" && w.requests >= 5_461));
    }
    cluster.close().await;
    for (_signal, thread) in workers {
        assert_eq!(thread.join().unwrap(), Exit::Done("the master said goodbye: the master is done".into()));
    }
}

#[tokio::test]
async fn missing_workers_are_named_and_other_versions_refused() {
    let cluster = Cluster::open_with::<Double>(listening(2, Duration::from_secs(3))).await.unwrap();
    let address = cluster.bound_addr().unwrap();
    let (_signal, other) = worker(address, 77);
    let Exit::Failed(text) = other.join().unwrap() else { panic!("a worker of another version must fail") };
    assert!(text.contains("protocol version 77") && text.contains("this master speaks 2"), "{text}");
    let (_signal, here) = worker(address, PROTOCOL_VERSION);
    let error = run(&cluster, plan(0.1, 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "1 of 2 workers joined within 3s (w)");
    cluster.close().await;
    assert!(matches!(here.join().unwrap(), Exit::Done(_)));
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_a_remedy() {
    let cluster = Cluster::open_with::<Double>(listening(1, Duration::ZERO)).await.unwrap();
    let taken = ClusterOptions { bind: cluster.bound_addr(), ..listening(1, Duration::ZERO) };
    let error = Cluster::open_with::<Double>(taken).await.unwrap_err();
    assert!(matches!(error, ClusterError::Bind { .. }));
    assert!(error.help().unwrap().contains("--bind"));
    cluster.close().await;
}

#[tokio::test]
async fn a_worker_that_is_signalled_drains_and_leaves() {
    let cluster = Cluster::open_with::<Double>(listening(2, Duration::from_secs(10))).await.unwrap();
    let address = cluster.bound_addr().unwrap();
    let (signal, leaver) = worker(address, PROTOCOL_VERSION);
    let (_signal, stayer) = worker(address, PROTOCOL_VERSION);
    let (progress, mut seen) = watch::channel(Arc::new(Progress::default()));
    let going = cluster.run(order(plan(2.0, 1)), RunControl::default(), progress);
    let signalled = async {
        seen.wait_for(|progress| progress.state == "running" && progress.elapsed_s > 0.0).await.unwrap();
        signal.send(()).await.unwrap();
    };
    let (measured, ()) = tokio::join!(going, signalled);
    let measured = measured.unwrap();
    assert_eq!((requests(&measured), measured.lost, &measured.ending), (16_384, 0, &Ending::Completed));
    let states: Vec<&str> = measured.workers.iter().map(|w| w.state).collect();
    assert!(states.contains(&"left") && states.contains(&"ok"), "{states:?}");
    assert_eq!(measured.losses.len(), 1);
    assert_eq!(leaver.join().unwrap(), Exit::Interrupted);
    cluster.close().await;
    stayer.join().unwrap();
}

#[tokio::test]
async fn a_stopped_run_still_has_its_result() {
    let cluster = Cluster::open_with::<Double>(listening(1, Duration::from_secs(10))).await.unwrap();
    let (_signal, worker) = worker(cluster.bound_addr().unwrap(), PROTOCOL_VERSION);
    let (progress, mut seen) = watch::channel(Arc::new(Progress::default()));
    let control = RunControl::default();
    let stop = control.stop.clone();
    let going = cluster.run(order(plan(50.0, 1)), control, progress);
    let stopped = async {
        seen.wait_for(|progress| progress.state == "running" && progress.elapsed_s > 0.2).await.unwrap();
        stop.cancel();
    };
    let (measured, ()) = tokio::join!(going, stopped);
    let measured = measured.unwrap();
    assert_eq!((requests(&measured), measured.lost, &measured.ending), (16_384, 0, &Ending::Stopped));
    assert!(measured.duration_s < 10.0);
    cluster.close().await;
    worker.join().unwrap();
}
