//! Who is there: every worker from its welcome until it leaves or falls silent. Pure: no clock.

use ld_shared::id::{SessionId, WorkerName};
use ld_shared::message::{
    BEAT_EVERY, ClockReport, GONE_AFTER, Hello, LATE_AFTER, LEASE, PROTOCOL_VERSION, Refusal, RefusalCode, SLOWEST_BEAT,
};
use ld_shared::time::Mono;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// Most workers that a master takes.
pub const MOST_WORKERS: usize = 10_000;
/// Beats a second of all workers together that a master asks for, as far as [`SLOWEST_BEAT`] allows.
const BEATS_A_SECOND: u32 = 2_500;

/// The workers that are there.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    members: BTreeMap<SessionId, Member>,
    /// Lost in the run that goes on: they may come back to it.
    lost: BTreeMap<SessionId, Member>,
    joined: u64,
}

/// One worker that is there.
#[derive(Clone, Debug)]
pub struct Member {
    /// The name under which it is shown.
    pub name: WorkerName,
    /// Its load cores.
    pub cores: u32,
    /// What it knows of our clock.
    pub clock: Option<ClockReport>,
    /// When its newest beat that we answered came in.
    pub answered: Mono,
    /// Its connection ended then, and there is no other yet: what was seen.
    disconnected: Option<(Mono, String)>,
}

/// The refusal of a worker that speaks another version of the protocol; `None`: it speaks ours.
pub fn other_version(hello: &Hello) -> Option<Refusal> {
    (hello.protocol != PROTOCOL_VERSION).then(|| {
        let text = format!(
            "{} speaks protocol version {} and this master speaks {PROTOCOL_VERSION}: \
             install the same LoadDensity release on both",
            hello.build, hello.protocol
        );
        Refusal { code: RefusalCode::Version, text, retry: false }
    })
}

impl Registry {
    /// Nobody is there; sessions are numbered above `last`, so that none of another master's with the
    /// same key has the same number.
    pub fn after(last: u64) -> Self {
        Self { joined: last, ..Self::default() }
    }

    /// Takes a worker in, or says why not and what to do.
    pub fn join(&mut self, now: Mono, hello: &Hello) -> Result<(SessionId, WorkerName), Refusal> {
        if let Some(refusal) = other_version(hello) {
            return Err(refusal);
        }
        if hello.name.is_empty() || hello.name.len() > 100 || hello.name.contains(char::is_control) {
            let text = "a worker's name has 1 to 100 bytes and no control characters: choose another --name".into();
            return Err(Refusal { code: RefusalCode::Hello, text, retry: false });
        }
        if self.members.len() >= MOST_WORKERS {
            let text = format!("this master has {MOST_WORKERS} workers, which is as many as it takes");
            return Err(Refusal { code: RefusalCode::Full, text, retry: true });
        }
        self.joined += 1;
        let session = SessionId(self.joined);
        let name = self.free_name(&hello.name);
        let member =
            Member { name: name.clone(), cores: hello.cores.max(1), clock: None, answered: now, disconnected: None };
        self.members.insert(session, member);
        Ok((session, name))
    }

    fn free_name(&self, wanted: &str) -> WorkerName {
        let taken: HashSet<&str> = self.members.values().chain(self.lost.values()).map(|m| &*m.name.0).collect();
        let numbered = (2..).map(|n| format!("{wanted}#{n}"));
        let name = std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !taken.contains(&**name));
        WorkerName(name.expect("numbers do not end").into())
    }

    /// A beat of `session` came in at `received` and is answered.
    pub fn beat(&mut self, session: SessionId, received: Mono, clock: Option<ClockReport>) {
        if let Some(member) = self.members.get_mut(&session) {
            member.answered = member.answered.max(received);
            member.clock = clock.or(member.clock);
        }
    }

    /// The connection of `session` ended.
    pub fn disconnect(&mut self, session: SessionId, now: Mono, seen: String) {
        if let Some(member) = self.members.get_mut(&session) {
            member.disconnected = Some((now, seen));
        }
    }

    /// The connection of `session` was ended from here. Unlike one that ended by itself it says nothing of the worker,
    /// which may use its lease up.
    pub fn cut_off(&mut self, session: SessionId, why: String) {
        if let Some(member) = self.members.get_mut(&session) {
            member.disconnected = Some((member.answered.after(LEASE), why));
        }
    }

    /// Takes out a worker that may come back to its run.
    pub fn lose(&mut self, session: SessionId) {
        self.lost.extend(self.members.remove(&session).map(|member| (session, member)));
    }

    /// A worker is there again: the same, as its caller has made sure. Returns the name it has.
    pub fn rejoin(&mut self, now: Mono, session: SessionId, hello: &Hello) -> WorkerName {
        let known = self.lost.remove(&session).or_else(|| self.members.remove(&session));
        let name = known.map_or_else(|| self.free_name(&hello.name), |member| member.name);
        let member =
            Member { name: name.clone(), cores: hello.cores.max(1), clock: None, answered: now, disconnected: None };
        self.members.insert(session, member);
        name
    }

    /// A worker of a run that was taken up is expected back, as if it had been heard of now.
    pub fn expect(&mut self, now: Mono, session: SessionId, name: WorkerName, cores: u32) {
        self.joined = self.joined.max(session.0);
        let member = Member { name, cores, clock: None, answered: now, disconnected: None };
        self.members.insert(session, member);
    }

    /// Numbers up to `session` are taken.
    pub fn reserve(&mut self, session: SessionId) {
        self.joined = self.joined.max(session.0);
    }

    /// Whoever is lost cannot come back any more.
    pub fn forget_lost(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.lost).into_keys().collect()
    }

    /// Takes a worker out.
    pub fn leave(&mut self, session: SessionId) -> Option<Member> {
        self.members.remove(&session)
    }

    /// Workers whose newest answered beat is too old: they may start nothing any more. The instant
    /// after which they started nothing: when their connection ended, for their process ended with it
    /// or it would have come back; else the end of their lease. What was seen, if it was an end.
    pub fn gone(&self, now: Mono) -> Vec<(SessionId, Mono, Option<String>)> {
        let gone = |(_, member): &(&SessionId, &Member)| now >= member.answered.after(GONE_AFTER);
        let fate = |(session, member): (&SessionId, &Member)| match &member.disconnected {
            Some((at, seen)) => (*session, (*at).min(member.answered.after(LEASE)), Some(seen.clone())),
            None => (*session, member.answered.after(LEASE).min(now), None),
        };
        self.members.iter().filter(gone).map(fate).collect()
    }

    /// Whether a worker is silent for so long that people should know.
    pub fn is_late(&self, session: SessionId, now: Mono) -> bool {
        self.members.get(&session).is_some_and(|member| now >= member.answered.after(LATE_AFTER))
    }

    /// When [`Self::gone`] has something new at the earliest.
    pub fn deadline(&self) -> Option<Mono> {
        self.members.values().map(|member| member.answered.after(GONE_AFTER)).min()
    }

    /// The master itself slept for `lag`: nobody's silence in it counts.
    pub fn extend(&mut self, lag: Duration) {
        for member in self.members.values_mut() {
            member.answered = member.answered.after(lag);
        }
    }

    /// How far apart beats should be.
    pub fn beat_every(&self) -> Duration {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        (Duration::from_secs(1) * members / BEATS_A_SECOND).clamp(BEAT_EVERY, SLOWEST_BEAT)
    }

    /// Everybody, in the order of joining.
    pub fn members(&self) -> impl Iterator<Item = (SessionId, &Member)> {
        self.members.iter().map(|(session, member)| (*session, member))
    }

    /// One worker.
    pub fn member(&self, session: SessionId) -> Option<&Member> {
        self.members.get(&session)
    }

    /// How many are there.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(name: &str) -> Hello {
        Hello { protocol: PROTOCOL_VERSION, build: "ld-worker 9".into(), name: name.into(), cores: 2, returning: None }
    }

    #[test]
    fn names_are_told_apart_and_free_again() {
        let mut registry = Registry::default();
        let names: Vec<String> = (0..3).map(|_| registry.join(Mono(0), &hello("w")).unwrap().1.to_string()).collect();
        assert_eq!(names, ["w", "w#2", "w#3"]);
        registry.leave(SessionId(1));
        let (session, name) = registry.join(Mono(0), &hello("w")).unwrap();
        assert_eq!((session, &*name.0), (SessionId(4), "w"));
    }

    #[test]
    fn another_version_is_refused_with_both_named() {
        let mut registry = Registry::default();
        let refusal = registry.join(Mono(0), &Hello { protocol: 77, ..hello("w") }).unwrap_err();
        assert!(refusal.text.contains("77") && refusal.text.contains("speaks 2"), "{}", refusal.text);
        assert!(!refusal.retry);
        assert!(registry.join(Mono(0), &hello("")).is_err());
    }

    #[test]
    fn the_more_there_are_the_further_apart_they_beat() {
        let mut registry = Registry::default();
        let mut every = Vec::new();
        for number in 1..=2_000 {
            registry.join(Mono(0), &hello(&format!("w{number}"))).unwrap();
            every.push(registry.beat_every().as_millis());
        }
        assert_eq!([every[0], every[499], every[999], every[1_999]], [200, 200, 400, 500]);
    }

    #[test]
    fn silence_makes_late_then_gone() {
        let second = |s: f64| Mono((s * 1e9) as u64);
        let mut registry = Registry::default();
        let (session, _) = registry.join(second(10.0), &hello("w")).unwrap();
        registry.beat(session, second(11.0), None);
        assert!(!registry.is_late(session, second(11.9)));
        assert!(registry.is_late(session, second(12.0)));
        assert!(registry.gone(second(13.99)).is_empty());
        assert_eq!(registry.deadline(), Some(second(14.0)));
        assert_eq!(registry.gone(second(14.0)), [(session, second(13.5), None)]);
        registry.extend(Duration::from_secs(10));
        assert!(registry.gone(second(23.9)).is_empty());
    }
}
