use std::sync::Arc;

use manifold_runtime_api::abi::{self, Session};
use manifold_runtime_api::{
    Capabilities, Code, Host, HostImage, Job, Limits, Module, Outcome, Result, Runtime, async_trait,
};

use crate::engines::{DETERMINISM, Engines, Placement, Target};
use crate::instance::{self, Attempt};
use crate::module_cache::{Compiled, ModuleCache};
use crate::ticker::Ticker;

/// Runs WebAssembly guests on wasmtime.
///
/// Every job gets a fresh instance, from a pool while it lasts and from the heap beyond. A job that waits for nested runs
/// keeps its memory and a fiber, and no thread.
pub struct WasmRuntime {
    host_image: HostImage,
    modules: ModuleCache,
    ticker: Ticker,
    max_table_elements: u64,
}

/// A [`WasmRuntime`] whose settings are still being chosen. None of them can change an answer.
#[derive(Debug, Clone)]
pub struct WasmRuntimeBuilder {
    pool_size: u32,
    max_table_elements: usize,
}

/// Instances in the pool, unless told otherwise. Each reserves address space; memory is taken as guests touch it.
const POOL_SIZE: u32 = 1000;

impl WasmRuntime {
    /// A runtime with default settings.
    ///
    /// # Errors
    /// `RuntimeFailed` when wasmtime cannot start on this machine.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Starts a runtime.
    pub fn builder() -> WasmRuntimeBuilder {
        let max_table_elements =
            usize::try_from(Limits::default().table_elements).unwrap_or(usize::MAX);
        WasmRuntimeBuilder { pool_size: POOL_SIZE, max_table_elements }
    }

    /// Whether guests live in a pool of instances. Where the machine does not give the address space for one (a bound on it, as by
    /// `ulimit -v`, or a small one), every guest lives on the heap, which takes some microseconds more for each.
    pub fn has_pool(&self) -> bool {
        self.modules.engines().have_pool()
    }

    /// The module, compiled for the pool if it fits it. A module that fits neither is bad.
    async fn compiled(
        &self,
        module: Module,
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
        module: Module,
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
    /// How many instances the pool holds. Default: 1000. More jobs than that may be under way; they start slower.
    #[must_use]
    pub fn pool_size(mut self, instances: u32) -> Self {
        self.pool_size = instances.max(1);
        self
    }

    /// How many elements a guest's table may have, even where [`Limits::table_elements`] is larger. Default: that limit's
    /// default.
    #[must_use]
    pub fn max_table_elements(mut self, elements: usize) -> Self {
        self.max_table_elements = elements;
        self
    }

    /// Starts the runtime. Where the pool's address space cannot be reserved there is no pool: [`WasmRuntime::has_pool`].
    ///
    /// # Errors
    /// `RuntimeFailed` when wasmtime cannot start.
    pub fn build(self) -> Result<WasmRuntime> {
        let engines = Arc::new(Engines::new(self.pool_size, self.max_table_elements)?);
        let description = HostImage::new("wasmtime")
            .with("engine", wasmtime_environ::VERSION)
            .with("abi", format!("{} {}", abi::NAME, abi::BINARY_NAME));
        let host_image = DETERMINISM
            .into_iter()
            .fold(description, |description, (setting, value)| description.with(setting, value))
            .seal()?;
        let ticker = Ticker::start(Arc::clone(&engines))?;
        let max_table_elements = self.max_table_elements as u64;
        Ok(WasmRuntime {
            host_image,
            modules: ModuleCache::new(engines),
            ticker,
            max_table_elements,
        })
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

    async fn run(&self, mut job: Job, host: Arc<dyn Host>) -> Result<Outcome> {
        job.limits.table_elements = job.limits.table_elements.min(self.max_table_elements);
        let (module, limits) = (job.code.own_module()?, job.limits);
        let metered = limits.fuel.is_some() || job.meter.fuel_bound().is_some();
        let (compiled, placement) = self.compiled(module, metered, &limits, &*host).await?;
        let _awake = self.ticker.awake();
        let session = Session::new(job, Arc::clone(&host));
        let attempt = match (instance::run(&compiled, &session).await, placement) {
            (Attempt::PoolFull, Placement::Pool) => {
                let compiled = self.compiled_for_heap(module, metered, &limits, &*host).await?;
                instance::run(&compiled, &session).await
            }
            (attempt, _) => attempt,
        };
        session.finish(match attempt {
            Attempt::Ran(end) => end,
            Attempt::PoolFull => {
                Err(manifold_runtime_api::Error::runtime("the heap engine reports a full pool"))
            }
        })
    }
}
