//! Embeds the guests that `cargo xtask setup` built.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const GUESTS: [&str; 5] = ["dirs-only", "file-count", "fold", "line-count", "total-size"];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut table = String::from("&[\n");
    if let Some(directory) = guests_beside(&out) {
        for name in GUESTS {
            let path = directory.join(format!("{name}.wasm"));
            println!("cargo::rerun-if-changed={}", path.display());
            if path.is_file() {
                writeln!(table, "    ({name:?}, include_bytes!({path:?})),")?;
            }
        }
    }
    table.push(']');
    fs::write(out.join("guests.rs"), table)?;
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

/// The folder `guests` of the target directory that `out` is in. It need not exist yet.
fn guests_beside(out: &Path) -> Option<PathBuf> {
    let target = out.ancestors().find(|path| path.join("guests").is_dir() || path.join("CACHEDIR.TAG").is_file())?;
    Some(target.join("guests"))
}
