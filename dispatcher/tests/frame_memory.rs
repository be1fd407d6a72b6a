//! What a suspended frame costs: memory that is stated, no thread, and the same at any depth.

mod fixture;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::{Fixture, store_chain};
use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::Outcome;
use manifold_dispatcher::native::{NativeRuntime, argument};

/// Knows how many bytes are allocated, and how many there were at most.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
#[allow(unsafe_code, reason = "an allocator that counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(bytes, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count())
}

/// The bytes that each level of a chain of directories takes while all of them are suspended, and the threads meanwhile.
fn bytes_per_frame(levels: usize) -> (usize, usize) {
    let most_threads = std::sync::Arc::new(AtomicUsize::new(0));
    let runtime = NativeRuntime::builder("native", "1").fold_guests().build().unwrap();
    let fixture = Fixture::with(runtime, |builder| {
        let most_threads = std::sync::Arc::clone(&most_threads);
        builder.permits(1).observer(std::sync::Arc::new(
            move |_: &manifold_dispatcher::Event<'_>| {
                most_threads.fetch_max(threads(), Ordering::Relaxed);
            },
        ))
    });
    let root = store_chain(&fixture.dispatcher, levels);
    let post = fixture.dispatcher.put_blob(fixture.image("file-count")).unwrap();
    let args = [argument("in", Outcome::tree(root)), argument("post", Outcome::blob(post))];
    let args = fixture.dispatcher.put_tree(args).unwrap();
    let invocation = Invocation::new(fixture.image("fold"), args);
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let before = BYTES.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let start = std::time::Instant::now();
    let answer = executor.block_on(fixture.dispatcher.run(invocation)).unwrap();
    println!("{levels}: {:?} a level", start.elapsed() / levels as u32);
    assert_eq!(fixture.text(answer.outcome), "1\n");
    ((MOST.load(Ordering::Relaxed) - before) / levels, most_threads.load(Ordering::Relaxed))
}

/// A suspended frame of the native fold takes 6 KiB, most of it the guest's own future, and the objects that a level stores.
const STATED: usize = 8 << 10;

#[test]
fn a_suspended_frame_takes_a_few_kilobytes_and_no_thread_at_any_depth() {
    // Threads that are started once and stay: the deadlines' one among them.
    bytes_per_frame(10);
    let at_rest = threads();
    let [shallow, deep] = [1_000, 50_000].map(|levels| {
        let (bytes, most_threads) = bytes_per_frame(levels);
        println!("{levels} levels: {bytes} bytes for each, {most_threads} threads");
        assert!(bytes < STATED, "{bytes} bytes for each of {levels} frames");
        assert!(most_threads <= at_rest + 2, "{most_threads} threads with two workers");
        bytes
    });
    assert!(deep < shallow * 3 / 2, "{shallow} bytes become {deep} with the depth");
}
