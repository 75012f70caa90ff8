//! `LD_persist_records`, `LD_list_runs`, `LD_fetch_run_records`: runs in a database.

use super::{Command, CommandError};
use crate::app::App;
use crate::script::{CommandSpec, Kind, Parameter};
use crate::store::{self, Entry, KeptRecord, Missing, RunRow, StoreError};
use ld_shared::boot::clock;
use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;
use serde_json::{Map, Value};
use std::io;

const DATABASE: Parameter = Parameter::new("database_path", Kind::Text).required().file();

/// Keeps everything since `LD_clear_records`.
#[derive(Deserialize)]
pub(super) struct PersistRecords {
    database_path: String,
    label: Option<String>,
    metadata: Option<Map<String, Value>>,
}

impl Command for PersistRecords {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_persist_records",
        parameters: &[
            DATABASE,
            Parameter::new("label", Kind::OrNull(&Kind::Text)),
            Parameter::new("metadata", Kind::OrNull(&Kind::Object)),
        ],
        check: None,
    };
    const ABOUT: &'static str = "Keeps requests, plan and result in SQLite (a path) or PostgreSQL (a URL)";
    /// The number of the run in the database.
    type Output = i64;

    async fn run(self, app: &App) -> Result<i64, CommandError> {
        let findings = app.findings();
        let entry = Entry {
            findings: &findings,
            label: self.label.as_deref(),
            metadata_json: &python_json(&self.metadata.unwrap_or_default()),
            with_records: true,
            at: clock::wall(),
        };
        let mut store = store::open(&self.database_path, Missing::Create).await.map_err(failed)?;
        let number = store.save(&entry).await.map_err(failed)?;
        store.close().await;
        Ok(number)
    }
}

/// Lists kept runs.
#[derive(Deserialize)]
pub(super) struct ListRuns {
    database_path: String,
    #[serde(default = "twenty")]
    limit: i64,
}

fn twenty() -> i64 {
    20
}

impl Command for ListRuns {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_list_runs",
        parameters: &[DATABASE, Parameter::new("limit", Kind::Integer)],
        check: None,
    };
    const ABOUT: &'static str = "Lists the runs of a database, the newest first";
    type Output = Vec<RunRow>;

    async fn run(self, _app: &App) -> Result<Vec<RunRow>, CommandError> {
        let mut store = store::open(&self.database_path, Missing::Create).await.map_err(failed)?;
        let rows = store.list(self.limit).await.map_err(failed)?;
        store.close().await;
        Ok(rows)
    }
}

/// Gives the requests of a kept run.
#[derive(Deserialize)]
pub(super) struct FetchRunRecords {
    database_path: String,
    run_id: i64,
}

impl Command for FetchRunRecords {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_fetch_run_records",
        parameters: &[DATABASE, Parameter::new("run_id", Kind::Integer).required()],
        check: None,
    };
    const ABOUT: &'static str = "Gives the kept requests of a run in a database";
    type Output = Vec<KeptRecord>;

    async fn run(self, _app: &App) -> Result<Vec<KeptRecord>, CommandError> {
        let mut store = store::open(&self.database_path, Missing::Create).await.map_err(failed)?;
        let records = store.fetch(self.run_id).await.map_err(failed)?;
        store.close().await;
        Ok(records)
    }
}

/// By the seed's class: `sqlite3.OperationalError`.
#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(error: StoreError) -> CommandError {
    CommandError::of("OperationalError", &error)
}

/// As Python's `json.dumps` writes it with `ensure_ascii=False`: blanks after commas and colons.
fn python_json(map: &Map<String, Value>) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Blanks);
    map.serialize(&mut serializer).expect("a map of JSON values has a JSON form");
    String::from_utf8(out).expect("JSON is UTF-8")
}

struct Blanks;

impl Formatter for Blanks {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_is_written_as_python_does() {
        let map = json!({"branch": "dév", "n": 1, "l": [1, 2.5], "o": {}, "x": {"a": null, "b": true}});
        let text = r#"{"branch": "dév", "n": 1, "l": [1, 2.5], "o": {}, "x": {"a": null, "b": true}}"#;
        assert_eq!(python_json(map.as_object().unwrap()), text);
        assert_eq!(python_json(&Map::new()), "{}");
    }
}
