//! Files of callers from outside: below one folder, whatever links say.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Whether `path` (relative: from the process's working folder) lies below `root` once every link is
/// followed. What is not there yet counts as lying in the nearest folder that is.
pub(super) fn is_below(root: &Path, path: &Path) -> io::Result<bool> {
    let root = root.canonicalize()?;
    Ok(real(&std::path::absolute(path)?)?.starts_with(&root))
}

/// The path with all its links followed, as far as it exists.
fn real(path: &Path) -> io::Result<PathBuf> {
    let mut missing: Vec<OsString> = Vec::new();
    let mut there = path;
    loop {
        match there.canonicalize() {
            Ok(real) => {
                // `..` behind a folder that is not there leads who knows where
                return if missing.iter().any(|part| part == "..") {
                    Err(io::Error::other("it has .. behind a folder that does not exist"))
                } else {
                    Ok(real.join(missing.iter().rev().collect::<PathBuf>()))
                };
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // a link whose end is missing is followed when it is written to
                if there.is_symlink() {
                    return Err(io::Error::other("it leads over a link that leads nowhere"));
                }
                match there.components().next_back() {
                    Some(Component::Normal(part)) => missing.push(part.to_owned()),
                    Some(Component::ParentDir) => missing.push("..".into()),
                    _ => return Err(error),
                }
                there = there.parent().ok_or(error)?;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("out")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), root.join("dead")).unwrap();
        let below = |path: &str| is_below(&root, &root.join(path)).unwrap_or(false);
        for path in ["a.json", "in/a.json", "new/deep/a.json", "in/../b", "."] {
            assert!(below(path), "{path}");
        }
        for path in ["../secret", "in/../../secret", "out/secret", "out/new", "dead", "new/../../secret", "/etc/passwd"]
        {
            assert!(!below(path), "{path}");
        }
    }
}
