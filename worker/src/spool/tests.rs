use super::*;
use ld_shared::id::{RunId, SessionId};
use ld_shared::sample::{FailureKind, Phase, SeriesKey};
use ld_shared::snapshot::FailureCount;
use proptest::prelude::*;
use std::collections::BTreeMap;
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
        let used: usize = board.1.values().map(Vec::len).sum();
        if used + bytes.len() > board.0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(board.1.insert(number, bytes.to_vec()).is_none());
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

#[test]
fn a_folder_holds_what_memory_has_no_room_for() {
    let dir = std::env::temp_dir().join(format!("ld-spool-{}", std::process::id()));
    let run = RunId("a/../b".into());
    let folder = Folder::new(&dir, &run, SessionId(7));
    let path = dir.join("a____b.0000000000000007");
    let files = || {
        let mut names: Vec<String> =
            std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut spool = Spool::new(Some(Box::new(folder)));
    spool.memory = 0;
    spool.put(second(0, 100), RunTime(5));
    spool.put(second(1, 100), RunTime(6));
    assert_eq!(files()[0], "000000000000.sealed");
    assert!(spool.in_memory == 0 && spool.waiting.iter().all(|waiting| waiting.bytes.is_none()));
    let (seq, body, sealed_at) = spool.offer().unwrap();
    assert_eq!((seq, &*body, sealed_at), (1, &*second(0, 100), RunTime(5)));
    assert!(files().contains(&"000000000001.offered".to_owned()));
    // another process finds the very bytes
    let left = std::fs::read(path.join("000000000001.offered")).unwrap();
    assert_eq!(frame_from_bytes(&left).unwrap(), (*body, RunTime(5)));
    spool.put(end(2), RunTime(7));
    spool.acknowledge(1);
    assert_eq!(drain(&mut spool).iter().map(requests).sum::<u64>(), 100);
    assert!(spool.is_done() && files().is_empty());
    drop(spool);
    assert!(!path.exists(), "nothing is left behind");
    std::fs::remove_dir(&dir).unwrap();
}
