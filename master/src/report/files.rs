//! Writing result files: whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`: {}", path.display(), cause(source))]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Writes `content` to `path`: into a temporary file of the same folder that then takes its name,
/// so that a reader sees the old file or the new one, and a full disk leaves no half report.
/// Devices and pipes (`/dev/stdout`) are written to as they are.
pub fn write(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    let fault = |source| WriteError { path: path.to_owned(), source };
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        return File::options().write(true).open(path).and_then(|mut f| f.write_all(content)).map_err(fault);
    }
    // through a link to the file behind it: the link stays
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = target.file_name().ok_or_else(|| fault(io::ErrorKind::InvalidFilename.into()))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = target.with_file_name(temporary);
    let written = write_new(&temporary, content).and_then(|()| fs::rename(&temporary, &target));
    written.map_err(|source| {
        // best effort: the write itself has failed, and that is what counts
        drop(fs::remove_file(&temporary));
        fault(source)
    })
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    // delayed allocation reports a full disk only here
    file.sync_all()
}

/// What went wrong, in words.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "its folder does not exist".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::StorageFull => "no space left on the disk".into(),
        io::ErrorKind::IsADirectory => "it is a folder".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        _ => error.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn errors_name_path_and_cause() {
        let dir = tempfile::tempdir().unwrap();
        let missing = write(&dir.path().join("no/r.json"), b"x").unwrap_err().to_string();
        assert!(missing.ends_with("no/r.json`: its folder does not exist"), "{missing}");
        assert!(write(dir.path(), b"x").unwrap_err().to_string().contains("cannot write"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_stay_devices() {
        write(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let full = write(Path::new("/dev/full"), b"x").unwrap_err().to_string();
        assert_eq!(full, "cannot write `/dev/full`: no space left on the disk");
    }
}
