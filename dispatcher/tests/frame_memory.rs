//! The cost of a suspended frame: bounded memory that does not depend on the depth, and no thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::ObjectRef;
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_standard_guests::native_guests;
use manifold_testing::{Fixture, store_chain};

/// The system's allocator, with a count of the allocated bytes and its maximum.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded to the system's allocator.
#[allow(unsafe_code, reason = "implements an allocator that counts bytes")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(bytes, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of the same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of the same method.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count())
}

/// Folds a chain of directories. Returns the peak of allocated bytes divided by the number of
/// levels, and the largest number of threads meanwhile. At the peak, all levels are suspended.
fn bytes_per_frame(levels: usize) -> (usize, usize) {
    let most_threads = std::sync::Arc::new(AtomicUsize::new(0));
    let runtime = native_guests(NativeRuntime::builder("native", "1")).build().unwrap();
    let fixture = Fixture::with(runtime, |builder| {
        let most_threads = std::sync::Arc::clone(&most_threads);
        builder.permits(1).on_event(move |_: &manifold_dispatcher::Event<'_>| {
            most_threads.fetch_max(threads(), Ordering::Relaxed);
        })
    });
    let root = store_chain(&fixture.dispatcher, levels);
    let post = fixture.dispatcher.put_blob(fixture.image("file-count")).unwrap();
    let args = [argument("in", ObjectRef::tree(root)), argument("post", ObjectRef::blob(post))];
    let args = fixture.dispatcher.put_tree(args).unwrap();
    let invocation = Invocation::new(fixture.image("fold")).args(args);
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let before = BYTES.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let start = std::time::Instant::now();
    let completion = executor.block_on(fixture.dispatcher.run(invocation)).unwrap();
    println!("{levels} levels: {:?} for each level", start.elapsed() / levels as u32);
    assert_eq!(fixture.text(completion.outcome), "1\n");
    ((MOST.load(Ordering::Relaxed) - before) / levels, most_threads.load(Ordering::Relaxed))
}

/// The bound for a level, in bytes. A suspended frame of the native fold takes 6 KiB, most of it
/// the guest's own future. The rest are the objects that a level stores.
const BOUND: usize = 8 << 10;

#[test]
fn a_suspended_frame_takes_a_few_kilobytes_and_no_thread_at_any_depth() {
    // The first fold starts the threads that stay, such as the one that watches deadlines.
    bytes_per_frame(10);
    let at_rest = threads();
    let [shallow, deep] = [1_000, 50_000].map(|levels| {
        let (bytes, most_threads) = bytes_per_frame(levels);
        println!("{levels} levels: {bytes} bytes for each, {most_threads} threads");
        assert!(bytes < BOUND, "{bytes} bytes for each of {levels} frames");
        assert!(most_threads <= at_rest + 2, "{most_threads} threads with two workers");
        bytes
    });
    assert!(deep < shallow * 3 / 2, "{shallow} bytes in a shallow chain, {deep} in a deep one");
}
