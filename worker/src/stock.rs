//! Tickets of one pool that a worker was granted and has not used. Pure.
//!
//! A worker that dies takes its stock with it: nobody uses those tickets. So it holds no more than a few seconds of
//! use, and asks for the next ones early enough that no user waits for the master.

use ld_shared::time::{Mono, SECOND};
use std::collections::VecDeque;
use std::ops::Range;

/// Most tickets of one request.
const MOST: u64 = 100_000;

/// A pool's tickets of one worker.
#[derive(Debug, Default)]
pub struct Stock {
    ranges: VecDeque<Range<u64>>,
    exhausted: bool,
    /// A request is under way.
    asked: bool,
    /// Somebody found none, and it was said.
    told_empty: bool,
    /// When the newest request was made, for how many, and how many were taken since.
    asked_at: Mono,
    wanted: u64,
    taken: u64,
    /// How many the newest grant was, and how often somebody found none since the request.
    granted: u64,
    waits: u64,
}

/// What came of asking for a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the caller's alone.
    Ticket(u64),
    /// The cluster has none left. The first to find that out is to tell the master.
    None {
        /// It is the first.
        first: bool,
    },
    /// There will be some once the master has answered.
    Wait,
}

impl Stock {
    /// The next ticket, and how many the master is to be asked for now.
    pub fn take(&mut self, now: Mono) -> (Taken, Option<u64>) {
        let ticket = self.ranges.front_mut().and_then(Iterator::next);
        if self.ranges.front().is_some_and(Range::is_empty) {
            self.ranges.pop_front();
        }
        self.taken += u64::from(ticket.is_some());
        let taken = match ticket {
            Some(ticket) => Taken::Ticket(ticket),
            None if self.exhausted => Taken::None { first: !std::mem::replace(&mut self.told_empty, true) },
            None => Taken::Wait,
        };
        self.waits += u64::from(taken == Taken::Wait);
        (taken, self.ask(now))
    }

    /// Asks for 2 s of use while 1 s of it is left. At first nobody knows what that is: while users wait, and until
    /// tickets last for a second, each request is for four times of what the one before gave.
    fn ask(&mut self, now: Mono) -> Option<u64> {
        if self.exhausted || self.asked || self.left() * 2 > self.wanted {
            return None;
        }
        let nanoseconds = now.since(self.asked_at).as_nanos() as u64;
        let want = u128::from(self.taken) * u128::from(2 * SECOND) / u128::from(nanoseconds.max(SECOND));
        let more = if self.waits > 0 && nanoseconds < SECOND { self.granted * 4 } else { 0 };
        self.wanted = (want as u64).max(more).clamp(1, MOST);
        (self.asked, self.asked_at, self.taken, self.waits) = (true, now, 0, 0);
        Some(self.wanted)
    }

    /// Takes a ticket back that was not used.
    pub fn give_back(&mut self, ticket: u64) {
        self.ranges.push_front(ticket..ticket + 1);
    }

    /// Adds tickets that the master granted; `exhausted`: there are none after these.
    pub fn grant(&mut self, tickets: Range<u64>, exhausted: bool) {
        self.granted = tickets.end - tickets.start;
        if !tickets.is_empty() {
            self.ranges.push_back(tickets);
        }
        self.exhausted |= exhausted;
        self.asked = false;
    }

    fn left(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLI: u64 = SECOND / 1_000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Users that take so many tickets a second while there are some, from a master that answers after a while.
        #[test]
        fn a_stock_lasts_until_the_next_one_and_holds_a_few_seconds(rate in 1u64..20_000, answer_ms in 1u64..400) {
            let mut stock = Stock::default();
            let (mut next, mut answer, mut owed) = (0, None::<(u64, u64)>, 0);
            for milli in 0..20_000 {
                if let Some((_, want)) = answer.take_if(|(at, _)| *at <= milli) {
                    stock.grant(next..next + want, false);
                    next += want;
                }
                // in thousandths; whoever waits does not want another one
                owed = (owed + rate).min(100 * rate + 1_000);
                while owed >= 1_000 {
                    let (got, want) = stock.take(Mono(SECOND + milli * MILLI));
                    answer = answer.or(want.map(|want| (milli + answer_ms, want)));
                    if got == Taken::Wait {
                        prop_assert!(milli < 8_000, "waits for the master after {} s", milli / 1_000);
                        break;
                    }
                    owed -= 1_000;
                }
                if milli > 12_000 {
                    prop_assert!(stock.left() <= 5 * rate + 1, "{} tickets at {rate}/s", stock.left());
                }
            }
        }
    }

    #[test]
    fn the_end_of_a_pool_is_told_once() {
        let mut stock = Stock::default();
        assert_eq!(stock.take(Mono(0)), (Taken::Wait, Some(1)));
        assert_eq!(stock.take(Mono(0)), (Taken::Wait, None), "one request at a time");
        stock.grant(7..8, true);
        assert_eq!(stock.take(Mono(0)), (Taken::Ticket(7), None));
        stock.give_back(7);
        assert_eq!(stock.take(Mono(0)), (Taken::Ticket(7), None));
        assert_eq!(stock.take(Mono(0)), (Taken::None { first: true }, None));
        assert_eq!(stock.take(Mono(0)), (Taken::None { first: false }, None));
    }
}
