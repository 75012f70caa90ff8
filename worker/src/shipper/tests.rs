//! A cluster of shippers: the exact sample, whatever the split; bounds of bytes and of memory.

use super::*;
use crate::kept::Texts;
use crate::sampler::Sampler;
use ld_shared::record::Bodies;
use ld_shared::rng::KeyedRng;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn policy(keep: u64) -> RecordPolicy {
    RecordPolicy { keep, bodies: Bodies::None, all: false }
}

fn kept(priority: u64, at: u64, failed: bool) -> Kept {
    Kept {
        priority,
        ended_at: at,
        started_at: at,
        response_us: 1,
        body_bytes: 0,
        url: "http://127.0.0.1:8080/hit".into(),
        error: failed.then(|| "e".into()),
        answer: None,
        status: Some(200),
        series: 1,
        origin: 0,
    }
}

fn spell(kept: Kept) -> Record {
    let [name, request_type, scenario, worker] = ["n", "GET", "s", ""].map(Arc::from);
    kept.spell(Texts { name, request_type, scenario, worker })
}

fn line(url: String) -> RequestLine {
    RequestLine {
        started_at: 1,
        request_type: "GET".into(),
        url: url.into(),
        name: "n".into(),
        status: Some(200),
        response_us: 1,
        body_bytes: 0,
        error: None,
    }
}

/// The master as far as records go: the `k` lowest of each kind.
struct Master {
    keep: usize,
    kept: [BTreeMap<u64, Record>; 2],
}

impl Master {
    fn take(&mut self, body: RecordBody) {
        for record in body.kept {
            let kept = &mut self.kept[usize::from(record.error.is_some())];
            kept.insert(record.priority, record);
            if kept.len() > self.keep {
                kept.pop_last();
            }
        }
    }

    fn limits(&self) -> [u64; 2] {
        [0, 1].map(|kind: usize| {
            let full = self.kept[kind].len() >= self.keep;
            self.kept[kind].last_key_value().filter(|_| full).map_or(u64::MAX, |(priority, _)| *priority)
        })
    }
}

struct Worker {
    limits: RecordLimits,
    cores: Vec<Sampler>,
    shipper: Shipper,
}

impl Worker {
    fn new(keep: u64, salts: impl Iterator<Item = u64>) -> Self {
        let limits: RecordLimits = Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]);
        let core = |salt| Sampler::new(policy(keep), Arc::clone(&limits), salt);
        Self { cores: salts.map(core).collect(), limits, shipper: Shipper::new(policy(keep)) }
    }

    /// As the aggregator does it.
    fn ship(&mut self) -> Vec<RecordBody> {
        for (mine, limit) in self.limits.iter().zip(self.shipper.limits()) {
            mine.fetch_min(limit, Ordering::Relaxed);
        }
        self.shipper.thin([0, 1].map(|kind| self.limits[kind].load(Ordering::Relaxed)));
        std::iter::from_fn(|| self.shipper.next(spell)).collect()
    }

    fn hear(&mut self, limits: [u64; 2]) {
        for (mine, limit) in self.limits.iter().zip(limits) {
            mine.fetch_min(limit, Ordering::Relaxed);
        }
        self.shipper.acknowledge();
    }
}

/// Every request of a simulated run, by kind: (priority, cell). Cells are (worker, core, tenth of
/// the time).
struct Simulated {
    all: [Vec<(u64, usize)>; 2],
    kept: [Vec<u64>; 2],
    cells: usize,
}

/// `rates`: requests per second of each core of each worker.
fn simulate(keep: u64, rates: &[Vec<u64>], seconds: u64, salt: u64) -> Simulated {
    let mut number = 0;
    let mut chance = KeyedRng::new(salt, 1, 1);
    let mut workers: Vec<Worker> = rates
        .iter()
        .map(|cores| {
            number += cores.len() as u64;
            Worker::new(keep, (0..cores.len() as u64).map(|core| salt ^ ((number << 8) + core)))
        })
        .collect();
    let mut master = Master { keep: keep as usize, kept: [BTreeMap::new(), BTreeMap::new()] };
    let mut all = [Vec::new(), Vec::new()];
    let mut at = 0;
    for second in 0..seconds {
        let mut cell = (second * 10 / seconds) as usize;
        for (worker, rates) in workers.iter_mut().zip(rates) {
            for (core, rate) in worker.cores.iter_mut().zip(rates) {
                for _ in 0..*rate {
                    at += 1;
                    let ticket = core.draw();
                    let failed = chance.below(4) == 0;
                    all[usize::from(failed)].push((ticket.priority, cell));
                    if core.keeps(&ticket, failed) {
                        worker.shipper.offer(second as u32, [kept(ticket.priority, at, failed)]);
                    }
                }
                cell += 10;
            }
            assert!(worker.ship().is_empty(), "a request overtook the frame that counts it");
            worker.shipper.second(second as u32);
            for kind in &worker.shipper.kinds {
                assert!(kind.len() <= keep as usize);
            }
            let batches = worker.ship();
            let size: usize = batches.iter().flat_map(|batch| &batch.kept).map(Record::size).sum();
            assert!(size.cast_signed() <= BYTES_PER_SECOND + 1_000, "{size} bytes in a second");
            for batch in batches {
                master.take(batch);
                // now and then an acknowledgement is late
                if chance.below(3) > 0 {
                    worker.hear(master.limits());
                }
            }
        }
    }
    for worker in &mut workers {
        worker.shipper.end();
        loop {
            let batches = worker.ship();
            if batches.is_empty() {
                worker.hear(master.limits());
            }
            for batch in batches {
                master.take(batch);
                worker.hear(master.limits());
            }
            if worker.shipper.is_done() {
                break;
            }
        }
    }
    let cells = rates.iter().map(Vec::len).sum::<usize>() * 10;
    Simulated { all, kept: master.kept.map(|kept| kept.into_keys().collect()), cells }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_cluster_keeps_exactly_the_lowest_priorities_of_all(
        keep in 1u64..3_000,
        rates in prop::collection::vec(prop::collection::vec(0u64..300, 1..4), 1..5),
        seconds in 1u64..12,
        salt: u64,
    ) {
        let run = simulate(keep, &rates, seconds, salt);
        for (mut all, kept) in run.all.into_iter().zip(run.kept) {
            all.sort_unstable();
            let lowest: Vec<u64> = all.iter().take(keep as usize).map(|(priority, _)| *priority).collect();
            prop_assert_eq!(kept, lowest);
        }
    }
}

/// χ² of the kept requests over workers, cores and time, added up over runs: every request has the
/// same chance, however unequal the split.
#[test]
fn the_sample_is_uniform_over_workers_cores_and_time() {
    let rates = [vec![400, 400], vec![100], vec![20, 300, 50]];
    let (mut expected, mut observed) = (vec![0.0; 60], vec![0.0; 60]);
    for salt in 0..20 {
        let run = simulate(1_000, &rates, 20, salt * 7_919);
        assert_eq!(run.cells, expected.len());
        for (all, kept) in run.all.iter().zip(&run.kept) {
            assert_eq!(kept.len(), 1_000);
            let limit = kept[kept.len() - 1];
            for (priority, cell) in all {
                expected[*cell] += 1_000.0 / all.len() as f64;
                observed[*cell] += f64::from(u8::from(*priority <= limit));
            }
        }
    }
    let chi: f64 = expected.iter().zip(&observed).map(|(e, o): (&f64, &f64)| (o - e).powi(2) / e).sum();
    // 59 degrees of freedom: mean 59, standard deviation 10.9; 99.9 % lie below 98
    assert!((25.0..98.0).contains(&chi), "χ² = {chi}");
}

#[test]
fn large_answers_lower_the_number_kept_and_not_the_bound() {
    let mut shipper = Shipper::with_bytes(policy(1_000), 50_000);
    let mut rng = KeyedRng::new(1, 2, 3);
    let mut drawn = Vec::new();
    for at in 0..5_000 {
        let mut kept = kept(rng.next_u64(), at, true);
        kept.answer = Some(Arc::new(ld_shared::record::Answer { headers: Vec::new(), body: vec![0; 1_000] }));
        drawn.push(kept.priority);
        shipper.offer(0, [kept]);
        shipper.second(0);
        assert!(shipper.kinds[1].bytes() <= 50_000);
    }
    drawn.sort_unstable();
    let mut held: Vec<u64> = shipper.kinds[1].held().map(|kept| kept.priority).collect();
    held.sort_unstable();
    // an eighth may be free
    assert!((35..50).contains(&held.len()), "{}", held.len());
    assert_eq!(held, drawn[..held.len()]);
}

#[test]
fn lines_leave_in_order_and_what_finds_no_room_is_left_out() {
    let mut shipper = Shipper::new(RecordPolicy { keep: 0, bodies: Bodies::None, all: true });
    let mut listed = 0_u64;
    for second in 0..40 {
        for i in 0..10_000 {
            shipper.list(second, &line(format!("http://127.0.0.1/a-rather-long-path/{second}/{i}")));
            listed += 1;
        }
        shipper.second(second);
        assert!(shipper.sealed_bytes <= MOST_LINES);
    }
    let mut left = Vec::new();
    let take = |shipper: &mut Shipper, left: &mut Vec<RequestLine>| {
        let bodies: Vec<RecordBody> = std::iter::from_fn(|| shipper.next(spell)).collect();
        for body in &bodies {
            assert!(body.lines.len() < 2 * BATCH);
            left.extend(Lines::decode(body.lines.clone()).unwrap());
        }
        bodies
    };
    assert_eq!(take(&mut shipper, &mut left).len(), RECORD_WINDOW, "the window holds");
    assert!(shipper.end());
    while !shipper.is_done() {
        shipper.acknowledge();
        let bodies = take(&mut shipper, &mut left);
        assert!(bodies.iter().all(|body| body.last == shipper.is_done()));
    }
    let first = "http://127.0.0.1/a-rather-long-path/0/0";
    assert_eq!(&*left[0].url, first);
    assert!((left.len() as u64) < listed, "16 MiB hold fewer");
    assert!(left.len() > 200_000, "{}", left.len());
}

#[test]
fn without_anything_to_ship_nothing_follows() {
    let mut shipper = Shipper::new(policy(5));
    shipper.second(0);
    assert_eq!(shipper.next(spell), None);
    assert!(!shipper.end() && shipper.is_done());
    assert_eq!(shipper.next(spell), None);
}
