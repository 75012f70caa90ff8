//! Every report from one made-up run, against the seed's own files, and under hostile texts.

mod golden;
mod hostile;

use super::*;
use crate::run::fixture;
use crate::run::verdict::Verdict;
use ld_shared::record::Record;
use ld_shared::sample::{FailureKind, Phase, SeriesKey};
use ld_shared::snapshot::{FailureCount, Snapshot};
use std::sync::LazyLock;

/// Of the made-up run, with its records.
fn findings() -> Findings {
    of_run(fixture::measured())
}

fn of_run(measured: crate::run::Measured) -> Findings {
    let verdict = Verdict::of(&measured, fixture::thresholds());
    let runs = vec![Arc::new(Run { measured, verdict: verdict.clone(), label: Some("shop".into()) })];
    Findings { result: RunResult::of(&runs, verdict), runs }
}

/// Without any run.
fn nothing() -> Findings {
    Findings { result: RunResult::of(&[], Verdict::nothing()), runs: Vec::new() }
}

/// Of a run of exactly these requests, without thresholds.
fn of(records: Vec<Record>) -> Findings {
    let mut measured = fixture::measured();
    measured.total = Snapshot::default();
    for record in &records {
        let key =
            SeriesKey { name: record.name.clone(), request_type: record.request_type.clone(), scenario: "shop".into() };
        let phase = measured.total.phase_mut(Phase::Main);
        let series = phase.series_mut(&key);
        series.first_at = series.first_at.min(record.ended_at);
        match &record.error {
            None => series.succeeded.record(record.response_us),
            Some(error) => {
                series.failed.record(record.response_us);
                let (kind, first_at, last_at) = (FailureKind::Status, record.ended_at, record.ended_at);
                phase.fail(&key, error, FailureCount { kind, count: 1, first_at, last_at });
            }
        }
    }
    measured.records = records;
    let verdict = Verdict::of(&measured, Vec::new());
    let runs = vec![Arc::new(Run { measured, verdict: verdict.clone(), label: None })];
    Findings { result: RunResult::of(&runs, verdict), runs }
}

/// A request without an answer.
pub(super) fn record(name: &str, status: Option<u16>, error: Option<&str>) -> Record {
    static MODEL: LazyLock<Record> = LazyLock::new(|| fixture::measured().records.remove(0));
    Record {
        phase: Phase::Main,
        name: name.into(),
        status,
        error: error.map(Into::into),
        response_us: 1_500,
        answer: None,
        ..MODEL.clone()
    }
}

/// The text of one file of a report.
fn text(report: &dyn Report, findings: &Findings, part: Part) -> String {
    let mut out = Vec::new();
    report.write(findings, part, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Without the plan's digest, which changes with every new field of plans.
fn undigested(findings: &Findings, text: &str) -> String {
    text.replace(&findings.runs[0].measured.plan_digest.to_string(), "(digest)")
}

#[test]
fn summary_of_a_run() {
    let findings = findings();
    insta::assert_snapshot!("summary", undigested(&findings, &text(&summary::Summary, &findings, Part::All)));
}

#[test]
fn csv_of_a_run() {
    let text = text(&csv::Csv, &findings(), Part::All);
    let lines: Vec<&str> = text.split("\r\n").collect();
    let first_failure = lines.iter().position(|l| l.starts_with("failure")).unwrap();
    assert!(lines[first_failure..lines.len() - 1].iter().all(|l| l.starts_with("failure")));
    insta::assert_snapshot!("csv", [&lines[..6], &lines[first_failure..first_failure + 3]].concat().join("\n"));
}

#[test]
fn json_and_xml_of_a_run() {
    let findings = findings();
    for (name, report) in [("json", &json::Json as &dyn Report), ("xml", &xml::Xml)] {
        let first = |part, lines| text(report, &findings, part).lines().take(lines).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(name, [first(Part::Successes, 20), first(Part::Failures, 16)].join("\n…\n"));
    }
}

#[test]
fn junit_of_a_run() {
    let text = text(&junit::Junit, &findings(), Part::All).replace("><", ">\n<");
    let lines: Vec<&str> = text.lines().collect();
    let failure = lines.iter().position(|l| l.starts_with("<failure")).unwrap();
    insta::assert_snapshot!(
        "junit",
        [&lines[..9], &lines[failure - 1..=failure], &lines[lines.len() - 6..]].concat().join("\n")
    );
    assert!(lines[1].contains(&format!(r#"tests="{}""#, text.matches("<testcase").count())));
    assert!(lines[1].contains(&format!(
        r#"failures="{}" errors="{}""#,
        text.matches("<failure").count(),
        text.matches("<error").count()
    )));
}

#[test]
fn html_of_a_run() {
    let mut measured = fixture::measured();
    measured.records.retain(|r| r.phase == Phase::Main);
    let (failures, successes): (Vec<_>, Vec<_>) = measured.records.drain(..).partition(|r| r.error.is_some());
    measured.records = successes.into_iter().take(3).chain(failures.into_iter().take(2)).collect();
    let findings = of_run(measured);
    let page = text(&html::Html, &findings, Part::All);
    assert!(page.contains("search &lt;shoes&gt;") && !page.contains("<shoes>"));
    assert!(!page.contains("src=") && !page.contains("<script") && !page.contains("url("), "one offline file");
    assert!(page.len() < 2_000_000);
    insta::assert_snapshot!("html", undigested(&findings, &text_of(&page)));
}

#[test]
fn the_table_names_each_command_and_file_once() {
    let commands = REPORTS.iter().flat_map(|line| line.in_memory.iter().map(|m| m.command).chain([line.command]));
    let files =
        REPORTS.iter().flat_map(|line| line.files.iter().map(move |(_, ending)| [line.default, ending].concat()));
    let named: Vec<String> = commands.map(str::to_owned).chain(files).collect();
    let unique: std::collections::BTreeSet<_> = named.iter().collect();
    assert_eq!(unique.len(), named.len(), "{named:?}");
    assert!(REPORTS.iter().all(|line| line.parameters.len() == 1 && named_line(line)));
}

fn named_line(line: &Line) -> bool {
    named(line.report.format()).is_some_and(|found| found.command == line.command)
}

#[test]
fn files_of_a_pair_appear_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let line = named("json").unwrap();
    let name = folder.path().join("r").display().to_string();
    let paths = line.write(&findings(), &name).unwrap();
    assert_eq!(paths, [PathBuf::from(format!("{name}_success.json")), PathBuf::from(format!("{name}_failure.json"))]);
    std::fs::remove_file(&paths[0]).unwrap();
    std::fs::remove_file(&paths[1]).unwrap();
    std::fs::create_dir(&paths[1]).unwrap();
    let error = line.write(&findings(), &name).unwrap_err();
    assert_eq!((error.kind(), paths[0].exists()), ("OSError", false));
    assert!(error.to_string().ends_with("_failure.json`: it is a folder"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_sample_says_what_it_was_taken_from() {
    let mut findings = findings();
    findings.result.totals.requests = 20_000_000;
    findings.result.totals.successes = 19_000_000;
    let kept = Kept::of(&findings, Part::All);
    assert!(kept.is_sample() && kept.to_string().ends_with(" of 20,000,000"), "{kept}");
    let junit = text(&junit::Junit, &findings, Part::All);
    assert!(junit.contains(&format!(r#"<property name="records" value="{kept} requests, a uniform sample"/>"#)));
    let xml = text(&xml::Xml, &findings, Part::Successes);
    assert!(
        xml.contains(&format!("\n<!-- {} successes, a uniform sample -->\n", Kept::of(&findings, Part::Successes)))
    );
}

#[test]
fn a_threshold_that_cannot_be_judged_is_no_success_and_no_failure() {
    let mut findings = findings();
    Arc::make_mut(&mut findings.runs[0]).verdict.thresholds[0].ok_unmarked = false;
    let junit = text(&junit::Junit, &findings, Part::All);
    assert!(junit.contains(r#" errors="1" "#) && junit.matches("<error ").count() == 1, "{junit}");
    assert!(junit.contains("p50 &lt; 50ms could not be judged: the generator was the limit (seen: 31.2 ms)"));
    // of several tests each rule says whose it is
    findings.runs.push(Arc::clone(&findings.runs[0]));
    assert!(text(&junit::Junit, &findings, Part::All).contains(r#"name="p95 &lt; 200ms (test 2)""#));
}

/// Writes the page where a person can look at it: `cargo test -p ld-master look -- --ignored`.
#[test]
#[ignore = "for eyes"]
fn look() {
    let page = text(&html::Html, &findings(), Part::All);
    files::write(&std::env::temp_dir().join("loaddensity-look.html"), page.as_bytes()).unwrap();
}

/// What a reader sees: the page without its style, charts and tags.
fn text_of(page: &str) -> String {
    let body = page.split("</style>").last().unwrap_or_default();
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push('\n');
        let close = if tag.starts_with("svg") { "</svg>" } else { ">" };
        rest = tag.split_once(close).map_or("", |(_, after)| after);
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}
