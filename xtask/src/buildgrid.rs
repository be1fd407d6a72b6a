//! BuildGrid, the server of the Remote Execution API that the tests share results through.

use std::path::PathBuf;

use crate::install::Need;
use crate::process::{Result, target};
use crate::skip::skip;

const PACKAGE: &str = "buildgrid==0.4.4";

/// Returns BuildGrid's package if it is not installed.
pub(crate) fn need() -> Option<Need> {
    (!is_available()).then(package)
}

/// Errors if BuildGrid is not installed and `MANIFOLD_REQUIRE` contains `buildgrid`. Otherwise prints
/// what is skipped.
pub(crate) fn check() -> Result {
    if is_available() {
        return Ok(());
    }
    let how_to = package().how_to();
    skip("buildgrid", "shared caches are not tested", "BuildGrid is not installed", &how_to)
}

fn is_available() -> bool {
    directory().join("bin/bgd").is_file()
}

fn package() -> Need {
    Need::pip(directory(), PACKAGE, "the server that the tests share results through")
}

fn directory() -> PathBuf {
    target().join("guests").join("buildgrid")
}
