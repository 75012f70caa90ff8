//! Rules held against a run while it goes on: windows, and rules that abort.
//!
//! Pure. What frames say is put into cells, spans of seconds over all workers; spans that overlap
//! make one cell, so a coarse frame widens the windows that it touches to whole spans. A cell counts
//! once every worker has reported all of it, and only then: hence what a rule sees does not depend on
//! the order in which frames come. Every number is a merge of cells.
//!
//! Memory is bounded: a rule keeps the cells of its own window, packed, and cells that wait for a
//! slow worker grow coarser beyond [`MOST_WAITING`]. What a worker that was given up delivers later
//! counts in totals, in windows no more.

mod sliding;
#[cfg(test)]
mod tests;

use ld_shared::frame::{Frame, PhaseOdometer};
use ld_shared::id::SessionId;
use ld_shared::sample::Phase;
use ld_shared::threshold::{Observed, Tally, Threshold, Work};
use ld_shared::time::{RunTime, SECOND};
use sliding::Sliding;
use std::collections::BTreeMap;

/// Cells that wait for a worker before their oldest become one.
const MOST_WAITING: usize = 300;

/// Every rule of a run, and what it has seen.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    rules: Vec<Rule>,
    warmup: RunTime,
    sessions: BTreeMap<SessionId, Reported>,
    /// Cells that some worker has not reported yet, by first second. They are disjoint.
    waiting: BTreeMap<u32, Cell>,
    /// Every second before this one is settled.
    settled: u32,
}

/// What one rule saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watched {
    /// The worst window; `None` if there was no full one.
    pub worst: Option<Seen>,
    /// Whether every window without a mark holds; `None` if there was none.
    pub ok_unmarked: Option<bool>,
    /// What made the rule end the test, and when.
    pub aborted: Option<(Seen, RunTime)>,
}

/// What a rule saw in a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// First run-clock second.
    pub from: u32,
    /// First second after it.
    pub to: u32,
    /// What it saw.
    pub observed: Observed,
}

/// A rule that ends the test does not hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Breach {
    /// Its place among the rules.
    pub(super) rule: usize,
    /// What it saw.
    pub(super) seen: Seen,
}

/// What a frame adds, if it counts.
#[derive(Debug)]
pub(super) struct Part {
    session: SessionId,
    from: u32,
    to: u32,
    sealed_at: RunTime,
    odometer: PhaseOdometer,
    marked: bool,
    tallies: Vec<Tally>,
}

/// How far one session's reports go.
#[derive(Clone, Debug, Default)]
struct Reported {
    to: u32,
    odometer: PhaseOdometer,
}

/// A span of whole seconds over all workers: one tally a rule.
#[derive(Clone, Debug, PartialEq)]
struct Cell {
    to: u32,
    tallies: Vec<Tally>,
}

#[derive(Clone, Debug)]
struct Rule {
    threshold: Threshold,
    /// First second that it knows of.
    from: u32,
    /// First second of its next window.
    next: u32,
    cells: Sliding,
    /// Everything since the warm-up: rules without windows that abort.
    so_far: Tally,
    watched: Watched,
}

impl Watch {
    pub(super) fn new(rules: &[Threshold], warmup: RunTime) -> Self {
        let first = warmup.0.div_ceil(SECOND) as u32;
        let rule = |threshold: &Threshold| Rule {
            threshold: threshold.clone(),
            from: 0,
            next: first,
            cells: Sliding::default(),
            so_far: Tally::default(),
            watched: Watched::default(),
        };
        Self {
            rules: rules.iter().map(rule).collect(),
            warmup,
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            settled: 0,
        }
    }

    /// The same for a run that is taken up: what another master saw is not known, so rules begin with the second that
    /// nobody had reported anything of, and counts with what each session had counted.
    pub(super) fn resume(
        rules: &[Threshold],
        warmup: RunTime,
        reported: impl Iterator<Item = (SessionId, u32, PhaseOdometer)>,
    ) -> Self {
        let mut watch = Self::new(rules, warmup);
        watch.sessions = reported.map(|(session, to, odometer)| (session, Reported { to, odometer })).collect();
        watch.settled = watch.sessions.values().map(|reported| reported.to).max().unwrap_or(0);
        for rule in &mut watch.rules {
            rule.from = watch.settled;
            rule.next = rule.next.max(watch.settled);
        }
        watch
    }

    /// Every second before this one is settled.
    pub(super) fn settled(&self) -> u32 {
        self.settled
    }

    /// The rule at `index`.
    pub(super) fn threshold(&self, index: usize) -> &Threshold {
        &self.rules[index].threshold
    }

    /// Whether a rule is about iterations that were not started.
    pub(super) fn wants_drops(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_live() && rule.threshold.is_about_drops())
    }

    /// What a frame would add; `None` if nothing. To be taken before the frame is counted.
    pub(super) fn part(&self, frame: &Frame, sealed_at: RunTime) -> Option<Part> {
        let body = &frame.body;
        if !self.rules.iter().any(Rule::is_live) || body.from_second >= body.to_second {
            return None;
        }
        let main = body.counts.phase(Phase::Main);
        let tally = |rule: &Rule| {
            if rule.is_live() { rule.threshold.tally(main, Work::default()) } else { Tally::default() }
        };
        Some(Part {
            session: frame.key.session,
            from: body.from_second,
            to: body.to_second,
            sealed_at,
            odometer: *body.odometers.phase(Phase::Main),
            marked: body.counts.rows.values().any(|row| row.bound_cores > 0),
            tallies: self.rules.iter().map(tally).collect(),
        })
    }

    /// Adds what a frame adds, now that it was counted.
    pub(super) fn add(&mut self, part: Part) {
        let Part { session, from, to, sealed_at, odometer, marked, mut tallies } = part;
        let reported = self.sessions.entry(session).or_default();
        // a second that was cut short by the end is none that a window may hold
        reported.to = reported.to.max(to.min(sealed_at.second()));
        let work = Work::between(&reported.odometer, &odometer);
        reported.odometer = odometer;
        for (tally, rule) in tallies.iter_mut().zip(&self.rules) {
            tally.marked = marked;
            if rule.threshold.selector().is_none() {
                tally.work = work;
            }
        }
        self.insert(from, Cell { to, tallies });
    }

    /// Iterations that were due in a second and that nobody could start.
    pub(super) fn add_unowned(&mut self, second: u32, due: u64) {
        let tally = Tally { work: Work { started: 0, due, dropped: due }, ..Tally::default() };
        self.insert(second, Cell { to: second + 1, tallies: vec![tally; self.rules.len()] });
    }

    fn insert(&mut self, mut from: u32, mut cell: Cell) {
        if from < self.settled {
            return;
        }
        let overlaps: Vec<u32> =
            self.waiting.range(..cell.to).rev().take_while(|(_, other)| other.to > from).map(|(at, _)| *at).collect();
        for at in overlaps {
            if let Some(other) = self.waiting.remove(&at) {
                from = from.min(at);
                cell.merge(&other);
            }
        }
        self.waiting.insert(from, cell);
        if self.waiting.len() > MOST_WAITING
            && let (Some((first, mut older)), Some((_, newer))) = (self.waiting.pop_first(), self.waiting.pop_first())
        {
            older.merge(&newer);
            self.waiting.insert(first, older);
        }
    }

    /// First second that `session` has not reported all of.
    pub(super) fn reported(&self, session: SessionId) -> u32 {
        self.sessions.get(&session).map_or(0, |reported| reported.to)
    }

    /// Every worker has reported the seconds before `covered`: judges what that decides. Windows lie
    /// before `end`. Gives the earliest failure of a rule that aborts.
    pub(super) fn advance(&mut self, covered: u32, end: RunTime) -> Option<Breach> {
        // a cell that some worker has not reported to its end waits
        let straddling = self.waiting.range(..covered).next_back().filter(|(_, cell)| cell.to > covered);
        let settled = straddling.map_or(covered, |(from, _)| *from);
        if settled <= self.settled {
            return None;
        }
        self.settled = settled;
        let main = Main { from: self.warmup, to: end };
        let later = self.waiting.split_off(&settled);
        let mut breaches = Vec::new();
        for (from, cell) in std::mem::replace(&mut self.waiting, later) {
            for (index, (rule, tally)) in self.rules.iter_mut().zip(&cell.tallies).enumerate() {
                let seen = rule.judge_windows(from, main);
                breaches.extend(seen.map(|seen| Breach { rule: index, seen }));
                let seen = rule.take((from, cell.to), tally, main);
                breaches.extend(seen.map(|seen| Breach { rule: index, seen }));
            }
        }
        for (index, rule) in self.rules.iter_mut().enumerate() {
            let seen = rule.judge_windows(settled, main);
            breaches.extend(seen.map(|seen| Breach { rule: index, seen }));
        }
        breaches.into_iter().min_by_key(|breach| breach.seen.to)
    }

    /// The test ends for this breach at `at`.
    pub(super) fn abort(&mut self, breach: &Breach, at: RunTime) {
        self.rules[breach.rule].watched.aborted = Some((breach.seen, at));
    }

    /// Nothing more comes: what each rule saw up to `end`, in the order of the rules.
    pub(super) fn finish(&mut self, end: RunTime) -> Vec<Watched> {
        self.advance(u32::MAX, end);
        self.rules.iter().map(|rule| rule.watched.clone()).collect()
    }
}

impl Cell {
    fn merge(&mut self, other: &Self) {
        self.to = self.to.max(other.to);
        for (mine, theirs) in self.tallies.iter_mut().zip(&other.tallies) {
            mine.merge(theirs);
        }
    }
}

/// The main window.
#[derive(Clone, Copy, Debug)]
struct Main {
    from: RunTime,
    to: RunTime,
}

impl Main {
    /// Seconds of it that a span holds.
    fn overlap(self, from: u32, to: u32) -> f64 {
        let start = |second: u32| RunTime(u64::from(second) * SECOND);
        let (from, to) = (start(from).max(self.from), start(to).min(self.to));
        RunTime(to.0.saturating_sub(from.0)).as_secs()
    }
}

impl Rule {
    /// Whether it is judged before the end of the run.
    fn is_live(&self) -> bool {
        self.threshold.over().is_some() || self.threshold.aborts()
    }

    /// Not judged yet at a run-clock second.
    fn is_early(&self, second: u32) -> bool {
        RunTime(u64::from(second) * SECOND) < self.threshold.judged_from()
    }

    /// Judges the windows that end before `to` or there; every cell that begins before is in. Gives
    /// the first that fails, if the rule aborts.
    fn judge_windows(&mut self, to: u32, main: Main) -> Option<Seen> {
        let length = self.threshold.over()?;
        let last = to.min(main.to.second());
        let mut breach = None;
        while self.next.checked_add(length).is_some_and(|end| end <= last) {
            let (from, to) = (self.next, self.next + length);
            self.next += 1;
            self.cells.drop_before(from);
            if self.is_early(to) {
                continue;
            }
            let (from, to) = self.cells.span().map_or((from, to), |(first, last)| (from.min(first), to.max(last)));
            let tally = self.cells.sum();
            let observed = self.threshold.judge(&tally, main.overlap(from, to));
            let seen = Seen { from, to, observed };
            let worst = &mut self.watched.worst;
            if worst.is_none_or(|worst| self.threshold.is_worse(observed, worst.observed)) {
                *worst = Some(seen);
            }
            if !tally.marked {
                self.watched.ok_unmarked = Some(observed.ok && self.watched.ok_unmarked.unwrap_or(true));
            }
            if self.threshold.aborts() && !observed.ok {
                breach = breach.or(Some(seen));
            }
        }
        breach
    }

    /// Takes a settled cell. Gives what was seen so far, if the rule has no windows and aborts now.
    fn take(&mut self, (from, to): (u32, u32), tally: &Tally, main: Main) -> Option<Seen> {
        if self.threshold.over().is_some() {
            self.cells.push(from, to, tally);
            return None;
        }
        if !self.threshold.aborts() {
            return None;
        }
        self.so_far.merge(tally);
        let seconds = main.overlap(self.from, to);
        if self.is_early(to) || seconds <= 0.0 {
            return None;
        }
        let observed = self.threshold.judge(&self.so_far, seconds);
        // without samples it is too early to tell
        let failed = observed.value.is_some() && !observed.ok;
        failed.then_some(Seen { from: main.from.second().max(self.from), to, observed })
    }
}
