//! The memo: hits and misses by request id.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use manifold_benches::{OURS, Setting};
use manifold_dispatcher::Store;
use manifold_runtime_api::{Object, ObjectId, ObjectRef};

use crate::{ids, scattered};

pub(crate) fn memo(criterion: &mut Criterion) {
    let ids = ids();
    let setting = with_entries(&ids);
    let dispatcher = &setting.dispatcher;
    let floor = quick_cache::sync::Cache::new(2 * ids.len());
    for id in &ids {
        floor.insert(*id, ObjectRef::blob(*id));
    }
    let mut next = scattered(&ids, 0);

    let mut group = criterion.benchmark_group("memo hit by request id");
    group.bench_function(OURS, |bencher| {
        bencher.iter(|| dispatcher.look_up(next()).unwrap().unwrap())
    });
    group.bench_function("floor: quick_cache get", |bencher| {
        bencher.iter(|| floor.get(&next()).unwrap())
    });
    group.finish();

    let mut group = criterion.benchmark_group("memo miss by request id");
    let unknown: Vec<_> =
        (0..1000).map(|number| Object::blob(format!("unknown {number}")).id()).collect();
    let mut at = 0;
    let mut next_unknown = || {
        at = (at + 1) % unknown.len();
        unknown[at]
    };
    group.bench_function(OURS, |bencher| {
        bencher.iter(|| assert!(dispatcher.look_up(next_unknown()).unwrap().is_none()))
    });
    group.bench_function("floor: quick_cache get", |bencher| {
        bencher.iter(|| assert!(floor.get(&next_unknown()).is_none()))
    });
    group.finish();

    let mut group = criterion.benchmark_group("memo hits by request id, all cores");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    group.throughput(Throughput::Elements(threads as u64));
    group.bench_function(OURS, |bencher| {
        bencher.iter_custom(|count| {
            on_threads(threads, count, &ids, |id| dispatcher.look_up(id).unwrap().is_some())
        })
    });
    group.bench_function("floor: quick_cache get", |bencher| {
        bencher.iter_custom(|count| on_threads(threads, count, &ids, |id| floor.get(&id).is_some()))
    });
    group.finish();
}

/// Returns a dispatcher whose memo has an entry for each of `ids`, all with the same outcome.
fn with_entries(ids: &[ObjectId]) -> Setting {
    let store = Arc::new(manifold_dispatcher::MemoryStore::new());
    let outcome = ObjectRef::blob(store.write(Object::blob("an outcome")).unwrap());
    for id in ids {
        store.record(*id, outcome).unwrap();
    }
    Setting::with(|builder| builder.store(store)).unwrap()
}

/// Looks up `count` ids on each of `threads` threads and returns the elapsed time.
fn on_threads(
    threads: usize,
    count: u64,
    ids: &[ObjectId],
    hit: impl Fn(ObjectId) -> bool + Sync,
) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let hit = &hit;
            scope.spawn(move || {
                let mut next = scattered(ids, thread * 31);
                for _ in 0..count {
                    assert!(hit(next()));
                }
            });
        }
    });
    start.elapsed()
}
