//! `init`: a project that runs as it is, to be changed into one's own.
//!
//! The folders are the seed's: `LoadDensity/keyword` and `LoadDensity/executor`.

use crate::command::Commands;
use crate::console::Console;
use crate::run::verdict::exit;
use crate::schema;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is written, below the project's folder.
const FILES: [(&str, &str); 6] = [
    ("LoadDensity/keyword/keyword1.json", include_str!("../../assets/init/keyword1.json")),
    ("LoadDensity/keyword/keyword2.json", include_str!("../../assets/init/keyword2.json")),
    ("LoadDensity/data/users.csv", include_str!("../../assets/init/users.csv")),
    ("LoadDensity/executor/executor_one_file.sh", include_str!("../../assets/init/executor_one_file.sh")),
    ("LoadDensity/executor/executor_folder.sh", include_str!("../../assets/init/executor_folder.sh")),
    ("LoadDensity/README.md", include_str!("../../assets/init/README.md")),
];
/// Where editors find the schema.
const SCHEMA: &str = "LoadDensity/schema.json";
/// Settings of an editor, which may be there already for other reasons.
const SETTINGS: (&str, &str) = (".vscode/settings.json", include_str!("../../assets/init/settings.json"));
/// What stands in scripts for this program's path.
const PROGRAM: &str = "@LD_MASTER@";

/// Writes a project below `path`. Files that are there are left as they are, and then nothing is
/// written, unless `force`.
pub(super) fn run(console: &Console, path: &Path, force: bool) -> u8 {
    let existing: Vec<String> = paths().filter(|name| path.join(name).exists()).map(str::to_owned).collect();
    if !existing.is_empty() && !force {
        let place = path.display();
        console.error(&format!("error: in {place} there are already {}; nothing was written", existing.join(", ")));
        console.error(" help: choose another folder, or overwrite them by --force");
        return exit::REFUSED;
    }
    match write(path) {
        Ok(written) => {
            for file in written {
                console.note(&format!("wrote {}", file.display()));
            }
            console.print(&next_steps(path));
            exit::PASSED
        }
        Err((file, error)) => {
            console.error(&format!("error: cannot write {}: {error}", file.display()));
            exit::NOT_RUN
        }
    }
}

/// The same for callers who are told otherwise: gives the files, or why there are none.
pub(crate) fn create(path: &Path) -> Result<Vec<PathBuf>, String> {
    if let Some(name) = paths().find(|name| path.join(name).exists()) {
        return Err(format!("{name} is there already in {}; nothing was written", path.display()));
    }
    write(path).map_err(|(file, error)| format!("cannot write {}: {error}", file.display()))
}

/// The files that are a project's own.
fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name).chain([SCHEMA])
}

fn write(path: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ld-master"));
    // a path with a quote in it cannot stand in the scripts
    let program = program.to_str().filter(|text| !text.contains('\'')).unwrap_or("ld-master");
    let schema = schema::text(&Commands::default());
    let mut files: Vec<(&str, String)> =
        FILES.iter().map(|(name, content)| (*name, content.replace(PROGRAM, program))).collect();
    files.push((SCHEMA, schema));
    if !path.join(SETTINGS.0).exists() {
        files.push((SETTINGS.0, SETTINGS.1.to_owned()));
    }
    let mut written = Vec::new();
    for (name, content) in files {
        let file = path.join(name);
        let folder = file.parent().unwrap_or(path);
        fs::create_dir_all(folder).map_err(|error| (folder.to_owned(), error))?;
        fs::write(&file, content).map_err(|error| (file.clone(), error))?;
        if is_script(name) {
            make_executable(&file).map_err(|error| (file.clone(), error))?;
        }
        written.push(file);
    }
    Ok(written)
}

fn is_script(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "sh")
}

#[cfg(unix)]
fn make_executable(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_file: &Path) -> io::Result<()> {
    Ok(())
}

fn next_steps(path: &Path) -> String {
    let script = path.join("LoadDensity/executor/executor_folder.sh");
    format!(
        "Next:\n  sh {}\n      runs both documents against the embedded target and writes reports into {}\n  \
         then change `host` and `tasks` in LoadDensity/keyword/*.json; editors complete them by LoadDensity/schema.json\n",
        script.display(),
        path.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{self, Strictness};

    #[test]
    fn a_project_holds_documents_that_pass_the_checker() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(&Console::silent(), folder.path(), false), exit::PASSED);
        for name in ["keyword1", "keyword2"] {
            let text = fs::read(folder.path().join(format!("LoadDensity/keyword/{name}.json"))).unwrap();
            let faults = script::read(&text, Strictness::Strict, &Commands::default()).err().unwrap_or_default();
            assert!(faults.is_empty(), "{name}: {faults:?}");
        }
        let script = fs::read_to_string(folder.path().join("LoadDensity/executor/executor_folder.sh")).unwrap();
        assert!(!script.contains(PROGRAM));
    }

    #[test]
    fn nothing_is_overwritten_unless_it_must_be() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("LoadDensity/data/users.csv");
        fs::create_dir_all(mine.parent().unwrap()).unwrap();
        fs::write(&mine, "mine").unwrap();
        let settings = folder.path().join(SETTINGS.0);
        fs::create_dir_all(settings.parent().unwrap()).unwrap();
        fs::write(&settings, "{}").unwrap();
        assert_eq!(run(&Console::silent(), folder.path(), false), exit::REFUSED);
        assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
        assert!(!folder.path().join(SCHEMA).exists(), "nothing was written");
        assert_eq!(run(&Console::silent(), folder.path(), true), exit::PASSED);
        assert_ne!(fs::read_to_string(&mine).unwrap(), "mine");
        assert_eq!(fs::read_to_string(&settings).unwrap(), "{}", "an editor's settings are somebody's own");
        assert_eq!(run(&Console::silent(), &mine, false), exit::NOT_RUN, "a file is no folder");
    }
}
