//! The microtask queue of one guest's context.

use std::ptr::NonNull;

use deno_core::v8;

unsafe extern "C" {
    /// The deleting destructor of `v8::internal::MicrotaskQueue`
    /// (`src/execution/microtask-queue.h`).
    #[link_name = "_ZN2v88internal14MicrotaskQueueD0Ev"]
    fn delete_microtask_queue(queue: NonNull<v8::MicrotaskQueue>);
}

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
        unsafe { delete_microtask_queue(self.0) };
    }
}
