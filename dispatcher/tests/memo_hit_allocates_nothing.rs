//! A memo hit by request id, the hottest path of the dispatcher, does not allocate.
#![allow(unsafe_code, reason = "implements an allocator that counts allocations")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_dispatcher::api::{Object, ObjectRef};
use manifold_dispatcher::{Dispatcher, MemoryStore, Store};

/// The system's allocator, with a count of allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of the same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of the same method.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_hit_by_request_id_allocates_nothing() {
    let store = Arc::new(MemoryStore::new());
    let outcome = ObjectRef::blob(store.write(Object::blob("an outcome")).unwrap());
    let request = Object::blob("a request").id();
    store.record(request, outcome).unwrap();
    let dispatcher = Dispatcher::builder().store(store).build().unwrap();
    assert_eq!(dispatcher.look_up(request).unwrap(), Some(outcome));

    // Threads of the test harness may allocate a few times, but not a thousand times.
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        assert_eq!(dispatcher.look_up(request).unwrap(), Some(outcome));
    }
    let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(made < 1000, "{made} allocations in 1000 hits");
}
