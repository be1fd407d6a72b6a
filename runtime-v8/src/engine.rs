//! V8 itself: started once for the whole process, with the flags that make guests deterministic.

use std::sync::OnceLock;

use deno_core::{JsRuntime, v8};
use manifold_runtime_api::{Error, Result};

/// V8's flags. They are the process's, so they hold for every isolate in it. Part of the host image.
///
/// - Regular expressions are compiled at once: compiled ones run out of their own stack elsewhere than interpreted ones, and an isolate
///   shares them among its guests.
/// - V8's own `Math.pow`, not the C library's of this machine.
/// - Aborting is a signal that `fatal.rs` can catch.
/// - One thread for an isolate: no answer waits for a background thread, and none runs out of memory on its own.
/// - Garbage is collected when the heap is full, and not by a task before that, which costs a twentieth of a fold's time.
/// - A seed, so that `Math.random` begins anew in every context and always alike.
/// - Only compilers whose arithmetic is the interpreter's: the optimizing ones fold `0/0` to another NaN than the processor
///   computes, and a guest could read from the bits of it how often it had been run.
pub(crate) const FLAGS: &str = "--single-threaded --no-incremental-marking --random-seed=1517 --no-turbofan --no-maglev \
     --no-regexp-tier-up --no-use-std-math-pow --no-hard-abort --no-minor-gc-task";

/// The locale of everything that formats.
pub(crate) const LOCALE: &str = "en-US";

/// The time zone of everything that has one.
pub(crate) const TIME_ZONE: &str = "UTC";

unsafe extern "C" {
    /// ICU's own interface (`unicode/ucal.h`), versioned as the ICU that is linked with V8.
    fn ucal_setDefaultTimeZone_77(zone: *const u16, status: *mut i32);
}

/// Starts V8, the first time that it is called.
///
/// # Errors
/// `RuntimeFailed` when ICU does not take the time zone.
pub(crate) fn start() -> Result<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(start_once).clone().map_err(Error::runtime)
}

/// What V8 reserves at once for its C++ objects (`cppgc`'s caged heap), in bytes, and about what else it wants at its start. Where it
/// gets less it ends the process.
#[cfg(unix)]
const ADDRESS_SPACE: usize = (32 << 30) + (2 << 30);

/// Fails where V8 would end the process.
#[cfg(unix)]
fn check_address_space() -> Result<(), String> {
    // SAFETY: it asks for addresses of no memory, wherever there are some, and gives exactly those back.
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
        "V8 needs {} GiB of address space, and this process does not get them; raise the bound (`ulimit -v`), or use wasm",
        ADDRESS_SPACE >> 30
    ))
}

fn start_once() -> Result<(), String> {
    #[cfg(unix)]
    check_address_space()?;
    // The first argument would be the program's name.
    let flags = std::iter::once("manifold").chain(FLAGS.split(' ')).map(str::to_owned).collect();
    let unknown = v8::V8::set_flags_from_command_line(flags);
    if unknown.len() > 1 {
        return Err(format!("V8 does not know the flags {}", unknown[1..].join(" ")));
    }
    // Protected code pages belong to the thread that starts V8 and those that it starts. Ours may be started by any.
    let platform = v8::new_unprotected_default_platform(1, false).make_shared();
    JsRuntime::init_platform(Some(platform));
    v8::icu::set_default_locale(LOCALE);

    let zone: Vec<u16> = TIME_ZONE.encode_utf16().chain([0]).collect();
    let mut status = 0;
    // SAFETY: `zone` is a string of UTF-16 that ends with a zero, and both outlive the call.
    unsafe { ucal_setDefaultTimeZone_77(zone.as_ptr(), &raw mut status) };
    // ICU's warnings are negative and its errors positive.
    if status > 0 {
        Err(format!("ICU does not know the time zone {TIME_ZONE} (status {status})"))
    } else {
        Ok(())
    }
}
