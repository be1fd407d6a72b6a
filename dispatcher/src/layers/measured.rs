//! [`Measured`]: counts operations and measures time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use manifold_runtime_api::{
    Capabilities, Code, Host, HostImage, Job, Limits, Object, ObjectId, ObjectKind, ObjectRef,
    Result, Runtime, async_trait,
};

use crate::source::ObjectSource;
use crate::store::{Pin, RunRecord, Store};
use crate::through::description_through;

/// A source, store or runtime whose operations are counted and timed.
#[derive(Debug)]
pub struct Measured<T> {
    inner: T,
    counters: Arc<Counters>,
}

/// The counts of a [`Measured`] up to a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Measures {
    /// The number of objects and kinds that were asked for.
    pub reads: u64,
    /// How many of these `reads` found nothing.
    pub absent: u64,
    /// The total length of the objects that were read, in bytes.
    pub bytes_read: u64,
    /// The number of objects that were written.
    pub writes: u64,
    /// The total length of the objects that were written, in bytes.
    pub bytes_written: u64,
    /// The number of memo lookups.
    pub look_ups: u64,
    /// How many of these `look_ups` found an outcome.
    pub found: u64,
    /// The number of memo entries and runs that were recorded.
    pub records: u64,
    /// The number of other operations: pins that were set, looked up, removed or listed, records of
    /// runs that were looked up or listed, lists of all entries, and flushes.
    pub other: u64,
    /// The number of jobs that were run.
    pub jobs: u64,
    /// The number of operations and jobs that failed.
    pub failures: u64,
    /// The total time of all operations and jobs, summed over all threads. A job's time includes
    /// the time that it waits.
    pub time: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    absent: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    look_ups: AtomicU64,
    found: AtomicU64,
    records: AtomicU64,
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

    /// Returns the counts so far.
    pub fn measures(&self) -> Measures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &*self.counters;
        Measures {
            reads: read(&counters.reads),
            absent: read(&counters.absent),
            bytes_read: read(&counters.bytes_read),
            writes: read(&counters.writes),
            bytes_written: read(&counters.bytes_written),
            look_ups: read(&counters.look_ups),
            found: read(&counters.found),
            records: read(&counters.records),
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

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        let size = self.timed(&self.counters.reads, |inner| inner.size(id))?;
        add(&self.counters.absent, u64::from(size.is_none()));
        Ok(size)
    }

    fn read_range(&self, id: ObjectId, range: Range<u64>) -> Result<Option<Bytes>> {
        let content = self.timed(&self.counters.reads, |inner| inner.read_range(id, range))?;
        match &content {
            Some(content) => add(&self.counters.bytes_read, content.len() as u64),
            None => add(&self.counters.absent, 1),
        }
        Ok(content)
    }
}

impl<T: Store> Store for Measured<T> {
    fn write(&self, object: Object) -> Result<ObjectId> {
        add(&self.counters.bytes_written, object.content.len() as u64);
        self.timed(&self.counters.writes, |inner| inner.write(object))
    }

    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        let outcome = self.timed(&self.counters.look_ups, |inner| inner.look_up(request))?;
        add(&self.counters.found, u64::from(outcome.is_some()));
        Ok(outcome)
    }

    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.timed(&self.counters.records, |inner| inner.record(request, outcome))
    }

    fn look_up_with_object(&self, request: ObjectId) -> Result<Option<(ObjectRef, bool)>> {
        let found =
            self.timed(&self.counters.look_ups, |inner| inner.look_up_with_object(request))?;
        add(&self.counters.found, u64::from(found.is_some()));
        Ok(found)
    }

    fn record_run(
        &self,
        request: ObjectId,
        outcome: Option<ObjectRef>,
        run: RunRecord,
    ) -> Result<()> {
        self.timed(&self.counters.records, |inner| inner.record_run(request, outcome, run))
    }

    fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>> {
        self.timed(&self.counters.other, |inner| inner.run_record(request))
    }

    fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>> {
        self.timed(&self.counters.other, Store::run_records)
    }

    fn entries(&self) -> Result<Vec<(ObjectId, ObjectRef)>> {
        self.timed(&self.counters.other, Store::entries)
    }

    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.timed(&self.counters.other, |inner| inner.pin(request, outcome))
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.timed(&self.counters.other, |inner| inner.unpin(request))
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.timed(&self.counters.other, |inner| inner.pinned(request))
    }

    fn pinned_at(&self, request: ObjectId) -> Result<Option<SystemTime>> {
        self.timed(&self.counters.other, |inner| inner.pinned_at(request))
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

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let start = Instant::now();
        let result = self.inner.run(job, host).await;
        self.count(&self.counters.jobs, start, &result);
        result
    }
}
