//! What windows say, held against every sample that lies in them.

use super::*;
use ld_shared::frame::{FrameBody, FrameKey, Odometers};
use ld_shared::id::RunId;
use ld_shared::sample::SeriesKey;
use ld_shared::snapshot::Row;
use proptest::prelude::*;

const SECONDS: u32 = 14;

/// One ended request: second, name, µs, failed.
type Ended = (u32, u8, u64, bool);

/// One worker: its requests, where its frames end, and its marked seconds.
#[derive(Clone, Debug)]
struct Worker {
    ended: Vec<Ended>,
    cuts: Vec<u32>,
    marked: Vec<u32>,
}

fn worker() -> impl Strategy<Value = Worker> {
    let ended = (0..SECONDS, 0u8..3, 0u64..300_000, any::<bool>());
    let cuts = prop::collection::btree_set(1..SECONDS, 4..SECONDS as usize - 1);
    let marked = prop::collection::vec(0..SECONDS, 0..2);
    (prop::collection::vec(ended, 0..120), cuts, marked).prop_map(|(ended, cuts, marked)| {
        let cuts = cuts.into_iter().chain([SECONDS]).collect();
        Worker { ended, cuts, marked }
    })
}

fn frames(session: u64, worker: &Worker) -> Vec<Frame> {
    let mut odometers = Odometers::default();
    let mut from = 0;
    let mut frames = Vec::new();
    for (index, to) in worker.cuts.iter().enumerate() {
        let mut body = FrameBody { from_second: from, to_second: *to, ..FrameBody::default() };
        for (_, name, micros, failed) in worker.ended.iter().filter(|(at, ..)| (from..*to).contains(at)) {
            let key = SeriesKey { name: format!("n{name}").into(), request_type: "GET".into(), scenario: "s".into() };
            let main = body.counts.phase_mut(Phase::Main);
            main.service.record(micros / 2);
            let series = main.series_mut(&key);
            let kind = if *failed { &mut series.failed } else { &mut series.succeeded };
            kind.record(*micros);
            odometers.phases[0].requests_started += 1;
        }
        for second in from..*to {
            let bound_cores = u64::from(worker.marked.contains(&second));
            body.counts.rows.insert(second, Row { bound_cores, ..Row::default() });
        }
        body.odometers = odometers;
        let key = FrameKey { run: RunId("r".into()), session: SessionId(session), seq: index as u64 + 1 };
        frames.push(Frame { key, body });
        from = *to;
    }
    frames
}

/// The windows of a rule, from all samples at once.
fn expected(workers: &[Worker], rule: &Threshold, warmup: u32) -> Watched {
    let mut watched = Watched::default();
    let length = rule.over().unwrap();
    let is_cut = |second: u32| second == 0 || workers.iter().all(|worker| worker.cuts.contains(&second));
    for first in warmup..=SECONDS - length {
        let (mut from, mut to) = (first, first + length);
        while !is_cut(from) {
            from -= 1;
        }
        while !is_cut(to) {
            to += 1;
        }
        let mut tally = Tally::default();
        for (_, name, micros, failed) in
            workers.iter().flat_map(|worker| &worker.ended).filter(|(at, ..)| (from..to).contains(at))
        {
            let selected = rule.selector().is_none() || *name == 1;
            let micros = if rule.rule().contains("service") { micros / 2 } else { *micros };
            if selected {
                tally.times.record(micros);
                tally.succeeded += u64::from(!failed);
                tally.failed += u64::from(*failed);
                tally.work.started += 1;
            }
        }
        let observed = rule.judge(&tally, f64::from(to - from.max(warmup)));
        // a mark counts for the whole frame that has it, and so for the cell
        let cell_of = |second: u32| {
            let before = (0..=second).rev().find(|s| is_cut(*s)).unwrap();
            before..(second + 1..10_000).find(|s| is_cut(*s)).unwrap()
        };
        let marked = workers.iter().flat_map(|worker| &worker.marked).any(|second| {
            let cell = cell_of(*second);
            cell.start < to && cell.end > from
        });
        let seen = Seen { from, to, observed };
        if watched.worst.is_none_or(|worst| rule.is_worse(observed, worst.observed)) {
            watched.worst = Some(seen);
        }
        if !marked {
            watched.ok_unmarked = Some(observed.ok && watched.ok_unmarked.unwrap_or(true));
        }
    }
    watched
}

#[test]
fn a_run_that_is_taken_up_is_judged_from_there_on() {
    let rules: Vec<Threshold> = ["p95 < 200ms over 3s", "failure_rate < 10%", "rate > 1 over 2s"]
        .iter()
        .map(|rule| Threshold::parse(rule).unwrap().aborting().unwrap())
        .collect();
    let ended = (0..SECONDS).flat_map(|second| [(second, 1, 1_000, false); 4]).collect();
    let worker = Worker { ended, cuts: (1..=SECONDS).collect(), marked: Vec::new() };
    let frames = frames(1, &worker);
    let before = &frames[7].body;
    let reported = (SessionId(1), before.to_second, *before.odometers.phase(Phase::Main));
    let mut watch = Watch::resume(&rules, RunTime(0), std::iter::once(reported));
    assert_eq!(watch.settled(), 8);
    let end = RunTime(u64::from(SECONDS) * SECOND);
    for frame in &frames[8..] {
        let part = watch.part(frame, RunTime(u64::from(frame.body.to_second) * SECOND)).unwrap();
        watch.add(part);
        assert_eq!(watch.advance(watch.reported(SessionId(1)), end), None, "nothing of it is slow, failed or rare");
    }
    let watched = watch.finish(end);
    let worst = watched[2].worst.unwrap();
    assert!(worst.from >= 8 && worst.observed.ok && worst.observed.value == Some(4.0), "{worst:?}");
}

const RULES: [&str; 8] = [
    "p95 < 200ms over 3s",
    "p50 > 100ms over 1s",
    "max of service < 140ms over 5s",
    "p90 < 250ms for name:n1 over 2s",
    "failure_rate < 40% for name:?1 over 4s",
    "rate > 2/s over 3s",
    "rate > 1/s for name:n1 over 3s",
    "count < 30 over 6s",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn windows_are_merges_of_all_their_samples(
        workers in prop::collection::vec(worker(), 1..4),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        warmup in 0u32..4,
    ) {
        let rules: Vec<Threshold> = RULES.iter().map(|rule| Threshold::parse(rule).unwrap()).collect();
        let mut watch = Watch::new(&rules, RunTime::from_secs(f64::from(warmup)));
        let mut queues: Vec<Vec<Frame>> = workers.iter().enumerate().map(|(i, worker)| {
            let mut frames = frames(i as u64, worker);
            frames.reverse();
            frames
        }).collect();
        let end = RunTime::from_secs(f64::from(SECONDS));
        let mut picks = order.into_iter();
        while queues.iter().any(|queue| !queue.is_empty()) {
            let open: Vec<usize> = (0..queues.len()).filter(|i| !queues[*i].is_empty()).collect();
            let pick = open[picks.next().map_or(0, |pick| pick.index(open.len()))];
            let frame = queues[pick].pop().unwrap();
            let part = watch.part(&frame, end).unwrap();
            watch.add(part);
            let covered = (0..queues.len()).map(|i| watch.reported(SessionId(i as u64))).min().unwrap();
            watch.advance(covered, end);
        }
        for (rule, watched) in rules.iter().zip(watch.finish(end)) {
            prop_assert_eq!(&watched, &expected(&workers, rule, warmup), "{}", rule);
        }
    }
}

fn steady(session: u64, seconds: u32, slow_from: u32) -> Vec<Frame> {
    let ended = (0..seconds).map(|at| (at, 0, if at < slow_from { 1_000 } else { 500_000 }, false)).collect();
    frames(session, &Worker { ended, cuts: (1..=seconds).collect(), marked: Vec::new() })
}

fn first_breach(rule: Threshold, warmup: f64, seconds: u32, slow_from: u32) -> Option<Seen> {
    let mut watch = Watch::new(&[rule], RunTime::from_secs(warmup));
    let end = RunTime::from_secs(f64::from(seconds));
    for (index, frame) in steady(1, seconds, slow_from).into_iter().enumerate() {
        let part = watch.part(&frame, end).unwrap();
        watch.add(part);
        let breach = watch.advance(index as u32 + 1, end);
        if breach.is_some() {
            return breach.map(|breach| breach.seen);
        }
    }
    None
}

#[test]
fn a_rule_aborts_with_the_first_window_that_fails() {
    let rule = |text: &str| Threshold::parse(text).unwrap();
    let span = |rule: Threshold, warmup| first_breach(rule, warmup, 20, 10).map(|seen| (seen.from, seen.to));
    assert_eq!(span(rule("max < 100ms over 4s").aborting().unwrap(), 0.0), Some((7, 11)));
    assert_eq!(span(rule("p50 < 100ms over 4s").aborting().unwrap(), 0.0), Some((9, 13)));
    assert_eq!(span(rule("max < 100ms over 4s"), 0.0), None, "it does not abort");
    let late = rule("max < 100ms over 4s").after(RunTime::from_secs(15.5));
    assert_eq!(span(late.aborting().unwrap(), 0.0), Some((12, 16)));
    // without a window: everything since the warm-up
    assert_eq!(span(rule("max < 100ms").aborting().unwrap(), 2.5), Some((2, 11)));
    assert_eq!(span(rule("mean < 100ms").aborting().unwrap(), 5.0), Some((5, 13)));
    let floor = rule("rate > 2/s").after(RunTime::from_secs(3.0));
    assert_eq!(span(floor.aborting().unwrap(), 0.0), Some((0, 3)));
    assert_eq!(span(rule("count < 5").aborting().unwrap(), 0.0), Some((0, 5)));
}

#[test]
fn a_window_waits_for_every_worker() {
    let rule = Threshold::parse("max < 100ms over 2s").unwrap().aborting().unwrap();
    let mut watch = Watch::new(&[rule], RunTime(0));
    let end = RunTime::from_secs(60.0);
    let add = |watch: &mut Watch, frame: &Frame| {
        let part = watch.part(frame, end).unwrap();
        watch.add(part);
        watch.advance(watch.reported(SessionId(1)).min(watch.reported(SessionId(2))), end)
    };
    let (fast, slow) = (steady(1, 4, 9), steady(2, 4, 0));
    assert_eq!(fast.iter().filter_map(|frame| add(&mut watch, frame)).count(), 0);
    assert_eq!(add(&mut watch, &slow[0]), None);
    assert_eq!(add(&mut watch, &slow[1]).map(|breach| (breach.seen.from, breach.seen.to)), Some((0, 2)));
}

#[test]
fn what_waits_is_bounded_and_nothing_of_it_is_lost() {
    let rule = Threshold::parse("count < 1 over 3600s").unwrap();
    let mut watch = Watch::new(&[rule], RunTime(0));
    let end = RunTime::from_secs(3_600.0);
    for frame in steady(1, 3_600, 4_000) {
        let part = watch.part(&frame, end).unwrap();
        watch.add(part);
        assert!(watch.waiting.len() <= MOST_WAITING);
    }
    let watched = watch.finish(end);
    assert_eq!(watched[0].worst.and_then(|worst| worst.observed.value), Some(3_600.0));
}

#[test]
fn seconds_that_the_end_cut_short_are_in_no_window() {
    let rule = Threshold::parse("rate > 0.5/s over 1s").unwrap();
    let mut watch = Watch::new(&[rule], RunTime(0));
    for frame in steady(1, 4, 9) {
        let part = watch.part(&frame, RunTime::from_secs(3.4)).unwrap();
        watch.add(part);
    }
    assert_eq!(watch.reported(SessionId(1)), 3);
    let worst = watch.finish(RunTime::from_secs(3.4))[0].worst.unwrap();
    assert_eq!((worst.to, worst.observed.ok), (1, true));
}

#[test]
fn what_nobody_could_start_is_dropped_in_its_second() {
    let rule = Threshold::parse("dropped < 5 over 2s").unwrap();
    let mut watch = Watch::new(&[rule], RunTime(0));
    for frame in steady(1, 6, 9) {
        let part = watch.part(&frame, RunTime::from_secs(60.0)).unwrap();
        watch.add(part);
    }
    watch.add_unowned(3, 4);
    watch.add_unowned(4, 3);
    let worst = watch.finish(RunTime::from_secs(6.0))[0].worst.unwrap();
    assert_eq!((worst.from, worst.to, worst.observed.value), (3, 5, Some(7.0)));
}
