//! The queue of documents from outside: one at a time, in the order in which they came.

use super::{Caller, Policy};
use crate::app::App;
use crate::executor::Outcome;
use crate::run::Run;
use crate::run::verdict::exit;
use crate::script::{self, Document, Strictness};
use chrono::{DateTime, Utc};
use ld_shared::boot::{clock, task};
use ld_shared::fault::Fault;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Most documents that wait.
const MOST_WAITING: usize = 32;
/// Most finished ones that are remembered: each holds its runs with all their requests.
const MOST_FINISHED: usize = 20;

/// A document that is to be run.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its bytes: UTF-8 JSON.
    pub document: Vec<u8>,
    /// How it is taken.
    pub strictness: Strictness,
    /// What its runs are labelled.
    pub label: Option<String>,
    /// Who wants it run.
    pub by: String,
    /// What they may do; `None`: everything.
    pub policy: Option<Arc<Policy>>,
}

/// Why a document is not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// It has faults, or asks for what is not allowed.
    #[error("the document has {} fault(s); nothing was run", .0.len())]
    Faults(Vec<Fault>),
    /// Too many are waiting.
    #[error("{waiting} documents wait already, behind {running}")]
    Full {
        /// How many.
        waiting: usize,
        /// What runs now, and for whom.
        running: String,
    },
    /// The process ends.
    #[error("the process is ending")]
    Ending,
}

/// A document that was taken.
#[derive(Debug)]
pub struct Job {
    /// Its number in this process, from 1.
    pub id: u64,
    /// What its runs are labelled.
    pub label: Option<String>,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// On whose behalf it runs: its runs, and the means to end it.
    pub caller: Arc<Caller>,
    state: watch::Sender<JobState>,
}

/// Where a job stands.
#[derive(Clone, Debug, Default)]
pub enum JobState {
    /// Others come first.
    #[default]
    Queued,
    /// Its actions run.
    Running,
    /// It is over.
    Finished(Arc<Finished>),
}

/// What became of a job.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its actions; none if it was stopped before its turn.
    pub outcomes: Vec<Outcome>,
    /// The exit code that it would have had as a process of its own.
    pub exit_code: u8,
    /// When.
    pub at: DateTime<Utc>,
}

/// A job as surfaces list it.
#[derive(Clone, Debug, Serialize)]
pub struct JobLine {
    /// Its number.
    pub id: u64,
    /// What its runs are labelled.
    pub label: Option<String>,
    /// Who wanted it.
    pub by: String,
    /// `queued`, `running`, `finished`.
    pub state: &'static str,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The exit code that it would have had as a process of its own.
    pub exit_code: Option<u8>,
    /// Ids of its runs that are over.
    pub runs: Vec<String>,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    jobs: Mutex<Jobs>,
    /// Whoever holds it is at work; waiting is in the order of asking.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Jobs {
    last: u64,
    /// The oldest first.
    all: VecDeque<Arc<Job>>,
}

impl Desk {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        // lists that are pushed to are whole at every moment
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Takes a document from outside: it runs when its turn comes.
    ///
    /// # Errors
    ///
    /// A document with faults, or that asks for what its caller may not do; a queue that is full.
    pub fn submit(&self, order: Order) -> Result<Arc<Job>, SubmitError> {
        let Order { document, strictness, label, by, policy } = order;
        let caller = Arc::new(Caller::new(by, policy));
        let document = self.on_behalf_of(Arc::clone(&caller)).admitted(&document, strictness)?;
        if self.ended_by_user() {
            return Err(SubmitError::Ending);
        }
        let job = {
            let mut jobs = self.desk().jobs();
            let waiting = jobs.all.iter().filter(|job| matches!(job.state(), JobState::Queued)).count();
            if waiting >= MOST_WAITING {
                let running = jobs.all.iter().find(|job| matches!(job.state(), JobState::Running));
                let running = running.map_or_else(|| "another".into(), ToString::to_string);
                return Err(SubmitError::Full { waiting, running });
            }
            jobs.last += 1;
            let state = watch::Sender::default();
            let job = Arc::new(Job { id: jobs.last, label, taken_at: clock::wall(), caller, state });
            jobs.all.push_back(Arc::clone(&job));
            let finished = |job: &Arc<Job>| matches!(job.state(), JobState::Finished(_));
            while jobs.all.iter().filter(|job| finished(job)).count() > MOST_FINISHED {
                let oldest = jobs.all.iter().position(finished).expect("more than one is finished");
                jobs.all.remove(oldest);
            }
            job
        };
        let app = self.on_behalf_of(Arc::clone(&job.caller));
        task::spawn("a document from outside", work(app, Arc::clone(&job), document));
        Ok(job)
    }

    /// The document, if this handle's caller may run it.
    ///
    /// # Errors
    ///
    /// Every fault, and everything that is not allowed.
    pub fn admitted(&self, document: &[u8], strictness: Strictness) -> Result<Document, SubmitError> {
        let commands = self.commands();
        let faults = match script::read(document, strictness, &*commands) {
            Ok(document) => {
                let policy = self.caller().policy.as_ref();
                let faults = policy.map_or_else(Vec::new, |policy| policy.faults(&document, &commands));
                if faults.is_empty() {
                    return Ok(document);
                }
                faults
            }
            Err(faults) => faults,
        };
        Err(SubmitError::Faults(faults))
    }

    /// Documents from outside, the newest first.
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        self.desk().jobs().all.iter().rev().cloned().collect()
    }

    /// The job of that number, unless it is long over.
    pub fn job(&self, id: u64) -> Option<Arc<Job>> {
        self.desk().jobs().all.iter().find(|job| job.id == id).cloned()
    }

    /// Ends every job: the one at work drains, those that wait are not begun. Returns once they are over.
    pub async fn end_jobs(&self) {
        let jobs = self.jobs();
        for job in &jobs {
            job.caller.control.stop.cancel();
        }
        for job in jobs {
            job.finished().await;
        }
    }
}

async fn work(app: App, job: Arc<Job>, document: Document) {
    // a panic of a command ends the job, not those who wait for it
    let over = Over(Arc::clone(&job));
    let _turn = tokio::select! {
        biased;
        () = job.caller.control.stop.cancelled() => return over.with(Vec::new()),
        turn = app.desk().turn.lock() => turn,
    };
    job.state.send_replace(JobState::Running);
    app.state().label.clone_from(&job.label);
    let outcomes = app.execute(&document).await;
    over.with(outcomes);
}

/// Whatever happens, a job comes to its end.
struct Over(Arc<Job>);

impl Over {
    fn with(self, outcomes: Vec<Outcome>) {
        self.0.finish(outcomes);
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        if !matches!(self.0.state(), JobState::Finished(_)) {
            self.0.finish(Vec::new());
        }
    }
}

impl Job {
    /// Where it stands.
    pub fn state(&self) -> JobState {
        self.state.borrow().clone()
    }

    /// What became of it, once it is over.
    pub async fn finished(&self) -> Arc<Finished> {
        let mut state = self.state.subscribe();
        loop {
            if let JobState::Finished(finished) = &*state.borrow_and_update() {
                return Arc::clone(finished);
            }
            // the sender lives as long as the job
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Its runs that are over.
    pub fn runs(&self) -> Vec<Arc<Run>> {
        self.caller.runs()
    }

    /// As surfaces list it.
    pub fn line(&self) -> JobLine {
        let state = self.state();
        let finished = if let JobState::Finished(finished) = &state { Some(finished) } else { None };
        JobLine {
            id: self.id,
            label: self.label.clone(),
            by: self.caller.shown().to_owned(),
            state: match state {
                JobState::Queued => "queued",
                JobState::Running => "running",
                JobState::Finished(_) => "finished",
            },
            taken_at: self.taken_at,
            finished_at: finished.map(|finished| finished.at),
            exit_code: finished.map(|finished| finished.exit_code),
            runs: self.runs().iter().map(|run| run.measured.run.to_string()).collect(),
        }
    }

    fn finish(&self, outcomes: Vec<Outcome>) {
        let errors = outcomes.iter().flat_map(Outcome::errors).map(|(_, error)| error.exit_code);
        let mut exit_code = errors.fold(exit::PASSED, exit::worse);
        exit_code = self.runs().iter().map(|run| run.verdict.exit_code).fold(exit_code, exit::worse);
        if self.caller.control.stop.is_cancelled() {
            exit_code = exit::worse(exit_code, exit::ENDED_BY_USER);
        }
        self.state.send_replace(JobState::Finished(Arc::new(Finished { outcomes, exit_code, at: clock::wall() })));
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "job {} of {}", self.id, self.caller.shown())
    }
}
