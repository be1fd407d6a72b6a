//! Everything that a job can reach, as text. Two jobs that see the same have the same text.
//!
//! Left out is what differs between any two containers or jobs: process ids, inode numbers, times,
//! the kernel's random numbers, the ids of mounts and the places of the engine behind them, and what
//! the kernel counts for the container as a whole (`/sys/fs/cgroup`).
#![expect(unsafe_code, reason = "some of it only system calls tell")]

use std::ffi::CString;
use std::fmt::Write;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub(crate) fn everything() -> String {
    let mut text = String::new();
    section(
        &mut text,
        "environment",
        sorted(std::env::vars().map(|(name, value)| format!("{name}={value}"))),
    );
    section(&mut text, "arguments", std::env::args().collect::<Vec<_>>().join(" "));
    section(&mut text, "directory", format!("{:?}", std::env::current_dir()));
    // SAFETY: the calls take numbers, and change nothing but the mask, which is set back.
    unsafe {
        let mask = libc::umask(0);
        libc::umask(mask);
        section(&mut text, "mask", format!("{mask:o}"));
        section(&mut text, "priority", libc::getpriority(libc::PRIO_PROCESS, 0).to_string());
        section(&mut text, "policy", libc::sched_getscheduler(0).to_string());
        for process in [0, 1] {
            let mut attributes = [0_u64; 8];
            let size = size_of_val(&attributes);
            libc::syscall(libc::SYS_sched_getattr, process, attributes.as_mut_ptr(), size, 0);
            section(&mut text, "scheduling", format!("{attributes:?}"));
        }
        section(&mut text, "io priority", libc::syscall(libc::SYS_ioprio_get, 1, 0).to_string());
        section(&mut text, "session", format!("{}", libc::getsid(0)));
        section(&mut text, "slack", libc::prctl(libc::PR_GET_TIMERSLACK).to_string());
        section(&mut text, "dumpable", libc::prctl(libc::PR_GET_DUMPABLE).to_string());
        section(&mut text, "personality", libc::personality(0xffff_ffff).to_string());
        section(
            &mut text,
            "shared memory",
            libc::shmget(78, 4096, libc::IPC_CREAT | 0o600).to_string(),
        );
    }
    for process in ["self", "1"] {
        section(&mut text, process, status(process));
        for name in
            ["limits", "cmdline", "comm", "oom_score_adj", "cgroup", "loginuid", "timens_offsets"]
        {
            section(
                &mut text,
                &format!("{process} {name}"),
                read(&format!("/proc/{process}/{name}")),
            );
        }
        // The group's number is the machine's.
        let group = read(&format!("/proc/{process}/autogroup"));
        section(&mut text, "autogroup", group.split_once(" nice").unwrap_or_default().1);
        section(
            &mut text,
            &format!("{process} environ"),
            read_length(&format!("/proc/{process}/environ")),
        );
    }
    section(&mut text, "descriptors", descriptors());
    section(&mut text, "processes", processes());
    section(&mut text, "mounts", mounts());
    for path in [
        "/proc/sysvipc/shm",
        "/proc/sysvipc/sem",
        "/proc/sysvipc/msg",
        "/proc/net/dev",
        "/proc/net/snmp",
        "/proc/net/snmp6",
        "/proc/net/netstat",
        "/proc/net/ip6_flowlabel",
        "/proc/net/tcp",
        "/proc/net/tcp6",
        "/proc/net/udp",
        "/proc/net/raw",
        "/proc/net/packet",
        "/proc/net/route",
        "/proc/net/arp",
        "/proc/net/if_inet6",
        "/proc/net/igmp",
        "/proc/keys",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/domainname",
        "/proc/sys/kernel/shmmni",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    ] {
        section(&mut text, path, read(path));
    }
    section(&mut text, "sockets", sockets());
    section(&mut text, "lock", lock());
    for path in ["/tmp", "/dev/shm", "/run", "/var/tmp"] {
        section(&mut text, &format!("space in {path}"), space(path));
    }
    let mut files = String::new();
    list(Path::new("/sys/fs/cgroup"), &mut files);
    list(Path::new("/"), &mut files);
    section(&mut text, "files", files);
    text
}

fn section(text: &mut String, name: &str, content: impl AsRef<str>) {
    let _ = writeln!(text, "== {name}\n{}", content.as_ref().trim_end());
}

fn sorted(lines: impl Iterator<Item = String>) -> String {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.join("\n")
}

fn read(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).replace('\0', " "),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn read_length(path: &str) -> String {
    fs::read(path)
        .map_or_else(|error| format!("{:?}", error.kind()), |bytes| bytes.len().to_string())
}

/// What `/proc/…/status` says, without ids of processes, memory and counts.
fn status(process: &str) -> String {
    const LEFT_OUT: [&str; 8] = ["Pid", "Tgid", "PPid", "NSp", "NSt", "NSs", "Vm", "Rss"];
    let text = read(&format!("/proc/{process}/status"));
    let kept = text.lines().filter(|line| {
        let is_count = line.contains("ctxt_switches") || line.starts_with("Hugetlb");
        !is_count
            && !line.starts_with("State")
            && !LEFT_OUT.iter().any(|name| line.starts_with(name))
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// The open descriptors and what they are.
fn descriptors() -> String {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return "none".to_owned() };
    sorted(entries.flatten().map(|entry| {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        // The number of a pipe or socket is an inode number. The directory that is listed here is
        // open, too.
        let kind = target.split('[').next().unwrap_or_default();
        let kind = if kind.starts_with("/proc/") { "this list" } else { kind };
        format!("{:?} {kind}", entry.file_name())
    }))
}

/// The processes of the container, by name.
fn processes() -> String {
    let Ok(entries) = fs::read_dir("/proc") else { return "none".to_owned() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = numbers.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    sorted(numbers.map(|number| read(&format!("/proc/{number}/comm")).trim_end().to_owned()))
}

/// The mounts, without their numbers, and without the engine's places behind them.
fn mounts() -> String {
    let text = read("/proc/self/mountinfo");
    let lines = text.lines().filter_map(|line| {
        let (first, second) = line.split_once(" - ")?;
        let mut first = first.split(' ').skip(4);
        let (path, options) = (first.next()?, first.next()?);
        let mut second = second.split(' ');
        let (kind, _source, own) = (second.next()?, second.next()?, second.next()?);
        let own = if kind == "overlay" { "" } else { own };
        Some(format!("{path} {options} {kind} {own}"))
    });
    sorted(lines)
}

/// The sockets of the network namespace, without their addresses in memory and inode numbers.
fn sockets() -> String {
    let text = read("/proc/net/unix");
    sorted(text.lines().skip(1).map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (references, state) = (fields.next(), fields.nth(3));
        format!("{references:?} {state:?} {:?}", fields.nth(1))
    }))
}

/// Whether a file of the image can be locked.
fn lock() -> String {
    let Ok(file) = fs::File::open("/guest") else { return "no file".to_owned() };
    format!("{:?}", file.try_lock().map_err(|error| error.to_string()))
}

fn space(path: &str) -> String {
    let Ok(name) = CString::new(path) else { return String::new() };
    let mut space = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and the space is read only if it was written.
    unsafe {
        if libc::statvfs(name.as_ptr(), space.as_mut_ptr()) != 0 {
            return std::io::Error::last_os_error().kind().to_string();
        }
        let space = space.assume_init();
        // On the disk it is the machine's.
        match Path::new(path).metadata().ok().map(|one| one.dev())
            == Path::new("/").metadata().ok().map(|root| root.dev())
        {
            true => "on the root file system".to_owned(),
            false => {
                format!("{} {} {} {}", space.f_blocks, space.f_bfree, space.f_files, space.f_ffree)
            }
        }
    }
}

/// All files but those of the kernel.
fn list(directory: &Path, text: &mut String) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let _ = writeln!(text, "{}: {:?}", directory.display(), error.kind());
            return;
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let (mode, uid, gid) = (metadata.permissions().mode(), metadata.uid(), metadata.gid());
        // The kernel counts processes as links of `/proc`.
        let (size, links) =
            if metadata.is_file() { (metadata.len(), metadata.nlink()) } else { (0, 0) };
        let _ = writeln!(text, "{} {mode:o} {uid} {gid} {size} {links}", path.display());
        let is_of_the_kernel = path == Path::new("/proc") || path == Path::new("/sys");
        if metadata.is_dir() && !is_of_the_kernel {
            list(&path, text);
        }
    }
}
