use std::sync::Arc;
use std::thread;
use std::time::Duration;

use manifold_runtime_api::{
    Capabilities, Code, Host, HostImage, Job, Limits, Object, ObjectId, ObjectKind, Outcome,
    Result, Runtime, async_trait,
};

use crate::store::{ObjectSource, Pin, Store};
use crate::through::{description_through, source_through, store_through};

/// Makes a source, store or runtime slower, as a disk, a network or a cold container would be.
#[derive(Debug)]
pub struct Delayed<T> {
    inner: T,
    delay: Duration,
}

impl<T> Delayed<T> {
    /// Wraps `inner`, whose every operation takes `delay` longer. A store blocks its thread meanwhile, as a disk does; a
    /// runtime does not.
    pub fn new(inner: T, delay: Duration) -> Self {
        Self { inner, delay }
    }

    fn late(&self) -> &T {
        thread::sleep(self.delay);
        &self.inner
    }
}

impl<T: ObjectSource> ObjectSource for Delayed<T> {
    source_through!(self => self.late());
}

impl<T: Store> Store for Delayed<T> {
    store_through!(self => self.late());
}

#[async_trait]
impl<T: Runtime> Runtime for Delayed<T> {
    description_through!(self => self.inner);

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.inner.prepare(code, limits, host).await
    }

    /// The delay takes a timer of the tokio runtime around.
    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<Outcome> {
        tokio::time::sleep(self.delay).await;
        self.inner.run(job, host).await
    }
}
