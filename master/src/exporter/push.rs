//! Exporters that send: readings become batches, batches wait in a bounded queue, one after another
//! is delivered.

use super::tally::Tally;
use super::{Life, Reading};
use bytes::Bytes;
use ld_shared::boot::task;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

/// At its end an exporter has so long for what still waits.
pub(super) const FLUSH: Duration = Duration::from_secs(2);
/// The pause before the first repetition, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is delivered as a whole or not at all.
pub(super) struct Batch {
    /// Its bytes.
    pub body: Bytes,
    /// What it counts in the tally.
    pub units: u64,
}

/// Makes batches of readings. Readings that it does not see are no loss: each holds all of those before.
pub(super) trait Encoder: Send {
    /// What the reading adds to those before.
    fn encode(&mut self, reading: &Arc<Reading>) -> Vec<Batch>;
}

/// Delivers batches.
pub(super) trait Deliver: Send + 'static {
    /// Delivers one.
    fn deliver(&mut self, batch: &Batch) -> impl Future<Output = Result<(), Undelivered>> + Send;

    /// Everything has been delivered: says so if that turns out not to be true.
    fn settle(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Why a batch was not delivered.
#[derive(Debug)]
pub(super) struct Undelivered {
    /// What was seen.
    pub why: String,
    /// Whether trying again may help.
    pub again: bool,
}

impl Undelivered {
    pub(super) fn again(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: true }
    }

    pub(super) fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: false }
    }
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Batches that may wait.
    pub queue: usize,
    /// A batch is tried again for so long.
    pub patience: Duration,
    /// Least time between two readings that are sent.
    pub every: Duration,
}

/// Sends until the end, and then what is left.
pub(super) async fn run(life: Life, mut encoder: impl Encoder, deliver: impl Deliver, rules: Rules) {
    let Life { mut readings, ending, cut, tally, .. } = life;
    let (queue, waiting) = mpsc::channel(rules.queue);
    let delivery =
        task::spawn("delivery of an exporter", deliver_all(waiting, deliver, Arc::clone(&tally), rules.patience));
    loop {
        tokio::select! {
            // the last reading is looked at below
            biased;
            () = ending.cancelled() => break,
            changed = readings.changed() => if changed.is_err() { break },
        }
        let reading = Arc::clone(&readings.borrow_and_update());
        for batch in encoder.encode(&reading) {
            tally.queue(batch.units);
            if let Err(full) = queue.try_send(batch) {
                tally.lose(full.into_inner().units, "its queue is full");
            }
        }
        tokio::select! {
            () = sleep(rules.every) => {}
            () = ending.cancelled() => break,
        }
    }
    let end = Instant::now() + FLUSH;
    let last = Arc::clone(&readings.borrow_and_update());
    let flush = async {
        for batch in encoder.encode(&last) {
            tally.queue(batch.units);
            // an error means that delivery is gone: what is open then is counted below
            drop(queue.send(batch).await);
        }
        drop(queue);
    };
    let abort = delivery.abort_handle();
    let all = async {
        flush.await;
        drop(delivery.await);
    };
    tokio::select! {
        _ = timeout_at(end, all) => {}
        () = cut.cancelled() => {}
    }
    abort.abort();
    tally.close("not delivered in time at the end");
}

async fn deliver_all(
    mut waiting: mpsc::Receiver<Batch>,
    mut deliver: impl Deliver,
    tally: Arc<Tally>,
    patience: Duration,
) {
    let mut ill = false;
    while let Some(batch) = waiting.recv().await {
        let end = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(Undelivered { why, again }) = deliver.deliver(&batch).await else {
                if std::mem::take(&mut ill) {
                    tracing::info!(exporter = tally.name, "the other end of the exporter takes metrics again");
                }
                tally.deliver(batch.units);
                break;
            };
            if !std::mem::replace(&mut ill, true) {
                tracing::warn!(exporter = tally.name, "cannot deliver to {}: {why}", tally.place);
            }
            if !again || Instant::now() + pause > end {
                tally.lose(batch.units, &why);
                break;
            }
            tally.blame(&why);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    deliver.settle().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Console;
    use crate::remote::Feed;
    use chrono::DateTime;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    /// One batch of one a reading.
    struct One;

    impl Encoder for One {
        fn encode(&mut self, reading: &Arc<Reading>) -> Vec<Batch> {
            vec![Batch { body: Bytes::from(reading.feed.finished.to_string()), units: 1 }]
        }
    }

    /// Takes nothing before a reading, and that and all after it.
    struct From(u64, Arc<AtomicU64>);

    impl Deliver for From {
        async fn deliver(&mut self, batch: &Batch) -> Result<(), Undelivered> {
            let number: u64 = std::str::from_utf8(&batch.body).unwrap().parse().unwrap();
            self.1.fetch_add(1, Ordering::Relaxed);
            if number < self.0 { Err(Undelivered::again("down")) } else { Ok(()) }
        }
    }

    /// An end that is only there for readings from `from` on; what was sent, dropped, tried.
    async fn ten_readings(from: u64, rules: Rules) -> (u64, u64, u64) {
        let reading = |n: u64| {
            let feed = Feed { finished: n, ..Feed::default() };
            Arc::new(Reading { at: DateTime::UNIX_EPOCH, feed, tallies: Vec::new() })
        };
        let (sender, readings) = watch::channel(reading(0));
        let tally = Arc::new(Tally::new("x".into(), "there".into(), "points"));
        let (ending, cut) = (CancellationToken::new(), CancellationToken::new());
        let tries = Arc::new(AtomicU64::new(0));
        let life = Life {
            readings,
            ending: ending.clone(),
            cut,
            tally: Arc::clone(&tally),
            console: Arc::new(Console::silent()),
        };
        let work = tokio::spawn(run(life, One, From(from, Arc::clone(&tries)), rules));
        for n in 1..10 {
            sender.send_replace(reading(n));
            sleep(EVERY).await;
        }
        sender.send_replace(reading(10));
        ending.cancel();
        work.await.unwrap();
        (tally.sent(), tally.dropped(), tries.load(Ordering::Relaxed))
    }

    const EVERY: Duration = Duration::from_millis(100);
    const RULES: Rules = Rules { queue: 4, patience: Duration::from_millis(300), every: Duration::ZERO };

    #[tokio::test]
    async fn all_of_it_arrives() {
        assert_eq!(ten_readings(0, RULES).await, (10, 0, 10));
    }

    #[tokio::test]
    async fn an_end_that_is_down_costs_what_does_not_fit_and_no_time() {
        let within = 9 * EVERY + FLUSH + Duration::from_secs(5);
        let ended = tokio::time::timeout(within, ten_readings(u64::MAX, RULES)).await;
        let (sent, dropped, _) = ended.expect("it ends");
        assert_eq!((sent, dropped), (0, 10));
    }

    #[tokio::test]
    async fn what_waited_arrives_when_the_end_is_back() {
        let (sent, dropped, tries) = ten_readings(5, RULES).await;
        assert_eq!(sent + dropped, 10);
        assert!(sent >= 5 && tries > 10, "{sent} of 10 sent by {tries} tries");
    }
}
