//! Many suspended TypeScript frames: a chain of 10,000 levels on one V8 thread.

use std::sync::Arc;

use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{ObjectRef, Runtime};
use manifold_runtime_v8::V8Runtime;
use manifold_standard_guests::{self as guests, Hosts};
use manifold_testing::store_chain;

const LEVELS: usize = 10_000;

/// Returns the peak resident memory of the process in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_chain_of_10_000_levels_completes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let v8 = Arc::new(V8Runtime::builder().threads(1).build().unwrap());
        let hosts = Hosts::default().typescript(v8.host_image().id());
        let dispatcher = Dispatcher::builder().runtime(v8).permits(1).build().unwrap();
        let std = guests::install_for(&dispatcher, hosts).unwrap();
        let before = peak();
        let root = ObjectRef::tree(store_chain(&dispatcher, LEVELS));
        let post = ObjectRef::blob(dispatcher.put_blob("/cas/std/file-count.ts").unwrap());
        let args = dispatcher.put_tree([argument("in", root), argument("post", post)]).unwrap();
        let outcome = dispatcher
            .run(Invocation::new("/cas/std/fold.ts").args(args).std(std))
            .await
            .unwrap()
            .outcome;
        assert_eq!(dispatcher.read(outcome.id).unwrap().content, "1\n");

        let bytes = (peak() - before) / LEVELS;
        println!("{bytes} bytes per suspended frame");
        assert!(bytes < 400_000, "{bytes} bytes per suspended frame");
    });
}
