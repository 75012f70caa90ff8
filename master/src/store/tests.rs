//! Both stores through one suite, and what only one of them can show.

use super::*;
use crate::report::Findings;
use crate::run::result::RunResult;
use crate::run::verdict::Verdict;
use crate::run::{Run, fixture};
use chrono::{TimeZone as _, Utc};
use ld_shared::sample::Phase;
use std::sync::Arc;

fn findings() -> Findings {
    let mut measured = fixture::measured();
    measured.blocks.add(3, &measured.total);
    let hostile = measured.records.iter_mut().find(|record| record.phase == Phase::Main).unwrap();
    hostile.url = "http://me:hunter2@h/\0é".into();
    let verdict = Verdict::of(&measured, fixture::thresholds());
    let runs = vec![Arc::new(Run { measured, verdict: verdict.clone(), label: Some("shop".into()) })];
    Findings { result: RunResult::of(&runs, verdict), runs }
}

fn entry(findings: &Findings) -> Entry<'_> {
    let at = Utc.with_ymd_and_hms(2026, 11, 24, 19, 0, 5).single().unwrap();
    Entry { findings, label: Some("ünï"), metadata_json: r#"{"n": 1}"#, with_records: true, at }
}

/// What every engine must do.
async fn conforms(place: &str) -> Vec<KeptRecord> {
    let mut store = open(place, Missing::Create).await.unwrap();
    assert_eq!(store.list(20).await.unwrap(), []);
    assert_eq!(store.fetch(999).await.unwrap(), []);
    assert_eq!(store.saved(20).await.unwrap(), []);
    assert_eq!(store.find("latest").await.unwrap(), Found::None);

    let findings = findings();
    let first = store.save(&entry(&findings)).await.unwrap();
    let nothing = Findings { result: RunResult::of(&[], Verdict::nothing()), runs: Vec::new() };
    let second = store.save(&Entry { label: None, metadata_json: "{}", ..entry(&nothing) }).await.unwrap();
    let third = store.save(&Entry { with_records: false, ..entry(&findings) }).await.unwrap();
    assert_eq!((first, second, third), (1, 2, 3));

    let rows = store.list(2).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [3, 2]);
    assert_eq!((&rows[1].label, rows[1].metadata_json.as_deref()), (&None, Some("{}")));
    let row = store.list(-1).await.unwrap().pop().unwrap();
    assert_eq!((row.label.as_deref(), row.started_at.as_str()), (Some("ünï"), "2026-11-24T19:00:05+00:00"));

    let records = store.fetch(1).await.unwrap();
    let kept: Vec<_> = records::of(&findings).collect();
    assert_eq!(records.len(), kept.len());
    assert!(records.is_sorted_by_key(|record| record.outcome == "failure"));
    for (row, record) in records.iter().zip(&kept) {
        assert_eq!(row.response_time_ms, Some(record.response_us as f64 / 1e3));
        assert_eq!(row.status_code, record.status.map(|status| status.to_string()));
        assert_eq!(row.error.as_deref(), record.error.as_deref());
    }
    assert!(store.fetch(2).await.unwrap().is_empty() && store.fetch(3).await.unwrap().is_empty());

    let saved = store.saved(20).await.unwrap();
    assert_eq!(saved.iter().map(|saved| saved.measured.is_some()).collect::<Vec<_>>(), [true, false, true]);
    let kept = store.kept(1).await.unwrap().unwrap();
    assert_eq!(kept.result["schema"], "loaddensity.run/1");
    assert_eq!(kept.result["totals"]["requests"].as_u64(), Some(findings.result.totals.requests));
    let evidence = crate::compare::evidence::Evidence::of(&findings.runs, &findings.result);
    assert_eq!(kept.evidence.frame(), evidence.frame());
    for (name, found) in &evidence.names {
        let kept = &kept.evidence.names[name];
        assert_eq!((&kept.response, kept.failed, &kept.blocks), (&found.response, found.failed, &found.blocks));
        assert!(kept.scenario.is_some() && kept.blocks.is_some());
    }
    assert!(store.kept(2).await.unwrap().is_none() && store.kept(9).await.unwrap().is_none());

    let uuid = findings.result.run.as_ref().unwrap().id.clone();
    for (name, found) in [
        ("latest", Found::One(3)),
        ("previous", Found::One(1)),
        ("1", Found::One(1)),
        ("2", Found::None),
        ("ünï", Found::One(3)),
        (uuid.as_str(), Found::One(3)),
        (uuid.get(..8).unwrap(), Found::One(3)),
        ("x%", Found::None),
    ] {
        assert_eq!(store.find(name).await.unwrap(), found, "{name}");
    }
    store.prune(1, i64::MAX).await.unwrap();
    assert_eq!(store.list(20).await.unwrap().iter().map(|row| row.id).collect::<Vec<_>>(), [3, 2]);
    assert!(store.fetch(1).await.unwrap().is_empty(), "a run takes its records with it");
    store.prune(10, 1).await.unwrap();
    assert_eq!(store.find("latest").await.unwrap(), Found::One(3), "the newest stays, whatever its size");
    store.close().await;
    records
}

#[tokio::test]
async fn sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let records = conforms(&folder.path().join("a b.db").display().to_string()).await;
    assert!(records.iter().any(|record| record.test_url.as_deref() == Some("http://me:***@h/\u{fffd}é")));
    let bytes = std::fs::read(folder.path().join("a b.db")).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
}

/// `LD_TEST_POSTGRES` names an empty database, for trying by hand; `tests/tests/store.rs` holds both
/// engines against each other with a server of its own.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test reads its environment")]
async fn postgres_conforms() {
    let Ok(place) = std::env::var("LD_TEST_POSTGRES") else { return };
    let folder = tempfile::tempdir().unwrap();
    let other = conforms(&folder.path().join("x.db").display().to_string()).await;
    assert_eq!(conforms(&place).await, other);
}

#[tokio::test]
async fn a_database_of_the_seed_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.db");
    let place = format!("sqlite:{}", path.display());
    let mut store = open(&place, Missing::Create).await.unwrap();
    let made = include_str!("../../migrations/sqlite/1_seed.sql").replace("IF NOT EXISTS ", "");
    sqlx::raw_sql(AssertSqlSafe(made)).execute(&mut store.connection).await.unwrap();
    let rows = "INSERT INTO load_density_runs VALUES (7, '2026-11-23T07:51:41+00:00', NULL, '{}');
                INSERT INTO load_density_records VALUES (1, 7, 'success', 'GET', 'u', 'n', NULL, 3, 24, NULL)";
    sqlx::raw_sql(rows).execute(&mut store.connection).await.unwrap();
    let saved = store.saved(5).await.unwrap();
    assert_eq!((saved[0].id, saved[0].measured.is_some()), (7, false));
    assert!(store.kept(7).await.unwrap().is_none());
    let records = store.fetch(7).await.unwrap();
    assert_eq!((records[0].response_time_ms, &records[0].status_code), (Some(3.0), &None));
    assert_eq!(store.save(&entry(&findings())).await.unwrap(), 8);
    assert_eq!(store.list(5).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_opened_or_written_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let fault = async |name: &str| open(&folder.path().join(name).display().to_string(), Missing::Create).await.err();
    let text = fault("no/x.db").await.unwrap().to_string();
    assert!(text.starts_with("cannot open the database `") && text.ends_with("its folder does not exist"), "{text}");
    std::fs::write(folder.path().join("text"), "no database, but a text that is long enough").unwrap();
    let mut store = open(&folder.path().join("text").display().to_string(), Missing::Create).await.unwrap();
    let text = store.list(1).await.unwrap_err().to_string();
    assert!(text.ends_with("the file is no SQLite database"), "{text}");
    for url in ["postgres://me:hunter2@127.0.0.1:1/x", "postgres://127.0.0.1:1/x?user=me&password=hunter2"] {
        let text = open(url, Missing::Create).await.err().unwrap().to_string();
        assert!(!text.contains("hunter2") && text.contains("127.0.0.1:1/x"), "{text}");
    }
}

#[tokio::test]
async fn writers_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let history = history::History::new(folder.path().join("state"));
    let run = Arc::clone(&findings().runs[0]);
    let save = || {
        let (history, run) = (history.clone(), Arc::clone(&run));
        tokio::spawn(async move { history.save(&run).await.unwrap() })
    };
    let mut numbers = Vec::new();
    for task in [save(), save(), save(), save()] {
        numbers.push(task.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[test]
fn places_are_told_apart() {
    assert_eq!(parse("sqlite:a/b.db"), Place::File("a/b.db".into()));
    assert_eq!(parse("sqlite:///a/b.db"), Place::File("/a/b.db".into()));
    assert_eq!(parse(r"C:\x.db"), Place::File(r"C:\x.db".into()));
    assert_eq!(parse("PostgreSQL://h/d"), Place::Server("PostgreSQL://h/d".into()));
}
