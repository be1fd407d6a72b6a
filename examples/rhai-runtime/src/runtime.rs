//! [`RhaiRuntime`]: loads a job's module, starts its guest, and performs the guest's operations.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use manifold_runtime_api::abi::{self, Session};
use manifold_runtime_api::{
    Capabilities, Code, Host, HostImage, Job, Limits, ObjectRef, Result, Runtime, async_trait,
};
use tokio::sync::mpsc;
use tokio_util::task::LocalPoolHandle;

use crate::engine::{self, Engines};
use crate::guest;
use crate::program::Programs;

/// Runs guests that are written in [rhai](https://rhai.rs).
pub struct RhaiRuntime {
    host_image: HostImage,
    engines: Engines,
    programs: Programs,
    threads: LocalPoolHandle,
}

impl RhaiRuntime {
    /// Creates a runtime with one thread per core for its guests.
    ///
    /// # Errors
    /// [`Reason::BadTree`](manifold_runtime_api::Reason::BadTree) if the host image is invalid.
    pub fn new() -> Result<Self> {
        Self::with_threads(available_parallelism().map_or(1, NonZero::get))
    }

    /// Creates a runtime with this number of threads for its guests, at least 1.
    ///
    /// # Errors
    /// [`Reason::BadTree`](manifold_runtime_api::Reason::BadTree) if the host image is invalid.
    pub fn with_threads(threads: usize) -> Result<Self> {
        let settings = engine::SETTINGS.into_iter();
        let description = HostImage::new("rhai").with("abi-revision", abi::REVISION);
        Ok(Self {
            host_image: settings
                .fold(description, |description, (name, value)| description.with(name, value))
                .seal()?,
            engines: Engines::new(),
            programs: Programs::new(),
            threads: LocalPoolHandle::new(threads.max(1)),
        })
    }
}

impl fmt::Debug for RhaiRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RhaiRuntime").field("host_image", &self.host_image).finish_non_exhaustive()
    }
}

#[async_trait]
impl Runtime for RhaiRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_fuel()
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.programs.get(code.own_module()?, limits, &self.engines, host).await.map(drop)
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let module = job.code.own_module()?;
        let ast = self.programs.get(module, &job.limits, &self.engines, &*host).await?;
        let (sender, mut operations) = mpsc::channel(1);
        let running = guest::start(&self.threads, self.engines.clone(), ast, job.clone(), sender);
        let session = Session::new(job, host);
        // The operations are performed here and not on the guest's thread, because this future is
        // what the dispatcher watches: while it waits for a nested run, the frame has no permit.
        while let Some((operation, reply)) = operations.recv().await {
            let answer = session.operate(operation).await;
            if session.has_ended() {
                // Dropping `running` stops the guest.
                return session.finish(Ok(()));
            }
            // This fails if the guest was stopped. Its result says why.
            let _ = reply.send(answer);
        }
        session.finish(running.end().await)
    }
}
