//! Building the guests from source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Result, cargo, host_target, root, run, target};
use crate::toolchain::ensure_target;

/// The guests that are both a wasm module and a program for containers.
const GUESTS: [&str; 5] = ["fold", "file-count", "dirs-only", "line-count", "total-size"];
const WASM: &str = "wasm32-unknown-unknown";

/// Builds every guest. Puts `<name>.wasm` into `guests/` below the target directory, and on Linux `<name>.linux`, the same as a
/// static binary.
pub(crate) fn build() -> Result {
    let guests = target().join("guests");
    fs::create_dir_all(&guests)
        .map_err(|error| format!("{} cannot be made: {error}", guests.display()))?;
    ensure_target(WASM)?;
    for guest in GUESTS {
        // As a library for others, too, it would not be optimized as a whole.
        run(guest_build("rustc", WASM).args([
            "--package",
            guest,
            "--lib",
            "--crate-type",
            "cdylib",
        ]))?;
        place(
            &built(WASM, &format!("{}.wasm", guest.replace('-', "_"))),
            &guests.join(format!("{guest}.wasm")),
        )?;
    }
    // Guests with and without std are not built together, for cargo would unify the features of what they share.
    let wasi = "wasm32-wasip1";
    ensure_target(wasi)?;
    run(guest_build("build", wasi).args(["--package", "wasip1-guest"]))?;
    place(&built(wasi, "wasip1_guest.wasm"), &guests.join("wasip1-guest.wasm"))?;

    let linux = host_target()?;
    if !linux.contains("-linux-") {
        eprintln!("\nSKIPPED: guests for containers are built on Linux, and this is {linux}.\n");
        return Ok(());
    }
    let mut programs = guest_build("build", &linux);
    // They run in empty images, where there is no library to link to.
    programs
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["--config", "profile.release.strip='symbols'"]);
    let strange = ["strange"];
    for guest in GUESTS.iter().chain(&strange) {
        programs.args(["--bin", guest]);
    }
    run(&mut programs)?;
    for guest in GUESTS.iter().chain(&strange) {
        place(&built(&linux, guest), &guests.join(format!("{guest}.linux")))?;
    }
    Ok(())
}

fn guest_build(command: &str, target: &str) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(root().join("fold-guests")).args([
        command,
        "--quiet",
        "--release",
        "--target",
        target,
    ]);
    cargo.arg("--target-dir").arg(build_directory());
    // What the caller sets for the host has no business in a guest.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}

fn build_directory() -> PathBuf {
    target().join("guests-build")
}

fn built(target: &str, file: &str) -> PathBuf {
    build_directory().join(target).join("release").join(file)
}

/// Copies a file unless the copy is there already, so that nothing that depends on it is built again.
fn place(from: &Path, to: &Path) -> Result {
    let code =
        fs::read(from).map_err(|error| format!("{} cannot be read: {error}", from.display()))?;
    if fs::read(to).is_ok_and(|placed| placed == code) {
        return Ok(());
    }
    fs::write(to, code).map_err(|error| format!("{} cannot be written: {error}", to.display()))
}
