//! Embeds the guests that `cargo xtask setup` built.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use manifold_runtime_api::Object;

const GUESTS: [&str; 5] = ["dirs-only", "file-count", "fold", "line-count", "total-size"];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let (mut modules, mut programs) = (String::from("&[\n"), String::from("&[\n"));
    if let Some(directory) = guests_beside(&out) {
        for name in GUESTS {
            if let Some(path) = built(directory.join(format!("{name}.wasm"))) {
                writeln!(modules, "    ({name:?}, include_bytes!({path:?})),")?;
            }
            if let Some(path) = built(directory.join(format!("{name}.linux"))) {
                // They are large, and most commands need none: their ids are known before anybody hashes them.
                let id = Object::blob(fs::read(&path)?).id();
                writeln!(programs, "    ({name:?}, \"{id}\", include_bytes!({path:?})),")?;
            }
        }
    }
    fs::write(out.join("guests.rs"), modules + "]")?;
    fs::write(out.join("container_guests.rs"), programs + "]")?;
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

/// The file, if the set-up has built it.
fn built(path: PathBuf) -> Option<PathBuf> {
    println!("cargo::rerun-if-changed={}", path.display());
    path.is_file().then_some(path)
}

/// The folder `guests` of the target directory that `out` is in. It need not exist yet.
fn guests_beside(out: &Path) -> Option<PathBuf> {
    let target = out
        .ancestors()
        .find(|path| path.join("guests").is_dir() || path.join("CACHEDIR.TAG").is_file())?;
    Some(target.join("guests"))
}
