//! The microtask queue of one guest's context.

#![expect(unsafe_code, reason = "owns memory of V8")]

use std::ptr::NonNull;

use deno_core::v8;

use crate::job::{Current, with};
use crate::symbols;

/// An owned microtask queue. The owner type of the bindings runs the destructor without freeing the
/// memory, which leaks 136 bytes for each guest.
pub(crate) struct Microtasks(NonNull<v8::MicrotaskQueue>);

impl Microtasks {
    /// Creates a queue that V8 runs only on request.
    pub(crate) fn new(isolate: &mut v8::Isolate) -> Option<Self> {
        NonNull::new(v8::MicrotaskQueue::new(isolate, v8::MicrotasksPolicy::Explicit).into_raw())
            .map(Self)
    }

    /// Returns the pointer for V8. The queue must outlive every context that uses it.
    pub(crate) fn as_ptr(&self) -> NonNull<v8::MicrotaskQueue> {
        self.0
    }
}

impl Drop for Microtasks {
    fn drop(&mut self) {
        // SAFETY: V8 allocated the queue with `new`, and this value is its only owner.
        unsafe { symbols::delete_microtask_queue(self.0) };
    }
}

/// Runs the microtasks of the guest that has the turn.
pub(super) fn run_microtasks(scope: &mut v8::PinScope<'_, '_>, current: &Current) {
    if let Some(queue) =
        with(current, |resident| resident.microtasks.as_ref().map(Microtasks::as_ptr)).flatten()
    {
        // SAFETY: the frame owns the queue, and is not dropped while it has the turn.
        unsafe { queue.as_ref() }.perform_checkpoint(scope);
    }
}
