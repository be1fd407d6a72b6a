//! A guest as a process: alone in a container, or one of many that a container forks.

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

/// Where the host listens, in a container that serves many jobs.
const SOCKET: &str = "MANIFOLD_SOCKET";
/// How many processes wait for a job.
const WAITING: usize = 4;

/// Runs `job` as the host of this process wants it: once, with standard input and output as the connection, or for every
/// connection to the socket that `MANIFOLD_SOCKET` names, each in a process of its own.
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
        // This is the only thread, and it stays so: the guest's own threads are in the children.
        if let Err(error) = serve(socket.as_ref(), job) {
            std::eprintln!("the guest cannot serve: {error}");
            process::exit(1);
        }
    } else {
        job();
    }
}

/// A child that waits for a job, or has one.
struct Child {
    pid: Pid,
    /// The child's connection to the host, which hangs up on a job that nobody wants any more.
    connection: UnixStream,
    /// One byte when the child has a job, and the end when it has ended.
    life: PipeReader,
    has_job: bool,
}

/// In a child: what tells the parent that a job has come.
static HAS_JOB: Mutex<Option<PipeWriter>> = Mutex::new(None);

/// Keeps some processes waiting for jobs. Returns when the host is gone.
fn serve(socket: &Path, job: fn()) -> io::Result<()> {
    let mut children: Vec<Child> = Vec::new();
    loop {
        while children.iter().filter(|child| !child.has_job).count() < WAITING {
            let connection = UnixStream::connect(socket);
            let connected = connection.and_then(|connection| Ok((connection, io::pipe()?)));
            let (connection, (life, alive)) = match connected {
                Ok(connected) => connected,
                Err(error) if is_out_of_descriptors(&error) && !children.is_empty() => break,
                Err(_) => return Ok(()),
            };
            // SAFETY: this process has one thread.
            match unsafe { fork() } {
                Ok(ForkResult::Parent { child }) => {
                    children.push(Child { pid: child, connection, life, has_job: false });
                }
                Ok(ForkResult::Child) => {
                    drop(children);
                    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
                    dup2_stdin(&connection)?;
                    dup2_stdout(&connection)?;
                    *HAS_JOB.lock().unwrap_or_else(PoisonError::into_inner) = Some(alive);
                    job();
                    process::exit(0);
                }
                // As many as the container may have. One that ends makes room.
                Err(_) if !children.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        attend(&mut children)?;
    }
}

/// Waits until something happens to a child, and takes note.
fn attend(children: &mut Vec<Child>) -> io::Result<()> {
    let mut watched = Vec::with_capacity(children.len() * 2);
    for child in &*children {
        watched.push(PollFd::new(child.life.as_fd(), PollFlags::POLLIN));
        watched.push(PollFd::new(child.connection.as_fd(), PollFlags::empty()));
    }
    match poll(&mut watched, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok(()),
        result => result?,
    };
    let events: Vec<PollFlags> =
        watched.iter().map(|end| end.revents().unwrap_or(PollFlags::empty())).collect();
    for index in (0..children.len()).rev() {
        let (life, connection) = (events[2 * index], events[2 * index + 1]);
        if life.contains(PollFlags::POLLIN) {
            children[index].life.read_exact(&mut [0])?;
            children[index].has_job = true;
        } else if !life.is_empty() || !connection.is_empty() {
            let child = children.swap_remove(index);
            // What it started goes, too; it may have ended by itself.
            let _ = killpg(child.pid, Signal::SIGKILL);
            let _ = kill(child.pid, Signal::SIGKILL);
            tell(&child, waitpid(child.pid, None));
        }
    }
    // Of what its children have left behind, the first process of a container is the parent.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) =
        waitid(Id::All, flags)
    {
        // One of its own is dealt with when its pipe ends.
        if children.iter().any(|child| child.pid == pid) || waitpid(pid, None).is_err() {
            break;
        }
    }
    Ok(())
}

/// Tells the host of a process that ended by itself. A host that has its outcome hears it no more; of one that was killed, only
/// the silence tells.
fn tell(child: &Child, end: nix::Result<WaitStatus>) {
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
            "{{\"op\":\"fail\",\"message\":\"the guest's process ended with {how}, without an outcome\"}}\n"
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

/// With which status a guest ends that has lost its host.
const HOST_IS_GONE: i32 = 86;

/// Sends one request and receives its response, a line each. Ends the process when the host is gone.
#[cfg_attr(test, expect(dead_code, reason = "the tests have a host of their own"))]
pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
    let line = [request, b"\n"].concat();
    let mut response = Vec::new();
    let sent = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    let received = sent.and_then(|()| io::stdin().lock().read_until(b'\n', &mut response));
    if received.is_err() || response.pop() != Some(b'\n') {
        process::exit(HOST_IS_GONE);
    }
    if let Ok(mut has_job) = HAS_JOB.lock()
        && let Some(mut parent) = has_job.as_ref()
        && parent.write_all(b"j").is_ok()
    {
        // The other end stays open until this process ends.
        core::mem::forget(has_job.take());
    }
    response
}
