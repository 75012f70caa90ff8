//! `run`, `run-str`, `run-dir`.

use super::session::{self, Source};
use super::{Global, Outputs};
use crate::console::Console;
use crate::run::verdict::exit;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Runs one file.
pub(super) fn run_file(global: &Global, console: Console, file: &Path, outputs: &Outputs) -> u8 {
    match read(file) {
        Ok(source) => session::run(global, console, vec![source], outputs),
        Err(text) => refuse(&console, &text),
    }
}

/// Runs a document given as text.
pub(super) fn run_text(global: &Global, console: Console, json: &str, outputs: &Outputs) -> u8 {
    let source = Source { name: "the given text".into(), label: None, content: json.as_bytes().to_vec(), shown: true };
    session::run(global, console, vec![source], outputs)
}

/// Runs every `.json` file below `dir`.
pub(super) fn run_dir(global: &Global, console: Console, dir: &Path, outputs: &Outputs) -> u8 {
    let mut files = Vec::new();
    if let Err(error) = find(dir, &mut files) {
        return refuse(&console, &format!("cannot read the folder `{}`: {error}", dir.display()));
    }
    files.sort();
    if files.is_empty() {
        console.note(&format!("no .json file below {}", dir.display()));
    }
    let (sources, faults): (Vec<_>, Vec<_>) = files.iter().map(|file| read(file)).partition(Result::is_ok);
    let faults: Vec<String> = faults.into_iter().filter_map(Result::err).collect();
    if !faults.is_empty() {
        return refuse(&console, &faults.join("\nerror: "));
    }
    session::run(global, console, sources.into_iter().filter_map(Result::ok).collect(), outputs)
}

fn read(file: &Path) -> Result<Source, String> {
    let content = fs::read(file).map_err(|error| format!("cannot read the document `{}`: {error}", file.display()))?;
    let label = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok(Source { name: file.display().to_string(), label, content, shown: true })
}

fn refuse(console: &Console, text: &str) -> u8 {
    console.error(&format!("error: {text}"));
    exit::REFUSED
}

/// Files that end in `.json`, at any depth. Links to folders are not followed: they may go round.
fn find(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "json") && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_files_below_a_folder_in_order_of_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        for name in ["b.json", "a/z.json", "a/c.JSON", "a.txt"] {
            fs::write(dir.path().join(name), "[]").unwrap();
        }
        let mut files = Vec::new();
        find(dir.path(), &mut files).unwrap();
        files.sort();
        assert_eq!(files, [dir.path().join("a/z.json"), dir.path().join("b.json")]);
        assert!(find(&dir.path().join("missing"), &mut files).is_err());
    }
}
