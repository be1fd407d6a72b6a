use std::collections::HashMap;
use std::sync::Arc;

use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, Job, Limits, Object, ObjectId, ObjectKind, Outcome,
    Reason, Result, Runtime, Status, async_trait,
};
use parking_lot::Mutex;

use crate::store::{ObjectSource, Pin, Store};
use crate::through::description_through;

/// What goes wrong, how often. Chances are from 0 to 1; which operation they hit follows from the seed, the operation, what it
/// is about, and how often that was asked before, and from nothing else.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// Decides who is hit.
    pub seed: u64,
    /// The chance that an object is lost after it was written: some reads find it, and then none does until it is written again.
    pub loss: f64,
    /// How often one object may be lost.
    pub losses_of_one: u32,
    /// The chance that an operation or a job fails with a transient error, and does nothing.
    pub failure: f64,
    /// The chance that a write, a memo entry or a pin arrives although the operation fails.
    pub partial_write: f64,
    /// The chance that a memo entry does not arrive although the operation succeeds.
    pub forgotten: f64,
}

impl Faults {
    /// No faults, with a seed for those that are chosen then.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, loss: 0.0, losses_of_one: 1, failure: 0.0, partial_write: 0.0, forgotten: 0.0 }
    }
}

/// A store or runtime with [`Faults`], to test what is built on it.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    faults: Faults,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    /// How often each operation was asked about each id.
    asked: HashMap<(&'static str, ObjectId), u64>,
    /// How often an object may still be read before it is lost.
    doomed: HashMap<ObjectId, u64>,
    losses: HashMap<ObjectId, u32>,
}

/// At the most so many reads find an object that is to be lost.
const READS_BEFORE_LOSS: u64 = 6;

impl<T> Faulty<T> {
    /// Wraps a store or runtime.
    pub fn new(inner: T, faults: Faults) -> Self {
        Self { inner, faults, history: Mutex::default() }
    }

    /// What is inside, without faults.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// How many objects were lost so far.
    pub fn losses(&self) -> u64 {
        self.history.lock().losses.values().map(|count| u64::from(*count)).sum()
    }

    /// A number from 0 to 1 for this occurrence of `operation` on `id`.
    fn roll(&self, operation: &'static str, id: ObjectId) -> f64 {
        let mut history = self.history.lock();
        let asked = history.asked.entry((operation, id)).or_default();
        *asked += 1;
        let text = format!("{} {operation} {id} {asked}", self.faults.seed);
        let hash = ObjectId::of(ObjectKind::Blob, text.as_bytes());
        let number = hash
            .as_bytes()
            .iter()
            .take(6)
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        number as f64 / (1u64 << 48) as f64
    }

    fn fail(&self, operation: &'static str, id: ObjectId) -> Result<()> {
        if self.faults.failure > 0.0 && self.roll(operation, id) < self.faults.failure {
            return Err(fault(operation, id));
        }
        Ok(())
    }

    fn fail_late(&self, operation: &'static str, id: ObjectId) -> Result<()> {
        if self.faults.partial_write > 0.0 && self.roll(operation, id) < self.faults.partial_write {
            return Err(fault(operation, id));
        }
        Ok(())
    }

    /// Whether a read finds nothing, as the object is lost.
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

    /// An object was written: it is there again, and may be lost again.
    fn written(&self, id: ObjectId) {
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
    let problem = format!("an injected fault: `{operation}` on {id}");
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
}

impl<T: Store> Store for Faulty<T> {
    fn write(&self, object: Object) -> Result<ObjectId> {
        let id = object.id();
        self.fail("write", id)?;
        let id = self.inner.write(object)?;
        self.written(id);
        self.fail_late("write, half done,", id)?;
        Ok(id)
    }

    fn recall(&self, request: ObjectId) -> Result<Option<Outcome>> {
        self.fail("recall", request)?;
        self.inner.recall(request)
    }

    fn remember(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.fail("remember", request)?;
        if self.faults.forgotten > 0.0 && self.roll("forget", request) < self.faults.forgotten {
            return Ok(());
        }
        self.inner.remember(request, outcome)?;
        self.fail_late("remember, half done,", request)
    }

    fn pin(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.fail("pin", request)?;
        self.inner.pin(request, outcome)?;
        self.fail_late("pin, half done,", request)
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.fail("unpin", request)?;
        self.inner.unpin(request)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<Outcome>> {
        self.inner.pinned(request)
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

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<Outcome> {
        if self.faults.failure > 0.0 && self.roll("run", job.request) < self.faults.failure {
            let problem = format!("an injected fault: the run of {}", job.request);
            return Err(Error::new(Reason::RuntimeFailed { problem, status: Status::Transient }));
        }
        self.inner.run(job, host).await
    }
}
