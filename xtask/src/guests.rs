//! Builds the guests from source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Result, cargo, host_target, root, run, target};
use crate::toolchain::{WASI, WASM, require_targets};

/// The guests that are built both as a wasm module and as a program for containers.
const GUESTS: [&str; 5] = ["fold", "file-count", "dirs-only", "line-count", "total-size"];
/// The guests that are built as a wasm module only.
const MODULES_ONLY: [&str; 6] =
    ["lines-by-language", "largest-files", "duplicate-files", "todo-comments", "licenses", "grep"];
/// The guests for tests that link std and are built as a wasm module.
pub(crate) const STD_GUESTS: [&str; 2] = ["wasip1-guest", "conformance-guest"];
/// The guests for tests that are built as a program for containers.
const PROGRAMS: [&str; 2] = ["strange", "conformance-guest"];
/// The first process of containers.
const INIT: &str = "container-init";
/// Where `manifold-runtime-docker` finds it, with the processor's name as extension.
const INIT_DIRECTORY: &str = "runtime-docker/init";
/// The directories with the TypeScript guests and what they import.
const TYPESCRIPT: [&str; 2] = ["fold-guests/typescript", "guest-sdk/typescript"];
/// Where `manifold-standard-guests` finds the guests that it embeds.
const MODULES: &str = "standard-guests/modules";

/// Which guests to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The standard guests as wasm modules.
    Modules,
    /// Also as programs for containers.
    Standard,
    /// Also those for tests.
    All,
}

impl Wanted {
    /// Returns the Rust targets that the guests are built for, apart from the machine's own.
    pub(crate) fn targets(self) -> &'static [&'static str] {
        match self {
            Self::Modules | Self::Standard => &[WASM],
            Self::All => &[WASM, WASI],
        }
    }
}

/// Builds guests. Writes `<name>.wasm` to `guests/` below the target directory. On Linux it
/// also writes `<name>.linux`, the same guest as a static binary. Copies the standard guests to
/// [`MODULES`].
///
/// # Errors
/// Returns an error if a Rust target is not installed, or if a guest cannot be built.
pub(crate) fn build(wanted: Wanted) -> Result {
    require_targets(wanted.targets())?;
    let guests = target().join("guests");
    create(&guests)?;
    // Without the directory, the build of `manifold-runtime-docker` would never be up to date.
    create(&root().join(INIT_DIRECTORY))?;
    // Each guest is built separately, because cargo would unify the features of the dependencies
    // that guests with and without std have in common.
    let modules = GUESTS.iter().chain(&MODULES_ONLY).map(|guest| (*guest, WASM));
    let for_tests = STD_GUESTS.map(|guest| (guest, WASI)).into_iter();
    let for_tests = for_tests.filter(|_| wanted == Wanted::All);
    for (guest, target) in modules.chain(for_tests) {
        build_module(guest, target, &guests)?;
    }
    // Otherwise the programs of an earlier build stay.
    if wanted != Wanted::Modules {
        let linux = host_target()?;
        if linux.contains("-linux-") {
            build_programs(&linux, &guests)?;
        } else {
            eprintln!(
                "\nSKIPPED: guests for containers are built on Linux only; this is {linux}\n"
            );
        }
    }
    embed(&guests, &root().join(MODULES))
}

/// Builds a guest as a wasm module.
fn build_module(guest: &str, target: &str, guests: &Path) -> Result {
    // If the package were built as a Rust library as well, it would not be optimized as a whole.
    run(guest_build("rustc", target).args([
        "--package",
        guest,
        "--lib",
        "--crate-type",
        "cdylib",
    ]))?;
    let module = built(target, &format!("{}.wasm", guest.replace('-', "_")));
    place(&module, &guests.join(format!("{guest}.wasm")))
}

/// Builds the guests for containers, and the first process of containers.
fn build_programs(linux: &str, guests: &Path) -> Result {
    let mut programs = guest_build("build", linux);
    // The programs run in empty images, which have no libraries to link to.
    programs
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["--config", "profile.release.strip='symbols'"]);
    for program in GUESTS.iter().chain(&PROGRAMS).chain([&INIT]) {
        programs.args(["--bin", program]);
    }
    run(&mut programs)?;
    let init = root().join(INIT_DIRECTORY);
    place(&built(linux, INIT), &init.join(format!("{INIT}.{}", std::env::consts::ARCH)))?;
    for guest in GUESTS.iter().chain(&PROGRAMS) {
        place(&built(linux, guest), &guests.join(format!("{guest}.linux")))?;
    }
    Ok(())
}

/// Makes `modules` contain the standard guests and nothing else: what is there is embedded.
fn embed(guests: &Path, modules: &Path) -> Result {
    let mut files = Vec::new();
    for guest in GUESTS.iter().chain(&MODULES_ONLY) {
        for name in [format!("{guest}.wasm"), format!("{guest}.linux")] {
            let from = guests.join(&name);
            if from.is_file() {
                files.push((from, modules.join(name)));
            }
        }
    }
    let scripts = modules.join("typescript");
    for directory in TYPESCRIPT {
        for from in list(&root().join(directory))? {
            let name = from.file_name().unwrap_or_default().to_owned();
            if name.to_str().is_some_and(|name| name.ends_with(".ts") && !name.ends_with(".d.ts")) {
                files.push((from, scripts.join(name)));
            }
        }
    }
    create(&scripts)?;
    for old in list(modules)?.into_iter().chain(list(&scripts)?) {
        if old.is_file() && !files.iter().any(|(_, wanted)| *wanted == old) {
            fs::remove_file(&old)
                .map_err(|error| format!("cannot remove {}: {error}", old.display()))?;
        }
    }
    files.iter().try_for_each(|(from, to)| place(from, to))
}

fn create(directory: &Path) -> Result {
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot create {}: {error}", directory.display()))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let problem = |error| format!("cannot read {}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(problem)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(problem)).collect()
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
    // The flags that the user sets are meant for the host's target, not for the guests'.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}

fn build_directory() -> PathBuf {
    target().join("guests-build")
}

fn built(target: &str, file: &str) -> PathBuf {
    build_directory().join(target).join("release").join(file)
}

/// Copies a file unless an equal copy exists, so that nothing that depends on it is rebuilt.
fn place(from: &Path, to: &Path) -> Result {
    let code =
        fs::read(from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
    if fs::read(to).is_ok_and(|placed| placed == code) {
        return Ok(());
    }
    fs::write(to, code).map_err(|error| format!("cannot write {}: {error}", to.display()))
}
