//! Random events: no wait without a deadline, no lane with two owners, counts that balance.

use super::*;
use crate::cluster::assign::tests::{closed, open, plan};
use ld_shared::frame::{FrameBody, FrameKey, Odometers};
use ld_shared::load::Arrivals;
use ld_shared::message::{Beat, Hello, PROTOCOL_VERSION};
use ld_shared::sample::{Phase, SeriesKey};
use ld_shared::time::SECOND;
use proptest::prelude::*;

const WORKERS: u64 = 3;

struct World {
    now: Mono,
    registry: Registry,
    coordinator: Coordinator,
    effects: Vec<Effect>,
    /// Frames sent, requests started, by session.
    sent: BTreeMap<SessionId, (u64, u64)>,
}

impl World {
    fn new(open_model: bool) -> Self {
        let load = if open_model { open(50.0, Arrivals::Constant, 100) } else { closed(30.0) };
        let plan = Arc::new(plan(vec![load]));
        let spec = Spec {
            run: RunId("r".into()),
            digest: Digest::of(b"plan"),
            plan,
            blobs: vec![Digest::of(b"plan")],
            expected: WORKERS as usize,
            wait: Duration::from_secs(5),
            allow_missing: false,
            local: false,
        };
        let now = Mono(1_000 * SECOND);
        let coordinator = Coordinator::new(now, spec);
        Self { now, registry: Registry::default(), coordinator, effects: Vec::new(), sent: BTreeMap::new() }
    }

    fn tell(&mut self, event: Event) {
        self.coordinator.on(self.now, event, &self.registry, &mut self.effects);
    }

    fn say(&mut self, session: u64, message: ToMaster) {
        self.tell(Event::Message(SessionId(session), message));
    }

    fn join(&mut self) {
        let hello = Hello { protocol: PROTOCOL_VERSION, build: "t".into(), name: "w".into(), cores: 1 };
        let (session, _) = self.registry.join(self.now, &hello).unwrap();
        self.sent.insert(session, (0, 0));
        self.tell(Event::Joined);
    }

    fn run(&self) -> RunId {
        self.coordinator.run().clone()
    }

    fn ready_and_armed(&mut self) {
        for session in 1..=WORKERS {
            let run = self.run();
            self.say(session, ToMaster::Ready { run, cores: 1, capacity: 10_000 });
        }
        for session in 1..=WORKERS {
            let run = self.run();
            self.say(session, ToMaster::Armed { run, attempt: 1 });
        }
    }

    fn odometers(started: u64, ended: u64) -> Odometers {
        let mut odometers = Odometers::default();
        odometers.phases[0].due = started;
        odometers.phases[0].iterations = started;
        odometers.phases[0].requests_started = started;
        odometers.phases[0].requests_ended = ended;
        odometers
    }

    fn frame(&mut self, session: u64, requests: u64, last: bool) {
        let id = SessionId(session);
        let Some((seq, started)) = self.sent.get_mut(&id) else { return };
        *seq += 1;
        *started += requests;
        let key = FrameKey { run: RunId("r".into()), session: id, seq: *seq };
        let second = *seq as u32 - 1;
        let mut body = FrameBody { from_second: second, to_second: second + 1, last, ..FrameBody::default() };
        let series = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
        body.counts.phase_mut(Phase::Main).series_mut(&series).succeeded.record_n(5, requests);
        body.counts.rows.entry(second).or_default().succeeded = requests;
        body.odometers = Self::odometers(*started, *started);
        let sealed_at = RunTime(u64::from(second + 1) * SECOND);
        self.say(session, ToMaster::Frame { frame: Box::new(Frame { key, body }), sealed_at });
    }

    fn beat(&mut self, session: u64, more: u64) {
        let Some((_, started)) = self.sent.get(&SessionId(session)) else { return };
        let at = self.coordinator.run_now(self.now);
        let odometers = Self::odometers(started + more, *started);
        let run =
            RunBeat { run: self.run(), at, odometers, users: 10, cpu_permille: 0, lag_us: 0, throttles: Vec::new() };
        self.say(session, ToMaster::Beat(Beat { number: 1, sent_at: Mono(0), clock: None, run: Some(run) }));
    }

    fn lose(&mut self, session: u64) {
        let session = SessionId(session);
        if self.registry.member(session).is_some() {
            self.tell(Event::Lost { session, until: self.now, how: "reset".into() });
            self.registry.leave(session);
        }
    }

    fn check(&self) {
        assert!(self.coordinator.is_closed() == self.coordinator.deadline().is_none());
        let mut union = LaneSet::empty();
        for session in 1..=WORKERS {
            if let Some(lanes) = self.coordinator.lanes_of(SessionId(session)) {
                assert!(union.is_disjoint(lanes));
                union.extend(lanes);
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_a_run_ends_in_time_and_balances(
        open_model: bool,
        orderly in 0usize..4,
        events in prop::collection::vec((0u8..9, 1u64..=WORKERS, 0u64..50, 0u64..1_500), 0..120),
    ) {
        let mut world = World::new(open_model);
        let begin = world.now;
        for _ in 0..if orderly == 0 { 1 } else { WORKERS } {
            world.join();
        }
        if orderly > 1 {
            world.ready_and_armed();
        }
        for (event, session, n, wait) in events {
            match event {
                0 => world.frame(session, n, false),
                1 => world.frame(session, n, true),
                2 => world.beat(session, n),
                3 if n < 5 => world.lose(session),
                4 if n < 2 => world.tell(Event::Stop),
                5 if n < 2 => world.tell(Event::Abort),
                6 if n < 2 => world.say(session, ToMaster::Goodbye { text: "bye".into() }),
                _ => {
                    world.now = world.now.after(Duration::from_millis(wait));
                    world.tell(Event::Tick);
                }
            }
            world.check();
        }
        // nobody says anything any more: deadlines alone must end it
        while let Some(deadline) = world.coordinator.deadline() {
            world.now = world.now.max(deadline);
            world.tell(Event::Tick);
            world.check();
            prop_assert!(world.now.since(begin) < Duration::from_secs(400));
        }
        prop_assert_eq!(world.effects.iter().filter(|e| **e == Effect::Closed).count(), 1);
        let wall = chrono::DateTime::UNIX_EPOCH;
        if let Ok(measured) = world.coordinator.measured(wall) {
            let main = measured.total.phase(Phase::Main);
            let odometer = measured.odometers.phase(Phase::Main);
            let ended = main.succeeded() + main.failed() + odometer.requests_in_flight;
            prop_assert_eq!(odometer.requests_started, ended + measured.lost);
            prop_assert_eq!(odometer.due, odometer.iterations + odometer.dropped.iter().sum::<u64>());
            let rows: u64 = measured.timeline.values().map(|row| row.row.succeeded).sum();
            prop_assert_eq!(rows, main.succeeded());
        }
    }
}

#[test]
fn late_confirmations_move_the_start_for_everybody() {
    let mut world = World::new(false);
    (0..WORKERS).for_each(|_| world.join());
    for session in 1..=WORKERS {
        let run = world.run();
        world.say(session, ToMaster::Ready { run, cores: 1, capacity: 100 });
    }
    let run = world.run();
    world.say(1, ToMaster::Armed { run, attempt: 1 });
    for _ in 0..ARM_ATTEMPTS {
        world.now = world.coordinator.deadline().unwrap();
        world.tell(Event::Tick);
    }
    let attempts: Vec<u32> = world
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(SessionId(1), ToWorker::Arm { attempt, .. }) => Some(*attempt),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [1, 2, 3]);
    let error = world.coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap_err();
    assert_eq!(error.to_string(), "start instant not confirmed in 3 attempts by w, w#2, w#3");
}
