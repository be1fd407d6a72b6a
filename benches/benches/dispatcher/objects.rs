//! Objects: decoding, encoding and hashing trees.

use criterion::{Criterion, Throughput};
use manifold_benches::{OURS, tree_of};
use manifold_runtime_api::Tree;

pub(crate) fn objects(criterion: &mut Criterion) {
    for count in [2, 100, 10_000] {
        let (tree, object) = tree_of(count).unwrap();
        let content = object.content.clone();
        let size = Throughput::Bytes(content.len() as u64);
        let named = |what: &str| format!("{what} a tree of {count} entries");

        let mut group = criterion.benchmark_group(named("decode"));
        group.throughput(size.clone());
        group.bench_function(OURS, |bencher| bencher.iter(|| Tree::decode(&content).unwrap()));
        group.bench_function("floor: gix-object, which checks less", |bencher| {
            bencher
                .iter(|| gix_object::TreeRef::from_bytes(&content, gix_hash::Kind::Sha1).unwrap())
        });
        group.finish();

        let mut group = criterion.benchmark_group(named("encode"));
        group.throughput(size.clone());
        group.bench_function(OURS, |bencher| bencher.iter(|| tree.to_object()));
        let borrowed = gix_object::TreeRef::from_bytes(&content, gix_hash::Kind::Sha1).unwrap();
        group.bench_function("floor: gix-object", |bencher| bencher.iter(|| encode(&borrowed)));
        group.finish();

        let mut group = criterion.benchmark_group(named("hash"));
        group.throughput(size);
        group.bench_function(OURS, |bencher| bencher.iter(|| object.id()));
        group.bench_function("floor: gix-hash", |bencher| {
            bencher.iter(|| {
                gix_object::compute_hash(gix_hash::Kind::Sha1, gix_object::Kind::Tree, &content)
                    .unwrap()
            })
        });
        group.finish();
    }
}

fn encode(tree: &gix_object::TreeRef<'_>) -> Vec<u8> {
    use gix_object::WriteTo;
    let mut encoded = Vec::with_capacity(usize::try_from(tree.size()).unwrap());
    tree.write_to(&mut encoded).unwrap();
    encoded
}
