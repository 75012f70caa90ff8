//! Process plumbing of both binaries.

pub mod cause;
pub mod clock;
pub mod signal;
pub mod task;
pub mod telemetry;
pub mod version;
