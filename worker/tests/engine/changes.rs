//! The load changes in mid-run: set users, set rate, pause, resume.

use super::moves::{Worker, numbered, soon, target};
use super::*;
use ld_shared::lanes::deal;
use ld_shared::load::{Program, What};

fn program(changes: &[(u64, What)]) -> Program {
    let mut program = Program::default();
    for (ms, what) in changes {
        program.push(RunTime(ms * 1_000_000), *what);
    }
    program
}

#[tokio::test]
async fn rates_change_and_pauses_come_in_between() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let halves = deal(&[1, 1]);
    let spec = |name| numbered(&target, name, &open(100, 1_000), 3.0, 1_000);
    let a = Worker::start(spec("a"), t0, &halves[0]).await;
    let b = Worker::start(spec("b"), t0, &halves[1]).await;
    let rate = |rate| What::SetRate { scenario: 0, rate };
    let mut changes = vec![(500, rate(300.0)), (1_000, What::Pause), (1_500, rate(200.0))];
    for said in [200, 300] {
        a.until(said).await;
        a.engine().change(&program(&changes));
        b.engine().change(&program(&changes));
    }
    a.until(1_300).await;
    // moves go on in the pause
    a.assign(&halves[1], 1_400);
    b.assign(&halves[0], 1_400);
    changes.push((2_000, What::Resume));
    a.engine().change(&program(&changes));
    b.engine().change(&program(&changes));
    let (a, b) = (a.end().await.0, b.end().await.0);
    assert_eq!(a.due + b.due, 50 + 150 + 200, "{a:?} {b:?}");
    let at = |ms| t0.after(Duration::from_millis(ms));
    let seen = target.seen("/");
    let in_pause = seen.iter().filter(|seen| seen.began >= at(1_100) && seen.began < at(2_000)).count();
    assert_eq!(in_pause, 0);
    let mut numbers: Vec<usize> = seen.iter().map(moves::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), seen.len(), "none twice");
    assert_eq!(numbers.len() as u64, a.iterations + b.iterations);
    assert!(*numbers.last().unwrap() < 400);
}

#[tokio::test]
async fn users_come_and_go_and_keep_their_state_in_a_pause() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let worker = Worker::start(numbered(&target, "a", &closed(6), 2.6, 20), t0, &LaneSet::full()).await;
    let users = |users| What::SetUsers { scenario: 0, users };
    let changes = [(600, users(15)), (1_000, What::Pause), (1_600, What::Resume), (2_000, users(4))];
    for n in 1..=4 {
        worker.until(changes[n - 1].0 - 200).await;
        worker.engine().change(&program(&changes[..n]));
    }
    worker.until(2_400).await;
    let left = target.open.load(Ordering::SeqCst);
    let (odometer, _) = worker.end().await;
    assert_eq!((odometer.due, left), (odometer.iterations, 4));
    let at = |ms| t0.after(Duration::from_millis(ms));
    let logins = target.seen("/a/login");
    assert_eq!(logins.len(), 15, "nobody twice");
    assert_eq!(logins.iter().filter(|seen| seen.began >= at(600)).count(), 9);
    let work = |from, to| target.seen("/a/work").iter().filter(|s| s.began >= at(from) && s.began < at(to)).count();
    assert_eq!(work(1_100, 1_600), 0);
    assert!(work(1_600, 2_000) > 60 && work(600, 1_000) > 60);
    let gone = target.seen("/a/logout");
    assert_eq!(gone.iter().filter(|seen| seen.began < at(2_400)).count(), 11);
    assert!(gone.iter().all(|seen| seen.began >= at(2_000)), "not in the pause");
}

#[tokio::test]
async fn a_load_of_nothing_waits_for_more() {
    let target = target(Duration::from_millis(2));
    let t0 = soon();
    let mut spec = numbered(&target, "a", &closed(3), 60.0, 3);
    Arc::get_mut(&mut spec.plan).unwrap().iterations = Some(100);
    let worker = Worker::start(spec, t0, &LaneSet::full()).await;
    worker.engine().grant(Pool::Iterations, 0..100, true);
    let users = |users| What::SetUsers { scenario: 0, users };
    worker.engine().change(&program(&[(200, users(0)), (700, users(5))]));
    let (odometer, _) = worker.end().await;
    assert_eq!(odometer.iterations, 100);
}
