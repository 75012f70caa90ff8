//! Names of the samples of one worker: small numbers on the hot path, texts at its edge.

use ld_shared::sample::{MAX_NAMES, OTHER, SeriesKey};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers series in the order in which they are first seen. Beyond [`MAX_NAMES`] all are [`OTHER_ID`].
#[derive(Debug)]
pub(crate) struct SeriesTable {
    inner: Mutex<(HashMap<SeriesKey, u16>, Vec<SeriesKey>)>,
}

/// The series of all names beyond the limit.
pub(crate) const OTHER_ID: u16 = 0;

impl SeriesTable {
    pub(crate) fn new() -> Self {
        let other = SeriesKey { name: OTHER.into(), request_type: OTHER.into(), scenario: OTHER.into() };
        Self { inner: Mutex::new((HashMap::new(), vec![other])) }
    }

    /// The number of a series.
    pub(crate) fn id(&self, name: &str, request_type: &Arc<str>, scenario: &Arc<str>) -> u16 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (ids, keys) = &mut *inner;
        let key =
            SeriesKey { name: name.into(), request_type: Arc::clone(request_type), scenario: Arc::clone(scenario) };
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
}
