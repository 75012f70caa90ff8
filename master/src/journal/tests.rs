//! Tests over all of the journal.
