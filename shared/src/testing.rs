//! Plans for the tests of this crate's language.

use crate::check::{Assertion, ExtractFrom, Extractor};
use crate::id::Digest;
use crate::load::{Closed, Load, Profile};
use crate::plan::{Dealing, Plan, ScenarioPlan, SourcePlan, SourceRows, TaskPlan};
use crate::record::RecordPolicy;
use crate::scope::Bindings;
use crate::time::RunTime;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A data source with its rows.
pub(crate) fn source(
    name: &str,
    columns: &[&str],
    rows: &[&[&str]],
    dealing: Dealing,
) -> (SourcePlan, Arc<SourceRows>) {
    let rows: SourceRows = rows.iter().map(|row| row.iter().map(|&cell| cell.into()).collect()).collect();
    let plan = SourcePlan {
        name: name.into(),
        columns: columns.iter().map(|&column| column.into()).collect(),
        rows: rows.len() as u64,
        blob: Digest::of(name.as_bytes()),
        dealing,
    };
    (plan, Arc::new(rows))
}

/// A task with checks.
pub(crate) fn task(assertions: Vec<Assertion>, extract: Vec<Extractor>) -> TaskPlan {
    TaskPlan {
        name: None,
        user: None,
        weight: 1,
        run_if: None,
        skip_if: None,
        assertions,
        extract,
        think_time: None,
        status_check: None,
        throttle: None,
        retry: None,
        refused: None,
        fields: Map::new(),
    }
}

/// Bindings of a plan with these variables, environment, sources, and one task that extracts
/// `extracted`.
pub(crate) fn bindings_with(
    variables: Value,
    env: &[(&str, &str)],
    sources: Vec<(SourcePlan, Arc<SourceRows>)>,
    extracted: &[&str],
) -> Bindings {
    let Value::Object(variables) = variables else { panic!("variables are an object") };
    let (sources, rows) = sources.into_iter().unzip();
    let extract = extracted.iter().map(|&var| Extractor { var: var.into(), from: ExtractFrom::StatusCode }).collect();
    let scenario = ScenarioPlan {
        name: "default".into(),
        user: "fast_http_user".into(),
        load: Load::Closed(Closed { users: Profile::constant(1.0) }),
        first_number: 0,
        mode: crate::plan::Mode::Sequence,
        tasks: vec![task(vec![], extract)],
        on_start: Vec::new(),
        on_stop: Vec::new(),
        wait_time: None,
        host: None,
        connections: crate::plan::Connections::PerUser,
        connect_timeout: 60.0,
        request_timeout: 60.0,
        tls: crate::plan::TlsPlan::default(),
        http_version: crate::plan::HttpVersion::Auto,
        options: Map::new(),
        status_check: crate::plan::StatusCheck::Always,
    };
    let plan = Plan {
        seed: 1,
        scenarios: vec![scenario],
        variables,
        env: env.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
        sources,
        test_time: None,
        warmup: RunTime(0),
        graceful_stop: RunTime(0),
        iterations: None,
        records: RecordPolicy::default(),
        throttles: Vec::new(),
        stage: None,
        setup: Vec::new(),
        teardown: Vec::new(),
        collect: false,
        details: Vec::new(),
        on_worker_loss: crate::plan::WorkerLoss::default(),
        on_master_loss: crate::plan::MasterLoss::default(),
        allow_targets: Vec::new(),
        secrets: None,
    };
    Bindings::new(&plan, rows)
}
