//! A server in Python that says where it listens and, at its end, what it saw.

use crate::binaries::{python, test_file};
use crate::process::Process;
use crate::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A running server: `tests/py/NAME FOLDER [ARGUMENTS…]`. It writes `ports.json` when it listens and
/// `seen.json` when it is asked to end.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    folder: TempDir,
    ports: Value,
}

impl Peer {
    /// Starts it; `None`, and said so, without a Python that can run it.
    pub fn start(name: &str, arguments: &[&str]) -> Option<Self> {
        let Some(python) = python() else {
            crate::skip("no Python environment: tests/run makes one");
            return None;
        };
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let mut command = Command::new(python);
        command.arg(test_file("py").join(name)).arg(folder.path()).args(arguments);
        let mut process = Process::start(name, command);
        let ports = wait_for(name, PATIENCE, || {
            assert!(process.runs(), "{}", process.stderr());
            serde_json::from_slice(&fs::read(folder.path().join("ports.json")).ok()?).ok()
        });
        Some(Self { process, folder, ports })
    }

    /// A port that it listens on.
    #[track_caller]
    pub fn port(&self, key: &str) -> u16 {
        let port = self.ports[key].as_u64().and_then(|port| u16::try_from(port).ok());
        port.unwrap_or_else(|| panic!("no port `{key}` in {}", self.ports))
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends it; what it saw.
    pub fn stop(mut self) -> Value {
        self.process.signal(Signal::TERM);
        self.process.wait(PATIENCE).expect_code(0);
        let seen = fs::read(self.folder.path().join("seen.json")).expect("it writes what it saw");
        serde_json::from_slice(&seen).expect("it writes JSON")
    }
}
