//! A document, run in one process or on a cluster of workers.

use crate::process::{Finished, Process, command, free_port};
use crate::summary::Summary;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// Runs `document` with so many workers of one core each; 0: in one process. Its summary adds up.
#[track_caller]
pub fn run(folder: &Path, document: &Value, workers: usize) -> (Finished, Summary) {
    run_with(folder, document, workers, &[])
}

/// The same with more words for the master's command line.
#[track_caller]
pub fn run_with(folder: &Path, document: &Value, workers: usize, more: &[&str]) -> (Finished, Summary) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut master = command("ld-master", folder);
    if workers > 0 {
        master.args(["--bind", &address, "--expected-workers", &workers.to_string()]);
    }
    master.args(["run-str", &document.to_string(), "--summary", "summary.json"]).args(more);
    let mut master = Process::start("ld-master", master);
    let mut others: Vec<Process> = (0..workers)
        .map(|_| {
            let mut worker = command("ld-worker", folder);
            worker.args(["--master", &address, "--cores", "1"]);
            Process::start("ld-worker", worker)
        })
        .collect();
    let finished = master.wait(LIMIT);
    for worker in &mut others {
        worker.wait(LIMIT);
    }
    let summary = Summary::read(&folder.join("summary.json"));
    let summary = summary.unwrap_or_else(|why| panic!("{why}\n{}\n{}", finished.stdout, finished.stderr));
    summary.check_conservation();
    (finished, summary)
}
