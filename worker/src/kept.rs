//! A request that is kept, as a core gives it away.
//!
//! In a run's first seconds nearly every request is one: it is as small as it can be, takes nothing
//! from the heap if it succeeded, and is spelt out only if it is shipped.

use ld_shared::record::{Answer, Record};
use ld_shared::sample::Phase;
use std::sync::Arc;

/// One request of the main phase. Fields without a word: those of [`Record`].
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) priority: u64,
    pub(crate) ended_at: u64,
    pub(crate) started_at: u64,
    pub(crate) response_us: u64,
    pub(crate) body_bytes: u64,
    pub(crate) url: Arc<str>,
    pub(crate) error: Option<Arc<str>>,
    pub(crate) answer: Option<Arc<Answer>>,
    pub(crate) status: Option<u16>,
    /// Number of its name ([`crate::series::SeriesTable`]).
    pub(crate) series: u16,
    /// Number of its request type and scenario: a series of names beyond the limit does not tell.
    pub(crate) origin: u16,
}

/// The texts of a kept request that its numbers stand for.
pub(crate) struct Texts {
    pub(crate) name: Arc<str>,
    pub(crate) request_type: Arc<str>,
    pub(crate) scenario: Arc<str>,
    /// The master fills it in: empty.
    pub(crate) worker: Arc<str>,
}

impl Kept {
    /// 0: a success, 1: a failure.
    pub(crate) fn kind(&self) -> usize {
        usize::from(self.error.is_some())
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn size(&self) -> usize {
        let error = self.error.as_ref().map_or(0, |error| error.len());
        let answer = self.answer.as_ref().map_or(0, |answer| answer.size());
        size_of::<Self>() + self.url.len() + error + answer
    }

    /// As it travels.
    pub(crate) fn spell(self, texts: Texts) -> Record {
        Record {
            priority: self.priority,
            ended_at: self.ended_at,
            started_at: self.started_at,
            phase: Phase::Main,
            request_type: texts.request_type,
            url: self.url,
            name: texts.name,
            scenario: texts.scenario,
            worker: texts.worker,
            status: self.status,
            response_us: self.response_us,
            body_bytes: self.body_bytes,
            error: self.error,
            answer: self.answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_request_is_small() {
        assert!(size_of::<Kept>() <= 88, "{}", size_of::<Kept>());
    }
}
