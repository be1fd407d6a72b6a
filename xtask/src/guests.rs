//! Building the guests from source.

use std::fs;
use std::path::Path;

use crate::process::{Result, cargo, root, run, target};
use crate::toolchain::ensure_target;

/// A target, and the guests that are built for it in one go. Guests with and without std are not built together, for cargo
/// would unify the features of what they share.
struct Batch {
    target: &'static str,
    packages: &'static [&'static str],
}

const BATCHES: [Batch; 2] = [
    Batch {
        target: "wasm32-unknown-unknown",
        packages: &["fold", "file-count", "dirs-only", "line-count", "total-size"],
    },
    Batch { target: "wasm32-wasip1", packages: &["wasip1-guest"] },
];

/// Builds every guest, and puts `<name>.wasm` into `guests/` below the target directory.
pub(crate) fn build() -> Result {
    let guests = target().join("guests");
    let build = target().join("guests-build");
    fs::create_dir_all(&guests).map_err(|error| format!("{} cannot be made: {error}", guests.display()))?;
    for batch in BATCHES {
        ensure_target(batch.target)?;
        let mut cargo = cargo();
        cargo.current_dir(root().join("fold-guests")).args(["build", "--quiet", "--release", "--target", batch.target]);
        cargo.arg("--target-dir").arg(&build);
        // What the caller sets for the host has no business in a guest.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        for package in batch.packages {
            cargo.args(["--package", package]);
        }
        run(&mut cargo)?;
        for package in batch.packages {
            let file = format!("{}.wasm", package.replace('-', "_"));
            let built = build.join(batch.target).join("release").join(file);
            place(&built, &guests.join(format!("{package}.wasm")))?;
        }
    }
    Ok(())
}

/// Copies a file unless the copy is there already, so that nothing that depends on it is built again.
fn place(from: &Path, to: &Path) -> Result {
    let code = fs::read(from).map_err(|error| format!("{} cannot be read: {error}", from.display()))?;
    if fs::read(to).is_ok_and(|placed| placed == code) {
        return Ok(());
    }
    fs::write(to, code).map_err(|error| format!("{} cannot be written: {error}", to.display()))
}
