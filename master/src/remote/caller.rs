//! On whose behalf commands run.

use super::Policy;
use crate::cluster::RunControl;
use crate::run::Run;
use std::sync::{Arc, Mutex, PoisonError};

/// On whose behalf commands run: whoever started the process, or somebody over the network.
#[derive(Debug, Default)]
pub struct Caller {
    /// What it is called in queues, events and logs: `api`, `socket 10.0.0.7:4711`. Empty: whoever
    /// started the process.
    pub name: String,
    /// What it may do; `None`: everything.
    pub policy: Option<Arc<Policy>>,
    /// Ends its tests: the one that goes on, and none after it is begun.
    pub control: RunControl,
    /// Its runs that are over.
    runs: Mutex<Vec<Arc<Run>>>,
}

impl Caller {
    /// Somebody who may do what `policy` allows.
    pub fn new(name: impl Into<String>, policy: Option<Arc<Policy>>) -> Self {
        Self { name: name.into(), policy, ..Self::default() }
    }

    /// What it is called where it must be named.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { "the command line" } else { &self.name }
    }

    /// Its runs that are over, in their order.
    pub fn runs(&self) -> Vec<Arc<Run>> {
        // a list that is pushed to is whole at every moment
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has_run(&self, run: Arc<Run>) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
    }
}
