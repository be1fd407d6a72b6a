//! The runtime and its builder: compiles a job's module, chooses its engine, and runs it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use manifold_runtime_api::abi::{self, Session};
use manifold_runtime_api::{
    Capabilities, Code, Host, HostImage, Job, Limits, ObjectRef, Result, Runtime, async_trait,
};
use parking_lot::Mutex;

use crate::artifacts::Artifacts;
use crate::engines::{DETERMINISM, Engines, Placement, Settings, Target};
use crate::job::{self, Attempt};
use crate::prepare::{Compiled, ModuleCache};
use crate::ticker::Ticker;

/// Runs WebAssembly guests on wasmtime.
///
/// Every job gets a fresh instance: from a pool while it has free slots, and from the heap
/// otherwise. A job that waits for nested runs keeps its memory and a fiber, but holds no thread.
pub struct WasmRuntime {
    host_image: HostImage,
    modules: ModuleCache,
    /// Started by the first job.
    ticker: OnceLock<Ticker>,
    /// Held while the ticker is started, which is tried again if it fails.
    starting: Mutex<()>,
    max_table_elements: u64,
}

impl fmt::Debug for WasmRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmRuntime").field("host_image", &self.host_image).finish_non_exhaustive()
    }
}

/// Builder for a [`WasmRuntime`]. No setting can change the outcome of a request.
#[derive(Clone)]
pub struct WasmRuntimeBuilder {
    settings: Settings,
    artifacts: Option<PathBuf>,
}

impl fmt::Debug for WasmRuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmRuntimeBuilder")
            .field("pool_size", &self.settings.pool_size)
            .field("max_table_elements", &self.settings.max_table_elements)
            .field("artifacts", &self.artifacts)
            .finish_non_exhaustive()
    }
}

/// Default number of instances in the pool. Each reserves address space; memory is committed as
/// guests touch it.
const POOL_SIZE: u32 = 1000;

impl WasmRuntime {
    /// Creates a runtime with default settings.
    ///
    /// # Errors
    /// The errors of [`WasmRuntimeBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Returns a builder with default settings.
    pub fn builder() -> WasmRuntimeBuilder {
        let max_table_elements =
            usize::try_from(Limits::default().table_elements).unwrap_or(usize::MAX);
        let settings = Settings { pool_size: POOL_SIZE, max_table_elements, on_no_pool: None };
        WasmRuntimeBuilder { settings, artifacts: None }
    }

    /// Returns whether guests run in a pool of instances.
    ///
    /// There is no pool if its address space cannot be reserved, for example because `ulimit -v`
    /// bounds it or because the address space is small. Every guest then runs on the heap, which
    /// takes some microseconds more for each.
    ///
    /// The pool is created when this is called or a module is compiled, whatever comes first.
    pub fn has_pool(&self) -> bool {
        self.modules.engines().have_pool()
    }

    /// Returns the epoch thread, and starts it on the first call.
    fn ticker(&self) -> Result<&Ticker> {
        if let Some(ticker) = self.ticker.get() {
            return Ok(ticker);
        }
        let _starting = self.starting.lock();
        if let Some(ticker) = self.ticker.get() {
            return Ok(ticker);
        }
        let ticker = Ticker::start(Arc::clone(self.modules.engines()))?;
        Ok(self.ticker.get_or_init(|| ticker))
    }

    /// Returns the compiled module and its placement: the pool if the module compiles for it, and
    /// the heap otherwise. Errors if it compiles for neither.
    async fn compiled(
        &self,
        module: ObjectRef,
        metered: bool,
        limits: &Limits,
        host: &dyn Host,
    ) -> Result<(Arc<Compiled>, Placement)> {
        if !self.modules.engines().have_pool() {
            return Ok((
                self.compiled_for_heap(module, metered, limits, host).await?,
                Placement::Heap,
            ));
        }
        let pool = Target { placement: Placement::Pool, metered };
        match self.modules.get(module.id, pool, limits, host).await {
            Ok(compiled) => Ok((compiled, Placement::Pool)),
            Err(_) => {
                Ok((self.compiled_for_heap(module, metered, limits, host).await?, Placement::Heap))
            }
        }
    }

    async fn compiled_for_heap(
        &self,
        module: ObjectRef,
        metered: bool,
        limits: &Limits,
        host: &dyn Host,
    ) -> Result<Arc<Compiled>> {
        self.modules
            .get(module.id, Target { placement: Placement::Heap, metered }, limits, host)
            .await
    }
}

impl WasmRuntimeBuilder {
    /// Sets the number of instances in a pool, at least 1. Default: 1000. Further concurrent jobs
    /// run on the heap, where they start more slowly. There is a pool for modules whose memory starts
    /// with at most 128 KiB, and one for the others if there are any.
    #[must_use]
    pub fn pool_size(mut self, instances: u32) -> Self {
        self.settings.pool_size = instances.max(1);
        self
    }

    /// Caps the number of elements in a guest's tables, even if [`Limits::table_elements`] is
    /// larger. Default: the default of that limit.
    #[must_use]
    pub fn max_table_elements(mut self, elements: usize) -> Self {
        self.settings.max_table_elements = elements;
        self
    }

    /// Keeps compiled modules in `directory`, so that each is compiled once on a machine. Default:
    /// they are kept in memory.
    ///
    /// The files belong to the user, and only the user can read them. Those that are damaged, another
    /// user's, or made by another version or for another processor are ignored and made again. When
    /// they take more than 256 MiB, those that were not used for the longest time are removed.
    ///
    /// Who can write the files as this user decides what machine code this process runs, as with the
    /// user's programs.
    #[must_use]
    pub fn artifacts_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.artifacts = Some(directory.into());
        self
    }

    /// Calls `listener` once if there is no pool, when that is known; see [`WasmRuntime::has_pool`].
    #[must_use]
    pub fn on_no_pool(mut self, listener: impl Fn() + Send + Sync + 'static) -> Self {
        self.settings.on_no_pool = Some(Arc::new(listener));
        self
    }

    /// Builds the runtime. wasmtime itself is started by the first job. If it cannot start, the job
    /// fails with [`Reason::RuntimeFailed`](manifold_runtime_api::Reason::RuntimeFailed).
    ///
    /// # Errors
    /// Errors if the settings do not form a valid host image.
    pub fn build(self) -> Result<WasmRuntime> {
        let description = HostImage::new("wasmtime")
            .with("engine", wasmtime_environ::VERSION)
            .with("abi", format!("{} {}", abi::NAME, abi::BINARY_NAME))
            .with("abi-revision", abi::REVISION);
        let host_image = DETERMINISM
            .into_iter()
            .fold(description, |description, (setting, value)| description.with(setting, value))
            .seal()?;
        let max_table_elements = self.settings.max_table_elements as u64;
        let artifacts = self.artifacts.map(|directory| Artifacts::new(directory, &host_image));
        let modules = ModuleCache::new(Arc::new(Engines::new(self.settings)), artifacts);
        let (ticker, starting) = (OnceLock::new(), Mutex::new(()));
        Ok(WasmRuntime { host_image, modules, ticker, starting, max_table_elements })
    }
}

#[async_trait]
impl Runtime for WasmRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_fuel()
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.compiled(code.own_module()?, limits.fuel.is_some(), limits, host).await.map(|_| ())
    }

    async fn run(&self, mut job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        job.limits.table_elements = job.limits.table_elements.min(self.max_table_elements);
        let (module, limits) = (job.code.own_module()?, job.limits);
        let metered = limits.fuel.is_some() || job.meter.fuel_bound().is_some();
        let (compiled, placement) = self.compiled(module, metered, &limits, &*host).await?;
        let awake = self.ticker()?.awake();
        let session = Session::new(job, Arc::clone(&host));
        let attempt = match (job::run(&compiled, &session, &awake).await, placement) {
            (Attempt::PoolFull, Placement::Pool) => {
                let compiled = self.compiled_for_heap(module, metered, &limits, &*host).await?;
                job::run(&compiled, &session, &awake).await
            }
            (attempt, _) => attempt,
        };
        session.finish(match attempt {
            Attempt::Ran(end) => end,
            Attempt::PoolFull => {
                Err(manifold_runtime_api::Error::runtime("the heap engine reported a full pool"))
            }
        })
    }
}
