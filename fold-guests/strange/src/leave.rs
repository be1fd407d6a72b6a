//! Attempts to leave something behind for the next job of a container. Each returns what came of it.
#![expect(unsafe_code, reason = "the attempts are system calls that no library offers")]

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::{mem, ptr};

/// The init of the container.
const INIT: libc::pid_t = 1;

/// Makes the attempt with this name.
pub(crate) fn something(what: &str) -> String {
    let result = match what {
        "nothing" => Ok("nothing".to_owned()),
        "processes" => processes(),
        "forks" => detached("forks").map(|()| "forking".to_owned()),
        "files" => files(),
        "many-files" => many_files(),
        "deep-directories" => deep_directories(),
        "locked-directories" => locked_directories(),
        "full-scratch-space" => full_scratch_space(),
        "open-files" => open_files(),
        "limits" => number(limits()),
        // SAFETY: the call takes numbers.
        "priority" => number(unsafe { libc::setpriority(libc::PRIO_PROCESS, 1, 19) }.into()),
        "policy" => number(policy()),
        "processors" => number(processors()),
        "io-priority" => number(io_priority()),
        "time-slice" => number(time_slice()),
        "autogroup" => write("/proc/self/autogroup", "13"),
        "signals" => signals(),
        "memory-of-init" => memory_of_init(),
        "descriptors-of-init" => descriptors_of_init(),
        "out-of-memory-score" => write("/proc/1/oom_score_adj", "1000"),
        "shared-memory" => number(shared_memory()),
        "semaphores" => number(semaphores()),
        "messages" => number(messages()),
        "posix-messages" => posix_messages(),
        "keys" => number(keys()),
        "connections" => connections(),
        "unroutable" => unroutable(),
        "flow-labels" => number(flow_label()),
        "sockets-in-flight" => sockets_in_flight(),
        "abstract-sockets" => abstract_sockets(),
        "locks" => locks(),
        "terminals" => terminals(),
        "host-name" => number(host_name()),
        "clocks" => number(clocks()),
        "namespaces" => number(namespaces()),
        "mounts" => number(mounts()),
        "root" => write("/left", "left").or_else(|_| write("/dev/left", "left")),
        other => return format!("unknown attempt {other}"),
    };
    result.unwrap_or_else(|error| format!("error: {error}"))
}

fn number(result: i64) -> io::Result<String> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.to_string()) }
}

fn write(path: &str, text: &str) -> io::Result<String> {
    fs::write(path, text).map(|()| "written".to_owned())
}

/// Starts this program with an argument, as a detached process.
fn detached(argument: &str) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: `setsid` can be called between fork and exec.
    unsafe {
        command
            .pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) })
    };
    command.spawn().map(drop)
}

/// Starts a process that has a file open and does not end.
fn keep_open(file: File) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("never-ends").stdin(file).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(drop)
}

/// Forks for ever. The parents end.
pub(crate) fn fork_forever() -> ! {
    loop {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => {}
            -1 => std::thread::yield_now(),
            _ => std::process::exit(0),
        }
    }
}

fn processes() -> io::Result<String> {
    for _ in 0..20 {
        detached("never-ends")?;
    }
    Ok("started".to_owned())
}

fn files() -> io::Result<String> {
    fs::create_dir_all("/tmp/a/b")?;
    for path in ["/tmp/file", "/tmp/.hidden", "/tmp/a/b/file", "/tmp/line\nbreak"] {
        fs::write(path, "left")?;
    }
    symlink("/proc/1", "/tmp/link")?;
    symlink("/tmp", "/tmp/a/link")?;
    fs::hard_link("/tmp/file", "/tmp/a/hard")?;
    drop(UnixListener::bind("/tmp/socket")?);
    let fifo = CString::new("/tmp/fifo")?;
    // SAFETY: the path ends with a zero.
    number(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }.into())?;
    Ok("written".to_owned())
}

fn many_files() -> io::Result<String> {
    fs::create_dir("/tmp/many")?;
    for number in 0..700 {
        fs::write(format!("/tmp/many/{number}"), "left")?;
    }
    Ok("written".to_owned())
}

/// Directories in directories, deeper than a path can be long.
fn deep_directories() -> io::Result<String> {
    fs::create_dir("/tmp/deep")?;
    std::env::set_current_dir("/tmp/deep")?;
    for _ in 0..3000 {
        fs::create_dir("ddd")?;
        std::env::set_current_dir("ddd")?;
    }
    fs::write("file", "left")?;
    Ok("written".to_owned())
}

fn locked_directories() -> io::Result<String> {
    fs::create_dir_all("/tmp/locked/inner")?;
    fs::write("/tmp/locked/inner/file", "left")?;
    for path in ["/tmp/locked/inner/file", "/tmp/locked/inner", "/tmp/locked"] {
        fs::set_permissions(path, Permissions::from_mode(0o000))?;
    }
    Ok("locked".to_owned())
}

fn full_scratch_space() -> io::Result<String> {
    let mut file = File::create("/tmp/full")?;
    while file.write_all(&[7; 1 << 16]).is_ok() {}
    Ok("full".to_owned())
}

/// A file that is open in another process, and has no name any more.
fn open_files() -> io::Result<String> {
    let file = File::create("/tmp/unnamed")?;
    (&file).write_all(&[7; 1 << 20])?;
    fs::remove_file("/tmp/unnamed")?;
    keep_open(file)?;
    Ok("open".to_owned())
}

fn limits() -> i64 {
    let few = libc::rlimit { rlim_cur: 32, rlim_max: 32 };
    // SAFETY: the pointer is to a limit.
    unsafe { libc::prlimit(INIT, libc::RLIMIT_NOFILE, &raw const few, ptr::null_mut()) }.into()
}

fn policy() -> i64 {
    // SAFETY: all numbers are valid for this type, and the pointer is to one.
    unsafe {
        let parameters: libc::sched_param = mem::zeroed();
        libc::sched_setscheduler(INIT, libc::SCHED_IDLE, &raw const parameters).into()
    }
}

fn processors() -> i64 {
    // SAFETY: a set without processors is valid, and the pointer is to one.
    unsafe {
        let mut one: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(0, &mut one);
        libc::sched_setaffinity(INIT, size_of_val(&one), &raw const one).into()
    }
}

/// Sets the time slice of the init's scheduling, which its children inherit.
fn time_slice() -> i64 {
    // SAFETY: the kernel writes and reads as many bytes as it is told. The first field is their
    // number, and the fourth 64-bit field the slice in nanoseconds.
    unsafe {
        let mut attributes = [0_u64; 7];
        let size = size_of_val(&attributes);
        libc::syscall(libc::SYS_sched_getattr, INIT, attributes.as_mut_ptr(), size, 0);
        attributes[3] = 7_654_321;
        libc::syscall(libc::SYS_sched_setattr, INIT, attributes.as_ptr(), 0)
    }
}

fn io_priority() -> i64 {
    const OF_PROCESS: libc::c_int = 1;
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: the call takes numbers.
    unsafe { libc::syscall(libc::SYS_ioprio_set, OF_PROCESS, INIT, IDLE) }
}

fn signals() -> io::Result<String> {
    let mut sent = 0;
    for signal in (1..32).chain([libc::SIGCHLD; 1000]) {
        // SAFETY: the call takes numbers.
        sent += i32::from(unsafe { libc::kill(INIT, signal) } == 0);
    }
    Ok(format!("{sent} sent"))
}

fn memory_of_init() -> io::Result<String> {
    // SAFETY: the call takes numbers and null pointers.
    let traced = unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, INIT, ptr::null_mut::<u8>(), ptr::null_mut::<u8>())
    };
    let traced = number(traced).map_or_else(|error| error.to_string(), |_| "traced".to_owned());
    let mut text = format!("ptrace: {traced}");
    for name in ["mem", "environ", "maps", "auxv", "stack", "syscall"] {
        let read =
            File::open(format!("/proc/1/{name}")).and_then(|mut file| file.read(&mut [0; 16]));
        text += &format!("; {name}: {:?}", read.map_err(|error| error.kind()));
    }
    Ok(text)
}

fn descriptors_of_init() -> io::Result<String> {
    let listed = fs::read_dir("/proc/1/fd").map(Iterator::count).map_err(|error| error.kind());
    let written = fs::write("/proc/1/fd/1", "c\0\0\0\0").map_err(|error| error.kind());
    let entered = fs::read_dir("/proc/1/root").map(Iterator::count).map_err(|error| error.kind());
    Ok(format!("{listed:?} {written:?} {entered:?}"))
}

fn shared_memory() -> i64 {
    // SAFETY: the call takes numbers.
    unsafe { libc::shmget(77, 4096, libc::IPC_CREAT | 0o600) }.into()
}

fn semaphores() -> i64 {
    // SAFETY: the call takes numbers.
    unsafe { libc::semget(77, 1, libc::IPC_CREAT | 0o600) }.into()
}

fn messages() -> i64 {
    // SAFETY: the call takes numbers.
    unsafe { libc::msgget(77, libc::IPC_CREAT | 0o600) }.into()
}

fn posix_messages() -> io::Result<String> {
    let name = CString::new("/left")?;
    // SAFETY: the name ends with a zero, and the attributes may be null.
    let opened = unsafe {
        libc::mq_open(
            name.as_ptr(),
            libc::O_CREAT | libc::O_RDWR,
            0o600,
            ptr::null::<libc::mq_attr>(),
        )
    };
    number(opened.into())
}

fn keys() -> i64 {
    const USER_KEYRING: libc::c_int = -4;
    let (kind, name) = (c"user".as_ptr(), c"left".as_ptr());
    // SAFETY: the strings end with a zero, and the payload has the length that is given.
    unsafe { libc::syscall(libc::SYS_add_key, kind, name, name, 4, USER_KEYRING) }
}

fn connections() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:7777")?;
    let mut near = TcpStream::connect("127.0.0.1:7777")?;
    let (mut far, _) = listener.accept()?;
    near.write_all(b"left")?;
    far.read_exact(&mut [0; 4])?;
    Ok("connected".to_owned())
}

/// Sends datagrams for which there is no route, which is counted.
fn unroutable() -> io::Result<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    for _ in 0..123 {
        let _ = socket.send_to(b"left", "192.0.2.1:9");
    }
    Ok("sent".to_owned())
}

/// Asks for a label of IPv6 that stays for a minute; see `linux/in6.h`.
fn flow_label() -> i64 {
    const IPV6_FLOWLABEL_MGR: libc::c_int = 32;
    #[repr(C)]
    struct Request {
        destination: [u8; 16],
        label: u32,
        action: u8,
        share: u8,
        flags: u16,
        expires: u16,
        linger: u16,
        padding: u32,
    }
    let request = Request {
        destination: *b"\xfdleft by a job..",
        label: 0,
        action: 0,
        share: 255,
        flags: 1,
        expires: 60,
        linger: 60,
        padding: 0,
    };
    // SAFETY: the request has the length that is given.
    unsafe {
        let socket = libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0);
        let length = size_of_val(&request) as libc::socklen_t;
        let level = libc::IPPROTO_IPV6;
        let request = (&raw const request).cast();
        libc::setsockopt(socket, level, IPV6_FLOWLABEL_MGR, request, length).into()
    }
}

/// Sends the descriptors of sockets over those sockets. The kernel's garbage collector frees them
/// later.
fn sockets_in_flight() -> io::Result<String> {
    let name = SocketAddr::from_abstract_name("x".repeat(100))?;
    let listener = UnixListener::bind_addr(&name)?;
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    let descriptors = [listener.as_raw_fd(), near.as_raw_fd(), far.as_raw_fd()];
    // SAFETY: the buffers are as long as the message says, and live until it is sent.
    let sent = unsafe {
        let mut byte = 0_u8;
        let mut piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut control = [0_u64; 8];
        let mut message: libc::msghdr = mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of_val(&descriptors) as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of_val(&descriptors) as u32) as usize;
        ptr::copy_nonoverlapping(
            descriptors.as_ptr().cast::<u8>(),
            libc::CMSG_DATA(header),
            size_of_val(&descriptors),
        );
        libc::sendmsg(near.as_raw_fd(), &raw const message, 0)
    };
    number(sent as i64)
}

fn abstract_sockets() -> io::Result<String> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name("left")?)?;
    let mut command = Command::new("/proc/self/exe");
    let stream = std::os::fd::OwnedFd::from(listener);
    command.arg("never-ends").stdin(Stdio::from(stream)).stdout(Stdio::null()).spawn()?;
    Ok("bound".to_owned())
}

fn locks() -> io::Result<String> {
    let file = File::open("/guest")?;
    // SAFETY: the call takes numbers.
    number(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }.into())?;
    keep_open(file)?;
    Ok("locked".to_owned())
}

fn terminals() -> io::Result<String> {
    let terminal = File::options().read(true).write(true).open("/dev/ptmx")?;
    keep_open(terminal)?;
    Ok("opened".to_owned())
}

fn host_name() -> i64 {
    // SAFETY: the text has the length that is given.
    unsafe { libc::sethostname(c"left".as_ptr(), 4) }.into()
}

fn clocks() -> i64 {
    let time = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: the pointer is to a time.
    unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }.into()
}

fn namespaces() -> i64 {
    // SAFETY: the call takes a number.
    unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into()
}

fn mounts() -> i64 {
    let (kind, place) = (c"tmpfs".as_ptr(), c"/tmp".as_ptr());
    // SAFETY: the strings end with a zero, and the data may be null.
    unsafe { libc::mount(kind, place, kind, 0, ptr::null()) }.into()
}
