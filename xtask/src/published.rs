//! Packages from the npm registry: realistic code for the tests and the fuzzer's corpus.

use std::fs;
use std::path::PathBuf;

use crate::install::Need;
use crate::npm;
use crate::process::{Result, root, target};

/// Returns the packages if they are needed and not installed.
pub(crate) fn need() -> Result<Option<Need>> {
    npm::need(&directory()?, "published code that the V8 runtime has to accept")
}

/// Returns the directory of the installed packages. Returns `None`, after a message, if they are
/// not installed.
pub(crate) fn packages() -> Result<Option<PathBuf>> {
    let directory = directory()?;
    Ok(npm::is_available(&directory, "published packages are not tested")?.then_some(directory))
}

/// Creates the directory for the packages, with the list of them, and returns its path.
fn directory() -> Result<PathBuf> {
    let wanted = root().join("runtime-v8/tests/guests/published/package.json");
    let directory = target().join("published");
    let failed =
        |error: std::io::Error| format!("cannot write to {}: {error}", directory.display());
    let list =
        fs::read(&wanted).map_err(|error| format!("cannot read {}: {error}", wanted.display()))?;
    let there = directory.join("package.json");
    // An unchanged list keeps its time, which tells that its packages are installed.
    if !fs::read(&there).is_ok_and(|there| there == list) {
        fs::create_dir_all(&directory).map_err(failed)?;
        fs::write(&there, list).map_err(failed)?;
    }
    Ok(directory)
}
