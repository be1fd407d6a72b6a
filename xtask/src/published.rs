//! Packages from the npm registry, for tests and for fuzzing: code as people write it.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{Result, output, root, run, target};

/// The directory that the packages are installed in; `None` where there is no npm.
pub(crate) fn packages() -> Result<Option<PathBuf>> {
    if let Err(problem) = output(Command::new("npm").arg("--version")) {
        eprintln!(
            "\nSKIPPED: published packages are not tried, for there is no npm ({problem}).\nInstall Node.js with npm.\n"
        );
        return Ok(None);
    }
    let wanted = root().join("cli/tests/typescript_guests/published/package.json");
    let directory = target().join("published");
    let failed =
        |error: std::io::Error| format!("{} cannot be written: {error}", directory.display());
    let list = std::fs::read(&wanted)
        .map_err(|error| format!("{} cannot be read: {error}", wanted.display()))?;
    let there = directory.join("package.json");
    if std::fs::read(&there).is_ok_and(|there| there == list)
        && directory.join("node_modules").is_dir()
    {
        return Ok(Some(directory));
    }
    std::fs::create_dir_all(&directory).map_err(failed)?;
    std::fs::write(&there, list).map_err(failed)?;
    let installed = run(Command::new("npm")
        .args([
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--ignore-scripts",
        ])
        .current_dir(&directory));
    if installed.is_err() {
        // Half of them are not taken for all of them next time.
        let _ = std::fs::remove_file(&there);
    }
    installed.map(|()| Some(directory))
}
