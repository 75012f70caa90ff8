//! Files that describe gRPC services: read here, so that workers need none.
//!
//! The checker of documents reads them too, as far as it can, so that it sees what of a task does
//! not fit its service; what is wrong with a file shows when the test is compiled.

use super::{CompileContext, Files};
use crate::command::with_causes;
use crate::script::Fault;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use ld_shared::id::Digest;
use ld_worker::protocol::grpc::{DESCRIPTORS, DESCRIPTORS_BLOB, check_descriptors};
use protox::Compiler;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Adds the descriptors to options that name files of them, for the checks of tasks.
pub(super) fn attach(options: &mut Map<String, Value>) {
    if let Ok(Some(set)) = read(options, &Files::of_the_user(Path::new(""))) {
        options.insert(DESCRIPTORS.into(), BASE64_STANDARD.encode(set).into());
    }
}

/// Puts the descriptors among the blobs and their digest in the place of the files. `at`: where the
/// options stand, from the arguments.
pub(super) fn ship(
    options: &mut Map<String, Value>,
    at: &str,
    context: &CompileContext<'_>,
    blobs: &mut BTreeMap<Digest, Bytes>,
    faults: &mut Vec<Fault>,
) {
    let set = match read(options, context.files) {
        Ok(set) => set,
        Err(fault) => return faults.push(fault.under(&format!("{}{at}", context.pointer))),
    };
    for key in ["proto", "import_paths", "descriptor_set", DESCRIPTORS] {
        options.remove(key);
    }
    if let Some(set) = set {
        let digest = Digest::of(&set);
        options.insert(DESCRIPTORS_BLOB.into(), (*digest.0).into());
        blobs.insert(digest, set.into());
    }
}

/// The descriptors that the options name, as an encoded `FileDescriptorSet`; `None`: they name none.
fn read(options: &Map<String, Value>, files: &Files<'_>) -> Result<Option<Vec<u8>>, Fault> {
    let mut set = Vec::new();
    let protos = paths(options, "proto");
    if !protos.is_empty() {
        set = compile(&protos, &paths(options, "import_paths"), files)?;
    }
    let file = options.get("descriptor_set").and_then(Value::as_str);
    if let Some(path) = file {
        let full = files.place(path).map_err(|why| Fault::new("/descriptor_set", why))?;
        let bytes = read_file(&full).map_err(|error| {
            let fault = Fault::new("/descriptor_set", format!("cannot read `{path}`: {error}"));
            fault.help(format!("it was looked for at {}", full.display()))
        })?;
        check_descriptors(&bytes).map_err(|why| {
            let fault = Fault::new("/descriptor_set", format!("`{path}` holds no usable descriptors: {why}"));
            fault.help("make it with `protoc --include_imports --descriptor_set_out=FILE …`")
        })?;
        // of two sets, one after the other, the union is what is decoded
        set.extend(bytes);
    }
    Ok((!protos.is_empty() || file.is_some()).then_some(set))
}

/// Descriptors are a regular file: anything else might have no end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    std::fs::read(path)
}

/// Compiles `.proto` files.
fn compile(protos: &[(String, &str)], imports: &[(String, &str)], allowed: &Files<'_>) -> Result<Vec<u8>, Fault> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for (pointer, path) in imports {
        let full = allowed.place(path).map_err(|why| Fault::new(pointer, why))?;
        if !full.is_dir() {
            let fault = Fault::new(pointer, format!("`{path}` is no folder"));
            return Err(fault.help(format!("it was looked for at {}", full.display())));
        }
        folders.push(full);
    }
    let mut files = Vec::new();
    for (pointer, path) in protos {
        let full = allowed.place(path).map_err(|why| Fault::new(pointer, why))?;
        let inside = folders.iter().any(|folder| folder.join(path).is_file());
        if full.is_file() {
            if !folders.iter().any(|folder| full.starts_with(folder)) {
                // as for protoc, a file that lies in no folder of imports begins one
                folders.push(full.parent().map_or_else(PathBuf::new, Path::to_owned));
            }
            files.push((pointer, *path, full));
        } else if inside {
            files.push((pointer, *path, PathBuf::from(path)));
        } else {
            let fault = Fault::new(pointer, format!("cannot read `{path}`: there is no such file"));
            return Err(fault.help(format!("it was looked for at {} and in `import_paths`", full.display())));
        }
    }
    let unusable = |pointer: &str, path: &str, error: &protox::Error| {
        let place = error.file().filter(|file| !path.ends_with(file));
        let place = place.map(|file| format!(" (in {file})")).unwrap_or_default();
        let fault = Fault::new(pointer, format!("cannot compile `{path}`{place}: {}", with_causes(error)));
        if error.is_file_not_found() {
            return fault.help("add the folder in which imports are looked for to `import_paths`");
        }
        fault
    };
    let first = protos.first().map_or("/proto", |(pointer, _)| pointer.as_str());
    let mut compiler = Compiler::new(&folders).map_err(|error| unusable(first, "", &error))?;
    compiler.include_imports(true);
    for (pointer, path, file) in files {
        compiler.open_file(file).map_err(|error| unusable(pointer, path, &error))?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

/// The paths of an option, each with its pointer.
fn paths<'a>(options: &'a Map<String, Value>, key: &str) -> Vec<(String, &'a str)> {
    match options.get(key) {
        Some(Value::String(path)) => vec![(format!("/{key}"), path)],
        Some(Value::Array(items)) => {
            let paths = items.iter().enumerate();
            paths.filter_map(|(i, item)| Some((format!("/{key}/{i}"), item.as_str()?))).collect()
        }
        _ => Vec::new(),
    }
}
