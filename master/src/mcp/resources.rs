//! Resources: the schema of documents, and reports on finished runs.

use crate::app::App;
use crate::report::{self, Findings, Part, REPORTS, ReportError};
use crate::run::Run;
use crate::run::result::RunResult;
use crate::schema;
use rmcp::model::{Resource, ResourceContents, ResourceTemplate};
use std::sync::Arc;

const SCHEMA: &str = "loaddensity://schema";
const RUNS: &str = "loaddensity://runs/";
const REPORT: &str = "/report.";
/// Runs whose reports are listed: the newest.
const MOST: usize = 10;

/// All there are now.
pub(super) fn list(app: &App) -> Vec<Resource> {
    let schema = Resource::new(SCHEMA, "schema").with_mime_type("application/schema+json");
    let mut resources = vec![schema.with_description("JSON Schema of action documents")];
    let runs: Vec<Arc<Run>> = app.state().runs.held().cloned().collect();
    for run in runs.iter().rev().take(MOST) {
        let label = run.label.as_deref().unwrap_or("a test");
        let id = run.measured.run.to_string();
        resources.extend(REPORTS.iter().map(|line| {
            let format = line.report.format();
            let about = format!("{format} report on {label}, run {id}: {}", run.verdict.outcome.name());
            Resource::new(format!("{RUNS}{id}{REPORT}{format}"), format!("{id}.{format}"))
                .with_description(about)
                .with_mime_type(mime_type(format))
        }));
    }
    resources
}

/// What other addresses look like.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    let template = ResourceTemplate::new(format!("{RUNS}{{run}}{REPORT}{{format}}"), "report");
    let formats: Vec<&str> = REPORTS.iter().map(|line| line.report.format()).collect();
    vec![template.with_description(format!("Report on a run of this process; formats: {}", formats.join(", ")))]
}

/// The content; `None`: there is none of that address.
pub(super) fn read(app: &App, uri: &str) -> Option<Result<ResourceContents, ReportError>> {
    if uri == SCHEMA {
        let text = schema::text(&app.commands());
        return Some(Ok(ResourceContents::text(text, uri).with_mime_type("application/schema+json")));
    }
    let (id, format) = uri.strip_prefix(RUNS)?.split_once(REPORT)?;
    let line = report::named(format)?;
    let run = app.state().runs.find(id)?;
    let mut bytes = Vec::new();
    let written = line.report.write(&findings(&run), Part::All, &mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Some(written.map(|()| ResourceContents::text(text, uri).with_mime_type(mime_type(format))))
}

/// What a report on one run is made from.
pub(super) fn findings(run: &Arc<Run>) -> Findings {
    Findings { result: RunResult::of(std::slice::from_ref(run), run.verdict.clone()), runs: vec![Arc::clone(run)] }
}

fn mime_type(format: &str) -> &'static str {
    match format {
        "html" => "text/html",
        "csv" => "text/csv",
        "xml" | "junit" => "application/xml",
        _ => "application/json",
    }
}
