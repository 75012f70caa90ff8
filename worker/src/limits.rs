//! Limits of this machine that bound how much load it can make.

/// Open files that are not for load: runtimes, logs, the link, the program itself.
const OWN_FILES: u64 = 256;
/// Where there is no limit to read, what is assumed.
const ASSUMED_FILES: u64 = 1_048_576;

/// Raises the soft limit of open files to the hard one, and says how many of them load may use.
#[cfg(unix)]
pub fn load_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let have = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: have.maximum, maximum: have.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => have.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            have.current
        }
    };
    current.unwrap_or(ASSUMED_FILES).saturating_sub(OWN_FILES)
}

/// How many open files load may use.
#[cfg(not(unix))]
pub fn load_files() -> u64 {
    ASSUMED_FILES - OWN_FILES
}
