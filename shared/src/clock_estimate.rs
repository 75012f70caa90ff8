//! A worker's estimate of the master's clock.
//!
//! Source: the offset formula of NTP (RFC 5905, section 8), taken from the exchange with the least
//! round trip among the last 64: a short exchange bounds its own error.

use crate::message::{BeatReply, ClockReport};
use crate::time::Mono;
use std::collections::VecDeque;

const EXCHANGES: usize = 64;

/// An estimate of another node's clock. Never asks a clock.
#[derive(Clone, Debug, Default)]
pub struct ClockEstimate {
    /// (round trip, offset) in ns, oldest first.
    exchanges: VecDeque<(u64, i64)>,
}

impl ClockEstimate {
    /// Takes an answered heartbeat whose reply was read at `read_at`. Impossible ones are ignored.
    pub fn add(&mut self, reply: &BeatReply, read_at: Mono) {
        let away = read_at.0.checked_sub(reply.sent_at.0);
        let there = reply.replied_at.0.checked_sub(reply.received_at.0);
        let (Some(away), Some(there)) = (away, there) else { return };
        let Some(round_trip) = away.checked_sub(there) else { return };
        let out = i128::from(reply.received_at.0) - i128::from(reply.sent_at.0);
        let back = i128::from(reply.replied_at.0) - i128::from(read_at.0);
        let Ok(offset) = i64::try_from(out.midpoint(back)) else { return };
        if self.exchanges.len() == EXCHANGES {
            self.exchanges.pop_front();
        }
        self.exchanges.push_back((round_trip, offset));
    }

    /// Offset (other − own) and the bound on its error; `None` before the first exchange.
    pub fn report(&self) -> Option<ClockReport> {
        let (round_trip, offset) = self.exchanges.iter().min_by_key(|(round_trip, _)| *round_trip)?;
        Some(ClockReport { offset: *offset, error: round_trip.div_ceil(2) })
    }

    /// An instant of the other node on the own clock.
    pub fn to_own(&self, other: Mono) -> Option<Mono> {
        let own = i128::from(other.0) - i128::from(self.report()?.offset);
        Some(Mono(own.clamp(0, i128::from(u64::MAX)) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::BEAT_EVERY;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_error_stays_within_its_bound(
            offset in -1_000_000_000_000i64..1_000_000_000_000,
            delays in prop::collection::vec((1u64..50_000_000, 1u64..50_000_000, 0u64..1_000_000), 1..100),
        ) {
            let mut estimate = ClockEstimate::default();
            let mut own = 10_000_000_000_000u64;
            for (number, (out, back, held)) in delays.into_iter().enumerate() {
                let there = |own: u64| Mono(own.checked_add_signed(offset).unwrap());
                let reply = BeatReply {
                    number: number as u64,
                    sent_at: Mono(own),
                    received_at: there(own + out),
                    replied_at: there(own + out + held),
                    every: BEAT_EVERY,
                };
                own += out + held + back;
                estimate.add(&reply, Mono(own));
                own += 200_000_000;
            }
            let report = estimate.report().unwrap();
            prop_assert!(report.offset.abs_diff(offset) <= report.error + 1);
        }
    }

    #[test]
    fn replies_that_cannot_be_are_ignored() {
        let mut estimate = ClockEstimate::default();
        let (sent_at, received_at, replied_at) = (Mono(100), Mono(50), Mono(20));
        let reply = BeatReply { number: 1, sent_at, received_at, replied_at, every: BEAT_EVERY };
        estimate.add(&reply, Mono(200));
        estimate.add(&BeatReply { received_at: Mono(0), replied_at: Mono(500), ..reply }, Mono(200));
        assert_eq!(estimate.report(), None);
        assert_eq!(estimate.to_own(Mono(7)), None);
    }
}
