//! Python peers that listen on free ports and count for themselves.
//!
//! A peer is `tests/py/NAME.py FOLDER …`: it writes `FOLDER/ports.json` when all of it listens, and
//! `FOLDER/seen.json` when it is told to stop.

use crate::binaries::{python, test_file};
use crate::process::{Process, output_of};
use crate::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    folder: TempDir,
    ports: Value,
}

impl Peer {
    /// Starts `tests/py/SCRIPT`, with a certificate for 127.0.0.1 in its folder if `tls`; `None`, and
    /// said so, without a Python.
    pub fn start(script: &str, tls: bool) -> Option<Self> {
        let Some(python) = python() else {
            crate::skip("no Python environment: tests/run makes one");
            return None;
        };
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let mut command = Command::new(python);
        command.arg(test_file("py").join(script)).arg(folder.path());
        if tls {
            let (certificate, key) = certificate(folder.path());
            command.args([certificate, key]);
        }
        let mut process = Process::start(script, command);
        let file = folder.path().join("ports.json");
        let ports = wait_for(script, PATIENCE, || {
            assert!(process.runs(), "{}", process.stderr());
            fs::read_to_string(&file).ok()
        });
        let ports = serde_json::from_str(&ports).expect("the peer writes JSON");
        Some(Self { process, folder, ports })
    }

    /// The port of one of its services.
    #[track_caller]
    pub fn port(&self, service: &str) -> u64 {
        self.ports[service].as_u64().unwrap_or_else(|| panic!("no service {service} in {}", self.ports))
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Stops it, and reads what it counted.
    pub fn stop(mut self) -> Value {
        self.process.signal(Signal::TERM);
        let finished = self.process.wait(PATIENCE);
        finished.expect_code(0);
        let seen = fs::read_to_string(self.file("seen.json")).expect("the peer writes what it saw");
        serde_json::from_str(&seen).expect("the peer writes JSON")
    }
}

/// A certificate for 127.0.0.1 and localhost that signs itself, and its key.
fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let paths = [&certificate, &key].map(|path| path.to_str().expect("temporary paths are plain"));
    let name = "subjectAltName=IP:127.0.0.1,DNS:localhost";
    output_of(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            name,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-out",
            paths[0],
            "-keyout",
            paths[1],
        ],
    );
    (certificate, key)
}
