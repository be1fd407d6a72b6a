//! The commands `setup`, `package`, `fold` and `test`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::browser;
use crate::buildgrid;
use crate::docker;
use crate::guests::{self, Wanted};
use crate::install::{Installing, provide};
use crate::instructions;
use crate::metadata::GUEST_SDK;
use crate::nats;
use crate::package;
use crate::process::{Result, cargo, output, root, run, target};
use crate::published;
use crate::python;
use crate::skip::Program;
use crate::toolchain;
use crate::typescript;
use crate::v8::{self, exclusion};

/// Installs missing Rust targets and builds the guests.
pub(crate) fn setup(installing: Installing) -> Result {
    provide(toolchain::needs(Wanted::All.targets())?, installing);
    guests::build(Wanted::All)
}

/// Builds the guests, which are in a package, and packages everything.
pub(crate) fn package(installing: Installing) -> Result {
    setup(installing)?;
    package::package()
}

/// Runs `manifold fold` with `arguments`, by default twice and without the user's store. Builds V8 and
/// the guests for containers only if an argument names one.
pub(crate) fn fold(arguments: &[OsString], installing: Installing) -> Result {
    let values = named_guests(arguments);
    let names = |is_it: fn(&str) -> bool| values.iter().any(|value| is_it(value));
    // An engine is needed only to run a container.
    let in_containers = names(is_in_container);
    let engine_packages = if in_containers { docker::need() } else { None };
    let wanted = if in_containers { Wanted::Standard } else { Wanted::Modules };
    provide(toolchain::needs(wanted.targets())?.into_iter().chain(engine_packages), installing);
    guests::build(wanted)?;
    // The selection of the tests, except for V8, so that its other packages are built once. If V8
    // has been built already, leaving it out would save nothing.
    let selection = if (names(is_script) || v8::is_built()) && v8::is_available()? {
        v8::workspace_selection()?
    } else {
        v8::selection_without()
    };
    run(cargo()
        .args(["build", "--quiet", "--release", "--workspace", "--bin", "manifold"])
        .args(selection))?;
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

/// Returns the values of the options that name a guest or visitor.
fn named_guests(arguments: &[OsString]) -> Vec<String> {
    const OPTIONS: [&str; 3] = ["--guest", "--post", "--pre"];
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let beside = words.windows(2).filter(|pair| OPTIONS.contains(&&*pair[0])).map(|pair| &*pair[1]);
    let within = words
        .iter()
        .filter_map(|word| word.split_once('='))
        .filter(|(option, _)| OPTIONS.contains(option));
    beside.chain(within.map(|(_, value)| value)).map(str::to_owned).collect()
}

/// Returns whether a guest or visitor runs in a container.
fn is_in_container(value: &str) -> bool {
    value.contains("docker") || value.contains("serving")
}

/// Returns whether a guest or visitor may be a script, which runs on V8.
fn is_script(value: &str) -> bool {
    let is_language = value.split(',').any(|name| name == "ts" || name.ends_with(".ts"));
    // What is in the object of an image reference is not known.
    let is_image = value.starts_with('/') || value.len() == 40;
    is_language || value.ends_with(".js") || Path::new(value).is_dir() || is_image
}

/// Runs all tests, checks the types of the TypeScript guests, and counts the instructions of the
/// hot paths.
pub(crate) fn test(installing: Installing) -> Result {
    output(Command::new("git").arg("--version")).map_err(|problem| {
        format!("{problem}\nThe tests compare git objects with those of git. Install git.")
    })?;
    let mut needs = toolchain::needs(Wanted::All.targets())?;
    needs.extend(typescript::needs()?);
    needs.extend(docker::need());
    needs.extend(python::need());
    needs.extend(
        [browser::program(), buildgrid::program(), nats::program()]
            .into_iter()
            .filter_map(Program::need),
    );
    if v8::is_available()? {
        needs.extend(published::need()?);
    }
    needs.extend(instructions::need());
    provide(needs, installing);

    guests::build(Wanted::All)?;
    typescript::check()?;
    browser::program().check()?;
    buildgrid::program().check()?;
    nats::program().check()?;
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
        let names = |line: &str| named(line).iter().any(|value| is_in_container(value));
        assert!(names(". --guest wasm,docker"));
        assert!(names(". --post=file-count.serving"));
        assert!(!names("docker --guest wasm"));
    }

    #[test]
    fn scripts_are_recognized() {
        let names = |line: &str| named(line).iter().any(|value| is_script(value));
        assert!(names(". --guest wasm,ts"));
        assert!(names(". --post file-count.ts") && names(". --post=visitor.js"));
        assert!(names(". --post src"));
        assert!(!names("main.ts --guest wasm") && !names(". --post line-count"));
    }

    fn named(line: &str) -> Vec<String> {
        named_guests(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }
}
