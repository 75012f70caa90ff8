//! Writing result files: whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`: {}", path.display(), cause(error))]
pub struct WriteError {
    path: PathBuf,
    error: io::Error,
}

/// Writes `content` to `path`, whole or not at all.
pub fn write(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    let mut file = NewFile::create(path)?;
    file.write_all(content).map_err(|error| file.fault(error))?;
    file.commit()
}

/// A file in the making: a temporary one of the same folder, which takes its name at
/// [`NewFile::commit`]. A reader sees the old file or the new one, and a full disk leaves no half
/// report. Devices and pipes (`/dev/stdout`) are written to as they are.
#[derive(Debug)]
pub struct NewFile {
    /// As the caller named it.
    path: PathBuf,
    out: BufWriter<File>,
    /// The temporary file and what it will be; `None` for devices, and once it has its name.
    rename: Option<(PathBuf, PathBuf)>,
}

/// Rows are short: without a buffer of some size each would be a system call.
const BUFFER: usize = 256 * 1024;

impl NewFile {
    /// Starts one for `path`.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let fault = |error| WriteError { path: path.to_owned(), error };
        let of = |file, rename| Self { path: path.to_owned(), out: BufWriter::with_capacity(BUFFER, file), rename };
        if fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
            return File::options().write(true).open(path).map(|file| of(file, None)).map_err(fault);
        }
        // through a link to the file behind it: the link stays
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = target.file_name().ok_or_else(|| fault(io::ErrorKind::InvalidFilename.into()))?;
        if target.is_dir() {
            return Err(fault(io::ErrorKind::IsADirectory.into()));
        }
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = target.with_file_name(temporary);
        let file = File::create(&temporary).map_err(fault)?;
        Ok(of(file, Some((temporary, target))))
    }

    /// Gives it its name.
    pub fn commit(mut self) -> Result<(), WriteError> {
        self.finish().map_err(|error| self.fault(error))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let Some((temporary, target)) = &self.rename else { return Ok(()) };
        // delayed allocation reports a full disk only here
        self.out.get_ref().sync_all()?;
        fs::rename(temporary, target)?;
        self.rename = None;
        Ok(())
    }

    /// An error of writing to it.
    pub fn fault(&self, error: io::Error) -> WriteError {
        WriteError { path: self.path.clone(), error }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.rename {
            // best effort: something else has failed, and that is what counts
            drop(fs::remove_file(temporary));
        }
    }
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
        let mut given_up = NewFile::create(&path).unwrap();
        given_up.write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nor of one that was given up");
    }

    #[test]
    fn errors_name_path_and_cause() {
        let dir = tempfile::tempdir().unwrap();
        let missing = write(&dir.path().join("no/r.json"), b"x").unwrap_err().to_string();
        assert!(missing.ends_with("no/r.json`: its folder does not exist"), "{missing}");
        let folder = write(dir.path(), b"x").unwrap_err().to_string();
        assert!(folder.starts_with("cannot write `") && folder.ends_with("`: it is a folder"), "{folder}");
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
