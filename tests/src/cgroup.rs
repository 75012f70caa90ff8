//! A share of a CPU: what a container with a quota gets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A CPU group with a share of one core, removed on drop.
#[derive(Debug)]
pub struct CpuGroup(PathBuf);

impl CpuGroup {
    /// A group that gets `percent` of one core; `None` if groups cannot be made here.
    pub fn new(percent: u32) -> Option<Self> {
        let v1 = Path::new("/sys/fs/cgroup/cpu");
        let (root, quota) = if v1.is_dir() {
            (
                v1,
                [("cpu.cfs_period_us", "100000".to_owned()), ("cpu.cfs_quota_us", (percent * 1000).to_string())]
                    .to_vec(),
            )
        } else {
            (Path::new("/sys/fs/cgroup"), vec![("cpu.max", format!("{} 100000", percent * 1000))])
        };
        let group = Self(root.join(format!("ld-test-{}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        for (file, value) in quota {
            fs::write(group.0.join(file), value).ok()?;
        }
        Some(group)
    }

    /// The same command, to run in this group.
    pub fn confine(&self, command: &Command, folder: &Path) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ >"$0" && exec "$@""#]).arg(self.0.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args()).current_dir(folder);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        shell
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        // a group that still has processes stays; the kernel forgets it with the machine
        drop(fs::remove_dir(&self.0));
    }
}
