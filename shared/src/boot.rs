//! Process plumbing of both binaries.

pub mod clock;
