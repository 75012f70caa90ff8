//! Every call of a tool, one JSON line each, without secrets.

use crate::executor::masked;
use ld_shared::boot::clock;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest file; then it becomes `NAME.1`, in place of the one before.
const LONGEST: u64 = 8 << 20;
/// Longest arguments that are written down.
const MOST_OF_A_CALL: usize = 16 << 10;

/// The log.
pub(super) struct Audit {
    path: PathBuf,
    file: Mutex<File>,
}

/// A call that was answered.
pub(super) struct Called<'a> {
    /// Who called.
    pub client: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// With what.
    pub arguments: &'a Value,
    /// Why it failed, if it did.
    pub error: Option<&'a str>,
    /// How long it took.
    pub took: Duration,
}

impl Audit {
    /// Goes on at the end of the file.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let file = Mutex::new(append(&path)?);
        Ok(Self { path, file })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a call down.
    pub(super) fn write(&self, called: &Called<'_>) {
        let line = format!("{}\n", line(called));
        // a file that is appended to is whole at every moment
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut file, line.as_bytes()) {
            tracing::error!(file = %self.path.display(), "a call is missing in the audit log: {error}");
        }
    }

    fn append(&self, file: &mut File, line: &[u8]) -> io::Result<()> {
        if file.metadata()?.len() + line.len() as u64 > LONGEST {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            *file = append(&self.path)?;
        }
        file.write_all(line)
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

fn line(called: &Called<'_>) -> Value {
    let mut arguments = masked(called.arguments);
    let bytes = arguments.to_string().len();
    if bytes > MOST_OF_A_CALL {
        arguments = json!({"left_out_bytes": bytes});
    }
    let error = called.error.map(|error| masked(&error.into()));
    json!({
        "at": clock::wall().to_rfc3339(),
        "client": called.client,
        "tool": called.tool,
        "arguments": arguments,
        "ok": error.is_none(),
        "error": error,
        "ms": called.took.as_millis() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_without_secrets_in_a_bounded_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/audit.jsonl");
        let audit = Audit::open(path.clone()).unwrap();
        let arguments = json!({"actions": [["LD_start_test", {"auth": {"password": "hush"}}]]});
        let called = |arguments| Called { client: "c", tool: "t", arguments, error: None, took: Duration::ZERO };
        audit.write(&called(&arguments));
        let long = json!({"text": "x".repeat(MOST_OF_A_CALL)});
        audit.write(&called(&long));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!text.contains("hush") && lines.len() == 2 && lines[0]["ok"] == true, "{text}");
        assert!(lines[1]["arguments"]["left_out_bytes"].as_u64() > Some(MOST_OF_A_CALL as u64));
        File::options().write(true).open(&path).unwrap().set_len(LONGEST).unwrap();
        audit.write(&called(&arguments));
        assert_eq!(std::fs::metadata(folder.path().join("deep/audit.jsonl.1")).unwrap().len(), LONGEST);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }
}
