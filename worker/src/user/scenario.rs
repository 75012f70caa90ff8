//! A scenario, compiled for one core.

use crate::engine::core::Core;
use crate::protocol::{Driver, PrepareError, RefusedSteps, Users, Want};
use crate::series::OTHER_ID;
use ld_shared::check::Checks;
use ld_shared::plan::{AtEnd, Dealing, Plan, RetryPlan, ScenarioPlan, StatusCheck, TaskPlan, ThrottlePlan};
use ld_shared::predicate::Condition;
use ld_shared::rng::KeyedRng;
use ld_shared::scope::{Bindings, Scope};
use ld_shared::secrets::mask_passwords;
use ld_shared::template::Template;
use ld_shared::time::SECOND;
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

/// Most bytes of a body that a check looks at.
const CHECKED_BODY: usize = 64 * 1024 * 1024;

/// A scenario, compiled for one core.
pub(crate) struct Scenario {
    plan: Arc<Plan>,
    index: usize,
    protocols: Vec<Rc<dyn Users>>,
    tasks: Vec<Task>,
    on_start: Vec<Task>,
    on_stop: Vec<Task>,
    /// Σ of weights up to and with each task.
    weights: Vec<u64>,
    extracts: bool,
    /// Every limit of the plan.
    limits: Vec<ThrottlePlan>,
    table: Arc<crate::series::SeriesTable>,
    name: Arc<str>,
    /// Names by number, as far as this core has met them.
    names: RefCell<Vec<Option<Arc<str>>>>,
}

/// A task, compiled for one core.
pub(crate) struct Task {
    pub(crate) users: Rc<dyn Users>,
    /// Index of its protocol among the scenario's: that of the user's session.
    pub(crate) protocol: usize,
    pub(crate) compiled: Box<dyn Any>,
    pub(crate) name: Name,
    pub(crate) request_type: Arc<str>,
    /// The number of its request type and scenario.
    pub(crate) origin: u16,
    /// The status of a request that had no answer.
    pub(crate) no_answer: Option<u16>,
    pub(crate) checks: Checks,
    pub(crate) status_check: StatusCheck,
    pub(crate) want: Want,
    /// Time-out, ns.
    pub(crate) timeout: u64,
    pub(crate) think_time: Option<(f64, f64)>,
    pub(crate) retry: Option<RetryPlan>,
    /// Limits on the rate of its requests, by index.
    pub(crate) limits: Box<[usize]>,
    /// Sources dealt once that it names: it needs a ticket of each.
    pub(crate) once_sources: Vec<u32>,
    run_if: Option<Condition>,
    skip_if: Option<Condition>,
}

/// A task's name in the statistics.
pub(crate) enum Name {
    /// Always this series.
    Fixed(u16),
    /// Rendered for each request; with the numbers of those met so far.
    Rendered(Template, RefCell<HashMap<Box<str>, u16>>),
}

impl Task {
    /// Whether its conditions hold.
    pub(crate) fn may_run(&self, bindings: &Bindings, scope: &mut Scope) -> bool {
        self.run_if.as_ref().is_none_or(|c| c.holds(bindings, scope))
            && !self.skip_if.as_ref().is_some_and(|c| c.holds(bindings, scope))
    }
}

impl Scenario {
    /// Compiles the plan's scenario with this index.
    pub(crate) fn compile(core: &Core, index: usize) -> Result<Self, PrepareError> {
        let plan = Arc::clone(&core.shared.plan);
        let own = &plan.scenarios[index];
        let mut scenario = Self {
            index,
            protocols: Vec::new(),
            tasks: Vec::new(),
            on_start: Vec::new(),
            on_stop: Vec::new(),
            weights: Vec::new(),
            extracts: own.tasks.iter().any(|t| !t.extract.is_empty()),
            limits: plan.limits(),
            table: Arc::clone(&core.shared.series),
            name: Arc::clone(&own.name),
            names: RefCell::default(),
            plan: Arc::clone(&plan),
        };
        let mut keys = Vec::new();
        let mut total = 0_u64;
        for task in &own.tasks {
            total = total.saturating_add(task.weight);
            scenario.weights.push(total);
        }
        scenario.tasks = scenario.compile_tasks(core, own, &own.tasks, &mut keys)?;
        scenario.on_start = scenario.compile_tasks(core, own, &own.on_start, &mut keys)?;
        scenario.on_stop = scenario.compile_tasks(core, own, &own.on_stop, &mut keys)?;
        Ok(scenario)
    }

    /// Compiles tasks. `keys`: those of the protocols met so far.
    fn compile_tasks(
        &mut self,
        core: &Core,
        own: &ScenarioPlan,
        tasks: &[TaskPlan],
        keys: &mut Vec<&'static str>,
    ) -> Result<Vec<Task>, PrepareError> {
        let mut compiled = Vec::with_capacity(tasks.len());
        for task in tasks {
            let key = task.user.as_ref().unwrap_or(&own.user);
            let driver = crate::protocol::driver(key)
                .ok_or_else(|| PrepareError(format!("this worker knows no user `{key}`")))?;
            // keys of one protocol share a session
            let key = if task.refused.is_some() { "" } else { driver.keys[0] };
            let protocol = if let Some(known) = keys.iter().position(|k| *k == key) {
                known
            } else {
                let users: Rc<dyn Users> =
                    if key.is_empty() { Rc::new(RefusedSteps) } else { (driver.new)(Rc::clone(&core.context), own)? };
                self.protocols.push(users);
                keys.push(key);
                keys.len() - 1
            };
            compiled.push(self.task(&core.context.bindings, own, task, driver, protocol)?);
        }
        Ok(compiled)
    }

    fn task(
        &self,
        bindings: &Bindings,
        own: &ScenarioPlan,
        task: &TaskPlan,
        driver: &Driver,
        protocol: usize,
    ) -> Result<Task, PrepareError> {
        let users = Rc::clone(&self.protocols[protocol]);
        let compiled = users.compile(task)?;
        let request_type: Arc<str> = users.request_type(compiled.as_ref()).into();
        let mut sources = users.sources(compiled.as_ref());
        let name = match &task.name {
            None => Name::Fixed(self.fixed_series(&users.default_name(compiled.as_ref()), bindings, &request_type)),
            Some(text) => {
                let template = Template::compile(text, bindings);
                if let Some(name) = template.literal() {
                    Name::Fixed(self.fixed_series(name, bindings, &request_type))
                } else {
                    sources.extend(template.sources());
                    Name::Rendered(template, RefCell::default())
                }
            }
        };
        let checks = Checks::compile(task, bindings);
        let condition = |p: &Option<ld_shared::predicate::Predicate>| p.as_ref().map(|p| p.compile(bindings));
        let (run_if, skip_if) = (condition(&task.run_if), condition(&task.skip_if));
        sources.extend(checks.sources());
        sources.extend(run_if.iter().chain(&skip_if).flat_map(ld_shared::predicate::Condition::sources));
        sources.sort_unstable();
        sources.dedup();
        sources.retain(|s| matches!(self.plan.sources[*s as usize].dealing, Dealing::Once(_)));
        let status_check = task.status_check.unwrap_or(own.status_check);
        let body = |needed: bool| if needed { CHECKED_BODY } else { 0 };
        let want = Want {
            headers: checks.needs_headers(),
            body: body(checks.needs_body()),
            failed_body: body(checks.needs_failed_body(status_check)),
        };
        let timeout = users.timeout(compiled.as_ref()).unwrap_or(own.request_timeout);
        Ok(Task {
            protocol,
            name,
            origin: self.table.origin(&request_type, &self.name),
            request_type,
            no_answer: driver.no_answer,
            status_check,
            want,
            timeout: (timeout * SECOND as f64) as u64,
            think_time: task.think_time,
            retry: task.retry,
            limits: self.plan.limits_on(&self.limits, self.index, task).into(),
            once_sources: sources,
            run_if,
            skip_if,
            checks,
            compiled,
            users,
        })
    }

    /// The number of the series of a name that never changes.
    fn fixed_series(&self, name: &str, bindings: &Bindings, request_type: &Arc<str>) -> u16 {
        self.series(&bindings.secrets().mask(&mask_passwords(name)), request_type)
    }

    /// Its part of the plan.
    pub(crate) fn plan(&self) -> &ScenarioPlan {
        &self.plan.scenarios[self.index]
    }

    /// Its index in the plan.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether it has no task: users idle.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether any task sets variables.
    pub(crate) fn extracts(&self) -> bool {
        self.extracts
    }

    /// Its tasks in order.
    pub(crate) fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// What a user does before its first iteration.
    pub(crate) fn on_start(&self) -> &[Task] {
        &self.on_start
    }

    /// What a user does after its last iteration.
    pub(crate) fn on_stop(&self) -> &[Task] {
        &self.on_stop
    }

    /// Its protocols, in the order of users' sessions.
    pub(crate) fn protocols(&self) -> impl Iterator<Item = &Rc<dyn Users>> {
        self.protocols.iter()
    }

    /// A task by weight; `None` if all weights are 0.
    pub(crate) fn pick(&self, rng: &mut KeyedRng) -> Option<&Task> {
        let point = rng.below(*self.weights.last()?);
        let index = self.weights.partition_point(|w| *w <= point);
        self.tasks.get(index)
    }

    /// The number of a series of this scenario.
    pub(crate) fn series(&self, name: &str, request_type: &Arc<str>) -> u16 {
        let id = self.table.id(name, request_type, &self.name);
        let mut names = self.names.borrow_mut();
        if names.len() <= usize::from(id) {
            names.resize(usize::from(id) + 1, None);
        }
        names[usize::from(id)].get_or_insert_with(|| {
            if id == OTHER_ID { ld_shared::sample::OTHER.into() } else { ld_shared::sample::cut(name).into() }
        });
        id
    }

    /// A task as messages name it.
    pub(crate) fn task_name(&self, task: &Task) -> String {
        match &task.name {
            Name::Fixed(series) => format!("`{}` ({})", self.name_of(*series), task.request_type),
            Name::Rendered(..) => format!("a {}", task.request_type),
        }
    }

    /// The name of a series that this core has met.
    pub(crate) fn name_of(&self, series: u16) -> Arc<str> {
        self.names
            .borrow()
            .get(usize::from(series))
            .cloned()
            .flatten()
            .unwrap_or_else(|| ld_shared::sample::OTHER.into())
    }

    /// A source has no row left: what its plan wants.
    pub(crate) fn at_end(&self, source: u32) -> ControlFlow<()> {
        match self.plan.sources[source as usize].dealing {
            Dealing::Cycle | Dealing::Once(AtEnd::Placeholder) => ControlFlow::Continue(()),
            // the master, which was told, ends the test everywhere
            Dealing::Once(AtEnd::StopUser | AtEnd::StopTest) => ControlFlow::Break(()),
        }
    }
}
