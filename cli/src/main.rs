//! The `manifold` command.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod args;
mod cat;
mod error;
mod fold;
mod images;
mod input;
mod keep;
mod limits;
mod patience;
mod places;
mod progress;
mod report;
mod repository;
mod run;
mod say;
mod session;
mod shown;
mod store;
mod types;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Arguments, Command};
use crate::error::CliError;
use crate::patience::{INTERRUPTED, Interrupts, LAST_BREATH, is_for_threads};
use crate::say::{Saying, say};

/// Frames allocate on one thread and free on another, which the system's allocator takes locks for: an eighth of a fold.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    say_no_panics_for_want_of_threads();
    // A bound on the size of files is an error of writing, as a full disk is, and not the end.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::<AtomicBool>::default());
    show_events(arguments.verbose);
    let computes = matches!(arguments.command, Command::Fold(_) | Command::Run(_));
    // What only looks after the store can be ended at any moment.
    let interrupts = Interrupts::listen(!computes);
    let status = match arguments.command {
        Command::Fold(fold) => compute(&interrupts, fold.using.deadline, fold::fold(fold)),
        Command::Run(run) => compute(&interrupts, run.using.deadline, run::run(run)),
        Command::Cat(cat) => report(cat::cat(&cat)),
        Command::Pins(pins) => report(keep::pins(&pins)),
        Command::Unpin(unpin) => report(keep::unpin(&unpin)),
        Command::Gc(gc) => report(keep::gc(&gc)),
        Command::Verify(verify) => report(keep::verify(&verify)),
        Command::Export(export) => report(keep::export(&export)),
        Command::Types(types) => report(types::types(&types)),
        Command::SweepContainers => report(session::sweep_containers()),
    };
    session::close_containers();
    status
}

/// Says why a command fails, and what its status is.
fn report(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            say(&error::render(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that computes, and lets go of what is still under way when it ends.
fn compute(
    interrupts: &Interrupts,
    deadline: Option<std::time::Duration>,
    work: impl Future<Output = Result<(), CliError>> + Send + 'static,
) -> ExitCode {
    let started = patience::check_threads()
        .and_then(|()| tokio::runtime::Builder::new_multi_thread().enable_all().build());
    let runtime = match started {
        Ok(runtime) => runtime,
        Err(error) => return report(Err(CliError::NoThreads(error))),
    };
    // Said before anything that takes time.
    let status = report(runtime.block_on(interrupts.unless(deadline, work)));
    // What is still under way holds containers.
    runtime.shutdown_timeout(LAST_BREATH);
    status
}

/// Suppresses the message of a panic that a failed thread creation caused: the command reports that failure as an error.
fn say_no_panics_for_want_of_threads() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload_as_str().is_some_and(is_for_threads) {
            before(panic);
        }
    }));
}

/// Shows events of the libraries, as often as `-v` was given: once for what Manifold's say, twice for everything.
fn show_events(verbose: u8) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    let targets = match verbose {
        0 => return,
        1 => Targets::new().with_target("manifold", LevelFilter::DEBUG),
        _ => Targets::new().with_default(LevelFilter::TRACE),
    };
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Saying);
    // There is no other subscriber in this program.
    let _ = tracing_subscriber::registry().with(targets).with(layer).try_init();
}
