//! Deterministic stubs of `wasi_snapshot_preview1`, for guests whose toolchain needs it.
//!
//! - All clocks share one counter. It starts at a fixed time and advances by a fixed step whenever
//!   the guest reads a clock, so a guest that polls for a point in time reaches it.
//! - Random bytes are 0x42. There are no files, environment variables or arguments.
//! - Standard input is empty. Standard output and standard error go to the log.
//! - `proc_exit` ends the job.
//! - `poll_oneoff` returns immediately: every clock it waits for has expired, and the guest's
//!   clocks have advanced by the time waited for.
//! - The remaining functions for files, sockets and signals return `ENOSYS`.
//!
//! Names and types follow the WASI preview 1 witx files, with all 46 functions.

use wasmtime::{Caller, Engine, FuncType, Linker, Val, ValType};

use crate::guest_state::GuestState;
use crate::imports::{count_work, slice};

const MODULE: &str = "wasi_snapshot_preview1";

/// Start of the realtime clock: 2000-01-01, in nanoseconds since 1970.
const REALTIME_START: u64 = 946_684_800_000_000_000;
/// Start of every other clock, in nanoseconds. Not 0, because some programs take 0 for a broken
/// clock.
const OTHER_CLOCKS_START: u64 = 1_000_000_000;
/// How far a reading advances the clocks, in nanoseconds.
const CLOCK_STEP: u64 = 1_000_000;

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const INVAL: u32 = 28;
const NOSYS: u32 = 52;
const SPIPE: u32 = 70;

/// The guest called `proc_exit` with this status.
#[derive(Debug, thiserror::Error)]
#[error("the guest exited with status {0}")]
pub(crate) struct Exit(pub(crate) u32);

type Guest<'a> = Caller<'a, GuestState>;

/// Adds all functions of the module to `linker`.
pub(crate) fn link(linker: &mut Linker<GuestState>, engine: &Engine) -> wasmtime::Result<()> {
    for sizes in ["args_sizes_get", "environ_sizes_get"] {
        linker.func_wrap(MODULE, sizes, |mut guest: Guest<'_>, count: u32, bytes: u32| {
            write(&mut guest, count, &0u32.to_le_bytes())?;
            write(&mut guest, bytes, &0u32.to_le_bytes())
        })?;
    }
    for get in ["args_get", "environ_get"] {
        linker.func_wrap(MODULE, get, |_: u32, _: u32| SUCCESS)?;
    }
    linker.func_wrap(
        MODULE,
        "clock_time_get",
        |mut guest: Guest<'_>, clock: u32, _precision: u64, time: u32| match read_clock(
            &mut guest, clock,
        ) {
            Some(now) => write(&mut guest, time, &now.to_le_bytes()),
            None => Ok(INVAL),
        },
    )?;
    linker.func_wrap(
        MODULE,
        "clock_res_get",
        |mut guest: Guest<'_>, clock: u32, resolution: u32| {
            if clock <= LAST_CLOCK {
                write(&mut guest, resolution, &CLOCK_STEP.to_le_bytes())
            } else {
                Ok(INVAL)
            }
        },
    )?;
    linker.func_wrap(MODULE, "poll_oneoff", poll_oneoff)?;
    linker.func_wrap(MODULE, "random_get", |mut guest: Guest<'_>, buffer: u32, length: u32| {
        count_work(&mut guest, length as usize)?;
        slice(&mut guest, "random_get", buffer, length as usize)?.fill(0x42);
        wasmtime::Result::Ok(SUCCESS)
    })?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(
        MODULE,
        "fd_read",
        |mut guest: Guest<'_>, fd: u32, _vectors: u32, _count: u32, read: u32| {
            if fd == 0 { write(&mut guest, read, &0u32.to_le_bytes()) } else { Ok(BADF) }
        },
    )?;
    linker.func_wrap(MODULE, "fd_fdstat_get", |mut guest: Guest<'_>, fd: u32, stat: u32| {
        const CHARACTER_DEVICE: u8 = 2;
        let mut fdstat = [0; 24];
        fdstat[0] = CHARACTER_DEVICE;
        if fd <= 2 { write(&mut guest, stat, &fdstat) } else { Ok(BADF) }
    })?;
    linker.func_wrap(
        MODULE,
        "fd_seek",
        |fd: u32, _: i64, _: u32, _: u32| if fd <= 2 { SPIPE } else { BADF },
    )?;
    linker.func_wrap(MODULE, "fd_close", |fd: u32| if fd <= 2 { SUCCESS } else { BADF })?;
    linker.func_wrap(MODULE, "fd_prestat_get", |_: u32, _: u32| BADF)?;
    linker.func_wrap(MODULE, "fd_prestat_dir_name", |_: u32, _: u32, _: u32| BADF)?;
    linker.func_wrap(MODULE, "sched_yield", || SUCCESS)?;
    linker.func_wrap(MODULE, "proc_exit", |status: u32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Exit(status)))
    })?;
    for (name, parameters) in UNSUPPORTED {
        let parameters = parameters
            .chars()
            .map(|letter| if letter == 'I' { ValType::I64 } else { ValType::I32 });
        let signature = FuncType::new(engine, parameters, [ValType::I32]);
        linker.func_new(MODULE, name, signature, |_, _, results| {
            results[0] = Val::I32(NOSYS as i32);
            Ok(())
        })?;
    }
    Ok(())
}

/// Functions for files, sockets and signals, which return `ENOSYS`, with their parameters: `i` is
/// an `i32`, `I` an `i64`.
const UNSUPPORTED: [(&str, &str); 29] = [
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_datasync", "i"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_pwrite", "iiiIi"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("proc_raise", "i"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// `CLOCK_THREAD_CPUTIME_ID`, the highest of the four clock ids.
const LAST_CLOCK: u32 = 3;

/// Advances the clocks by one step and returns the time of `clock`; `None` if there is no such
/// clock.
fn read_clock(guest: &mut Guest<'_>, clock: u32) -> Option<u64> {
    let start = start(clock)?;
    let passed = guest.data().clock.saturating_add(CLOCK_STEP);
    guest.data_mut().clock = passed;
    Some(start.saturating_add(passed))
}

fn start(clock: u32) -> Option<u64> {
    match clock {
        0 => Some(REALTIME_START),
        1..=LAST_CLOCK => Some(OTHER_CLOCKS_START),
        _ => None,
    }
}

/// Maximum number of subscriptions in one `poll_oneoff`; more than programs wait for at once.
const MAX_SUBSCRIPTIONS: u32 = 1024;

/// Reports every subscription as ready without waiting: clocks advance to the latest time waited
/// for, and the three standard streams can be read and written. No other event exists that could
/// make a guest wait.
fn poll_oneoff(
    mut guest: Guest<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    ready: u32,
) -> wasmtime::Result<u32> {
    const SUBSCRIPTION: usize = 48;
    const EVENT: usize = 32;
    const CLOCK: u8 = 0;
    const ABSOLUTE: u16 = 1;
    if count == 0 || count > MAX_SUBSCRIPTIONS {
        return Ok(INVAL);
    }
    count_work(&mut guest, count as usize * (SUBSCRIPTION + EVENT))?;
    let wanted =
        slice(&mut guest, "poll_oneoff", subscriptions, count as usize * SUBSCRIPTION)?.to_vec();
    let mut fired = Vec::new();
    let mut latest = guest.data().clock;
    for subscription in wanted.chunks_exact(SUBSCRIPTION) {
        // Reads a little-endian integer of `length` bytes.
        let number = |at: usize, length: usize| {
            subscription[at..at + length]
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let (kind, which) = (subscription[8], number(16, 4) as u32);
        let error = match kind {
            CLOCK => match start(which) {
                Some(start) => {
                    let (time, flags) = (number(24, 8), number(40, 2) as u16);
                    let now = guest.data().clock;
                    let expiry = if flags & ABSOLUTE == 0 {
                        now.saturating_add(time)
                    } else {
                        time.saturating_sub(start)
                    };
                    latest = latest.max(expiry);
                    SUCCESS
                }
                None => INVAL,
            },
            _ if which <= 2 => SUCCESS,
            _ => BADF,
        };
        let mut event = [0; EVENT];
        event[..8].copy_from_slice(&subscription[..8]);
        event[8..10].copy_from_slice(&(error as u16).to_le_bytes());
        event[10] = kind;
        fired.extend_from_slice(&event);
    }
    guest.data_mut().clock = latest;
    slice(&mut guest, "poll_oneoff", events, fired.len())?.copy_from_slice(&fired);
    write(&mut guest, ready, &count.to_le_bytes())
}

fn write(guest: &mut Guest<'_>, pointer: u32, bytes: &[u8]) -> wasmtime::Result<u32> {
    slice(guest, "wasi", pointer, bytes.len())?.copy_from_slice(bytes);
    Ok(SUCCESS)
}

/// Maximum number of vectors in one `fd_write`; more than any C library passes at once.
const MAX_VECTORS: u32 = 1024;

fn fd_write(
    mut guest: Guest<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    written: u32,
) -> wasmtime::Result<u32> {
    if fd != 1 && fd != 2 {
        return Ok(BADF);
    }
    if count > MAX_VECTORS {
        return Ok(INVAL);
    }
    let vectors = slice(&mut guest, "fd_write", vectors, count as usize * 8)?.to_vec();
    let room = usize::try_from(guest.data().log_bytes_left).unwrap_or(usize::MAX);
    let mut text = Vec::new();
    let mut total = 0u32;
    for vector in vectors.chunks_exact(8) {
        let word = |at: usize| {
            u32::from_le_bytes([vector[at], vector[at + 1], vector[at + 2], vector[at + 3]])
        };
        let (pointer, length) = (word(0), word(4));
        count_work(&mut guest, (length as usize).min(room - text.len()))?;
        let bytes = slice(&mut guest, "fd_write", pointer, length as usize)?;
        // The vectors may overlap, so their total length may far exceed the size of the guest's
        // memory.
        text.extend_from_slice(&bytes[..bytes.len().min(room - text.len())]);
        total = total.saturating_add(length);
    }
    let state = guest.data_mut();
    state.log_bytes_left -= text.len() as u64;
    state.written[usize::from(fd == 2)].extend_from_slice(&text);
    let searched = state.written.iter().map(Vec::len).sum();
    count_work(&mut guest, searched)?;
    guest.data_mut().log_written(false);
    write(&mut guest, written, &total.to_le_bytes())
}
