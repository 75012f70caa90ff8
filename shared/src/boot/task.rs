//! Long-lived tasks, by name.

use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Spawns a long-lived task: its log lines carry `name`, and a panic in it is logged, not swallowed.
///
/// Dropping the handle detaches the task; it ends with the runtime.
pub fn spawn<T: Send + 'static>(name: &'static str, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work.instrument(tracing::info_span!("task", name)))
}
