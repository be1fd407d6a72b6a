//! The processes of a job: their ends, and killing what is left of them.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::SIGCHLD;

/// Keeps other processes of the same user from reading this one's memory, descriptors and
/// environment, from tracing it, and from ending it.
pub(crate) fn shield() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    // The kernel drops signals from within the container for which its first process has no handler.
    // The standard library has handlers for these two.
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        #[expect(unsafe_code, reason = "signals are set up with unsafe functions")]
        // SAFETY: no handler is installed that could do what handlers must not.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// The children of this process: those that it starts, and as the first process of its container
/// all that have lost their parent.
pub(crate) struct Children {
    /// Readable when a child has ended. A handler writes to the other end.
    ends: PipeReader,
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited(u8),
    Killed(u8),
}

/// What [`wait_for_any`] found.
enum Waited {
    Ended(Pid, End),
    None { some_are_left: bool },
}

/// Collects a child that has ended, if there is one.
///
/// Not that of a library: it has no names for real-time signals, by which a job can end, too.
#[expect(unsafe_code, reason = "the libraries' functions fail for some signals")]
fn wait_for_any() -> Waited {
    loop {
        let mut status = 0;
        // SAFETY: the status is a number that the kernel writes.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
        match pid {
            0 => return Waited::None { some_are_left: true },
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Waited::None { some_are_left: false },
            pid if libc::WIFSIGNALED(status) => {
                let signal = libc::WTERMSIG(status) as u8;
                return Waited::Ended(Pid::from_raw(pid), End::Killed(signal));
            }
            pid => {
                let status = libc::WEXITSTATUS(status) as u8;
                return Waited::Ended(Pid::from_raw(pid), End::Exited(status));
            }
        }
    }
}

impl Children {
    pub(crate) fn new() -> io::Result<Self> {
        let (ends, handler) = io::pipe()?;
        fcntl(&ends, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // No signal is blocked or ignored instead, because a job would inherit that.
        signal_hook::low_level::pipe::register(SIGCHLD, handler)?;
        Ok(Self { ends })
    }

    /// Returns what becomes readable when a child has ended.
    pub(crate) fn ends(&self) -> BorrowedFd<'_> {
        self.ends.as_fd()
    }

    /// Collects all children that have ended. Returns how `child` has, if it is among them.
    pub(crate) fn collect(&self, child: Pid) -> Option<End> {
        self.collect_all(child).0
    }

    /// Like [`Children::collect`]. Returns also whether there are other children.
    fn collect_all(&self, child: Pid) -> (Option<End>, bool) {
        // The bytes say only that there is something to collect.
        while (&self.ends).read(&mut [0; 64]).is_ok_and(|bytes| bytes == 64) {}
        let mut end = None;
        loop {
            match wait_for_any() {
                Waited::Ended(pid, found) if pid == child => end = Some(found),
                Waited::Ended(..) => {}
                Waited::None { some_are_left } => return (end, some_are_left),
            }
        }
    }

    /// Kills all processes of the container but this one, and waits until they are gone. Errors if
    /// one is left at the deadline.
    pub(crate) fn kill_all(&self, deadline: Instant) -> Result<(), String> {
        loop {
            // A process that is killed cannot start another, and no process is added while the
            // kernel goes through them. So once is enough, but for one that the engine starts.
            match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                // No process is left, not even a zombie.
                Err(Errno::ESRCH) => return Ok(()),
                Ok(()) => {}
                Err(error) => return Err(format!("cannot kill the processes of a job: {error}")),
            }
            let (_, some_are_left) = self.collect_all(Pid::from_raw(0));
            if Instant::now() >= deadline {
                return Err("a process of a job does not end".to_owned());
            }
            if some_are_left {
                let mut ends = [PollFd::new(self.ends(), PollFlags::POLLIN)];
                let _ = poll(&mut ends, PollTimeout::from(1_u8));
            }
        }
    }
}
