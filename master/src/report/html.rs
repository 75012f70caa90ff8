//! One page to look at: verdict, how it was run, key figures, charts, tables. No script and no
//! network; it prints and mails well. Whatever was measured, it stays below 2 MB: lists and texts
//! are cut, and say so.

mod bins;
mod chart;
mod charts;
mod fragment;
mod setup;
mod tables;

use super::{Findings, Part, Report, ReportError, records};
use crate::format;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use std::io::Write;

/// The page.
pub(super) struct Html;

impl Report for Html {
    fn format(&self) -> &'static str {
        "html"
    }

    fn lists_requests(&self) -> bool {
        false
    }

    fn write(&self, findings: &Findings, _: Part, out: &mut dyn Write) -> Result<(), ReportError> {
        let page = page(findings)?;
        Ok(out.write_all(page.as_bytes())?)
    }

    /// Not the page, but a table of each request.
    fn value(&self, findings: &Findings, part: Part) -> Result<serde_json::Value, ReportError> {
        let tables =
            records::listed(findings, part).map(fragment::of).map(|table| table.map(serde_json::Value::String));
        Ok(serde_json::Value::Array(tables.collect::<Result<_, _>>()?))
    }
}

fn page(findings: &Findings) -> Result<String, ReportError> {
    let Some(last) = findings.runs.last() else {
        return Err(ReportError::NoRun);
    };
    let result = &findings.result;
    let page = environment().get_template("report.html").and_then(|template| {
        template.render(context! {
            run => setup::run(last),
            outcome => result.verdict.outcome.name(),
            reasons => tables::reasons(result),
            totals => Value::from(Serde(&result.totals)),
            latency => Value::from(Serde(&result.latency_overall)),
            times => tables::times(result),
            conservation => Value::from(Serde(&result.conservation)),
            hooks => Value::from(Serde(&result.hooks)),
            warmup => Value::from(Serde(&result.warmup)),
            records => Value::from(Serde(&result.records)),
            names => tables::names(result),
            failures => tables::failures(&result.failures),
            messages => tables::messages(result),
            message_faults => tables::failures(&result.messages.failures),
            thresholds => tables::thresholds(findings),
            parts => tables::timing(result),
            workers => tables::workers(result),
            losses => tables::losses(result),
            events => tables::events(result),
            runs => tables::runs(result),
            failed_requests => tables::requests(findings, Part::Failures, 100),
            successful_requests => tables::requests(findings, Part::Successes, 50),
            setup => setup::of(last),
            target => setup::target(&last.measured.plan),
            charts => charts::of(last, result),
            version => env!("CARGO_PKG_VERSION"),
        })
    });
    page.map_err(ReportError::Render)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.add_filter("count", |n: u64| format::count(n));
    environment.add_filter("latency", |ms: f64| format::latency(ms));
    environment.add_filter("rate", |r: f64| format::rate(r));
    environment.add_filter("percent", |share: f64| format::percent(share));
    environment.add_filter("duration", |s: f64| format::duration(s));
    environment.add_filter("bytes", |n: u64| format::bytes(n));
    environment.add_filter("clock", |s: f64| chart::clock(s));
    environment
        .add_template("report.html", include_str!("../../assets/report.html"))
        .expect("the template is part of the program and parses");
    environment
}
