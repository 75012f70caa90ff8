//! `LD_evaluate_sla`, `LD_assert_sla`: rules against the result so far, or against any summary.

use super::{Command, CommandError};
use crate::app::App;
use crate::script::{CommandSpec, Kind, Parameter};
use crate::sla::{self, Finding};
use ld_shared::fault::Fault;
use serde::Deserialize;
use serde_json::{Map, Value};

const PARAMETERS: &[Parameter] = &[
    Parameter::new("rules", Kind::List)
        .required()
        .about("Rules: {type, value, op (lte), name}, for example {\"type\": \"latency_p95\", \"value\": 250}"),
    Parameter::new("summary", Kind::OrNull(&Kind::Object))
        .about("What they look at; without it the result of every test since LD_clear_records"),
];

fn check(arguments: &Map<String, Value>, pointer: &str, faults: &mut Vec<Fault>) {
    if let Some(Value::Array(rules)) = arguments.get("rules") {
        let from = faults.len();
        sla::check(rules, &format!("{pointer}/rules"), faults);
        // the seed gives a finding for a rule that it cannot follow, and goes on
        for fault in faults.iter_mut().skip(from) {
            *fault = fault.clone().ignored();
        }
    }
}

/// The arguments of both.
#[derive(Deserialize)]
struct Rules {
    rules: Vec<Value>,
    summary: Option<Value>,
}

impl Rules {
    fn evaluate(self, app: &App) -> Vec<Finding> {
        let summary = self.summary.unwrap_or_else(|| {
            serde_json::to_value(app.findings().result).expect("a result holds only types with a JSON form")
        });
        sla::evaluate(&self.rules, &summary)
    }
}

/// Gives what holds and what does not.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct EvaluateSla(Rules);

impl Command for EvaluateSla {
    const SPEC: CommandSpec = CommandSpec { name: "LD_evaluate_sla", parameters: PARAMETERS, check: Some(check) };
    const ABOUT: &'static str = "Holds rules against a result and gives what came of each";
    type Output = Vec<Finding>;

    async fn run(self, app: &App) -> Result<Self::Output, CommandError> {
        Ok(self.0.evaluate(app))
    }
}

/// The same, and fails if any does not hold.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct AssertSla(Rules);

impl Command for AssertSla {
    const SPEC: CommandSpec = CommandSpec { name: "LD_assert_sla", parameters: PARAMETERS, check: Some(check) };
    const ABOUT: &'static str = "Holds rules against a result and fails if any does not hold";
    type Output = Vec<Finding>;

    async fn run(self, app: &App) -> Result<Self::Output, CommandError> {
        let findings = self.0.evaluate(app);
        match sla::failure(&findings) {
            Some(text) => Err(CommandError::failed("LoadDensityAssertException", text)),
            None => Ok(findings),
        }
    }
}
