//! `cargo xtask semver`: compares the public API with that of the last release, with
//! cargo-semver-checks.

use std::process::Command;

use crate::metadata::{GUEST_SDK, Package, workspace};
use crate::process::{Result, cargo, has_subcommand, output, root, run};
use crate::skip::skip;
use crate::v8;

/// Returns whether there are a release and the tool.
pub(crate) fn can_check() -> bool {
    last_release().is_some() && has_subcommand("semver-checks")
}

/// Compares the published libraries with those of the last release.
///
/// # Errors
/// Returns an error if a change is not compatible and the version does not say so, or if there is
/// no release or no tool and `MANIFOLD_REQUIRE` contains `cargo-semver-checks`.
pub(crate) fn check() -> Result {
    let skipped = |problem, how_to| {
        skip("cargo-semver-checks", "the API is not compared with a release", problem, how_to)
    };
    let Some(tag) = last_release() else {
        return skipped(
            "no commit before this one has a tag v*",
            "Fetch the tags: git fetch --tags",
        );
    };
    if !has_subcommand("semver-checks") {
        let how_to = "To install it: cargo install --locked cargo-semver-checks";
        return skipped("cargo-semver-checks is not installed", how_to);
    }
    let v8 = v8::is_available()?;
    for directory in [".", GUEST_SDK] {
        let packages = workspace(directory)?;
        let packages = packages.iter().filter(|package| {
            let is_buildable = v8 || package.name != "manifold-runtime-v8";
            package.is_published && package.is_library && is_buildable && was_in(&tag, package)
        });
        let names: Vec<&str> = packages.flat_map(|package| ["--package", &*package.name]).collect();
        if !names.is_empty() {
            run(cargo()
                .args(["semver-checks", "--baseline-rev", &tag])
                .args(names)
                .current_dir(root().join(directory)))?;
        }
    }
    Ok(())
}

/// Returns the tag of the last release before the current commit.
fn last_release() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--tags", "--abbrev=0", "--match", "v*"]).current_dir(root());
    let found = git.output().ok().filter(|found| found.status.success())?;
    Some(String::from_utf8_lossy(&found.stdout).trim().to_owned())
}

/// Returns whether the package was in the commit with this tag.
fn was_in(tag: &str, package: &Package) -> bool {
    let Ok(directory) = package.directory.strip_prefix(root()) else { return false };
    let manifest = format!("{tag}:{}", directory.join("Cargo.toml").display());
    output(
        Command::new("git")
            .args(["rev-parse", "--verify", "--quiet", &manifest])
            .current_dir(root()),
    )
    .is_ok()
}
