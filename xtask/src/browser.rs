//! Chromium, with which the tests look at the pages that the command writes.

use crate::install::Need;
use crate::process::{Result, is_runnable};
use crate::skip::skip;

/// The names of the program.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Returns Chromium's package if it is not installed.
pub(crate) fn need() -> Option<Need> {
    (!is_available()).then(package)
}

/// Errors if Chromium is not installed and `MANIFOLD_REQUIRE` contains `chromium`. Otherwise prints
/// what is skipped.
pub(crate) fn check() -> Result {
    if is_available() {
        return Ok(());
    }
    let how_to = package().how_to();
    skip("chromium", "pages are not looked at in a browser", "Chromium is not installed", &how_to)
}

fn is_available() -> bool {
    PROGRAMS.into_iter().any(is_runnable)
}

fn package() -> Need {
    Need::apt_get(&["chromium"], "the browser that the tests open pages in")
}
