//! What is run once a test: `setup` before it, `teardown` after it.
//!
//! Each is a run of its own over the same cluster: one user that does the steps before its first
//! iteration and never has one. So they go the way that all load goes.

use super::App;
use crate::cluster::{Cluster, RunOrder};
use crate::command::CommandError;
use crate::command::start_test::Compiled;
use crate::journal::Unfinished;
use crate::run::verdict::exit;
use crate::run::{Ending, Measured};
use ld_shared::id::{Digest, RunId};
use ld_shared::load::{Closed, Load, Profile};
use ld_shared::plan::{Connections, Covers, Mode, Plan, ScenarioPlan, TaskPlan};
use ld_shared::record::{Bodies, RecordPolicy};
use ld_shared::sample::Phase;
use ld_shared::scope::Bindings;
use ld_shared::time::RunTime;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What came of a setup.
#[derive(Default)]
pub(super) struct SetUp {
    /// What its steps extracted.
    variables: Map<String, Value>,
    /// What it measured; `None`: there was none, or it did not begin.
    pub(super) measured: Option<Measured>,
    /// Why the test cannot be run.
    pub(super) failure: Option<CommandError>,
}

impl SetUp {
    /// That of a run that is taken up: done, and what it extracted is in the plan.
    pub(super) fn known(unfinished: &Unfinished) -> Self {
        Self { variables: unfinished.recovered.order.plan.variables.clone(), ..Self::default() }
    }

    /// Whether there is nothing to tear down: the setup did not begin.
    pub(super) fn never_began(&self) -> bool {
        self.failure.is_some() && self.measured.is_none()
    }
}

impl App {
    /// Runs the setup of a test, if it has one.
    pub(super) async fn set_up(&self, cluster: &Arc<Cluster>, test: &Compiled) -> SetUp {
        let Some(plan) = stage(&test.plan, "setup", &test.plan.setup) else { return SetUp::default() };
        self.console.note(&begins("setup", &test.plan.setup));
        let known = self.signals_seen();
        let mut measured = match self.run_plan(cluster, order(Plan { collect: true, ..plan }, test), known, None).await
        {
            Ok(measured) => measured,
            Err(error) => return SetUp { failure: Some(self.not_run(&error)), ..SetUp::default() },
        };
        let collected = measured.collected.take();
        let (variables, failure) = collected.map_or((Map::new(), None), |c| (c.variables, Some(c.failure)));
        let why = match (&measured.ending, failure) {
            (Ending::Failed(why), _) => Some(why.clone()),
            (Ending::Stopped, _) => {
                let stopped =
                    CommandError::failed("KeyboardInterrupt", "not started: the user ended the run in its setup");
                let failure = Some(CommandError { exit_code: exit::ENDED_BY_USER, ..stopped });
                return SetUp { variables, measured: Some(measured), failure };
            }
            // no rule is held against a stage
            (Ending::Completed | Ending::Breached, Some(failure)) => failure,
            (Ending::Completed | Ending::Breached, None) => Some("the worker that ran it was lost".into()),
        };
        let failure = why.map(|why| {
            let failed =
                CommandError::failed("LoadDensityTestException", format!("setup failed, the test was not run: {why}"));
            CommandError { help: Some("mend the step, or leave it out of `setup`".into()), ..failed }
        });
        SetUp { variables, measured: Some(measured), failure }
    }

    /// Runs the teardown of a test, if it has one. The error says why it was not run.
    pub(super) async fn tear_down(
        &self,
        cluster: &Arc<Cluster>,
        test: &Compiled,
        set_up: &SetUp,
    ) -> Result<Option<Measured>, String> {
        let plan = with_variables(&test.plan, &set_up.variables);
        let Some(plan) = stage(&plan, "teardown", &test.plan.teardown) else { return Ok(None) };
        self.console.note(&begins("teardown", &test.plan.teardown));
        let known = self.signals_seen();
        // the others may have been lost in the test
        let order = RunOrder { any_worker: true, ..order(plan, test) };
        let measured = self.run_plan(cluster, order, known, None).await.map_err(|error| error.to_string())?;
        match &measured.ending {
            Ending::Failed(why) => Err(why.clone()),
            Ending::Stopped | Ending::Completed | Ending::Breached => Ok(Some(measured)),
        }
    }
}

/// The plan that is run once the setup went well.
pub(super) fn load(test: &Compiled, set_up: &SetUp) -> Arc<Plan> {
    if test.plan.stage.is_none() {
        return Arc::clone(&test.plan);
    }
    let mut plan = with_variables(&test.plan, &set_up.variables);
    (plan.stage, plan.setup, plan.teardown) = (None, Vec::new(), Vec::new());
    // what setup extracted is registered now: it may name a target
    let bindings = Bindings::new(&plan, Vec::new());
    plan.resolve_hosts(&bindings);
    Arc::new(plan)
}

fn with_variables(plan: &Plan, variables: &Map<String, Value>) -> Plan {
    let mut plan = plan.clone();
    plan.variables.extend(variables.clone());
    plan
}

/// The plan of steps that one user does; `None`: there are none.
fn stage(plan: &Plan, name: &str, steps: &[TaskPlan]) -> Option<Plan> {
    let user = plan.stage.as_ref().filter(|_| !steps.is_empty())?;
    let user = ScenarioPlan {
        name: name.into(),
        load: Load::Closed(Closed { users: Profile::constant(1.0) }),
        first_number: 0,
        mode: Mode::Sequence,
        tasks: Vec::new(),
        on_start: steps.to_vec(),
        on_stop: Vec::new(),
        wait_time: None,
        connections: Connections::PerUser,
        ..user.clone()
    };
    let mut plan = Plan {
        scenarios: vec![user],
        stage: None,
        setup: Vec::new(),
        teardown: Vec::new(),
        // until the steps are done: nobody has an iteration
        test_time: None,
        iterations: Some(0),
        // those of scenarios are not its own
        throttles: plan
            .throttles
            .iter()
            .filter(|limit| !matches!(limit.covers, Covers::Scenario(_)))
            .cloned()
            .collect(),
        warmup: RunTime(0),
        records: RecordPolicy { keep: 0, bodies: Bodies::None, all: false },
        ..plan.clone()
    };
    let bindings = Bindings::new(&plan, Vec::new());
    plan.resolve_hosts(&bindings);
    Some(plan)
}

fn order(plan: Plan, test: &Compiled) -> RunOrder {
    RunOrder {
        run: RunId::random(),
        digest: Digest::of(&plan.to_json()),
        plan: Arc::new(plan),
        blobs: test.blobs.clone(),
        thresholds: Vec::new(),
        allow_missing_workers: test.allow_missing_workers,
        any_worker: false,
        lines: None,
        journal: None,
        resumes: None,
    }
}

fn begins(name: &str, steps: &[TaskPlan]) -> String {
    let s = if steps.len() == 1 { "" } else { "s" };
    format!("{name}: {} step{s} on one worker", steps.len())
}

/// The failures of a teardown, for people; `None`: there were none.
pub(super) fn failures(measured: &Measured) -> Option<String> {
    let hooks = measured.total.phase(Phase::Hooks);
    let mut groups: Vec<_> = hooks.failures.iter().collect();
    groups.sort_by_key(|(_, count)| count.first_at);
    let texts: Vec<String> = groups.into_iter().map(|((key, reason), _)| format!("`{}`: {reason}", key.name)).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;
    use serde_json::json;

    fn step(extract: &Value) -> TaskPlan {
        serde_json::from_value(json!({"name": null, "user": null, "weight": 1, "run_if": null, "skip_if": null,
            "assertions": [], "extract": extract, "think_time": null, "status_check": null, "throttle": null,
            "retry": null, "fields": {"method": "get", "request_url": "http://x/"}}))
        .unwrap()
    }

    fn test() -> Compiled {
        let mut plan = fixture::plan();
        plan.scenarios[0].host = Some("http://${var.port}.example".into());
        plan.stage = Some(plan.scenarios[0].clone());
        plan.setup = vec![step(&json!([]))];
        Compiled {
            plan: Arc::new(plan),
            blobs: std::collections::BTreeMap::new(),
            thresholds: Vec::new(),
            warnings: Vec::new(),
            allow_missing_workers: false,
            records_file: None,
        }
    }

    #[test]
    fn a_stage_is_one_user_without_iterations() {
        let test = test();
        assert!(stage(&test.plan, "teardown", &test.plan.teardown).is_none());
        let plan = stage(&test.plan, "setup", &test.plan.setup).unwrap();
        assert_eq!((plan.scenarios.len(), plan.iterations, plan.test_time), (1, Some(0), None));
        assert_eq!((plan.scenarios[0].on_start.len(), plan.scenarios[0].tasks.len()), (1, 0));
        assert_eq!(plan.pools().len(), 1, "its user asks for an iteration and gets none");
    }

    #[test]
    fn what_setup_extracted_is_registered_for_all() {
        let variables = json!({"port": "p", "token": null}).as_object().unwrap().clone();
        let plan = load(&test(), &SetUp { variables, ..SetUp::default() });
        assert_eq!((plan.variables["port"].as_str(), plan.setup.len()), (Some("p"), 0));
        assert_eq!(plan.scenarios[0].host.as_deref(), Some("http://p.example"));
    }
}
