//! The machine and the software versions of the measurements.

use std::fs;
use std::process::Command;

/// Returns pairs of a name and a value, such as `processor` and `2 cores, …`.
pub(crate) fn describe() -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism()
        .map_or_else(|_| "?".to_owned(), |cores| cores.to_string());
    let mut lines = vec![
        (
            "processor",
            format!(
                "{} cores, {}",
                cores,
                field("/proc/cpuinfo", "model name").unwrap_or_default()
            ),
        ),
        ("memory", field("/proc/meminfo", "MemTotal").unwrap_or_default()),
        ("kernel", output("uname", &["-sr"])),
        ("compiler", output("rustc", &["--version"])),
        ("revision", output("git", &["rev-parse", "--short", "HEAD"])),
    ];
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    let packages = ["wasmtime", "deno_core", "v8", "bollard", "tokio", "redb"];
    let versions =
        packages.iter().filter_map(|name| Some(format!("{name} {}", version(&lock, name)?)));
    lines.push(("versions", versions.collect::<Vec<_>>().join(", ")));
    lines.retain(|(_, value)| !value.is_empty());
    lines
}

/// Returns the value of the first line `name: value` of a file.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Returns the version of a package in a lock file.
fn version(lock: &str, name: &str) -> Option<String> {
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(after.split_once('"')?.0.to_owned())
}

/// Returns the output of a program; empty if it cannot be run.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
