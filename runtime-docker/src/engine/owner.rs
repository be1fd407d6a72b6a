//! The process that owns a container, as a label. It tells containers that a crashed process has
//! left from those that a live one uses.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Label that names the process that owns a container.
pub(super) const LABEL: &str = "io.manifold.owner";

/// Identity of a process, as recorded in the owner label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Boot id of the machine and the PID namespace; empty if unknown.
    location: String,
    pid: u32,
    /// Start time of the process, in the kernel's clock ticks. It distinguishes processes with a
    /// reused PID.
    started: String,
}

impl Owner {
    pub(crate) fn this_process() -> Self {
        let pid = std::process::id();
        Self { location: location(), pid, started: started(pid).unwrap_or_default() }
    }

    /// Returns the value of the owner label.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}/{}", self.location, self.pid, self.started)
    }

    /// Returns the part of a container name that is unique to this process.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.pid, self.started)
    }

    /// Returns whether a label names a process of this machine that has ended. Returns false if
    /// that cannot be determined.
    pub(crate) fn is_orphan(label: &str) -> bool {
        let mut parts = label.rsplitn(3, '/');
        let (Some(owner_started), Some(pid), Some(owner_location)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let Ok(pid) = pid.parse() else { return false };
        let here = location();
        // An unknown location identifies no machine, so no process can be known to have ended.
        !here.is_empty()
            && owner_location == here
            && match started(pid) {
                Some(started) => started != owner_started,
                None => is_unused(pid),
            }
    }
}

fn location() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default();
    if boot.is_empty() || space.is_empty() {
        String::new()
    } else {
        format!("{} {space}", boot.trim())
    }
}

/// Returns the start time of a process if it exists: field 22 of `/proc/<pid>/stat`. Fields are
/// counted from behind the process name, which may contain any characters.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Returns whether no process has this PID. Unlike `/proc`, which may be hidden from other users,
/// `kill` can tell.
fn is_unused(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ended_process_of_this_machine_is_an_orphan() {
        let me = Owner::this_process();
        assert!(!Owner::is_orphan(&me.label()));
        assert!(Owner::is_orphan(&Owner { started: "1".to_owned(), ..me.clone() }.label()));
        assert!(Owner::is_orphan(&Owner { pid: u32::MAX, ..me.clone() }.label()));
        assert!(!Owner::is_orphan(
            &Owner { location: "another machine".to_owned(), pid: u32::MAX, ..me }.label()
        ));
        assert!(!Owner::is_orphan("no label of ours") && !Owner::is_orphan(""));
    }
}
