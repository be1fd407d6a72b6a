//! Starts V8 once for the whole process, with the flags that make guests deterministic.

#![expect(
    unsafe_code,
    reason = "ICU's time zone is set, and address space is reserved, by foreign functions"
)]

use std::sync::OnceLock;

use deno_core::{JsRuntime, v8};
use manifold_runtime_api::{Error, Result};

use crate::symbols;

/// V8's flags. They apply to every isolate of the process. Part of the host image.
///
/// - Regular expressions are compiled immediately: compiled ones exhaust their stack at another
///   depth than interpreted ones, and guests of an isolate share them.
/// - `Math.pow` is V8's own, not that of the machine's C library.
/// - Aborting raises a signal that `fatal.rs` can catch.
/// - An isolate uses one thread: no result waits for a background thread, and no background thread
///   runs out of memory.
/// - Garbage is collected when the heap is full. A task that collects earlier would cost a
///   twentieth of a fold's time.
/// - The seed is fixed, so `Math.random` returns the same sequence in every context.
/// - Only compilers with the interpreter's arithmetic are enabled: the optimizing ones fold `0/0`
///   to another NaN than the processor computes, so a guest could read from the NaN's bits how
///   often a function had been called.
pub(crate) const FLAGS: &str = "--single-threaded --no-incremental-marking --random-seed=1517 \
     --no-turbofan --no-maglev --no-regexp-tier-up --no-use-std-math-pow --no-hard-abort \
     --no-minor-gc-task";

/// The default locale of formatting and comparison. Part of the host image.
pub(crate) const LOCALE: &str = "en-US";

/// The default time zone. Part of the host image.
pub(crate) const TIME_ZONE: &str = "UTC";

/// Starts V8 on the first call. Later calls return the result of the first.
///
/// # Errors
/// `RuntimeFailed` if there is too little address space, if V8 rejects a flag, or if ICU rejects
/// the time zone.
pub(crate) fn start() -> Result<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(start_once).clone().map_err(Error::runtime)
}

/// The address space that V8 needs to start, in bytes: 32 GiB that it reserves for its C++ objects
/// (`cppgc`'s caged heap), and about 2 GiB for the rest. If it cannot reserve them, V8 ends the
/// process.
#[cfg(unix)]
const ADDRESS_SPACE: usize = (32 << 30) + (2 << 30);

/// Errors if V8 would end the process for lack of address space.
#[cfg(unix)]
fn check_address_space() -> Result<(), String> {
    // SAFETY: this reserves inaccessible pages at an address that the system chooses, and releases
    // exactly those.
    let is_there = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let reserved =
            libc::mmap(std::ptr::null_mut(), ADDRESS_SPACE, libc::PROT_NONE, flags, -1, 0);
        reserved != libc::MAP_FAILED && libc::munmap(reserved, ADDRESS_SPACE) == 0
    };
    if is_there {
        return Ok(());
    }
    Err(format!(
        "V8 needs {} GiB of address space, which this process cannot reserve; raise the limit \
         (`ulimit -v`), or use wasm",
        ADDRESS_SPACE >> 30
    ))
}

fn start_once() -> Result<(), String> {
    #[cfg(unix)]
    check_address_space()?;
    // V8 skips the first argument, which is the program's name.
    let flags = std::iter::once("manifold").chain(FLAGS.split(' ')).map(str::to_owned).collect();
    let unknown = v8::V8::set_flags_from_command_line(flags);
    if unknown.len() > 1 {
        return Err(format!("V8 does not recognize the flags {}", unknown[1..].join(" ")));
    }
    // Only the thread that starts V8 and its descendants can access protected code pages. The V8
    // threads of a runtime may be started by any thread.
    let platform = v8::new_unprotected_default_platform(1, false).make_shared();
    JsRuntime::init_platform(Some(platform));
    v8::icu::set_default_locale(LOCALE);

    let zone: Vec<u16> = TIME_ZONE.encode_utf16().chain([0]).collect();
    let mut status = 0;
    // SAFETY: `zone` is a UTF-16 string that ends with a zero, and both arguments outlive the call.
    unsafe { symbols::set_default_time_zone(zone.as_ptr(), &raw mut status) };
    // ICU's warnings are negative, its errors positive.
    if status > 0 {
        Err(format!("ICU does not recognize the time zone {TIME_ZONE} (status {status})"))
    } else {
        Ok(())
    }
}
