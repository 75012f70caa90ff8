//! The child process of a package: bounded in time and size, whatever it does.

use serde_json::Value;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// What a package may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For an answer.
    pub answer_within: Duration,
    /// For the line of an answer.
    pub answer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer_within: Duration::from_mins(1), answer_bytes: 4 * 1024 * 1024 }
    }
}

/// Bytes of stderr that an error shows: its end, where the reason usually stands.
const STDERR_TAIL: usize = 2_000;
/// How long is waited for its exit status, and for the end of its stderr, once it has closed its stdout.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(200);
/// How long a package may take to go once its stdin is closed.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// What is wrong with a package, or what it said was wrong.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// There is no file of that name, and no Python package can have it.
    #[error("there is no package `{0}`: neither an executable file nor the name of a Python package")]
    NoSuchFile(String),
    /// The file cannot be run.
    #[error("the package `{0}` is a file that cannot be run: it is not marked executable")]
    NotExecutable(String),
    /// The process did not start.
    #[error("cannot start the package `{package}` by `{program}`")]
    Start {
        /// Which.
        package: String,
        /// What was run.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("the package `{package}` did not answer within {within:?} and was ended{said}")]
    Late {
        /// Which.
        package: String,
        /// How long was waited.
        within: Duration,
        /// The end of its stderr.
        said: String,
    },
    /// It ended, or closed its stdout, instead of answering.
    #[error("the package `{package}` ended without an answer ({how}){said}")]
    Ended {
        /// Which.
        package: String,
        /// Its exit status.
        how: String,
        /// The end of its stderr.
        said: String,
    },
    /// The answer is longer than allowed.
    #[error("the package `{package}` sent a line of more than {limit} bytes and was ended{said}")]
    TooLong {
        /// Which.
        package: String,
        /// The limit.
        limit: usize,
        /// The end of its stderr.
        said: String,
    },
    /// The answer is none to what was asked.
    #[error("the package `{package}` broke the protocol and was ended: {what}{said}")]
    Protocol {
        /// Which.
        package: String,
        /// How.
        what: String,
        /// The end of its stderr.
        said: String,
    },
    /// Its list of commands is none.
    #[error("the package `{0}` gave a list of commands that is none")]
    List(String, #[source] serde_json::Error),
    /// The package itself says that it failed.
    #[error("{message}")]
    Said {
        /// Class of the error.
        kind: String,
        /// Its text.
        message: String,
    },
}

/// A package's process. Dropping it kills it and whatever it started in its process group.
#[derive(Debug)]
pub(super) struct Process {
    package: String,
    child: Child,
    group: Option<u32>,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<Vec<u8>>>,
    draining: JoinHandle<()>,
    asked: u64,
}

impl Process {
    pub(super) fn start(package: &str, program: &Path, arguments: &[String]) -> Result<Self, PackageError> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C on the terminal is for us: we end it when we are done
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|source| PackageError::Start {
            package: package.to_owned(),
            program: program.display().to_string(),
            source,
        })?;
        let group = child.id();
        let piped = "its three streams were asked for";
        let (stdin, stdout) = (child.stdin.take().expect(piped), child.stdout.take().expect(piped));
        let stderr = Arc::default();
        let draining = drain(child.stderr.take().expect(piped), Arc::clone(&stderr));
        let draining = ld_shared::boot::task::spawn("package-stderr", draining);
        let (package, stdin, stdout) = (package.to_owned(), Some(stdin), BufReader::new(stdout));
        Ok(Self { package, child, group, stdin, stdout, stderr, draining, asked: 0 })
    }

    /// Sends a request (its `id` is set here) and waits for its answer, within limits.
    pub(super) async fn ask(&mut self, mut request: Value, limits: &Limits) -> Result<Value, PackageError> {
        self.asked += 1;
        request["id"] = self.asked.into();
        let line = format!("{request}\n");
        let asked = tokio::time::timeout(limits.answer_within, self.exchange(&line, limits.answer_bytes)).await;
        let Ok(line) = asked else {
            let (package, within) = (self.package.clone(), limits.answer_within);
            return Err(PackageError::Late { package, within, said: self.said() });
        };
        let line = line?;
        let answer: Value = serde_json::from_slice(&line)
            .map_err(|error| self.protocol(format!("a line that is no JSON ({error}): {}", start_of(&line))))?;
        if answer.get("id") != Some(&self.asked.into()) {
            return Err(self.protocol(format!(
                "an answer to another request than {}: {}",
                self.asked,
                start_of(&line)
            )));
        }
        if !answer.get("ok").is_some_and(Value::is_boolean) {
            return Err(self.protocol(format!("an answer without `ok`: {}", start_of(&line))));
        }
        Ok(answer)
    }

    async fn exchange(&mut self, line: &str, most: usize) -> Result<Vec<u8>, PackageError> {
        let written = async {
            let Some(stdin) = &mut self.stdin else { return Ok(()) };
            stdin.write_all(line.as_bytes()).await?;
            stdin.flush().await
        };
        let mut answer = Vec::new();
        // it may answer, or end, before it has read everything
        let mut reading = (&mut self.stdout).take(most as u64 + 1);
        let (written, read) = tokio::join!(written, reading.read_until(b'\n', &mut answer));
        if answer.len() > most {
            return Err(PackageError::TooLong { package: self.package.clone(), limit: most, said: self.said() });
        }
        if read.is_err() || written.is_err() || answer.last() != Some(&b'\n') {
            let ended = tokio::time::timeout(LAST_WORDS_WITHIN, self.child.wait()).await;
            let how = match ended {
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it closed its output and stayed".into(),
            };
            // its last words may still be on their way
            drop(tokio::time::timeout(LAST_WORDS_WITHIN, &mut self.draining).await);
            return Err(PackageError::Ended { package: self.package.clone(), how, said: self.said() });
        }
        Ok(answer)
    }

    fn protocol(&self, what: String) -> PackageError {
        PackageError::Protocol { package: self.package.clone(), what, said: self.said() }
    }

    /// The end of its stderr, as part of an error's text.
    fn said(&self) -> String {
        let bytes = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!("; its stderr ends: {text}") }
    }

    /// Closes its stdin and gives it a moment to go.
    pub(super) async fn end(mut self) {
        self.stdin = None;
        // dropping it kills what has not gone
        drop(tokio::time::timeout(LEAVE_WITHIN, self.child.wait()).await);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(group) = self.group.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
            // it has gone already: then there is nobody to kill
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        }
    }
}

/// Keeps the end of what comes.
async fn drain(mut stderr: ChildStderr, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(buffer.iter().take(n));
        let surplus = kept.len().saturating_sub(STDERR_TAIL);
        kept.drain(..surplus);
    }
}

/// The start of a line, for an error's text.
fn start_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let short: String = text.trim_end().chars().take(100).collect();
    format!("`{short}`")
}
