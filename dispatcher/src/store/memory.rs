use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_runtime_api::{Object, ObjectId, ObjectKind, Outcome, Result};
use parking_lot::RwLock;

use crate::by_id::ById;
use crate::store::{ObjectSource, Pin, Store, id_to_store};

/// A store in memory. It keeps everything until it is dropped.
#[derive(Default)]
pub struct MemoryStore {
    objects: Sharded<Object>,
    memo: Sharded<Outcome>,
    pins: Sharded<Outcome>,
    bytes: AtomicUsize,
}

impl MemoryStore {
    /// A store with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many objects there are.
    pub fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// The ids of the objects, in no order.
    pub fn object_ids(&self) -> Vec<ObjectId> {
        self.objects
            .0
            .iter()
            .flat_map(|shard| shard.read().keys().copied().collect::<Vec<_>>())
            .collect()
    }

    /// How many bytes the contents of the objects take.
    pub fn object_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many outcomes are remembered.
    pub fn memo_count(&self) -> usize {
        self.memo.len()
    }

    /// Drops an object, as an eviction would. Memo entries that name it stay, and count as misses from then on.
    pub fn evict(&self, id: ObjectId) -> bool {
        let evicted = self.objects.shard(id).write().remove(&id);
        self.bytes.fetch_sub(
            evicted.as_ref().map_or(0, |object| object.content.len()),
            Ordering::Relaxed,
        );
        evicted.is_some()
    }
}

impl ObjectSource for MemoryStore {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        Ok(self.objects.shard(id).read().get(&id).cloned())
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        Ok(self.objects.shard(id).read().get(&id).map(|object| object.kind))
    }
}

impl Store for MemoryStore {
    fn write(&self, object: Object) -> Result<ObjectId> {
        let id = id_to_store(&object)?;
        let length = object.content.len();
        if self.objects.shard(id).write().insert(id, object).is_none() {
            self.bytes.fetch_add(length, Ordering::Relaxed);
        }
        Ok(id)
    }

    fn recall(&self, request: ObjectId) -> Result<Option<Outcome>> {
        Ok(self.memo.shard(request).read().get(&request).copied())
    }

    fn remember(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.memo.shard(request).write().insert(request, outcome);
        Ok(())
    }

    fn pin(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.pins.shard(request).write().insert(request, outcome);
        Ok(())
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        Ok(self.pins.shard(request).write().remove(&request).is_some())
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<Outcome>> {
        Ok(self.pins.shard(request).read().get(&request).copied())
    }

    fn keeps_everything(&self) -> bool {
        true
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        let shards = self.pins.0.iter().map(RwLock::read);
        let list = |shard: parking_lot::RwLockReadGuard<'_, ById<Outcome>>| {
            shard
                .iter()
                .map(|(request, outcome)| Pin { request: *request, outcome: *outcome })
                .collect::<Vec<_>>()
        };
        Ok(shards.flat_map(list).collect())
    }
}

const SHARDS: usize = 16;

/// A map in shards, so that threads seldom meet at one lock.
struct Sharded<T>([RwLock<ById<T>>; SHARDS]);

impl<T> Sharded<T> {
    fn shard(&self, id: ObjectId) -> &RwLock<ById<T>> {
        let last = id.as_bytes().last().copied().unwrap_or_default();
        &self.0[usize::from(last) % SHARDS]
    }

    fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.read().len()).sum()
    }
}

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }
}
