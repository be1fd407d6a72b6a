//! The files that a job has left: all places where it could write are emptied.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::sys::statvfs::{Statvfs, fstatvfs};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, geteuid, unlinkat};

use crate::holds_by;

/// Filesystems of the kernel in which an unprivileged process leaves nothing, and `devpts`, whose
/// terminals are gone with the processes that opened them.
const OF_THE_KERNEL: [&str; 6] = ["proc", "sysfs", "cgroup", "cgroup2", "devpts", "securityfs"];

/// Filesystems in memory, which are emptied after a job.
const IN_MEMORY: [&str; 2] = ["tmpfs", "mqueue"];

/// The directories where a job can write.
pub(crate) struct Places(Vec<Place>);

struct Place {
    path: String,
    directory: OwnedFd,
    /// What is in it before the first job: mount points of the engine.
    kept: Vec<CString>,
    /// What is free while it is empty: blocks and inodes.
    free: (u64, u64),
}

impl Places {
    /// Finds the directories where this user can write. Errors if one of them is on a disk, because
    /// what a job leaves there may be seen from elsewhere.
    pub(crate) fn find() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| format!("cannot read /proc/self/mountinfo: {error}"))?;
        let mut places = Self(Vec::new());
        for mount in mounts.lines().filter_map(Mount::parse) {
            let is_directory = Path::new(&mount.path).is_dir();
            if !mount.is_writable || OF_THE_KERNEL.contains(&mount.kind) {
                continue;
            }
            if IN_MEMORY.contains(&mount.kind) && is_directory {
                places.add(&mount.path)?;
            } else if is_directory || !is_device(&mount.path) && can_write(&mount.path) {
                return Err(format!("{} can be written and is not in memory", mount.path));
            }
        }
        Ok(places)
    }

    /// Adds `path` and the directories in it where this user can write. There are some levels at
    /// most, because nothing has run in the container yet.
    fn add(&mut self, path: &str) -> Result<(), String> {
        let problem = |error: Errno| format!("cannot open {path}: {error}");
        if can_write(path) {
            let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            let directory = open(path, flags, Mode::empty()).map_err(problem)?;
            let free = free(&directory).map_err(problem)?;
            let kept = names(directory.as_fd()).map_err(problem)?;
            self.0.push(Place { path: path.to_owned(), directory, kept, free });
        }
        // One that cannot be listed is the engine's.
        let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
        for entry in entries.flatten() {
            let path = entry.path();
            let (Ok(metadata), Some(name)) = (entry.metadata(), path.to_str()) else { continue };
            let kind = metadata.file_type();
            if is_mount_point(&path) || kind.is_symlink() || kind.is_char_device() {
                continue;
            }
            // Its content or mode could be changed, and not only be added to.
            if metadata.uid() == geteuid().as_raw() || !kind.is_dir() && can_write(name) {
                return Err(format!("{name} can be changed"));
            }
            if kind.is_dir() {
                self.add(name)?;
            }
        }
        Ok(())
    }

    /// Removes everything in these directories. Errors if something is left at the deadline.
    pub(crate) fn empty(&self, deadline: Instant) -> Result<(), String> {
        for place in &self.0 {
            let path = &place.path;
            let problem = |error| format!("cannot empty {path}: {error}");
            if !empty(place.directory.as_fd(), &place.kept, deadline).map_err(problem)? {
                return Err(format!("something in {path} is gone"));
            }
            // The kernel frees the files of processes that were just killed a little later.
            if !holds_by(deadline, || Ok(free(&place.directory) == Ok(place.free)))? {
                return Err(format!("space in {path} is in use though it is empty"));
            }
        }
        Ok(())
    }
}

/// A line of `/proc/self/mountinfo`; see `proc_pid_mountinfo(5)`.
struct Mount<'a> {
    path: String,
    kind: &'a str,
    is_writable: bool,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (first, second) = line.split_once(" - ")?;
        let mut first = first.split(' ').skip(4);
        let (path, options) = (first.next()?, first.next()?);
        let mut second = second.split(' ');
        let (kind, own_options) = (second.next()?, second.nth(1)?);
        let is_writable =
            |options: &str| options.split(',').next().is_some_and(|option| option == "rw");
        // Blanks and the like are written as octal numbers.
        let path = path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        Some(Self { path, kind, is_writable: is_writable(options) && is_writable(own_options) })
    }
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.dev());
    match (device(path), path.parent().map(device)) {
        (Ok(own), Some(Ok(around))) => own != around,
        _ => true,
    }
}

fn is_device(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

fn can_write(path: &str) -> bool {
    faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

fn free(directory: &OwnedFd) -> nix::Result<(u64, u64)> {
    let status: Statvfs = fstatvfs(directory)?;
    Ok((status.blocks_free() as u64, status.files_free() as u64))
}

/// Removes everything but `kept` from a directory. Returns whether that is still there.
///
/// Takes neither stack nor memory for directories in directories: what a directory contains is moved
/// up before it is removed.
fn empty(top: BorrowedFd<'_>, kept: &[CString], deadline: Instant) -> nix::Result<bool> {
    let mut moved: u64 = 0;
    loop {
        let all = names(top)?;
        let left: Vec<_> = all.iter().filter(|name| !kept.contains(name)).collect();
        if left.is_empty() {
            return Ok(all == kept);
        }
        for name in left {
            if Instant::now() >= deadline {
                return Err(Errno::ETIME);
            }
            if remove_file(top, name)? {
                continue;
            }
            let directory = enter(top, name)?;
            for inner in names(directory.as_fd())? {
                if remove_file(directory.as_fd(), &inner)? {
                    continue;
                }
                // A directory that cannot be written cannot be moved.
                drop(enter(directory.as_fd(), &inner)?);
                move_up(&directory, &inner, top, &mut moved, deadline)?;
            }
            // If there were more names than are listed at once, the next round removes them.
            match unlinkat(top, name.as_c_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOTEMPTY) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns the first names in a directory, in order.
fn names(directory: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    const AT_ONCE: usize = 256;
    let mut opened =
        Dir::openat(directory, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in opened.iter() {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() == AT_ONCE {
            break;
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a file. Returns false if it is a directory.
fn remove_file(directory: BorrowedFd<'_>, name: &CStr) -> nix::Result<bool> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR | Errno::EPERM) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a directory accessible and opens it.
fn enter(around: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    fchmodat(around, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(around, name, flags, Mode::empty())
}

/// Moves a directory to `top`, under a name that is free there.
fn move_up(
    from: &OwnedFd,
    name: &CStr,
    top: BorrowedFd<'_>,
    moved: &mut u64,
    deadline: Instant,
) -> nix::Result<()> {
    loop {
        *moved += 1;
        let free = CString::new(format!("{moved:016x}")).map_err(|_| Errno::EINVAL)?;
        match renameat(from, name, top, free.as_c_str()) {
            Ok(()) => return Ok(()),
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR | Errno::EISDIR)
                if Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
    }
}
