//! Tests over all of the journal.

use super::book::{Book, Image};
use super::*;
use crate::cluster::ledger::{Ledger, Put};
use bytes::Bytes;
use ld_shared::boot::clock;
use ld_shared::frame::{Collected, Frame, FrameBody, FrameKey, Odometers};
use ld_shared::id::{Epoch, SessionId};
use ld_shared::lanes::LaneSet;
use ld_shared::load::{Closed, Intervention, Load, Profile, What};
use ld_shared::plan::Pool;
use ld_shared::record::{Answer, Record, RecordBatch, RecordBody};
use ld_shared::sample::{FailureKind, Phase, SeriesKey};
use ld_shared::snapshot::{FailureCount, Row};
use ld_shared::time::{Mono, RunTime};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

const NOW: RunTime = RunTime(100_000 * ld_shared::time::SECOND);

fn run() -> RunId {
    RunId("01890000-0000-7000-8000-000000000001".into())
}

fn order() -> Order {
    let mut plan = crate::run::fixture::plan();
    plan.scenarios[0].load = Load::Closed(Closed { users: Profile::constant(3.0) });
    plan.records.keep = 20;
    plan.iterations = Some(1_000);
    Order {
        run: run(),
        command: Digest("command".into()),
        label: Some("label".into()),
        digest: Digest::of(&plan.to_json()),
        plan: Arc::new(plan),
        given: None,
        rules: vec![Rule { rule: "p95 < 100ms over 10s".into(), abort: true, after: RunTime(5) }],
        expected: 2,
        wait: Duration::from_mins(1),
        allow_missing: false,
        local: false,
        one_worker: false,
    }
}

/// Something that a worker sends, or that the cluster decides.
#[derive(Clone, Debug)]
enum Step {
    Frame { session: u64, span: u32, marked: bool, values: Vec<u64> },
    Records { session: u64, priorities: Vec<u64> },
    Tickets { session: u64, count: u64 },
    Event(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let values = prop::collection::vec(1u64..5_000_000, 0..6);
    prop_oneof![
        5 => (1u64..4, 1u32..4, any::<bool>(), values)
            .prop_map(|(session, span, marked, values)| Step::Frame { session, span, marked, values }),
        3 => (1u64..4, prop::collection::vec(any::<u64>(), 0..12))
            .prop_map(|(session, priorities)| Step::Records { session, priorities }),
        1 => (1u64..4, 1u64..40).prop_map(|(session, count)| Step::Tickets { session, count }),
        1 => (0u32..9).prop_map(Step::Event),
    ]
}

/// Workers of a run: they number what they send, and send again what was not acknowledged.
#[derive(Default)]
struct Workers {
    odometers: BTreeMap<u64, Odometers>,
    second: BTreeMap<u64, u32>,
    frames: BTreeMap<u64, Vec<(Frame, RunTime)>>,
    batches: BTreeMap<u64, Vec<RecordBatch>>,
}

impl Workers {
    fn frame(&mut self, session: u64, span: u32, marked: bool, values: &[u64]) -> (Frame, RunTime) {
        let from = *self.second.get(&session).unwrap_or(&0);
        self.second.insert(session, from + span);
        let odometers = self.odometers.entry(session).or_default();
        let mut body = FrameBody { from_second: from, to_second: from + span, ..FrameBody::default() };
        let mut row = Row { bound_cores: u64::from(marked), user_ms: 7, ..Row::default() };
        for value in values {
            let name = format!("n{}", value % 5);
            let key = SeriesKey { name: name.into(), request_type: "GET".into(), scenario: "s".into() };
            let which = if value % 7 == 0 { Phase::Warmup } else { Phase::Main };
            let phase = body.counts.phase_mut(which);
            phase.lag.record(value / 2);
            phase.timing[(value % 6) as usize].record(*value);
            let series = phase.series_mut(&key);
            (series.bytes_sent, series.first_at) = (3, series.first_at.min(*value));
            if value % 3 == 0 {
                series.failed.record(*value);
                let count = FailureCount { kind: FailureKind::Status, count: 1, first_at: *value, last_at: *value };
                phase.fail(&key, &"why".into(), count);
                row.failed += 1;
            } else {
                series.succeeded.record(*value);
                row.succeeded += 1;
            }
            odometers.phases[which.index()].requests_started += 1;
        }
        body.counts.rows.insert(from, row);
        body.odometers = *odometers;
        body.generator.users_max = values.len() as u64;
        body.generator.cpu_max_permille = values.first().map_or(0, |value| (value % 1_000) as u32);
        body.generator.start_skew = values.first().copied();
        body.generator.records_seen = [values.len() as u64, 1];
        for value in values {
            body.generator.scheduler_lag.record(value % 900);
        }
        if values.len() == 5 {
            let variables = [("token".to_owned(), values[0].into())].into_iter().collect();
            body.collected = Some(Box::new(Collected { variables, failure: None }));
        }
        let list = self.frames.entry(session).or_default();
        let key = FrameKey { run: run(), session: SessionId(session), seq: list.len() as u64 + 1 };
        let sealed_at = RunTime(u64::from(from + span) * ld_shared::time::SECOND);
        list.push((Frame { key, body }, sealed_at));
        list[list.len() - 1].clone()
    }

    fn batch(&mut self, session: u64, priorities: &[u64]) -> RecordBatch {
        let record = |priority: &u64| Record {
            priority: *priority,
            ended_at: priority / 2,
            started_at: 1,
            phase: if priority.is_multiple_of(11) { Phase::Hooks } else { Phase::Main },
            request_type: "GET".into(),
            url: "http://x/".into(),
            name: "n".into(),
            scenario: "s".into(),
            worker: format!("w{session}").into(),
            status: Some(200),
            response_us: priority % 1_000,
            body_bytes: 2,
            error: priority.is_multiple_of(2).then(|| "e".into()),
            answer: priority
                .is_multiple_of(5)
                .then(|| Arc::new(Answer { headers: vec![("a".into(), "b".into())], body: vec![0, 255] })),
        };
        let list = self.batches.entry(session).or_default();
        let body = RecordBody { kept: priorities.iter().map(record).collect(), lines: Bytes::new(), last: false };
        list.push(RecordBatch { run: run(), session: SessionId(session), seq: list.len() as u64 + 1, body });
        list[list.len() - 1].clone()
    }
}

/// What a coordinator does with what comes: counts it, and journals what was new.
fn take_frame(ledger: &mut Ledger, (frame, sealed_at): (Frame, RunTime)) -> Option<Entry> {
    match ledger.put(&frame, sealed_at, NOW) {
        Put::New => ledger.fold().map(|group| Entry::Frames(Box::new(group))),
        Put::Duplicate => None,
        Put::Refused(fault) => panic!("{fault}"),
    }
}

fn take_batch(ledger: &mut Ledger, batch: RecordBatch) -> Option<Entry> {
    match ledger.put_records(&batch) {
        Put::New => Some(Entry::Records(Box::new(batch))),
        Put::Duplicate => None,
        Put::Refused(fault) => panic!("{fault}"),
    }
}

fn joined(session: u64) -> Entry {
    Entry::Control(Control::Joined {
        session: SessionId(session),
        name: format!("w{session}").into(),
        cores: 2,
        secret: vec![1, 2],
    })
}

fn begin() -> (MemoryJournal, Ledger) {
    let order = order();
    let mut journal = MemoryJournal::new(&order);
    let mut ledger = Ledger::new(run(), order.plan.records.keep);
    journal.append(Entry::Order(Box::new(order), BTreeMap::new()));
    journal.append(Entry::Control(Control::Term(1)));
    for session in 1..4 {
        journal.append(joined(session));
        ledger.admit(SessionId(session));
    }
    journal.commit(false);
    (journal, ledger)
}

fn bytes_of(ledger: &Ledger) -> Vec<(String, Vec<u8>)> {
    ledger.parts().into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_ledger_survives_its_bytes(steps in prop::collection::vec(step(), 0..40)) {
        let (mut workers, (_, mut ledger)) = (Workers::default(), begin());
        for step in steps {
            match step {
                Step::Frame { session, span, marked, values } => {
                    take_frame(&mut ledger, workers.frame(session, span, marked, &values));
                }
                Step::Records { session, priorities } => {
                    take_batch(&mut ledger, workers.batch(session, &priorities));
                }
                Step::Tickets { .. } | Step::Event(_) => {}
            }
        }
        let bytes = bytes_of(&ledger);
        let mut read = Ledger::from_parts(bytes.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice()))).unwrap();
        prop_assert_eq!(bytes_of(&read), bytes);
        let cuts = ledger.record_cuts();
        read.restore_records(&ledger.clone().take_records().0, cuts);
        prop_assert_eq!(&read, &ledger);
    }

    /// Kills the master after each commit in turn. What is recovered is what was committed; workers
    /// send the rest again, and the totals are those of a run without a crash.
    #[test]
    fn a_crash_at_any_commit_loses_nothing_that_was_acknowledged(
        steps in prop::collection::vec((step(), 0u8..6), 1..25),
    ) {
        let (mut workers, (mut journal, mut ledger)) = (Workers::default(), begin());
        // states as of each commit
        let mut commits = vec![(journal.image(), ledger.clone(), 0, 0)];
        let (mut tickets, mut events) = (0, 0);
        for (step, then) in steps {
            let entry = match step {
                Step::Frame { session, span, marked, values } => {
                    take_frame(&mut ledger, workers.frame(session, span, marked, &values))
                }
                Step::Records { session, priorities } => take_batch(&mut ledger, workers.batch(session, &priorities)),
                Step::Tickets { session, count } => {
                    let session = SessionId(session);
                    tickets += count;
                    Some(Entry::Granted { pool: Pool::Iterations, session, tickets: tickets - count..tickets })
                }
                Step::Event(number) => {
                    events += 1;
                    let (at_s, what, by) = (f64::from(number), "what".into(), "by".into());
                    Some(Entry::Control(Control::Event { at_s, what, by }))
                }
            };
            let number = journal.append(entry.expect("everything is new"));
            prop_assert!(journal.committed() < number);
            if then < 3 {
                journal.commit(then == 0);
                prop_assert_eq!(journal.committed(), number);
                commits.push((journal.image(), ledger.clone(), tickets, events));
            }
        }
        for (image, as_committed, tickets, events) in commits {
            let (mut again, recovered) = MemoryJournal::resume(image).unwrap();
            prop_assert_eq!(&recovered.ledger, &as_committed);
            prop_assert_eq!(recovered.tickets.left(Pool::Iterations), 1_000_u64.saturating_sub(tickets));
            prop_assert_eq!(recovered.events.len(), events);
            prop_assert_eq!(recovered.sessions.len(), 3);
            // workers send everything again that they have: what was counted changes nothing
            let mut resumed = recovered.ledger;
            let frames = workers.frames.values().flatten().cloned();
            let entries: Vec<Entry> = frames.filter_map(|frame| take_frame(&mut resumed, frame)).collect();
            for entry in entries {
                again.append(entry);
            }
            let batches = workers.batches.values().flatten().cloned();
            let entries: Vec<Entry> = batches.filter_map(|batch| take_batch(&mut resumed, batch)).collect();
            for entry in entries {
                again.append(entry);
            }
            again.commit(false);
            let twice = Recovered::of(&again.image()).unwrap();
            prop_assert_eq!(&twice.ledger, &resumed);
            prop_assert_eq!(twice.ledger.snapshots(NOW).0, ledger.snapshots(NOW).0);
            prop_assert_eq!(twice.ledger.snapshots(NOW).1, ledger.snapshots(NOW).1);
            let (mut one, mut other) = (twice.ledger.clone(), ledger.clone());
            prop_assert_eq!(one.take_records(), other.take_records());
        }
    }
}

#[test]
fn what_the_cluster_decided_is_folded() {
    let (mut journal, _) = begin();
    let lanes = |lane| {
        let mut lanes = LaneSet::empty();
        lanes.insert(lane);
        lanes
    };
    let assignment = |epoch, from, lane| Assignment {
        epoch: Epoch(epoch),
        from: RunTime(from),
        lanes: lanes(lane),
        caps: vec![3],
        throttles: vec![ThrottlePart { parts: 1, burst: 2, first: 3 }],
    };
    let session = SessionId(1);
    let assigned = |assignment| Control::Assigned { session, assignment };
    let lost = |at| Control::Lost { session, at: RunTime(at), until: RunTime(4), silent: true, how: "cut".into() };
    let controls = [
        assigned(assignment(1, 0, 5)),
        // armed a second time: the same number
        assigned(assignment(1, 0, 6)),
        Control::Started(started(Mono(9), chrono::DateTime::UNIX_EPOCH)),
        lost(10),
        Control::Returned { session, at: RunTime(20) },
        assigned(assignment(2, 30, 7)),
        Control::Program(Intervention { at: RunTime(35), what: What::SetUsers { scenario: 0, users: 5 } }),
        Control::Ends(Cause::Rule),
        Control::Stopping { at: RunTime(40), abort: false },
        Control::Stopping { at: RunTime(41), abort: true },
        Control::Left { session: SessionId(2), at: RunTime(42), text: "bye".into() },
        Control::Closed,
    ];
    for control in controls {
        journal.append(Entry::Control(control));
    }
    journal.commit(false);
    let recovered = Recovered::of(&journal.image()).unwrap();
    assert_eq!(recovered.order, order());
    assert_eq!(recovered.order.rules[0].read().unwrap().rule(), "p95 < 100ms over 10s");
    assert_eq!((recovered.term, recovered.closed), (1, true));
    assert_eq!(recovered.started.as_ref().map(|started| started.mono), Some(Mono(9)));
    assert_eq!((recovered.stopping, recovered.cause.clone()), (Some((RunTime(40), true)), Some(Cause::Rule)));
    assert_eq!(recovered.program.changes().len(), 1);
    let member = &recovered.sessions[&session];
    assert_eq!((&*member.name, member.cores, &member.secret[..]), ("w1", 2, &[1, 2][..]));
    assert_eq!(member.assignments, [assignment(1, 0, 6), assignment(2, 30, 7)]);
    assert_eq!(member.fate, Fate::There);
    assert_eq!(
        member.absences.iter().map(|(lost, back)| (lost.at, *back)).collect::<Vec<_>>(),
        [(RunTime(10), RunTime(20))]
    );
    assert_eq!(recovered.sessions[&SessionId(2)].fate, Fate::Left { at: RunTime(42), text: "bye".into() });
    assert!(matches!(Recovered::of(&Image::default()), Err(RecoverError::Empty)));
}

/// A disk that changes bytes makes a journal that cannot be read, or another one: never a panic.
#[test]
fn spoiled_rows_are_refused() {
    let mut all = Workers::default();
    let (mut journal, mut ledger) = begin();
    for second in 0..12 {
        let frame = all.frame(1, 1, false, &[1_000 + second, 2_000, 3_001]);
        journal.append(take_frame(&mut ledger, frame).expect("nothing came before"));
        let batch = all.batch(1, &[second, second << 40]);
        journal.append(take_batch(&mut ledger, batch).expect("nothing came before"));
        journal.commit(second % 5 == 4);
    }
    let right = journal.image();
    assert!(Recovered::of(&right).is_ok());
    let (mut rng, mut refused) = (ld_shared::rng::KeyedRng::new(4, 0, 0), 0);
    for _ in 0..3_000 {
        let mut image = right.clone();
        let rows = image.entries.values_mut().chain(image.frames.values_mut());
        let mut rows: Vec<&mut Vec<u8>> =
            rows.chain(image.records.values_mut()).chain(image.ledger.values_mut()).collect();
        let at = rng.below(rows.len() as u64) as usize;
        *rows[at] = ld_shared::noise::mutated(&mut rng, &[rows[at].clone()]);
        refused += usize::from(Recovered::of(&image).is_err());
    }
    assert!(refused > 300, "{refused} of 3,000 journals were refused");
}

/// One row a second however many workers there are, and the whole of it every ten seconds.
#[test]
fn the_size_goes_with_seconds_not_with_workers() {
    let size = |workers: u64| {
        let (mut all, mut image, mut book) = (Workers::default(), Image::default(), Book::new(&order()));
        let mut ledger = Ledger::new(run(), order().plan.records.keep);
        for session in 1..=workers {
            ledger.admit(SessionId(session));
        }
        book.add(Entry::Order(Box::new(order()), BTreeMap::new()));
        for second in 0..300 {
            for session in 1..=workers {
                let frame = all.frame(session, 1, false, &[1_000 + second, 2_000, 3_001]);
                book.add(take_frame(&mut ledger, frame).expect("nothing came before"));
            }
            image.apply(&book.seal(second % 10 == 9));
        }
        let frames: usize = image.frames.values().map(Vec::len).sum();
        let sessions = image.ledger["sessions"].len();
        (frames, image.ledger.values().map(Vec::len).sum::<usize>() - sessions)
    };
    let (one, many) = (size(1), size(20));
    assert_eq!((one.0, many.0), (0, 0), "groups before the ledger are gone");
    assert!(many.1 < one.1 * 3 / 2, "{one:?} {many:?}");
}

/// A long run takes no more memory than a short one, and late workers still add to its first seconds.
#[test]
fn seconds_that_are_over_are_on_the_disk_only() {
    let (mut workers, mut image, mut book) = (Workers::default(), Image::default(), Book::new(&order()));
    let mut ledger = Ledger::new(run(), order().plan.records.keep);
    book.add(Entry::Order(Box::new(order()), BTreeMap::new()));
    for session in 1..4 {
        book.add(joined(session));
        ledger.admit(SessionId(session));
    }
    for second in 0..4_000_u64 {
        // the third comes back after half an hour, with a frame for each of the others' seconds from then on
        for session in 1..=(if second < 2_000 { 2 } else { 3 }) {
            let frame = workers.frame(session, 1, second % 50 == 0, &[1_000 + second, 2_000 + session, 3_001]);
            book.add(take_frame(&mut ledger, frame).unwrap());
        }
        let write = book.seal(second % 10 == 9);
        if let Some((changed, gone)) = &write.ledger {
            let rows = changed.iter().filter(|(key, _)| key.starts_with("rows/")).count();
            assert!(rows <= 5 && gone.iter().all(|key| !key.starts_with("rows/")), "{rows} parts, {gone:?}");
        }
        image.apply(&write);
        if second % 799 == 0 {
            assert_eq!(Recovered::of(&image).unwrap().ledger, ledger, "second {second}");
        }
    }
    let recovered = Recovered::of(&image).unwrap();
    assert_eq!(recovered.ledger, ledger);
    // whoever goes on writes its rows anew, and forgets them in turn
    let mut book = Book::resume(&image, recovered.ledger);
    for second in 0..200 {
        let frame = workers.frame(1, 1, false, &[second + 5]);
        book.add(take_frame(&mut ledger, frame).unwrap());
        image.apply(&book.seal(second % 10 == 9));
    }
    assert_eq!(Recovered::of(&image).unwrap().ledger, ledger);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn committed(journal: &dyn Journal, number: u64) {
    let until = clock::mono().after(Duration::from_secs(20));
    while journal.committed() < number {
        assert_eq!(journal.failure(), None);
        assert!(clock::mono() < until, "not committed");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_holds_what_the_model_holds_and_nobody_else_gets_in() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(place.path().to_owned());
    let woken = Arc::new(Mutex::new(0));
    let (model, mut ledger) = begin();
    let blobs = BTreeMap::from([(Digest::of(b"rows"), Bytes::from_static(b"rows"))]);
    let first = Entry::Order(Box::new(order()), blobs.clone());
    let wake = {
        let woken = Arc::clone(&woken);
        Box::new(move || *woken.lock().unwrap() += 1)
    };
    let mut journal = DiskJournal::begin(folder.of(&run()), first, wake);
    assert_eq!(journal.append(Entry::Control(Control::Term(1))), 2);
    for session in 1..4 {
        journal.append(joined(session));
    }
    let mut workers = Workers::default();
    let mut number = 0;
    for second in 0..6_u64 {
        for session in 1..4 {
            let frame = workers.frame(session, 1, second == 3, &[1_000 * session, 5_000 + second, 9]);
            number = journal.append(take_frame(&mut ledger, frame).unwrap());
            let batch = workers.batch(session, &[u64::MAX - number, number, 1 << 63, 77 * number]);
            number = journal.append(take_batch(&mut ledger, batch).unwrap());
        }
    }
    number =
        number.max(journal.append(Entry::Granted { pool: Pool::Iterations, session: SessionId(2), tickets: 0..40 }));
    committed(&journal, number);
    assert!(*woken.lock().unwrap() > 0);
    // a second master
    let refused = runtime().block_on(folder.open(&run())).unwrap_err();
    assert!(matches!(refused, JournalError::Busy { .. }), "{refused}");
    assert_eq!(folder.journals().unwrap(), [Found { run: run(), busy: true }]);
    let found = runtime().block_on(folder.open_unfinished(&order().command)).unwrap();
    assert!(found.is_none());
    drop(journal);
    let found = runtime().block_on(async {
        // closing goes on in the background
        loop {
            match folder.open(&run()).await {
                Err(JournalError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                found => break found.unwrap(),
            }
        }
    });
    assert_eq!(found.recovered.ledger, ledger);
    assert_eq!(found.recovered.blobs, blobs);
    assert_eq!(found.recovered.sessions.len(), Recovered::of(&model.image()).unwrap().sessions.len());
    assert_eq!(found.recovered.tickets.granted(Pool::Iterations, SessionId(2)), 40);
    runtime().block_on(found.close());
    // it had not begun: nobody takes it up
    let none = runtime().block_on(folder.open_unfinished(&order().command)).unwrap();
    assert!(none.is_none());
    let (found, again) = runtime().block_on(async {
        let found = folder.open(&run()).await.unwrap();
        let (_, mut journal) = found.resume(Box::new(|| {}));
        let wall = chrono::DateTime::UNIX_EPOCH;
        let number = journal.append(Entry::Control(Control::Started(started(Mono(1), wall))));
        committed(&journal, number);
        drop(journal);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let other = folder.open_unfinished(&Digest("other".into())).await.unwrap();
        (folder.open_unfinished(&order().command).await.unwrap().unwrap(), other)
    });
    assert!(again.is_none());
    assert_eq!(found.recovered.term, 2);
    runtime().block_on(found.close());
    let image = runtime().block_on(folder::image(&folder, &run()));
    assert_eq!(Recovered::of(&image).unwrap().term, 2, "on the disk before anybody was told");
    runtime().block_on(folder.remove_closed(&run())).unwrap();
    assert_eq!(folder.journals().unwrap(), []);
    assert!(!folder.of(&run()).exists());
}

#[test]
fn a_row_that_a_disk_has_changed_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(place.path().to_owned());
    let (_, mut ledger) = begin();
    let first = Entry::Order(Box::new(order()), BTreeMap::from([(Digest::of(b"rows"), Bytes::from_static(b"rows"))]));
    let mut journal = DiskJournal::begin(folder.of(&run()), first, Box::new(|| {}));
    journal.append(joined(1));
    let mut workers = Workers::default();
    let batch = workers.batch(1, &[7]);
    journal.append(take_batch(&mut ledger, batch).unwrap());
    journal.append(Entry::Granted { pool: Pool::Iterations, session: SessionId(1), tickets: 0..40 });
    let number = journal.append(take_frame(&mut ledger, workers.frame(1, 1, false, &[1_000])).unwrap());
    committed(&journal, number);
    drop(journal);
    let file = folder.of(&run()).join(folder::NAME);
    let change = async |sql: String| {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
        let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
        let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
        done.rows_affected()
    };
    runtime().block_on(async {
        let bytes = "bytes = zeroblob(length(bytes))";
        let spoilt = [("entry", bytes), ("blob", bytes), ("frames", bytes), ("record", bytes)];
        let numbers = [("frames", "number = number + 1000"), ("ticket", "next = next - 1"), ("state", "ledger_at = 1")];
        for (table, column) in spoilt.into_iter().chain(numbers) {
            let kept = format!("CREATE TABLE kept AS SELECT * FROM {table}");
            let spoil = format!("UPDATE {table} SET {column}");
            let restore = format!("DELETE FROM {table}");
            change(kept).await;
            assert!(change(spoil).await > 0, "{table} is empty");
            let refused = folder.open(&run()).await.unwrap_err();
            let why = crate::command::with_causes(&refused);
            assert!(why.contains(&format!("a row of its table `{table}` is damaged")), "{why}");
            change(restore).await;
            change(format!("INSERT INTO {table} SELECT * FROM kept")).await;
            change("DROP TABLE kept".into()).await;
        }
        folder.open(&run()).await.unwrap().close().await;
    });
}

#[test]
fn a_journal_that_cannot_be_made_says_so() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("runs"), "a file").unwrap();
    let folder = Folder::new(place.path().to_owned());
    let first = Entry::Order(Box::new(order()), BTreeMap::new());
    let (told, heard) = std::sync::mpsc::channel();
    let journal = DiskJournal::begin(folder.of(&run()), first, Box::new(move || told.send(()).unwrap()));
    heard.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(journal.failure().is_some());
    assert_eq!(journal.committed(), 0);
}

#[test]
fn a_rescued_run_is_an_error_and_adds_up() {
    let (mut journal, mut ledger) = begin();
    let mut workers = Workers::default();
    for session in 1..3 {
        let assignment = Assignment {
            epoch: Epoch(1),
            from: RunTime(0),
            lanes: LaneSet::full(),
            caps: Vec::new(),
            throttles: Vec::new(),
        };
        journal.append(Entry::Control(Control::Assigned { session: SessionId(session), assignment }));
        let mut frame = workers.frame(session, 1, false, &[1_000, 1_002, 1_003]);
        frame.0.body.odometers.phases[0].requests_started += 4;
        journal.append(take_frame(&mut ledger, frame).unwrap());
    }
    journal.commit(false);
    assert!(rescue::result(Recovered::of(&journal.image()).unwrap(), false).is_none(), "it had not begun");
    let wall = chrono::DateTime::UNIX_EPOCH;
    journal.append(Entry::Control(Control::Started(started(Mono(1), wall))));
    journal.commit(true);
    let run = rescue::result(Recovered::of(&journal.image()).unwrap(), true).unwrap();
    assert_eq!(run.verdict.outcome.name(), "error");
    assert_eq!(run.verdict.reasons[0], rescue::REASON);
    assert!(run.measured.events.iter().any(|event| event.what.contains("journal had failed")));
    let result = crate::run::result::RunResult::of(&[Arc::new(run)], crate::run::verdict::Verdict::nothing());
    let counts = serde_json::to_value(&result).unwrap()["conservation"].clone();
    assert_eq!(counts["requests_started"], 14);
    assert_eq!(counts["lost"], 8);
    assert_eq!(counts["ok"], true);
}
