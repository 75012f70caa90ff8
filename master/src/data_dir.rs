//! The folder of what outlives a process: kept runs, journals, the certificate, the key of sessions.
//!
//! Readable by its owner only: names of hosts and pages, and keys, are nobody else's business.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A folder that may not be there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// In `root`. Nothing is made before something is to be kept.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The user's, by the habits of the system; `None` if the environment does not say where that is.
    pub fn of_user(environment: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let named = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if cfg!(windows) {
            return named("LOCALAPPDATA").map(|folder| Self::new(folder.join("loaddensity")));
        }
        if cfg!(target_os = "macos") {
            return named("HOME").map(|home| Self::new(home.join("Library/Application Support/loaddensity")));
        }
        let state = named("XDG_STATE_HOME").filter(|folder| folder.is_absolute());
        let state = state.or_else(|| named("HOME").map(|home| home.join(".local/state")));
        state.map(|folder| Self::new(folder.join("loaddensity")))
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of runs' journals: `runs/<id>/` each.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Makes the folder, if it is not there, for its owner only.
    pub fn create(&self) -> io::Result<()> {
        make(&self.root)
    }

    /// What the file `name` in it holds; if there is none, it is made to hold what `make` gives.
    /// Processes that do so side by side get the same, and never half of it.
    pub fn keep(&self, name: &str, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => return read,
        }
        self.create()?;
        let fresh = self.root.join(format!(".{name}-{}", uuid::Uuid::new_v4()));
        let written = make().and_then(|bytes| {
            let mut file = private(&fresh)?;
            file.write_all(&bytes)?;
            // under its name it must be whole, whatever happens to the machine
            file.sync_all()?;
            // a link, not a rename: the first to come wins
            fs::hard_link(&fresh, &path)
        });
        // left behind, it is of no use and does no harm
        drop(fs::remove_file(&fresh));
        match written {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => fs::read(&path),
        }
    }
}

/// Makes a folder, and those above it, for its owner only.
pub fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path().join("a/b"));
        assert!(dir.keep("k", || Err(io::Error::other("no"))).is_err());
        assert_eq!(dir.keep("k", || Ok(b"first".to_vec())).unwrap(), b"first");
        assert_eq!(dir.keep("k", || Ok(b"second".to_vec())).unwrap(), b"first");
        let names: Vec<_> = fs::read_dir(dir.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["k"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
            assert_eq!((mode(dir.root()), mode(&dir.root().join("k"))), (0o700, 0o600));
        }
    }

    #[test]
    fn many_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path());
        let all: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let keep = |n: u8| dir.keep("k", move || Ok(vec![n; 1_000])).unwrap();
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || keep(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|bytes| *bytes == all[0] && bytes.len() == 1_000));
    }

    #[test]
    fn the_users_folder() {
        let of = |pairs: &'static [(&str, &str)]| {
            DataDir::of_user(move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[]), None);
        if cfg!(all(unix, not(target_os = "macos"))) {
            assert_eq!(of(&[("HOME", "/h")]), Some(DataDir::new("/h/.local/state/loaddensity")));
            assert_eq!(of(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), Some(DataDir::new("/s/loaddensity")));
            let relative = of(&[("HOME", "/h"), ("XDG_STATE_HOME", "rel")]);
            assert_eq!(relative, Some(DataDir::new("/h/.local/state/loaddensity")));
        }
    }
}
