//! `ld-worker`: makes load.

pub mod dial;
pub mod engine;
pub mod probe;
pub mod protocol;
