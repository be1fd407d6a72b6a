//! A hit does not allocate. The tests also print the time of a hit.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{DurableStore, Invocation, MemoryStore, Store};
use manifold_testing::Fixture;

/// The system's allocator, with a count of allocations for each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is forwarded to the system's allocator.
#[allow(unsafe_code, reason = "implements an allocator that counts allocations")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller upholds the contract of the same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of the same method.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the number of allocations that `work` makes on this thread.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// Makes many hits on `store`, by call and by request id, and asserts that none of them allocates.
async fn hits(store: Arc<dyn Store>, what: &str) {
    let runtime = NativeRuntime::builder("native", "1")
        .guest("greet", |guest| async move { guest.blob("hello").await })
        .build()
        .unwrap();
    let fixture = Fixture::with(runtime, |builder| builder.store(store));
    let dispatcher = &fixture.dispatcher;
    let invocation =
        Invocation::new(fixture.image("greet")).args(fixture.args(&[("salt", "and pepper")]));
    let first = dispatcher.run(invocation.clone()).await.unwrap();
    dispatcher.flush().unwrap();
    // The memory tier has what was looked up once.
    assert!(dispatcher.run(invocation.clone()).await.unwrap().from_memo);

    const HITS: usize = 20_000;
    let calls = vec![invocation; HITS];
    let start = Instant::now();
    let run = allocations(|| {
        for call in calls {
            let mut run = std::pin::pin!(dispatcher.run(call));
            let Poll::Ready(result) = run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("a hit is pending")
            };
            assert!(result.unwrap().from_memo);
        }
    });
    let run_time = start.elapsed() / HITS as u32;
    let start = Instant::now();
    let look_up = allocations(|| {
        for _ in 0..HITS {
            assert_eq!(dispatcher.look_up(first.request).unwrap(), Some(first.outcome));
        }
    });
    let look_up_time = start.elapsed() / HITS as u32;
    println!("{what}: a hit by call takes {run_time:?}, by request id {look_up_time:?}");
    assert_eq!((run, look_up), (0, 0), "{what}: allocations of {HITS} hits");
}

#[tokio::test]
async fn a_hit_in_memory_allocates_nothing() {
    hits(Arc::new(MemoryStore::new()), "memory").await;
}

#[tokio::test]
async fn a_hit_in_the_hot_tier_of_a_durable_store_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    hits(Arc::new(DurableStore::open(directory.path()).unwrap()), "durable").await;
}
