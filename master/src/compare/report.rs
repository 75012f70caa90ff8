//! A comparison for programs, `loaddensity.compare/1`.

use super::evidence::Evidence;
use super::{Comparison, Options, compare};
use serde_json::{Value, json};

/// One of the two runs.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// What it is called: `run 12`.
    pub name: &'a str,
    /// Its label.
    pub label: Option<&'a str>,
    /// When it started.
    pub started_at: Option<&'a str>,
    /// Its plan, if it is known.
    pub plan: Option<&'a Value>,
    /// `loaddensity.run/1`.
    pub result: &'a Value,
    /// What it is compared by.
    pub evidence: &'a Evidence,
}

/// Compares two runs, and says so.
pub fn report(a: Side<'_>, b: Side<'_>, options: Options) -> (Comparison, Value) {
    let comparison = compare(a.evidence, b.evidence, options);
    let mut value = serde_json::to_value(&comparison).expect("a comparison holds only types with a JSON form");
    value["schema"] = "loaddensity.compare/1".into();
    value["a"] = a.json();
    value["b"] = b.json();
    value["threshold"] = options.threshold.into();
    value["confidence"] = options.confidence.into();
    value["plans_differ"] = plans_differ(a.plan, b.plan).into();
    value["regression"] = comparison.regressions().next().is_some().into();
    (comparison, value)
}

impl Side<'_> {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "label": self.label,
            "id": self.result["run"]["id"],
            "started_at": self.started_at,
            "requests": self.result["totals"]["requests"],
        })
    }
}

/// Whether both plans are known and differ in more than the seed.
pub fn plans_differ(a: Option<&Value>, b: Option<&Value>) -> bool {
    let plan = |plan: Option<&Value>| {
        let mut plan = plan?.clone();
        plan.as_object_mut()?.remove("seed");
        Some(plan)
    };
    plan(a).zip(plan(b)).is_some_and(|(a, b)| a != b)
}
