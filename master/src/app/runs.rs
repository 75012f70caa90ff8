//! Runs of the process that are over, and how many of them are held.
//!
//! Those of whoever started the process are all held: the verdict and `--summary` are on all of them. A
//! process that serves callers from outside may run for months, so of theirs the newest are.

use crate::remote::Feed;
use crate::run::{Measured, Run};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most runs of callers from outside that are held, with all their requests.
const MOST: usize = 20;
/// Most runs since `LD_clear_records` in a process that serves callers from outside.
const MOST_SINCE_CLEAR: usize = 1_000;

/// Runs that are over.
#[derive(Default)]
pub struct Runs {
    /// Runs that reports cover.
    pub since_clear: Vec<Arc<Run>>,
    /// Every run of whoever started the process.
    pub own: Vec<Arc<Run>>,
    /// The newest of callers from outside.
    others: VecDeque<Arc<Run>>,
}

impl Runs {
    /// Takes a run in; `outside`: it is of a caller from outside. Gives what reports do not cover any more.
    pub(super) fn add(&mut self, run: &Arc<Run>, outside: bool, past: &mut Feed) -> Option<String> {
        past.add_run(run);
        self.since_clear.push(Arc::clone(run));
        if !outside {
            self.own.push(Arc::clone(run));
            return None;
        }
        self.others.push_back(Arc::clone(run));
        if self.others.len() > MOST {
            self.others.pop_front();
        }
        // counts and histograms stay; requests, of which there may be a hundred thousand a run, go
        if let Some(old) = self.since_clear.len().checked_sub(MOST + 1) {
            self.since_clear[old] = Arc::new(without_requests(&self.since_clear[old]));
        }
        (self.since_clear.len() > MOST_SINCE_CLEAR).then(|| {
            let gone = self.since_clear.remove(0);
            format!(
                "warning: LD_summary and reports cover the newest {MOST_SINCE_CLEAR} runs, not run {} any more: \
                 LD_clear_records begins anew",
                gone.measured.run
            )
        })
    }

    /// The one of an id, if it is held.
    pub fn find(&self, id: &str) -> Option<Arc<Run>> {
        self.held().find(|run| run.measured.run.0.as_ref() == id).cloned()
    }

    /// Those that are held.
    pub fn held(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.own.iter().chain(&self.others)
    }
}

fn without_requests(run: &Run) -> Run {
    let measured = Measured { records: Vec::new(), ..run.measured.clone() };
    Run { measured, verdict: run.verdict.clone(), label: run.label.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;
    use crate::run::verdict::Verdict;

    #[test]
    fn of_callers_from_outside_the_newest_are_held_and_nothing_is_counted_less() {
        let run = Run { measured: fixture::measured(), verdict: Verdict::nothing(), label: None };
        assert!(!run.measured.records.is_empty());
        let requests = |run: &Run| run.measured.total.phases[0].succeeded();
        let (one, run) = (requests(&run), Arc::new(run));
        let (mut runs, mut past) = (Runs::default(), Feed::default());
        runs.add(&run, false, &mut past);
        for _ in 0..MOST + 5 {
            assert_eq!(runs.add(&run, true, &mut past), None);
        }
        assert_eq!((runs.own.len(), runs.held().count()), (1, 1 + MOST));
        let all = (MOST + 6) as u64;
        assert_eq!(runs.since_clear.iter().map(|run| requests(run)).sum::<u64>(), all * one);
        assert_eq!(runs.since_clear.iter().filter(|run| !run.measured.records.is_empty()).count(), MOST);
        assert_eq!((past.finished, past.totals.phases[0].succeeded()), (all, all * one));
        let told = (0..MOST_SINCE_CLEAR).filter_map(|_| runs.add(&run, true, &mut past)).count() as u64;
        assert_eq!((runs.since_clear.len(), told), (MOST_SINCE_CLEAR, all));
    }
}
