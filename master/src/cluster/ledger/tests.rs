use super::*;
use ld_shared::frame::{FrameKey, Odometers};
use ld_shared::record::RecordBody;
use ld_shared::sample::SeriesKey;
use proptest::prelude::*;
use std::sync::Arc;

const NOW: RunTime = RunTime(1_000 * ld_shared::time::SECOND);

fn frames(session: u64, samples: &[Vec<u64>]) -> Vec<Frame> {
    let mut odometers = Odometers::default();
    let body = |(index, values): (usize, &Vec<u64>)| {
        let second = index as u32;
        let mut body = FrameBody { from_second: second, to_second: second + 1, ..FrameBody::default() };
        let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
        let mut row = Row { bound_cores: u64::from(values.len() == 3), ..Row::default() };
        for value in values {
            body.counts.phase_mut(Phase::Main).series_mut(&key).succeeded.record(*value);
            row.succeeded += 1;
            odometers.phases[0].requests_started += 1;
        }
        body.counts.rows.insert(second, row);
        body.odometers = odometers;
        body.last = index + 1 == samples.len();
        let key = FrameKey { run: RunId("r".into()), session: SessionId(session), seq: u64::from(second) + 1 };
        Frame { key, body }
    };
    samples.iter().enumerate().map(body).collect()
}

fn batches(session: u64, samples: &[Vec<u64>]) -> Vec<RecordBatch> {
    let record = |value: &u64| Record {
        priority: value.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        ended_at: *value,
        started_at: *value,
        phase: if value.is_multiple_of(7) { Phase::Warmup } else { Phase::Main },
        request_type: "GET".into(),
        url: "u".into(),
        name: Arc::from("n"),
        scenario: "s".into(),
        worker: "".into(),
        status: None,
        response_us: *value,
        body_bytes: 0,
        error: value.is_multiple_of(3).then(|| "e".into()),
        answer: None,
    };
    let batch = |(index, values): (usize, &Vec<u64>)| {
        let kept = values.iter().map(record).collect();
        let body = RecordBody { kept, last: index + 1 == samples.len(), ..RecordBody::default() };
        RecordBatch { run: RunId("r".into()), session: SessionId(session), seq: index as u64 + 1, body }
    };
    samples.iter().enumerate().map(batch).collect()
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(RunId("r".into()), 10);
    ledger.admit(SessionId(1));
    ledger.admit(SessionId(2));
    ledger
}

proptest! {
    #[test]
    fn any_multiset_in_any_order_gives_the_same_ledger(
        a in prop::collection::vec(prop::collection::vec(0u64..100_000, 0..5), 1..6),
        b in prop::collection::vec(prop::collection::vec(0u64..100_000, 0..5), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let all: Vec<Frame> = frames(1, &a).into_iter().chain(frames(2, &b)).collect();
        let mut straight = ledger();
        for frame in &all {
            prop_assert_eq!(straight.put(frame, RunTime(0), NOW), Put::New);
            prop_assert!(straight.fold().is_some());
        }
        let mut shaken = ledger();
        let mut groups = Vec::new();
        for (number, index) in order.iter().enumerate() {
            let _any = shaken.put(index.get(&all), RunTime(0), NOW);
            groups.extend(number.is_multiple_of(7).then(|| shaken.fold()).flatten());
        }
        // what was refused for a gap was not acknowledged, so it is sent again
        for frame in &all {
            prop_assert!(!matches!(shaken.put(frame, RunTime(0), NOW), Put::Refused(_)));
        }
        groups.extend(shaken.fold());
        prop_assert_eq!(&shaken, &straight);
        // the journal's groups are the frames, one by one or together
        let (mut one_by_one, mut together) = (ledger(), Group::default());
        for group in groups {
            one_by_one.apply(&group);
            together.follow(group);
        }
        prop_assert_eq!(&one_by_one, &straight);
        let mut at_once = ledger();
        at_once.apply(&Group::decode(&together.encoded()).unwrap());
        prop_assert_eq!(&at_once, &straight);
        let samples: usize = a.iter().chain(&b).map(Vec::len).sum();
        prop_assert_eq!(straight.total().phase(Phase::Main).succeeded(), samples as u64);
        let rows: u64 = straight.snapshots(NOW).0.rows.values().map(|r| r.succeeded).sum();
        prop_assert_eq!(rows, samples as u64);
        let unmarked: usize = a.iter().chain(&b).map(Vec::len).filter(|n| *n != 3).sum();
        prop_assert_eq!(straight.snapshots(NOW).1.phase(Phase::Main).succeeded(), unmarked as u64);
    }
}

proptest! {
    #[test]
    fn batches_in_any_order_and_number_give_the_same_sample(
        a in prop::collection::vec(prop::collection::vec(0u64..100_000, 0..5), 1..6),
        b in prop::collection::vec(prop::collection::vec(0u64..100_000, 0..5), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let all: Vec<RecordBatch> = batches(1, &a).into_iter().chain(batches(2, &b)).collect();
        let (mut straight, mut shaken) = (ledger(), ledger());
        for batch in &all {
            prop_assert_eq!(straight.put_records(batch), Put::New);
        }
        for index in order {
            let _any = shaken.put_records(index.get(&all));
        }
        for batch in &all {
            prop_assert!(!matches!(shaken.put_records(batch), Put::Refused(_)));
        }
        let (kept, _) = straight.take_records();
        prop_assert_eq!(&shaken.take_records().0, &kept);
        prop_assert!(kept.iter().all(|record| record.phase == Phase::Main));
        // requests that are alike in every respect count as one
        let mut values: Vec<u64> = a.iter().chain(&b).flatten().copied().filter(|v| v % 7 != 0).collect();
        values.sort_unstable();
        values.dedup();
        let failed = values.iter().filter(|v| **v % 3 == 0).count();
        prop_assert_eq!(kept.iter().filter(|r| r.error.is_some()).count(), failed.min(10));
        prop_assert_eq!(kept.iter().filter(|r| r.error.is_none()).count(), (values.len() - failed).min(10));
    }
}

#[test]
fn records_are_awaited_until_the_last_batch_or_the_session_ends() {
    let mut ledger = ledger();
    for session in [1, 2] {
        let mut frame = frames(session, &[vec![1]]).remove(0);
        frame.body.records_follow = true;
        assert_eq!(ledger.put(&frame, RunTime(0), NOW), Put::New);
    }
    let all = batches(1, &[vec![1], vec![2]]);
    let gap = FrameFault::RecordGap { seq: 2, counted: 0 };
    assert_eq!(ledger.put_records(&all[1]), Put::Refused(gap));
    assert_eq!(ledger.put_records(&all[0]), Put::New);
    assert_eq!(ledger.put_records(&all[1]), Put::New);
    assert!(ledger.awaits_records());
    ledger.end_records(SessionId(2));
    assert!(!ledger.awaits_records());
    let stranger = batches(9, &[vec![1]]).remove(0);
    assert_eq!(ledger.put_records(&stranger), Put::Refused(FrameFault::UnknownSession(SessionId(9))));
}

type Change = fn(&mut Frame);

#[test]
fn faulty_frames_change_nothing() {
    let good = frames(1, &[vec![1, 2], vec![3]]);
    let mut ledger = ledger();
    assert_eq!(ledger.put(&good[0], RunTime(0), NOW), Put::New);
    let before = ledger.clone();
    let cases: [(Change, FrameFault); 7] = [
        (|f| f.key.run = RunId("other".into()), FrameFault::OtherRun),
        (|f| f.key.session = SessionId(9), FrameFault::UnknownSession(SessionId(9))),
        (|f| f.key.seq = 3, FrameFault::Gap { seq: 3, counted: 1 }),
        (|f| f.body.to_second = 2_000, FrameFault::Future { second: 1_999, now: NOW }),
        (|f| f.body.odometers = Odometers::default(), FrameFault::FallingOdometer),
        (
            |f| f.body.odometers.phases[0].requests_started = 2,
            FrameFault::MoreEndsThanStarts { phase: 0, settled: 3, started: 2 },
        ),
        (
            |f| f.body.odometers.phases[0].requests_in_flight = u64::MAX,
            FrameFault::MoreEndsThanStarts { phase: 0, settled: u64::MAX, started: 3 },
        ),
    ];
    for (change, fault) in cases {
        let mut frame = good[1].clone();
        change(&mut frame);
        assert_eq!(ledger.put(&frame, RunTime(0), NOW), Put::Refused(fault));
        assert_eq!(ledger, before);
    }
    ledger.close();
    assert_eq!(ledger.put(&good[1], RunTime(0), NOW), Put::Refused(FrameFault::OtherRun));
}
