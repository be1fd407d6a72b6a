//! Which process a container belongs to, so that what a crashed one left can be told from what a living one uses.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// This process, or the one that a label names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The machine since it was booted, and the process name space.
    place: String,
    pid: u32,
    /// When the process began, in the kernel's ticks: a number may be given out again.
    began: String,
}

impl Owner {
    pub(crate) fn this_process() -> Self {
        let pid = std::process::id();
        Self { place: place(), pid, began: began(pid).unwrap_or_default() }
    }

    /// The label's value.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}/{}", self.place, self.pid, self.began)
    }

    /// What its containers' names have in common, and no others.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.pid, self.began)
    }

    /// Whether a label names a process of this machine that is no more. What cannot be told is none.
    pub(crate) fn is_orphan(label: &str) -> bool {
        let mut parts = label.rsplitn(3, '/');
        let (Some(owner_began), Some(pid), Some(owner_place)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let Ok(pid) = pid.parse() else { return false };
        let here = place();
        // Where the kernel does not tell, nobody is known to be gone.
        !here.is_empty()
            && owner_place == here
            && match began(pid) {
                Some(began) => began != owner_began,
                None => is_nobody(pid),
            }
    }
}

fn place() -> String {
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

/// When a process began, if it is there: field 22 of its `stat`, counted after the name, which may hold anything.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Whether there is no such process, whoever may look into it.
fn is_nobody(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_and_a_stranger_are_no_orphans() {
        let me = Owner::this_process();
        assert!(!Owner::is_orphan(&me.label()));
        assert!(Owner::is_orphan(&Owner { began: "1".to_owned(), ..me.clone() }.label()));
        assert!(Owner::is_orphan(&Owner { pid: u32::MAX, ..me.clone() }.label()));
        assert!(!Owner::is_orphan(
            &Owner { place: "another machine".to_owned(), pid: u32::MAX, ..me }.label()
        ));
        assert!(!Owner::is_orphan("no label of ours") && !Owner::is_orphan(""));
    }
}
