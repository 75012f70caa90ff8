//! What arrived: counted at arrival, so that a client that dies before its answer is counted too.

use ld_shared::latency::Latency;
use ld_shared::time::Mono;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Paths, clients and seconds counted apart; what comes beyond is `(other)`, or the last second.
const MAX_KEYS: usize = 10_000;
const MAX_SECONDS: usize = 100_000;

/// One request that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arrival {
    /// Number of the arrival since start or reset, from 0.
    pub id: u64,
    /// When its head had been read, ns since the target's start.
    pub at_ns: u64,
    /// Who sent it.
    pub client: SocketAddr,
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Status of the answer that was chosen for it; 0: the connection is reset instead.
    pub status: u16,
    /// Delay that law and stalls chose for it.
    pub planned_ns: u64,
    /// Delay that was imposed, measured; `None`: not answered (yet).
    pub held_ns: Option<u64>,
}

/// Percentiles of the delay that was imposed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Held {
    /// Answers given.
    pub count: u64,
    /// Least, ms.
    pub min_ms: f64,
    /// Mean, ms.
    pub mean_ms: f64,
    /// Median, ms.
    pub p50_ms: f64,
    /// 90th percentile, ms.
    pub p90_ms: f64,
    /// 95th percentile, ms.
    pub p95_ms: f64,
    /// 99th percentile, ms.
    pub p99_ms: f64,
    /// Greatest, ms.
    pub max_ms: f64,
    /// The whole histogram: base64 of `HdrHistogram` V2 with deflate, µs.
    pub hdr: String,
}

impl From<&Latency> for Held {
    fn from(latency: &Latency) -> Self {
        let ms = |p: f64| latency.percentile(p) as f64 / 1e3;
        Self {
            count: latency.count(),
            min_ms: latency.min() as f64 / 1e3,
            mean_ms: latency.mean() / 1e3,
            p50_ms: ms(50.0),
            p90_ms: ms(90.0),
            p95_ms: ms(95.0),
            p99_ms: ms(99.0),
            max_ms: latency.max() as f64 / 1e3,
            hdr: latency.to_hdr(),
        }
    }
}

/// What arrived since start or reset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// Requests.
    pub total: u64,
    /// Requests whose answer was handed to the connection.
    pub answered: u64,
    /// By path, without query.
    pub by_path: BTreeMap<String, u64>,
    /// By client address.
    pub by_client: BTreeMap<String, u64>,
    /// By status chosen; 0 stands for a reset connection.
    pub by_status: BTreeMap<u16, u64>,
    /// By second since the first request.
    pub by_second: Vec<u64>,
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// Most connections open at once.
    pub max_open_connections: u64,
    /// Delay imposed.
    pub held: Held,
}

/// Everything that is counted, behind one lock: two short visits a request.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    first: Option<Mono>,
    counts: Counts,
    held: Latency,
    kept: Option<Vec<Arrival>>,
    /// Raised by a reset: answers to requests of before are not counted after it.
    age: u64,
}

/// Which arrival this is, and when after the first one it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) since_first: Duration,
    age: u64,
}

impl Ledger {
    /// Empty; with `keep` every arrival is kept.
    pub(super) fn new(keep: bool) -> Self {
        Self { kept: keep.then(Vec::new), ..Self::default() }
    }

    /// A number for a request that arrived at `now`.
    pub(super) fn arrive(&mut self, now: Mono) -> Ticket {
        let first = *self.first.get_or_insert(now);
        let ticket = Ticket { id: self.counts.total, since_first: now.since(first), age: self.age };
        self.counts.total += 1;
        let second = (ticket.since_first.as_secs() as usize).min(MAX_SECONDS);
        if self.counts.by_second.len() <= second {
            self.counts.by_second.resize(second + 1, 0);
        }
        self.counts.by_second[second] += 1;
        ticket
    }

    /// Counts what the request was, and what it will get.
    pub(super) fn describe(&mut self, path: &str, client: &str, status: u16) {
        bump(&mut self.counts.by_path, path);
        bump(&mut self.counts.by_client, client);
        *self.counts.by_status.entry(status).or_default() += 1;
    }

    /// Keeps an arrival if arrivals are kept.
    pub(super) fn keep(&mut self, arrival: impl FnOnce() -> Arrival) {
        if let Some(kept) = &mut self.kept {
            kept.push(arrival());
        }
    }

    /// Counts an answer that was given `held` after its request's arrival.
    pub(super) fn answer(&mut self, ticket: Ticket, held: Duration) {
        if ticket.age != self.age {
            return;
        }
        self.counts.answered += 1;
        self.held.record(held.as_micros() as u64);
        if let Some(arrival) = self.kept.as_mut().and_then(|kept| kept.get_mut(ticket.id as usize)) {
            arrival.held_ns = Some(held.as_nanos() as u64);
        }
    }

    /// Counts a connection that was accepted.
    pub(super) fn open(&mut self) {
        self.counts.connections += 1;
        self.counts.open_connections += 1;
        self.counts.max_open_connections = self.counts.max_open_connections.max(self.counts.open_connections);
    }

    /// Counts a connection that was closed.
    pub(super) fn close(&mut self) {
        self.counts.open_connections = self.counts.open_connections.saturating_sub(1);
    }

    /// What arrived.
    pub(super) fn counts(&self) -> Counts {
        Counts { held: Held::from(&self.held), ..self.counts.clone() }
    }

    /// Arrivals kept, in order; none if they are not kept.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.kept.clone().unwrap_or_default()
    }

    /// Forgets everything but the open connections.
    pub(super) fn reset(&mut self) {
        let open = self.counts.open_connections;
        let counts = Counts { open_connections: open, max_open_connections: open, ..Counts::default() };
        let age = self.age + 1;
        *self = Self { counts, age, kept: self.kept.is_some().then(Vec::new), ..Self::default() };
    }
}

fn bump(map: &mut BTreeMap<String, u64>, key: &str) {
    if let Some(count) = map.get_mut(key) {
        *count += 1;
    } else if map.len() < MAX_KEYS {
        map.insert(key.to_owned(), 1);
    } else {
        *map.entry("(other)".to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(1_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn seconds_count_from_the_first_request() {
        let mut ledger = Ledger::new(false);
        for ms in [0, 999, 1000, 3500] {
            ledger.arrive(at(ms));
        }
        assert_eq!(ledger.counts().by_second, [2, 1, 0, 1]);
        assert_eq!(ledger.counts().total, 4);
    }

    #[test]
    fn an_answer_from_before_a_reset_is_not_counted_after_it() {
        let mut ledger = Ledger::new(true);
        ledger.open();
        let old = ledger.arrive(at(0));
        ledger.reset();
        ledger.answer(old, Duration::from_millis(3));
        let counts = ledger.counts();
        assert_eq!((counts.total, counts.answered, counts.open_connections), (0, 0, 1));
        let new = ledger.arrive(at(10));
        ledger.answer(new, Duration::from_millis(3));
        assert_eq!((ledger.counts().answered, new.id), (1, 0));
        assert!((ledger.counts().held.max_ms - 3.0).abs() < 1e-9);
    }

    #[test]
    fn keys_are_bounded_and_nothing_is_lost() {
        let mut ledger = Ledger::new(false);
        for n in 0..MAX_KEYS + 5 {
            ledger.describe(&format!("/{n}"), "127.0.0.1", 200);
        }
        let counts = ledger.counts();
        assert_eq!(counts.by_path["(other)"], 5);
        assert_eq!(counts.by_path.values().sum::<u64>(), (MAX_KEYS + 5) as u64);
    }
}
