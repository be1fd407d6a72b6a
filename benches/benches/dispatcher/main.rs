//! Benchmarks without a guest engine: the memo, dispatch, single flight, objects, the guest ABI and
//! the durable store.
#![allow(missing_docs, reason = "criterion's macros define functions")]

mod abi;
mod durable;
mod memo;
mod objects;
mod requests;

use criterion::{criterion_group, criterion_main};
use futures_util::FutureExt;
use manifold_runtime_api::{Object, ObjectId};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The number of entries in the memo. They do not fit into the processor's cache.
const ENTRIES: u64 = 100_000;

fn ids() -> Vec<ObjectId> {
    (0..ENTRIES).map(|number| Object::blob(number.to_string()).id()).collect()
}

/// Returns a closure that cycles through `ids` with a large stride, so that the processor's cache
/// does not help.
fn scattered(ids: &[ObjectId], start: usize) -> impl FnMut() -> ObjectId {
    let mut at = start;
    move || {
        at = (at + 7919) % ids.len();
        ids[at]
    }
}

/// Returns the output of a future that completes at the first poll.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    std::pin::pin!(future).now_or_never().unwrap()
}

criterion_group!(
    benches,
    memo::memo,
    requests::requests,
    objects::objects,
    abi::abi,
    durable::durable
);
criterion_main!(benches);
