//! Malformed tasks of documents that are run leniently: each fails with its reason, and sends nothing.

use super::{Exchange, PrepareError, Users, Want};
use crate::probe::Probe;
use ld_shared::plan::{Refused, TaskPlan};
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::Scope;
use std::any::Any;
use std::sync::Arc;

/// Stands in for the protocol of a malformed task.
pub(crate) struct RefusedSteps;

impl RefusedSteps {
    fn task(task: &dyn Any) -> &Refused {
        task.downcast_ref().expect("the task was compiled here")
    }
}

impl Users for RefusedSteps {
    fn compile(&self, task: &TaskPlan) -> Result<Box<dyn Any>, PrepareError> {
        let refused = task.refused.clone();
        Ok(Box::new(refused.ok_or_else(|| PrepareError("a task that is not malformed".to_owned()))?))
    }

    fn session(&self) -> Box<dyn Any> {
        Box::new(())
    }

    fn request_type<'a>(&self, task: &'a dyn Any) -> &'a str {
        &Self::task(task).request_type
    }

    fn default_name(&self, task: &dyn Any) -> Arc<str> {
        Arc::clone(&Self::task(task).name)
    }

    fn sources(&self, _task: &dyn Any) -> Vec<u32> {
        Vec::new()
    }

    fn timeout(&self, _task: &dyn Any) -> Option<f64> {
        None
    }

    fn url(&self, _task: &dyn Any, _scope: &mut Scope) -> Arc<str> {
        Arc::from("")
    }

    fn status_error(&self, _task: &dyn Any, _status: u16, _url: &str, _name: &str) -> Option<String> {
        None
    }

    fn begin<'a>(
        &'a self,
        task: &'a dyn Any,
        _session: &'a mut dyn Any,
        _scope: &mut Scope,
        _probe: &'a mut Probe,
        _want: Want,
    ) -> Result<Exchange<'a>, Failure> {
        Err(Failure::new(FailureKind::Request, Arc::clone(&Self::task(task).reason)))
    }

    fn end_iteration(&self, _session: &mut dyn Any) {}

    fn hang_up(&self, _session: &mut dyn Any) {}
}
