//! `runs compare`.

use super::reference::{Finder, Known};
use super::{FailOn, Fault, Place};
use crate::cli::Global;
use crate::compare::{Comparison, Options, compare, text};
use crate::console::Console;
use crate::run::verdict::exit;
use serde_json::{Value, json};

/// How it is compared and told.
pub(super) struct Wanted {
    /// What counts as a change.
    pub options: Options,
    /// What makes the exit code 1.
    pub fail_on: Vec<FailOn>,
    /// For programs.
    pub json: bool,
}

/// Compares, and returns the exit code.
pub(super) async fn run(
    global: &Global,
    console: &Console,
    place: &Place,
    [a, b]: [&String; 2],
    wanted: &Wanted,
) -> Result<u8, Fault> {
    let mut finder = Finder::new(global, place);
    let (a, b) = (finder.find(a).await?, finder.find(b).await?);
    finder.close().await;
    let comparison = compare(&a.evidence, &b.evidence, wanted.options);
    let failed = comparison.regressions().any(|moved| wanted.fail_on.iter().any(|on| on.covers(moved.metric)));
    let other_plan = differ(&a, &b);
    if wanted.json {
        let value = report(&a, &b, &comparison, wanted.options, other_plan);
        let text = serde_json::to_string_pretty(&value).expect("a JSON value has a JSON form");
        console.lines(&format!("{text}\n"));
    } else {
        console.print(&format!("A: {}\nB: {}\n", a.line(), b.line()));
        if other_plan {
            console.print("their plans differ\n");
        }
        console.print("\n");
        console.print(&text::render(&comparison, wanted.options, console.width()));
    }
    Ok(if failed { exit::FAILED } else { exit::PASSED })
}

/// Whether both plans are known and differ in more than the seed.
fn differ(a: &Known, b: &Known) -> bool {
    let plan = |known: &Known| {
        let mut plan = known.plan.clone()?;
        plan.as_object_mut()?.remove("seed");
        Some(plan)
    };
    plan(a).zip(plan(b)).is_some_and(|(a, b)| a != b)
}

fn report(a: &Known, b: &Known, comparison: &Comparison, options: Options, plans_differ: bool) -> Value {
    let run = |known: &Known| {
        json!({
            "name": known.title,
            "label": known.label,
            "id": known.result["run"]["id"],
            "started_at": known.started_at,
            "requests": known.result["totals"]["requests"],
        })
    };
    let mut value = serde_json::to_value(comparison).expect("a comparison holds only types with a JSON form");
    value["schema"] = "loaddensity.compare/1".into();
    value["a"] = run(a);
    value["b"] = run(b);
    value["threshold"] = options.threshold.into();
    value["confidence"] = options.confidence.into();
    value["plans_differ"] = plans_differ.into();
    value["regression"] = comparison.regressions().next().is_some().into();
    value
}
