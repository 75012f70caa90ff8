use super::*;
use crate::lanes::{LaneSet, deal};
use crate::load::{Agenda, ArrivalId, Arrivals};
use proptest::prelude::*;
use std::sync::Arc;

const END: u32 = 120;

fn at(tenths: u32) -> RunTime {
    RunTime(u64::from(tenths) * 100_000_000)
}

fn profile() -> impl Strategy<Value = Profile> {
    prop::collection::vec((1u32..4, 0u32..300, 0u32..300), 0..4).prop_map(|pieces| {
        let start = Profile::constant(20.0);
        pieces.into_iter().fold(start, |p, (s, a, b)| p.then(f64::from(s), f64::from(a), f64::from(b)))
    })
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        (0u64..300).prop_map(|users| What::SetUsers { scenario: 0, users }),
        (0u32..300).prop_map(|rate| What::SetRate { scenario: 0, rate: f64::from(rate) }),
        Just(What::SetRate { scenario: 1, rate: 7.0 }),
        Just(What::Pause),
        Just(What::Resume),
    ]
}

fn changes() -> impl Strategy<Value = Vec<(u32, What)>> {
    prop::collection::vec((1u32..25, what()), 0..6).prop_map(|steps| {
        let mut now = 0;
        steps
            .into_iter()
            .map(|(later, what)| {
                now += later;
                (now, what)
            })
            .collect()
    })
}

fn program(changes: &[(u32, What)]) -> Program {
    let mut program = Program::default();
    for (t, what) in changes {
        program.push(at(*t), *what);
    }
    program
}

fn open(load: Load) -> Arc<Open> {
    match load {
        Load::Open(load) => Arc::new(load),
        Load::Closed(_) => panic!("it stays what it is"),
    }
}

fn planned(rate: Profile, poisson: bool) -> Load {
    let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Constant };
    Load::Open(Open { rate, arrivals, max_in_flight: 5 })
}

fn until(agenda: &mut Agenda, t: RunTime) -> Vec<(ArrivalId, RunTime)> {
    std::iter::from_fn(|| agenda.peek().filter(|(_, due)| *due < t).and_then(|_| agenda.take())).collect()
}

fn lanes(set: &LaneSet) -> Arc<[u16]> {
    set.iter().collect()
}

proptest! {
    // each case walks thousands of arrivals
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is due before a change is due at the same nanosecond with it and without it, Λ keeps its
    /// value there, and what is due never goes back.
    #[test]
    fn a_change_leaves_what_came_before(rate in profile(), changes in changes()) {
        let planned = planned(rate, false);
        for n in 0..changes.len() {
            let (old, new) = (program(&changes[..n]), program(&changes[..=n]));
            let from = new.differs_from(&old).unwrap();
            prop_assert_eq!(from, at(changes[n].0));
            let (old, new) = (open(old.load(0, &planned)), open(new.load(0, &planned)));
            let due = old.first_at(from);
            prop_assert_eq!(new.first_at(from), due);
            prop_assert_eq!(old.rate.integral(from).to_bits(), new.rate.integral(from).to_bits());
            for i in (0..due).step_by(7).chain((0..due).rev().take(3)) {
                prop_assert_eq!(old.due(i), new.due(i));
            }
            let dues: Vec<RunTime> = (0..due + 200).map_while(|i| new.due(i)).collect();
            prop_assert!(dues.windows(2).all(|two| two[0] <= two[1]));
            prop_assert!(dues.iter().skip(due as usize).all(|d| *d >= from));
        }
    }

    /// Whoever hears of moves and changes at whatever instants before their own: together they start
    /// the list that the whole program makes.
    #[test]
    fn splits_moves_and_changes_make_the_unsplit_list(
        (rate, poisson, changes) in (profile(), any::<bool>(), changes()),
        moves in prop::collection::vec((1u32..30, prop::collection::vec(0u32..4, 3)), 0..4),
        ahead in prop::collection::vec(1u32..20, 40),
    ) {
        let planned = planned(rate, poisson);
        let load = |n: usize| open(program(&changes[..n]).load(0, &planned));
        let new = |load| Agenda::new(load, 3, 5, None, at(END));
        let mut ahead = ahead.into_iter().cycle();
        let mut taken = Vec::new();
        for holder in 0..3 {
            let mut agenda = new(load(0));
            agenda.assign(at(0), &lanes(&deal(&[1, 1, 1])[holder]));
            // (said, what): everybody hears at his own time, in order of each kind
            let mut words: Vec<(u32, bool, usize)> = Vec::new();
            let mut newest = 0;
            let mut hears = |t: u32| { newest = t.saturating_sub(ahead.next().unwrap()).max(newest.min(t - 1)); newest };
            words.extend(changes.iter().enumerate().map(|(n, (t, _))| (hears(*t), false, n)));
            let mut newest = 0;
            let (mut from, mut instants) = (0, Vec::new());
            for (later, _) in &moves {
                from += later;
                instants.push(from);
            }
            let mut hears = |t: u32| { newest = t.saturating_sub(ahead.next().unwrap()).max(newest.min(t - 1)); newest };
            words.extend(instants.iter().enumerate().map(|(n, t)| (hears(*t), true, n)));
            words.sort_unstable_by_key(|(said, is_move, n)| (*said, *is_move, *n));
            for (said, is_move, n) in words {
                taken.extend(until(&mut agenda, at(said)));
                if is_move {
                    agenda.assign(at(instants[n]), &lanes(&deal(&moves[n].1)[holder]));
                } else {
                    agenda.change(at(changes[n].0), load(n + 1), None);
                }
            }
            taken.extend(until(&mut agenda, at(END)));
        }
        let mut whole = new(load(changes.len()));
        whole.assign(at(0), &lanes(&LaneSet::full()));
        let mut whole = until(&mut whole, at(END));
        let key = |arrival: &(ArrivalId, RunTime)| (arrival.1, arrival.0);
        whole.sort_unstable_by_key(key);
        taken.sort_unstable_by_key(key);
        prop_assert_eq!(taken, whole);
    }

    /// As many users live as the program says, and their lives before a change stay.
    #[test]
    fn users_live_as_the_program_says(users in profile(), changes in changes(), t in 0u32..1_200) {
        let closed = |n: usize| match program(&changes[..n]).load(0, &Load::Closed(Closed { users: users.clone() })) {
            Load::Closed(load) => load,
            Load::Open(_) => panic!("it stays what it is"),
        };
        let load = closed(changes.len());
        // off the grid of changes and of crossings of whole numbers
        let t = RunTime(u64::from(t) * 10_000_000 + 1_234_567);
        let living = (0..301).filter(|u| load.lives(*u).iter().any(|l| l.start <= t && t < l.end)).count();
        prop_assert_eq!(living as u64, load.planned(t));
        for (n, (t, _)) in changes.iter().enumerate() {
            let (old, new, from) = (closed(n), closed(n + 1), at(*t));
            for user in (0..301).step_by(11) {
                let before = |load: &Closed| {
                    let lives = load.lives(user).into_iter().filter(|life| life.start < from);
                    lives.map(|life| (life.start, life.end.min(from))).collect::<Vec<_>>()
                };
                prop_assert_eq!(before(&old), before(&new));
            }
        }
    }
}

#[test]
fn a_pause_comes_in_between_and_what_is_set_in_it_comes_after_it() {
    let ramp = Profile::default().then(10.0, 0.0, 100.0);
    let mut program = program(&[(40, What::Pause), (60, What::Resume)]);
    let rate = program.load(0, &planned(ramp.clone(), false));
    let value = |load: &Load, t| load.profile().at(at(t)).round() as u32;
    assert_eq!([30, 40, 59, 60, 70, 130].map(|t| value(&rate, t)), [30, 0, 0, 40, 50, 100]);
    let users = program.load(0, &Load::Closed(Closed { users: ramp.clone() }));
    assert_eq!([30, 40, 59, 60, 70, 130].map(|t| value(&users, t)), [30, 40, 40, 40, 50, 100]);
    assert_eq!(program.pauses(), [(at(40), at(60))]);

    program.push(at(80), What::Pause);
    program.push(at(85), What::SetUsers { scenario: 0, users: 5 });
    assert_eq!(program.pauses()[1], (at(80), RunTime::MAX));
    let users = program.load(0, &Load::Closed(Closed { users: ramp.clone() }));
    assert_eq!([79, 90, 500].map(|t| value(&users, t)), [59, 60, 60]);
    program.push(at(100), What::Resume);
    let users = program.load(0, &Load::Closed(Closed { users: ramp }));
    assert_eq!([99, 100, 500].map(|t| value(&users, t)), [60, 5, 5]);
    assert_eq!(program.differs_from(&program.clone()), None);

    // "would it fit, whenever it were" is asked of the end of time
    program.push(RunTime::MAX, What::Pause);
    program.push(RunTime::MAX, What::Resume);
    let rate = program.load(0, &planned(Profile::default().then(1e9, 0.0, 100.0), false));
    assert!(rate.profile().peak(RunTime::MAX) > 99.0 && open(rate).due(1_000).is_some());
}
