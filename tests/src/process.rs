//! Processes under test: output in files, an end that is always waited for.

use crate::binaries::binary;
use crate::wait::{PATIENCE, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running program. Killed, and waited for, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    folder: TempDir,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Panics unless it ended with this exit code, showing what it wrote.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        let (out, err) = (&self.stdout, &self.stderr);
        assert_eq!(self.code, Some(code), "\n--- stdout\n{out}\n--- stderr\n{err}");
        self
    }

    /// Panics unless stdout or stderr holds `text`.
    #[track_caller]
    pub fn expect_said(&self, text: &str) -> &Self {
        let (out, err) = (&self.stdout, &self.stderr);
        assert!(out.contains(text) || err.contains(text), "no `{text}` in\n--- stdout\n{out}\n--- stderr\n{err}");
        self
    }
}

impl Process {
    /// Starts `command`, with its output going to files.
    pub fn start(name: &str, mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let open = |file: &str| File::create(folder.path().join(file)).expect("the temporary folder is writable");
        let child = command
            .stdin(Stdio::null())
            .stdout(open("stdout"))
            .stderr(open("stderr"))
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        Self { name: name.to_owned(), child, folder }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join(file)).unwrap_or_default()).into_owned()
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.child.try_wait().expect("it is our child").is_none() {
            let pid = Pid::from_raw(self.child.id().cast_signed()).expect("no process has id 0");
            kill_process(pid, signal).expect("it is our child");
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for the first line of stdout or stderr that holds `text`, and returns it.
    pub fn line_with(&mut self, text: &str) -> String {
        let find =
            |all: &str| all.split_inclusive('\n').find(|l| l.contains(text) && l.ends_with('\n')).map(str::to_owned);
        wait_for(&format!("`{text}` from {}", self.name), PATIENCE, || {
            let ended = !self.runs();
            let line = find(&self.stdout()).or_else(|| find(&self.stderr()));
            let (name, out, err) = (&self.name, self.stdout(), self.stderr());
            assert!(line.is_some() || !ended, "{name} ended without `{text}`\n--- stdout\n{out}\n--- stderr\n{err}");
            line
        })
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Finished {
        let end = ld_shared::boot::clock::mono().after(limit);
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() };
            }
            let (name, out, err) = (&self.name, self.stdout(), self.stderr());
            let late = ld_shared::boot::clock::mono() >= end;
            assert!(!late, "{name} still runs after {limit:?}\n--- stdout\n{out}\n--- stderr\n{err}");
            crate::wait::pause(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended by itself, which is as good
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A command line of one of the product's binaries, with a state folder of its own and no
/// environment that could change what it does.
pub fn command(name: &str, state: &Path) -> Command {
    let mut command = Command::new(binary(name));
    clean(&mut command, state);
    command
}

/// The same inside a network namespace.
pub fn command_in(namespace: &str, name: &str, state: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(binary(name));
    clean(&mut command, state);
    command
}

fn clean(command: &mut Command, state: &Path) {
    for (key, _) in std::env::vars_os() {
        let key = key.to_string_lossy().into_owned();
        if key.starts_with("LD_") && !["LD_LIBRARY_PATH", "LD_PRELOAD"].contains(&key.as_str()) {
            command.env_remove(key);
        }
    }
    command.env("HOME", state).env("XDG_STATE_HOME", state).env("XDG_DATA_HOME", state).current_dir(state);
}

/// A master that runs one document, and workers that dial it.
#[derive(Debug)]
pub struct Cluster {
    /// The master.
    pub master: Process,
    /// The workers, `w1` first.
    pub workers: Vec<Process>,
    /// Folder of their state, and of the summary.
    pub folder: TempDir,
}

impl Cluster {
    /// Starts `ld-master run` and `workers` one-core workers on loopback; 0: a local run.
    pub fn start(document: &serde_json::Value, workers: usize, flags: &[&str]) -> Self {
        Self::start_with(document, workers, flags, |_, state| command("ld-worker", state))
    }

    /// The same with an own command for each worker, numbered from 1.
    pub fn start_with(
        document: &serde_json::Value,
        workers: usize,
        flags: &[&str],
        worker: impl FnMut(usize, &Path) -> Command,
    ) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        Self::launch(document, workers, &address, flags, |state| command("ld-master", state), worker)
    }

    /// The same with an own command for the master, which listens on `address`.
    pub fn launch(
        document: &serde_json::Value,
        workers: usize,
        address: &str,
        flags: &[&str],
        master: impl FnOnce(&Path) -> Command,
        mut worker: impl FnMut(usize, &Path) -> Command,
    ) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let file = folder.path().join("test.json");
        fs::write(&file, document.to_string()).expect("the temporary folder is writable");
        let mut master = master(folder.path());
        if workers > 0 {
            master.args(["--bind", address, "--expected-workers", &workers.to_string()]);
        }
        master.args(flags).arg("run").arg(&file).arg("--summary").arg(folder.path().join("summary.json"));
        let master = Process::start("ld-master", master);
        let workers = (1..=workers)
            .map(|n| {
                let mut command = worker(n, folder.path());
                command.args(["--master", address, "--name", &format!("w{n}"), "--cores", "1"]);
                Process::start(&format!("ld-worker w{n}"), command)
            })
            .collect();
        Self { master, workers, folder }
    }

    /// Where the summary will be.
    pub fn summary_path(&self) -> PathBuf {
        self.folder.path().join("summary.json")
    }

    /// Waits for master and workers; returns how the master ended and its summary.
    pub fn finish(&mut self, limit: Duration) -> (Finished, crate::summary::Summary) {
        let finished = self.master.wait(limit);
        for worker in &mut self.workers {
            worker.wait(limit);
        }
        let (out, err) = (&finished.stdout, &finished.stderr);
        let summary = crate::summary::Summary::read(&self.summary_path())
            .unwrap_or_else(|e| panic!("no summary: {e}\n--- stdout\n{out}\n--- stderr\n{err}"));
        (finished, summary)
    }
}

/// Runs a program to its end, and returns stdout.
pub fn output_of(program: impl AsRef<OsStr>, args: &[&str]) -> String {
    let output = Command::new(program.as_ref()).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {}: {e}", program.as_ref().display()));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {args:?} failed: {err}", program.as_ref().display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
