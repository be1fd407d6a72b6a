//! The commands `setup`, `package`, `fold` and `test`.

use std::ffi::OsString;
use std::process::Command;

use crate::docker;
use crate::guests;
use crate::install::{Installing, provide};
use crate::instructions;
use crate::metadata::GUEST_SDK;
use crate::package;
use crate::process::{Result, cargo, output, root, run, target};
use crate::published;
use crate::python;
use crate::toolchain;
use crate::typescript;
use crate::v8::{self, exclusion};

/// Installs missing Rust targets and builds the guests.
pub(crate) fn setup(installing: Installing) -> Result {
    provide(toolchain::needs()?, installing);
    guests::build()
}

/// Builds the guests, which are in a package, and packages everything.
pub(crate) fn package(installing: Installing) -> Result {
    setup(installing)?;
    package::package()
}

/// Runs `manifold fold` with `arguments`, by default twice and without the user's store.
pub(crate) fn fold(arguments: &[OsString], installing: Installing) -> Result {
    // An engine is needed only to run a container.
    let in_containers = names_a_container(arguments);
    let engine_packages = if in_containers { docker::need() } else { None };
    provide(toolchain::needs()?.into_iter().chain(engine_packages), installing);
    guests::build()?;
    // With the features that cargo unifies for the tests, so that nothing is built twice.
    run(cargo()
        .args(["build", "--quiet", "--release", "--workspace", "--bin", "manifold"])
        .args(exclusion()?)
        .args(v8::workspace_selection()?))?;
    let mut manifold = Command::new(target().join("release").join("manifold"));
    manifold.arg("fold").args(arguments);
    let has = |option: &str| {
        arguments.iter().any(|argument| argument.as_encoded_bytes().starts_with(option.as_bytes()))
    };
    if !has("--repeat") {
        manifold.args(["--repeat", "2"]);
    }
    // The first fold is to be computed, whatever the user's own store holds from earlier runs.
    if !has("--store") && !has("--no-store") {
        manifold.arg("--no-store");
    }
    let engine = if in_containers { docker::engine()? } else { None };
    if let Some(engine) = &engine {
        engine.reveal(&mut manifold);
    }
    run(&mut manifold)
}

/// Returns whether an option names a guest or visitor that runs in a container.
fn names_a_container(arguments: &[OsString]) -> bool {
    const OPTIONS: [&str; 3] = ["--guest", "--post", "--pre"];
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let beside = words.windows(2).filter(|pair| OPTIONS.contains(&&*pair[0])).map(|pair| &*pair[1]);
    let within = words
        .iter()
        .filter_map(|word| word.split_once('='))
        .filter(|(option, _)| OPTIONS.contains(option));
    beside
        .chain(within.map(|(_, value)| value))
        .any(|value| value.contains("docker") || value.contains("serving"))
}

/// Runs all tests, checks the types of the TypeScript guests, and counts the instructions of the
/// hot paths.
pub(crate) fn test(installing: Installing) -> Result {
    output(Command::new("git").arg("--version")).map_err(|problem| {
        format!("{problem}\nThe tests compare git objects with those of git. Install git.")
    })?;
    let mut needs = toolchain::needs()?;
    needs.extend(typescript::needs()?);
    needs.extend(docker::need());
    needs.extend(python::need());
    if v8::is_available()? {
        needs.extend(published::need()?);
    }
    needs.extend(instructions::need());
    provide(needs, installing);

    guests::build()?;
    typescript::check()?;
    let engine = docker::engine()?;
    let mut tests = cargo();
    tests.args(["test", "--release", "--workspace"]);
    tests.args(exclusion()?).args(v8::workspace_selection()?);
    if let Some(engine) = &engine {
        python::build()?;
        engine.reveal(&mut tests);
    }
    if v8::is_available()?
        && let Some(packages) = published::packages()?
    {
        tests.env("MANIFOLD_PUBLISHED", packages);
    }
    run(&mut tests)?;
    instructions::gate()?;
    run(cargo().args(["test", "--quiet"]).current_dir(root().join(GUEST_SDK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_in_containers_are_recognized() {
        let names = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            names_a_container(&words)
        };
        assert!(names(". --guest wasm,docker"));
        assert!(names(". --post=file-count.serving"));
        assert!(!names("docker --guest wasm"));
    }
}
