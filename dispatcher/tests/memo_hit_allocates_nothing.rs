//! A hit by request id is the path that everything else leads to. It takes nothing from the allocator.
#![allow(unsafe_code, reason = "counts allocations")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_dispatcher::api::{Object, Outcome};
use manifold_dispatcher::{Dispatcher, MemoryStore, Store};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_hit_by_request_id_allocates_nothing() {
    let store = Arc::new(MemoryStore::new());
    let outcome = Outcome::blob(store.write(Object::blob("an outcome")).unwrap());
    let request = Object::blob("a request").id();
    store.remember(request, outcome).unwrap();
    let dispatcher = Dispatcher::builder().store(store).build().unwrap();
    assert_eq!(dispatcher.look_up(request).unwrap(), Some(outcome));

    // The test's own threads may allocate now and then, but not a thousand times.
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        assert_eq!(dispatcher.look_up(request).unwrap(), Some(outcome));
    }
    let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(made < 1000, "{made} allocations in 1000 hits");
}
