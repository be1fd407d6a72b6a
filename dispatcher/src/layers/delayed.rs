//! [`Delayed`]: adds latency.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use manifold_runtime_api::{
    Capabilities, Code, Host, HostImage, Job, Limits, Object, ObjectId, ObjectKind, ObjectRef,
    Result, Runtime, async_trait,
};

use crate::source::ObjectSource;
use crate::store::{Pin, Store};
use crate::through::{description_through, source_through, store_through};

/// A source, store or runtime that is slower by a fixed delay, to simulate a disk, a network or a
/// cold container.
#[derive(Debug)]
pub struct Delayed<T> {
    inner: T,
    delay: Duration,
}

impl<T> Delayed<T> {
    /// Wraps `inner` and delays each of its operations by `delay`. A source or store blocks its
    /// thread during the delay, as a disk does. A runtime does not.
    pub fn new(inner: T, delay: Duration) -> Self {
        Self { inner, delay }
    }

    /// Sleeps for the delay and returns the inner source or store.
    fn delayed(&self) -> &T {
        thread::sleep(self.delay);
        &self.inner
    }
}

impl<T: ObjectSource> ObjectSource for Delayed<T> {
    source_through!(self => self.delayed());
}

impl<T: Store> Store for Delayed<T> {
    store_through!(self => self.delayed());
}

#[async_trait]
impl<T: Runtime> Runtime for Delayed<T> {
    description_through!(self => self.inner);

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.inner.prepare(code, limits, host).await
    }

    /// Waits for the delay on a timer of the current tokio runtime.
    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        tokio::time::sleep(self.delay).await;
        self.inner.run(job, host).await
    }
}
