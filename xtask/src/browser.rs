//! Chromium, with which the tests look at the pages that the command writes.

use crate::install::Need;
use crate::process::is_runnable;
use crate::skip::Program;

/// The names of the program.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

pub(crate) fn program() -> Program {
    Program {
        name: "chromium",
        is_installed: PROGRAMS.into_iter().any(is_runnable),
        part: "pages are not looked at in a browser",
        problem: "Chromium is not installed",
        package: Need::apt_get(&["chromium"], "the browser that the tests open pages in"),
    }
}
