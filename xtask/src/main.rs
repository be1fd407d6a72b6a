//! `cargo xtask`: set-up, guest builds, and the commands that the README promises.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod commands;
mod docker;
mod fuzz;
mod guests;
mod instructions;
mod packages;
mod process;
mod published;
mod python;
mod toolchain;
mod v8;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask <command>

  setup              install what is missing and build the guests; quick when nothing is to do
  fold PATH [...]    set-up, then fold PATH twice: computed, and from the memo; further arguments go to `manifold fold`
  test               set-up, then all tests
  docker COMMAND     run a command beside a container engine: one that is there, or a private one that goes with it
  bench [--readme]   all benchmarks beside floors and peers, and a report of them; --readme also renews the README's short form
  instructions       count the instructions of the hot paths, and fail if they have become many more
  fuzz [SECONDS]     fuzz what a guest's code goes through before it is run, with published packages for a corpus; a minute by default
  v8                 put V8's library where the build finds it, from MANIFOLD_V8_ARCHIVE, or leave it to the build's own download
  v8 --from-source   build V8's library from source, once; takes about an hour
  lint               set-up, then formatting, clippy and rustdoc, with warnings as errors
";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.to_str().unwrap_or_default(), rest),
        None => ("", &[][..]),
    };
    let result = match (command, rest) {
        ("setup", []) => commands::setup(),
        ("fold", rest) => commands::fold(rest),
        ("test", []) => commands::test(),
        ("lint", []) => commands::lint(),
        ("bench", rest) => bench::bench(rest),
        ("instructions", []) => instructions::gate(),
        ("fuzz", []) => fuzz::prepare(60),
        ("fuzz", [seconds]) => match seconds.to_str().and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => fuzz::prepare(seconds),
            None => Err(USAGE.to_owned()),
        },
        ("docker", [program, arguments @ ..]) => {
            docker::with_engine(Command::new(program).args(arguments))
        }
        ("v8", []) => v8::install(),
        ("v8", [option]) if option == "--from-source" => v8::build_from_source(),
        ("help" | "--help" | "-h", _) => {
            eprint!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{}", problem.trim_end());
            ExitCode::FAILURE
        }
    }
}
