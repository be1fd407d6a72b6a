//! Complete folds of the fixture of 160 nodes, cold and warm, in every language that needs no
//! container engine.
#![allow(missing_docs, reason = "criterion's macros define functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use manifold_benches::{Language, OURS, Setting, all_cores, branching, fold_files};
use manifold_dispatcher::Policy;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LANGUAGES: &[Language] = &[
    Language::Native,
    Language::Wasm,
    #[cfg(feature = "v8")]
    Language::TypeScript,
];

fn folds(criterion: &mut Criterion) {
    let setting = Setting::new().unwrap();
    let dispatcher = &setting.dispatcher;
    let runtime = all_cores().unwrap();
    let root = branching(dispatcher, "tree", 3, 3).unwrap();
    for fold in LANGUAGES {
        for visitor in LANGUAGES {
            let invocation = setting.fold(root, *fold, *visitor).unwrap();
            let request = runtime.block_on(dispatcher.run(invocation.clone())).unwrap().request;
            let before = dispatcher.stats();
            let again = invocation.clone().policy(Policy::RecomputeAll);
            runtime.block_on(dispatcher.run(again.clone())).unwrap();
            let frames = (dispatcher.stats() - before).runs;

            let pair = format!("{} over {}", fold.as_str(), visitor.as_str());
            let mut group = criterion.benchmark_group(format!("fold of 160 nodes, cold, {pair}"));
            group.throughput(Throughput::Elements(frames)).sample_size(30);
            group.bench_function(OURS, |bencher| {
                bencher.iter(|| runtime.block_on(dispatcher.run(again.clone())).unwrap())
            });
            group.bench_function("floor: a recursive function on all cores", |bencher| {
                bencher.iter(|| fold_files(dispatcher, root).unwrap())
            });
            group.finish();

            let mut group = criterion.benchmark_group(format!("fold of 160 nodes, warm, {pair}"));
            group.bench_function(OURS, |bencher| {
                bencher.iter(|| runtime.block_on(dispatcher.run(invocation.clone())).unwrap())
            });
            group.bench_function("floor: look its request up by id", |bencher| {
                bencher.iter(|| dispatcher.look_up(request).unwrap().unwrap())
            });
            group.finish();
        }
    }
}

criterion_group!(benches, folds);
criterion_main!(benches);
