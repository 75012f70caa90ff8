//! Stamps in payloads, and what a subscriber learns from them: latency, loss, duplicates, order.
//!
//! A stamp is `~ld:PUBLISHER:SEQUENCE:NANOSECONDS~`, the payload follows: PUBLISHER is 16 hex digits,
//! drawn anew for each user, topic and connection; SEQUENCE counts its messages from 1; NANOSECONDS
//! are those since 1970 on the publisher's wall clock when the message was handed over.

use ld_shared::boot::clock::wall;
use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;

/// Most topics that one user numbers; the oldest give way, and begin anew as other publishers.
const MAX_TOPICS: usize = 256;
/// Most publishers that one subscriber follows.
const MAX_PUBLISHERS: usize = 65_536;
/// Most missing messages of one publisher that may still come late; older ones are lost.
const MAX_MISSING: usize = 1024;
/// A larger leap in the numbers is none of lost messages.
const MAX_LEAP: u64 = 100_000;

const START: &[u8] = b"~ld:";

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) publisher: u64,
    pub(super) sequence: u64,
    pub(super) sent_ns: u64,
}

impl Stamp {
    /// Appends it to `out`.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let Self { publisher, sequence, sent_ns } = self;
        write!(out, "~ld:{publisher:016x}:{sequence}:{sent_ns}~").expect("a vector takes all that is written to it");
    }

    /// The stamp in front of a payload, and its length.
    pub(super) fn read(payload: &[u8]) -> Option<(Self, usize)> {
        let rest = payload.strip_prefix(START)?;
        // three numbers fit into this many characters
        let end = rest.iter().take(64).position(|byte| *byte == b'~')?;
        let mut parts = std::str::from_utf8(&rest[..end]).ok()?.split(':');
        let publisher = u64::from_str_radix(parts.next()?, 16).ok()?;
        let (sequence, sent_ns) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some((Self { publisher, sequence, sent_ns }, START.len() + end + 1))
    }
}

/// This node's wall clock, ns since 1970.
pub(super) fn wall_ns() -> u64 {
    // before 1970 and after 2262 nothing can be measured
    wall().timestamp_nanos_opt().map_or(0, |ns| u64::try_from(ns).unwrap_or(0))
}

/// Numbers the messages of one user, topic by topic: a subscriber sees all of a topic or none.
#[derive(Debug, Default)]
pub(super) struct Numbers(Vec<(Box<str>, u64, u64)>);

impl Numbers {
    /// The next stamp of a topic.
    pub(super) fn next(&mut self, topic: &str) -> Stamp {
        let at = self.0.iter().position(|(known, ..)| **known == *topic).unwrap_or_else(|| {
            if self.0.len() == MAX_TOPICS {
                self.0.remove(0);
            }
            self.0.push((topic.into(), rand::random(), 0));
            self.0.len() - 1
        });
        let (_, publisher, sequence) = &mut self.0[at];
        *sequence += 1;
        Stamp { publisher: *publisher, sequence: *sequence, sent_ns: wall_ns() }
    }
}

/// What a message's number says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Next,
    Duplicate,
    Late,
}

/// Follows the numbers of the publishers that one subscription hears.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    publishers: HashMap<u64, Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    highest: u64,
    missing: BTreeSet<u64>,
}

impl Tracker {
    /// Notes a message: what its number says of it, and how many are known to be lost since.
    pub(super) fn note(&mut self, stamp: Stamp) -> (Order, u64) {
        let room = self.publishers.len() < MAX_PUBLISHERS;
        let Some(followed) = self.publishers.get_mut(&stamp.publisher) else {
            if room {
                // what was sent before the subscription stood is not lost
                let followed = Followed { highest: stamp.sequence, missing: BTreeSet::new() };
                self.publishers.insert(stamp.publisher, followed);
            }
            return (Order::Next, 0);
        };
        if stamp.sequence <= followed.highest {
            let was_missing = followed.missing.remove(&stamp.sequence);
            return (if was_missing { Order::Late } else { Order::Duplicate }, 0);
        }
        let leap = stamp.sequence - followed.highest - 1;
        let mut lost = 0;
        if leap <= MAX_LEAP {
            for missing in followed.highest + 1..stamp.sequence {
                followed.missing.insert(missing);
                if followed.missing.len() > MAX_MISSING {
                    followed.missing.pop_first();
                    lost += 1;
                }
            }
        }
        followed.highest = stamp.sequence;
        (Order::Next, lost)
    }

    /// How many messages never came; forgets all.
    pub(super) fn finish(&mut self) -> u64 {
        let lost = self.publishers.values().map(|followed| followed.missing.len() as u64).sum();
        self.publishers.clear();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stamps_are_numbered_by_topic_and_read_back() {
        let mut numbers = Numbers::default();
        let (a, b, c) = (numbers.next("a"), numbers.next("b"), numbers.next("a"));
        assert_eq!((a.sequence, b.sequence, c.sequence), (1, 1, 2));
        assert_eq!(a.publisher, c.publisher);
        let mut payload = Vec::new();
        c.write(&mut payload);
        let length = payload.len();
        payload.extend_from_slice(b"~rest");
        assert_eq!(Stamp::read(&payload), Some((c, length)));
        for text in ["", "~ld:", "~ld:1:2~", "~ld:x:1:1~", "~ld:1:2:3:4~", "ld:1:2:3~"] {
            assert_eq!(Stamp::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_leap_that_none_can_have_lost_is_no_loss() {
        let mut tracker = Tracker::default();
        let stamp = |sequence| Stamp { publisher: 1, sequence, sent_ns: 0 };
        tracker.note(stamp(1));
        assert_eq!(tracker.note(stamp(u64::MAX)), (Order::Next, 0));
        assert_eq!(tracker.finish(), 0);
    }

    proptest! {
        // every message in a publisher's span is received in order, late, or lost
        #[test]
        fn spans_add_up(sequences in proptest::collection::vec(1_u64..4000, 1..300)) {
            let mut tracker = Tracker::default();
            let (mut seen, mut lost, mut duplicates) = (0, 0, 0);
            for sequence in &sequences {
                let (order, gone) = tracker.note(Stamp { publisher: 7, sequence: *sequence, sent_ns: 0 });
                lost += gone;
                if order == Order::Duplicate { duplicates += 1 } else { seen += 1 }
            }
            lost += tracker.finish();
            let span = sequences.iter().max().unwrap() - sequences[0] + 1;
            prop_assert_eq!(seen + lost, span);
            prop_assert_eq!(seen + duplicates, sequences.len() as u64);
        }
    }
}
