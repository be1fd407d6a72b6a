//! One job: the program of the image, and its streams.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::frame::{FromHost, Host, MAX_CONTENT, ToHost};
use crate::processes::{Children, End};
use crate::traces::kills_for_memory;

/// The time in which all processes of a program that has ended have to be gone.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a job until the host says that it is over. Processes of it may still run. Returns false if
/// the host has closed the connection.
///
/// # Errors
/// The error of the connection.
pub(crate) fn run(command: &[OsString], children: &Children, host: &mut Host) -> io::Result<bool> {
    let kills = kills_for_memory();
    let mut job = match Job::start(command) {
        Ok(job) => job,
        // The machine is short of something. The host tries again in another container.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) => {
            return Err(error);
        }
        Err(error) => {
            host.send(ToHost::CannotStart, error.to_string().as_bytes())?;
            return wait_for_end(host);
        }
    };
    let mut buffer = vec![0; MAX_CONTENT];
    loop {
        let ready = job.wait(children, host)?;
        if ready.output {
            pass(&mut job.output, ToHost::Output, host, &mut buffer)?;
        }
        if ready.diagnostics {
            pass(&mut job.diagnostics, ToHost::Diagnostics, host, &mut buffer)?;
        }
        if ready.host {
            match host.receive()? {
                None => return Ok(false),
                Some((FromHost::End, _)) => return Ok(true),
                Some((FromHost::Input, bytes)) => job.unwritten.extend_from_slice(bytes),
                Some((FromHost::Start, _)) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        if ready.child
            && let Some(end) = children.collect(job.process)
        {
            // What they have written is passed on. If one is left, that may have no end.
            if children.kill_all(Instant::now() + END_PATIENCE).is_ok() {
                while pass(&mut job.output, ToHost::Output, host, &mut buffer)? {}
                while pass(&mut job.diagnostics, ToHost::Diagnostics, host, &mut buffer)? {}
            }
            let (killed, status) = match end {
                End::Exited(status) => (0, status),
                End::Killed(signal) => (1, signal),
            };
            let out_of_memory = u8::from(kills_for_memory() > kills);
            host.send(ToHost::Ended, &[killed, out_of_memory, status])?;
            return wait_for_end(host);
        }
    }
}

/// Waits until the host says that the job is over. Returns false if it has closed the connection.
fn wait_for_end(host: &mut Host) -> io::Result<bool> {
    loop {
        match host.receive()? {
            None => return Ok(false),
            Some((FromHost::End, _)) => return Ok(true),
            // Input that the job does not read any more.
            Some(_) => {}
        }
    }
}

/// Passes on what can be read. Sets the stream to `None` at its end. Returns whether there may be more.
///
/// The guest can read its own output, and so take what `poll` has seen.
fn pass(
    stream: &mut Option<File>,
    kind: ToHost,
    host: &mut Host,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let Some(open) = stream else { return Ok(false) };
    match open.read(buffer) {
        Ok(length @ 1..) => {
            host.send(kind, &buffer[..length])?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Ok(_) | Err(_) => {
            *stream = None;
            Ok(false)
        }
    }
}

/// What there is to do for a job.
#[derive(Default)]
struct Ready {
    host: bool,
    output: bool,
    diagnostics: bool,
    child: bool,
}

struct Job {
    process: Pid,
    input: Option<File>,
    output: Option<File>,
    diagnostics: Option<File>,
    /// Input that the program has not taken yet.
    unwritten: Vec<u8>,
}

impl Job {
    fn start(command: &[OsString]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let process = Pid::from_raw(child.id() as i32);
        Ok(Self {
            process,
            input: child.stdin.map(unblocked).transpose()?,
            output: child.stdout.map(unblocked).transpose()?,
            diagnostics: child.stderr.map(unblocked).transpose()?,
            unwritten: Vec::new(),
        })
    }

    /// Waits until there is something to do. While the program does not take its input, the host's
    /// frames wait.
    fn wait(&mut self, children: &Children, host: &Host) -> io::Result<Ready> {
        self.write();
        let blocked = self.input.as_ref().filter(|_| !self.unwritten.is_empty());
        let mut descriptors = [
            match blocked {
                Some(input) => PollFd::new(input.as_fd(), PollFlags::POLLOUT),
                None => readable(None, children),
            },
            match blocked {
                // Only whether the host has closed the connection.
                Some(_) => PollFd::new(host.input(), PollFlags::empty()),
                None => PollFd::new(host.input(), PollFlags::POLLIN),
            },
            readable(self.output.as_ref(), children),
            readable(self.diagnostics.as_ref(), children),
            PollFd::new(children.ends(), PollFlags::POLLIN),
        ];
        while let Err(error) = poll(&mut descriptors, PollTimeout::NONE) {
            if error != Errno::EINTR {
                return Err(error.into());
            }
        }
        let [_, host, output, diagnostics, child] =
            descriptors.map(|descriptor| descriptor.any().unwrap_or(false));
        if host && blocked.is_some() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Ready { host, output, diagnostics, child })
    }

    /// Gives the program as much of its input as it takes.
    fn write(&mut self) {
        while let (Some(input), false) = (&mut self.input, self.unwritten.is_empty()) {
            match input.write(&self.unwritten) {
                Ok(length) => drop(self.unwritten.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The program reads no more.
                Err(_) => self.input = None,
            }
        }
        if self.input.is_none() {
            self.unwritten.clear();
        }
    }
}

/// Returns the end of a pipe, which never blocks from now on.
fn unblocked(end: impl Into<OwnedFd>) -> io::Result<File> {
    let end = end.into();
    fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(File::from(end))
}

/// Waits for a stream to become readable, or if it has ended, for nothing.
fn readable<'a>(stream: Option<&'a File>, children: &'a Children) -> PollFd<'a> {
    match stream {
        Some(stream) => PollFd::new(stream.as_fd(), PollFlags::POLLIN),
        None => PollFd::new(children.ends(), PollFlags::empty()),
    }
}
