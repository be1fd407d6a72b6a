//! [`MemoryStore`]: a store in memory.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Result};
use parking_lot::RwLock;

use crate::by_id::ById;
use crate::padded::Padded;
use crate::source::ObjectSource;
use crate::store::{Pin, RunRecord, Store, id_to_store};

/// A store in memory. It keeps everything until it is dropped, except for objects passed to
/// [`MemoryStore::evict`].
#[derive(Default)]
pub struct MemoryStore {
    objects: Sharded<Object>,
    memo: Sharded<Memoized>,
    pins: Sharded<ObjectRef>,
    runs: Sharded<RunRecord>,
    /// Whether an object was removed.
    evicted: AtomicBool,
}

#[derive(Clone, Copy)]
struct Memoized {
    outcome: ObjectRef,
    /// Whether the outcome's object was in this store when the outcome was recorded.
    has_object: bool,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("objects", &self.object_count())
            .field("bytes", &self.object_bytes())
            .field("memo", &self.memo_count())
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of objects.
    pub fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// Returns the ids of all objects, in no particular order.
    pub fn object_ids(&self) -> Vec<ObjectId> {
        self.objects.list(|_| ()).into_iter().map(|(id, ())| id).collect()
    }

    /// Returns the total length of all objects' contents, in bytes.
    pub fn object_bytes(&self) -> usize {
        self.objects.0.iter().map(|shard| shard.0.bytes.load(Ordering::Relaxed)).sum()
    }

    /// Returns the number of memo entries.
    pub fn memo_count(&self) -> usize {
        self.memo.len()
    }

    /// Removes an object, as an eviction would, and returns whether it was there. Memo entries that
    /// name the object stay, and are treated as misses from then on.
    pub fn evict(&self, id: ObjectId) -> bool {
        self.evicted.store(true, Ordering::SeqCst);
        let shard = self.objects.of(id);
        let evicted = shard.map.write().remove(&id);
        let length = evicted.as_ref().map_or(0, |object| object.content.len());
        shard.bytes.fetch_sub(length, Ordering::Relaxed);
        evicted.is_some()
    }
}

impl ObjectSource for MemoryStore {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        Ok(self.objects.shard(id).read().get(&id).cloned())
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        Ok(self.kind_in_memory(id))
    }

    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        self.objects.shard(id).read().get(&id).map(|object| object.kind)
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        Ok(self.objects.shard(id).read().get(&id).map(|object| object.content.len() as u64))
    }
}

impl Store for MemoryStore {
    fn write(&self, object: Object) -> Result<ObjectId> {
        let id = id_to_store(&object)?;
        let length = object.content.len();
        let shard = self.objects.of(id);
        if shard.map.write().insert(id, object).is_none() {
            shard.bytes.fetch_add(length, Ordering::Relaxed);
        }
        Ok(id)
    }

    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        Ok(self.memo.shard(request).read().get(&request).map(|memoized| memoized.outcome))
    }

    fn look_up_with_object(&self, request: ObjectId) -> Result<Option<(ObjectRef, bool)>> {
        let memoized = self.memo.shard(request).read().get(&request).copied();
        let keeps_all = !self.evicted.load(Ordering::SeqCst);
        Ok(memoized.map(|memoized| (memoized.outcome, memoized.has_object && keeps_all)))
    }

    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        let has_object = self.kind(outcome.id)? == Some(outcome.kind);
        self.memo.shard(request).write().insert(request, Memoized { outcome, has_object });
        Ok(())
    }

    fn record_run(
        &self,
        request: ObjectId,
        outcome: Option<ObjectRef>,
        run: RunRecord,
    ) -> Result<()> {
        self.runs.shard(request).write().insert(request, run);
        outcome.map_or(Ok(()), |outcome| self.record(request, outcome))
    }

    fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>> {
        Ok(self.runs.shard(request).read().get(&request).cloned())
    }

    fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>> {
        Ok(self.runs.list(RunRecord::clone))
    }

    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.pins.shard(request).write().insert(request, outcome);
        Ok(())
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        Ok(self.pins.shard(request).write().remove(&request).is_some())
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        Ok(self.pins.shard(request).read().get(&request).copied())
    }

    fn entries(&self) -> Result<Vec<(ObjectId, ObjectRef)>> {
        Ok(self.memo.list(|memoized| memoized.outcome))
    }

    fn keeps_everything(&self) -> bool {
        true
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        let pins = self.pins.list(|outcome| *outcome).into_iter();
        Ok(pins.map(|(request, outcome)| Pin { request, outcome }).collect())
    }
}

const SHARDS: usize = 64;

/// A map that is split into shards with a lock each, to reduce contention between threads.
struct Sharded<T>(Box<[Padded<Shard<T>>]>);

struct Shard<T> {
    map: RwLock<ById<T>>,
    /// The length of all objects' contents.
    bytes: AtomicUsize,
}

impl<T> Sharded<T> {
    fn of(&self, id: ObjectId) -> &Shard<T> {
        let last = id.as_bytes().last().copied().unwrap_or_default();
        &self.0[usize::from(last) % SHARDS].0
    }

    fn shard(&self, id: ObjectId) -> &RwLock<ById<T>> {
        &self.of(id).map
    }

    fn all(&self) -> impl Iterator<Item = &RwLock<ById<T>>> {
        self.0.iter().map(|shard| &shard.0.map)
    }

    /// Returns all ids, with what `value` makes of their values.
    fn list<V>(&self, value: impl Fn(&T) -> V) -> Vec<(ObjectId, V)> {
        let of_shard = |shard: &RwLock<ById<T>>| {
            shard.read().iter().map(|(id, item)| (*id, value(item))).collect::<Vec<_>>()
        };
        self.all().flat_map(of_shard).collect()
    }

    fn len(&self) -> usize {
        self.all().map(|shard| shard.read().len()).sum()
    }
}

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        let shard = || Padded(Shard { map: RwLock::default(), bytes: AtomicUsize::new(0) });
        Self((0..SHARDS).map(|_| shard()).collect())
    }
}
