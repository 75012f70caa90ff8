//! Lanes that move between workers in mid-run, and leases that end and come back.

use super::*;
use ld_shared::boot::clock::mono;
use ld_shared::lanes::deal;
use ld_shared::plan::{Dealing, SourcePlan};
use std::collections::BTreeMap;
use std::sync::Mutex;

const MS: u64 = 1_000_000;

/// One request as the target saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    path: String,
    pub(super) began: Mono,
    ended: Mono,
}

/// A target that answers after a delay and keeps a log; and how many connections are open.
#[derive(Clone)]
pub(super) struct Target {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    pub(super) open: Arc<AtomicU64>,
}

pub(super) fn target(delay: Duration) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target { address: listener.local_addr().unwrap(), log: Arc::default(), open: Arc::default() };
    let made = target.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, target) = (stream.unwrap(), made.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                target.open.fetch_add(1, Ordering::SeqCst);
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    let began = mono();
                    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    let path = text.split(' ').nth(1).unwrap().to_owned();
                    #[expect(clippy::disallowed_methods, reason = "a blocking thread that plays a slow target")]
                    std::thread::sleep(delay);
                    target.log.lock().unwrap().push(Seen { path, began, ended: mono() });
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                        break;
                    }
                }
                target.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    target
}

impl Target {
    pub(super) fn seen(&self, prefix: &str) -> Vec<Seen> {
        let log = self.log.lock().unwrap();
        let mut seen: Vec<Seen> = log.iter().filter(|seen| seen.path.starts_with(prefix)).cloned().collect();
        seen.sort_by_key(|seen| seen.began);
        seen
    }
}

/// A plan whose requests tell the worker's name and the number of the arrival or user: numbers
/// are below `numbers`.
pub(super) fn numbered(target: &Target, worker: &str, load: &Value, seconds: f64, numbers: usize) -> EngineSpec {
    let mut plan = plan(target.address, load, seconds);
    let task =
        |what: &str| serde_json::from_value(task(target.address, &format!("/{worker}/{what}?${{csv.n.i}}"))).unwrap();
    plan.scenarios[0].tasks = vec![task("work")];
    plan.scenarios[0].wait_time = Some((0.02, 0.02));
    if load.get("closed").is_some() {
        plan.scenarios[0].on_start = vec![task("login")];
        plan.scenarios[0].on_stop = vec![task("logout")];
    }
    let rows = serde_json::to_vec(&(0..numbers).map(|i| vec![i.to_string()]).collect::<Vec<_>>()).unwrap();
    let blob = Digest::of(&rows);
    plan.sources = vec![SourcePlan {
        name: "n".into(),
        columns: vec!["i".into()],
        rows: numbers as u64,
        blob: blob.clone(),
        dealing: Dealing::Cycle,
    }];
    EngineSpec { plan: Arc::new(plan), blobs: Arc::new(BTreeMap::from([(blob, rows.into())])), cores: 2 }
}

pub(super) fn number(seen: &Seen) -> usize {
    seen.path.split_once('?').unwrap().1.parse().unwrap()
}

fn shard(lanes: &LaneSet, from: u64) -> Shard {
    Shard {
        plan: Digest::of(b""),
        lanes: lanes.clone(),
        epoch: Epoch(1),
        from: RunTime(from * MS),
        max_in_flight: vec![1_000],
        throttles: Vec::new(),
    }
}

/// One worker's engine at work, from run time 0 = `t0`.
pub(super) struct Worker {
    engine: Option<Engine>,
    frames: tokio::task::JoinHandle<Vec<FrameBody>>,
    t0: Mono,
}

impl Worker {
    async fn new(spec: EngineSpec, t0: Mono) -> Self {
        let (events, mut received) = mpsc::unbounded_channel();
        let engine = tokio::task::spawn_blocking(move || Engine::prepare(spec, events)).await.unwrap().unwrap();
        let frames = tokio::spawn(async move {
            let mut frames = Vec::new();
            while let Some(event) = received.recv().await {
                if let EngineEvent::Span(frame) = event {
                    let last = frame.last;
                    frames.push(*frame);
                    if last {
                        break;
                    }
                }
            }
            frames
        });
        Self { engine: Some(engine), frames, t0 }
    }

    pub(super) async fn start(spec: EngineSpec, t0: Mono, lanes: &LaneSet) -> Self {
        let worker = Self::new(spec, t0).await;
        assert!(mono() < t0, "the machine is too slow for this test");
        worker.lease(u64::MAX / MS);
        worker.engine().start(&shard(lanes, 0), t0);
        worker
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// Until so many ms of run time.
    fn lease(&self, ms: u64) {
        self.engine().set_lease(Mono(self.t0.0.saturating_add(ms.saturating_mul(MS))));
    }

    pub(super) fn assign(&self, lanes: &LaneSet, from: u64) {
        self.engine().assign(&shard(lanes, from));
    }

    /// Waits for so many ms of run time.
    pub(super) async fn until(&self, ms: u64) {
        tokio::time::sleep(self.t0.after(Duration::from_millis(ms)).since(mono())).await;
    }

    /// The counters at the end, and the frames.
    pub(super) async fn end(mut self) -> (PhaseOdometer, Vec<FrameBody>) {
        let frames = tokio::time::timeout(Duration::from_secs(20), &mut self.frames).await.unwrap().unwrap();
        let engine = self.engine.take();
        tokio::task::spawn_blocking(move || drop(engine)).await.unwrap();
        let odometer = *frames.last().unwrap().odometers.phase(Phase::Main);
        assert_eq!(odometer.due, odometer.iterations + odometer.dropped.iter().sum::<u64>(), "{odometer:?}");
        (odometer, frames)
    }
}

pub(super) fn soon() -> Mono {
    mono().after(Duration::from_millis(1_500))
}

fn union(a: &LaneSet, b: &LaneSet) -> LaneSet {
    let mut union = a.clone();
    union.extend(b);
    union
}

#[tokio::test]
async fn arrivals_start_once_wherever_their_lanes_are() {
    let target = target(Duration::from_millis(5));
    let t0 = soon();
    let [thirds, halves] = [deal(&[1, 1, 1]), deal(&[1, 1])];
    let spec = |name| numbered(&target, name, &open(300, 1_000), 3.0, 900);
    let a = Worker::start(spec("a"), t0, &halves[0]).await;
    let b = Worker::start(spec("b"), t0, &halves[1]).await;
    let all = LaneSet::full();
    let moves = [
        (300, 500, union(&thirds[0], &thirds[1]), thirds[2].clone()),
        (600, 900, LaneSet::empty(), all.clone()),
        // two at once, and the second instead of a third
        (1_200, 1_400, halves[1].clone(), halves[0].clone()),
        (1_200, 1_800, all.clone(), LaneSet::empty()),
        (1_210, 1_700, thirds[1].clone(), union(&thirds[0], &thirds[2])),
        (2_300, 2_400, halves[0].clone(), halves[1].clone()),
    ];
    for (said, from, to_a, to_b) in moves {
        a.until(said).await;
        a.assign(&to_a, from);
        b.assign(&to_b, from);
    }
    let (a, b) = (a.end().await.0, b.end().await.0);
    assert_eq!(a.due + b.due, 900, "{a:?} {b:?}");
    let mut numbers: Vec<usize> = target.seen("/").iter().map(number).collect();
    assert_eq!(numbers.len() as u64, a.iterations + b.iterations);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len() as u64, a.iterations + b.iterations, "none twice");
    // nobody was away: what did not start was late on a busy machine
    assert_eq!(a.dropped[2] + b.dropped[2], 0);
    assert!(numbers.len() > 600, "{a:?} {b:?}");
}

#[tokio::test]
async fn users_move_as_new_users_and_others_stay_undisturbed() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let halves = deal(&[1, 1]);
    let spec = |name| numbered(&target, name, &closed(40), 2.6, 40);
    let a = Worker::start(spec("a"), t0, &halves[0]).await;
    let b = Worker::start(spec("b"), t0, &halves[1]).await;
    a.until(500).await;
    let from = t0.after(Duration::from_millis(800));
    a.assign(&LaneSet::empty(), 800);
    b.assign(&LaneSet::full(), 800);
    b.until(2_300).await;
    let living = target.open.load(Ordering::SeqCst);
    let (a, b) = (a.end().await.0, b.end().await.0);
    assert_eq!(a.dropped.iter().chain(&b.dropped).sum::<u64>(), 0);
    assert_eq!(living, 40, "as many sessions as users");
    let logins = |name: &str| target.seen(&format!("/{name}/login"));
    assert_eq!((logins("a").len(), logins("b").len()), (20, 40));
    // those that stay log in once, at the start; those that came are spread over a second
    let came: Vec<Seen> = logins("b").into_iter().filter(|seen| seen.began >= from).collect();
    assert_eq!(came.len(), 20);
    let fifth = |n: u64| {
        let of = from.after(Duration::from_millis(200 * n))..from.after(Duration::from_millis(200 * (n + 1)));
        came.iter().filter(|seen| of.contains(&seen.began)).count()
    };
    assert_eq!(fifth(0), 0, "until then users of the old side may end");
    assert!((1..5).all(|n| (2..=8).contains(&fifth(n))), "{:?}", [1, 2, 3, 4].map(fifth));
    // the old side starts nothing from then on but its farewells
    assert!(target.seen("/a/work").iter().all(|seen| seen.began < from.after(Duration::from_millis(100))));
    assert_eq!(target.seen("/a/logout").len(), 20);
    let moved = target.seen("/a/logout")[0].began;
    assert!(moved >= from && moved < from.after(Duration::from_millis(500)));
    for number in 0..40 {
        let work = target.seen("/").into_iter().filter(|seen| seen.path.ends_with(&format!("work?{number}")));
        assert!(work.count() > 10, "user {number} goes on");
    }
}

#[tokio::test]
async fn no_user_number_lives_twice_at_once() {
    let target = target(Duration::from_millis(300));
    let t0 = soon();
    let worker = Worker::start(numbered(&target, "a", &closed(12), 2.5, 12), t0, &LaneSet::full()).await;
    for from in [400, 450, 700, 720, 1_300] {
        worker.until(from - 30).await;
        worker.assign(&LaneSet::empty(), from);
        worker.assign(&LaneSet::full(), from + 10);
    }
    worker.end().await;
    for user in 0..12 {
        let mut open: Vec<Seen> = target.seen("/a").into_iter().filter(|seen| number(seen) == user).collect();
        open.sort_by_key(|seen| seen.began);
        // the answer is on its way a moment after it was logged
        assert!(open.windows(2).all(|two| two[1].began >= two[0].ended), "{open:?}");
        assert!(open.iter().filter(|seen| seen.path.contains("login")).count() >= 2, "{open:?}");
    }
}

#[tokio::test]
async fn a_lease_that_comes_back_finds_its_work() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let arrivals = Worker::new(numbered(&target, "open", &open(200, 100), 2.0, 400), t0).await;
    let users = Worker::new(numbered(&target, "users", &closed(6), 2.0, 6), t0).await;
    for worker in [&arrivals, &users] {
        worker.lease(500);
        worker.engine().start(&shard(&LaneSet::full(), 0), t0);
    }
    users.until(1_000).await;
    assert!(target.open.load(Ordering::SeqCst) > 6, "they wait");
    users.until(1_200).await;
    arrivals.lease(60_000);
    users.lease(60_000);
    let (open, frames) = arrivals.end().await;
    assert_eq!(open.due, 400);
    // due without a lease: between 0.5 s and 1.2 s
    assert!((138..=160).contains(&open.dropped[2]), "{open:?}");
    assert_eq!(
        frames.iter().map(|f| f.counts.rows.values().map(|r| r.dropped[2]).sum::<u64>()).sum::<u64>(),
        open.dropped[2]
    );
    let (users, _) = users.end().await;
    assert_eq!((users.due, users.iterations), (users.iterations, users.requests_started));
    let login = target.seen("/users/login");
    assert_eq!(login.len(), 6, "the same users go on");
    let [lapse, back] = [500, 1_200].map(|ms| t0.after(Duration::from_millis(ms)));
    for seen in target.seen("/") {
        // what started in time may arrive a moment later
        assert!(seen.began < lapse.after(Duration::from_millis(100)) || seen.began >= back, "{seen:?}");
    }
    assert!(target.seen("/users/work").iter().filter(|seen| seen.began >= back).count() > 60);
    assert_eq!(target.seen("/users/logout").len(), 6);
}

#[tokio::test]
async fn a_tenure_that_ended_without_a_lease_is_counted_to_its_end() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let worker = Worker::new(numbered(&target, "a", &open(200, 100), 2.0, 400), t0).await;
    worker.lease(500);
    worker.engine().start(&shard(&LaneSet::full(), 0), t0);
    worker.until(1_200).await;
    assert!(worker.engine().odometers().phase(Phase::Main).due <= 101);
    // given away at 0.8 s, and given back at 1.4 s
    worker.assign(&LaneSet::empty(), 800);
    worker.lease(60_000);
    worker.until(1_300).await;
    assert_eq!(worker.engine().odometers().phase(Phase::Main).due, 160);
    worker.assign(&LaneSet::full(), 1_400);
    let (odometer, _) = worker.end().await;
    assert_eq!(odometer.due, 160 + 120);
    assert!((58..=80).contains(&odometer.dropped[2]), "{odometer:?}");
    assert_eq!(target.seen("/a").len() as u64, odometer.iterations);
}

#[tokio::test]
async fn what_is_open_of_a_share_that_went_away_takes_no_slot_of_the_next_one() {
    let target = target(Duration::from_secs(3));
    let t0 = soon();
    // as a master deals it: without lanes there is no share of the cap
    let cap = |lanes: &LaneSet| if lanes.is_empty() { 0 } else { 20 };
    let capped = |lanes: &LaneSet, from| Shard { max_in_flight: vec![cap(lanes)], ..shard(lanes, from) };
    let worker = Worker::new(numbered(&target, "a", &open(100, 20), 2.0, 200), t0).await;
    worker.lease(500);
    worker.engine().start(&capped(&LaneSet::full(), 0), t0);
    worker.until(600).await;
    worker.engine().assign(&capped(&LaneSet::empty(), 550));
    worker.lease(60_000);
    worker.engine().assign(&capped(&LaneSet::full(), 800));
    worker.until(1_200).await;
    // what is moved beforehand keeps its slots
    worker.engine().assign(&capped(&LaneSet::empty(), 1_300));
    worker.engine().assign(&capped(&LaneSet::full(), 1_310));
    let (odometer, _) = worker.end().await;
    assert_eq!(odometer.iterations, 20 + 20, "{odometer:?}");
}

#[tokio::test]
async fn the_end_waits_for_word_of_the_lease() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let spec = |name| numbered(&target, name, &open(100, 100), 1.0, 100);
    let [leased, gone, stopped] = [spec("leased"), spec("gone"), spec("stopped")];
    let leased = Worker::new(leased, t0).await;
    let gone = Worker::new(gone, t0).await;
    let stopped = Worker::new(stopped, t0).await;
    for worker in [&leased, &gone, &stopped] {
        worker.lease(300);
        worker.engine().start(&shard(&LaneSet::full(), 0), t0);
    }
    leased.until(1_600).await;
    assert!([&leased, &gone, &stopped].iter().all(|worker| !worker.frames.is_finished()));
    leased.lease(60_000);
    gone.assign(&LaneSet::empty(), 700);
    stopped.engine().stop();
    assert_eq!(leased.end().await.0.due, 100);
    assert_eq!(gone.end().await.0.due, 70);
    assert_eq!(stopped.end().await.0.due, 100);
}

#[tokio::test]
async fn a_worker_may_join_late() {
    let target = target(Duration::from_millis(2));
    let t0 = Mono(mono().0 - 3_200 * MS);
    let worker = Worker::new(numbered(&target, "a", &open(100, 100), 6.0, 600), t0).await;
    worker.lease(60_000);
    let users = Worker::new(numbered(&target, "users", &closed(10), 6.0, 10), t0).await;
    users.lease(60_000);
    // preparing took its time
    let from = mono().since(t0).as_millis() as u64 + 300;
    for worker in [&worker, &users] {
        worker.engine().start(&shard(&deal(&[1, 1])[1], from), t0);
    }
    let late = from + 500;
    worker.until(late + 200).await;
    worker.assign(&LaneSet::full(), late);
    let (odometer, frames) = worker.end().await;
    let due = |from: u64, to: u64| (0..600).filter(|i| (from..to).contains(&(i * 10))).count() as u64;
    let half = (0..600).filter(|i| (from..late).contains(&(i * 10)) && i % 2 == 1).count() as u64;
    assert_eq!(odometer.due, half + due(late, 6_000), "{odometer:?}");
    assert_eq!(odometer.dropped.iter().sum::<u64>(), 0, "late by less than a second: {odometer:?}");
    assert_eq!(u64::from(frames[0].from_second), (from - 300) / 1_000);
    assert!(frames.windows(2).all(|two| two[0].to_second == two[1].from_second));
    assert!(frames.last().unwrap().generator.start_skew.unwrap() < 500 * MS);
    users.end().await;
    let logins = target.seen("/users/login");
    assert_eq!(logins.len(), 5);
    let spread = logins[4].began.since(logins[0].began);
    assert!(spread >= Duration::from_millis(500), "{spread:?}");
}

#[tokio::test]
async fn who_lost_its_work_hangs_up() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let arrivals = Worker::new(numbered(&target, "open", &open(100, 100), 2.0, 200), t0).await;
    let mut spec = numbered(&target, "users", &closed(6), 2.0, 6);
    // three in the pause after an iteration, all of the time
    Arc::get_mut(&mut spec.plan).unwrap().scenarios[0].wait_time = Some((0.3, 3.0));
    let users = Worker::new(spec, t0).await;
    for worker in [&arrivals, &users] {
        worker.lease(500);
        worker.engine().start(&shard(&LaneSet::full(), 0), t0);
    }
    users.until(600).await;
    assert!(target.open.load(Ordering::SeqCst) > 6);
    users.engine().lease_lost();
    arrivals.engine().lease_lost();
    users.until(900).await;
    assert_eq!(target.open.load(Ordering::SeqCst), 0);
    users.lease(60_000);
    arrivals.lease(60_000);
    users.end().await;
    let (odometer, _) = arrivals.end().await;
    assert_eq!(odometer.due, 200);
    assert!(odometer.dropped[2] < 60, "{odometer:?}");
    assert_eq!(target.seen("/users/login").len(), 6);
}

#[tokio::test]
async fn iterations_are_done_once_each_through_moves() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let mut spec = numbered(&target, "a", &closed(8), 60.0, 8);
    Arc::get_mut(&mut spec.plan).unwrap().iterations = Some(300);
    let worker = Worker::start(spec, t0, &LaneSet::full()).await;
    worker.engine().grant(Pool::Iterations, 0..300, true);
    for (from, lanes) in [(100, deal(&[1, 1])[0].clone()), (300, LaneSet::empty()), (500, LaneSet::full())] {
        worker.until(from - 50).await;
        worker.assign(&lanes, from);
    }
    let (odometer, _) = worker.end().await;
    assert_eq!(odometer.iterations, 300);
    assert_eq!(target.seen("/a/work").len(), 300);
}
