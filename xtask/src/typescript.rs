//! The types of the TypeScript guests and of their SDK, checked with TypeScript's own compiler.

use std::path::PathBuf;
use std::process::Command;

use crate::install::Need;
use crate::npm;
use crate::process::{Result, root, run};

/// The directories whose `package.json` has a script `check`.
fn directories() -> [PathBuf; 2] {
    ["guest-sdk/typescript", "fold-guests/typescript"].map(|directory| root().join(directory))
}

/// Returns the packages that are needed and not installed.
pub(crate) fn needs() -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    for directory in directories() {
        needs.extend(npm::need(&directory, "checks the types of the TypeScript guests")?);
    }
    Ok(needs)
}

/// Checks the types.
pub(crate) fn check() -> Result {
    for directory in directories() {
        let shown = directory.display();
        if npm::is_available(&directory, &format!("the types in {shown} are not checked"))? {
            run(Command::new("npm").args(["run", "--silent", "check"]).current_dir(&directory))?;
        }
    }
    Ok(())
}
