//! How deep guests may nest calls, so that no answer depends on it.
//!
//! V8 throws a `RangeError` when the stack is used up, which guests can catch; and how many calls fit depends on which compiler
//! has come to which function. So V8 gets much more stack than a guest may use. Who reaches beyond his share has left traces
//! on pages that nobody else touches, and is stopped, whatever he made of it. A `RangeError` for want of stack is thus only ever seen
//! by guests that fail, but for calls with millions of arguments, which overflow at once and in every case.

use deno_core::v8;

unsafe extern "C" {
    /// `v8::Isolate::SetStackLimit` (`v8-isolate.h`). V8 forgets what the isolate's parameters say when it starts the isolate.
    #[link_name = "_ZN2v87Isolate13SetStackLimitEm"]
    fn set_stack_limit(isolate: v8::UnsafeRawIsolatePtr, limit: usize);
}

/// A V8 thread's stack, measured from its top.
pub(crate) struct Stack {
    top: usize,
}

/// What a guest may use, in bytes.
pub(crate) const GUEST: usize = 2 << 20;

/// What comes next, and shows whether a guest used more. No function has a larger frame.
const WATCHED: usize = 256 << 10;

/// Where V8 throws.
const V8: usize = GUEST + (6 << 20);

/// What a thread needs in all: V8 and the host's own functions go a little beyond the limit.
pub(crate) const THREAD: usize = V8 + (2 << 20);

impl Stack {
    /// The stack of the running thread, which has to have just begun and to have [`THREAD`] bytes.
    pub(crate) fn of_this_thread() -> Self {
        let here = 0_u8;
        let stack = Self { top: std::ptr::from_ref(&here).addr() };
        stack.watch();
        stack
    }

    /// Tells V8 how much of the stack this isolate may use, which must never leave the thread.
    pub(crate) fn limit(&self, isolate: &v8::Isolate) {
        // SAFETY: the isolate is alive, and the address is within this thread's stack, with room below it.
        unsafe { set_stack_limit(isolate.as_raw_isolate_ptr(), self.top - V8) };
    }

    fn watched(&self) -> *mut libc::c_void {
        let page = 4096;
        std::ptr::with_exposed_provenance_mut((self.top - GUEST - WATCHED) & !(page - 1))
    }

    fn watch(&self) {
        // With huge pages, what is touched far above would count as touched here. Without the call, some would be stopped early.
        #[cfg(target_os = "linux")]
        // SAFETY: the pages belong to this thread's stack, and the advice changes nothing in them.
        unsafe {
            libc::madvise(self.watched(), WATCHED, libc::MADV_NOHUGEPAGE);
        }
        self.forget();
    }

    /// Whether somebody used more than a guest may, since the last [`Stack::forget`].
    pub(crate) fn was_exceeded(&self) -> bool {
        let mut resident = [0; WATCHED / 4096];
        // SAFETY: the pages belong to this thread's stack, and there is a byte for each.
        let known = unsafe { libc::mincore(self.watched(), WATCHED, resident.as_mut_ptr()) };
        known == 0 && resident.iter().any(|page| page & 1 != 0)
    }

    /// Gives back the pages that a guest should not have used.
    pub(crate) fn forget(&self) {
        let start = self.top - V8;
        let start = std::ptr::with_exposed_provenance_mut((start + 4095) & !4095);
        // SAFETY: these pages of this thread's stack lie deeper than any function that is running now, so nothing is kept there.
        unsafe { libc::madvise(start, V8 - GUEST, libc::MADV_DONTNEED) };
    }
}
