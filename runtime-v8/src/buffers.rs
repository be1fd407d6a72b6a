//! Memory of array buffers, which V8 keeps outside its heap: counted for the guest that asked for it, and bounded.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use deno_core::v8;
use parking_lot::Mutex;

/// What one guest has in array buffers.
#[derive(Debug)]
pub(crate) struct Account {
    limit: u64,
    used: AtomicU64,
    /// The largest allocation that failed, in bytes, or 0. V8 collects garbage and tries again, so it may yet succeed.
    failed: AtomicU64,
}

impl Account {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so many bytes would be within the limit.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes as u64) <= self.limit
    }

    /// Whether an allocation failed for good.
    pub(crate) fn is_breached(&self) -> bool {
        self.failed.load(Ordering::Relaxed) > 0
    }

    /// Notes that something else than an allocation of V8's found no room.
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

/// The allocator of one isolate.
pub(crate) struct Buffers {
    /// Whose turn it is.
    current: Mutex<Option<Arc<Account>>>,
    isolate: OnceLock<v8::IsolateHandle>,
}

impl Buffers {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { current: Mutex::new(None), isolate: OnceLock::new() })
    }

    /// Names the isolate, once there is one.
    pub(crate) fn attach(&self, isolate: v8::IsolateHandle) {
        // An isolate is attached once, so there was none before.
        let _ = self.isolate.set(isolate);
    }

    /// From now on `account` is charged.
    pub(crate) fn charge(&self, account: Option<Arc<Account>>) {
        *self.current.lock() = account;
    }

    /// As V8 takes it.
    pub(crate) fn allocator(self: &Arc<Self>) -> v8::UniqueRef<v8::Allocator> {
        // SAFETY: the handle is an `Arc<Buffers>` turned into a pointer, which is what the functions of `VTABLE` expect, and
        // `release` drops it.
        unsafe { v8::new_rust_allocator(Arc::into_raw(Arc::clone(self)), &VTABLE) }
    }

    fn allocate(&self, bytes: usize, zeroed: bool) -> *mut c_void {
        let account = self.current.lock().clone();
        if account.as_ref().is_some_and(|account| !account.take(bytes)) {
            self.look_later();
            return null_mut();
        }
        let Some(layout) = Header::layout(bytes) else { return null_mut() };
        // SAFETY: the layout is not empty, for it holds a header.
        let block = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        let Some(block) = NonNull::new(block) else {
            if let Some(account) = account {
                account.give_back(bytes);
                account.failed.fetch_max((bytes as u64).max(1), Ordering::Relaxed);
            }
            self.look_later();
            return null_mut();
        };
        // SAFETY: the block begins with room for a header, aligned as the layout says, and goes on after it.
        unsafe {
            block.cast::<Header>().write(Header { account });
            block.add(Header::SIZE).as_ptr().cast()
        }
    }

    /// Has the guest stopped at its next step if the allocation has not succeeded by then.
    fn look_later(&self) {
        if let Some(isolate) = self.isolate.get() {
            isolate.request_interrupt(stop_if_failed, std::ptr::from_ref(self).cast_mut().cast());
        }
    }
}

/// What stands before every buffer.
struct Header {
    account: Option<Arc<Account>>,
}

impl Header {
    /// A multiple of the alignment that V8 expects.
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
    // SAFETY: V8 frees what `allocate` answered, with the same size: a header stands before it, and the block has the layout.
    unsafe {
        let block = data.sub(Header::SIZE);
        if let Some(account) = block.cast::<Header>().read().account {
            account.give_back(bytes);
        }
        dealloc(block.as_ptr(), layout);
    }
}

unsafe extern "C" fn release(buffers: *const Buffers) {
    // SAFETY: this is the pointer that `allocator` made of an `Arc`, and V8 gives it back once.
    drop(unsafe { Arc::from_raw(buffers) });
}

unsafe extern "C" fn stop_if_failed(_: v8::UnsafeRawIsolatePtr, buffers: *mut c_void) {
    // SAFETY: `look_later` passed the allocator itself, which the isolate that calls here keeps alive.
    let buffers = unsafe { &*buffers.cast::<Buffers>() };
    let breached = buffers.current.lock().as_ref().is_some_and(|account| account.is_breached());
    if let (true, Some(isolate)) = (breached, buffers.isolate.get()) {
        isolate.terminate_execution();
    }
}
