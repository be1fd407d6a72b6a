//! Stacks for the fibers of the heap engine: as many as memory allows.
//!
//! A guard page that is protected splits the mapping that it is in, and a process has some 65,000 mappings: 30,000 stacks. A
//! guard region (Linux 6.13 and later, `MADV_GUARD_INSTALL` in madvise(2)) faults as well and splits nothing, so many
//! stacks are one mapping. Where the kernel does not know them, wasmtime's own stacks do.
#![allow(unsafe_code, reason = "maps memory")]

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use parking_lot::Mutex;
use wasmtime::{Config, StackCreator, StackMemory};

/// `MADV_GUARD_INSTALL` of the kernel's `mman-common.h`.
const MADV_GUARD_INSTALL: libc::c_int = 102;
/// How many stacks are mapped together.
const STACKS_PER_MAPPING: usize = 64;

/// Has `config` take these stacks, of `size` bytes each, if the kernel can make them.
pub(crate) fn use_guard_regions(config: &mut Config, size: usize) {
    let Ok(page) = page_size() else { return };
    let stacks = Stacks { page, size: size.next_multiple_of(page), free: Arc::default() };
    if stacks.map().is_ok() {
        config.with_host_stack(Arc::new(stacks));
    }
}

struct Stacks {
    page: usize,
    /// Bytes of a stack, a multiple of the page's size.
    size: usize,
    /// Stacks that no fiber uses. They are never unmapped; what a fiber leaves behind holds no memory.
    free: Arc<Mutex<Vec<Place>>>,
}

/// The bottom of a guard region with a stack above it.
struct Place(*mut u8);

// SAFETY: the place belongs to whoever has this value, on whatever thread.
unsafe impl Send for Place {}

/// A stack that a fiber uses.
struct Stack {
    place: *mut u8,
    guard: usize,
    size: usize,
    free: Arc<Mutex<Vec<Place>>>,
}

// SAFETY: the place belongs to this value alone, and nothing depends on the thread.
unsafe impl Send for Stack {}
// SAFETY: a shared reference only tells addresses.
unsafe impl Sync for Stack {}

fn page_size() -> io::Result<usize> {
    // SAFETY: it only asks.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Stacks {
    /// Maps more stacks, each with its guard.
    fn map(&self) -> io::Result<()> {
        let stride = self.page + self.size;
        let length = stride * STACKS_PER_MAPPING;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel wants it touches no other memory.
        let mapping = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let guarded = self.guard(mapping, length, stride);
        if guarded.is_err() {
            // SAFETY: exactly what was mapped above, and nobody uses it.
            unsafe { libc::munmap(mapping, length) };
            return guarded;
        }
        let places = (0..STACKS_PER_MAPPING)
            .map(|index| Place(mapping.cast::<u8>().wrapping_add(index * stride)));
        self.free.lock().extend(places);
        Ok(())
    }

    fn guard(&self, mapping: *mut libc::c_void, length: usize, stride: usize) -> io::Result<()> {
        // Huge pages would give every shallow stack the memory of a deep one. A kernel without them has nothing to refuse.
        // SAFETY: advice about a mapping that nobody uses yet.
        unsafe { libc::madvise(mapping, length, libc::MADV_NOHUGEPAGE) };
        for index in 0..STACKS_PER_MAPPING {
            let bottom = mapping.wrapping_byte_add(index * stride);
            // SAFETY: a page of the mapping, which nobody uses yet.
            check(unsafe { libc::madvise(bottom, self.page, MADV_GUARD_INSTALL) })?;
        }
        Ok(())
    }

    fn take(&self) -> io::Result<*mut u8> {
        loop {
            if let Some(Place(place)) = self.free.lock().pop() {
                return Ok(place);
            }
            self.map()?;
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let bottom = self.place.wrapping_add(self.guard);
        // SAFETY: the stack of a fiber that is gone. From here on it reads as zeros, and takes no memory; the guard stays.
        let emptied =
            check(unsafe { libc::madvise(bottom.cast(), self.size, libc::MADV_DONTNEED) });
        // A stack that cannot be emptied must not be used again.
        if emptied.is_ok() {
            self.free.lock().push(Place(self.place));
        }
    }
}

// SAFETY: every stack is a zeroed, page-aligned part of a mapping that no other fiber uses, with a guard below it.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        if size > self.size {
            return Err(wasmtime::Error::msg(format!(
                "a stack of {size} bytes was asked for, not of {}",
                self.size
            )));
        }
        let place = self.take().map_err(wasmtime::Error::new)?;
        Ok(Box::new(Stack {
            place,
            guard: self.page,
            size: self.size,
            free: Arc::clone(&self.free),
        }))
    }
}

// SAFETY: the addresses are those of the mapping, which is never unmapped.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.place.wrapping_add(self.guard + self.size)
    }

    fn range(&self) -> Range<usize> {
        self.place.wrapping_add(self.guard).addr()..self.top().addr()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.place..self.place.wrapping_add(self.guard)
    }
}
