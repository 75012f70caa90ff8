//! The seed's target servers, and files that it wrote.

use crate::binaries::{python, test_file};
use crate::process::{Process, free_port};
use crate::wait::{PATIENCE, wait_for};
use std::fs;
use std::net::TcpStream;
use std::process::Command;

/// The seed's HTTP target on a free port; `None`, and said so, without a Python that can run it.
pub fn http_target() -> Option<(Process, u16)> {
    let Some(python) = python() else {
        crate::skip("no Python environment: tests/run makes one");
        return None;
    };
    let port = free_port();
    let mut command = Command::new(python);
    command.arg(test_file("py/http_target.py")).arg(port.to_string());
    let mut process = Process::start("http_target.py", command);
    wait_for("the seed's HTTP target", PATIENCE, || {
        assert!(process.runs(), "{}", process.stderr());
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    Some((process, port))
}

/// A file that the seed wrote: `tests/fixtures/golden/NAME`.
pub fn golden(name: &str) -> String {
    fs::read_to_string(test_file("fixtures/golden").join(name)).expect("golden files are part of the repository")
}
