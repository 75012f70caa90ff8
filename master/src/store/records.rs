//! The seed's tables: runs, and their requests one by one.

use super::{Store, StoreError, places, statement, storable};
use crate::redact;
use crate::report::Findings;
use ld_shared::record::Record;
use ld_shared::sample::Phase;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

/// A line of `load_density_runs`, as `LD_list_runs` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunRow {
    /// Its number.
    pub id: i64,
    /// When it was kept, ISO 8601 to the second.
    pub started_at: String,
    /// Its label.
    pub label: Option<String>,
    /// JSON text.
    pub metadata_json: Option<String>,
}

/// A line of `load_density_records`, as `LD_fetch_run_records` gives it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptRecord {
    /// `success` or `failure`.
    pub outcome: String,
    /// `GET`, `WS`, …
    pub method: Option<String>,
    /// URL or target.
    pub test_url: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Status as text.
    pub status_code: Option<String>,
    /// Milliseconds.
    pub response_time_ms: Option<f64>,
    /// Bytes of the decoded body.
    pub response_length: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Rows a statement: few enough for every engine's limit on parameters.
const ROWS: usize = 500;
const COLUMNS: usize = 9;

impl Store {
    /// The newest runs first, at most `limit`; a negative one is none.
    pub async fn list(&mut self, limit: i64) -> Result<Vec<RunRow>, StoreError> {
        self.seed_tables().await?;
        let sql = "SELECT id, started_at, label, metadata_json FROM load_density_runs ORDER BY id DESC LIMIT ?";
        let limit = if limit < 0 { i64::MAX } else { limit };
        let rows = self.rows(self.query(sql).bind(limit)).await?;
        rows.iter().map(run_row).collect::<Result<_, _>>().map_err(|error| self.unreadable(&error))
    }

    /// The requests of a run in their order; of an unknown run none.
    pub async fn fetch(&mut self, run: i64) -> Result<Vec<KeptRecord>, StoreError> {
        self.seed_tables().await?;
        let sql = "SELECT outcome, method, test_url, name, status_code, response_time_ms, response_length, error \
                   FROM load_density_records WHERE run_id = ? ORDER BY id";
        let rows = self.rows(self.query(sql).bind(run)).await?;
        rows.iter().map(kept_record).collect::<Result<_, _>>().map_err(|error| self.unreadable(&error))
    }
}

fn run_row(row: &AnyRow) -> Result<RunRow, sqlx::Error> {
    Ok(RunRow {
        id: row.try_get(0)?,
        started_at: row.try_get(1)?,
        label: row.try_get(2)?,
        metadata_json: row.try_get(3)?,
    })
}

fn kept_record(row: &AnyRow) -> Result<KeptRecord, sqlx::Error> {
    Ok(KeptRecord {
        outcome: row.try_get(0)?,
        method: row.try_get(1)?,
        test_url: row.try_get(2)?,
        name: row.try_get(3)?,
        status_code: row.try_get(4)?,
        response_time_ms: row.try_get(5)?,
        response_length: row.try_get(6)?,
        error: row.try_get(7)?,
    })
}

/// Kept requests of the main phases: successes first, then failures, each in order of their ends.
pub(super) fn of(findings: &Findings) -> impl Iterator<Item = &Record> {
    let main = || findings.runs.iter().flat_map(|run| &run.measured.records).filter(|r| r.phase == Phase::Main);
    main().filter(|r| r.error.is_none()).chain(main().filter(|r| r.error.is_some()))
}

/// Writes the requests of run `run`.
pub(super) async fn insert<'a>(
    connection: &mut AnyConnection,
    engine: &dyn super::Engine,
    run: i64,
    records: impl Iterator<Item = &'a Record>,
) -> Result<(), sqlx::Error> {
    let records: Vec<&Record> = records.collect();
    for chunk in records.chunks(ROWS) {
        let sql = format!(
            "INSERT INTO load_density_records (run_id, outcome, method, test_url, name, status_code, response_time_ms, \
             response_length, error) VALUES {}",
            places(chunk.len(), COLUMNS)
        );
        let mut insert = statement(engine, &sql);
        for record in chunk {
            let text = |text: &str| storable(&redact::urls(text));
            insert = insert
                .bind(run)
                .bind(if record.error.is_none() { "success" } else { "failure" })
                .bind(text(&record.request_type))
                .bind(text(&record.url))
                .bind(text(&record.name))
                .bind(record.status.map(|status| status.to_string()))
                .bind(record.response_us as f64 / 1e3)
                .bind(i64::try_from(record.body_bytes).unwrap_or(i64::MAX))
                .bind(record.error.as_deref().map(text));
        }
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}
