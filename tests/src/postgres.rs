//! A PostgreSQL server of the test's own.

use crate::process::free_port;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server on a free loopback port, with an empty database `postgres`; stopped on drop.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    /// Address with user, password and database.
    pub url: String,
    _folder: tempfile::TempDir,
}

impl Postgres {
    /// Starts it; `None` if it is not installed.
    pub fn start() -> Option<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
        let programs = versions.filter(|path| path.join("initdb").is_file()).max()?;
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        // the server refuses to run as root, and must be able to enter the folder
        if rustix::process::geteuid().is_root() {
            let entry = fs::read_to_string("/etc/passwd").expect("every system has users");
            let mut ids = entry.lines().find(|line| line.starts_with("postgres:"))?.split(':').skip(2);
            let [user, group] = [(); 2].map(|()| ids.next().and_then(|id| id.parse::<u32>().ok()));
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("it is our folder");
            fs::create_dir(&data).expect("it is our folder");
            fs::write(&log, "").expect("it is our folder");
            for path in [folder.path(), &data, &log] {
                chown(path, user, group).expect("root may give files away");
            }
        }
        let port = free_port();
        let quoted = |path: &Path| path.display().to_string();
        let secret = folder.path().join("secret");
        fs::write(&secret, "hunter2\n").expect("it is our folder");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("it is our file");
        shell(&format!(
            "{}/initdb -D {} -A scram-sha-256 -U postgres --pwfile={} --no-sync",
            quoted(&programs),
            quoted(&data),
            quoted(&secret)
        ));
        let socket = quoted(folder.path());
        shell(&format!(
            "{}/pg_ctl -D {} -w -t 30 -l {} -o '-p {port} -c listen_addresses=127.0.0.1 \
             -c unix_socket_directories={socket} -c fsync=off' start",
            quoted(&programs),
            quoted(&data),
            quoted(&log)
        ));
        let url = format!("postgres://postgres:hunter2@127.0.0.1:{port}/postgres");
        Some(Self { programs, data, url, _folder: folder })
    }

    /// Rows of a query, fields separated by `|`.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let psql = self.programs.join("psql");
        let text = crate::process::output_of(psql, &[&self.url, "-Atc", sql]);
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        shell(&format!("{}/pg_ctl -D {} -m immediate -w stop", self.programs.display(), self.data.display()));
    }
}

/// Runs a line as a user that is not root.
fn shell(line: &str) {
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("su");
        command.args(["postgres", "-s", "/bin/sh", "-c", line]);
        command
    } else {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        command
    };
    // not captured: the server would hold the pipe open
    let status = command.stdout(std::process::Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "failed: {line}");
}
