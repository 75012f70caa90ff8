//! `ld-worker`: makes load.

mod aggregator;
pub mod dial;
pub mod engine;
pub mod link;
pub mod membership;
pub mod probe;
pub mod protocol;
mod recorder;
mod sampler;
mod selfwatch;
mod series;
mod user;
pub mod spool;
