//! Counts the instructions of the hot paths. Unlike times, the counts do not vary with the load of
//! the machine.

use std::process::Command;

use crate::install::{Installing, Need, provide};
use crate::process::{Result, cargo, is_runnable, run, target};
use crate::skip::skip;
use crate::v8;

/// A path of `benches/examples/path.rs`, how many times to run it, and the known number of
/// instructions of one time, on x86-64 as valgrind shows it to programs: without SHA or AVX-512
/// instructions. A change that makes a path shorter lowers its number here.
const PATHS: [(&str, u64, u64); 3] =
    [("memo-hit", 50_000, 236), ("wasm-frame", 500, 71_000), (V8_PATH, 500, 3_080_000)];

/// Makes glibc fill and copy memory without the processor's string instructions: valgrind counts one
/// instruction for each byte of those.
const TUNABLES: &str = "glibc.cpu.x86_rep_stosb_threshold=100000000:\
                        glibc.cpu.x86_rep_movsb_threshold=100000000";

/// The path that is counted only where V8 is available.
const V8_PATH: &str = "v8-frame";

/// By how many percent a count may exceed the known number, because compilers differ.
const TOLERANCE: u64 = 10;

/// Whether the known numbers are those of this machine.
const IS_KNOWN: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

/// Returns valgrind's package if it is needed and not installed.
pub(crate) fn need() -> Option<Need> {
    let valgrind = || Need::apt_get(&["valgrind"], "counts the instructions of the hot paths");
    (IS_KNOWN && !is_runnable("valgrind")).then(valgrind)
}

/// `cargo xtask instructions`: installs valgrind and counts.
pub(crate) fn count(installing: Installing) -> Result {
    provide(need(), installing);
    gate()
}

/// Counts the instructions of every path.
///
/// # Errors
/// Returns an error if a path takes over [`TOLERANCE`] percent more instructions than known, or if
/// valgrind is not available and `MANIFOLD_REQUIRE` contains `valgrind`.
pub(crate) fn gate() -> Result {
    let part = "the instructions of the hot paths are not counted";
    if !IS_KNOWN {
        let how_to = "Run this on such a machine.";
        return skip("valgrind", part, "the known numbers are those of Linux on x86-64", how_to);
    }
    if let Some(need) = need() {
        return skip("valgrind", part, "valgrind is not installed", &need.how_to());
    }
    // With the features that cargo unifies for the tests, so that nothing is built again for them.
    run(cargo()
        .args(["build", "--quiet", "--release", "--workspace", "--example", "path"])
        .args(v8::exclusion()?)
        .args(v8::workspace_selection()?))?;
    let mut problems = Vec::new();
    for (path, times, known) in PATHS {
        if path == V8_PATH && !v8::is_available()? {
            continue;
        }
        // The difference of two counts does not contain the start of the process.
        let count = (instructions(path, 2 * times)? - instructions(path, times)?) / times;
        eprintln!("{path}: {count} instructions; the known number is {known}");
        if count > known + known * TOLERANCE / 100 {
            problems.push(format!(
                "{path} takes {count} instructions, over {TOLERANCE} % more than the known number \
                 {known}"
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// Runs a path `times` times under valgrind and returns the instructions of the whole process.
fn instructions(path: &str, times: u64) -> Result<u64> {
    let program = target().join("release").join("examples").join("path");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .env("GLIBC_TUNABLES", TUNABLES)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([path, &times.to_string()]);
    let output = valgrind.output().map_err(|error| format!("cannot start valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match count {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("cannot count the instructions of {path} ({}):\n{text}", output.status)),
    }
}
