//! The commands, each a few steps.

use std::ffi::OsString;
use std::process::Command;

use crate::docker;
use crate::guests;
use crate::instructions;
use crate::process::{Result, cargo, output, root, run, target};
use crate::published;
use crate::python;
use crate::v8;

pub(crate) fn setup() -> Result {
    guests::build()
}

pub(crate) fn fold(arguments: &[OsString]) -> Result {
    setup()?;
    run(cargo()
        .args(["build", "--quiet", "--release", "--package", "manifold"])
        .args(selection()?))?;
    let mut manifold = Command::new(target().join("release").join("manifold"));
    manifold.arg("fold").args(arguments);
    let says = |option: &str| {
        arguments.iter().any(|argument| argument.as_encoded_bytes().starts_with(option.as_bytes()))
    };
    if !says("--repeat") {
        manifold.args(["--repeat", "2"]);
    }
    // Computed once and remembered once, whatever the user's own store has from before.
    if !says("--store") && !says("--no-store") {
        manifold.arg("--no-store");
    }
    // An engine is only looked for when a container is to be run.
    let engine = if names_a_container(arguments) { docker::engine()? } else { None };
    if let Some(engine) = &engine {
        engine.reveal(&mut manifold);
    }
    run(&mut manifold)
}

/// Whether a guest or visitor is one that runs in a container.
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

pub(crate) fn test() -> Result {
    output(Command::new("git").arg("--version")).map_err(|problem| {
        format!("{problem}\nThe tests ask git about git's formats. Install git.")
    })?;
    setup()?;
    type_check()?;
    let engine = docker::engine()?;
    let mut tests = cargo();
    tests.args(["test", "--release", "--workspace"]).args(exclusion()?).args(selection()?);
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
    run(cargo()
        .args(["test", "--quiet", "--package", "manifold-guest"])
        .current_dir(root().join("fold-guests")))
}

/// Without V8, what needs it is not built.
pub(crate) fn selection() -> Result<&'static [&'static str]> {
    Ok(if v8::is_available()? { &[] } else { &["--no-default-features"] })
}

fn exclusion() -> Result<&'static [&'static str]> {
    Ok(if v8::is_available()? { &[] } else { &["--exclude", "manifold-runtime-v8"] })
}

/// Has TypeScript's own compiler check the TypeScript guests.
fn type_check() -> Result {
    let guests = root().join("fold-guests").join("typescript");
    if let Err(problem) = output(Command::new("npm").arg("--version")) {
        eprintln!(
            "\nSKIPPED: the types of the TypeScript guests are not checked, for there is no npm ({problem}).\nInstall Node.js with \
             npm.\n"
        );
        return Ok(());
    }
    if !guests.join("node_modules").is_dir() {
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"])
            .current_dir(&guests))?;
    }
    run(Command::new("npm").args(["run", "--silent", "check"]).current_dir(&guests))
}

pub(crate) fn lint() -> Result {
    setup()?;
    let guests = root().join("fold-guests");
    let wasm = [
        "--target",
        "wasm32-unknown-unknown",
        "--exclude",
        "wasip1-guest",
        "--exclude",
        "strange",
        "--lib",
    ];
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["fmt", "--all", "--check"]).current_dir(&guests))?;
    run(cargo()
        .args(["clippy", "--quiet", "--workspace", "--all-targets"])
        .args(exclusion()?)
        .args(selection()?)
        .args(["--", "-D", "warnings"]))?;
    run(cargo()
        .args(["clippy", "--quiet", "--workspace"])
        .args(wasm)
        .args(["--", "-D", "warnings"])
        .current_dir(&guests))?;
    // For containers they are programs, and `strange` is nothing else.
    run(cargo()
        .args(["clippy", "--quiet", "--workspace", "--exclude", "wasip1-guest", "--bins"])
        .args(["--", "-D", "warnings"])
        .current_dir(&guests))?;
    run(cargo()
        .args(["doc", "--quiet", "--workspace", "--no-deps"])
        .args(exclusion()?)
        .args(selection()?)
        .env("RUSTDOCFLAGS", "-D warnings"))
}
