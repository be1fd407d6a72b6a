//! Debian's packages.

use std::process::{Command, Stdio};

use crate::process::{Result, run};

/// Makes sure that `programs` are there: installs `packages` if one is not.
pub(crate) fn install(programs: &[&str], packages: &[&str]) -> Result {
    let is_there = |program: &str| {
        let asked = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        asked.is_ok_and(|status| status.success())
    };
    if programs.iter().all(|program| is_there(program)) {
        return Ok(());
    }
    if !is_there("apt-get") {
        return Err(format!("The programs {} are not installed.", programs.join(" and ")));
    }
    eprintln!("set-up: installing the packages {}", packages.join(" "));
    let apt = |words: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        run(&mut apt)
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-qq", "-y", "--no-install-recommends"], packages].concat())
}
