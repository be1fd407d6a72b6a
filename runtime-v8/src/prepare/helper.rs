//! A helper process for the transpiler, which recurses as deep as the code is nested, takes as much
//! memory as the code requires, and may end its process.
//!
//! The process runs the same executable as the current one. A function that runs before `main`
//! checks whether an environment variable requests the role of a helper. If so, it serves requests,
//! and `main` never begins. So a program that embeds the runtime needs neither a second executable
//! nor a call in its `main`.
//!
//! This file is the side of the program that requests. [`process`] is the side of the helper, and
//! [`protocol`] the messages between them.

mod process;
mod protocol;

use std::ffi::c_int;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::{Answer, is_readable, receive_text, send};

/// The call stack of the thread that transpiles, in bytes.
pub(crate) const STACK_BYTES: u64 = 256 << 20;

/// The memory limit of a helper, in bytes.
pub(crate) const MEMORY_BYTES: u64 = 1 << 30;

/// The exit status of a helper that exceeded its memory limit.
const EXIT_MEMORY: c_int = 3;

/// The environment variable that gives a process its role.
const ROLE: &str = "MANIFOLD_HELPER";
/// The value of [`ROLE`] for a transpiler. The number is the version of the protocol.
const TRANSPILER: &str = "transpiler-1";

/// The reason why a helper returns no code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The file has an error, described by this text.
    Refused(String),
    /// The helper exceeded its call stack.
    Stack,
    /// The helper exceeded its memory limit.
    Memory,
    /// The helper exceeded its time limit.
    Time,
    /// The caller no longer waits.
    Abandoned,
    /// The helper could not be started, or ended for another reason.
    Lost(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Returns a path from which this program's executable can be started.
///
/// # Errors
/// Returns an error if the operating system does not report the path.
fn program() -> io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    if cfg!(target_os = "linux") {
        // `/proc/self/exe` refers to the program even after its file was replaced or deleted. Under
        // valgrind or qemu it refers to the tool instead. These tools change what a program reads
        // from `/proc/self/exe`, but not from its other name, `/proc/thread-self/exe`.
        let is_instrumented =
            fs::read_link("/proc/thread-self/exe").is_ok_and(|link| link != named);
        return Ok(if is_instrumented { named } else { "/proc/self/exe".into() });
    }
    Ok(named)
}

/// A running helper. Dropping this value ends the process.
pub(crate) struct Helper {
    child: Child,
    /// A socket and not a pipe: a write to a socket whose reader has ended fails without the signal
    /// SIGPIPE, which ends a program that does not ignore it. Programs whose `main` is not Rust's
    /// usually do not.
    requests: UnixStream,
    responses: ChildStdout,
}

impl Helper {
    /// Starts a helper.
    ///
    /// # Errors
    /// Returns an error if the process cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (requests, inbox) = UnixStream::pair()?;
        let mut child = Command::new(program()?)
            .env(ROLE, TRANSPILER)
            // An interrupt at the terminal must reach only the program. The helper ends when the
            // program has ended.
            .process_group(0)
            .stdin(OwnedFd::from(inbox))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let responses = child.stdout.take();
        let responses =
            responses.ok_or_else(|| io::Error::other("the pipe from the helper is missing"))?;
        Ok(Self { child, requests, responses })
    }

    /// Transpiles `text`, the content of the file at `path`. Returns the code and its source map.
    /// Blocks.
    ///
    /// # Errors
    /// See [`Failure`]. After any failure except [`Failure::Refused`], the helper must not be used
    /// again.
    pub(crate) fn transpile(
        &mut self,
        path: &str,
        text: &str,
        time: Duration,
        abandoned: &AtomicBool,
    ) -> Result<(String, String), Failure> {
        // A time that overflows the clock means no deadline.
        let deadline = Instant::now().checked_add(time);
        let sent =
            send(&mut self.requests, &time.as_secs().saturating_add(1).to_le_bytes(), [path, text]);
        let response = sent.and_then(|()| {
            let mut responses =
                DeadlineReader { responses: &mut self.responses, deadline, abandoned };
            let mut answer = [0];
            responses.read_exact(&mut answer)?;
            Ok((answer[0], receive_text(&mut responses)?, receive_text(&mut responses)?))
        });
        match response {
            Ok((done, code, map)) if done == Answer::Done as u8 => Ok((code, map)),
            Ok((_, problem, _)) => Err(Failure::Refused(problem)),
            Err(_) if abandoned.load(Ordering::Relaxed) => Err(Failure::Abandoned),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Failure::Time),
            Err(_) => Err(self.how_it_ended()),
        }
    }

    /// Ends the helper and returns the failure that its exit status indicates.
    fn how_it_ended(&mut self) -> Failure {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => failure(status),
            Err(error) => Failure::Lost(error),
        }
    }

    /// Returns the helper, or `None` if it has ended.
    pub(crate) fn if_alive(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // The process has been killed, so this does not block for long.
        let _ = self.child.wait();
    }
}

fn failure(status: ExitStatus) -> Failure {
    match status.signal() {
        Some(libc::SIGSEGV | libc::SIGBUS) => Failure::Stack,
        // A failed allocation aborts the process.
        Some(libc::SIGABRT) => Failure::Memory,
        Some(libc::SIGXCPU) => Failure::Time,
        None if status.code() == Some(EXIT_MEMORY) => Failure::Memory,
        _ => Failure::Lost(io::Error::other(format!("the helper ended with {status}"))),
    }
}

/// Reads responses until a deadline, or until the caller no longer waits.
struct DeadlineReader<'a> {
    responses: &'a mut ChildStdout,
    deadline: Option<Instant>,
    abandoned: &'a AtomicBool,
}

impl Read for DeadlineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const POLL_INTERVAL: Duration = Duration::from_millis(50);
        loop {
            let left = self.deadline.map_or(POLL_INTERVAL, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() || self.abandoned.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if is_readable(&self.responses, left.min(POLL_INTERVAL))? {
                return self.responses.read(buffer);
            }
        }
    }
}

/// A constructor that the loader calls before `main`.
#[expect(unsafe_code, reason = "the loader finds the function by its link section")]
#[used]
#[cfg_attr(
    any(target_os = "linux", target_os = "android", target_os = "freebsd"),
    unsafe(link_section = ".init_array")
)]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static BEFORE_MAIN: extern "C" fn() = process::before_main;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "sets the disposition of a signal")]
    fn a_write_to_a_helper_that_has_ended_is_an_error_and_no_signal() {
        // SAFETY: this changes the disposition of a signal and installs no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let mut helper = Helper::start().unwrap();
        helper.child.kill().unwrap();
        helper.child.wait().unwrap();
        // More than a socket's buffer takes, so that the write meets the closed end in any case.
        let text = "x".repeat(4 << 20);
        let result =
            helper.transpile("main.ts", &text, Duration::from_secs(10), &AtomicBool::new(false));
        assert!(matches!(result, Err(Failure::Lost(_))), "{result:?}");
    }
}
