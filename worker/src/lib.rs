//! `ld-worker`: makes load.

pub mod engine;
pub mod probe;
pub mod protocol;
