//! The `manifold` command.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod args;
mod arguments;
mod audit;
mod cache;
mod cat;
mod curry;
mod diff;
mod error;
mod explain;
mod fold;
mod get;
mod history;
mod huge_pages;
mod image;
mod images;
mod input;
mod keep;
mod limits;
mod live;
mod names;
mod new;
mod node;
mod objects;
mod outcome;
mod patience;
mod pins;
mod places;
mod progress;
mod report;
mod repository;
mod run;
mod say;
mod session;
mod shell;
mod shown;
mod store;
mod trace;
mod tracing;
mod types;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use clap::Parser;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Arguments, CacheKind, Command, ImageKind};
use crate::error::{CliError, Failure};
use crate::patience::{Interrupts, SHUTDOWN_TIME, is_thread_failure};
use crate::say::{StderrWriter, say};

/// Frames allocate on one thread and free on another. The system's allocator takes locks for that,
/// which cost an eighth of a fold.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let _ = ERRORS_ARE_JSON.set(arguments.command.prints_json());
    silence_panics_of_thread_failures();
    // Handling SIGXFSZ makes a bound on the size of files (`ulimit -f`) an error of the write, like
    // a full disk, instead of the end of the process.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::<AtomicBool>::default());
    show_events(arguments.verbose);
    let computes = match &arguments.command {
        Command::Fold(_) | Command::History(_) | Command::Run(_) | Command::Audit(_) => true,
        Command::Request(_) | Command::Curry(_) | Command::Std(_) | Command::Node(_) => true,
        Command::Image(image) => matches!(image.kind, ImageKind::Export(_)),
        _ => false,
    };
    // Commands that only maintain the store can be ended at any time.
    let interrupts = Interrupts::listen(!computes);
    let status = match arguments.command {
        Command::Fold(fold) => compute(&interrupts, fold.using.deadline, fold::fold(fold)),
        Command::History(history) => {
            compute(&interrupts, history.using.deadline, history::history(history))
        }
        Command::Run(run) => compute(&interrupts, run.using.deadline, run::run(run)),
        Command::Curry(curry) => compute(&interrupts, None, curry::curry(curry)),
        Command::Std(std) => compute(&interrupts, None, names::names(std.kind)),
        Command::Image(image) => match image.kind {
            ImageKind::Import(import) => report(image::import(&import)),
            ImageKind::Export(export) => compute(&interrupts, None, image::export(export)),
            ImageKind::Ls(ls) => report(image::list(&ls)),
        },
        Command::Request(request) => {
            compute(&interrupts, request.using.deadline, run::request(request))
        }
        Command::Get(get) => report(get::get(&get)),
        Command::Diff(diff) => report(diff::diff(&diff)),
        Command::Trace(trace) => report(trace::trace(&trace)),
        Command::Explain(explain) => report(explain::explain(&explain)),
        Command::Audit(audit) => compute(&interrupts, audit.using.deadline, audit::audit(audit)),
        Command::Where(place) => report(explain::find_makers(&place)),
        Command::Cat(cat) => report(cat::cat(&cat)),
        Command::Cache(cache) => match cache.kind {
            CacheKind::Status(status) => compute(&interrupts, None, cache::status(status)),
        },
        Command::Node(node) => compute(&interrupts, node.using.deadline, node::node(node)),
        Command::Pins(pins) => report(pins::pins(&pins)),
        Command::Unpin(unpin) => report(keep::unpin(&unpin)),
        Command::Gc(gc) => report(keep::gc(&gc)),
        Command::Verify(verify) => report(keep::verify(&verify)),
        Command::Export(export) => report(keep::export(&export)),
        Command::Types(types) => report(types::types(&types)),
        Command::New(new) => report(new::new(&new)),
        Command::Completions(completions) => report(shell::completions(&completions)),
        Command::Man(man) => report(shell::man(&man)),
        Command::SweepContainers => report(session::sweep_containers()),
    };
    session::close_containers();
    store::close();
    status
}

/// Prints the error of a command, and returns its exit status.
fn report(result: Result<(), CliError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let failure = error.failure();
    if failure != Failure::Interrupted {
        match ERRORS_ARE_JSON.get() {
            Some(true) => say(&error::json(&error).to_string()),
            _ => say(&error::render(&error)),
        }
    }
    ExitCode::from(failure.status())
}

/// Whether the user asked for JSON, so that an error is JSON, too.
static ERRORS_ARE_JSON: OnceLock<bool> = OnceLock::new();

/// Runs a command that computes, and stops the work that is still in progress when it ends.
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
    // The error is printed before the shutdown, which takes time.
    let status = report(runtime.block_on(interrupts.run(deadline, work)));
    runtime.block_on(node::farewell());
    // Work that is still in progress holds containers.
    runtime.shutdown_timeout(SHUTDOWN_TIME);
    status
}

/// Suppresses the message of a panic caused by a thread that could not start. The command reports
/// that failure as an error.
fn silence_panics_of_thread_failures() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload_as_str().is_some_and(is_thread_failure) {
            before(panic);
        }
    }));
}

/// Prints events of the libraries: with `-v` the debug events of Manifold's crates, with `-vv` all
/// events of all crates.
fn show_events(verbose: u8) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    let targets = match verbose {
        0 => return,
        1 => Targets::new().with_target("manifold", LevelFilter::DEBUG),
        _ => Targets::new().with_default(LevelFilter::TRACE),
    };
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| StderrWriter);
    // This fails only if a subscriber is set already, and this program sets no other.
    let _ = tracing_subscriber::registry().with(targets).with(layer).try_init();
}
