//! The allocator and the panic handler that a guest without std needs.

use alloc::string::String;
use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32;
use core::cell::Cell;
use core::panic::PanicInfo;
use core::ptr;

use crate::operations;

/// The size of a wasm page in bytes.
const PAGE_BYTES: usize = 65536;

/// A bump allocator.
///
/// Only the most recently allocated block can be resized in place or freed, which is what a growing
/// `Vec` needs. All other memory is released when the job ends.
struct Bump {
    /// The address of the first free byte, or 0 before the first allocation.
    next: Cell<usize>,
    /// The address after the last usable byte.
    end: Cell<usize>,
}

#[global_allocator]
static ALLOCATOR: Bump = Bump { next: Cell::new(0), end: Cell::new(0) };

// SAFETY: a wasm guest has a single thread.
unsafe impl Sync for Bump {}

impl Bump {
    /// Grows the memory so that it is usable up to `end`. Returns false if it cannot grow.
    fn reserve(&self, end: usize) -> bool {
        if end <= self.end.get() {
            return true;
        }
        // Grow by at least a quarter to keep the number of `memory.grow` instructions low.
        let wanted = (end - self.end.get()).max(self.end.get() / 4);
        let pages = wanted.div_ceil(PAGE_BYTES);
        let granted = wasm32::memory_grow::<0>(pages) != usize::MAX;
        if granted {
            self.end.set(self.end.get() + pages * PAGE_BYTES);
        }
        granted
    }
}

// SAFETY: blocks lie within memory reserved for them, are aligned as requested, and never overlap.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.next.get() == 0 {
            unsafe extern "C" {
                static __heap_base: u8;
            }
            self.next.set(&raw const __heap_base as usize);
            self.end.set(wasm32::memory_size::<0>() * PAGE_BYTES);
        }
        let start = self.next.get().next_multiple_of(layout.align());
        match start.checked_add(layout.size()) {
            Some(end) if self.reserve(end) => {
                self.next.set(end);
                start as *mut u8
            }
            _ => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if block as usize + layout.size() == self.next.get() {
            self.next.set(block as usize);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if block as usize + layout.size() == self.next.get() {
            return match (block as usize).checked_add(size) {
                Some(end) if self.reserve(end) => {
                    self.next.set(end);
                    block
                }
                _ => ptr::null_mut(),
            };
        }
        if size <= layout.size() {
            return block;
        }
        // SAFETY: the caller passes a block of `layout`. The new block is larger and does not
        // overlap it, so `layout.size()` bytes can be copied.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size());
            }
            moved
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut text = String::from("the guest panicked");
    if let Some(message) = info.message().as_str() {
        text.push_str(": ");
        text.push_str(message);
    }
    if let Some(location) = info.location() {
        text.push_str(" at ");
        text.push_str(location.file());
        text.push(':');
        operations::push_decimal(&mut text, location.line().into());
    }
    operations::fail(&text);
    wasm32::unreachable()
}
