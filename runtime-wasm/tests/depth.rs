//! The depth of nested wasm runs, and the memory of a suspended frame. In a process of its own,
//! because the memory of the process is measured.

use std::fs;

use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{ObjectRef, Runtime};
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests as guests;
use manifold_testing::store_chain;

/// Returns a number from `/proc/self/status`: kilobytes, or a count.
fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Returns whether the kernel has guard regions (Linux 6.13), with which a process may have any
/// number of stacks.
fn has_guard_regions() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}

/// The bound on a suspended frame in KiB. One of the wasm fold takes 35 KiB: the touched pages of
/// its memory and its stack.
const MAX_KIB_PER_FRAME: usize = 48;

#[test]
fn a_chain_of_100_000_directories_completes_with_one_permit() {
    let levels = if has_guard_regions() {
        100_000
    } else {
        println!("skipped: 100,000 levels need Linux 6.13; 20,000 levels are tested instead");
        20_000
    };
    let runtime = WasmRuntime::new().unwrap();
    let wasm = runtime.host_image().id();
    let dispatcher = Dispatcher::builder().runtime(runtime).permits(1).build().unwrap();
    let std = guests::install_for(&dispatcher, guests::Hosts::default().wasm(wasm)).unwrap();
    let image = |name: &str| dispatcher.read_tree(std).unwrap().get(name).unwrap().id.to_string();
    let root = ObjectRef::tree(store_chain(&dispatcher, levels));
    let post = ObjectRef::blob(dispatcher.put_blob(image("file-count")).unwrap());
    let args = dispatcher.put_tree([argument("in", root), argument("post", post)]).unwrap();

    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (before, threads) = (status("VmRSS"), status("Threads"));
    let completion = executor
        .block_on(dispatcher.run(Invocation::new(image("fold")).args(args).std(std)))
        .unwrap();
    let per_frame = (status("VmHWM") - before) / levels;
    assert_eq!(dispatcher.read(completion.outcome.id).unwrap().content, "1\n");
    assert_eq!(dispatcher.stats().runs, 2 * levels as u64 + 1);
    println!("{levels} levels: {per_frame} KiB per level");
    assert!(per_frame < MAX_KIB_PER_FRAME, "{per_frame} KiB per suspended frame");
    // The new threads are the one for deadlines and those that compiled two modules.
    assert!(status("Threads") <= threads + 8, "{} threads instead of {threads}", status("Threads"));
}
