//! [`Faulty`]: injects faults.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, Job, Limits, Object, ObjectId, ObjectKind,
    ObjectRef, Reason, Result, Runtime, Status, async_trait,
};
use parking_lot::Mutex;

use crate::source::ObjectSource;
use crate::store::{Pin, RunRecord, Store};
use crate::through::description_through;

/// The kinds of faults to inject, and their probabilities from 0 to 1.
///
/// Whether a fault hits an operation is a function of the seed, the operation, the id of its object
/// or request, and the number of earlier calls of that operation with that id.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// Selects the operations that are hit.
    pub seed: u64,
    /// The probability that an object is lost after it was written. One to six reads still find it.
    /// Later reads return `None` until the object is written again.
    pub loss: f64,
    /// How often the same object may be lost. [`Faults::seeded`] sets it to 1.
    pub losses_of_one: u32,
    /// The probability that an operation or a job fails with a transient error and has no effect.
    pub failure: f64,
    /// The probability that a write, a memo entry or a pin is stored although the operation returns
    /// an error.
    pub partial_write: f64,
    /// The probability that a memo entry is not stored although the operation succeeds.
    pub forgotten: f64,
}

impl Faults {
    /// Sets [`Faults::seed`](#structfield.seed).
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets [`Faults::loss`](#structfield.loss).
    #[must_use]
    pub const fn loss(mut self, loss: f64) -> Self {
        self.loss = loss;
        self
    }

    /// Sets [`Faults::losses_of_one`](#structfield.losses_of_one).
    #[must_use]
    pub const fn losses_of_one(mut self, losses_of_one: u32) -> Self {
        self.losses_of_one = losses_of_one;
        self
    }

    /// Sets [`Faults::failure`](#structfield.failure).
    #[must_use]
    pub const fn failure(mut self, failure: f64) -> Self {
        self.failure = failure;
        self
    }

    /// Sets [`Faults::partial_write`](#structfield.partial_write).
    #[must_use]
    pub const fn partial_write(mut self, partial_write: f64) -> Self {
        self.partial_write = partial_write;
        self
    }

    /// Sets [`Faults::forgotten`](#structfield.forgotten).
    #[must_use]
    pub const fn forgotten(mut self, forgotten: f64) -> Self {
        self.forgotten = forgotten;
        self
    }
}

impl Faults {
    /// Creates a set of faults with this seed, in which all probabilities are 0.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, loss: 0.0, losses_of_one: 1, failure: 0.0, partial_write: 0.0, forgotten: 0.0 }
    }
}

/// A source, store or runtime with injected [`Faults`], to test the code that uses it.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    faults: Faults,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    /// How often each operation was called with each id.
    calls: HashMap<(&'static str, ObjectId), u64>,
    /// The objects that are lost after this number of further reads.
    doomed: HashMap<ObjectId, u64>,
    /// How often each object was lost.
    losses: HashMap<ObjectId, u32>,
}

/// How many reads find an object before it is lost, at most.
const READS_BEFORE_LOSS: u64 = 6;

impl<T> Faulty<T> {
    /// Wraps a source, store or runtime.
    pub fn new(inner: T, faults: Faults) -> Self {
        Self { inner, faults, history: Mutex::default() }
    }

    /// Returns the wrapped source, store or runtime, without faults.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// Returns how many objects were lost so far. An object that was lost twice counts twice.
    pub fn losses(&self) -> u64 {
        self.history.lock().losses.values().map(|count| u64::from(*count)).sum()
    }

    /// Returns a number from 0 to 1 that is determined by the seed and this call of `operation`
    /// with `id`.
    fn roll(&self, operation: &'static str, id: ObjectId) -> f64 {
        let mut history = self.history.lock();
        let calls = history.calls.entry((operation, id)).or_default();
        *calls += 1;
        let text = format!("{} {operation} {id} {calls}", self.faults.seed);
        let hash = ObjectId::of(ObjectKind::Blob, text.as_bytes());
        let number = hash
            .as_bytes()
            .iter()
            .take(6)
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        number as f64 / (1u64 << 48) as f64
    }

    /// Fails an operation before it has an effect.
    fn fail(&self, operation: &'static str, id: ObjectId) -> Result<()> {
        if self.faults.failure > 0.0 && self.roll(operation, id) < self.faults.failure {
            return Err(fault(operation, id));
        }
        Ok(())
    }

    /// Fails an operation after it had its effect.
    fn fail_after(&self, operation: &'static str, id: ObjectId) -> Result<()> {
        if self.faults.partial_write > 0.0 && self.roll(operation, id) < self.faults.partial_write {
            return Err(fault(operation, id));
        }
        Ok(())
    }

    /// Counts a read of an object. Returns whether the object is lost.
    fn is_lost(&self, id: ObjectId) -> bool {
        let mut history = self.history.lock();
        let Some(left) = history.doomed.get_mut(&id) else { return false };
        if *left == 0 {
            return true;
        }
        *left -= 1;
        if *left == 0 {
            *history.losses.entry(id).or_default() += 1;
        }
        false
    }

    /// Records that an object was written. A lost object is there again, and may be lost again.
    fn note_write(&self, id: ObjectId) {
        if self.faults.loss <= 0.0 {
            return;
        }
        let roll = self.roll("lose", id);
        let mut history = self.history.lock();
        let losses = history.losses.get(&id).copied().unwrap_or_default();
        if history.doomed.get(&id).is_some_and(|left| *left > 0) {
            return;
        }
        history.doomed.remove(&id);
        if losses < self.faults.losses_of_one && roll < self.faults.loss {
            let reads = 1 + (roll / self.faults.loss * READS_BEFORE_LOSS as f64) as u64;
            history.doomed.insert(id, reads);
        }
    }
}

fn fault(operation: &str, id: ObjectId) -> Error {
    let problem = format!("injected fault: `{operation}` on {id}");
    Error::new(Reason::StoreFailed { problem, status: Status::Transient })
}

impl<T: ObjectSource> ObjectSource for Faulty<T> {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        self.fail("read", id)?;
        if self.is_lost(id) { Ok(None) } else { self.inner.read(id) }
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        self.fail("kind", id)?;
        if self.is_lost(id) { Ok(None) } else { self.inner.kind(id) }
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        self.fail("size", id)?;
        if self.is_lost(id) { Ok(None) } else { self.inner.size(id) }
    }

    fn read_range(&self, id: ObjectId, range: Range<u64>) -> Result<Option<Bytes>> {
        self.fail("read_range", id)?;
        if self.is_lost(id) { Ok(None) } else { self.inner.read_range(id, range) }
    }
}

impl<T: Store> Faulty<T> {
    /// Records something about a request, unless that fails or is forgotten.
    fn may_forget(&self, request: ObjectId, record: impl FnOnce() -> Result<()>) -> Result<()> {
        self.fail("record", request)?;
        if self.faults.forgotten > 0.0 && self.roll("forget", request) < self.faults.forgotten {
            return Ok(());
        }
        record()?;
        self.fail_after("record, half done,", request)
    }
}

impl<T: Store> Store for Faulty<T> {
    fn write(&self, object: Object) -> Result<ObjectId> {
        let id = object.id();
        self.fail("write", id)?;
        let id = self.inner.write(object)?;
        self.note_write(id);
        self.fail_after("write, half done,", id)?;
        Ok(id)
    }

    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.fail("look_up", request)?;
        self.inner.look_up(request)
    }

    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.may_forget(request, || self.inner.record(request, outcome))
    }

    fn record_run(
        &self,
        request: ObjectId,
        outcome: Option<ObjectRef>,
        run: RunRecord,
    ) -> Result<()> {
        self.may_forget(request, || self.inner.record_run(request, outcome, run))
    }

    fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>> {
        self.inner.run_record(request)
    }

    fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>> {
        self.inner.run_records()
    }

    fn entries(&self) -> Result<Vec<(ObjectId, ObjectRef)>> {
        self.inner.entries()
    }

    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.fail("pin", request)?;
        self.inner.pin(request, outcome)?;
        self.fail_after("pin, half done,", request)
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.fail("unpin", request)?;
        self.inner.unpin(request)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.inner.pinned(request)
    }

    fn pinned_at(&self, request: ObjectId) -> Result<Option<SystemTime>> {
        self.inner.pinned_at(request)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        self.inner.pins()
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
}

#[async_trait]
impl<T: Runtime> Runtime for Faulty<T> {
    description_through!(self => self.inner);

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.inner.prepare(code, limits, host).await
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        if self.faults.failure > 0.0 && self.roll("run", job.request) < self.faults.failure {
            let problem = format!("injected fault: run of {}", job.request);
            return Err(Error::new(Reason::RuntimeFailed { problem, status: Status::Transient }));
        }
        self.inner.run(job, host).await
    }
}
