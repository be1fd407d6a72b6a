//! The durable store: hits, reads, writes and commits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use manifold_benches::OURS;
use manifold_dispatcher::{DurableStore, ObjectSource, Store};
use manifold_runtime_api::{Object, ObjectId, ObjectRef};

use crate::{ENTRIES, ids, scattered};

pub(crate) fn durable(criterion: &mut Criterion) {
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
