//! The last resort: when V8 is about to end the process, its thread sleeps for ever instead.
//!
//! V8 cannot go on after it ran out of memory in the wrong place, and its thread cannot be unwound, for there are frames of C++ on it.
//! But no other thread needs what that one holds: isolates share nothing. So the job that caused it fails, the guests beside it
//! run again elsewhere, and the thread and its heaps are lost. Limits stop nearly all guests long before that.

use std::cell::RefCell;
use std::ffi::c_char;
use std::sync::{Arc, Once};

use deno_core::v8;

use crate::worker::Worker;

thread_local! {
    static WORKER: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

/// Has V8 ask here before it ends the process.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| v8::V8::set_fatal_error_handler(fatal));
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
fn fatal(a: &str, b: i32, c: &str) {
    eprintln!("FATAL {a}:{b} {c}");
    sleep_for_ever();
}

/// On a V8 thread, never comes back.
fn sleep_for_ever() {
    let worker = WORKER.with_borrow(Clone::clone);
    if let Some(worker) = worker {
        worker.die();
        loop {
            std::thread::park();
        }
    }
}
