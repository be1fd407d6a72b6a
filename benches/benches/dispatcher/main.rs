//! Benchmarks without a guest engine: the memo, dispatch, single flight, objects, the guest ABI and
//! the durable store.
#![allow(missing_docs, reason = "criterion's macros define functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt;
use futures_util::future::join_all;
use manifold_benches::{FixedHost, Language, OURS, Setting, all_cores, one_core, tree_of};
use manifold_dispatcher::{DurableStore, Invocation, ObjectSource, Policy, Store};
use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{
    Call, EntryMode, Host, Object, ObjectId, ObjectRef, RequestScope, Tree, TreeEntry,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The number of entries in the memo. They do not fit into the processor's cache.
const ENTRIES: u64 = 100_000;

fn ids() -> Vec<ObjectId> {
    (0..ENTRIES).map(|number| Object::blob(number.to_string()).id()).collect()
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

fn memo(criterion: &mut Criterion) {
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

fn requests(criterion: &mut Criterion) {
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

fn objects(criterion: &mut Criterion) {
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

fn abi(criterion: &mut Criterion) {
    let (tree, object) = tree_of(10).unwrap();
    let id = object.id();
    let host = FixedHost::new(tree, "a file of some length\n");
    let mut job = host.job(ObjectRef::blob(id));
    job.limits.log_bytes = u64::MAX;
    let session = Session::new(job, Arc::clone(&host) as Arc<dyn Host>);
    let raw = [&[20], id.as_bytes()].concat();
    let text = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let entry = |name: &str| [vec![0], raw.clone(), text(name)].concat();
    let call = [raw.clone(), text(&id.to_string())].concat();
    let call_json = format!(r#"{{"image":"{id}","args":"{id}"}}"#);
    let requests = [
        ("job", r#"{"op":"job"}"#.to_owned(), vec![1]),
        ("tree", format!(r#"{{"op":"tree","hash":"{id}"}}"#), [&[2], &raw[..]].concat()),
        ("get", format!(r#"{{"op":"get","hash":"{id}"}}"#), [&[3], &raw[..]].concat()),
        (
            "put_blob",
            r#"{"op":"put_blob","bytes_b64":"YSBmaWxlIG9mIHNvbWUgbGVuZ3RoCg=="}"#.to_owned(),
            b"\x04a file of some length\n".to_vec(),
        ),
        (
            "put_tree",
            format!(
                r#"{{"op":"put_tree","entries":[{{"name":"children","mode":"40000","hash":"{id}"}},{{"name":"in","mode":"40000","hash":"{id}"}}]}}"#
            ),
            [vec![5, 2, 0, 0, 0], entry("children"), entry("in")].concat(),
        ),
        (
            "run",
            format!(r#"{{"op":"run","image":"{id}","args":"{id}"}}"#),
            [&[6], &call[..]].concat(),
        ),
        (
            "run_many of 10",
            format!(r#"{{"op":"run_many","reqs":[{}]}}"#, vec![call_json; 10].join(",")),
            [vec![7, 10, 0, 0, 0], call.repeat(10)].concat(),
        ),
        ("log", r#"{"op":"log","msg":"a line"}"#.to_owned(), b"\x09a line".to_vec()),
    ];
    for (operation, json, binary) in &requests {
        let mut group =
            criterion.benchmark_group(format!("ABI round trip on the host's side, {operation}"));
        for (encoding, word, request) in
            [(Encoding::Json, "JSON", json.as_bytes()), (Encoding::Binary, "bytes", &binary[..])]
        {
            group.bench_function(format!("{OURS}, in {word}"), |bencher| {
                bencher.iter(|| at_once(session.call(encoding, request)))
            });
        }
        let directly = directly(&host, &session, operation, id);
        group.bench_function("floor: the host asked directly", |bencher| bencher.iter(&directly));
        group.finish();
    }
}

/// Returns a closure that calls the host's method for `operation`, without the ABI.
fn directly<'a>(
    host: &'a FixedHost,
    session: &'a Session,
    operation: &str,
    id: ObjectId,
) -> Box<dyn Fn() + 'a> {
    fn done<T>(future: impl Future<Output = T>) {
        black_box(at_once(future));
    }
    let call = move || Call { image: id.to_string(), args: id };
    match operation {
        "tree" => Box::new(move || done(host.tree(id))),
        "get" => Box::new(move || done(host.get(id))),
        "put_blob" => {
            Box::new(move || done(host.put_blob(Bytes::from_static(b"a file of some length\n"))))
        }
        "put_tree" => Box::new(move || {
            let entry = |name: &str| TreeEntry::new(name, EntryMode::Tree, id);
            done(host.put_tree(Tree::new([entry("children"), entry("in")]).unwrap()));
        }),
        "run" => Box::new(move || done(host.run(call()))),
        "run_many of 10" => {
            Box::new(move || done(host.run_many((0..10).map(|_| call()).collect())))
        }
        "log" => Box::new(|| host.log(black_box("a line"))),
        // The job is part of the session, so there is no call to the host.
        "job" => Box::new(|| {
            black_box(session.job());
        }),
        other => panic!("no operation {other}"),
    }
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

fn durable(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::options().hot_bytes(0).hot_entries(0).open(directory.path()).unwrap();
    let outcome = ObjectRef::blob(store.write(Object::blob("an outcome")).unwrap());
    let ids = ids();
    for id in &ids {
        store.record(*id, outcome).unwrap();
    }
    store.flush().unwrap();
    let mut next = scattered(&ids, 0);
    let floor = Floor::new(ids.iter().map(|id| (*id, id.as_bytes())));

    let mut group = criterion.benchmark_group("durable hit, nothing in memory");
    group.bench_function(OURS, |bencher| bencher.iter(|| store.look_up(next()).unwrap().unwrap()));
    group.bench_function("floor: redb, get from a table that is open", |bencher| {
        bencher.iter(|| floor.get(next()))
    });
    group.finish();

    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::options().hot_bytes(0).hot_entries(0).open(directory.path()).unwrap();
    let objects: Vec<_> = (0..ENTRIES).map(|number| Object::blob(number.to_string())).collect();
    let floor = Floor::new(objects.iter().map(|object| (object.id(), &*object.content)));
    let objects: Vec<_> = objects.into_iter().map(|object| store.write(object).unwrap()).collect();
    store.flush().unwrap();
    let mut next = scattered(&objects, 0);
    let mut group = criterion.benchmark_group("durable get of a small object, nothing in memory");
    group.bench_function(OURS, |bencher| bencher.iter(|| store.read(next()).unwrap().unwrap()));
    group.bench_function("floor: redb, get from a table that is open", |bencher| {
        bencher.iter(|| floor.get(next()))
    });
    group.finish();

    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(directory.path()).unwrap();
    let number = AtomicU64::new(0);
    let blob = || Object::blob(format!("object {}\n", number.fetch_add(1, Ordering::Relaxed)));
    let mut group = criterion.benchmark_group("durable put of a small object");
    group.bench_function(OURS, |bencher| bencher.iter(|| store.write(blob()).unwrap()));
    group.bench_function("floor: hash it", |bencher| bencher.iter(|| blob().id()));
    group.finish();

    let mut group = criterion.benchmark_group("durable commit of one object");
    slow(&mut group);
    group.bench_function(OURS, |bencher| {
        bencher.iter(|| {
            store.write(blob()).unwrap();
            store.flush().unwrap();
        })
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    group.bench_function("floor: write to a file and fsync", |bencher| {
        bencher.iter(|| {
            std::io::Write::write_all(&mut file, b"an object\n").unwrap();
            file.as_file().sync_data().unwrap();
        })
    });
    group.finish();
}

fn slow(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(20).measurement_time(Duration::from_secs(5));
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("floor");

/// A redb table that is open for reading.
struct Floor {
    table: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
    _database: redb::Database,
    _directory: tempfile::TempDir,
}

impl Floor {
    fn new<'a>(content: impl Iterator<Item = (ObjectId, &'a [u8])>) -> Self {
        use redb::ReadableDatabase;
        let directory = tempfile::tempdir().unwrap();
        let database = redb::Database::create(directory.path().join("floor")).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(TABLE).unwrap();
            for (id, content) in content {
                table.insert(id.as_bytes(), content).unwrap();
            }
        }
        write.commit().unwrap();
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        Self { table, _database: database, _directory: directory }
    }

    fn get(&self, id: ObjectId) -> Vec<u8> {
        self.table.get(id.as_bytes()).unwrap().unwrap().value().to_vec()
    }
}

criterion_group!(benches, memo, requests, objects, abi, durable);
criterion_main!(benches);
