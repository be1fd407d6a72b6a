//! Other programs that do the same as Manifold, each in the group of Manifold's own benchmark.
#![allow(missing_docs, reason = "criterion's and salsa's macros define public items")]

use std::process::Command;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};
use redis::{Client, Commands};

/// The number of entries, the same as in the benchmark of Manifold's memo.
const ENTRIES: usize = 100_000;
const MEMO: &str = "memo hit by request id";

/// Returns 20 pseudorandom bytes, like a request id.
fn id(number: usize) -> [u8; 20] {
    let mut id = [0; 20];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at as u32 * 7) >> 3) as u8;
    }
    id
}

/// Returns a closure that cycles through the entries with a large stride, so that the processor's
/// cache does not help.
fn order() -> impl FnMut() -> usize {
    let mut at = 0;
    move || {
        at = (at + 7919) % ENTRIES;
        at
    }
}

#[salsa::db]
#[derive(Default, Clone)]
struct Database {
    storage: salsa::Storage<Self>,
}

#[salsa::db]
impl salsa::Database for Database {}

#[salsa::input]
struct Request {
    number: usize,
}

#[salsa::tracked]
fn outcome(database: &dyn salsa::Database, request: Request) -> usize {
    request.number(database) + 1
}

fn memo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(MEMO);
    let ids: Vec<_> = (0..ENTRIES).map(id).collect();

    let cache = moka::sync::Cache::new(2 * ENTRIES as u64);
    ids.iter().for_each(|id| cache.insert(*id, *id));
    let mut next = order();
    group.bench_function("peer: moka get", |bencher| {
        bencher.iter(|| cache.get(&ids[next()]).unwrap())
    });

    let database = Database::default();
    let requests: Vec<_> = (0..ENTRIES).map(|number| Request::new(&database, number)).collect();
    requests.iter().for_each(|request| {
        outcome(&database, *request);
    });
    let mut next = order();
    group.bench_function("peer: salsa, a query that is cached", |bencher| {
        bencher.iter(|| outcome(&database, requests[next()]))
    });

    if let Some(socket) = std::env::var_os("MANIFOLD_BENCH_REDIS") {
        let client = Client::open(format!("redis+unix://{}", socket.to_string_lossy())).unwrap();
        let mut connection = client.get_connection().unwrap();
        for id in &ids {
            let _: () = connection.set(&id[..], &id[..]).unwrap();
        }
        let mut next = order();
        group.bench_function("peer: Redis GET over a unix socket", |bencher| {
            bencher.iter(|| connection.get::<_, Vec<u8>>(&ids[next()][..]).unwrap())
        });
    } else {
        eprintln!(
            "SKIPPED: Redis is not measured: MANIFOLD_BENCH_REDIS is not set; `cargo xtask bench` \
             starts a server and sets it"
        );
    }
    group.finish();
}

/// A plugin with a function that does nothing.
const PLUGIN: &str =
    r#"(module (memory (export "memory") 1) (func (export "run") (result i32) (i32.const 0)))"#;

fn extism(criterion: &mut Criterion) {
    let code = wat::parse_str(PLUGIN).unwrap();
    let builder = PluginBuilder::new(Manifest::new([Wasm::data(code)]));
    let compiled = CompiledPlugin::new(builder).unwrap();
    let mut group = criterion.benchmark_group("wasm frame, smallest guest");
    group.bench_function("peer: extism, a fresh instance and a call", |bencher| {
        bencher.iter(|| {
            let mut plugin = Plugin::new_from_compiled(&compiled).unwrap();
            plugin.call::<&str, &[u8]>("run", "").map(|output| output.len()).unwrap()
        })
    });
    let mut plugin = Plugin::new_from_compiled(&compiled).unwrap();
    group.bench_function("peer: extism, a call of a warm instance", |bencher| {
        bencher.iter(|| plugin.call::<&str, &[u8]>("run", "").map(|output| output.len()).unwrap())
    });
    group.finish();
}

fn node(criterion: &mut Criterion) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/node.js");
    let contexts = |count: u64| {
        let output = Command::new("node").arg(script).arg(count.to_string()).output()?;
        let nanoseconds = String::from_utf8_lossy(&output.stdout);
        nanoseconds.trim().parse().map(Duration::from_nanos).map_err(std::io::Error::other)
    };
    if let Err(problem) = contexts(1) {
        eprintln!(
            "SKIPPED: Node's contexts are not measured: cannot run node ({problem}). Install \
             Node.js."
        );
        return;
    }
    let mut group = criterion.benchmark_group("V8 frame, file-count of a file");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("peer: Node, a vm context", |bencher| {
        bencher.iter_custom(|count| contexts(count).unwrap())
    });
    group.finish();
}

criterion_group!(benches, memo, extism, node);
criterion_main!(benches);
