//! The Rust targets that guests are built for.

use std::path::Path;
use std::process::Command;

use crate::install::Need;
use crate::process::{Result, output, root};

/// The target of the guests.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";
/// The target of the guest of the original ABI.
pub(crate) const WASI: &str = "wasm32-wasip1";

/// Returns which of these targets are not installed.
pub(crate) fn needs(targets: &[&'static str]) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    for target in targets {
        needs.extend(need(target)?);
    }
    Ok(needs)
}

/// Checks that these targets are installed.
///
/// # Errors
/// Returns an error that says how to install the first one that is not.
pub(crate) fn require_targets(targets: &[&'static str]) -> Result {
    for target in targets {
        if let Some(need) = need(target)? {
            return Err(format!(
                "the Rust target {target}, which the guests are built for, is not installed\n{}\n\
                 It needs rustup (https://rustup.rs). Or install the target from your system's \
                 packages (on Debian: apt-get install libstd-rust-dev-wasm32).",
                need.how_to()
            ));
        }
    }
    Ok(())
}

fn need(target: &str) -> Result<Option<Need>> {
    let purpose = "the guests are built for it";
    Ok((!is_installed(target)?).then(|| Need::rustup(target, purpose)))
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
