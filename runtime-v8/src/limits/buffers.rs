//! Allocator of array buffers, whose memory V8 keeps outside its heap. Each allocation is charged
//! to the guest that requested it, and bounded.

#![expect(unsafe_code, reason = "implements V8's allocator")]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use deno_core::v8;
use parking_lot::Mutex;

/// The array buffer memory of one guest.
#[derive(Debug)]
pub(crate) struct Account {
    limit: u64,
    used: AtomicU64,
    /// The size of the largest failed allocation in bytes, or 0. V8 collects garbage and retries,
    /// so a later attempt may succeed and reset this.
    failed: AtomicU64,
}

impl Account {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// Returns the number of bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns whether `bytes` more bytes are within the limit.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes as u64) <= self.limit
    }

    /// Returns whether an allocation has failed and no retry has succeeded.
    pub(crate) fn is_breached(&self) -> bool {
        self.failed.load(Ordering::Relaxed) > 0
    }

    /// Records a breach outside of V8's allocator, which no retry can clear.
    pub(crate) fn breach(&self) {
        self.failed.store(u64::MAX, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self.has_room_for(bytes);
        if taken {
            self.used.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        if !taken {
            self.failed.fetch_max((bytes as u64).max(1), Ordering::Relaxed);
        } else if self.failed.load(Ordering::Relaxed) <= bytes as u64 {
            self.failed.store(0, Ordering::Relaxed);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

/// The array buffer allocator of one isolate.
pub(crate) struct Buffers {
    /// The account of the guest that has the turn.
    current: Mutex<Option<Arc<Account>>>,
    isolate: OnceLock<v8::IsolateHandle>,
}

impl Buffers {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { current: Mutex::new(None), isolate: OnceLock::new() })
    }

    /// Sets the isolate that uses this allocator. Called once, right after the isolate is created.
    pub(crate) fn attach(&self, isolate: v8::IsolateHandle) {
        // It is set only once, so this cannot fail.
        let _ = self.isolate.set(isolate);
    }

    /// Charges later allocations to `account`.
    pub(crate) fn charge(&self, account: Option<Arc<Account>>) {
        *self.current.lock() = account;
    }

    /// Returns a handle for V8's isolate parameters.
    pub(crate) fn allocator(self: &Arc<Self>) -> v8::UniqueRef<v8::Allocator> {
        // SAFETY: the handle is an `Arc<Buffers>` turned into a pointer, as the functions of
        // `VTABLE` expect, and `release` drops it.
        unsafe { v8::new_rust_allocator(Arc::into_raw(Arc::clone(self)), &VTABLE) }
    }

    fn allocate(&self, bytes: usize, zeroed: bool) -> *mut c_void {
        let account = self.current.lock().clone();
        if account.as_ref().is_some_and(|account| !account.take(bytes)) {
            self.request_check();
            return null_mut();
        }
        let Some(layout) = Header::layout(bytes) else { return null_mut() };
        // SAFETY: the layout is not empty, because it contains a header.
        let block = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        let Some(block) = NonNull::new(block) else {
            if let Some(account) = account {
                account.give_back(bytes);
                account.failed.fetch_max((bytes as u64).max(1), Ordering::Relaxed);
            }
            self.request_check();
            return null_mut();
        };
        // SAFETY: the block begins with space for a header, is aligned for it by the layout, and
        // extends beyond it.
        unsafe {
            block.cast::<Header>().write(Header { account });
            block.add(Header::SIZE).as_ptr().cast()
        }
    }

    /// Requests an interrupt that stops the guest, unless a retry of the allocation has succeeded
    /// by then.
    fn request_check(&self) {
        if let Some(isolate) = self.isolate.get() {
            isolate.request_interrupt(stop_if_failed, std::ptr::from_ref(self).cast_mut().cast());
        }
    }
}

/// The header that precedes every buffer.
struct Header {
    account: Option<Arc<Account>>,
}

impl Header {
    /// Bytes before the buffer. A multiple of the alignment that V8 expects.
    const SIZE: usize = 16;

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes.checked_add(Self::SIZE)?, Self::SIZE).ok()
    }
}

const _: () = assert!(size_of::<Header>() <= Header::SIZE && align_of::<Header>() <= Header::SIZE);

static VTABLE: v8::RustAllocatorVtable<Buffers> = v8::RustAllocatorVtable {
    allocate: zeroed,
    allocate_uninitialized: uninitialized,
    free,
    drop: release,
};

unsafe extern "C" fn zeroed(buffers: &Buffers, bytes: usize) -> *mut c_void {
    buffers.allocate(bytes, true)
}

unsafe extern "C" fn uninitialized(buffers: &Buffers, bytes: usize) -> *mut c_void {
    buffers.allocate(bytes, false)
}

unsafe extern "C" fn free(_: &Buffers, data: *mut c_void, bytes: usize) {
    let (Some(data), Some(layout)) = (NonNull::new(data.cast::<u8>()), Header::layout(bytes))
    else {
        return;
    };
    // SAFETY: V8 frees a pointer that `allocate` returned, with the same size, so a header precedes
    // it and the block has this layout.
    unsafe {
        let block = data.sub(Header::SIZE);
        if let Some(account) = block.cast::<Header>().read().account {
            account.give_back(bytes);
        }
        dealloc(block.as_ptr(), layout);
    }
}

unsafe extern "C" fn release(buffers: *const Buffers) {
    // SAFETY: this is the pointer that `allocator` created from an `Arc`, and V8 releases it once.
    drop(unsafe { Arc::from_raw(buffers) });
}

unsafe extern "C" fn stop_if_failed(_: v8::UnsafeRawIsolatePtr, buffers: *mut c_void) {
    // SAFETY: `request_check` passed the allocator itself, and the isolate that calls this function
    // keeps it alive.
    let buffers = unsafe { &*buffers.cast::<Buffers>() };
    let breached = buffers.current.lock().as_ref().is_some_and(|account| account.is_breached());
    if let (true, Some(isolate)) = (breached, buffers.isolate.get()) {
        isolate.terminate_execution();
    }
}
