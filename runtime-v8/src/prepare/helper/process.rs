//! The helper process: serves requests within limits on its stack, its memory and its CPU time.

#![expect(unsafe_code, reason = "CPU time and exit are foreign functions")]

use std::ffi::c_int;
use std::fs;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::protocol::{Answer, is_readable, receive_request, send};
use super::{EXIT_MEMORY, MEMORY_BYTES, ROLE, STACK_BYTES, TRANSPILER};
use crate::prepare::transpile;

/// How often a busy helper checks its memory use.
const MEMORY_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a helper waits for the next request before it ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves requests if the environment gives this process the role of a helper. Called before `main`.
pub(super) extern "C" fn before_main() {
    if std::env::var_os(ROLE).is_some_and(|role| role == TRANSPILER) {
        serve();
    }
}

/// Serves requests until the input ends or the helper is idle for too long. Never returns.
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
    let stack = usize::try_from(STACK_BYTES).unwrap_or(usize::MAX);
    if std::thread::Builder::new().stack_size(stack).spawn(transpile).is_err() {
        exit(1);
    }
    let mut input = io::stdin().lock();
    // This thread keeps reading while the other one works, to notice when the requesting process
    // has ended.
    let mut busy = false;
    loop {
        let is_asked = is_readable(&input, if busy { MEMORY_CHECK_INTERVAL } else { IDLE_TIMEOUT });
        busy &= ended.try_recv().is_err();
        match is_asked {
            Ok(true) => {}
            Ok(false) if busy && memory("VmRSS:").is_some_and(|bytes| bytes > MEMORY_BYTES) => {
                exit(EXIT_MEMORY)
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

/// Limits the data segment, in case memory grows faster than it is checked, and disables core
/// dumps. Memory that the allocator has already reserved is added to the limit.
fn set_limits() {
    if let Some(reserved) = memory("VmData:") {
        lower(Resource::Data, reserved + STACK_BYTES + MEMORY_BYTES);
    }
    lower(Resource::Core, 0);
}

/// Returns a memory figure of this process in bytes, from `/proc/self/status`
/// (`proc_pid_status(5)`).
fn memory(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// Limits the CPU time, so that the helper ends even if the program can no longer end it.
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
    // If the limit cannot be set, the previous one stays.
    let _ = setrlimit(
        resource,
        Rlimit { current: lower(limit.current), maximum: lower(limit.maximum) },
    );
}

/// Ends the process immediately, without the exit handlers of the embedding program.
fn exit(status: c_int) -> ! {
    // SAFETY: the call ends the process and runs no more of its code.
    unsafe { libc::_exit(status) }
}
