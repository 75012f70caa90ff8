//! Many workers in one process, for `tests/bench scale`: the worker's own link over real gRPC, with an
//! engine that makes up what it measured: 100 names with 10 samples each, a frame a second.
//!
//! `scale MASTER WORKERS`: prints `started` when the first worker is to start, and a JSON line of what they saw
//! once the last one is done.

use ld_shared::boot::clock;
use ld_shared::frame::{FrameBody, Odometers};
use ld_shared::latency::Latency;
use ld_shared::load::Program;
use ld_shared::message::{Hello, LINK_QUEUE, PROTOCOL_VERSION, ToMaster, ToWorker};
use ld_shared::plan::{Plan, Pool};
use ld_shared::sample::{Phase, SeriesKey, TimingPart};
use ld_shared::shard::Shard;
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::{Mono, SECOND};
use ld_worker::engine::{EngineEvent, EngineSpec};
use ld_worker::link::grpc::{Credentials, GrpcDial};
use ld_worker::link::socket::Tcp;
use ld_worker::link::{self, Channel, Dial, LoadMaker};
use ld_worker::membership::{Exit, Options, Unreached};
use ld_worker::protocol::PrepareError;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const NAMES: u64 = 100;
const SAMPLES: u64 = 10;
/// Workers that dial at once: what is measured is the run, not the handshakes.
const DIALLING: usize = 50;

/// Frames that all workers made, samples in them, and how long after its second each was made.
static STARTED: Once = Once::new();
static FRAMES: AtomicU64 = AtomicU64::new(0);
static SAMPLES_MADE: AtomicU64 = AtomicU64::new(0);
static LEASES_LOST: AtomicU64 = AtomicU64::new(0);
static OWN_LAG_US: AtomicU64 = AtomicU64::new(0);
/// How long after they were sent frames were counted.
static COUNTED_AFTER: LazyLock<Mutex<Latency>> = LazyLock::new(Mutex::default);

/// Makes frames up, by its plan's time.
struct Inventor {
    plan: Arc<Plan>,
    events: mpsc::UnboundedSender<EngineEvent>,
    stop: CancellationToken,
    odometers: Arc<Mutex<Odometers>>,
}

impl Drop for Inventor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What ends in a second of a worker, made up once: 8 different ones.
static SPANS: LazyLock<Vec<FrameBody>> = LazyLock::new(|| (1..=8).map(span).collect());

fn span(seed: u64) -> FrameBody {
    let mut body = FrameBody::default();
    let main = body.counts.phase_mut(Phase::Main);
    let mut random = seed;
    for number in 0..NAMES {
        let key =
            SeriesKey { name: format!("/path/{number}").into(), request_type: "GET".into(), scenario: "user".into() };
        for _ in 0..SAMPLES {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let response = 500 + (random >> 40) % 30_000;
            main.series_mut(&key).succeeded.record(response);
            main.service.record(response);
            main.lag.record(response % 90);
            main.timing[TimingPart::Send.index()].record(response % 40);
            main.timing[TimingPart::FirstByte.index()].record(response - 60);
            main.timing[TimingPart::Receive.index()].record(response % 60);
        }
    }
    body.generator.cores = 1;
    body.generator.users_max = 10;
    body.generator.start_skew = Some(1_000);
    body
}

/// One of them, as that of a worker in this second.
fn span_of(worker: u64, second: u32) -> FrameBody {
    let mut body = SPANS[(worker as usize + second as usize) % SPANS.len()].clone();
    (body.from_second, body.to_second) = (second, second + 1);
    for series in body.counts.phase_mut(Phase::Main).series.values_mut() {
        series.first_at = u64::from(second) * SECOND;
    }
    let ended = NAMES * SAMPLES;
    let row = body.counts.rows.entry(second).or_default();
    (row.requests_started, row.succeeded, row.iterations, row.user_ms) = (ended, ended, ended, 10_000);
    body
}

impl LoadMaker for Inventor {
    fn prepare(spec: EngineSpec, events: mpsc::UnboundedSender<EngineEvent>) -> Result<Self, PrepareError> {
        Ok(Self { plan: spec.plan, events, stop: CancellationToken::new(), odometers: Arc::default() })
    }

    fn start(&self, shard: Shard, t0: Mono) {
        STARTED.call_once(|| print("started"));
        let (events, stop, odometers) = (self.events.clone(), self.stop.clone(), Arc::clone(&self.odometers));
        let end = (self.plan.end().0 / SECOND) as u32;
        let worker = shard.lanes.iter().next().map_or(0, u64::from);
        tokio::spawn(async move {
            for second in 0..end {
                let over = t0.after(Duration::from_secs(u64::from(second) + 1));
                tokio::select! {
                    () = tokio::time::sleep(over.since(clock::mono())) => {}
                    () = stop.cancelled() => return,
                }
                OWN_LAG_US.fetch_max(clock::mono().since(over).as_micros() as u64, Ordering::Relaxed);
                let mut body = span_of(worker, second);
                {
                    let mut odometers = locked(&odometers);
                    let main = &mut odometers.phases[Phase::Main.index()];
                    for count in [
                        &mut main.due,
                        &mut main.iterations,
                        &mut main.requests_started,
                        &mut main.requests_written,
                        &mut main.requests_ended,
                    ] {
                        *count += NAMES * SAMPLES;
                    }
                    body.generator.records_seen = [main.requests_ended, 0];
                    body.odometers = *odometers;
                }
                body.last = second + 1 == end;
                FRAMES.fetch_add(1, Ordering::Relaxed);
                SAMPLES_MADE.fetch_add(NAMES * SAMPLES, Ordering::Relaxed);
                // the link is gone: the run was dropped
                events.send(EngineEvent::Span(Box::new(body))).ok();
            }
        });
    }

    fn assign(&self, _shard: Shard) {}
    fn change(&self, _program: &Program) {}
    fn set_lease(&self, _until: Mono) {}
    fn lease_lost(&self) {
        LEASES_LOST.fetch_add(1, Ordering::Relaxed);
    }
    fn stop(&self) {}
    fn abort(&self) {
        self.stop.cancel();
    }
    fn odometers(&self) -> Odometers {
        *locked(&self.odometers)
    }
    fn grant(&self, _pool: Pool, _tickets: Range<u64>, _exhausted: bool) {}
    fn records_acknowledged(&self) {}
    fn set_record_limits(&self, _limits: [u64; 2]) {}
    fn set_throttles(&self, _parts: &[u32]) {}
    fn throttle_use(&self) -> Vec<ThrottleUse> {
        Vec::new()
    }
}

#[expect(clippy::print_stdout, reason = "a program for tests/bench")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "a program for people and tests/bench")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// The way to the master, on which frames are timed from their end to the word that they are counted.
struct Timed(GrpcDial);

impl Dial for Timed {
    async fn dial(&mut self) -> Result<Channel, Unreached> {
        let Channel { up, down: mut from_master } = self.0.dial().await?;
        let (to_link, down) = mpsc::channel(LINK_QUEUE);
        let (from_link, mut messages) = mpsc::channel::<ToMaster>(LINK_QUEUE);
        let sent: Arc<Mutex<VecDeque<(u64, Mono)>>> = Arc::default();
        let waiting = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if let ToMaster::Frame { frame, .. } = &message {
                    locked(&sent).push_back((frame.key.seq, clock::mono()));
                }
                if up.send(message).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(message) = from_master.recv().await {
                if let Ok(ToWorker::FrameAck { seq, .. }) = &message {
                    let now = clock::mono();
                    while let Some((_, at)) = locked(&waiting).pop_front_if(|(sent, _)| *sent <= *seq) {
                        locked(&COUNTED_AFTER).record(now.since(at).as_micros() as u64);
                    }
                }
                if to_link.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(Channel { up: from_link, down })
    }
}

fn options(number: usize, master: &str) -> Options {
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        build: "scale".into(),
        name: format!("w{number}"),
        cores: 1,
        returning: None,
    };
    Options {
        hello,
        capacity: 1_000_000,
        stay: false,
        master_timeout: Duration::from_mins(1),
        master: master.to_owned(),
        targets: None,
        spool: None,
    }
}

fn main() {
    // an error means that a provider is installed already: the same one
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, master, workers] = &arguments[..] else { panic!("expected: scale MASTER WORKERS") };
    let workers: usize = workers.parse().expect("a number of workers");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let exits = runtime.block_on(async {
        let gate = Arc::new(tokio::sync::Semaphore::new(DIALLING));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..workers {
            let (master, gate) = (master.clone(), Arc::clone(&gate));
            tasks.spawn(async move {
                let (standing, mut joined) = tokio::sync::watch::channel(Err(String::new()));
                let turn = gate.acquire_owned().await.expect("nobody closes the gate");
                tokio::spawn(async move {
                    // an error: the worker is done, and its turn with it
                    joined.wait_for(Result::is_ok).await.ok();
                    drop(turn);
                });
                let (_signals, signals) = mpsc::channel(1);
                let credentials = Credentials::first_use();
                let dial = Timed(GrpcDial { master: master.clone(), credentials, connect: Tcp });
                link::run::<Inventor>(options(number, &master), dial, signals, standing).await
            });
        }
        tasks.join_all().await
    });
    let done = exits.iter().filter(|exit| matches!(exit, Exit::Done(_))).count();
    for exit in exits.iter().filter(|exit| !matches!(exit, Exit::Done(_))).take(3) {
        say(&format!("{exit:?}"));
    }
    let counted = locked(&COUNTED_AFTER);
    let after = |p| counted.percentile(p) as f64 / 1e3;
    let seen = serde_json::json!({
        "workers": workers, "done": done, "frames": FRAMES.load(Ordering::Relaxed),
        "samples": SAMPLES_MADE.load(Ordering::Relaxed), "own_lag_ms": OWN_LAG_US.load(Ordering::Relaxed) as f64 / 1e3,
        "leases_lost": LEASES_LOST.load(Ordering::Relaxed), "counted": counted.count(), "after_p50_ms": after(50.0), "after_p99_ms": after(99.0), "after_max_ms": after(100.0),
    });
    print(&seen.to_string());
}
