//! Generates the tables that embed the guests built by `cargo xtask setup`.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use manifold_runtime_api::Object;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest directory")?);
    let modules = package.join("modules");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", modules.display());

    for (extension, table) in [("wasm", "wasm.rs"), ("linux", "containers.rs")] {
        let mut guests = String::from("&[\n");
        for (name, path) in files(&modules, extension)? {
            // The guests are large and a process needs few of them, so their ids are computed here
            // instead of at run time.
            let id = Object::blob(fs::read(&path)?).id();
            writeln!(guests, "    ({name:?}, \"{id}\", include_bytes!({path:?})),")?;
        }
        fs::write(out.join(table), guests + "]")?;
    }

    let mut scripts = String::from("&[\n");
    for (name, path) in files(&modules.join("typescript"), "ts")? {
        writeln!(scripts, "    ({name:?}, include_str!({path:?})),")?;
    }
    fs::write(out.join("typescript.rs"), scripts + "]")?;
    Ok(())
}

/// Returns the names without extension and the paths of the files in `directory` that end with
/// `extension`, sorted. None if the directory does not exist.
fn files(directory: &Path, extension: &str) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return Ok(files) };
    for entry in entries {
        let path = entry?.path();
        println!("cargo::rerun-if-changed={}", path.display());
        if path.extension().is_some_and(|found| found == extension)
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            files.push((name.to_owned(), path.clone()));
        }
    }
    files.sort();
    Ok(files)
}
