//! The store of the data folder: every run is kept in it by itself, with its result and without its
//! requests, so that any two can be compared later.

use super::{Entry, Missing, Store, StoreError, open};
use crate::data_dir;
use crate::journal;
use crate::report::Findings;
use crate::run::Run;
use crate::run::result::RunResult;
use ld_shared::boot::clock;
use std::path::PathBuf;
use std::sync::Arc;

/// Its file.
const FILE: &str = "runs.db";
/// Most runs.
const MOST: i64 = 1_000;
/// Most bytes of results and histograms.
const MOST_BYTES: i64 = 256 << 20;

/// Where runs are kept by themselves.
#[derive(Clone, Debug)]
pub struct History {
    folder: PathBuf,
}

impl History {
    /// In `folder`, which is made if it is not there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where journals of runs under way are: beside it.
    pub fn journals(&self) -> journal::Folder {
        journal::Folder::new(self.folder.clone())
    }

    /// Its store's file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Opens its store; makes both if they are not there.
    pub async fn open(&self) -> Result<Store, StoreError> {
        let place = self.path().display().to_string();
        data_dir::make(&self.folder).map_err(|error| StoreError::Open {
            place: place.clone(),
            reason: format!("cannot make its folder: {}", error.to_string().to_lowercase()),
        })?;
        let mut store = open(&place, Missing::Create).await?;
        // readers and writers side by side; a process that sets the same at this moment wins for both
        let pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL";
        if let Err(error) = sqlx::raw_sql(pragmas).execute(&mut store.connection).await {
            tracing::debug!(%error, "journal mode not set");
        }
        store.prepare().await?;
        Ok(store)
    }

    /// Keeps a run. Gives its number.
    pub async fn save(&self, run: &Arc<Run>) -> Result<i64, StoreError> {
        let mut store = self.open().await?;
        let result = RunResult::of(std::slice::from_ref(run), run.verdict.clone());
        let findings = Findings { result, runs: vec![Arc::clone(run)] };
        let entry = Entry {
            findings: &findings,
            label: run.label.as_deref(),
            metadata_json: "{}",
            with_records: false,
            at: clock::wall(),
        };
        let number = store.save(&entry).await?;
        store.prune(MOST, MOST_BYTES).await?;
        store.close().await;
        Ok(number)
    }
}
