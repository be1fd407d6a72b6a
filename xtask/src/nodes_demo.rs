//! `cargo xtask nodes-demo`: three nodes, a NATS server, and what is killed.

use std::process::Command;

use crate::guests::{self, Wanted};
use crate::install::{Installing, provide};
use crate::nats;
use crate::process::{self, Result, cargo, target};
use crate::toolchain;
use crate::v8::workspace_selection;

/// Runs the example `nodes-demo`, which writes a page below the target directory.
pub(crate) fn run(installing: Installing) -> Result {
    let needs = toolchain::needs(Wanted::All.targets())?.into_iter();
    provide(needs.chain(nats::program().need()), installing);
    // The selection of the tests, so that their build is used again. It embeds the guests.
    guests::build(Wanted::All)?;
    process::run(
        cargo()
            .args(["build", "--quiet", "--release", "--workspace", "--example", "nodes-demo"])
            .args(workspace_selection()?),
    )?;
    let program = target().join("release").join("examples").join("nodes-demo");
    process::run(Command::new(program).arg(target().join("nodes-demo")))
}
