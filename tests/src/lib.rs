//! Harness of the suites: the two binaries as processes, targets whose own counts are the truth,
//! faults, and a reader for what a run printed.
//!
//! Suites (`tests/tests/`): `target` proves the truth target itself, `truth` holds a run's numbers
//! against its log, `hosts` does so with workers in network namespaces and a throttled cgroup, `e2e`
//! follows documents and exit codes, `reports` reads what they write, `faults` kills and starves.
//! Everything binds free loopback ports, and only processes that were started here are ever signalled.
//!
//! `tests/run` builds the binaries and a Python environment first. What needs root, or something that
//! is not installed, says so and is skipped, unless `LD_TEST_STRICT=1` makes that a failure.

#![expect(clippy::missing_panics_doc, reason = "a harness panics: that is how a test fails, and it says with what")]

pub mod api;
pub mod binaries;
pub mod certificates;
pub mod cgroup;
pub mod cluster;
pub mod control;
pub mod document;
pub mod grpc;
pub mod metrics;
pub mod mosquitto;
pub mod netns;
pub mod nginx;
pub mod peer;
pub mod plan;
pub mod postgres;
pub mod process;
pub mod relay;
pub mod scripted;
pub mod seed;
pub mod sessions;
pub mod sim;
pub mod summary;
pub mod wait;
pub mod web;

use std::io::Write as _;

/// Says on stderr that a test could not be done here, and why. Panics under `LD_TEST_STRICT=1`.
pub fn skip(reason: &str) {
    assert!(!binaries::strict(), "cannot be skipped under LD_TEST_STRICT=1: {reason}");
    writeln!(std::io::stderr(), "SKIPPED: {reason}").expect("stderr is captured by the test runner");
}

/// Whether this process may make namespaces, mounts and cgroups; says that the test is skipped if not.
pub fn root_or_skip() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}
