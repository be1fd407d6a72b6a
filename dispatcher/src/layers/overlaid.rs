//! [`Overlaid`]: a writable store over a read-only one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Result};

use crate::source::ObjectSource;
use crate::store::{Pin, RunRecord, Store};

/// A store over another one that is only read. Objects, memo entries and pins are written to the
/// upper store. Lookups ask the upper store first, then the lower one.
#[derive(Debug)]
pub struct Overlaid<U, L> {
    upper: U,
    lower: L,
}

impl<U, L> Overlaid<U, L> {
    /// Creates a store that writes to `upper`, and reads from `upper` and `lower`.
    pub fn new(upper: U, lower: L) -> Self {
        Self { upper, lower }
    }
}

impl<U: ObjectSource, L: ObjectSource> ObjectSource for Overlaid<U, L> {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        either(self.upper.read(id), || self.lower.read(id))
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        either(self.upper.kind(id), || self.lower.kind(id))
    }

    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        self.upper.kind_in_memory(id).or_else(|| self.lower.kind_in_memory(id))
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        either(self.upper.size(id), || self.lower.size(id))
    }

    fn read_range(&self, id: ObjectId, range: Range<u64>) -> Result<Option<Bytes>> {
        either(self.upper.read_range(id, range.clone()), || self.lower.read_range(id, range))
    }
}

impl<U: Store, L: Store> Store for Overlaid<U, L> {
    fn write(&self, object: Object) -> Result<ObjectId> {
        self.upper.write(object)
    }

    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        either(self.upper.look_up(request), || self.lower.look_up(request))
    }

    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.upper.record(request, outcome)
    }

    fn record_run(
        &self,
        request: ObjectId,
        outcome: Option<ObjectRef>,
        run: RunRecord,
    ) -> Result<()> {
        self.upper.record_run(request, outcome, run)
    }

    fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>> {
        either(self.upper.run_record(request), || self.lower.run_record(request))
    }

    fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>> {
        Ok(both(self.lower.run_records()?, self.upper.run_records()?))
    }

    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.upper.pin(request, outcome)
    }

    /// Removes a pin of the upper store. A pin of the lower store stays.
    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.upper.unpin(request)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        either(self.upper.pinned(request), || self.lower.pinned(request))
    }

    fn pinned_at(&self, request: ObjectId) -> Result<Option<SystemTime>> {
        either(self.upper.pinned_at(request), || self.lower.pinned_at(request))
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        let pins = self.lower.pins()?.into_iter().chain(self.upper.pins()?);
        Ok(pins.map(|pin| (pin.request, pin)).collect::<BTreeMap<_, _>>().into_values().collect())
    }

    fn entries(&self) -> Result<Vec<(ObjectId, ObjectRef)>> {
        Ok(both(self.lower.entries()?, self.upper.entries()?))
    }

    fn flush(&self) -> Result<()> {
        self.upper.flush()
    }
}

/// Returns what either store has for each request: if both have something, that of the upper one.
fn both<T>(lower: Vec<(ObjectId, T)>, upper: Vec<(ObjectId, T)>) -> Vec<(ObjectId, T)> {
    lower.into_iter().chain(upper).collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// Returns the result of `first`, or that of `second` if `first` found nothing.
fn either<T>(
    first: Result<Option<T>>,
    second: impl FnOnce() -> Result<Option<T>>,
) -> Result<Option<T>> {
    match first? {
        Some(found) => Ok(Some(found)),
        None => second(),
    }
}
