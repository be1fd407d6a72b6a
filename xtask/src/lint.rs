//! `cargo xtask lint`: everything that is checked without running the code.

use crate::deny;
use crate::features;
use crate::guests::{self, Wanted};
use crate::install::{Installing, provide};
use crate::metadata::GUEST_SDK;
use crate::package;
use crate::process::{Result, cargo, root, run};
use crate::rustdoc;
use crate::semver;
use crate::toolchain::{self, WASI, WASM};
use crate::unify;
use crate::v8::{exclusion, workspace_selection};

/// The arguments of clippy that make warnings errors.
pub(crate) const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

/// Checks formatting, clippy and rustdoc, with warnings as errors.
pub(crate) fn lint(installing: Installing) -> Result {
    provide(toolchain::needs(Wanted::All.targets())?, installing);
    guests::build(Wanted::All)?;
    unify::check()?;
    let workspaces = [".", "fold-guests", GUEST_SDK].map(|workspace| root().join(workspace));
    let [_, fold_guests, sdk] = &workspaces;
    for workspace in &workspaces {
        run(cargo().args(["fmt", "--all", "--check"]).current_dir(workspace))?;
    }
    run(cargo()
        .args(["clippy", "--quiet", "--workspace", "--all-targets"])
        .args(exclusion()?)
        .args(workspace_selection()?)
        .args(DENY_WARNINGS))?;
    let [first, second] = guests::STD_GUESTS;
    const GREP: &str = "grep";
    run(cargo()
        .args(["clippy", "--quiet", "--workspace", "--target", WASM, "--lib"])
        .args(["--exclude", first, "--exclude", second, "--exclude", "strange", "--exclude", GREP])
        .args(DENY_WARNINGS)
        .current_dir(fold_guests))?;
    // It needs std, which the others' allocator and panic handler exclude.
    run(cargo()
        .args(["clippy", "--quiet", "--target", WASM, "--lib", "--package", GREP])
        .args(DENY_WARNINGS)
        .current_dir(fold_guests))?;
    run(cargo()
        .args(["clippy", "--quiet", "--target", WASI, "--lib"])
        .args(["--package", first, "--package", second])
        .args(DENY_WARNINGS)
        .current_dir(fold_guests))?;
    // The guests for containers are binaries; `strange` exists as a binary only.
    run(cargo()
        .args(["clippy", "--quiet", "--workspace", "--exclude", "wasip1-guest", "--bins"])
        .args(DENY_WARNINGS)
        .current_dir(fold_guests))?;
    for target in [&["--tests"][..], &["--target", WASM, "--lib", "--examples"]] {
        run(cargo().args(["clippy", "--quiet"]).args(target).args(DENY_WARNINGS).current_dir(sdk))?;
    }
    rustdoc::check()
}

/// Checks what matters before a release, and takes longer than the other lints: the licences and
/// sources of dependencies, each feature of the facade alone, the packages, and the public API.
pub(crate) fn check_release(installing: Installing) -> Result {
    provide(toolchain::needs(Wanted::All.targets())?.into_iter().chain(deny::need()), installing);
    guests::build(Wanted::All)?;
    deny::check()?;
    features::check()?;
    package::package()?;
    if semver::can_check() { semver::check() } else { Ok(()) }
}
