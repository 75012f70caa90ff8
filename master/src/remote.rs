//! Callers from outside (control socket, MCP, HTTP API): who they are, what they may do, and the queue
//! in which their documents wait.

pub mod access;
pub mod caller;
pub mod desk;
mod files;
pub mod now;
pub mod policy;
#[cfg(test)]
mod tests;

pub use access::{Access, Level};
pub use caller::Caller;
pub use desk::{Finished, Job, JobState, Order, SubmitError};
pub use now::{Feed, Now};
pub use policy::{Caps, Policy};
