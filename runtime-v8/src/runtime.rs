//! [`V8Runtime`]: the runtime, its settings, and its host image.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use deno_core::v8;
use manifold_runtime_api::abi;
use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, Job, Limits, ObjectId, ObjectKind, ObjectRef,
    Reason, Result, Runtime, async_trait,
};
use parking_lot::Mutex;

use crate::engine;
use crate::job::{self, Attempt};
use crate::pool::Pool;
use crate::prepare::{Programs, TRANSPILER};
use crate::snapshot;

/// Runs TypeScript and JavaScript guests on V8.
///
/// Every job gets fresh globals in a warm isolate. A job that waits for nested runs holds these
/// globals and no thread.
pub struct V8Runtime {
    host_image: HostImage,
    programs: Programs,
    pool: OnceLock<Arc<Pool>>,
    /// Held while the pool is started, which is tried again if it fails.
    starting: Mutex<()>,
    threads: usize,
    dynamic_code: bool,
    next_frame: AtomicU64,
}

/// Builder of a [`V8Runtime`]. Created by [`V8Runtime::builder`].
#[derive(Debug, Clone)]
pub struct V8RuntimeBuilder {
    threads: usize,
    dynamic_code: bool,
}

impl fmt::Debug for V8Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("V8Runtime")
            .field("host_image", &self.host_image)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl V8Runtime {
    /// Creates a runtime with default settings.
    ///
    /// V8's flags apply to the whole process. A program that also uses V8 for something else has to
    /// run its first job on this runtime before that.
    ///
    /// # Errors
    /// Same as [`V8RuntimeBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Returns a builder with default settings.
    pub fn builder() -> V8RuntimeBuilder {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        V8RuntimeBuilder { threads, dynamic_code: false }
    }

    /// Returns the V8 threads, and starts them if they have not been.
    fn pool(&self) -> Result<&Arc<Pool>> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let _starting = self.starting.lock();
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        snapshot::blob()?;
        let pool = Pool::start(self.threads, self.dynamic_code)?;
        Ok(self.pool.get_or_init(|| Arc::new(pool)))
    }
}

impl V8RuntimeBuilder {
    /// Sets the number of threads that run guests, at least 1. The default is the available
    /// parallelism. It does not influence outcomes.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets whether guests may compile code from text, with `eval` and `new Function`. The default
    /// is `false`. Part of the host image.
    #[must_use]
    pub fn dynamic_code(mut self, allowed: bool) -> Self {
        self.dynamic_code = allowed;
        self
    }

    /// Creates the runtime. V8 itself is started by the first job.
    ///
    /// # Errors
    /// Returns an error if the settings do not form a valid host image.
    pub fn build(self) -> Result<V8Runtime> {
        let prelude = ObjectId::of(ObjectKind::Blob, snapshot::PRELUDE.as_bytes());
        let host_image = HostImage::new("v8")
            .with("engine", v8::V8::get_version())
            .with("processor", std::env::consts::ARCH)
            .with("flags", engine::FLAGS)
            .with("locale", engine::LOCALE)
            .with("time zone", engine::TIME_ZONE)
            .with("transpiler", TRANSPILER)
            .with("abi", abi::NAME)
            .with("prelude", prelude)
            .with("dynamic code", self.dynamic_code)
            .seal()?;
        Ok(V8Runtime {
            host_image,
            programs: Programs::new(),
            pool: OnceLock::new(),
            starting: Mutex::new(()),
            threads: self.threads,
            dynamic_code: self.dynamic_code,
            next_frame: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl Runtime for V8Runtime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_tree_modules()
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.programs.get(code.own_module()?, limits, host, self.pool()?).await.map(|_| ())
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let pool = self.pool()?;
        let program = self.programs.get(job.code.own_module()?, &job.limits, &*host, pool).await?;
        let _awake = pool.awake();
        let mut alone = false;
        for _ in 0..MAX_ATTEMPTS {
            let id = self.next_frame.fetch_add(1, Ordering::Relaxed);
            match job::attempt(id, &job, &program, &host, pool, alone).await {
                Attempt::Ended(outcome) => return outcome,
                Attempt::Evicted { suspect } => alone |= suspect,
            }
        }
        Err(Error::new(Reason::RuntimeFailed {
            problem: format!(
                "the guest was evicted {MAX_ATTEMPTS} times because other guests exhausted the V8 \
                 heap or lost the V8 thread"
            ),
            status: manifold_runtime_api::Status::Transient,
        }))
    }
}

/// How often a guest is started if it keeps being evicted.
const MAX_ATTEMPTS: usize = 32;
