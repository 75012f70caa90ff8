//! Names of the samples of one worker: small numbers on the hot path, texts at its edge.

use crate::kept::{Kept, Texts};
use ld_shared::record::Record;
use ld_shared::sample::{MAX_NAMES, OTHER, SeriesKey, cut};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers series in the order in which they are first seen. Beyond [`MAX_NAMES`] all are [`OTHER_ID`].
#[derive(Debug)]
pub(crate) struct SeriesTable {
    inner: Mutex<(HashMap<SeriesKey, u16>, Vec<SeriesKey>)>,
    /// Request types and scenarios, by number.
    origins: Mutex<Vec<(Arc<str>, Arc<str>)>>,
}

/// The series of all names beyond the limit.
pub(crate) const OTHER_ID: u16 = 0;

impl SeriesTable {
    pub(crate) fn new() -> Self {
        let other = SeriesKey { name: OTHER.into(), request_type: OTHER.into(), scenario: OTHER.into() };
        Self { inner: Mutex::new((HashMap::new(), vec![other])), origins: Mutex::default() }
    }

    /// The number of a series.
    pub(crate) fn id(&self, name: &str, request_type: &Arc<str>, scenario: &Arc<str>) -> u16 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (ids, keys) = &mut *inner;
        let key = SeriesKey {
            name: cut(name).into(),
            request_type: Arc::clone(request_type),
            scenario: Arc::clone(scenario),
        };
        if let Some(id) = ids.get(&key) {
            return *id;
        }
        if keys.len() > MAX_NAMES {
            return OTHER_ID;
        }
        let id = keys.len() as u16;
        keys.push(key.clone());
        ids.insert(key, id);
        id
    }

    /// Keys by number.
    pub(crate) fn keys(&self) -> Vec<SeriesKey> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The number of a request type in a scenario. Those beyond what a number holds share the greatest.
    pub(crate) fn origin(&self, request_type: &Arc<str>, scenario: &Arc<str>) -> u16 {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let known = origins.iter().position(|(r, s)| r == request_type && s == scenario);
        let number = known.unwrap_or_else(|| {
            origins.push((Arc::clone(request_type), Arc::clone(scenario)));
            origins.len() - 1
        });
        u16::try_from(number).unwrap_or(u16::MAX)
    }

    fn origins(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the numbers of a table stand for, as far as somebody has asked.
pub(crate) struct Names {
    table: Arc<SeriesTable>,
    keys: Vec<SeriesKey>,
    origins: Vec<(Arc<str>, Arc<str>)>,
    /// The name of the worker in records: the master fills it in.
    nobody: Arc<str>,
}

impl Names {
    pub(crate) fn new(table: Arc<SeriesTable>) -> Self {
        Self { table, keys: Vec::new(), origins: Vec::new(), nobody: Arc::from("") }
    }

    /// Asks the table for all that it has.
    pub(crate) fn refresh(&mut self) {
        self.keys = self.table.keys();
    }

    /// Keys by number, as of the last time.
    pub(crate) fn keys(&self) -> &[SeriesKey] {
        &self.keys
    }

    /// The key of a series.
    pub(crate) fn key(&mut self, id: u16) -> SeriesKey {
        self.known(id).clone()
    }

    fn known(&mut self, id: u16) -> &SeriesKey {
        if self.keys.len() <= usize::from(id) {
            self.refresh();
        }
        &self.keys[usize::from(id)]
    }

    /// A kept request with its texts.
    pub(crate) fn spell(&mut self, kept: Kept) -> Record {
        let origin = usize::from(kept.origin);
        if self.origins.len() <= origin {
            self.origins = self.table.origins();
        }
        let name = Arc::clone(&self.known(kept.series).name);
        let (request_type, scenario) = self.origins[origin].clone();
        kept.spell(Texts { name, request_type, scenario, worker: Arc::clone(&self.nobody) })
    }
}
