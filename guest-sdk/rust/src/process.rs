//! Runs a guest as a process of a container.
//!
//! The process either serves a single job over its standard streams, or forks a child process for
//! each job and connects each child to the host's socket.

use std::io::{self, BufRead, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;
use std::{env, panic, process};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stdin, dup2_stdout, fork, setpgid};

use crate::operations;

/// The environment variable that holds the path of the host's socket. It is set only in a container
/// that serves many jobs.
const SOCKET: &str = "MANIFOLD_SOCKET";
/// The number of child processes to keep waiting for a job.
const IDLE_CHILDREN: usize = 4;

/// Runs `job` once over standard input and output, or once per job in child processes.
///
/// If the environment variable `MANIFOLD_SOCKET` is set, each child process is connected to the
/// socket at that path and runs one job over its connection.
#[doc(hidden)]
pub fn run_process(job: fn()) {
    panic::set_hook(std::boxed::Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place =
            panic.location().map(|place| std::format!(" at {}:{}", place.file(), place.line()));
        operations::fail(&std::format!(
            "the guest panicked: {message}{}",
            place.unwrap_or_default()
        ));
    }));
    if let Some(socket) = env::var_os(SOCKET) {
        // `serve` forks, which requires that this process has a single thread. Threads that the
        // guest starts are in the children.
        if let Err(error) = serve(socket.as_ref(), job) {
            std::eprintln!("the guest cannot serve jobs: {error}");
            process::exit(1);
        }
    } else {
        job();
    }
}

/// A child process that waits for a job or runs one.
struct Child {
    pid: Pid,
    /// The child's connection to the host. The host closes it when it no longer needs the job.
    connection: UnixStream,
    /// Yields one byte when the child has received its job, and end of file when the child ends.
    status: PipeReader,
    has_job: bool,
}

/// In a child process: the pipe that notifies the parent when the child has received its job.
static JOB_NOTIFIER: Mutex<Option<PipeWriter>> = Mutex::new(None);

/// Keeps child processes waiting for jobs. Returns when the host no longer accepts connections.
fn serve(socket: &Path, job: fn()) -> io::Result<()> {
    let mut children: Vec<Child> = Vec::new();
    loop {
        while children.iter().filter(|child| !child.has_job).count() < IDLE_CHILDREN {
            let connection = UnixStream::connect(socket);
            let connected = connection.and_then(|connection| Ok((connection, io::pipe()?)));
            let (connection, (status, notifier)) = match connected {
                Ok(connected) => connected,
                Err(error) if is_out_of_descriptors(&error) && !children.is_empty() => break,
                Err(_) => return Ok(()),
            };
            // SAFETY: this process has a single thread.
            match unsafe { fork() } {
                Ok(ForkResult::Parent { child }) => {
                    children.push(Child { pid: child, connection, status, has_job: false });
                }
                Ok(ForkResult::Child) => {
                    drop(children);
                    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
                    dup2_stdin(&connection)?;
                    dup2_stdout(&connection)?;
                    *JOB_NOTIFIER.lock().unwrap_or_else(PoisonError::into_inner) = Some(notifier);
                    job();
                    process::exit(0);
                }
                // The container's process limit is reached. Try again when a child ends.
                Err(_) if !children.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        wait_for_events(&mut children)?;
    }
}

/// Waits until a child receives its job, ends, or loses its connection, and updates `children`.
fn wait_for_events(children: &mut Vec<Child>) -> io::Result<()> {
    let mut watched = Vec::with_capacity(children.len() * 2);
    for child in &*children {
        watched.push(PollFd::new(child.status.as_fd(), PollFlags::POLLIN));
        watched.push(PollFd::new(child.connection.as_fd(), PollFlags::empty()));
    }
    match poll(&mut watched, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok(()),
        result => result?,
    };
    let events: Vec<PollFlags> =
        watched.iter().map(|end| end.revents().unwrap_or(PollFlags::empty())).collect();
    for index in (0..children.len()).rev() {
        let (status, connection) = (events[2 * index], events[2 * index + 1]);
        if status.contains(PollFlags::POLLIN) {
            children[index].status.read_exact(&mut [0])?;
            children[index].has_job = true;
        } else if !status.is_empty() || !connection.is_empty() {
            let child = children.swap_remove(index);
            // Kill the whole process group, to include processes that the guest started. Errors are
            // ignored because the processes may already have ended.
            let _ = killpg(child.pid, Signal::SIGKILL);
            let _ = kill(child.pid, Signal::SIGKILL);
            report_end(&child, waitpid(child.pid, None));
        }
    }
    // As the first process of its container, this process inherits orphaned processes and must reap
    // them.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) =
        waitid(Id::All, flags)
    {
        // A child in `children` is reaped when its status pipe ends.
        if children.iter().any(|child| child.pid == pid) || waitpid(pid, None).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reports to the host that a child ended by itself without naming an outcome.
///
/// A host that already has the job's outcome does not read the message. Nothing is sent for a child
/// that was killed: the host only sees its connection close.
fn report_end(child: &Child, end: nix::Result<WaitStatus>) {
    let how = match end {
        Ok(WaitStatus::Exited(_, status)) if status != HOST_IS_GONE => {
            std::format!("status {status}")
        }
        Ok(WaitStatus::Signaled(_, signal, _)) if signal != Signal::SIGKILL => {
            std::format!("{signal}")
        }
        _ => return,
    };
    if child.has_job {
        let line = std::format!(
            "{{\"op\":\"fail\",\"message\":\"the guest's process ended with {how}, \
             without an outcome\"}}\n"
        );
        let _ = child.connection.set_nonblocking(true);
        let _ = (&child.connection).write_all(line.as_bytes());
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// The exit status of a guest whose connection to the host was closed.
const HOST_IS_GONE: i32 = 86;

/// Sends a request as one line and returns the response, which is also one line.
///
/// Exits the process with status `HOST_IS_GONE` if the connection is closed.
#[cfg_attr(test, expect(dead_code, reason = "the tests use a scripted host"))]
pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
    let line = [request, b"\n"].concat();
    let mut response = Vec::new();
    let sent = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    let received = sent.and_then(|()| io::stdin().lock().read_until(b'\n', &mut response));
    if received.is_err() || response.pop() != Some(b'\n') {
        process::exit(HOST_IS_GONE);
    }
    // The first response is the job.
    if let Ok(mut notifier) = JOB_NOTIFIER.lock()
        && let Some(mut parent) = notifier.as_ref()
        && parent.write_all(b"j").is_ok()
    {
        // Keep the pipe open until this process ends: the parent detects the end by it.
        core::mem::forget(notifier.take());
    }
    response
}
