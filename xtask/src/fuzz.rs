//! Fuzzing: `cargo fuzz`, with a corpus of what people have published.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{Result, output, root, run, target};
use crate::published;
use crate::v8;

/// How long a file of the corpus may be, and an input that the fuzzer makes.
const LONGEST: u64 = 16 << 10;

/// Fuzzes what a guest's code goes through before it is run, for so many seconds.
pub(crate) fn prepare(seconds: u64) -> Result {
    if !v8::is_available()? {
        return Err("Fuzzing needs V8. `cargo xtask v8` says how to get it.".to_owned());
    }
    if output(Command::new("cargo").args(["fuzz", "--version"])).is_err() {
        run(Command::new("cargo").args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let corpus = target().join("fuzz").join("corpus");
    fs::create_dir_all(&corpus)
        .map_err(|error| format!("{} cannot be made: {error}", corpus.display()))?;
    if let Some(packages) = published::packages()? {
        copy_code(&packages.join("node_modules"), &corpus)?;
    }
    // The sanitizers need a compiler that is not stable. What is looked for are aborts, hangs and errors that blame nobody.
    run(Command::new("cargo")
        .args(["fuzz", "run", "--sanitizer", "none", "prepare"])
        .arg(&corpus)
        .args([
            "--",
            &format!("-max_total_time={seconds}"),
            &format!("-max_len={LONGEST}"),
            "-timeout=60",
            "-rss_limit_mb=8192",
        ])
        .current_dir(root()))
}

/// Copies the code below `directory`, a file each, with a first byte that says which language it is in.
fn copy_code(directory: &Path, corpus: &Path) -> Result {
    let failed = |path: &Path, error: std::io::Error| {
        format!("{} cannot be copied: {error}", path.display())
    };
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
        if entry.metadata().is_ok_and(|metadata| metadata.len() < LONGEST) {
            let mut content = fs::read(&path).map_err(|error| failed(&path, error))?;
            content.insert(0, language);
            let name = path.display().to_string().replace('/', "_");
            let name = &name[name.len().saturating_sub(200)..];
            fs::write(corpus.join(name), content).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}
