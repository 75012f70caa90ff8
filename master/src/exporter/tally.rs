//! What became of what an exporter was to deliver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What became of what an exporter was to deliver. What was queued is sent, dropped or still on its way.
#[derive(Debug)]
pub struct Tally {
    /// The exporter: `influx`, and `influx-2` beside it.
    pub name: String,
    /// Where its metrics go, without secrets.
    pub place: String,
    /// What is counted: points, exports, scrapes.
    pub unit: &'static str,
    queued: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    /// Why the last one was not delivered.
    fault: Mutex<Option<String>>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(name: String, place: String, unit: &'static str) -> Self {
        let (queued, sent, dropped) = Default::default();
        Self { name, place, unit, queued, sent, dropped, fault: Mutex::default() }
    }

    /// Delivered.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Not delivered, and never will be.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self, units: u64) {
        self.queued.fetch_add(units, Ordering::Relaxed);
    }

    pub(super) fn deliver(&self, units: u64) {
        self.sent.fetch_add(units, Ordering::Relaxed);
    }

    pub(super) fn lose(&self, units: u64, why: &str) {
        self.dropped.fetch_add(units, Ordering::Relaxed);
        self.blame(why);
    }

    /// What was said to be sent was not.
    pub(super) fn take_back(&self, units: u64, why: &str) {
        self.sent.fetch_sub(units, Ordering::Relaxed);
        self.lose(units, why);
    }

    pub(super) fn blame(&self, why: &str) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// Its time is over: whatever is still on its way is dropped.
    pub(super) fn close(&self, why: &str) {
        let settled = self.sent() + self.dropped();
        let open = self.queued.load(Ordering::Relaxed).saturating_sub(settled);
        if open > 0 {
            self.dropped.fetch_add(open, Ordering::Relaxed);
            let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            fault.get_or_insert_with(|| why.to_owned());
        }
    }

    /// The sentence at its end.
    pub(super) fn summary(&self) -> String {
        let Self { name, place, unit, .. } = self;
        let (sent, dropped) = (self.sent(), self.dropped());
        if dropped == 0 {
            return format!("exporter {name} ({place}): {sent} {unit} sent, none dropped");
        }
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let why = fault.map(|why| format!(": {why}")).unwrap_or_default();
        format!("warning: exporter {name} ({place}): {sent} {unit} sent, {dropped} dropped{why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_at_the_end_is_dropped() {
        let tally = Tally::new("influx".into(), "udp://h:1".into(), "points");
        tally.queue(10);
        tally.deliver(6);
        assert_eq!(tally.summary(), "exporter influx (udp://h:1): 6 points sent, none dropped");
        tally.take_back(1, "refused");
        tally.close("not answered in time");
        assert_eq!((tally.sent(), tally.dropped()), (5, 5));
        assert_eq!(tally.summary(), "warning: exporter influx (udp://h:1): 5 points sent, 5 dropped: refused");
    }
}
