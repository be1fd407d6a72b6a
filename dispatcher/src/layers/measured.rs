use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use manifold_runtime_api::{
    Capabilities, Code, Host, HostImage, Job, Limits, Object, ObjectId, ObjectKind, Outcome,
    Result, Runtime, async_trait,
};

use crate::store::{ObjectSource, Pin, Store};
use crate::through::description_through;

/// Counts what a source, store or runtime does.
#[derive(Debug)]
pub struct Measured<T> {
    inner: T,
    counters: Arc<Counters>,
}

/// What a [`Measured`] counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Measures {
    /// Objects and kinds asked for.
    pub reads: u64,
    /// Of those, the ones that were not there.
    pub absent: u64,
    /// The bytes of objects that were read.
    pub bytes_read: u64,
    /// Objects written.
    pub writes: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Outcomes asked for.
    pub recalls: u64,
    /// Of those, the ones that were remembered.
    pub recalled: u64,
    /// Outcomes to be remembered.
    pub remembered: u64,
    /// Pins set, asked for, taken away or listed, and flushes.
    pub other: u64,
    /// Jobs run.
    pub jobs: u64,
    /// Operations and jobs that ended in an error.
    pub failures: u64,
    /// The time that all of it took, in all threads together. A job's time includes what it waits.
    pub time: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    absent: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    recalls: AtomicU64,
    recalled: AtomicU64,
    remembered: AtomicU64,
    other: AtomicU64,
    jobs: AtomicU64,
    failures: AtomicU64,
    nanoseconds: AtomicU64,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl<T> Measured<T> {
    /// Wraps a source, store or runtime.
    pub fn new(inner: T) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// What was counted so far.
    pub fn measures(&self) -> Measures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &*self.counters;
        Measures {
            reads: read(&counters.reads),
            absent: read(&counters.absent),
            bytes_read: read(&counters.bytes_read),
            writes: read(&counters.writes),
            bytes_written: read(&counters.bytes_written),
            recalls: read(&counters.recalls),
            recalled: read(&counters.recalled),
            remembered: read(&counters.remembered),
            other: read(&counters.other),
            jobs: read(&counters.jobs),
            failures: read(&counters.failures),
            time: Duration::from_nanos(read(&counters.nanoseconds)),
        }
    }

    fn timed<R>(&self, counter: &AtomicU64, operation: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        let start = Instant::now();
        let result = operation(&self.inner);
        self.count(counter, start, &result);
        result
    }

    fn count<R>(&self, counter: &AtomicU64, start: Instant, result: &Result<R>) {
        add(counter, 1);
        add(&self.counters.failures, u64::from(result.is_err()));
        add(
            &self.counters.nanoseconds,
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        );
    }
}

impl<T: ObjectSource> ObjectSource for Measured<T> {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        let object = self.timed(&self.counters.reads, |inner| inner.read(id))?;
        match &object {
            Some(object) => add(&self.counters.bytes_read, object.content.len() as u64),
            None => add(&self.counters.absent, 1),
        }
        Ok(object)
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        let kind = self.timed(&self.counters.reads, |inner| inner.kind(id))?;
        add(&self.counters.absent, u64::from(kind.is_none()));
        Ok(kind)
    }
}

impl<T: Store> Store for Measured<T> {
    fn write(&self, object: Object) -> Result<ObjectId> {
        add(&self.counters.bytes_written, object.content.len() as u64);
        self.timed(&self.counters.writes, |inner| inner.write(object))
    }

    fn recall(&self, request: ObjectId) -> Result<Option<Outcome>> {
        let outcome = self.timed(&self.counters.recalls, |inner| inner.recall(request))?;
        add(&self.counters.recalled, u64::from(outcome.is_some()));
        Ok(outcome)
    }

    fn remember(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.timed(&self.counters.remembered, |inner| inner.remember(request, outcome))
    }

    fn pin(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.timed(&self.counters.other, |inner| inner.pin(request, outcome))
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.timed(&self.counters.other, |inner| inner.unpin(request))
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<Outcome>> {
        self.timed(&self.counters.other, |inner| inner.pinned(request))
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        self.timed(&self.counters.other, Store::pins)
    }

    fn keeps_everything(&self) -> bool {
        self.inner.keeps_everything()
    }

    fn flush(&self) -> Result<()> {
        self.timed(&self.counters.other, Store::flush)
    }
}

#[async_trait]
impl<T: Runtime> Runtime for Measured<T> {
    description_through!(self => self.inner);

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.inner.prepare(code, limits, host).await
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<Outcome> {
        let start = Instant::now();
        let result = self.inner.run(job, host).await;
        self.count(&self.counters.jobs, start, &result);
        result
    }
}
