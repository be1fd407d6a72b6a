//! Requests: building one, dispatching one, and single flight.

use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, Throughput};
use futures_util::future::join_all;
use manifold_benches::{Language, OURS, Setting, all_cores, one_core};
use manifold_dispatcher::{Invocation, Policy};
use manifold_runtime_api::RequestScope;

use crate::at_once;

pub(crate) fn requests(criterion: &mut Criterion) {
    let runtime = one_core().unwrap();
    let setting = Setting::new().unwrap();
    let dispatcher = &setting.dispatcher;
    let args = setting.leaf().unwrap();
    let invocation = setting.invocation("empty", Language::Native, args).unwrap();
    runtime.block_on(dispatcher.run(invocation.clone())).unwrap();

    let mut group = criterion.benchmark_group("build the request and hit");
    group.bench_function(OURS, |bencher| {
        bencher.iter(|| {
            // A hit does not wait, so its future completes at the first poll, without a runtime.
            at_once(dispatcher.run(invocation.clone())).unwrap()
        })
    });
    // More calls than the dispatcher caches the request ids of.
    let others: Vec<_> =
        (0..16_384).map(|number| invocation.clone().salt(number.to_string())).collect();
    for other in &others {
        runtime.block_on(dispatcher.run(other.clone())).unwrap();
    }
    let mut others = others.iter().cycle();
    group.bench_function(format!("{OURS}, in words that were not used lately"), |bencher| {
        bencher.iter(|| at_once(dispatcher.run(others.next().unwrap().clone())).unwrap())
    });
    let scope = RequestScope::new("", None);
    let image = dispatcher.put_blob("an image").unwrap();
    group.bench_function("floor: encode and hash the request's tree", |bencher| {
        bencher.iter(|| scope.key(image, args).unwrap())
    });
    group.finish();

    let mut group = criterion.benchmark_group("dispatch an empty native guest");
    let again = invocation.clone().policy(Policy::Recompute);
    group.bench_function(OURS, |bencher| {
        bencher.iter(|| runtime.block_on(dispatcher.run(again.clone())).unwrap())
    });
    group.bench_function("floor: spawn an empty task and wait for it", |bencher| {
        bencher.iter(|| runtime.block_on(async { tokio::spawn(async { 1 }).await.unwrap() }))
    });
    group.finish();

    single_flight(criterion, &invocation, dispatcher);
}

/// Sixteen callers run the same request at the same time.
fn single_flight(
    criterion: &mut Criterion,
    invocation: &Invocation,
    dispatcher: &manifold_dispatcher::Dispatcher,
) {
    const CALLERS: u64 = 16;
    let runtime = all_cores().unwrap();
    let salt = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("16 callers, one flight");
    group.throughput(Throughput::Elements(CALLERS));
    group.bench_function(OURS, |bencher| {
        bencher.iter(|| {
            let invocation =
                invocation.clone().salt(salt.fetch_add(1, Ordering::Relaxed).to_string());
            let callers = (0..CALLERS).map(|_| {
                let (dispatcher, invocation) = (dispatcher.clone(), invocation.clone());
                runtime.spawn(async move { dispatcher.run(invocation).await.unwrap() })
            });
            runtime.block_on(join_all(callers.collect::<Vec<_>>()))
        })
    });
    group.bench_function("floor: spawn 16 tasks that wait for one", |bencher| {
        bencher.iter(|| {
            let (sender, receiver) = tokio::sync::watch::channel(false);
            let callers = (0..CALLERS).map(|_| {
                let mut receiver = receiver.clone();
                runtime.spawn(async move { *receiver.wait_for(|done| *done).await.unwrap() })
            });
            let callers: Vec<_> = callers.collect();
            runtime.spawn(async move { sender.send(true) });
            runtime.block_on(join_all(callers))
        })
    });
    group.finish();
}
