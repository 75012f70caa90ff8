//! Random events: no wait without a deadline, no lane with two owners, counts that balance.

use super::beginning::ARM_ATTEMPTS;
use super::*;
use crate::cluster::assign::tests::{closed, open, plan};
use ld_shared::frame::{FrameBody, FrameKey, Odometers};
use ld_shared::id::Digest;
use ld_shared::load::{Arrivals, What};
use ld_shared::message::RunBeat;
use ld_shared::message::{Beat, Hello, PROTOCOL_VERSION};
use ld_shared::sample::{Phase, SeriesKey};
use ld_shared::threshold::Threshold;
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
        Self::with_rules(open_model, Vec::new())
    }

    fn with_rules(open_model: bool, thresholds: Vec<Threshold>) -> Self {
        let load = if open_model { open(50.0, Arrivals::Constant, 100) } else { closed(30.0) };
        Self::of(plan(vec![load]), thresholds)
    }

    fn of(plan: Plan, thresholds: Vec<Threshold>) -> Self {
        let plan = Arc::new(plan);
        let spec = Spec {
            run: RunId("r".into()),
            digest: Digest::of(b"plan"),
            plan,
            blobs: vec![Digest::of(b"plan")],
            expected: WORKERS as usize,
            wait: Duration::from_secs(5),
            allow_missing: false,
            thresholds,
            local: false,
            one_worker: false,
        };
        let now = Mono(1_000 * SECOND);
        let coordinator = Coordinator::new(now, spec);
        Self { now, registry: Registry::default(), coordinator, effects: Vec::new(), sent: BTreeMap::new() }
    }

    fn tell(&mut self, event: Event) {
        self.coordinator.on(self.now, event, &self.registry, &mut self.effects);
    }

    fn say(&mut self, session: u64, message: ToMaster) {
        self.turn(Event::Message(SessionId(session), message));
    }

    /// What follows from what workers say or what becomes of them follows when the loop turns.
    fn turn(&mut self, event: Event) {
        self.tell(event);
        self.tell(Event::Tick);
    }

    fn join(&mut self) {
        let hello =
            Hello { protocol: PROTOCOL_VERSION, build: "t".into(), name: "w".into(), cores: 1, returning: None };
        let (session, _) = self.registry.join(self.now, &hello).unwrap();
        self.sent.insert(session, (0, 0));
        self.turn(Event::Joined);
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
        self.frame_of(session, (requests, 5), last);
    }

    /// A frame with so many requests of so many µs.
    fn frame_of(&mut self, session: u64, (requests, micros): (u64, u64), last: bool) {
        let id = SessionId(session);
        let Some((seq, started)) = self.sent.get_mut(&id) else { return };
        *seq += 1;
        *started += requests;
        let key = FrameKey { run: RunId("r".into()), session: id, seq: *seq };
        let second = *seq as u32 - 1;
        let mut body = FrameBody { from_second: second, to_second: second + 1, last, ..FrameBody::default() };
        let series = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
        body.counts.phase_mut(Phase::Main).series_mut(&series).succeeded.record_n(micros, requests);
        let row = body.counts.rows.entry(second).or_default();
        (row.requests_started, row.succeeded) = (requests, requests);
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

    fn lose(&mut self, session: u64, silent: bool) {
        let session = SessionId(session);
        if self.registry.member(session).is_some() {
            self.turn(Event::Lost { session, until: self.now, silent, how: "reset".into() });
            self.registry.lose(session);
        }
    }

    fn come_back(&mut self, session: u64) {
        let session = SessionId(session);
        let hello =
            Hello { protocol: PROTOCOL_VERSION, build: "t".into(), name: "w".into(), cores: 1, returning: None };
        if self.coordinator.may_return(session) {
            self.registry.rejoin(self.now, session, &hello);
            self.turn(Event::Returned(session));
        }
    }

    /// Its process is dead, and had started so many more by some ms ago.
    fn inherit(&mut self, session: u64, (more, ms): (u64, u64)) {
        let id = SessionId(session);
        let Some((_, started)) = self.sent.get(&id).filter(|_| self.coordinator.may_return(id)) else { return };
        let at = RunTime(self.coordinator.run_now(self.now).0.saturating_sub(ms * 1_000_000));
        let odometers = Self::odometers(started + more, started + more);
        let word =
            RunBeat { run: self.run(), at, odometers, users: 10, cpu_permille: 0, lag_us: 0, throttles: Vec::new() };
        self.turn(Event::LastWord(id, Some(word)));
    }

    fn confirm(&mut self, session: u64) {
        let epoch = self.coordinator.epoch;
        let run = self.run();
        self.say(session, ToMaster::Assigned { run, epoch });
    }

    fn get_ready(&mut self, session: u64) {
        self.get_ready_for(session, 10_000);
    }

    fn get_ready_for(&mut self, session: u64, capacity: u64) {
        let run = self.run();
        self.say(session, ToMaster::Ready { run, cores: 1, capacity });
    }

    /// A run of workers that can open so many connections begins.
    fn begin(&mut self, capacities: [u64; WORKERS as usize]) {
        (0..WORKERS).for_each(|_| self.join());
        for (session, capacity) in (1..).zip(capacities) {
            self.get_ready_for(session, capacity);
        }
        for session in 1..=WORKERS {
            let run = self.run();
            self.say(session, ToMaster::Armed { run, attempt: 1 });
        }
    }

    /// Users that a worker has by its newest assignment.
    fn users(&self, session: u64) -> u64 {
        let tenures = &self.coordinator.participants[&SessionId(session)].tenures;
        crate::cluster::assign::fixed_need(&self.coordinator.load, &tenures.part().lanes)
    }

    /// Time goes by, and everybody confirms what it hears.
    fn go_on(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = self.now.after(Duration::from_millis(100));
            self.tell(Event::Tick);
            let living: Vec<u64> = self.coordinator.participants.keys().map(|session| session.0).collect();
            for session in living {
                self.confirm(session);
            }
            self.check();
        }
    }

    fn check(&self) {
        assert!(self.coordinator.is_closed() == self.coordinator.deadline().is_none());
        let mut union = LaneSet::empty();
        for session in self.sent.keys() {
            if let Some(lanes) = self.coordinator.lanes_of(*session) {
                assert!(union.is_disjoint(lanes));
                union.extend(lanes);
            }
        }
        let State::Running { .. } = self.coordinator.state else { return };
        // and in the end every lane has one, or is known to have none
        if self.coordinator.nobody_works(self.now) || self.coordinator.handover.is_some() {
            return;
        }
        union.extend(&self.coordinator.unowned.lanes);
        let finished = self.coordinator.participants.values().filter(|p| p.stage == Stage::Finished);
        finished.for_each(|p| union.extend(&p.tenures.part().lanes));
        assert_eq!(union, LaneSet::full());
    }

    /// At no instant has a lane two owners.
    fn check_history(&self) {
        let mut owned = Vec::new();
        for participant in self.coordinator.participants.values() {
            let until = match &participant.stage {
                Stage::Lost { until, .. } => *until,
                _ => RunTime::MAX,
            };
            owned.extend(
                participant.tenures.within(RunTime(0), until).map(|(from, to, lanes)| (from, to, lanes.clone())),
            );
        }
        for (i, (from, to, lanes)) in owned.iter().enumerate() {
            for (other_from, other_to, other) in &owned[i + 1..] {
                assert!(from.max(other_from) >= to.min(other_to) || lanes.is_disjoint(other));
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_a_run_ends_in_time_and_balances(
        open_model: bool,
        ruled: bool,
        orderly in 0usize..4,
        events in prop::collection::vec((0u8..15, 1u64..=WORKERS + 2, 0u64..50, 0u64..1_500), 0..120),
    ) {
        let rule = |text: &str| Threshold::parse(text).unwrap().aborting().unwrap();
        let rules = if ruled { vec![rule("count < 200 over 2s"), rule("failures == 0"), rule("dropped < 9 over 1s")] } else { vec![] };
        let mut world = World::with_rules(open_model, rules);
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
                3 if n < 8 => world.lose(session, n % 2 == 0),
                9 => world.come_back(session),
                10 | 11 => world.confirm(session),
                12 if world.sent.len() < WORKERS as usize + 2 => world.join(),
                13 => world.get_ready(session),
                14 => world.inherit(session, (n, wait)),
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
        world.check_history();
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

/// What a killed worker leaves on its disk, and what is known when it died, make `lost` exact.
#[test]
fn an_heir_tells_what_was_done_and_when_it_ended() {
    let run = |inherits: bool| {
        let mut world = World::new(true);
        (0..WORKERS).for_each(|_| world.join());
        world.ready_and_armed();
        world.now = world.coordinator.t0().unwrap().after(Duration::from_millis(1_500));
        (1..=WORKERS).for_each(|session| world.frame(session, 16, false));
        world.beat(1, 8);
        // it dies soon; the master hears nothing of that
        world.now = world.now.after(Duration::from_millis(3_400));
        world.lose(1, true);
        if inherits {
            world.inherit(1, (24, 3_300));
            world.frame(1, 17, false);
        }
        for session in 2..=WORKERS {
            world.frame(session, 1, true);
        }
        world.tell(Event::Stop);
        while let Some(deadline) = world.coordinator.deadline() {
            world.now = world.now.max(deadline);
            world.tell(Event::Tick);
        }
        let measured = world.coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap();
        let told = measured.events.iter().any(|event| event.what.contains("arrives from its spool"));
        assert_eq!(told, inherits);
        (measured.lost, measured.total.phase(Phase::Main).succeeded())
    };
    let (unknown, counted) = run(false);
    // of a third of 50/s what was due in 3.4 s, and the 8 that it had begun
    assert!((8 + 56..8 + 60).contains(&unknown), "{unknown}");
    let (lost, inherited) = run(true);
    assert_eq!(inherited, counted + 17);
    // 24 - 17 without an end, and what was due within a lease of its last word, 2.5 s and a beat
    assert!((7 + 43..7 + 48).contains(&lost), "{lost}");
}

#[test]
fn a_start_that_everybody_confirmed_stands_whatever_is_heard_next() {
    let armed = |last: Event| {
        let mut world = World::new(false);
        (0..WORKERS).for_each(|_| world.join());
        for session in 1..=WORKERS {
            let run = world.run();
            world.say(session, ToMaster::Ready { run, cores: 1, capacity: 10_000 });
        }
        for session in 1..=WORKERS {
            let run = world.run();
            world.tell(Event::Message(SessionId(session), ToMaster::Armed { run, attempt: 1 }));
        }
        world.tell(last);
        (1..=WORKERS).for_each(|session| world.frame(session, 2, true));
        world
    };
    for ending in [Event::Stop, Event::Abort] {
        let measured = armed(ending).coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(measured.total.phase(Phase::Main).succeeded(), 2 * WORKERS);
        assert_eq!(measured.ending, crate::run::Ending::Stopped);
    }
    let (session, until) = (SessionId(1), Mono(1_000 * SECOND));
    let world = armed(Event::Lost { session, until, silent: false, how: "gone".into() });
    assert!(world.coordinator.events[0].what.starts_with("worker w was lost"), "{:?}", world.coordinator.events);
}

#[test]
fn nobody_gets_more_users_than_it_can_open_and_no_user_is_missing() {
    let mut world = World::new(false);
    world.begin([4, 16, 10_000]);
    let all = |world: &World, of: &[u64]| of.iter().map(|session| world.users(*session)).sum::<u64>();
    let epoch = world.coordinator.epoch;
    assert!((2..=4).contains(&world.users(1)) && all(&world, &[1, 2, 3]) == 30);
    world.go_on(3);
    assert_eq!(world.coordinator.epoch, epoch, "nothing moves without need: {:?}", world.coordinator.events);
    // somebody joins who can open little
    world.join();
    world.get_ready_for(4, 3);
    world.go_on(4);
    assert!((1..=3).contains(&world.users(4)) && world.users(1) <= 4 && all(&world, &[1, 2, 3, 4]) == 30);
    // who could open most is lost: as many as the others can open stay
    world.lose(3, true);
    world.go_on(4);
    assert_eq!([1, 2, 4].map(|session| world.users(session)), [4, 16, 3], "{:?}", world.coordinator.events);
    let said = |world: &World, what: &str| world.coordinator.events.iter().any(|event| event.what.contains(what));
    assert!(said(&world, "no worker has room for 7 of the users"), "{:?}", world.coordinator.events);
    // and all of them are there with somebody else who can open them
    world.join();
    world.get_ready(5);
    world.go_on(4);
    assert_eq!(all(&world, &[1, 2, 4, 5]), 30, "{:?}", world.coordinator.events);
    assert!(said(&world, "there is room for all users again"), "{:?}", world.coordinator.events);
    assert!(world.coordinator.events.len() < 40, "{:?}", world.coordinator.events);
}

#[test]
fn who_has_no_room_for_more_keeps_its_cap_while_others_have() {
    let mut world = World::of(plan(vec![closed(2_400.0), open(50.0, Arrivals::Constant, 300)]), Vec::new());
    world.begin([1_000, 60_000, 60_000]);
    let cap = |world: &World, of: u64| world.coordinator.participants[&SessionId(of)].tenures.part().caps[1];
    assert_eq!((world.users(1), cap(&world, 1)), (800, 100));
    world.lose(3, true);
    world.go_on(4);
    assert!(world.users(1) >= 800 && cap(&world, 1) >= 100, "{} {}", world.users(1), cap(&world, 1));
    assert_eq!((world.users(1) + world.users(2), cap(&world, 1) + cap(&world, 2)), (2_400, 300));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn users_are_wherever_there_is_room(few in prop::collection::vec(1u64..25, 3)) {
        let mut world = World::new(false);
        world.begin([few[0], few[1], 10_000]);
        world.join();
        world.get_ready_for(4, few[2]);
        let mut all = vec![(1, few[0]), (2, few[1]), (4, few[2]), (3, 10_000)];
        for _ in 0..2 {
            world.go_on(6);
            let users: Vec<u64> = all.iter().map(|(session, _)| world.users(*session)).collect();
            prop_assert!(users.iter().zip(&all).all(|(users, (_, capacity))| users <= capacity), "{users:?}");
            let room: u64 = all.iter().map(|(_, capacity)| capacity).sum();
            prop_assert_eq!(users.iter().sum::<u64>(), room.min(30), "{:?} {:?}", users, world.coordinator.events);
            let epoch = world.coordinator.epoch;
            world.go_on(1);
            prop_assert_eq!(world.coordinator.epoch, epoch, "nothing moves any more: {:?}", world.coordinator.events);
            world.lose(3, true);
            all.pop();
        }
    }
}

#[test]
fn who_joins_and_cannot_take_part_is_asked_again_now_and_then_and_named_once() {
    let mut world = running(&[]);
    world.join();
    let asked = |world: &mut World| {
        let asks = |effect: &Effect| matches!(effect, Effect::Send(SessionId(4), ToWorker::Prepare { .. }));
        std::mem::take(&mut world.effects).iter().filter(|effect| asks(effect)).count()
    };
    assert_eq!(asked(&mut world), 1);
    for _ in 0..2 {
        let run = world.run();
        world.say(4, ToMaster::CannotPrepare { run, text: "no room".into() });
        assert_eq!(asked(&mut world), 0, "not at once");
        world.now = world.now.after(super::ASKED_AGAIN_AFTER);
        world.tell(Event::Tick);
        assert_eq!(asked(&mut world), 1);
    }
    let named = world.coordinator.events.iter().filter(|event| event.what.contains("no room")).count();
    assert_eq!(named, 1);
    // who makes load, or has ended, does not become somebody who never did
    let run = world.run();
    world.frame(1, 3, true);
    world.say(1, ToMaster::CannotPrepare { run, text: "no room".into() });
    assert!(world.coordinator.participants.contains_key(&SessionId(1)));
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

/// Half of a cluster may be gone at once: one assignment each, and not one for each of them.
#[test]
fn parts_of_all_that_are_lost_at_once_are_given_away_together() {
    let mut world = running(&[]);
    for session in [1, 2] {
        let lost = Event::Lost { session: SessionId(session), until: world.now, silent: true, how: "cut".into() };
        world.tell(lost);
    }
    assert!(!world.effects.iter().any(|effect| matches!(effect, Effect::Send(..))), "{:?}", world.effects);
    world.tell(Event::Tick);
    let assigned = world.effects.iter().filter_map(|effect| match effect {
        Effect::Send(session, ToWorker::Assign { shard, .. }) => Some((*session, shard.lanes.len())),
        _ => None,
    });
    assert_eq!(assigned.collect::<Vec<_>>(), [(SessionId(3), ld_shared::lanes::LANES)]);
    let events: Vec<&str> = world.coordinator.events().iter().map(|event| &*event.what).collect();
    assert!(events.iter().any(|what| what.contains("the shares of w, w#2 go to w#3 from 0.2 s on")), "{events:?}");
    // who is back before that keeps what it has
    let mut world = running(&[]);
    world.tell(Event::Lost { session: SessionId(1), until: world.now, silent: true, how: "cut".into() });
    world.tell(Event::Returned(SessionId(1)));
    world.tell(Event::Tick);
    assert!(world.coordinator.lanes_of(SessionId(1)).is_some_and(|lanes| lanes.len() > 5_000));
}

/// A slow master is not what makes a run lose what its workers have measured.
#[test]
fn a_run_stays_open_while_frames_come_in_and_not_for_ever() {
    for (frames, closes_after) in [(0, 0.0), (20, 13.0), (1_000, 120.0)] {
        let mut world = running(&[]);
        let until = world.coordinator.deadline().unwrap();
        world.now = Mono(until.0 - 10 * SECOND);
        let mut sent = 0;
        while !world.coordinator.is_closed() {
            if sent < frames {
                sent += 1;
                world.frame(1, 1, false);
            }
            world.turn(Event::Tick);
            world.now = world.now.after(Duration::from_secs(1));
        }
        let closed_after = world.now.since(until).as_secs_f64() - 1.0;
        assert!((closed_after - closes_after).abs() <= 1.0, "{frames} frames: {closed_after} s");
        let measured = world.coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(measured.total.phase(Phase::Main).succeeded(), sent);
    }
}

fn running(rules: &[&str]) -> World {
    let rule = |text: &&str| Threshold::parse(text).unwrap().aborting().unwrap();
    let mut world = World::with_rules(false, rules.iter().map(rule).collect());
    (0..WORKERS).for_each(|_| world.join());
    world.ready_and_armed();
    let State::Running { t0 } = world.coordinator.state else { panic!("{:?}", world.coordinator.state) };
    world.now = t0;
    world.effects.clear();
    world
}

/// Every worker's frame of the next second, in which `slow` answers late.
fn second(world: &mut World, slow: Option<u64>) {
    world.now = world.now.after(Duration::from_secs(1));
    for session in 1..=WORKERS {
        world.now = world.now.after(Duration::from_millis(10));
        let micros = if slow == Some(session) { 300_000 } else { 1_000 };
        world.frame_of(session, (10, micros), false);
    }
}

fn stops(world: &World) -> usize {
    world.effects.iter().filter(|effect| matches!(effect, Effect::Send(_, ToWorker::Stop { .. }))).count()
}

#[test]
fn a_breach_stops_every_worker_at_once_and_says_which_rule_and_when() {
    let rules = ["count < 1000000 over 2s", "p95 < 200ms over 2s"];
    let mut world = running(&rules);
    (0..3).for_each(|_| second(&mut world, None));
    assert_eq!(stops(&world), 0);
    // a third of one second of two is slow: more than one in twenty
    second(&mut world, Some(2));
    assert_eq!(stops(&world), WORKERS as usize);
    let at = world.coordinator.stopped_at.unwrap().as_secs();
    assert!((4.0..4.2).contains(&at), "{at}");
    let what = "threshold `p95 < 200ms over 2s` failed over 2–4 s (seen 300 ms): aborted";
    let event = world.coordinator.events.last().unwrap();
    assert_eq!((&*event.what, &*event.by, event.at_s), (what, "threshold", at));
    // it happens once, and the rest of the run is as after any stop
    second(&mut world, Some(2));
    (1..=WORKERS).for_each(|session| world.frame(session, 0, true));
    assert_eq!(stops(&world), WORKERS as usize);
    assert!(world.coordinator.is_closed());
    let measured = world.coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap();
    assert_eq!(measured.ending, crate::run::Ending::Breached);
    let rules = world.coordinator.spec.thresholds.clone();
    let judged = crate::run::thresholds::judge(&rules, &measured);
    assert_eq!((judged[0].ok, judged[0].aborted_at_s), (true, None));
    assert_eq!((judged[1].ok, judged[1].aborted_at_s), (false, Some(at)));
    assert_eq!(judged[1].seen, "300 ms at 2–4 s");
    let verdict = crate::run::verdict::Verdict::of(&measured, judged);
    assert_eq!(verdict.exit_code, crate::run::verdict::exit::FAILED);
    assert!(verdict.reasons[0].starts_with("`p95 < 200ms over 2s` does not hold: 300 ms at 2–4 s; it aborted"));
}

#[test]
fn a_worker_that_is_lost_holds_no_window_up() {
    let mut world = running(&["p95 < 200ms over 2s"]);
    second(&mut world, None);
    // the first worker says nothing more
    for _ in 0..3 {
        world.now = world.now.after(Duration::from_secs(1));
        (2..=WORKERS).for_each(|session| world.frame_of(session, (10, 300_000), false));
    }
    assert_eq!(stops(&world), 0);
    world.lose(1, false);
    assert_eq!(stops(&world), WORKERS as usize - 1);
}

#[test]
fn a_rule_that_does_not_abort_stops_nothing() {
    let mut world = running(&[]);
    world.coordinator.watch = Watch::new(&[Threshold::parse("p95 < 200ms over 2s").unwrap()], RunTime(0));
    (0..4).for_each(|_| second(&mut world, Some(1)));
    assert_eq!(stops(&world), 0);
}

fn lanes(world: &World, session: u64) -> usize {
    world.coordinator.lanes_of(SessionId(session)).map_or(0, LaneSet::len)
}

#[test]
fn a_lost_workers_share_goes_to_the_others_and_back_when_it_returns() {
    let mut world = running(&[]);
    second(&mut world, None);
    world.now = world.now.after(Duration::from_secs(3));
    world.lose(1, true);
    assert_eq!((lanes(&world, 1), lanes(&world, 2) + lanes(&world, 3)), (0, 16_384));
    let assigned = |world: &World, of: u64| {
        let shards = world.effects.iter().filter_map(|effect| match effect {
            Effect::Send(session, ToWorker::Assign { shard, .. }) if session.0 == of => Some((**shard).clone()),
            _ => None,
        });
        shards.collect::<Vec<_>>()
    };
    // soon, but not before they can know
    let taken = assigned(&world, 2).pop().unwrap();
    let from = taken.from.as_secs() - world.coordinator.run_now(world.now).as_secs();
    assert!((0.2..0.31).contains(&from), "{from}");

    world.now = world.now.after(Duration::from_secs(8));
    world.come_back(1);
    // it is told first that it owns nothing any more, from the very instant at which others took over
    let told = assigned(&world, 1).remove(0);
    assert_eq!((told.lanes.len(), told.from), (0, taken.from));
    // the others are asked to give up; until they have confirmed, it gets nothing
    assert_eq!(lanes(&world, 1), 0);
    world.confirm(2);
    assert_eq!(lanes(&world, 1), 0);
    world.confirm(3);
    assert!((5_400..5_500).contains(&lanes(&world, 1)), "{}", lanes(&world, 1));
    let given = assigned(&world, 1).pop().unwrap();
    assert_eq!(given.from, assigned(&world, 2).pop().unwrap().from);
    world.check();
}

#[test]
fn who_joins_in_mid_run_gets_a_share() {
    let mut world = running(&[]);
    second(&mut world, None);
    world.join();
    world.get_ready(4);
    (1..=WORKERS).for_each(|session| world.confirm(session));
    assert_eq!(lanes(&world, 4), 4_096);
    let armed = world.effects.iter().any(|e| matches!(e, Effect::Send(SessionId(4), ToWorker::Arm { .. })));
    assert!(armed);
    // what is shown is of those who have told something
    assert!((world.coordinator.progress(world.now, &world.registry).rate - 30.0).abs() < 1e-9);
    // one that dies before it could begin leaves its share to the others
    world.lose(4, false);
    assert_eq!((1..=WORKERS).map(|session| lanes(&world, session)).sum::<usize>(), 16_384);
}

#[test]
fn who_is_lost_before_it_began_has_lost_no_more_than_its_tenure() {
    let mut world = running(&[]);
    for _ in 0..4 {
        world.now = world.now.after(Duration::from_secs(1));
        (1..=WORKERS).for_each(|session| world.frame_of(session, (1_000, 5), false));
    }
    world.join();
    world.get_ready(4);
    (1..=WORKERS).for_each(|session| world.confirm(session));
    world.now = world.now.after(Duration::from_secs(2));
    world.lose(4, true);
    (1..=WORKERS).for_each(|session| world.frame(session, 0, true));
    world.now = world.now.after(Duration::from_mins(1));
    world.tell(Event::Tick);
    let measured = world.coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap();
    // it may have worked for one second: twice a quarter of three thousand, and its users
    assert!((1..2_200).contains(&measured.lost), "{}", measured.lost);
}

#[test]
fn policies_of_loss() {
    let with = |policy| {
        let mut world = running(&[]);
        let plan = Arc::make_mut(&mut world.coordinator.spec.plan);
        plan.on_worker_loss = policy;
        world.lose(1, true);
        world
    };
    let world = with(ld_shared::plan::WorkerLoss::Degrade);
    assert!((5_400..5_500).contains(&lanes(&world, 2)), "{}", lanes(&world, 2));
    let mut world = with(ld_shared::plan::WorkerLoss::Abort);
    (2..=WORKERS).for_each(|session| world.frame(session, 1, true));
    let ending = world.coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap().ending;
    assert!(matches!(ending, crate::run::Ending::Failed(text) if text.contains("on_worker_loss")));
}

#[test]
fn workers_that_are_all_ended_do_not_complete_a_run() {
    let mut world = running(&[]);
    second(&mut world, None);
    // its test takes longer than that
    let of = world.coordinator.spec.plan.end().as_secs();
    assert!(of > 2.0, "{of}");
    (1..=WORKERS).for_each(|session| world.frame(session, 1, true));
    let measured = world.coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap();
    let crate::run::Ending::Failed(text) = measured.ending else { panic!("{:?}", measured.ending) };
    assert!(text.starts_with("all workers left after 1.") && text.contains(&format!("of {of} s")), "{text}");
    // if somebody asked for it they did what they were told
    let mut world = running(&[]);
    second(&mut world, None);
    world.tell(Event::Stop);
    (1..=WORKERS).for_each(|session| world.frame(session, 1, true));
    let measured = world.coordinator.measured(chrono::DateTime::UNIX_EPOCH).unwrap();
    assert_eq!(measured.ending, crate::run::Ending::Stopped);
}

#[test]
fn load_is_changed_by_everybody_at_one_instant_and_told_to_who_joins_or_returns() {
    let mut world = running(&[]);
    second(&mut world, None);
    let refused = |world: &World, what| world.coordinator.may_change(what).unwrap_err().to_string();
    assert_eq!(refused(&world, What::SetUsers { scenario: 1, users: 5 }), "there is no scenario number 1");
    assert_eq!(refused(&world, What::SetRate { scenario: 0, rate: 5.0 }), "scenario `s0` goes by users: set that");
    assert_eq!(refused(&world, What::Resume), "the test is not paused");
    let many = refused(&world, What::SetUsers { scenario: 0, users: 1_000_000 });
    assert_eq!(many, "that needs 1000000 connections at once, and the workers can open 30000");
    world.effects.clear();
    world.tell(Event::Change(What::SetUsers { scenario: 0, users: 60 }, "ann".into()));
    world.tell(Event::Change(What::Pause, "ann".into()));
    let told = |world: &World, of: u64| {
        let programs = world.effects.iter().filter_map(|effect| match effect {
            Effect::Send(session, ToWorker::Program { program, .. }) if session.0 == of => Some(program.clone()),
            _ => None,
        });
        programs.last()
    };
    let program = told(&world, 1).unwrap();
    assert_eq!((told(&world, 2), told(&world, 3)), (Some(program.clone()), Some(program.clone())));
    let at = program.changes()[0].at.as_secs() - world.coordinator.run_now(world.now).as_secs();
    assert!((0.5..0.6).contains(&at), "{at}");
    let event = &world.coordinator.events[0];
    assert!(event.what.starts_with("users of `s0` set to 60 from 1."), "{}", event.what);
    assert_eq!(event.by, "ann");
    world.join();
    world.get_ready(4);
    (1..=WORKERS).for_each(|session| world.confirm(session));
    assert_eq!(told(&world, 4), Some(program.clone()));
    world.effects.clear();
    world.lose(1, true);
    world.come_back(1);
    assert_eq!(told(&world, 1), Some(program));
}
