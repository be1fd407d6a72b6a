//! A process of its own for work that may end its process: the transpiler recurses as deep as the code is nested, and takes as
//! much memory as the code asks for.
//!
//! The process is this program once more. A function that runs before `main` looks whether the environment gives it the role of
//! a helper; then it serves, and `main` never begins. So a program that embeds the runtime needs neither a second executable nor
//! a call in its `main`.
//!
//! A helper reads requests from its standard input and writes responses to its standard output, one at a time; all numbers are
//! little-endian:
//!
//! | message | fields |
//! |---|---|
//! | request | time for it in seconds (8 bytes), then two texts: the file's path, its content |
//! | response | one byte that says what came of it ([`Answer`]), then two texts |
//!
//! A text is its length in bytes (8 bytes), then its bytes.

use std::ffi::c_int;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::transpile;

/// The call stack of the thread that transpiles, in bytes.
pub(crate) const STACK: u64 = 256 << 20;

/// Memory of a helper, in bytes.
pub(crate) const MEMORY: u64 = 1 << 30;

/// How often a helper that works looks how much memory it has taken.
const WATCH: Duration = Duration::from_millis(20);

/// How a helper ends that has taken too much.
const TOO_MUCH: c_int = 3;

/// How long a helper waits for the next request before it ends.
const IDLE: Duration = Duration::from_secs(60);

const ROLE: &str = "MANIFOLD_HELPER";
const TRANSPILER: &str = "transpiler-1";

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Answer {
    /// The texts are the code and its source map.
    Done = 0,
    /// The first text says what is wrong with the file.
    Refused = 1,
}

/// Why a helper gives no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What is wrong with the file.
    Refused(String),
    /// Its call stack ended.
    Stack,
    /// Its memory ended.
    Memory,
    /// Its time ended.
    Time,
    /// Nobody waits for it any more.
    Abandoned,
    /// It could not be started, or ended for another reason.
    Lost(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Returns a path that this program's file can be started by.
///
/// # Errors
/// What the operating system answers.
fn program() -> io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    if cfg!(target_os = "linux") {
        // The link leads to the program even after its file was replaced or deleted. Under valgrind or qemu it leads to the tool
        // instead: they change what a program reads as its own link, and leave this other name of it alone.
        let is_instrumented =
            fs::read_link("/proc/thread-self/exe").is_ok_and(|link| link != named);
        return Ok(if is_instrumented { named } else { "/proc/self/exe".into() });
    }
    Ok(named)
}

/// A running helper. Dropping it ends it.
pub(crate) struct Helper {
    child: Child,
    requests: ChildStdin,
    responses: ChildStdout,
}

impl Helper {
    /// Starts one.
    ///
    /// # Errors
    /// What the operating system answers.
    pub(crate) fn start() -> io::Result<Self> {
        let mut child = Command::new(program()?)
            .env(ROLE, TRANSPILER)
            // An interrupt at the terminal is for the program. The helper ends when that is gone.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let missing = || io::Error::other("a pipe to it is missing");
        let requests = child.stdin.take().ok_or_else(missing)?;
        let responses = child.stdout.take().ok_or_else(missing)?;
        Ok(Self { child, requests, responses })
    }

    /// Transpiles `text`, the content of the file at `path`. Answers the code and its source map. Blocks.
    ///
    /// # Errors
    /// [`Failure`]. After any but [`Failure::Refused`] the helper is of no more use.
    pub(crate) fn transpile(
        &mut self,
        path: &str,
        text: &str,
        time: Duration,
        abandoned: &AtomicBool,
    ) -> Result<(String, String), Failure> {
        // A time that no clock reaches is none.
        let deadline = Instant::now().checked_add(time);
        let sent =
            send(&mut self.requests, &time.as_secs().saturating_add(1).to_le_bytes(), [path, text]);
        let response = sent.and_then(|()| {
            let mut responses = Patient { responses: &mut self.responses, deadline, abandoned };
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

    fn how_it_ended(&mut self) -> Failure {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => failure(status),
            Err(error) => Failure::Lost(error),
        }
    }

    /// The helper, unless it has ended on its own.
    pub(crate) fn if_alive(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // It has been killed, so this takes no time.
        let _ = self.child.wait();
    }
}

fn failure(status: ExitStatus) -> Failure {
    match status.signal() {
        Some(libc::SIGSEGV | libc::SIGBUS) => Failure::Stack,
        // What cannot be allocated aborts the process.
        Some(libc::SIGABRT) => Failure::Memory,
        Some(libc::SIGXCPU) => Failure::Time,
        None if status.code() == Some(TOO_MUCH) => Failure::Memory,
        _ => Failure::Lost(io::Error::other(format!("it ended with {status}"))),
    }
}

/// Reads until a deadline, or until nobody waits any more.
struct Patient<'a> {
    responses: &'a mut ChildStdout,
    deadline: Option<Instant>,
    abandoned: &'a AtomicBool,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const LOOK: Duration = Duration::from_millis(50);
        loop {
            let left = self
                .deadline
                .map_or(LOOK, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() || self.abandoned.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if is_readable(&self.responses, left.min(LOOK))? {
                return self.responses.read(buffer);
            }
        }
    }
}

/// Waits until there is something to read, or the other side is gone; false when that takes longer than `time`.
fn is_readable(file: &impl AsFd, time: Duration) -> io::Result<bool> {
    let mut waiting = [PollFd::new(file, PollFlags::IN)];
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(&mut waiting, Some(&time)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn send(to: &mut impl Write, head: &[u8], texts: [&str; 2]) -> io::Result<()> {
    let mut message = Vec::with_capacity(head.len() + 16 + texts[0].len() + texts[1].len());
    message.extend_from_slice(head);
    for text in texts {
        message.extend_from_slice(&(text.len() as u64).to_le_bytes());
        message.extend_from_slice(text.as_bytes());
    }
    to.write_all(&message)?;
    to.flush()
}

fn receive_text(from: &mut impl Read) -> io::Result<String> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// What the loader calls before `main`.
#[used]
#[cfg_attr(
    any(target_os = "linux", target_os = "android", target_os = "freebsd"),
    unsafe(link_section = ".init_array")
)]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    if std::env::var_os(ROLE).is_some_and(|role| role == TRANSPILER) {
        serve();
    }
}

/// Serves until nobody asks any more. Never comes back.
fn serve() -> ! {
    set_limits();
    let (requests, inbox) = mpsc::channel::<(String, String)>();
    let (done, ended) = mpsc::channel();
    let transpile = move || {
        for (path, text) in inbox {
            let (answer, texts) = match transpile::transpile(&path, &text) {
                Ok((code, map)) => (Answer::Done, [code, map]),
                Err(problem) => (Answer::Refused, [problem, String::new()]),
            };
            let sent = send(&mut io::stdout().lock(), &[answer as u8], [&texts[0], &texts[1]]);
            if sent.is_err() || done.send(()).is_err() {
                exit(0);
            }
        }
    };
    let stack = usize::try_from(STACK).unwrap_or(usize::MAX);
    if std::thread::Builder::new().stack_size(stack).spawn(transpile).is_err() {
        exit(1);
    }
    let mut input = io::stdin().lock();
    // This thread goes on reading while the other one works, so that it sees when the one who asked has gone.
    let mut busy = false;
    loop {
        let is_asked = is_readable(&input, if busy { WATCH } else { IDLE });
        busy &= ended.try_recv().is_err();
        match is_asked {
            Ok(true) => {}
            Ok(false) if busy && memory("VmRSS:").is_some_and(|bytes| bytes > MEMORY) => {
                exit(TOO_MUCH)
            }
            Ok(false) if busy => continue,
            _ => exit(0),
        }
        let Ok((seconds, path, text)) = receive_request(&mut input) else { exit(0) };
        limit_time(seconds);
        busy = true;
        if requests.send((path, text)).is_err() {
            exit(0);
        }
    }
}

fn receive_request(from: &mut impl Read) -> io::Result<(u64, String, String)> {
    let mut seconds = [0; 8];
    from.read_exact(&mut seconds)?;
    Ok((u64::from_le_bytes(seconds), receive_text(from)?, receive_text(from)?))
}

/// Should memory be taken faster than anybody can look. An allocator may have reserved some already.
fn set_limits() {
    if let Some(reserved) = memory("VmData:") {
        lower(Resource::Data, reserved + STACK + MEMORY);
    }
    lower(Resource::Core, 0);
}

/// What Linux says of this process's memory, in bytes (`proc_pid_status(5)`).
fn memory(what: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix(what))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// So that a helper ends even if nobody is left to end it.
fn limit_time(seconds: u64) {
    // SAFETY: all zeroes is a valid `rusage`, and the call only writes to it.
    let used = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
    };
    let used = u64::try_from(used).unwrap_or_default();
    let limit = getrlimit(Resource::Cpu);
    let bound = used.saturating_add(seconds).saturating_add(1);
    let _ = setrlimit(Resource::Cpu, Rlimit { current: Some(bound), ..limit });
}

fn lower(resource: Resource, bound: u64) {
    let limit = getrlimit(resource);
    let lower = |old: Option<u64>| Some(old.map_or(bound, |old| old.min(bound)));
    // A bound that cannot be set leaves those that there are.
    let _ = setrlimit(
        resource,
        Rlimit { current: lower(limit.current), maximum: lower(limit.maximum) },
    );
}

/// Ends the process at once: what the rest of the program would do at its end is not this process's.
fn exit(status: c_int) -> ! {
    // SAFETY: it ends the process, and runs nothing of it any more.
    unsafe { libc::_exit(status) }
}
