//! `cargo xtask fuzz`: runs `cargo fuzz` with a corpus of published npm packages.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::install::{Installing, Need, provide};
use crate::process::{Result, has_subcommand, root, run, target};
use crate::published;
use crate::v8;

/// The bound for the length of a corpus file and of an input that the fuzzer generates, in bytes.
const MAX_INPUT_BYTES: u64 = 16 << 10;

/// Fuzzes the preparation of guest code (`V8Runtime::prepare`) for the given number of seconds.
pub(crate) fn prepare(seconds: u64, installing: Installing) -> Result {
    if !v8::is_available()? {
        return Err("fuzzing needs V8; `cargo xtask v8` describes how to get it".to_owned());
    }
    provide(need().into_iter().chain(published::need()?), installing);
    if let Some(need) = need() {
        return Err(format!("cargo-fuzz is not installed\n{}", need.how_to()));
    }
    let corpus = target().join("fuzz").join("corpus");
    fs::create_dir_all(&corpus)
        .map_err(|error| format!("cannot create {}: {error}", corpus.display()))?;
    if let Some(packages) = published::packages()? {
        copy_code(&packages.join("node_modules"), &corpus)?;
    }
    // The sanitizers need a nightly compiler. The fuzzer looks for aborts, hangs and errors of an
    // unexpected kind, which do not need them.
    run(Command::new("cargo")
        .args(["fuzz", "run", "--sanitizer", "none", "prepare"])
        .arg(&corpus)
        .args([
            "--",
            &format!("-max_total_time={seconds}"),
            &format!("-max_len={MAX_INPUT_BYTES}"),
            "-timeout=60",
            "-rss_limit_mb=8192",
        ])
        .current_dir(root()))
}

/// Returns cargo-fuzz if it is not installed.
fn need() -> Option<Need> {
    (!has_subcommand("fuzz")).then(|| Need::cargo("cargo-fuzz", "runs the fuzz targets"))
}

/// Copies the TypeScript and JavaScript files below `directory` to the corpus. The first byte of a
/// copy is the file's language: `t` or `j`.
fn copy_code(directory: &Path, corpus: &Path) -> Result {
    let failed =
        |path: &Path, error: std::io::Error| format!("cannot copy {}: {error}", path.display());
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            copy_code(&path, corpus)?;
            continue;
        }
        let language = match path.extension().and_then(|end| end.to_str()) {
            Some("ts" | "mts") => b't',
            Some("js" | "mjs") => b'j',
            _ => continue,
        };
        if entry.metadata().is_ok_and(|metadata| metadata.len() < MAX_INPUT_BYTES) {
            let mut content = fs::read(&path).map_err(|error| failed(&path, error))?;
            content.insert(0, language);
            let name = path.display().to_string().replace('/', "_");
            let name = &name[name.len().saturating_sub(200)..];
            fs::write(corpus.join(name), content).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}
