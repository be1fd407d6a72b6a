//! A queue of microtasks for the globals of one guest.

use std::ptr::NonNull;

use deno_core::v8;

unsafe extern "C" {
    /// The deleting destructor of `v8::internal::MicrotaskQueue` (`src/execution/microtask-queue.h`).
    #[link_name = "_ZN2v88internal14MicrotaskQueueD0Ev"]
    fn delete_microtask_queue(queue: NonNull<v8::MicrotaskQueue>);
}

/// The queue. The bindings' own owner of it runs its destructor and never frees it: 136 bytes for every guest.
pub(crate) struct Microtasks(NonNull<v8::MicrotaskQueue>);

impl Microtasks {
    /// A queue that is worked on only when V8 is told to.
    pub(crate) fn new(isolate: &mut v8::Isolate) -> Option<Self> {
        NonNull::new(v8::MicrotaskQueue::new(isolate, v8::MicrotasksPolicy::Explicit).into_raw())
            .map(Self)
    }

    /// For V8, which wants it as long as there are globals with it.
    pub(crate) fn as_ptr(&self) -> NonNull<v8::MicrotaskQueue> {
        self.0
    }
}

impl Drop for Microtasks {
    fn drop(&mut self) {
        // SAFETY: `new` got it from V8, which made it with `new`, and nobody else owns it.
        unsafe { delete_microtask_queue(self.0) };
    }
}
