//! Packages from the npm registry that a `package.json` lists.

use std::fs;
use std::path::Path;

use crate::install::Need;
use crate::json::Json;
use crate::process::{Result, is_runnable};
use crate::skip::skip;

/// The way to get npm itself.
pub(crate) const HOW_TO: &str = "Install Node.js with npm.";

/// Returns the packages that `directory/package.json` lists if they are not installed. Returns
/// `None` if they are, or if npm, which installs them, is not.
pub(crate) fn need(directory: &Path, purpose: &'static str) -> Result<Option<Need>> {
    if is_installed(directory) || !is_runnable("npm") {
        return Ok(None);
    }
    packages(directory, purpose).map(Some)
}

/// Returns whether the packages for `directory` are installed. If they are not, prints that `part`
/// of the command is skipped.
///
/// # Errors
/// Returns an error if they are not and `MANIFOLD_REQUIRE` contains `npm`.
pub(crate) fn is_available(directory: &Path, part: &str) -> Result<bool> {
    if !is_runnable("npm") {
        return skip("npm", part, "npm is not installed", HOW_TO).map(|()| false);
    }
    if !is_installed(directory) {
        let problem = format!("the npm packages in {} are not installed", directory.display());
        let how_to = packages(directory, "")?.how_to();
        return skip("npm", part, &problem, &how_to).map(|()| false);
    }
    Ok(true)
}

/// Returns whether npm completed an installation after the list was last changed. Npm writes this
/// file at the end.
fn is_installed(directory: &Path) -> bool {
    let modified = |path| fs::metadata(directory.join(path)).and_then(|data| data.modified());
    match (modified("package.json"), modified("node_modules/.package-lock.json")) {
        (Ok(list), Ok(installed)) => installed >= list,
        _ => false,
    }
}

fn packages(directory: &Path, purpose: &'static str) -> Result<Need> {
    let list = read(directory)?;
    let names = [list.keys("dependencies"), list.keys("devDependencies")].concat();
    Ok(Need::npm(directory.to_owned(), &names, purpose))
}

/// Reads `directory/package.json`.
pub(crate) fn read(directory: &Path) -> Result<Json> {
    let path = directory.join("package.json");
    let problem = |problem: String| format!("cannot read {}: {problem}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| problem(error.to_string()))?;
    Json::parse(&text).map_err(problem)
}
