//! Which run a word on the command line means.

use super::{Fault, Place};
use crate::cli::Global;
use crate::compare::evidence::Evidence;
use crate::store::{Found, Store};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A run that was found.
pub(super) struct Known {
    /// `run 12`, or its file.
    pub title: String,
    /// Its label.
    pub label: Option<String>,
    /// When it started.
    pub started_at: Option<String>,
    /// Its plan, if a store kept it.
    pub plan: Option<Value>,
    /// `loaddensity.run/1`.
    pub result: Value,
    /// What it is compared by.
    pub evidence: Evidence,
}

/// Finds runs; the store is opened when a run is not a file.
pub(super) struct Finder<'a> {
    global: &'a Global,
    place: &'a Place,
    store: Option<Store>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(global: &'a Global, place: &'a Place) -> Self {
        Self { global, place, store: None }
    }

    /// The run of this name.
    pub(super) async fn find(&mut self, name: &str) -> Result<Known, Fault> {
        if Path::new(name).is_file() {
            return summary(name);
        }
        if self.store.is_none() {
            self.store = self.place.open(self.global).await?;
        }
        let Some(store) = &mut self.store else {
            return Err(Fault::Input(format!("no run `{name}`: nothing was kept yet, and there is no such file")));
        };
        let number = match store.find(name).await? {
            Found::One(number) => number,
            Found::Many(n) => {
                let text = format!("`{name}` is the begin of {n} ids in `{}`: give more of it", store.place());
                return Err(Fault::Input(text));
            }
            Found::None => {
                let text = format!(
                    "no run `{name}` with a result in `{}`, and no such file; accepted: a number or id of \
                     `ld-master runs list`, a label, latest, previous, or a file of --summary",
                    store.place()
                );
                return Err(Fault::Input(text));
            }
        };
        let kept = store.kept(number).await?;
        let kept = kept.ok_or_else(|| Fault::Input(format!("run {number} is gone from `{}`", store.place())))?;
        Ok(Known {
            title: format!("run {number}"),
            label: kept.saved.label,
            started_at: Some(kept.saved.started_at),
            plan: kept.plan,
            result: kept.result,
            evidence: kept.evidence,
        })
    }

    pub(super) async fn close(self) {
        if let Some(store) = self.store {
            store.close().await;
        }
    }
}

fn summary(path: &str) -> Result<Known, Fault> {
    let fault = |why: String| Fault::Input(format!("`{path}` is no file of --summary: {why}"));
    let bytes = fs::read(path).map_err(|error| fault(error.to_string().to_lowercase()))?;
    let result: Value = serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
    let evidence = Evidence::of_summary(&result).map_err(fault)?;
    let text = |key: &str| result["run"][key].as_str().map(str::to_owned);
    let (label, started_at) = (text("label"), text("started_at"));
    Ok(Known { title: path.to_owned(), label, started_at, plan: None, result, evidence })
}

impl Known {
    /// `run 12, shop, 3 min ago, 12,345 requests in 30 s`.
    pub(super) fn line(&self) -> String {
        let now = ld_shared::boot::clock::wall();
        let requests = crate::format::count(self.result["totals"]["requests"].as_u64().unwrap_or(0));
        let seconds = crate::format::duration(self.evidence.seconds);
        let when = self.started_at.as_deref().map(|at| super::listed::when(at, now));
        let parts =
            [Some(self.title.clone()), self.label.clone(), when, Some(format!("{requests} requests in {seconds}"))];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
