//! BuildGrid, the server of the Remote Execution API that the tests share results through.

use crate::install::Need;
use crate::process::target;
use crate::skip::Program;

const PACKAGE: &str = "buildgrid==0.4.4";

pub(crate) fn program() -> Program {
    let directory = target().join("guests").join("buildgrid");
    Program {
        name: "buildgrid",
        is_installed: directory.join("bin/bgd").is_file(),
        part: "shared caches are not tested",
        problem: "BuildGrid is not installed",
        package: Need::pip(directory, PACKAGE, "the server that the tests share results through"),
    }
}
