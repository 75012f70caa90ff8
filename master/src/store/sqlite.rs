//! SQLite: a file.

use super::{Engine, Missing, said};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// SQLite.
pub(super) struct Sqlite;

impl Engine for Sqlite {
    fn seed_tables(&self) -> &'static str {
        include_str!("../../migrations/sqlite/1_seed.sql")
    }

    fn own_tables(&self) -> &'static str {
        include_str!("../../migrations/sqlite/2_results.sql")
    }

    /// Takes the write lock at once: two that read first and write then would block each other.
    fn begin(&self) -> &'static str {
        "BEGIN IMMEDIATE"
    }

    fn guard(&self) -> Option<&'static str> {
        None
    }

    fn statement(&self, sql: &str) -> String {
        sql.to_owned()
    }

    fn explain(&self, error: &sqlx::Error) -> String {
        let said = said(error);
        match said.as_str() {
            "database or disk is full" => "no space left on the disk".into(),
            "attempt to write a readonly database" => "it is read-only".into(),
            "database is locked" => "another process is writing to it, and did not finish within 5 s".into(),
            "file is not a database" => "the file is no SQLite database".into(),
            _ => said,
        }
    }
}

/// The URL of a file. What makes opening fail is looked for here, since SQLite only says "unable to
/// open database file".
pub(super) fn url(path: &Path, missing: Missing) -> Result<String, String> {
    if path.as_os_str().is_empty() {
        return Err("its path is empty".into());
    }
    if path.is_dir() {
        return Err("it is a folder".into());
    }
    let there = fs::exists(path).map_err(|error| error.to_string().to_lowercase())?;
    if !there && missing == Missing::Fail {
        return Err("there is no such file".into());
    }
    let absolute = absolute(path)?;
    // without the right to write a file can still be read
    let read_only = there && fs::File::options().append(true).open(path).is_err();
    let mode = match missing {
        _ if read_only => "ro",
        Missing::Create => "rwc",
        Missing::Fail => "rw",
    };
    Ok(format!("sqlite://{}?mode={mode}", encoded(&absolute)))
}

/// The path from the root: a URL's own rules for `..` know no links.
fn absolute(path: &Path) -> Result<PathBuf, String> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = fs::canonicalize(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string().to_lowercase(),
    })?;
    path.file_name().map(|name| folder.join(name)).ok_or_else(|| "its path names no file".to_owned())
}

/// Percent-encodes all but what stands for itself in a path.
fn encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => text.push(char::from(*byte)),
            _ => write!(text, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_urls_and_faults_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let fault = |path: &str, missing| url(&folder.path().join(path), missing).unwrap_err();
        assert_eq!(fault("no/x.db", Missing::Create), "its folder does not exist");
        assert_eq!(fault("x.db", Missing::Fail), "there is no such file");
        assert_eq!(fault("", Missing::Create), "it is a folder");
        let odd = url(&folder.path().join("a b?c#d%.db"), Missing::Create).unwrap();
        assert!(odd.ends_with("/a%20b%3Fc%23d%25.db?mode=rwc"), "{odd}");
    }
}
