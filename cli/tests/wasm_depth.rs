//! How deep wasm guests nest, and what a suspended one costs. A process of its own, for its memory is measured.

#[path = "../../dispatcher/tests/fixture/mod.rs"]
mod fixture;

use std::fs;
use std::sync::Arc;

use fixture::store_chain;
use manifold::guests;
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{Outcome, Runtime};
use manifold_runtime_wasm::WasmRuntime;

/// A number of `/proc/self/status`: kilobytes, or a count.
fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Stacks with guard regions, which a process may have any number of, came with Linux 6.13.
fn has_guard_regions() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}

/// A suspended frame of the wasm fold takes 35 KiB: touched pages of its memory and its stack.
const STATED: usize = 48;

#[test]
fn a_chain_of_100_000_directories_with_one_permit() {
    let levels = if has_guard_regions() {
        100_000
    } else {
        println!("skipped: 100,000 levels need Linux 6.13; 20,000 take their place");
        20_000
    };
    let runtime = WasmRuntime::new().unwrap();
    let wasm = runtime.host_image().id();
    let dispatcher = Dispatcher::builder().runtime(Arc::new(runtime)).permits(1).build().unwrap();
    let std =
        guests::install(&dispatcher, guests::Hosts { wasm: Some(wasm), ..Default::default() })
            .unwrap();
    let image = |name: &str| dispatcher.read_tree(std).unwrap().get(name).unwrap().id.to_string();
    let root = Outcome::tree(store_chain(&dispatcher, levels));
    let post = Outcome::blob(dispatcher.put_blob(image("file-count")).unwrap());
    let args = dispatcher.put_tree([argument("in", root), argument("post", post)]).unwrap();

    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (before, threads) = (status("VmRSS"), status("Threads"));
    let completion =
        executor.block_on(dispatcher.run(Invocation::new(image("fold"), args).std(std))).unwrap();
    let most = (status("VmHWM") - before) / levels;
    assert_eq!(dispatcher.read(completion.outcome.id).unwrap().content, "1\n");
    assert_eq!(dispatcher.stats().runs, 2 * levels as u64 + 1);
    println!("{levels} levels: {most} KiB for each");
    assert!(most < STATED, "{most} KiB for each suspended frame");
    // The deadlines' thread, and those that compiled two modules.
    assert!(status("Threads") <= threads + 8, "{} threads instead of {threads}", status("Threads"));
}
