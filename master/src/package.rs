//! Packages: programs beside this one that bring commands of their own, in any language.
//!
//! A package is a child process that speaks JSON lines: one request a line on its stdin, one answer
//! a line on its stdout. What it writes to stderr is shown when it fails.
//!
//! | request | answer |
//! |---|---|
//! | `{"id": 1, "op": "list"}` | `{"id": 1, "ok": true, "commands": [{"name", "about"?, "parameters"?: [{"name", "required"?}]}]}` |
//! | `{"id": 2, "op": "call", "command": NAME, "arguments": {…} or […]}` | `{"id": 2, "ok": true, "value": …}` |
//! | any | `{"id": N, "ok": false, "error": {"kind": …, "message": …}}` |
//!
//! Nothing it does can hang or flood its caller: every answer has a deadline and a size, and a
//! package that misses one, or answers what was not asked, is ended. The next call starts it anew.

mod process;

pub use process::{Limits, PackageError};

use process::Process;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// Serves importable Python packages.
const BRIDGE: &str = include_str!("../assets/bridge.py");

/// How a package is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// As documents name it.
    pub name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Launch {
    /// From what a document gives: the path of an executable, or the name of a Python package that
    /// `python` can import. A name without a slash is a file only if there is such a file.
    ///
    /// # Errors
    ///
    /// A path without an executable behind it, and a text that is neither.
    pub fn of(package: &str, python: &str) -> Result<Self, PackageError> {
        let path = Path::new(package);
        let name = package.to_owned();
        if path.is_file() {
            if !is_executable(path) {
                return Err(PackageError::NotExecutable(name));
            }
            // a bare name would be searched for in PATH
            let program = if package.contains('/') { path.to_owned() } else { Path::new(".").join(path) };
            return Ok(Self { name, program, arguments: Vec::new() });
        }
        let is_part = |part: &str| {
            part.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_alphanumeric() || c == '_')
        };
        if !package.split('.').all(is_part) {
            return Err(PackageError::NoSuchFile(name));
        }
        let arguments = vec!["-u".to_owned(), "-c".to_owned(), BRIDGE.to_owned(), package.to_owned()];
        Ok(Self { name, program: python.into(), arguments })
    }
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|about| about.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> bool {
    true
}

/// A command of a package, as the package describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Described {
    /// Its name in documents.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub about: String,
    /// What it takes, in positional order.
    #[serde(default)]
    pub parameters: Vec<DescribedParameter>,
}

/// A parameter of a package's command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DescribedParameter {
    /// Its key.
    pub name: String,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
}

/// A package that runs. Calls come one after another.
#[derive(Debug)]
pub struct Package {
    launch: Launch,
    limits: Limits,
    process: Mutex<Option<Process>>,
}

impl Package {
    /// Starts a package and asks for its commands.
    ///
    /// # Errors
    ///
    /// It cannot be started, or its answer is late, too long, or no list of commands.
    pub async fn start(launch: Launch, limits: Limits) -> Result<(Self, Vec<Described>), PackageError> {
        let package = Self { launch, limits, process: Mutex::new(None) };
        let answer = package.ask(json!({"op": "list"})).await?;
        let commands = answer.get("commands").cloned().unwrap_or_default();
        let commands: Vec<Described> = serde_json::from_value(commands)
            .map_err(|source| PackageError::List(package.launch.name.clone(), source))?;
        Ok((package, commands))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Calls one of its commands with arguments by name (an object) or by position (a list).
    ///
    /// # Errors
    ///
    /// What the package says went wrong, and everything that is wrong with the package itself.
    pub async fn call(&self, command: &str, arguments: &Value) -> Result<Value, PackageError> {
        let mut answer = self.ask(json!({"op": "call", "command": command, "arguments": arguments})).await?;
        Ok(answer.get_mut("value").map_or(Value::Null, Value::take))
    }

    /// Ends it: its stdin is closed, and if it does not go by itself it is killed.
    pub async fn end(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.end().await;
        }
    }

    async fn ask(&self, request: Value) -> Result<Value, PackageError> {
        let mut place = self.process.lock().await;
        let mut process = match place.take() {
            Some(process) => process,
            None => Process::start(&self.launch.name, &self.launch.program, &self.launch.arguments)?,
        };
        // a process that broke the protocol is dropped here, and with that killed
        let answer = process.ask(request, &self.limits).await?;
        *place = Some(process);
        if answer.get("ok") == Some(&Value::Bool(true)) {
            return Ok(answer);
        }
        let text = |key: &str| answer.pointer(&format!("/error/{key}")).and_then(Value::as_str);
        let message = text("message").unwrap_or("it gave no message").to_owned();
        Err(PackageError::Said { kind: text("kind").unwrap_or("Exception").to_owned(), message })
    }
}

#[cfg(test)]
mod tests;
