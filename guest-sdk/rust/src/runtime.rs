//! What std would provide: an allocator and a panic handler.

use alloc::string::String;
use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32;
use core::cell::Cell;
use core::panic::PanicInfo;
use core::ptr;

use crate::operations;

const PAGE: usize = 65536;

/// Hands out memory from one end to the other. Only the block given out last can grow, shrink or be given back, which is
/// what a growing `Vec` needs; the rest is returned when the job is over.
struct Bump {
    /// The first free byte; 0 before the first allocation.
    next: Cell<usize>,
    end: Cell<usize>,
}

#[global_allocator]
static ALLOCATOR: Bump = Bump { next: Cell::new(0), end: Cell::new(0) };

// SAFETY: a guest has one thread.
unsafe impl Sync for Bump {}

impl Bump {
    /// Makes memory up to `end` usable.
    fn reserve(&self, end: usize) -> bool {
        if end <= self.end.get() {
            return true;
        }
        // Growing by a quarter at least keeps the number of host calls down.
        let wanted = (end - self.end.get()).max(self.end.get() / 4);
        let pages = wanted.div_ceil(PAGE);
        let granted = wasm32::memory_grow::<0>(pages) != usize::MAX;
        if granted {
            self.end.set(self.end.get() + pages * PAGE);
        }
        granted
    }
}

// SAFETY: blocks lie in memory that was grown for them, are aligned as asked, and never overlap.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.next.get() == 0 {
            unsafe extern "C" {
                static __heap_base: u8;
            }
            self.next.set(&raw const __heap_base as usize);
            self.end.set(wasm32::memory_size::<0>() * PAGE);
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
        // SAFETY: the caller gives a block of `layout`, and the new one is larger.
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
    let mut words = String::from("the guest panicked");
    if let Some(message) = info.message().as_str() {
        words.push_str(": ");
        words.push_str(message);
    }
    if let Some(location) = info.location() {
        words.push_str(" at ");
        words.push_str(location.file());
        words.push(':');
        operations::push_decimal(&mut words, location.line().into());
    }
    operations::fail(&words);
    wasm32::unreachable()
}
