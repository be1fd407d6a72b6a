//! How many instructions the hot paths take: unlike times, that does not depend on the machine's mood.

use std::process::Command;

use crate::commands::selection;
use crate::packages;
use crate::process::{Result, cargo, requires, run, target};

/// A path of `benches/examples/path.rs`, how often it is gone, and how many instructions once is known to take, on x86-64 as valgrind
/// shows it to programs: without SHA or AVX-512 instructions. Who makes a path shorter writes the new count here.
const PATHS: [(&str, u64, u64); 2] = [("memo-hit", 50_000, 374), ("wasm-frame", 500, 83_500)];

/// By how much a count may be over, in percent: compilers differ.
const TOLERANCE: u64 = 10;

/// Fails if a path takes more instructions than it is known to.
pub(crate) fn gate() -> Result {
    let skipped = |why: &str| {
        eprintln!("\nSKIPPED: the instructions of the hot paths are not counted, {why}\n");
        Ok(())
    };
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return skipped("for what they are known to take is known for Linux on x86-64.");
    }
    if let Err(problem) = packages::install(&["valgrind"], &["valgrind"]) {
        if requires("valgrind") {
            return Err(format!(
                "{problem}\nvalgrind is not available, and MANIFOLD_REQUIRE asks for it."
            ));
        }
        return skipped(&format!(
            "for there is no valgrind ({problem}).\nInstall it: apt-get install valgrind"
        ));
    }
    run(cargo()
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "manifold-benches",
            "--example",
            "path",
        ])
        .args(selection()?))?;
    let mut problems = Vec::new();
    for (path, times, known) in PATHS {
        // What the process does before it begins falls out of the difference.
        let count = (instructions(path, 2 * times)? - instructions(path, times)?) / times;
        eprintln!("{path}: {count} instructions, known to be {known}");
        if count > known + known * TOLERANCE / 100 {
            problems.push(format!(
                "{path} takes {count} instructions, over {TOLERANCE} % more than the {known} that it took"
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

fn instructions(path: &str, times: u64) -> Result<u64> {
    let program = target().join("release").join("examples").join("path");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([path, &times.to_string()]);
    let output =
        valgrind.output().map_err(|error| format!("valgrind cannot be started: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match count {
        Some(count) if output.status.success() => Ok(count),
        _ => {
            Err(format!("counting the instructions of {path} failed ({}):\n{said}", output.status))
        }
    }
}
