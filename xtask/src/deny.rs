//! Checks of the dependencies with cargo-deny: licences, duplicates, sources and known
//! vulnerabilities. `deny.toml` says what is allowed.

use std::process::Command;

use crate::install::Need;
use crate::metadata::GUEST_SDK;
use crate::process::{Result, cargo, has_subcommand, root, run};
use crate::skip::skip;

/// The workspaces whose dependencies end up at a user's: paths below the project's root.
const WORKSPACES: [&str; 3] = [".", "fold-guests", GUEST_SDK];

/// Returns cargo-deny if it is not installed.
pub(crate) fn need() -> Option<Need> {
    let cargo_deny = || Need::cargo("cargo-deny", "checks licences, sources and vulnerabilities");
    (!has_subcommand("deny")).then(cargo_deny)
}

/// Checks the dependencies of all [`WORKSPACES`].
///
/// # Errors
/// Returns an error if a check fails, or if cargo-deny is not installed and `MANIFOLD_REQUIRE`
/// contains `cargo-deny`.
pub(crate) fn check() -> Result {
    if let Some(need) = need() {
        let part = "the licences and sources of the dependencies are not checked";
        return skip("cargo-deny", part, "cargo-deny is not installed", &need.how_to());
    }
    let mut checks = vec!["licenses", "bans", "sources"];
    let fetched = deny(".").args(["fetch", "db"]).output();
    let fetched = fetched.map_err(|error| format!("cannot start cargo-deny: {error}"))?;
    if fetched.status.success() {
        checks.push("advisories");
    } else {
        let output = String::from_utf8_lossy(&fetched.stderr);
        skip(
            "advisories",
            "the dependencies are not compared with known vulnerabilities",
            &format!("cargo-deny cannot fetch the database:\n{}", output.trim_end()),
            "Run this where https://github.com/RustSec/advisory-db can be reached.",
        )?;
    }
    for workspace in WORKSPACES {
        // Most workspaces do not use all of the licences that are allowed.
        run(deny(workspace)
            .args(["check", "--hide-inclusion-graph", "--allow", "duplicate"])
            .args(["--allow", "license-not-encountered"])
            .args(["--allow", "license-exception-not-encountered"])
            .args(&checks))?;
    }
    Ok(())
}

/// Returns a cargo-deny command for a workspace, a path below the project's root.
fn deny(workspace: &str) -> Command {
    let mut deny = cargo();
    deny.args(["deny", "--config"]).arg(root().join("deny.toml"));
    deny.current_dir(root().join(workspace));
    deny
}
