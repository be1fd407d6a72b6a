//! The first process of a container that is used for many jobs.
//!
//! `container-init PROGRAM [ARGUMENT …]`, with the host at the other end of its standard input and
//! standard output, to which it speaks in [`frame`]s. For each job it starts PROGRAM with streams of
//! its own. When the job is over it kills every process that is left, empties what the job could
//! write to, and checks that nothing remained. The host throws the container away unless it says so.
//!
//! It runs as the user of the guests and without any privilege. What such a guest could do to it or
//! leave behind is listed in `docs/containers.md`, and mended in [`processes`] and [`files`] or found
//! in [`traces`].

mod files;
mod frame;
mod job;
mod processes;
mod traces;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::files::Places;
use crate::frame::{FromHost, Host, ToHost};
use crate::processes::Children;
use crate::traces::Traces;

/// The time in which a job's processes have to be gone, and its files.
const PATIENCE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("container-init: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Runs jobs until the host closes the connection.
fn serve() -> Result<(), String> {
    let command: Vec<OsString> = env::args_os().skip(1).collect();
    if command.is_empty() {
        return Err("expected the program of the image as arguments".to_owned());
    }
    processes::shield().map_err(|error| format!("cannot shield itself: {error}"))?;
    let children = Children::new().map_err(|error| format!("cannot wait for children: {error}"))?;
    let mut host = Host::new().map_err(|error| format!("cannot reach the host: {error}"))?;
    // Found before the first job, because a job could hide them.
    let places = Places::find();
    let traces = places.as_ref().map_err(Clone::clone).and_then(|_| Traces::read());
    host.send(ToHost::Ready, &[]).map_err(|error| format!("cannot write to the host: {error}"))?;
    loop {
        let frame =
            host.receive().map_err(|error| format!("cannot read from the host: {error}"))?;
        match frame {
            None => return Ok(()),
            Some((FromHost::Start, _)) => {}
            // Of a job that ended before the host knew.
            Some(_) => continue,
        }
        let lost = |error| format!("lost the host: {error}");
        if !job::run(&command, &children, &mut host).map_err(lost)? {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        let cleaned = match (&places, &traces) {
            (Ok(places), Ok(traces)) => clean(&children, places, traces, deadline),
            (Err(problem), _) | (_, Err(problem)) => Err(problem.clone()),
        };
        match cleaned {
            Ok(()) => host.send(ToHost::Clean, &[]),
            Err(problem) => host.send(ToHost::Dirty, problem.as_bytes()),
        }
        .map_err(lost)?;
    }
}

/// Waits until `condition` holds. Returns false if it does not by the deadline.
fn holds_by(
    deadline: Instant,
    condition: impl Fn() -> Result<bool, String>,
) -> Result<bool, String> {
    while !condition()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::yield_now();
    }
    Ok(true)
}

/// Removes what a job has left, and checks that nothing remained. Errors with what did.
fn clean(
    children: &Children,
    places: &Places,
    traces: &Traces,
    deadline: Instant,
) -> Result<(), String> {
    children.kill_all(deadline)?;
    places.empty(deadline)?;
    traces.compare(deadline)
}
