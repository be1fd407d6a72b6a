//! A store with a collection, on top of a `MemoryStore`.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use manifold_conformance::StoreFixture;
use manifold_dispatcher::{MemoryStore, ObjectSource, Pin, RunRecord, Store};
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, ObjectRef, Result, Tree};

/// A violation of the contract of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreFlaw {
    /// Empty blobs are not found.
    LosesEmptyBlobs,
    /// A range that ends beyond the object is an error.
    RangesBeyondTheEndFail,
    /// Objects over 1 MiB are read in part.
    ReadsPartOfLargeObjects,
    /// Writing an object that is there removes it.
    SecondWriteRemoves,
    /// An id that differs in its last bit is found as well.
    FindsSimilarIds,
    /// An object that is written while another one is written is lost.
    LosesConcurrentWrites,
    /// An entry is not replaced.
    KeepsTheFirstEntry,
    /// Every object is an entry of its own.
    ObjectsAreEntries,
    /// The record of a run is not replaced.
    KeepsTheFirstRun,
    /// A pin is not replaced.
    KeepsTheFirstPin,
    /// `unpin` always returns true.
    UnpinIsAlwaysTrue,
    /// The last pin is not listed.
    ListsOnePinLess,
    /// A pin is also an entry.
    PinsAreEntries,
    /// Pins are lost when the store is reopened.
    PinsAreNotDurable,
    /// Objects are lost when the store is reopened, and the memo is not.
    OnlyTheMemoIsDurable,
    /// Objects are lost when the store is reopened, and pins are not.
    OnlyPinsAreDurable,
    /// A collection keeps the pinned objects and not those that they reach.
    CollectsBelowPins,
    /// The store claims to keep everything, and has a collection.
    ClaimsToKeepEverything,
}

struct TestStore {
    inner: MemoryStore,
    flaw: Option<StoreFlaw>,
    writers: AtomicUsize,
    is_reopened: AtomicBool,
}

fn similar(id: ObjectId) -> ObjectId {
    let mut bytes = id.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    ObjectId::from_bytes(&bytes).unwrap()
}

impl TestStore {
    fn is(&self, flaw: StoreFlaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Removes every object that no pin reaches.
    fn collect(&self) {
        let mut reached = HashSet::new();
        let mut next: Vec<ObjectId> =
            self.inner.pins().unwrap().into_iter().map(|pin| pin.outcome.id).collect();
        while let Some(id) = next.pop() {
            let Some(object) = self.inner.read(id).unwrap() else { continue };
            if !reached.insert(id) || self.is(StoreFlaw::CollectsBelowPins) {
                continue;
            }
            if object.kind == ObjectKind::Tree {
                let tree = Tree::decode(&object.content).unwrap();
                next.extend(tree.objects().map(|object| object.id));
            }
        }
        for id in self.inner.object_ids() {
            if !reached.contains(&id) {
                self.inner.evict(id);
            }
        }
    }
}

impl ObjectSource for TestStore {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        let lost = [StoreFlaw::OnlyTheMemoIsDurable, StoreFlaw::OnlyPinsAreDurable];
        if self.is_reopened.load(Ordering::SeqCst) && lost.contains(&self.flaw.unwrap()) {
            return Ok(None);
        }
        let found = self.inner.read(id)?;
        Ok(match self.flaw {
            Some(StoreFlaw::LosesEmptyBlobs) => found.filter(|object| !object.content.is_empty()),
            Some(StoreFlaw::ReadsPartOfLargeObjects) => found.map(|mut object| {
                object.content.truncate(1 << 20);
                object
            }),
            Some(StoreFlaw::FindsSimilarIds) if found.is_none() => self.inner.read(similar(id))?,
            _ => found,
        })
    }

    fn read_range(&self, id: ObjectId, range: Range<u64>) -> Result<Option<Bytes>> {
        let size = self.size(id)?;
        if self.is(StoreFlaw::RangesBeyondTheEndFail) && size.is_some_and(|size| range.end > size) {
            return Err(Error::store("the range ends beyond the object"));
        }
        self.inner.read_range(id, range)
    }
}

impl Store for TestStore {
    fn write(&self, object: Object) -> Result<ObjectId> {
        let id = object.id();
        if self.is(StoreFlaw::SecondWriteRemoves) && self.inner.evict(id) {
            return Ok(id);
        }
        if self.is(StoreFlaw::LosesConcurrentWrites) {
            let others = self.writers.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            self.writers.fetch_sub(1, Ordering::SeqCst);
            if others > 0 {
                return Ok(id);
            }
        }
        self.inner.write(object)
    }

    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        let found = self.inner.look_up(request)?;
        if found.is_none() && self.is(StoreFlaw::ObjectsAreEntries) {
            let kind = self.inner.kind(request)?;
            return Ok(kind.map(|kind| ObjectRef { kind, id: request }));
        }
        Ok(found)
    }

    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        if self.is(StoreFlaw::KeepsTheFirstEntry) && self.inner.look_up(request)?.is_some() {
            return Ok(());
        }
        self.inner.record(request, outcome)
    }

    fn record_run(
        &self,
        request: ObjectId,
        outcome: Option<ObjectRef>,
        run: RunRecord,
    ) -> Result<()> {
        let kept = self.inner.run_record(request)?;
        let kept = kept.filter(|_| self.is(StoreFlaw::KeepsTheFirstRun));
        self.inner.record_run(request, outcome, kept.unwrap_or(run))
    }

    fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>> {
        self.inner.run_record(request)
    }

    fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>> {
        self.inner.run_records()
    }

    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        if self.is(StoreFlaw::KeepsTheFirstPin) && self.inner.pinned(request)?.is_some() {
            return Ok(());
        }
        if self.is(StoreFlaw::PinsAreEntries) {
            self.inner.record(request, outcome)?;
        }
        self.inner.pin(request, outcome)
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        Ok(self.inner.unpin(request)? || self.is(StoreFlaw::UnpinIsAlwaysTrue))
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        if self.is(StoreFlaw::PinsAreNotDurable) && self.is_reopened.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.inner.pinned(request)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        let mut pins = self.inner.pins()?;
        if self.is(StoreFlaw::ListsOnePinLess) {
            pins.pop();
        }
        Ok(pins)
    }

    fn keeps_everything(&self) -> bool {
        self.is(StoreFlaw::ClaimsToKeepEverything)
    }
}

/// Supplies test stores. Reopening one keeps its data in memory.
pub(crate) struct TestStores {
    flaw: Option<StoreFlaw>,
    last: Mutex<Option<Arc<TestStore>>>,
}

impl TestStores {
    /// Stores without flaws.
    pub(crate) fn new() -> Self {
        Self { flaw: None, last: Mutex::default() }
    }

    /// Stores with a flaw.
    pub(crate) fn with_flaw(flaw: StoreFlaw) -> Self {
        Self { flaw: Some(flaw), last: Mutex::default() }
    }

    fn last(&self) -> Arc<TestStore> {
        self.last.lock().unwrap().clone().unwrap()
    }
}

impl StoreFixture for TestStores {
    fn store(&self) -> Arc<dyn Store> {
        let store = Arc::new(TestStore {
            inner: MemoryStore::new(),
            flaw: self.flaw,
            writers: AtomicUsize::new(0),
            is_reopened: AtomicBool::new(false),
        });
        *self.last.lock().unwrap() = Some(Arc::clone(&store));
        store
    }

    fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        self.last().is_reopened.store(self.flaw.is_some(), Ordering::SeqCst);
        Some(store)
    }

    fn collect(&self, _: &Arc<dyn Store>) -> bool {
        self.last().collect();
        true
    }
}
