//! `runs compare`.

use super::reference::{Finder, Known};
use super::{FailOn, Fault, Place};
use crate::cli::Global;
use crate::compare::report::{Side, plans_differ, report};
use crate::compare::{Options, text};
use crate::console::Console;
use crate::run::verdict::exit;

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
    let (comparison, value) = report(a.side(), b.side(), wanted.options);
    let failed = comparison.regressions().any(|moved| wanted.fail_on.iter().any(|on| on.covers(moved.metric)));
    if wanted.json {
        let text = serde_json::to_string_pretty(&value).expect("a JSON value has a JSON form");
        console.lines(&format!("{text}\n"));
    } else {
        console.print(&format!("A: {}\nB: {}\n", a.line(), b.line()));
        if plans_differ(a.plan.as_ref(), b.plan.as_ref()) {
            console.print("their plans differ\n");
        }
        console.print("\n");
        console.print(&text::render(&comparison, wanted.options, console.width()));
    }
    Ok(if failed { exit::FAILED } else { exit::PASSED })
}

impl Known {
    fn side(&self) -> Side<'_> {
        Side {
            name: &self.title,
            label: self.label.as_deref(),
            started_at: self.started_at.as_deref(),
            plan: self.plan.as_ref(),
            result: &self.result,
            evidence: &self.evidence,
        }
    }
}
