//! A journal without a disk, for simulators: a commit is a call, and a crash loses the rest.

use super::Journal;
use super::book::{Book, Image};
use super::entry::{Entry, Order};
use super::recovered::{RecoverError, Recovered};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A journal in memory. Clones are the same journal: one for the driver, one for the simulated disk.
#[derive(Clone, Debug)]
pub struct MemoryJournal(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    book: Book,
    image: Image,
    failure: Option<String>,
}

impl MemoryJournal {
    /// Of a new run; its order is the first entry.
    pub fn new(order: &Order) -> Self {
        Self::over(Book::new(order), Image::default())
    }

    /// Goes on after a crash, over what [`Self::image`] was then.
    pub fn resume(image: Image) -> Result<(Self, Recovered), RecoverError> {
        let recovered = Recovered::of(&image)?;
        let book = Book::resume(&image, recovered.ledger.clone());
        Ok((Self::over(book, image), recovered))
    }

    fn over(book: Book, image: Image) -> Self {
        Self(Arc::new(Mutex::new(State { book, image, failure: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits everything appended so far; `whole`: with the ledger.
    pub fn commit(&self, whole: bool) {
        let state = &mut *self.state();
        if state.failure.is_none() && (whole || !state.book.is_empty()) {
            state.image.apply(&state.book.seal(whole));
        }
    }

    /// The disk fails from now on.
    pub fn fail(&self, why: &str) {
        self.state().failure = Some(why.to_owned());
    }

    /// What a crash now would leave.
    pub fn image(&self) -> Image {
        self.state().image.clone()
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, entry: Entry) -> u64 {
        self.state().book.add(entry)
    }

    fn committed(&self) -> u64 {
        self.state().image.number
    }

    fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }
}
