//! The `manifold` command.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod args;
mod cat;
mod error;
mod fold;
mod images;
mod input;
mod keep;
mod progress;
mod report;
mod run;
mod session;
mod store;
mod types;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::args::{Arguments, Command};
use crate::error::CliError;

/// Frames allocate on one thread and free on another, which the system's allocator takes locks for: an eighth of a fold.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the async runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match arguments.command {
        Command::Fold(fold) => runtime.block_on(unless_interrupted(fold::fold(fold))),
        Command::Run(run) => runtime.block_on(unless_interrupted(run::run(run))),
        Command::Cat(cat) => cat::cat(&cat),
        Command::Pins(pins) => keep::pins(&pins),
        Command::Unpin(unpin) => keep::unpin(&unpin),
        Command::Gc(gc) => keep::gc(&gc),
        Command::Verify(verify) => keep::verify(&verify),
        Command::Export(export) => keep::export(&export),
        Command::Types(types) => types::types(&types),
    };
    // What is still under way holds containers.
    runtime.shutdown_timeout(LAST_BREATH);
    session::close_containers();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprint!("{}", error::render(&error));
            ExitCode::FAILURE
        }
    }
}

/// How long what is under way may take to let go.
const LAST_BREATH: Duration = Duration::from_secs(5);
/// What a shell answers for a program that an interrupt ended.
const INTERRUPTED: u8 = 128 + 2;

/// Stops the work at an interrupt, so that it can let go of what it holds.
async fn unless_interrupted(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::select! {
        result = work => result,
        Ok(()) = tokio::signal::ctrl_c() => {
            std::thread::spawn(end_at_next_interrupt);
            Err(CliError::Interrupted)
        }
    }
}

/// Letting go may take its time. Who does not want to wait gets out; the next command then removes the containers that are left.
fn end_at_next_interrupt() {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
        && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
    {
        std::process::exit(i32::from(INTERRUPTED));
    }
}
