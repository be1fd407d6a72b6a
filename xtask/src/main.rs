//! `cargo xtask`: set-up, guest builds, tests, lints, benchmarks and the other commands of the
//! README.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bench;
mod browser;
mod buildgrid;
mod commands;
mod deny;
mod docker;
mod features;
mod fuzz;
mod guests;
mod install;
mod instructions;
mod json;
mod lint;
mod metadata;
mod nats;
mod nodes_demo;
mod npm;
mod package;
mod process;
mod published;
mod python;
mod rustdoc;
mod semver;
mod skip;
mod toolchain;
mod typescript;
mod unify;
mod v8;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::install::Installing;

const USAGE: &str = "\
Usage: cargo xtask [--no-install] COMMAND

Every command first installs what it needs and prints what that is. With --no-install it installs
nothing and skips what needs a missing program. MANIFOLD_REQUIRE=v8,docker,npm,chromium,buildgrid,nats
makes it an error to skip these.

  setup              Build the guests that other crates embed; quick if nothing has changed
  fold PATH [...]    Fold PATH twice: computed, then from the memo; further arguments are passed to
                     `manifold fold`
  test               Run all tests
  lint               Check formatting, lints and documentation, with warnings as errors
  check-release      Check licences and sources of dependencies, each feature alone, the packages,
                     and the public API; takes a while
  package            Package every published crate, and build the packages without the rest of the
                     repository; nothing is published
  semver             Compare the public API with the last release (cargo-semver-checks)
  docker COMMAND     Run a command with a container engine: a running one, or a private one that is
                     stopped afterwards
  bench [--readme]   Run all benchmarks, their floors and peers, and write a report; --readme also
                     updates the table in the README
  nodes-demo         Run a call on three nodes, kill one of them and the server, and show in a table
                     and a picture what happens
  instructions       Count the instructions of the hot paths; fail if there are over 10 % more than
                     recorded
  fuzz [SECONDS]     Fuzz the preparation of guest code, with published packages as the corpus;
                     SECONDS defaults to 60
  v8                 Install V8's library from MANIFOLD_V8_ARCHIVE, or let the build download it
  v8 --from-source   Build V8's library from source; takes about an hour, and is done once
  help               Print this text
";

/// The option that keeps the commands from installing anything.
const NO_INSTALL: &str = "--no-install";

fn main() -> ExitCode {
    let (installing, arguments) = options(std::env::args_os().skip(1).collect());
    match run(&arguments, installing) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{}", problem.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// Separates [`NO_INSTALL`] from the other arguments. What follows `docker` belongs to the command
/// that is run.
fn options(arguments: Vec<OsString>) -> (Installing, Vec<OsString>) {
    let (mut installing, mut rest) = (Installing::Allowed, Vec::new());
    for argument in arguments {
        let is_foreign = rest.first().is_some_and(|command| command == "docker");
        if argument == NO_INSTALL && !is_foreign {
            installing = Installing::Forbidden;
        } else {
            rest.push(argument);
        }
    }
    (installing, rest)
}

fn run(arguments: &[OsString], installing: Installing) -> process::Result {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.to_str().unwrap_or_default(), rest),
        None => ("", &[][..]),
    };
    match (command, rest) {
        ("setup", []) => commands::setup(installing),
        ("fold", rest) => commands::fold(rest, installing),
        ("test", []) => commands::test(installing),
        ("lint", []) => lint::lint(installing),
        ("check-release", []) => lint::check_release(installing),
        ("package", []) => commands::package(installing),
        ("semver", []) => semver::check(),
        ("bench", rest) => bench::bench(rest, installing),
        ("nodes-demo", []) => nodes_demo::run(installing),
        ("instructions", []) => instructions::count(installing),
        ("fuzz", []) => fuzz::prepare(60, installing),
        ("fuzz", [seconds]) => match seconds.to_str().and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => fuzz::prepare(seconds, installing),
            None => Err(USAGE.to_owned()),
        },
        ("docker", [program, arguments @ ..]) => {
            let mut command = Command::new(program);
            process::without_own_package(&mut command);
            docker::with_engine(command.args(arguments), installing)
        }
        ("v8", []) => v8::install(),
        ("v8", [option]) if option == "--from-source" => v8::build_from_source(installing),
        ("help" | "--help" | "-h", _) => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_recognized_except_in_the_command_for_docker() {
        let options = |line: &str| options(line.split(' ').map(OsString::from).collect());
        assert_eq!(options("test --no-install"), (Installing::Forbidden, vec!["test".into()]));
        assert_eq!(options("--no-install test"), (Installing::Forbidden, vec!["test".into()]));
        assert_eq!(options("test").0, Installing::Allowed);
        let docker = ["docker", "x", "--no-install"].map(OsString::from).to_vec();
        assert_eq!(options("docker x --no-install"), (Installing::Allowed, docker));
    }
}
