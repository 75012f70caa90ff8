//! Runs of the store.

use super::Web;
use super::problem::{Code, Problem};
use crate::store::{self, Found, Kept, Missing, Saved, Store, StoreError};

/// The newest runs of the store, at most so many.
pub(super) async fn list(web: &Web, limit: u64) -> Result<Vec<Saved>, Problem> {
    let Some(mut store) = open(web).await? else { return Ok(Vec::new()) };
    let saved = store.saved(i64::try_from(limit).unwrap_or(i64::MAX)).await;
    store.close().await;
    saved.map_err(|error| unusable(&error))
}

/// The run that a number, an id or the begin of one, a label, `latest` or `previous` means.
pub(super) async fn find(web: &Web, name: &str) -> Result<Kept, Problem> {
    let none = || {
        let problem = Problem::new(Code::NoSuchRun, format!("there is no run `{name}`")).param("run", name);
        problem.help("GET /api/v1/runs lists those that there are").at("#path/id")
    };
    let Some(mut store) = open(web).await? else { return Err(none()) };
    let kept = match store.find(name).await {
        Ok(Found::One(number)) => store.kept(number).await,
        Ok(Found::None) => Ok(None),
        Ok(Found::Many(_)) => {
            let problem =
                Problem::new(Code::NoSuchRun, format!("`{name}` is the begin of several ids: give more of it"));
            return Err(problem.param("run", name).at("#path/id"));
        }
        Err(error) => Err(error),
    };
    store.close().await;
    kept.map_err(|error| unusable(&error))?.ok_or_else(none)
}

/// The store; `None`: nothing was kept yet.
async fn open(web: &Web) -> Result<Option<Store>, Problem> {
    let Some(path) = web.app.history().map(crate::store::history::History::path).filter(|path| path.exists()) else {
        return Ok(None);
    };
    store::open(&path.display().to_string(), Missing::Fail).await.map(Some).map_err(|error| unusable(&error))
}

fn unusable(error: &StoreError) -> Problem {
    tracing::warn!(%error, "the store of runs cannot be used");
    Problem::new(Code::Store, "the store of runs cannot be used; the master's log says why")
}
