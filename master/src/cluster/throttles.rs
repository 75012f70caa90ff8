//! Who holds how much of each limit on the rate of requests. Pure: no clock.
//!
//! Workers start with shares by their users. Each second, where users wait on one worker while
//! another leaves its share unused, shares follow the demand, in two steps: first whoever is to
//! have less is told so; only when all of them have confirmed it are others told that they have
//! more. So the shares in force never add up to more than the limit. What a lost worker held is
//! handed on when its lease is over.

use crate::journal::Limits;
use ld_shared::id::SessionId;
use ld_shared::message::LEASE;
use ld_shared::plan::ThrottlePlan;
use ld_shared::throttle::{PARTS, ThrottleUse};
use ld_shared::time::{Mono, RunTime};
use std::collections::BTreeMap;
use std::time::Duration;

/// Shares follow the demand so often.
const EVERY: Duration = Duration::from_secs(1);
/// Moving less than this is not worth the messages.
const WORTH: u32 = PARTS / 50;
/// A worker that wants nothing keeps this much, so that its next user needs no round trip.
const SPARE: u32 = PARTS / 100;
/// Whose users never wait keeps what it uses and this share more.
const ROOM: f64 = 1.25;

/// New shares of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whose.
    pub session: SessionId,
    /// What it must confirm.
    pub number: u64,
    /// Parts of every limit.
    pub parts: Vec<u32>,
}

/// The limits of one run.
#[derive(Clone, Debug, Default)]
pub struct Dealer {
    rates: Vec<f64>,
    holders: BTreeMap<SessionId, Holder>,
    /// Shares of lost workers, which may use them until then.
    held_back: Vec<(Mono, Vec<u32>)>,
    /// What everybody is to have in the end, while it is brought about.
    targets: Option<BTreeMap<SessionId, Vec<u32>>>,
    next: Mono,
    number: u64,
}

#[derive(Clone, Debug)]
struct Holder {
    /// In force, as far as it has confirmed.
    parts: Vec<u32>,
    /// Sent and not confirmed: whichever is more may be in force.
    sent: Option<(u64, Vec<u32>)>,
    demand: Demand,
}

/// What a worker said of its use since shares were last looked at.
#[derive(Clone, Debug, Default)]
struct Demand {
    first: Option<(RunTime, Vec<ThrottleUse>)>,
    newest: Option<(RunTime, Vec<ThrottleUse>)>,
    waited: Vec<u64>,
    reports: u64,
}

impl Demand {
    fn take(&mut self, at: RunTime, used: Vec<ThrottleUse>) {
        self.waited.resize(used.len(), 0);
        self.waited.iter_mut().zip(&used).for_each(|(sum, used)| *sum += used.waiting);
        self.reports += 1;
        self.first.get_or_insert_with(|| (at, used.clone()));
        self.newest = Some((at, used));
    }

    /// Requests per second, if there were two reports.
    fn rate(&self, limit: usize) -> Option<f64> {
        let ((from, before), (to, after)) = (self.first.as_ref()?, self.newest.as_ref()?);
        let seconds = to.as_secs() - from.as_secs();
        let passed = after.get(limit)?.passed.saturating_sub(before.get(limit)?.passed);
        (seconds > 0.0).then(|| passed as f64 / seconds)
    }

    /// Users that waited, on average; at least one if any ever did.
    fn waiting(&self, limit: usize) -> u64 {
        self.waited.get(limit).map_or(0, |sum| sum.div_ceil(self.reports.max(1)))
    }

    /// A new second: it begins where the old one ended.
    fn turn(&mut self) {
        *self = Self { first: self.newest.take(), ..Self::default() };
    }
}

impl Holder {
    /// Parts of a limit that may be in force.
    fn most(&self, limit: usize) -> u32 {
        let sent = self.sent.as_ref().map_or(0, |(_, parts)| parts[limit]);
        self.parts[limit].max(sent)
    }
}

impl Dealer {
    /// Over the limits of a plan, held in these parts from the start.
    pub fn new(limits: &[ThrottlePlan], shares: BTreeMap<SessionId, Vec<u32>>) -> Self {
        let holder = |(session, parts)| (session, Holder { parts, sent: None, demand: Demand::default() });
        Self {
            rates: limits.iter().map(|limit| limit.rate).collect(),
            holders: shares.into_iter().map(holder).collect(),
            ..Self::default()
        }
    }

    /// Over the limits of a plan that another master dealt: `held` by those who may come back, and by
    /// `lost` ones until then. Of what is held both the newest parts and those before may be in force.
    pub fn resume(limits: &[ThrottlePlan], held: BTreeMap<SessionId, Limits>, lost: Vec<(Mono, Limits)>) -> Self {
        let mut dealer = Self::new(limits, BTreeMap::new());
        let whole = |mut parts: Vec<u32>| {
            parts.resize(limits.len(), 0);
            parts
        };
        let all = held.values().chain(lost.iter().map(|(_, limits)| limits));
        dealer.number = all.map(|limits| limits.number).max().unwrap_or(0);
        for (session, Limits { before, newest, .. }) in held {
            let (before, newest) = (whole(before), whole(newest));
            let mut holder = Holder { parts: before, sent: None, demand: Demand::default() };
            if holder.parts != newest {
                dealer.number += 1;
                holder.sent = Some((dealer.number, newest));
            }
            dealer.holders.insert(session, holder);
        }
        let most = |limits: Limits| {
            whole(limits.before).into_iter().zip(whole(limits.newest)).map(|(a, b)| a.max(b)).collect()
        };
        dealer.held_back = lost.into_iter().map(|(until, limits)| (until, most(limits))).collect();
        dealer
    }

    /// A worker begins with nothing of the limits: what it needs it is given by its demand.
    pub fn join(&mut self, session: SessionId) {
        let parts = vec![0; self.rates.len()];
        self.holders.entry(session).or_insert(Holder { parts, sent: None, demand: Demand::default() });
    }

    /// Parts of every limit that a worker has by what it was sent last, confirmed or not: whatever it is
    /// sent now, it reads afterwards.
    pub fn parts(&self, session: SessionId) -> Vec<u32> {
        let Some(holder) = self.holders.get(&session) else { return vec![0; self.rates.len()] };
        holder.sent.as_ref().map_or(&holder.parts, |(_, parts)| parts).clone()
    }

    /// What a worker was sent and has not confirmed, to be sent again.
    pub fn unconfirmed(&self, session: SessionId) -> Option<Order> {
        let (number, parts) = self.holders.get(&session)?.sent.clone()?;
        Some(Order { session, number, parts })
    }

    /// A worker says how much it uses.
    pub fn report(&mut self, session: SessionId, at: RunTime, used: Vec<ThrottleUse>) {
        if let Some(holder) = self.holders.get_mut(&session)
            && used.len() == self.rates.len()
        {
            holder.demand.take(at, used);
        }
    }

    /// A worker goes by what it was sent.
    pub fn confirm(&mut self, session: SessionId, number: u64) {
        if let Some(holder) = self.holders.get_mut(&session)
            && let Some((_, parts)) = holder.sent.take_if(|(sent, _)| *sent == number)
        {
            holder.parts = parts;
        }
    }

    /// A worker is gone.
    pub fn lose(&mut self, now: Mono, session: SessionId) {
        if let Some(holder) = self.holders.remove(&session) {
            let most = (0..self.rates.len()).map(|limit| holder.most(limit)).collect();
            self.held_back.push((now.after(LEASE), most));
        }
        // what it was to give up it may still use
        self.targets = None;
    }

    /// What is to be sent now.
    pub fn turn(&mut self, now: Mono) -> Vec<Order> {
        let alone = self.holders.len() < 2 && self.held_back.is_empty();
        let has_all = |holder: &Holder| holder.parts.iter().all(|parts| *parts == PARTS);
        if self.rates.is_empty() || (alone && self.holders.values().all(has_all)) {
            return Vec::new();
        }
        self.held_back.retain(|(until, _)| now < *until);
        let has = |(session, target): (&SessionId, &Vec<u32>)| {
            self.holders.get(session).is_none_or(|holder| holder.sent.is_none() && holder.parts == *target)
        };
        self.targets.take_if(|targets| targets.iter().all(has));
        if self.targets.is_none() && now >= self.next {
            self.next = now.after(EVERY);
            self.targets = self.targets();
            self.holders.values_mut().for_each(|holder| holder.demand.turn());
        }
        let Some(targets) = self.targets.clone() else { return Vec::new() };
        if self.holders.values().any(|holder| holder.sent.is_some()) {
            return Vec::new();
        }
        let step = |lower: bool| -> Vec<(SessionId, Vec<u32>)> {
            let wanted = targets.iter().filter_map(|(session, target)| {
                let have = &self.holders.get(session)?.parts;
                let next =
                    have.iter().zip(target).map(|(have, target)| if lower { *have.min(target) } else { *target });
                let next: Vec<u32> = next.collect();
                (next != *have).then_some((*session, next))
            });
            wanted.collect()
        };
        let lowered = step(true);
        let wanted = if lowered.is_empty() { step(false) } else { lowered };
        let mut orders = Vec::new();
        for (session, parts) in wanted {
            self.number += 1;
            if let Some(holder) = self.holders.get_mut(&session) {
                holder.sent = Some((self.number, parts.clone()));
                orders.push(Order { session, number: self.number, parts });
            }
        }
        orders
    }

    /// What everybody is to have, if that differs enough from what is.
    fn targets(&self) -> Option<BTreeMap<SessionId, Vec<u32>>> {
        let mut targets: BTreeMap<SessionId, Vec<u32>> =
            self.holders.iter().map(|(session, holder)| (*session, holder.parts.clone())).collect();
        let mut worth = false;
        for (limit, rate) in self.rates.iter().enumerate() {
            let held: u32 = self.held_back.iter().map(|(_, parts)| parts[limit]).sum();
            let Some(wanted) = self.follow(limit, *rate, PARTS.saturating_sub(held)) else { continue };
            for (session, parts) in wanted {
                if let Some(target) = targets.get_mut(&session) {
                    worth |= target[limit].abs_diff(parts) >= WORTH;
                    target[limit] = parts;
                }
            }
        }
        worth.then_some(targets)
    }

    /// Parts of one limit by demand: whoever has users that wait shares, by their number, what the
    /// others do not use. `None` if nobody waits.
    fn follow(&self, limit: usize, rate: f64, whole: u32) -> Option<Vec<(SessionId, u32)>> {
        let waiting: Vec<u64> = self.holders.values().map(|holder| holder.demand.waiting(limit)).collect();
        let sum: u64 = waiting.iter().sum();
        if sum == 0 {
            return None;
        }
        let kept = |holder: &Holder| {
            let have = holder.parts[limit];
            // of whom nothing was heard nothing is known
            let Some(used) = holder.demand.rate(limit) else { return have };
            let used = (used / rate * ROOM * f64::from(PARTS)) as u32;
            have.min(used.saturating_add(SPARE))
        };
        let keeps: Vec<u32> =
            self.holders.values().zip(&waiting).map(|(h, w)| if *w == 0 { kept(h) } else { 0 }).collect();
        let rest = u64::from(whole.saturating_sub(keeps.iter().sum()));
        let mut before = 0_u64;
        let parts = waiting.iter().zip(keeps).map(|(waiting, keeps)| {
            if *waiting == 0 {
                return keeps;
            }
            let until = before + waiting;
            let share = |waiting: u64| u128::from(rest) * u128::from(waiting) / u128::from(sum);
            let own = share(until) - share(before);
            before = until;
            own as u32
        });
        Some(self.holders.keys().copied().zip(parts).collect())
    }

    /// The most that may be in force of each limit, over all workers.
    #[cfg(test)]
    fn in_force(&self) -> Vec<u32> {
        let of = |limit: usize| -> u32 {
            let held: u32 = self.held_back.iter().map(|(_, parts)| parts[limit]).sum();
            self.holders.values().map(|holder| holder.most(limit)).sum::<u32>() + held
        };
        (0..self.rates.len()).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::plan::Covers;
    use proptest::prelude::*;

    fn dealer(parts: &[u32]) -> Dealer {
        let limit = ThrottlePlan { key: "k".into(), rate: 10.0, burst: 1, covers: Covers::Test };
        let shares = parts.iter().enumerate().map(|(i, parts)| (SessionId(i as u64), vec![*parts]));
        Dealer::new(&[limit], shares.collect())
    }

    /// Everybody reports twice within a second: what passed and who waits.
    fn report(dealer: &mut Dealer, second: f64, uses: &[(u64, u64)]) {
        for (half, share) in [(0.0, 0), (1.0, 1)] {
            for (i, (passed, waiting)) in uses.iter().enumerate() {
                let used = ThrottleUse { passed: passed * share, waiting: *waiting };
                dealer.report(SessionId(i as u64), RunTime::from_secs(second + half), vec![used]);
            }
        }
    }

    #[test]
    fn shares_follow_whoever_waits_and_lowering_comes_first() {
        let mut dealer = dealer(&[500_000, 500_000]);
        report(&mut dealer, 1.0, &[(0, 0), (5, 8)]);
        let lowered = dealer.turn(Mono(5_000_000_000));
        assert_eq!(lowered, [Order { session: SessionId(0), number: 1, parts: vec![SPARE] }]);
        assert_eq!(dealer.turn(Mono(5_100_000_000)), [], "not before it is confirmed");
        dealer.confirm(SessionId(0), 1);
        let raised = dealer.turn(Mono(5_200_000_000));
        assert_eq!(raised, [Order { session: SessionId(1), number: 2, parts: vec![PARTS - SPARE] }]);
        dealer.confirm(SessionId(1), 2);
        assert_eq!(dealer.turn(Mono(5_300_000_000)), []);
        assert_eq!(dealer.in_force(), [PARTS]);
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let mut dealer = dealer(&[500_000, 500_000]);
        report(&mut dealer, 1.0, &[(5, 10), (5, 10)]);
        assert_eq!(dealer.turn(Mono(5_000_000_000)), []);
        report(&mut dealer, 3.0, &[(4, 0), (1, 0)]);
        assert_eq!(dealer.turn(Mono(9_000_000_000)), [], "nobody waits");
    }

    #[test]
    fn a_lost_share_is_handed_on_when_its_lease_is_over() {
        let mut dealer = dealer(&[400_000, 300_000, 300_000]);
        dealer.lose(Mono(1), SessionId(2));
        report(&mut dealer, 1.0, &[(4, 5), (3, 5)]);
        let early = dealer.turn(Mono(1_000_000_000));
        assert_eq!(early.len(), 1, "what is left is shared evenly");
        dealer.confirm(early[0].session, early[0].number);
        for order in dealer.turn(Mono(1_100_000_000)) {
            dealer.confirm(order.session, order.number);
        }
        assert_eq!(dealer.in_force(), [PARTS]);
        report(&mut dealer, 3.0, &[(4, 5), (3, 5)]);
        let orders = dealer.turn(Mono(3_000_000_000));
        assert_eq!(orders.iter().map(|order| order.parts[0]).collect::<Vec<_>>(), [500_000, 500_000]);
    }

    #[test]
    fn what_another_master_dealt_is_known_and_confirmed_anew() {
        let limit = ThrottlePlan { key: "k".into(), rate: 10.0, burst: 1, covers: Covers::Test };
        let limits = |before, newest, number| Limits { before: vec![before], newest: vec![newest], number };
        let held = [(SessionId(0), limits(500_000, SPARE, 7)), (SessionId(1), limits(300_000, 300_000, 0))];
        let lost = vec![(Mono(2_000_000_000), limits(200_000, 100_000, 9))];
        let mut dealer = Dealer::resume(&[limit], BTreeMap::from(held), lost);
        assert_eq!(dealer.in_force(), [PARTS]);
        let order = Order { session: SessionId(0), number: 10, parts: vec![SPARE] };
        assert_eq!(dealer.unconfirmed(SessionId(0)), Some(order), "it may not have heard of it");
        assert_eq!(dealer.unconfirmed(SessionId(1)), None);
        report(&mut dealer, 1.0, &[(0, 0), (5, 8)]);
        assert_eq!(dealer.turn(Mono(1_000_000_000)), [], "nothing is raised before that");
        dealer.confirm(SessionId(0), 10);
        let raised = dealer.turn(Mono(1_900_000_000));
        assert_eq!(raised.iter().map(|order| (order.session.0, order.parts[0])).collect::<Vec<_>>(), [(1, 790_000)]);
        assert_eq!(dealer.in_force(), [PARTS]);
    }

    proptest! {
        /// Whatever is reported, confirmed late or never, and whoever is lost: never more than the limit.
        #[test]
        fn shares_in_force_never_exceed_the_limit(
            events in prop::collection::vec((0u8..4, 0u64..4, 0u64..20, 0u64..20), 1..200),
        ) {
            let mut dealer = dealer(&[400_000, 300_000, 200_000, 100_000]);
            let mut now = 0_u64;
            let mut open: Vec<Order> = Vec::new();
            for (kind, who, passed, waiting) in events {
                now += 300_000_000;
                match kind {
                    0 if who == 3 && dealer.holders.len() > 1 && waiting == 0 => {
                        let session = *dealer.holders.keys().next().unwrap();
                        dealer.lose(Mono(now), session);
                    }
                    0 | 1 => dealer.report(SessionId(who), RunTime(now), vec![ThrottleUse { passed: now / 1_000_000 * passed, waiting }]),
                    2 => if let Some(order) = open.pop() {
                        dealer.confirm(order.session, order.number);
                    },
                    _ => {}
                }
                open.extend(dealer.turn(Mono(now)));
                prop_assert!(dealer.in_force()[0] <= PARTS, "{:?}", dealer);
            }
        }
    }
}
