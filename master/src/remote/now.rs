//! The test that goes on, and what has been measured so far: what surfaces show.

use crate::app::App;
use crate::cluster::view::{Look, RunView, WorkerNow};
use crate::cluster::{Cluster, RunControl};
use crate::command::CommandError;
use crate::run::timeline::{self, Second};
use crate::run::{Measured, Progress, Run};
use chrono::{DateTime, Utc};
use ld_shared::frame::Odometers;
use ld_shared::id::RunId;
use ld_shared::load::What;
use ld_shared::plan::Plan;
use ld_shared::sample::Phase;
use ld_shared::snapshot::Snapshot;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often the seconds of a run are asked for.
const EVERY: Duration = Duration::from_millis(500);

/// The test that goes on.
#[derive(Clone, Debug)]
pub struct Now {
    /// Its id.
    pub run: RunId,
    /// Its document's label.
    pub label: Option<String>,
    /// On whose behalf it runs.
    pub by: String,
    /// What is run.
    pub plan: Arc<Plan>,
    /// Ends it.
    pub control: RunControl,
    /// Where it stands.
    pub progress: watch::Receiver<Arc<Progress>>,
    /// Its seconds.
    pub seconds: Arc<Seconds>,
    /// What it runs on: the app's own, or one that was opened for it (`runner_mode` `master`).
    pub(crate) cluster: Arc<Cluster>,
}

/// The seconds of a run, each once, in order, as they become final.
#[derive(Debug, Default)]
pub struct Seconds {
    all: Mutex<Vec<Second>>,
    /// How many there are, and whether no more come.
    state: watch::Sender<(usize, bool)>,
}

impl Seconds {
    /// Those after the first `known`.
    pub fn after(&self, known: usize) -> Vec<Second> {
        self.all().get(known..).unwrap_or_default().to_vec()
    }

    /// How many there are, and whether no more come: to be waited for.
    pub fn watch(&self) -> watch::Receiver<(usize, bool)> {
        self.state.subscribe()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Second>> {
        // a list that is appended to is whole at every moment
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends those that are not there yet. Of one that was merged with such as are there, the rest.
    fn append(&self, seconds: Vec<Second>) {
        let mut all = self.all();
        let known = all.len();
        for second in seconds {
            let next = next(&all);
            if second.second >= next {
                all.push(second);
            } else if second.end() > next {
                let first = all.partition_point(|told| told.second < second.second);
                let rest = second.without(all.get(first..).unwrap_or_default());
                all.push(rest);
            }
        }
        if all.len() > known {
            self.state.send_replace((all.len(), false));
        }
    }

    /// The run is over: its last seconds.
    pub(crate) fn complete(&self, measured: Option<&Measured>) {
        self.append(measured.map(timeline::of).unwrap_or_default());
        self.state.send_modify(|(_, ended)| *ended = true);
    }
}

/// The first second that is not there yet.
fn next(seconds: &[Second]) -> u32 {
    seconds.last().map_or(0, Second::end)
}

/// All that was measured since the process began, over all of its runs: what exporters send.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    /// Counts and histograms of all runs together, without rows. Totals are of the main phase.
    pub totals: Snapshot,
    /// Counters of all runs together.
    pub odometers: Odometers,
    /// Upper bound of requests of the main phase that nobody knows the end of, of runs that are over.
    pub lost: u64,
    /// Where the run that goes on stands; `None`: none does.
    pub progress: Option<Arc<Progress>>,
    /// The run that goes on, or the last one.
    pub run: Option<RunId>,
    /// Label of the document that goes on, or was last.
    pub label: Option<String>,
    /// Wall clock of the first start.
    pub since: Option<DateTime<Utc>>,
    /// Workers that are there.
    pub workers: Vec<WorkerNow>,
    /// Runs that are over.
    pub finished: u64,
    /// The last run that is over.
    pub last: Option<Arc<Run>>,
}

impl App {
    /// The test that goes on.
    pub fn now(&self) -> Option<Now> {
        self.now_watch().borrow().clone()
    }

    /// What the test that goes on runs on, else what tests run on unless they say otherwise.
    pub(crate) fn cluster_now(&self) -> Arc<Cluster> {
        self.now().map_or_else(|| Arc::clone(&self.cluster), |now| now.cluster)
    }

    /// Changes the load of the test that goes on, if this handle's caller may.
    ///
    /// # Errors
    ///
    /// What the caller may not do, and changes that the test does not take.
    pub async fn change(&self, what: What) -> Result<(), CommandError> {
        if let Some(policy) = &self.caller().policy {
            policy.may_change(what)?;
        }
        let changed = self.cluster_now().change(what, self.caller().shown()).await;
        changed.map_err(|error| CommandError::of("ValueError", &error))
    }

    /// All that was measured since the process began. Costs a copy of all histograms.
    pub async fn feed(&self) -> Feed {
        let look = Look { from: u32::MAX, totals: true };
        let (mut view, mut now) = (self.cluster_now().look(look).await, self.now());
        // a run that has just ended is on its way from the cluster to the state: nothing may fall
        while view.run.is_none() && now.is_some() && self.state().unjudged.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            (view, now) = (self.cluster_now().look(look).await, self.now());
        }
        let (mut feed, unjudged) = {
            let state = self.state();
            (state.past.clone(), state.unjudged.clone())
        };
        feed.workers = view.workers;
        if let Some(over) = &unjudged {
            feed.add(&over.total);
            feed.odometers.add(&over.odometers);
            feed.lost += over.lost;
            feed.run = Some(over.run.clone());
        }
        if let Some(now) = &now {
            feed.progress = Some(Arc::clone(&now.progress.borrow()));
            feed.label.clone_from(&now.label);
        }
        // one that ended since is counted already: runs follow one another
        if let Some(view) = view.run.filter(|view| feed.run.as_ref() != Some(&view.run)) {
            feed.add_view(view);
        }
        feed
    }

    /// Takes down the seconds of the run that goes on. Never returns.
    pub(crate) async fn take_down(&self, now: Option<&Now>) -> Infallible {
        let Some(now) = now else { std::future::pending().await };
        loop {
            tokio::time::sleep(EVERY).await;
            let from = next(&now.seconds.all());
            let view = now.cluster.look(Look { from, totals: false }).await;
            let Some(view) = view.run else { continue };
            let plan = now.plan.with(&view.program);
            // rows may have been merged meanwhile: then the first begins before
            let from = view.rows.keys().next().map_or(from, |first| from.min(*first));
            now.seconds.append(timeline::seconds(&view.rows, &plan, from, view.settled_to));
        }
    }
}

/// What a run measured that is over.
#[derive(Debug)]
pub(crate) struct Unjudged {
    run: RunId,
    total: Snapshot,
    odometers: Odometers,
    lost: u64,
}

impl Unjudged {
    pub(crate) fn of(measured: &Measured) -> Self {
        let total = Snapshot { phases: measured.total.phases.clone(), ..Snapshot::default() };
        let lost = measured.lost_by_phase[Phase::Main.index()];
        Self { run: measured.run.clone(), total, odometers: measured.odometers, lost }
    }
}

impl Feed {
    /// Adds a run that is over.
    pub(crate) fn add_run(&mut self, run: &Arc<Run>) {
        let measured = &run.measured;
        self.finished += 1;
        self.last = Some(Arc::clone(run));
        self.add(&measured.total);
        self.odometers.add(&measured.odometers);
        self.lost += measured.lost_by_phase[Phase::Main.index()];
        self.since = self.since.or(Some(measured.started_at));
        self.run = Some(measured.run.clone());
        self.label.clone_from(&run.label);
    }

    fn add_view(&mut self, view: RunView) {
        if let Some(total) = &view.total {
            self.add(total);
        }
        self.odometers.add(&view.odometers);
        self.since = self.since.or(view.started_at);
        self.run = Some(view.run);
    }

    fn add(&mut self, total: &Snapshot) {
        // without rows: nobody needs them here
        for (mine, theirs) in self.totals.phases.iter_mut().zip(&total.phases) {
            mine.merge(theirs);
        }
    }
}
