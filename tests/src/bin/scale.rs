//! Many workers in one process, for `tests/bench scale`: written from `cluster.proto` alone over TLS and HTTP/2, as
//! lean as can be, so that what is measured is the master. Each beats as it is asked to, and sends a frame a second
//! of 100 names with 10 samples each, which is made up once: only what differs is encoded anew. While the master is
//! behind, frames span several seconds, as a real worker's do.
//!
//! `scale MASTER WORKERS SECONDS`: prints `started` when the first worker is to start, and a JSON line of what they
//! saw once the last one is done.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use ld_shared::boot::clock;
use ld_shared::clock_estimate::ClockEstimate;
use ld_shared::frame::{Frame, FrameBody, FrameKey, Odometers};
use ld_shared::handshake;
use ld_shared::id::{RunId, SessionId};
use ld_shared::latency::Latency;
use ld_shared::message::{BEAT_EVERY, Beat, FRAME_WINDOW, Hello, LEASE, PROTOCOL_VERSION, RunBeat, ToMaster, ToWorker};
use ld_shared::sample::{Phase, SeriesKey, TimingPart};
use ld_shared::time::{Mono, RunTime};
use ld_shared::wire::{self, v1};
use ld_worker::link::trust::Tls;
use prost::Message as _;
use std::collections::VecDeque;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const NAMES: u64 = 100;
const SAMPLES: u64 = 10;
/// Workers that dial at once: what is measured is the run, not the handshakes.
const DIALLING: usize = 50;
/// How long the master may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tag of `ResultsFromWorker.frame`.
const FRAME_TAG: u8 = 2 << 3 | 2;

static STARTED: Once = Once::new();
static FRAMES: AtomicU64 = AtomicU64::new(0);
/// Seconds that they span.
static SECONDS: AtomicU64 = AtomicU64::new(0);
static LEASES_LOST: AtomicU64 = AtomicU64::new(0);
/// How late a beat or a frame was made at most: then this process is what is slow.
static OWN_LAG_US: AtomicU64 = AtomicU64::new(0);
/// How long after they were sent frames were counted, and beats answered.
static COUNTED_AFTER: LazyLock<Mutex<Latency>> = LazyLock::new(Mutex::default);
static ANSWERED_AFTER: LazyLock<Mutex<Latency>> = LazyLock::new(Mutex::default);

type Failure = Box<dyn Error + Send + Sync>;

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds that a frame may span.
const SPANS: [u32; 4] = [1, 2, 4, 8];
/// Series of 8 different spans of each length, as the bytes of a frame that has nothing else.
static SERIES: LazyLock<Vec<[Bytes; SPANS.len()]>> =
    LazyLock::new(|| (1..=8).map(|seed| SPANS.map(|span| series(seed, SAMPLES * u64::from(span)))).collect());

fn series(seed: u64, samples: u64) -> Bytes {
    let mut body = FrameBody::default();
    let main = body.counts.phase_mut(Phase::Main);
    let mut random = seed;
    for number in 0..NAMES {
        let key =
            SeriesKey { name: format!("/path/{number}").into(), request_type: "GET".into(), scenario: "user".into() };
        for _ in 0..samples {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let response = 500 + (random >> 40) % 30_000;
            main.series_mut(&key).succeeded.record(response);
            main.service.record(response);
            main.lag.record(response % 90);
            main.timing[TimingPart::Send.index()].record(response % 40);
            main.timing[TimingPart::FirstByte.index()].record(response - 60);
            main.timing[TimingPart::Receive.index()].record(response % 60);
        }
        main.series_mut(&key).first_at = 1;
    }
    wire::counts_to_wire((0, 0), &body.counts).encode_to_vec().into()
}

/// A stream of gRPC messages.
struct Stream {
    up: SendStream<Bytes>,
    down: RecvStream,
    unread: BytesMut,
}

impl Stream {
    async fn open(requests: &mut SendRequest<Bytes>, method: &str, first: &[u8]) -> Result<Self, Failure> {
        let uri = format!("http://master/loaddensity.cluster.v1.Cluster/{method}");
        let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        std::future::poll_fn(|context| requests.poll_ready(context)).await?;
        let (answer, mut up) = requests.send_request(request.body(())?, false)?;
        up.send_data(message(&[first]), false)?;
        let down = answer.await?.into_body();
        Ok(Self { up, down, unread: BytesMut::new() })
    }

    fn send(&mut self, parts: &[&[u8]]) -> Result<(), Failure> {
        Ok(self.up.send_data(message(parts), false)?)
    }

    /// The next message; `None`: there is none any more. Cancel safe.
    async fn next<M: prost::Message + Default>(&mut self) -> Result<Option<M>, Failure> {
        loop {
            if let Some(prefix) = self.unread.get(..5) {
                let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                if self.unread.len() >= 5 + length {
                    self.unread.advance(5);
                    return Ok(Some(M::decode(self.unread.split_to(length))?));
                }
            }
            let Some(data) = self.down.data().await else { return Ok(None) };
            let data = data?;
            self.down.flow_control().release_capacity(data.len())?;
            self.unread.extend_from_slice(&data);
        }
    }
}

fn message(parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes.freeze()
}

/// What a worker does in a run.
struct Run {
    id: RunId,
    t0: Option<Mono>,
    /// The second whose frame is next.
    second: u32,
    sent: u64,
    /// When frames were sent that are not counted yet.
    offered: VecDeque<Mono>,
    odometers: Odometers,
    ends_at: u32,
}

impl Run {
    /// When the next frame is due; `None`: not before others are counted, or never.
    fn due(&self) -> Option<Mono> {
        let wanted = self.second < self.ends_at && self.offered.len() < FRAME_WINDOW;
        self.t0.filter(|_| wanted).map(|t0| t0.after(Duration::from_secs(u64::from(self.second) + 1)))
    }

    /// The next frame, but for its series, and which of [`SPANS`] it spans.
    fn frame(&mut self, session: SessionId, now: Mono) -> Result<(v1::Frame, usize), Failure> {
        let t0 = self.t0.ok_or("a frame before the start")?;
        let second = self.second;
        let over = (now.since(t0).as_secs() as u32).min(self.ends_at).saturating_sub(second).max(1);
        let span = SPANS.iter().rposition(|span| *span <= over).unwrap_or(0);
        (self.second, self.sent) = (second + SPANS[span], self.sent + 1);
        self.offered.push_back(now);
        let ended = NAMES * SAMPLES * u64::from(SPANS[span]);
        let main = &mut self.odometers.phases[Phase::Main.index()];
        for count in [
            &mut main.due,
            &mut main.iterations,
            &mut main.requests_started,
            &mut main.requests_written,
            &mut main.requests_ended,
        ] {
            *count += ended;
        }
        let all = main.requests_ended;
        let mut body = FrameBody {
            from_second: second,
            to_second: self.second,
            odometers: self.odometers,
            last: self.second == self.ends_at,
            ..FrameBody::default()
        };
        body.generator.cores = 1;
        body.generator.users_max = 10;
        body.generator.start_skew = Some(1_000);
        body.generator.records_seen = [all, 0];
        for second in second..self.second {
            let row = body.counts.rows.entry(second).or_default();
            let ended = NAMES * SAMPLES;
            (row.requests_started, row.succeeded, row.iterations, row.user_ms) = (ended, ended, ended, 10_000);
        }
        let key = FrameKey { run: self.id.clone(), session, seq: self.sent };
        let frame = wire::frame_to_wire(&Frame { key, body }, RunTime::from(now.since(t0)));
        // they are in the series
        Ok((v1::Frame { phases: Vec::new(), ..frame }, span))
    }
}

/// A connection to a master that may be about to start.
async fn connect(master: &str) -> Result<TcpStream, Failure> {
    let begun = clock::mono();
    loop {
        match TcpStream::connect(master).await {
            Err(_) if clock::mono() < begun.after(PATIENCE) => tokio::time::sleep(BEAT_EVERY).await,
            connected => return Ok(connected?),
        }
    }
}

struct Worker {
    number: usize,
    seconds: u32,
    session: SessionId,
    control: Stream,
    results: Stream,
    clock: ClockEstimate,
    beats: u64,
    next_beat: Mono,
    beat_every: Duration,
    lease: Mono,
    run: Option<Run>,
}

impl Worker {
    /// Joins, in its turn.
    async fn join(number: usize, master: &str, tls: &Tls, seconds: u32, gate: &Semaphore) -> Result<Self, Failure> {
        let _turn = gate.acquire().await?;
        let tcp = connect(master).await?;
        tcp.set_nodelay(true)?;
        let (tls, _) = tls.secure(tcp).await.map_err(|why| why.text)?;
        let (mut requests, connection) = h2::client::handshake(tls).await?;
        // its end is seen on the streams
        tokio::spawn(async move { drop(connection.await) });
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            build: "scale".into(),
            name: format!("w{number}"),
            cores: 1,
            returning: None,
        };
        let hello = wire::hello_to_master(&hello, &handshake::fresh_nonce()).encode_to_vec();
        let mut control = Stream::open(&mut requests, "Control", &hello).await?;
        let challenge = control.next::<v1::FromMaster>().await?.ok_or("no challenge")?;
        wire::challenge_from_master(&challenge).ok_or("no challenge")??;
        control.send(&[&wire::proof_to_master(wire::Proof::default()).encode_to_vec()])?;
        let welcome = wire::control_from_master(control.next().await?.ok_or("no welcome")?)?;
        let ToWorker::Welcome { session, secret, .. } = welcome else { return Err(format!("{welcome:?}").into()) };
        let attach = wire::attach_to_master(session, secret).encode_to_vec();
        let results = Stream::open(&mut requests, "Results", &attach).await?;
        let now = clock::mono();
        let clock = ClockEstimate::default();
        let (lease, run) = (now.after(LEASE), None);
        Ok(Self {
            number,
            seconds,
            session,
            control,
            results,
            clock,
            beats: 0,
            next_beat: now,
            beat_every: BEAT_EVERY,
            lease,
            run,
        })
    }

    fn say(&mut self, message: &ToMaster) -> Result<(), Failure> {
        let message = wire::control_to_master(message).ok_or("not for `Control`")?;
        self.control.send(&[&message.encode_to_vec()])
    }

    async fn work(mut self) -> Result<(), Failure> {
        loop {
            let frame = self.run.as_ref().and_then(Run::due).unwrap_or(Mono(u64::MAX));
            let due = frame.min(self.next_beat);
            tokio::select! {
                message = self.control.next() => {
                    let message = message?.ok_or("the master closed `Control`")?;
                    if !self.told(wire::control_from_master(message)?)? {
                        return Ok(());
                    }
                }
                ack = self.results.next() => {
                    let ack = wire::results_from_master(ack?.ok_or("the master closed `Results`")?)?;
                    if let (ToWorker::FrameAck { seq, .. }, Some(run)) = (ack, &mut self.run) {
                        let now = clock::mono();
                        while run.sent - (run.offered.len() as u64) < seq {
                            let at = run.offered.pop_front().ok_or("a frame is counted that was not sent")?;
                            locked(&COUNTED_AFTER).record(now.since(at).as_micros() as u64);
                        }
                    }
                }
                () = tokio::time::sleep(due.since(clock::mono())) => {
                    let now = clock::mono();
                    OWN_LAG_US.fetch_max(now.since(due).as_micros() as u64, Ordering::Relaxed);
                    if self.next_beat <= now {
                        self.beat(now)?;
                    }
                    if frame <= now {
                        self.ship(now)?;
                    }
                }
            }
        }
    }

    fn runs(&self, now: Mono) -> bool {
        self.run.as_ref().and_then(|run| run.t0).is_some_and(|t0| now >= t0)
    }

    fn beat(&mut self, now: Mono) -> Result<(), Failure> {
        // what a worker without load is told late does not matter
        if now > self.lease && self.runs(now) {
            LEASES_LOST.fetch_add(1, Ordering::Relaxed);
            self.lease = now.after(LEASE);
        }
        self.beats += 1;
        self.next_beat = now.after(self.beat_every);
        let run = self.run.as_ref().and_then(|run| {
            let at = RunTime::from(now.since(run.t0.filter(|t0| *t0 <= now)?));
            Some(RunBeat {
                run: run.id.clone(),
                at,
                odometers: run.odometers,
                users: 10,
                cpu_permille: 0,
                lag_us: 0,
                throttles: Vec::new(),
            })
        });
        let beat = Beat { number: self.beats, sent_at: now, clock: self.clock.report(), run };
        self.say(&ToMaster::Beat(beat))
    }

    fn ship(&mut self, now: Mono) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let variants = &SERIES[(self.number + run.second as usize) % SERIES.len()];
        let (frame, span) = run.frame(self.session, now)?;
        let (rest, series) = (frame.encode_to_vec(), &variants[span]);
        let mut head = vec![FRAME_TAG];
        prost::encode_length_delimiter(rest.len() + series.len(), &mut head)?;
        self.results.send(&[&head, &rest, series])?;
        FRAMES.fetch_add(1, Ordering::Relaxed);
        SECONDS.fetch_add(u64::from(SPANS[span]), Ordering::Relaxed);
        Ok(())
    }

    /// The master said something. `false`: goodbye.
    fn told(&mut self, message: ToWorker) -> Result<bool, Failure> {
        match message {
            ToWorker::BeatReply(reply) => {
                let now = clock::mono();
                self.clock.add(&reply, now);
                self.lease = self.lease.max(reply.sent_at.after(LEASE));
                self.beat_every = reply.every;
                if self.runs(reply.sent_at) {
                    locked(&ANSWERED_AFTER).record(now.since(reply.sent_at).as_micros() as u64);
                }
            }
            ToWorker::Prepare { run, .. } => {
                self.say(&ToMaster::NeedBlobs { run: run.clone(), digests: Vec::new() })?;
                self.say(&ToMaster::Ready { run: run.clone(), cores: 1, capacity: 1_000_000 })?;
                self.run = Some(Run {
                    id: run,
                    t0: None,
                    second: 0,
                    sent: 0,
                    offered: VecDeque::new(),
                    odometers: Odometers::default(),
                    ends_at: self.seconds,
                });
            }
            ToWorker::Arm { run, attempt, t0, .. } => {
                STARTED.call_once(|| print("started"));
                let t0 = self.clock.to_own(t0);
                self.run.as_mut().ok_or("armed before it was prepared")?.t0 = t0;
                self.say(&ToMaster::Armed { run, attempt })?;
            }
            ToWorker::Stop { .. } | ToWorker::Abort { .. } => {
                if let Some(run) = &mut self.run {
                    run.ends_at = run.ends_at.min(run.second + 1);
                }
            }
            ToWorker::RunClosed { .. } => self.run = None,
            ToWorker::Goodbye { .. } => return Ok(false),
            ToWorker::Refused(refusal) => return Err(refusal.text.into()),
            _ => {}
        }
        Ok(true)
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

fn main() {
    // an error means that a provider is installed already: the same one
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, master, workers, seconds] = &arguments[..] else { panic!("expected: scale MASTER WORKERS SECONDS") };
    let workers: usize = workers.parse().expect("a number of workers");
    let seconds: u32 = seconds.parse().expect("a number of seconds");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let exits = runtime.block_on(async {
        let gate = Arc::new(Semaphore::new(DIALLING));
        let tls = Tls::new(None, None).expect("there is no file to be wrong");
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..workers {
            let (master, gate, tls) = (master.clone(), Arc::clone(&gate), tls.clone());
            tasks.spawn(async move { Worker::join(number, &master, &tls, seconds, &gate).await?.work().await });
        }
        tasks.join_all().await
    });
    let done = exits.iter().filter(|exit| exit.is_ok()).count();
    for why in exits.iter().filter_map(|exit| exit.as_ref().err()).take(3) {
        say(&format!("a worker failed: {why}"));
    }
    let (counted, answered) = (locked(&COUNTED_AFTER), locked(&ANSWERED_AFTER));
    let ms = |of: &Latency, p| of.percentile(p) as f64 / 1e3;
    let frames = FRAMES.load(Ordering::Relaxed);
    let seen = serde_json::json!({
        "workers": workers, "done": done, "frames": frames, "samples": SECONDS.load(Ordering::Relaxed) * NAMES * SAMPLES,
        "own_lag_ms": OWN_LAG_US.load(Ordering::Relaxed) as f64 / 1e3,
        "leases_lost": LEASES_LOST.load(Ordering::Relaxed), "counted": counted.count(),
        "after_p50_ms": ms(&counted, 50.0), "after_p99_ms": ms(&counted, 99.0), "after_max_ms": ms(&counted, 100.0),
        "answered_p99_ms": ms(&answered, 99.0), "answered_max_ms": ms(&answered, 100.0),
    });
    print(&seen.to_string());
}
