//! Many frames of TypeScript at a time: a chain of 10,000 levels on V8 threads that are as many as processors.
#![cfg(feature = "v8")]

#[path = "../../dispatcher/tests/fixture/mod.rs"]
mod fixture;

use std::sync::Arc;

use fixture::store_chain;
use manifold::guests::{self, Hosts};
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{Outcome, Runtime};
use manifold_runtime_v8::V8Runtime;

const LEVELS: usize = 10_000;

/// Bytes of the process, at most.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_chain_of_10_000_levels() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let v8 = Arc::new(V8Runtime::builder().threads(1).build().unwrap());
        let hosts = Hosts { typescript: Some(v8.host_image().id()), ..Hosts::default() };
        let dispatcher = Dispatcher::builder().runtime(v8).permits(1).build().unwrap();
        let std = guests::install(&dispatcher, hosts).unwrap();
        let before = peak();
        let root = Outcome::tree(store_chain(&dispatcher, LEVELS));
        let post = Outcome::blob(dispatcher.put_blob("/cas/std/file-count.ts").unwrap());
        let args = dispatcher.put_tree([argument("in", root), argument("post", post)]).unwrap();
        let outcome = dispatcher
            .run(Invocation::new("/cas/std/fold.ts", args).std(std))
            .await
            .unwrap()
            .outcome;
        assert_eq!(dispatcher.read(outcome.id).unwrap().content, "1\n");

        let bytes = (peak() - before) / LEVELS;
        println!("{bytes} bytes a suspended frame");
        assert!(bytes < 400_000, "{bytes} bytes a suspended frame");
    });
}
