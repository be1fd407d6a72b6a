//! Traces of a job outside of processes and files. They cannot be removed without privileges, so they
//! are found, and the container is thrown away.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Files of the kernel that a job may change, and what of them is compared.
const FILES: [(&str, Part); 8] = [
    // Limits, which any process of the user can set for this one, and all jobs inherit.
    ("/proc/self/limits", Part::Whole),
    ("/proc/self/stat", Part::Scheduling),
    ("/proc/self/status", Part::Lines(&STATUS)),
    ("/proc/self/oom_score_adj", Part::Whole),
    // Objects of System V, which outlive processes.
    ("/proc/sysvipc/shm", Part::Whole),
    ("/proc/sysvipc/sem", Part::Whole),
    ("/proc/sysvipc/msg", Part::Whole),
    // Counters of the loopback device. Connections leave more than that, but not without it.
    ("/proc/net/dev", Part::Whole),
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
    /// Priority, niceness, real-time priority and policy; see `proc_pid_stat(5)`.
    Scheduling,
    /// The lines with these names.
    Lines(&'static [&'static str]),
}

/// The files, and what they contain before the first job.
pub(crate) struct Traces {
    files: Vec<Trace>,
    io_priority: i64,
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
        Ok(Self { files, io_priority: io_priority() })
    }

    /// Errors with the first difference.
    pub(crate) fn compare(&self) -> Result<(), String> {
        for Trace { path, part, file, before } in &self.files {
            let now = read(file).map_err(|error| format!("cannot read {path}: {error}"))?;
            let now = part.of(&now);
            if now != *before {
                let changed = before.lines().zip(now.lines()).find(|(before, now)| before != now);
                let (before, now) = changed.unwrap_or((before, &now));
                return Err(format!("{path} has changed from {before:?} to {now:?}"));
            }
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
            Self::Scheduling => {
                // The name of the program, which is in parentheses, can contain anything.
                let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
                // The first of them is the third field of the file.
                let numbers =
                    [18, 19, 40, 41].map(|number| fields.split_whitespace().nth(number - 3));
                numbers.map(Option::unwrap_or_default).join(" ")
            }
            Self::Lines(names) => {
                let is_named = |line: &&str| {
                    line.split_once(':').is_some_and(|(name, _)| names.contains(&name))
                };
                text.lines().filter(is_named).collect::<Vec<_>>().join("\n")
            }
        }
    }
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
