//! Fiber stacks for the heap engine, as many as memory allows.
//!
//! A protected guard page splits the mapping that contains it. A process may have some 65,000
//! mappings, which limits it to about 30,000 such stacks. A guard region (`MADV_GUARD_INSTALL` in
//! madvise(2), Linux 6.13 and later) also faults on access but does not split the mapping, so many
//! stacks share one. If the kernel does not support guard regions, wasmtime's own stacks are used.
#![expect(unsafe_code, reason = "maps, guards and discards memory for fiber stacks")]

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use parking_lot::Mutex;
use wasmtime::{Config, StackCreator, StackMemory};

/// `MADV_GUARD_INSTALL` of the kernel's `mman-common.h`.
const MADV_GUARD_INSTALL: libc::c_int = 102;
/// Number of stacks in one mapping.
const STACKS_PER_MAPPING: usize = 64;

/// Makes `config` use stacks with guard regions, of `size` bytes each, if the kernel supports them.
pub(crate) fn use_guard_regions(config: &mut Config, size: usize) {
    let Ok(page) = page_size() else { return };
    let stacks = Stacks { page, size: size.next_multiple_of(page), free: Arc::default() };
    if stacks.map().is_ok() {
        config.with_host_stack(Arc::new(stacks));
    }
}

/// Allocates fiber stacks with guard regions and reuses them.
struct Stacks {
    /// Page size in bytes, which is also the size of a guard region.
    page: usize,
    /// Size of a stack in bytes, a multiple of the page size.
    size: usize,
    /// Stacks that no fiber uses. They are never unmapped, but hold no memory.
    free: Arc<Mutex<Vec<Slot>>>,
}

/// The lowest address of a guard region, with a stack above it.
struct Slot(*mut u8);

// SAFETY: the owner of this value owns the memory, and nothing depends on the thread.
unsafe impl Send for Slot {}

/// A stack in use by a fiber. Dropping it discards its contents and makes it free again.
struct Stack {
    base: *mut u8,
    guard: usize,
    size: usize,
    free: Arc<Mutex<Vec<Slot>>>,
}

// SAFETY: this value alone owns the memory, and nothing depends on the thread.
unsafe impl Send for Stack {}
// SAFETY: a shared reference only gives access to addresses.
unsafe impl Sync for Stack {}

fn page_size() -> io::Result<usize> {
    // SAFETY: `sysconf` only reads a system setting.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Stacks {
    /// Maps [`STACKS_PER_MAPPING`] more stacks, each with its guard region, and adds them to the
    /// free ones.
    fn map(&self) -> io::Result<()> {
        let stride = self.page + self.size;
        let length = stride * STACKS_PER_MAPPING;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses affects no other memory.
        let mapping = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let guarded = self.guard(mapping, length, stride);
        if guarded.is_err() {
            // SAFETY: this is exactly the mapping made above, and nothing uses it yet.
            unsafe { libc::munmap(mapping, length) };
            return guarded;
        }
        let slots = (0..STACKS_PER_MAPPING)
            .map(|index| Slot(mapping.cast::<u8>().wrapping_add(index * stride)));
        self.free.lock().extend(slots);
        Ok(())
    }

    fn guard(&self, mapping: *mut libc::c_void, length: usize, stride: usize) -> io::Result<()> {
        // With huge pages a shallow stack would take as much memory as a deep one. The result is
        // ignored: a kernel without huge pages refuses the advice, and does not need it.
        // SAFETY: advice about a mapping that nothing uses yet.
        unsafe { libc::madvise(mapping, length, libc::MADV_NOHUGEPAGE) };
        for index in 0..STACKS_PER_MAPPING {
            let bottom = mapping.wrapping_byte_add(index * stride);
            // SAFETY: the page is inside the mapping, which nothing uses yet.
            check(unsafe { libc::madvise(bottom, self.page, MADV_GUARD_INSTALL) })?;
        }
        Ok(())
    }

    fn take(&self) -> io::Result<*mut u8> {
        loop {
            if let Some(Slot(base)) = self.free.lock().pop() {
                return Ok(base);
            }
            self.map()?;
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let bottom = self.base.wrapping_add(self.guard);
        // SAFETY: the fiber that used the stack has been dropped. From here on the stack reads as
        // zeros and takes no memory. The guard region stays in place.
        let emptied =
            check(unsafe { libc::madvise(bottom.cast(), self.size, libc::MADV_DONTNEED) });
        // A stack that cannot be zeroed must not be used again: `new_stack` promises zeroed memory.
        if emptied.is_ok() {
            self.free.lock().push(Slot(self.base));
        }
    }
}

// SAFETY: every stack is a zeroed, page-aligned part of a mapping, used by no other fiber, with a
// guard region below it.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        if size > self.size {
            return Err(wasmtime::Error::msg(format!(
                "cannot allocate a fiber stack of {size} bytes: stacks have {} bytes",
                self.size
            )));
        }
        let base = self.take().map_err(wasmtime::Error::new)?;
        Ok(Box::new(Stack {
            base,
            guard: self.page,
            size: self.size,
            free: Arc::clone(&self.free),
        }))
    }
}

// SAFETY: the addresses lie in a mapping that is never unmapped.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.base.wrapping_add(self.guard + self.size)
    }

    fn range(&self) -> Range<usize> {
        self.base.wrapping_add(self.guard).addr()..self.top().addr()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.base..self.base.wrapping_add(self.guard)
    }
}
