//! Where the programs under test are. `tests/run` builds them before it runs the suites.

use std::path::{Path, PathBuf};

#[expect(clippy::disallowed_methods, reason = "this is where the suites read their environment")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a skipped test is a failure: `LD_TEST_STRICT=1`.
pub fn strict() -> bool {
    env("LD_TEST_STRICT").is_some_and(|v| v == "1")
}

/// The workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// A file or folder below `tests/`.
pub fn test_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder that cargo puts binaries into: two above this test's own, or `LD_TEST_BIN_DIR`.
pub fn bin_dir() -> PathBuf {
    env("LD_TEST_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("a running program has a path");
            let deps = test.parent().expect("cargo puts tests into a folder");
            deps.parent().expect("cargo puts that folder beside the binaries").to_owned()
        },
        PathBuf::from,
    )
}

/// One of the binaries: `ld-master`, `ld-worker`, or a program of the suites.
pub fn binary(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --bins` first, or use tests/run", path.display());
    path
}

/// A Python that has aiohttp and hdrhistogram: `LD_TEST_PYTHON`, or the environment that `tests/run` makes.
pub fn python() -> Option<PathBuf> {
    let path = env("LD_TEST_PYTHON")
        .map_or_else(|| bin_dir().parent().unwrap_or(Path::new("/")).join("test-python/bin/python"), PathBuf::from);
    path.is_file().then_some(path)
}
