//! What arrives by subscription: measured when it comes, kept for those who wait for it.
//!
//! Each delivery counts once: as the answer of a `receive`, or as a message, with a stamp as
//! `MQTT delivery` at once, without one as `MQTT message` when it is clear that nobody receives it.

use super::packet::{self, Publish};
use super::stamp::{Order, Stamp, Tracker, wall_ns};
use crate::messages::{MessageSeries, Messages};
use ld_shared::boot::clock::mono;
use ld_shared::sample::{Failure, FailureKind};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most deliveries, and bytes of them, that wait for a `receive`; the oldest give way.
const MAX_WAITING: (usize, usize) = (1000, 4 * 1024 * 1024);

/// Deliveries of one connection.
pub(super) struct Inbox {
    messages: Messages,
    scenario: Arc<str>,
    /// Some step of the test receives.
    keeps: bool,
    waiting: VecDeque<Delivery>,
    bytes: usize,
    subscriptions: Vec<Subscription>,
}

/// A delivery that waits.
pub(super) struct Delivery {
    pub(super) publish: Publish,
    /// How to record it if nobody receives it: the gap since the one before.
    unrecorded: Option<(MessageSeries, u64)>,
}

struct Subscription {
    filter: Box<str>,
    /// Name in the statistics.
    name: Arc<str>,
    series: MessageSeries,
    /// Payloads begin with stamps.
    stamps: Option<Box<Stamped>>,
    /// When the last one came without a stamp, ns.
    last: u64,
}

struct Stamped {
    series: MessageSeries,
    tracker: Tracker,
}

const MESSAGE: &str = "MQTT message";
const DELIVERY: &str = "MQTT delivery";

impl Inbox {
    pub(super) fn new(messages: Messages, scenario: Arc<str>, keeps: bool) -> Self {
        Self { messages, scenario, keeps, waiting: VecDeque::new(), bytes: 0, subscriptions: Vec::new() }
    }

    /// A subscription is about to be asked for.
    pub(super) fn subscribe(&mut self, filter: &str, name: &Arc<str>, has_stamps: bool) {
        let (messages, scenario) = (&self.messages, &self.scenario);
        let series = messages.series(name, MESSAGE, scenario);
        let stamped = || {
            let series = messages.series(name, DELIVERY, scenario);
            Box::new(Stamped { series, tracker: Tracker::default() })
        };
        if let Some(known) = self.subscriptions.iter_mut().find(|known| *known.filter == *filter) {
            (known.series, known.name) = (series, Arc::clone(name));
            if has_stamps {
                known.stamps.get_or_insert_with(stamped);
            } else if let Some(mut stamped) = known.stamps.take() {
                stamped.finish(messages);
            }
            return;
        }
        let stamps = has_stamps.then(stamped);
        let subscription = Subscription { filter: filter.into(), name: Arc::clone(name), series, stamps, last: 0 };
        self.subscriptions.push(subscription);
    }

    /// A subscription is over, or was refused.
    pub(super) fn unsubscribe(&mut self, filter: &str) {
        if let Some(at) = self.subscriptions.iter().position(|known| *known.filter == *filter) {
            let subscription = self.subscriptions.remove(at);
            if let Some(mut stamped) = subscription.stamps {
                stamped.finish(&self.messages);
            }
        }
    }

    /// A delivery has come.
    pub(super) fn put(&mut self, mut publish: Publish) {
        let subscription = self.subscriptions.iter_mut().find(|known| packet::matches(&publish.topic, &known.filter));
        let unrecorded = match subscription {
            // of a session that the broker kept
            None => Some((self.messages.series("(no subscription)", MESSAGE, &self.scenario), 0)),
            Some(subscription) => {
                if let (Some(stamped), Some((stamp, length))) =
                    (&mut subscription.stamps, Stamp::read(&publish.payload))
                {
                    publish.payload = packet::without_stamp(publish.payload, length);
                    stamped.arrived(&self.messages, stamp, publish.payload.len() as u64);
                    None
                } else {
                    let now = mono().0;
                    let last = std::mem::replace(&mut subscription.last, now);
                    Some((subscription.series, if last == 0 { 0 } else { now.saturating_sub(last) }))
                }
            }
        };
        let delivery = Delivery { publish, unrecorded };
        if !self.keeps {
            return delivery.unawaited(&self.messages);
        }
        self.bytes += delivery.size();
        self.waiting.push_back(delivery);
        while self.waiting.len() > MAX_WAITING.0 || self.bytes > MAX_WAITING.1 {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.size();
            oldest.unawaited(&self.messages);
        }
    }

    /// The first that waits under a filter.
    pub(super) fn take(&mut self, filter: &str) -> Option<Publish> {
        let at = self.waiting.iter().position(|delivery| packet::matches(&delivery.publish.topic, filter))?;
        let delivery = self.waiting.remove(at)?;
        self.bytes -= delivery.size();
        Some(delivery.publish)
    }

    /// The connection broke while nobody looked: subscribers miss what is sent from now on.
    pub(super) fn lost_connection(&self, failure: &Failure) {
        if let Some(first) = self.subscriptions.first() {
            let series = self.messages.series(&first.name, "MQTT connection", &self.scenario);
            self.messages.record(series, 0, 0, Some(failure));
        }
    }

    /// The connection is over: what was not received will not be, what is missing is lost.
    pub(super) fn close(&mut self) {
        for delivery in self.waiting.drain(..) {
            delivery.unawaited(&self.messages);
        }
        self.bytes = 0;
        for subscription in self.subscriptions.drain(..) {
            if let Some(mut stamped) = subscription.stamps {
                stamped.finish(&self.messages);
            }
        }
    }
}

impl Delivery {
    fn size(&self) -> usize {
        self.publish.payload.len() + self.publish.topic.len()
    }

    fn unawaited(&self, messages: &Messages) {
        if let Some((series, gap)) = self.unrecorded {
            messages.record(series, gap, self.publish.payload.len() as u64, None);
        }
    }
}

impl Stamped {
    fn arrived(&mut self, messages: &Messages, stamp: Stamp, bytes: u64) {
        let (order, lost) = self.tracker.note(stamp);
        self.lost(messages, lost);
        let now = wall_ns();
        let failure = match order {
            Order::Duplicate => Some((FailureKind::Protocol, "duplicate")),
            Order::Late => Some((FailureKind::Protocol, "out of order")),
            // the publisher's clock is ahead of ours: the time that this took cannot be known
            Order::Next if now < stamp.sent_ns => Some((FailureKind::Request, "clock behind")),
            Order::Next => None,
        };
        let failure = failure.map(|(kind, reason)| Failure::new(kind, reason));
        messages.record(self.series, now.saturating_sub(stamp.sent_ns), bytes, failure.as_ref());
    }

    fn finish(&mut self, messages: &Messages) {
        let lost = self.tracker.finish();
        self.lost(messages, lost);
    }

    fn lost(&self, messages: &Messages, count: u64) {
        if count > 0 {
            let failure = Failure::new(FailureKind::Timeout, "lost");
            (0..count).for_each(|_| messages.record(self.series, 0, 0, Some(&failure)));
        }
    }
}
