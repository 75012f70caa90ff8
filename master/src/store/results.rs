//! Our tables: what a run was, what it measured, and the histograms that runs are compared by.

use super::{Store, StoreError, places, records, statement, storable};
use crate::compare::evidence::{Evidence, NameEvidence};
use crate::redact;
use crate::report::Findings;
use crate::run::blocks::NameBlocks;
use chrono::{DateTime, SecondsFormat, Utc};
use ld_shared::latency::Latency;
use serde::Serialize;
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Connection as _, Row as _};

/// What is kept, and under which name.
pub struct Entry<'a> {
    /// The runs and their result.
    pub findings: &'a Findings,
    /// Their label.
    pub label: Option<&'a str>,
    /// The caller's own JSON text.
    pub metadata_json: &'a str,
    /// Whether their requests are kept one by one.
    pub with_records: bool,
    /// Now.
    pub at: DateTime<Utc>,
}

/// A kept run in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Saved {
    /// Its number in the store.
    pub id: i64,
    /// Its label.
    pub label: Option<String>,
    /// When it started; of runs that another program kept: when that was.
    pub started_at: String,
    /// What was measured; of runs that another program kept nothing.
    #[serde(flatten)]
    pub measured: Option<Measured>,
}

/// The numbers of a kept run in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Its id.
    pub uuid: Option<String>,
    /// Its verdict.
    pub outcome: String,
    /// Requests that ended.
    pub requests: i64,
    /// Failures among them.
    pub failures: i64,
    /// Requests per second.
    pub requests_per_s: f64,
    /// 95th percentile of all response times.
    pub p95_ms: f64,
    /// Length.
    pub duration_s: f64,
}

/// A kept run.
pub struct Kept {
    /// Its line in lists.
    pub saved: Saved,
    /// Its plan, without secrets.
    pub plan: Option<Value>,
    /// Its result, `loaddensity.run/1`.
    pub result: Value,
    /// What it is compared by.
    pub evidence: Evidence,
}

/// What a name for a run leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// To this number.
    One(i64),
    /// To nothing.
    None,
    /// To so many.
    Many(usize),
}

const LISTED: &str = "SELECT r.id, r.label, COALESCE(s.started_at, r.started_at), s.uuid, s.outcome, s.requests, \
                      s.failures, s.requests_per_s, s.p95_ms, s.duration_s";
const COLUMNS: usize = 7;

impl Store {
    /// Makes our tables, and the seed's, if they are not there.
    pub async fn prepare(&mut self) -> Result<(), StoreError> {
        let own = self.engine.own_tables();
        self.seed_tables().await?;
        self.make(own).await.map_err(|error| self.unwritable(&error))
    }

    /// Keeps runs: all of it or nothing. Gives its number.
    pub async fn save(&mut self, entry: &Entry<'_>) -> Result<i64, StoreError> {
        self.try_save(entry).await.map_err(|error| self.unwritable(&error))
    }

    async fn try_save(&mut self, entry: &Entry<'_>) -> Result<i64, sqlx::Error> {
        let engine = self.engine;
        let mut transaction = self.connection.begin_with(engine.begin()).await?;
        let connection: &mut AnyConnection = &mut transaction;
        for sql in engine.guard().into_iter().chain([engine.seed_tables(), engine.own_tables()]) {
            sqlx::raw_sql(sql).execute(&mut *connection).await?;
        }
        let insert = "INSERT INTO load_density_runs (started_at, label, metadata_json) VALUES (?, ?, ?) RETURNING id";
        let row = statement(engine, insert)
            .bind(entry.at.to_rfc3339_opts(SecondsFormat::Secs, false))
            .bind(entry.label.map(storable))
            .bind(storable(entry.metadata_json))
            .fetch_one(&mut *connection)
            .await?;
        let run: i64 = row.try_get(0)?;
        if entry.with_records {
            records::insert(connection, engine, run, records::of(entry.findings)).await?;
        }
        if !entry.findings.runs.is_empty() {
            insert_result(connection, engine, run, entry.findings).await?;
        }
        transaction.commit().await?;
        Ok(run)
    }

    /// Forgets all but the newest `most` runs, and of those what goes beyond `most_bytes`.
    pub async fn prune(&mut self, most: i64, most_bytes: i64) -> Result<(), StoreError> {
        let sql = "DELETE FROM load_density_runs WHERE id IN (SELECT run_id FROM (SELECT run_id, \
                   row_number() OVER newest AS n, sum(bytes) OVER newest AS sum FROM loaddensity_results \
                   WINDOW newest AS (ORDER BY run_id DESC)) AS kept WHERE n > ? OR (n > 1 AND sum > ?))";
        let delete = self.query(sql).bind(most).bind(most_bytes);
        delete.execute(&mut self.connection).await.map(drop).map_err(|error| self.unwritable(&error))
    }

    /// The newest runs first, at most `limit`: those that another program kept among them.
    pub async fn saved(&mut self, limit: i64) -> Result<Vec<Saved>, StoreError> {
        if !self.has_results().await {
            let rows = self.list(limit).await?;
            let saved =
                |row: super::RunRow| Saved { id: row.id, label: row.label, started_at: row.started_at, measured: None };
            return Ok(rows.into_iter().map(saved).collect());
        }
        let sql = format!(
            "{LISTED} FROM load_density_runs r LEFT JOIN loaddensity_results s ON s.run_id = r.id \
             ORDER BY r.id DESC LIMIT ?"
        );
        let rows = self.rows(self.query(&sql).bind(limit)).await?;
        rows.iter().map(saved).collect::<Result<_, _>>().map_err(|error| self.unreadable(&error))
    }

    /// A run by its number; `None` if it is not there, or another program kept it.
    pub async fn kept(&mut self, run: i64) -> Result<Option<Kept>, StoreError> {
        if !self.has_results().await {
            return Ok(None);
        }
        let sql = format!(
            "{LISTED}, s.plan, s.result, s.evidence FROM load_density_runs r \
             JOIN loaddensity_results s ON s.run_id = r.id WHERE r.id = ?"
        );
        let rows = self.rows(self.query(&sql).bind(run)).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let sql = "SELECT name, scenario, failures, histogram, blocks FROM loaddensity_histograms \
                   WHERE run_id = ? ORDER BY position";
        let names = self.rows(self.query(sql).bind(run)).await?;
        kept(row, &names).map(Some).map_err(|error| self.unreadable(&error))
    }

    /// The run that `name` stands for: its number, `latest`, `previous`, the begin of its id, or its
    /// label (the newest of that label).
    pub async fn find(&mut self, name: &str) -> Result<Found, StoreError> {
        if !self.has_results().await {
            return Ok(Found::None);
        }
        let from = "SELECT s.run_id FROM loaddensity_results s JOIN load_density_runs r ON r.id = s.run_id";
        let skip = match name {
            "latest" => Some(0_i64),
            "previous" => Some(1),
            _ => None,
        };
        if let Some(skip) = skip {
            let sql = format!("{from} ORDER BY s.run_id DESC LIMIT 1 OFFSET ?");
            let rows = self.rows(self.query(&sql).bind(skip)).await?;
            return self.found(&rows);
        }
        if let Ok(number) = name.parse::<i64>() {
            let rows = self.rows(self.query(&format!("{from} WHERE s.run_id = ?")).bind(number)).await?;
            if !rows.is_empty() {
                return self.found(&rows);
            }
        }
        let by_label = format!("{from} WHERE r.label = ? ORDER BY s.run_id DESC LIMIT 1");
        let rows = self.rows(self.query(&by_label).bind(name.to_owned())).await?;
        if !rows.is_empty() {
            return self.found(&rows);
        }
        if name.len() < 4 || !name.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            return Ok(Found::None);
        }
        // one run may have been kept more than once: the newest of each id
        let by_id = "SELECT max(run_id) FROM loaddensity_results WHERE uuid LIKE ? GROUP BY uuid";
        let rows = self.rows(self.query(by_id).bind(format!("{}%", name.to_ascii_lowercase()))).await?;
        self.found(&rows)
    }

    fn found(&self, rows: &[AnyRow]) -> Result<Found, StoreError> {
        match rows {
            [] => Ok(Found::None),
            [row] => row.try_get(0).map(Found::One).map_err(|error| self.unreadable(&error)),
            many => Ok(Found::Many(many.len())),
        }
    }

    /// Whether our tables are there: the seed makes none.
    async fn has_results(&mut self) -> bool {
        let probe = self.query("SELECT run_id FROM loaddensity_results LIMIT 1");
        probe.fetch_all(&mut self.connection).await.is_ok()
    }
}

async fn insert_result(
    connection: &mut AnyConnection,
    engine: &dyn super::Engine,
    run: i64,
    findings: &Findings,
) -> Result<(), sqlx::Error> {
    let encode = |error: serde_json::Error| sqlx::Error::Encode(error.into());
    let result = &findings.result;
    let mut json = serde_json::to_value(result).map_err(encode)?;
    redact::result(&mut json);
    let json = json.to_string();
    let plan = findings.runs.last().map(|run| redact::plan(&run.measured.plan.to_json()).to_string());
    let evidence = Evidence::of(&findings.runs, result);
    let frame = serde_json::to_string(&evidence.frame()).map_err(encode)?;
    let names: Vec<NameRow> = evidence.names.into_iter().map(NameRow::of).collect();
    let bytes = json.len() + plan.as_ref().map_or(0, String::len) + names.iter().map(NameRow::bytes).sum::<usize>();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let info = result.run.as_ref();
    let columns = "run_id, uuid, started_at, outcome, requests, failures, requests_per_s, p95_ms, duration_s, bytes, \
                   plan, result, evidence";
    statement(engine, &format!("INSERT INTO loaddensity_results ({columns}) VALUES {}", places(1, 13)))
        .bind(run)
        .bind(info.map(|info| info.id.clone()))
        .bind(info.map(|info| info.started_at.to_rfc3339_opts(SecondsFormat::Secs, false)))
        .bind(result.verdict.outcome.name())
        .bind(number(result.totals.requests))
        .bind(number(result.totals.failures))
        .bind(result.totals.requests_per_s)
        .bind(result.latency_overall.p95_ms)
        .bind(result.runs.iter().map(|entry| entry.run.duration_s).sum::<f64>())
        .bind(number(bytes as u64))
        .bind(plan)
        .bind(json)
        .bind(frame)
        .execute(&mut *connection)
        .await?;
    for (index, chunk) in names.chunks(CHUNK).enumerate() {
        let sql = format!(
            "INSERT INTO loaddensity_histograms (run_id, position, name, scenario, failures, histogram, blocks) VALUES {}",
            places(chunk.len(), COLUMNS)
        );
        let mut insert = statement(engine, &sql);
        for (offset, name) in chunk.iter().enumerate() {
            insert = insert
                .bind(run)
                .bind(number((index * CHUNK + offset) as u64))
                .bind(name.name.clone())
                .bind(name.scenario.clone())
                .bind(number(name.failures))
                .bind(name.histogram.clone())
                .bind(name.blocks.clone());
        }
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Names a statement.
const CHUNK: usize = 100;

/// A line of `loaddensity_histograms`.
struct NameRow {
    name: String,
    scenario: Option<String>,
    failures: u64,
    histogram: Vec<u8>,
    blocks: Vec<u8>,
}

impl NameRow {
    fn of((name, evidence): (String, NameEvidence)) -> Self {
        Self {
            name: storable(&redact::urls(&name)),
            scenario: evidence.scenario.as_deref().map(storable),
            failures: evidence.failed,
            histogram: evidence.response.encoded(),
            blocks: evidence.blocks.map(|blocks| blocks.encoded()).unwrap_or_default(),
        }
    }

    fn bytes(&self) -> usize {
        self.name.len() + self.histogram.len() + self.blocks.len()
    }
}

fn saved(row: &AnyRow) -> Result<Saved, sqlx::Error> {
    let outcome: Option<String> = row.try_get(4)?;
    let measured = match outcome {
        None => None,
        Some(outcome) => Some(Measured {
            uuid: row.try_get(3)?,
            outcome,
            requests: row.try_get(5)?,
            failures: row.try_get(6)?,
            requests_per_s: row.try_get(7)?,
            p95_ms: row.try_get(8)?,
            duration_s: row.try_get(9)?,
        }),
    };
    Ok(Saved { id: row.try_get(0)?, label: row.try_get(1)?, started_at: row.try_get(2)?, measured })
}

fn kept(row: &AnyRow, names: &[AnyRow]) -> Result<Kept, sqlx::Error> {
    let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| decode(error.into()));
    let plan: Option<String> = row.try_get(10)?;
    let (result, frame): (String, String) = (row.try_get(11)?, row.try_get(12)?);
    let frame = serde_json::from_str(&frame).map_err(|error| decode(error.into()))?;
    let names: Vec<_> = names.iter().map(name).collect::<Result<_, _>>()?;
    Ok(Kept {
        saved: saved(row)?,
        plan: plan.as_deref().map(json).transpose()?,
        result: json(&result)?,
        evidence: Evidence::of_parts(frame, names),
    })
}

fn name(row: &AnyRow) -> Result<(String, NameEvidence), sqlx::Error> {
    let decode = |error: ld_shared::latency::DecodeError| sqlx::Error::Decode(error.into());
    let (histogram, blocks): (Vec<u8>, Vec<u8>) = (row.try_get(3)?, row.try_get(4)?);
    let mut response = Latency::default();
    response.merge_encoded(&histogram).map_err(decode)?;
    let blocks = if blocks.is_empty() { None } else { Some(NameBlocks::decode(&blocks).map_err(decode)?) };
    let failures: i64 = row.try_get(2)?;
    let evidence =
        NameEvidence { response, failed: u64::try_from(failures).unwrap_or(0), scenario: row.try_get(1)?, blocks };
    Ok((row.try_get(0)?, evidence))
}
