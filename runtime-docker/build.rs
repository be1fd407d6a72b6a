//! Embeds the first process of containers, which the set-up of the repository builds.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest directory")?);
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    let program = package.join("init").join(format!("container-init.{architecture}"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=init");
    let embedded = match program.is_file() {
        true => format!("Some(include_bytes!({program:?}))"),
        false => "None".to_owned(),
    };
    fs::write(out.join("init.rs"), embedded)?;
    Ok(())
}
