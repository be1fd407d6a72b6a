//! The last resort: when V8 is about to end the process, its thread sleeps for ever instead.
//!
//! V8 cannot go on after it ran out of memory in the wrong place, and its thread cannot be unwound, for there are frames of C++ on it.
//! But no other thread needs what that one holds: isolates share nothing. So the job that caused it fails, the guests beside it
//! run again elsewhere, and the thread and its heaps are lost. Limits stop nearly all guests long before that.

use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::sync::{Arc, Once, OnceLock};

use deno_core::v8;

use crate::worker::Worker;

thread_local! {
    static WORKER: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

/// What aborting did before, for threads that are none of ours.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Has V8 ask here before it ends the process.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        v8::V8::set_fatal_error_handler(fatal);
        // Where V8 finds that an object would be larger than any can be, it asks nobody and calls `abort`.
        // SAFETY: both structures are valid, all zeroes is a valid `sigaction`, and `aborting` does what it does on the thread that
        // called `abort`, so it interrupts nothing.
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
    sleep_for_ever();
    // Not one of our threads: back to what was before. `abort` raises the signal again, and another sender's must not be lost.
    if let Some(before) = BEFORE.get() {
        // SAFETY: it is the action that was installed before.
        unsafe {
            libc::sigaction(signal, before, std::ptr::null_mut());
            libc::raise(signal);
        }
    }
}

/// Says which V8 thread the running one is.
pub(crate) fn this_thread_is(worker: &Arc<Worker>) {
    WORKER.with_borrow_mut(|current| *current = Some(Arc::clone(worker)));
}

/// V8 ran out of memory.
pub(crate) unsafe extern "C" fn out_of_memory(_: *const c_char, _: &v8::OomDetails) {
    sleep_for_ever();
}

/// A check of V8's own failed.
fn fatal(_: &str, _: i32, _: &str) {
    sleep_for_ever();
}

/// On a V8 thread, never comes back.
fn sleep_for_ever() {
    let worker =
        WORKER.try_with(|worker| worker.try_borrow().ok().and_then(|worker| worker.clone()));
    if let Ok(Some(worker)) = worker {
        worker.die();
        loop {
            std::thread::park();
        }
    }
}
