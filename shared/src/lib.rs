//! Values and pure functions that master and workers share: no I/O and no tasks, except in [`boot`]
//! and, for tests alone, [`noise`].
//!
//! The straight path through it: a [`plan::Plan`] is sliced into [`shard::Shard`]s by
//! [`lanes`]; [`load`] says what of a shard is due when; what ends becomes histograms
//! ([`latency`]) in a [`snapshot::Snapshot`], which travels as a [`frame::Frame`] and merges without
//! loss. [`template`], [`scope`], [`predicate`] and [`check`] are the language of tasks.

pub mod boot;
pub mod check;
pub mod clock_estimate;
pub mod fault;
pub mod frame;
pub mod handshake;
pub mod id;
pub mod json_schema;
pub mod lanes;
pub mod latency;
pub mod load;
pub mod message;
pub mod noise;
pub mod operand;
pub mod path;
pub mod plan;
pub mod predicate;
pub mod pytext;
pub mod record;
pub mod reply;
pub mod rng;
pub mod sample;
pub mod scope;
pub mod secrets;
pub mod shard;
pub mod snapshot;
pub mod targets;
pub mod template;
#[cfg(test)]
mod testing;
pub mod threshold;
pub mod throttle;
pub mod ticket;
pub mod time;
pub mod wire;
