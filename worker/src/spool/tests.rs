use super::*;
use ld_shared::id::SessionId;
use ld_shared::message::{Hello, ToMaster};
use ld_shared::sample::{FailureKind, Phase, SeriesKey};
use ld_shared::snapshot::FailureCount;
use ld_shared::time::Mono;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// One second with so many requests of different lengths: more of them are more bytes.
fn second(second: u32, requests: u64) -> Box<FrameBody> {
    let mut body = FrameBody { from_second: second, to_second: second + 1, ..FrameBody::default() };
    let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
    let series = body.counts.phase_mut(Phase::Main).series_mut(&key);
    for n in 0..requests {
        series.succeeded.record((n * 7_919 + u64::from(second) * 31) % 3_000_000);
    }
    body.counts.rows.entry(second).or_default().succeeded = requests;
    Box::new(body)
}

fn end(at: u32) -> Box<FrameBody> {
    Box::new(FrameBody { from_second: at, to_second: at, last: true, ..FrameBody::default() })
}

fn requests(body: &FrameBody) -> u64 {
    let counted: u64 = body.counts.rows.values().map(|row| row.succeeded).sum();
    assert_eq!(counted, body.counts.phase(Phase::Main).response().count(), "rows and histograms agree");
    counted
}

/// Takes everything that is offered and acknowledges it.
fn drain(spool: &mut Spool) -> Vec<FrameBody> {
    let mut taken = Vec::new();
    while let Some((seq, body, _)) = spool.offer() {
        taken.push(*body);
        spool.acknowledge(seq);
    }
    taken
}

/// A shelf in memory that has room for so many bytes.
#[derive(Clone, Debug, Default)]
struct Board(Arc<Mutex<Lying>>);

/// Its room, and what lies there.
type Lying = (usize, BTreeMap<u64, Vec<u8>>);

impl Board {
    fn with_room(room: usize) -> Self {
        Self(Arc::new(Mutex::new((room, BTreeMap::new()))))
    }

    fn held(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }
}

impl Shelf for Board {
    fn put(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let mut board = self.0.lock().unwrap();
        let newest = board.1.keys().next_back().copied();
        let instead = board.1.remove(&number).is_some();
        assert!(!instead || newest == Some(number), "only the newest gathers");
        let used: usize = board.1.values().map(Vec::len).sum();
        if used + bytes.len() > board.0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        board.1.insert(number, bytes.to_vec());
        Ok(())
    }

    fn get(&mut self, number: u64) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().unwrap().1[&number].clone())
    }

    fn offer(&mut self, number: u64, _seq: u64) -> io::Result<()> {
        assert!(self.0.lock().unwrap().1.contains_key(&number), "it lies there before it is offered");
        Ok(())
    }

    fn discard(&mut self, number: u64) -> io::Result<()> {
        self.remove(number, 0)
    }

    fn remove(&mut self, number: u64, _seq: u64) -> io::Result<()> {
        assert!(self.0.lock().unwrap().1.remove(&number).is_some());
        Ok(())
    }

    fn note(&mut self, _stands: &RunBeat) -> io::Result<()> {
        Ok(())
    }

    fn disinherit(&mut self) {}
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u64),
    Offer(usize),
    Acknowledge(u64),
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..400).prop_map(Step::Put),
        3 => (1usize..4).prop_map(Step::Offer),
        2 => (0u64..6).prop_map(Step::Acknowledge),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    // each case encodes dozens of frames
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever happens in whatever order: every request is counted once, a number always means the
    /// same frame, spans follow each other, the window and memory hold.
    #[test]
    fn nothing_is_lost_or_doubled(steps in steps(), memory in 500usize..6_000, room in prop::option::of(0usize..9_000)) {
        let board = room.map(Board::with_room);
        let mut spool = Spool::new(board.clone().map(|board| Box::new(board) as Box<dyn Shelf>));
        spool.memory = memory;
        let mut frames: BTreeMap<u64, FrameBody> = BTreeMap::new();
        let (mut seconds, mut sum, mut counted, mut newest) = (0, 0, 0, 0);
        let mut largest = 0;
        let take = |offer: (u64, Box<FrameBody>, RunTime), frames: &mut BTreeMap<u64, FrameBody>| {
            let (seq, body, _) = offer;
            match frames.get(&seq) {
                Some(before) => assert_eq!(before, &*body, "an offered frame never changes"),
                None => assert!(frames.insert(seq, *body).is_none()),
            }
            seq
        };
        for step in steps {
            match step {
                Step::Put(requests) => {
                    let body = second(seconds, requests);
                    largest = largest.max(frame_to_bytes(&body, RunTime(0)).len());
                    spool.put(body, RunTime(0));
                    (seconds, sum) = (seconds + 1, sum + requests);
                }
                Step::Offer(most) => for _ in 0..most {
                    let Some(offer) = spool.offer() else { break };
                    newest = take(offer, &mut frames);
                    prop_assert!(newest > counted && newest <= counted + FRAME_WINDOW as u64);
                },
                Step::Acknowledge(more) => {
                    // of what went over this connection
                    counted = (counted + more).min(newest.max(counted));
                    spool.acknowledge(counted);
                }
                Step::Reconnect => { spool.reconnect(); newest = counted; }
            }
            // one frame alone may be larger than the bound
            let alone = spool.waiting.iter().filter(|waiting| waiting.bytes.is_some()).count() <= 1;
            prop_assert!(spool.in_memory <= memory || alone, "{} bytes", spool.in_memory);
            prop_assert_eq!(spool.in_memory, spool.waiting.iter().map(Waiting::len).sum::<usize>());
        }
        spool.put(end(seconds), RunTime(0));
        spool.reconnect();
        while !spool.is_done() {
            let offer = spool.offer().unwrap();
            counted = take(offer, &mut frames);
            spool.acknowledge(counted);
        }
        prop_assert_eq!(frames.values().map(requests).sum::<u64>(), sum);
        prop_assert_eq!(frames.keys().copied().collect::<Vec<_>>(), (1..=frames.len() as u64).collect::<Vec<_>>());
        let mut next = 0;
        for (frame, is_last) in frames.values().zip((1..=frames.len()).map(|n| n == frames.len())) {
            prop_assert_eq!((frame.from_second, frame.last), (next, is_last));
            next = frame.to_second;
        }
        prop_assert_eq!(next, seconds);
        prop_assert_eq!(board.map_or(0, |board| board.held()), 0, "the shelf is empty again");
    }
}

#[test]
fn spans_widen_while_nobody_takes_frames_and_narrow_again() {
    let mut spool = Spool::default();
    let mut widths = Vec::new();
    for n in 0..200 {
        spool.put(second(n, 10), RunTime(0));
        while n < 4 && spool.offer().is_some() {}
    }
    assert_eq!(spool.seconds, MOST_SECONDS);
    assert!(spool.waiting.len() < 30, "{}", spool.waiting.len());
    spool.acknowledge(4);
    widths.extend(drain(&mut spool).iter().map(|body| body.to_second - body.from_second));
    assert_eq!(widths.iter().max(), Some(&MOST_SECONDS));
    for n in 200..240 {
        spool.put(second(n, 10), RunTime(0));
        widths = drain(&mut spool).iter().map(|body| body.to_second - body.from_second).chain(widths.pop()).collect();
    }
    assert_eq!((spool.seconds, widths[0]), (1, 1));
}

#[test]
fn spans_widen_while_seconds_are_too_many_bytes() {
    let mut spool = Spool::default();
    let mut large = second(0, 0);
    for name in 0..600 {
        let key = SeriesKey { name: format!("{name}").into(), request_type: "GET".into(), scenario: "s".into() };
        let series = large.counts.phase_mut(Phase::Main).series_mut(&key);
        for n in 0..400 {
            series.succeeded.record(n * 997);
        }
    }
    let bytes = frame_to_bytes(&large, RunTime(0)).len();
    assert!(bytes > BYTES_PER_SECOND && bytes < 2 * BYTES_PER_SECOND, "{bytes}");
    let mut widths = Vec::new();
    for n in 0..12 {
        let mut body = large.clone();
        (body.from_second, body.to_second) = (n, n + 1);
        spool.put(body, RunTime(0));
        widths.extend(drain(&mut spool).iter().map(|body| body.to_second - body.from_second));
    }
    // the same buckets each second: two seconds are no more bytes than one
    assert_eq!(widths, [1, 2, 2, 2, 2, 2]);
}

#[test]
fn reasons_that_fit_no_message_become_one() {
    let mut spool = Spool::default();
    let mut body = second(0, 20_000);
    let main = body.counts.phase_mut(Phase::Main);
    let keys: Vec<SeriesKey> = main.series.keys().cloned().collect();
    main.series_mut(&keys[0]).failed.record_n(9, 20_000);
    let count = FailureCount { kind: FailureKind::Status, count: 1, first_at: 1, last_at: 2 };
    for n in 0..20_000 {
        let reason: Arc<str> = format!("{n}{}", "x".repeat(500)).into();
        main.failures.insert((keys[n % keys.len()].clone(), reason), count);
    }
    assert!(frame_to_bytes(&body, RunTime(0)).len() > MOST_BYTES);
    spool.put(body, RunTime(0));
    let (_, sent, _) = spool.offer().unwrap();
    let main = sent.counts.phase(Phase::Main);
    assert_eq!(main.failures.len(), keys.len());
    assert_eq!(main.failures.values().map(|failure| failure.count).sum::<u64>(), 20_000);
}

/// A folder for spools, and the one in it of session 7 of run `a/../b`.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a____b.0000000000000007");
    (dir, path)
}

fn in_folder(dir: &tempfile::TempDir) -> Spool {
    let home = Returning { session: SessionId(7), secret: Bytes::from_static(b"secret"), heir_of: None };
    Spool::new(Some(Folders(dir.path().to_owned()).shelf(&run(), &home)))
}

fn run() -> RunId {
    RunId("a/../b".into())
}

/// Names of the frames in a folder.
fn frames(path: &Path) -> Vec<String> {
    let names = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !["home", "stands"].contains(&&**name)).collect();
    names.sort();
    names
}

#[test]
fn a_folder_holds_what_memory_has_no_room_for() {
    let (dir, path) = folder();
    let mut spool = in_folder(&dir);
    spool.memory = 0;
    spool.put(second(0, 100), RunTime(5));
    spool.put(second(1, 100), RunTime(6));
    assert_eq!(frames(&path)[0], "000000000000.sealed");
    assert!(spool.in_memory == 0 && spool.waiting.iter().all(|waiting| waiting.bytes.is_none()));
    let (seq, body, sealed_at) = spool.offer().unwrap();
    assert_eq!((seq, &*body, sealed_at), (1, &*second(0, 100), RunTime(5)));
    assert!(frames(&path).contains(&"000000000001.offered".to_owned()));
    // another process finds the very bytes
    let left = std::fs::read(path.join("000000000001.offered")).unwrap();
    assert_eq!(frame_from_bytes(&left).unwrap(), (*body, RunTime(5)));
    spool.put(end(2), RunTime(7));
    spool.acknowledge(1);
    assert_eq!(drain(&mut spool).iter().map(requests).sum::<u64>(), 100);
    assert!(spool.is_done());
    drop(spool);
    assert!(!path.exists(), "nothing is left behind");
}

fn stands(ms: u64) -> RunBeat {
    let at = RunTime(ms * 1_000_000);
    let odometers = ld_shared::frame::Odometers::default();
    RunBeat { run: run(), at, odometers, users: ms, cpu_permille: 0, lag_us: 0, throttles: Vec::new() }
}

fn offered(messages: &[ToMaster]) -> Vec<(u64, u32)> {
    let key = |message: &ToMaster| match message {
        ToMaster::Frame { frame, .. } => Some((frame.key.seq, frame.body.from_second)),
        _ => None,
    };
    messages.iter().filter_map(key).collect()
}

#[test]
fn what_a_dead_process_left_is_delivered_under_its_numbers() {
    let (dir, path) = folder();
    let mut spool = in_folder(&dir);
    for n in 0..6 {
        spool.put(second(n, 100), RunTime(0));
        if n < 4 {
            spool.offer();
        }
    }
    spool.acknowledge(1);
    (1..=5).for_each(|ms| spool.note(&stands(ms)));
    assert!(find(dir.path()).is_empty(), "its process lives");
    drop(spool);
    assert!(find(dir.path()).is_empty(), "and has only let go of it");
    folder::die();
    assert!(frames(&path).contains(&"000000000001.counted".to_owned()), "{:?}", frames(&path));
    let mut found = find(dir.path());
    assert!(find(dir.path()).is_empty(), "and it has one heir");
    let mut heir = found.pop().unwrap().heir;
    let own = Hello { protocol: 2, build: "b".into(), name: "w".into(), cores: 1, returning: None };
    let secret = Bytes::from_static(b"secret");
    assert_eq!(heir.hello(&own).returning, Some(Returning { session: SessionId(7), secret, heir_of: Some(run()) }));
    let said = heir.begin(Mono(0));
    assert!(matches!(&said[0], ToMaster::Beat(beat) if beat.run == Some(stands(5))));
    assert_eq!(offered(&said), [(2, 1), (3, 2), (4, 3), (5, 4)]);
    // the last second was to gather with the one after it, which never came
    assert_eq!(offered(&heir.acknowledge(2)), [(6, 5)]);
    // the connection ends, and another one stands
    assert_eq!(offered(&heir.begin(Mono(0))), [(3, 2), (4, 3), (5, 4), (6, 5)]);
    heir.acknowledge(6);
    assert!(!heir.is_done(), "its last word is not taken");
    heir.heard();
    assert!(heir.is_done());
    drop(heir);
    assert!(!path.exists(), "nothing is left behind");
}

#[test]
fn what_may_be_counted_already_is_not_delivered_under_another_number() {
    let (dir, path) = folder();
    let mut spool = in_folder(&dir);
    for n in 0..3 {
        spool.put(second(n, 100), RunTime(0));
        spool.offer();
    }
    spool.acknowledge(3);
    spool.put(second(3, 100), RunTime(0));
    drop(spool);
    folder::die();
    // a disk on which a frame could neither be renamed when it was offered nor when it was counted
    let stale = frame_to_bytes(&second(2, 100), RunTime(0));
    std::fs::write(path.join("000000000002.sealed"), stale).unwrap();
    assert!(find(dir.path()).is_empty());
    folder::die();
    std::fs::remove_file(path.join("000000000002.sealed")).unwrap();
    let mut heir = find(dir.path()).pop().unwrap().heir;
    assert_eq!(offered(&heir.begin(Mono(0))), [(4, 3)]);
}

#[test]
fn what_cannot_be_read_of_the_dead_is_left_where_it_is() {
    let (dir, path) = folder();
    let left = || {
        let mut spool = in_folder(&dir);
        for n in 0..3 {
            spool.put(second(n, 100), RunTime(0));
            spool.offer();
        }
        spool.note(&stands(1));
        spool.note(&stands(2));
    };
    left();
    folder::die();
    // the newest note was being written, and so was the second frame
    let notes = std::fs::read(path.join("stands")).unwrap();
    std::fs::write(path.join("stands"), [&notes[..1_024], &notes[1_024..1_050], &[7; 998]].concat()).unwrap();
    std::fs::write(path.join("000000000002.offered"), b"half").unwrap();
    let mut heir = find(dir.path()).pop().unwrap().heir;
    let said = heir.begin(Mono(0));
    assert!(matches!(&said[0], ToMaster::Beat(beat) if beat.run == Some(stands(1))));
    assert_eq!(offered(&said), [(1, 0)]);
    heir.acknowledge(1);
    heir.heard();
    assert!(heir.is_done());
    drop(heir);
    folder::die();
    assert_eq!(frames(&path), ["000000000001.counted", "000000000002.offered", "000000000003.offered"]);
    std::fs::write(path.join("home"), b"{}").unwrap();
    std::fs::create_dir(dir.path().join("of somebody else")).unwrap();
    assert!(find(dir.path()).is_empty());
    assert!(find(&dir.path().join("none")).is_empty());
}
