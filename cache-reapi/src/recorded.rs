//! [`Recorded`]: a store that notes which memo entries are recorded.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use manifold_dispatcher::{ObjectSource, Pin, RunRecord, Store};
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Result};
use parking_lot::Mutex;

/// The largest number of entries that wait to be sent.
const MAX_WAITING: usize = 4_000_000;

/// A store that notes which memo entries are recorded, so that they can be sent to a shared cache.
pub struct Recorded {
    store: Arc<dyn Store>,
    /// `None` when nothing is noted any more.
    waiting: Mutex<Option<Vec<(ObjectId, ObjectRef)>>>,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}

impl Recorded {
    /// Creates a store that keeps everything in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, waiting: Mutex::new(Some(Vec::new())) }
    }

    /// Returns the store that keeps everything.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns the number of entries that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().as_ref().map_or(0, Vec::len)
    }

    /// Notes nothing more, and forgets what waits to be sent.
    pub fn stop(&self) {
        *self.waiting.lock() = None;
    }

    /// Takes at most `count` of the entries that wait to be sent.
    pub(crate) fn take(&self, count: usize) -> Vec<(ObjectId, ObjectRef)> {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_mut() else { return Vec::new() };
        let rest = waiting.len().saturating_sub(count);
        waiting.split_off(rest)
    }
}

impl ObjectSource for Recorded {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        self.store.read(id)
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        self.store.kind(id)
    }

    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        self.store.kind_in_memory(id)
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        self.store.size(id)
    }

    fn read_range(&self, id: ObjectId, range: Range<u64>) -> Result<Option<Bytes>> {
        self.store.read_range(id, range)
    }
}

impl Recorded {
    /// Notes an outcome that is to be sent. What is not sent is computed elsewhere.
    fn waits(&self, request: ObjectId, outcome: ObjectRef) {
        if let Some(waiting) = self.waiting.lock().as_mut().filter(|all| all.len() < MAX_WAITING) {
            waiting.push((request, outcome));
        }
    }
}

impl Store for Recorded {
    fn write(&self, object: Object) -> Result<ObjectId> {
        self.store.write(object)
    }

    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.store.look_up(request)
    }

    fn look_up_with_object(&self, request: ObjectId) -> Result<Option<(ObjectRef, bool)>> {
        self.store.look_up_with_object(request)
    }

    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.store.record(request, outcome)?;
        self.waits(request, outcome);
        Ok(())
    }

    fn record_run(
        &self,
        request: ObjectId,
        outcome: Option<ObjectRef>,
        run: RunRecord,
    ) -> Result<()> {
        self.store.record_run(request, outcome, run)?;
        if let Some(outcome) = outcome {
            self.waits(request, outcome);
        }
        Ok(())
    }

    fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>> {
        self.store.run_record(request)
    }

    fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>> {
        self.store.run_records()
    }

    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.store.pin(request, outcome)
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.store.unpin(request)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.store.pinned(request)
    }

    fn pinned_at(&self, request: ObjectId) -> Result<Option<SystemTime>> {
        self.store.pinned_at(request)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        self.store.pins()
    }

    fn entries(&self) -> Result<Vec<(ObjectId, ObjectRef)>> {
        self.store.entries()
    }

    fn keeps_everything(&self) -> bool {
        self.store.keeps_everything()
    }

    fn flush(&self) -> Result<()> {
        self.store.flush()
    }
}
