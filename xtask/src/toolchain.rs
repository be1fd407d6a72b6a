//! The targets that guests are built for.

use std::path::Path;
use std::process::Command;

use crate::process::{Result, output, root, run};

/// Makes sure that the standard library of `target` is installed.
pub(crate) fn ensure_target(target: &str) -> Result {
    if is_installed(target)? {
        return Ok(());
    }
    eprintln!("set-up: adding the target {target} through rustup");
    run(Command::new("rustup").args(["target", "add", target]).current_dir(root())).map_err(|problem| {
        format!(
            "{problem}\nThe Rust target {target} is missing, and it could not be added.\nIt is needed to build the guests. \
             Install rustup (https://rustup.rs) and run `rustup target add {target}`, or install the target the way your \
             system's Rust comes (on Debian: apt install libstd-rust-dev-wasm32)."
        )
    })
}

fn is_installed(target: &str) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = output(
        Command::new(rustc)
            .args(["--print", "target-libdir", "--target", target])
            .current_dir(root()),
    )?;
    Ok(Path::new(libraries.trim()).is_dir())
}
