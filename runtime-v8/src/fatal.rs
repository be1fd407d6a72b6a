//! Handlers for fatal errors of V8: instead of ending the process, they park the V8 thread forever.
//!
//! V8 cannot continue after some allocation failures, and the thread cannot be unwound, because
//! there are C++ frames on its stack. But isolates share nothing, so no other thread needs anything
//! that this one holds. The job that caused the error fails, the other guests of the thread run
//! again on another one, and the thread and its heaps are lost. Limits stop nearly all guests long
//! before that.

#![expect(unsafe_code, reason = "V8's failures arrive in C callbacks and as a signal")]

use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::sync::{Arc, Once, OnceLock};

use deno_core::v8;

use crate::worker::Worker;

thread_local! {
    static WORKER: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

/// The previous `SIGABRT` action, for threads other than V8 threads.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handlers. Later calls do nothing.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        v8::V8::set_fatal_error_handler(fatal);
        // If an object would exceed the maximum size, V8 calls `abort` without calling the fatal
        // error handler.
        // SAFETY: both structures are valid, all zeroes is a valid `sigaction`, and `aborting` runs
        // on the thread that called `abort`, so it interrupts no other code.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = aborting as extern "C" fn(c_int) as usize;
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGABRT, std::ptr::null(), &raw mut before) == 0
                && BEFORE.set(before).is_ok()
            {
                libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut());
            }
        }
    });
}

extern "C" fn aborting(signal: c_int) {
    park_forever();
    // Not a V8 thread: restore the previous action and raise the signal again. `abort` would do so
    // itself, but a signal of another sender must not be lost.
    if let Some(before) = BEFORE.get() {
        // SAFETY: this is the action that was installed before.
        unsafe {
            libc::sigaction(signal, before, std::ptr::null_mut());
            libc::raise(signal);
        }
    }
}

/// Registers the current thread as the V8 thread of `worker`.
pub(crate) fn register_thread(worker: &Arc<Worker>) {
    WORKER.with_borrow_mut(|current| *current = Some(Arc::clone(worker)));
}

/// V8's handler for running out of memory.
pub(crate) unsafe extern "C" fn out_of_memory(_: *const c_char, _: &v8::OomDetails) {
    park_forever();
}

/// V8's handler for failed internal checks.
fn fatal(_: &str, _: i32, _: &str) {
    park_forever();
}

/// Gives the thread up and parks it forever if it is a V8 thread. Returns on other threads.
fn park_forever() {
    let worker =
        WORKER.try_with(|worker| worker.try_borrow().ok().and_then(|worker| worker.clone()));
    if let Ok(Some(worker)) = worker {
        worker.die();
        loop {
            std::thread::park();
        }
    }
}
