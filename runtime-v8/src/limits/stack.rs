//! The limit on a guest's call stack, enforced so that no outcome depends on the stack depth.
//!
//! V8 throws a `RangeError` when the stack is exhausted. Guests can catch it, and the number of
//! calls that fit depends on which compiler has compiled which function. So V8 gets much more stack
//! than a guest may use. A guest that exceeds its share touches pages that no other code touches.
//! After the turn these pages are found to be resident, and the job fails even if the guest caught
//! the `RangeError`. So only guests that fail see a `RangeError` for lack of stack. The exceptions
//! are calls with millions of arguments, which overflow immediately and in every case.

#![expect(
    unsafe_code,
    reason = "V8's stack limit and the stack's pages are set by foreign functions"
)]

use deno_core::v8;

use crate::symbols;

/// The stack of a V8 thread.
pub(crate) struct Stack {
    /// The address from which stack use is measured, near the start of the stack.
    top: usize,
}

/// The call stack that a guest may use, in bytes.
pub(crate) const GUEST_BYTES: usize = 2 << 20;

/// The size of the watched region below the guest's share, in bytes. It shows whether a guest used
/// more. No function has a larger stack frame.
const WATCHED_BYTES: usize = 256 << 10;

/// The stack depth at which V8 throws a `RangeError`, in bytes.
const V8_BYTES: usize = GUEST_BYTES + (6 << 20);

/// The stack size of a V8 thread, in bytes. V8 and the host's functions use some stack beyond V8's
/// limit.
pub(crate) const THREAD_BYTES: usize = V8_BYTES + (2 << 20);

impl Stack {
    /// Returns the stack of the current thread, which must have just started with [`THREAD_BYTES`]
    /// bytes of stack.
    pub(crate) fn of_this_thread() -> Self {
        let here = 0_u8;
        let stack = Self { top: std::ptr::from_ref(&here).addr() };
        stack.watch();
        stack
    }

    /// Sets V8's stack limit for an isolate, which must never leave this thread. V8 discards the
    /// limit in the isolate's parameters when it starts the isolate.
    pub(crate) fn limit(&self, isolate: &v8::Isolate) {
        // SAFETY: the isolate is alive, and the address is within this thread's stack, with room
        // below it.
        unsafe { symbols::set_stack_limit(isolate.as_raw_isolate_ptr(), self.top - V8_BYTES) };
    }

    /// Returns the start of the watched pages.
    fn watched(&self) -> *mut libc::c_void {
        let page = 4096;
        std::ptr::with_exposed_provenance_mut(
            (self.top - GUEST_BYTES - WATCHED_BYTES) & !(page - 1),
        )
    }

    /// Prepares the watched pages.
    fn watch(&self) {
        // A huge page would become resident here when the guest touches its part far above. If this
        // call fails, some guests are stopped early.
        #[cfg(target_os = "linux")]
        // SAFETY: the pages belong to this thread's stack, and the advice does not change their
        // contents.
        unsafe {
            libc::madvise(self.watched(), WATCHED_BYTES, libc::MADV_NOHUGEPAGE);
        }
        self.forget();
    }

    /// Returns whether a guest used more stack than allowed since the last [`Stack::forget`].
    pub(crate) fn was_exceeded(&self) -> bool {
        let mut resident = [0; WATCHED_BYTES / 4096];
        // SAFETY: the pages belong to this thread's stack, and `resident` has a byte for each.
        let known = unsafe { libc::mincore(self.watched(), WATCHED_BYTES, resident.as_mut_ptr()) };
        known == 0 && resident.iter().any(|page| page & 1 != 0)
    }

    /// Releases the pages below the guest's share.
    pub(crate) fn forget(&self) {
        let start = self.top - V8_BYTES;
        let start = std::ptr::with_exposed_provenance_mut((start + 4095) & !4095);
        // SAFETY: these pages of this thread's stack are deeper than every active stack frame, so
        // they hold no live data.
        unsafe { libc::madvise(start, V8_BYTES - GUEST_BYTES, libc::MADV_DONTNEED) };
    }
}
