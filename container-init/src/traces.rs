//! Traces of a job outside of processes and files. They cannot be removed without privileges, so they
//! are found, and the container is thrown away.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::holds_by;

/// Files of the kernel that a job may change, and what of them is compared.
const FILES: [(&str, Part); 12] = [
    // Limits, which any process of the user can set for this one, and all jobs inherit.
    ("/proc/self/limits", Part::Whole),
    ("/proc/self/autogroup", Part::Whole),
    ("/proc/self/status", Part::Lines(&STATUS)),
    ("/proc/self/oom_score_adj", Part::Whole),
    // Objects of System V, which outlive processes.
    ("/proc/sysvipc/shm", Part::Whole),
    ("/proc/sysvipc/sem", Part::Whole),
    ("/proc/sysvipc/msg", Part::Whole),
    // Counters, of datagrams that could not be sent, too. Connections leave more, but not without.
    ("/proc/net/dev", Part::Whole),
    ("/proc/net/snmp", Part::Whole),
    ("/proc/net/snmp6", Part::Whole),
    ("/proc/net/netstat", Part::Whole),
    // Labels outlive the sockets that asked for them.
    ("/proc/net/ip6_flowlabel", Part::Whole),
];

/// Lines of `/proc/self/status`: signals that wait, processors and memory to run on, privileges.
const STATUS: [&str; 15] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapEff",
    "CapBnd",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed_list",
    "Mems_allowed_list",
];

enum Part {
    Whole,
    /// The lines with these names.
    Lines(&'static [&'static str]),
}

/// The files, and what they contain before the first job.
pub(crate) struct Traces {
    files: Vec<Trace>,
    scheduling: Scheduling,
    io_priority: i64,
    sockets: Sockets,
}

struct Trace {
    path: &'static str,
    part: &'static Part,
    /// Stays open. It is read from its beginning each time, as the kernel then writes it again.
    file: File,
    before: String,
}

impl Traces {
    pub(crate) fn read() -> Result<Self, String> {
        let mut files = Vec::new();
        for (path, part) in &FILES {
            let problem = |error: io::Error| format!("cannot read {path}: {error}");
            match File::open(path) {
                Ok(file) => {
                    let before = part.of(&read(&file).map_err(problem)?);
                    files.push(Trace { path, part, file, before });
                }
                // A kernel need not have all of them.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(problem(error)),
            }
        }
        let sockets = Sockets::open()?;
        Ok(Self { files, scheduling: scheduling(), io_priority: io_priority(), sockets })
    }

    /// Errors with the first difference, at the deadline with one that the kernel may still remove.
    pub(crate) fn compare(&self, deadline: Instant) -> Result<(), String> {
        self.sockets.wait(deadline)?;
        for Trace { path, part, file, before } in &self.files {
            let now = read(file).map_err(|error| format!("cannot read {path}: {error}"))?;
            let now = part.of(&now);
            if now != *before {
                let changed = before.lines().zip(now.lines()).find(|(before, now)| before != now);
                let (before, now) = changed.unwrap_or((before, &now));
                return Err(format!("{path} has changed from {before:?} to {now:?}"));
            }
        }
        if self.scheduling != scheduling() {
            return Err("how the init is scheduled has changed".to_owned());
        }
        if self.io_priority != io_priority() {
            return Err("the priority of input and output has changed".to_owned());
        }
        Ok(())
    }
}

/// Reads a file of the kernel, with few system calls.
fn read(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; 8192];
    let mut length = 0;
    loop {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
    }
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Part {
    /// Returns this part of a text.
    fn of(&self, text: &str) -> String {
        match self {
            Self::Whole => text.to_owned(),
            Self::Lines(names) => {
                let is_named = |line: &&str| {
                    line.split_once(':').is_some_and(|(name, _)| names.contains(&name))
                };
                text.lines().filter(is_named).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// The unix sockets of the container. One whose descriptor was sent to itself is collected by the
/// kernel some time after its process has ended, and so are the files that were sent with it.
struct Sockets {
    file: File,
    count: usize,
}

impl Sockets {
    fn open() -> Result<Self, String> {
        let problem = |error: io::Error| format!("cannot read /proc/net/unix: {error}");
        let file = File::open("/proc/net/unix").map_err(problem)?;
        let count = read(&file).map_err(problem)?.lines().count();
        Ok(Self { file, count })
    }

    /// Waits until there are as many as before the first job.
    fn wait(&self, deadline: Instant) -> Result<(), String> {
        let are_gone = || {
            let now = read(&self.file).map_err(|error| format!("cannot list sockets: {error}"))?;
            Ok(now.lines().count() == self.count)
        };
        if holds_by(deadline, are_gone)? { Ok(()) } else { Err("a socket is left".to_owned()) }
    }
}

/// All that the kernel says about the scheduling of this process: policy, priorities, flags, time
/// slice, and bounds for the frequency; see `sched_setattr(2)`.
type Scheduling = [u8; 128];

#[expect(unsafe_code, reason = "no library has this system call")]
fn scheduling() -> Scheduling {
    let mut attributes = [0; size_of::<Scheduling>()];
    // SAFETY: the kernel writes at most as many bytes as it is told.
    unsafe {
        let (process, flags) = (0, 0);
        let length = attributes.len() as libc::c_uint;
        libc::syscall(libc::SYS_sched_getattr, process, attributes.as_mut_ptr(), length, flags);
    }
    attributes
}

#[expect(unsafe_code, reason = "no library has this system call")]
fn io_priority() -> i64 {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the call takes two numbers and changes nothing.
    unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) }
}

/// Returns how many processes the kernel has killed because the container's memory was used up, as
/// far as it says so.
pub(crate) fn kills_for_memory() -> u64 {
    const PATHS: [&str; 2] =
        ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];
    let text = PATHS.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
