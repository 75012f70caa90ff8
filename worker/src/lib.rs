//! `ld-worker`: makes load.

mod aggregator;
pub mod cli;
pub mod dial;
pub mod engine;
pub mod health;
pub mod healthcheck;
pub mod heir;
mod kept;
pub mod limits;
pub mod link;
pub mod membership;
pub mod messages;
pub mod pages;
pub mod probe;
pub mod protocol;
mod recorder;
mod sampler;
mod selfwatch;
mod series;
mod shipper;
pub mod spool;
pub mod stock;
mod user;
