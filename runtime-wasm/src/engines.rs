//! The two engines, which differ in where instances live and in nothing that a guest can see.

use std::sync::OnceLock;
use std::time::Duration;

use manifold_runtime_api::{Error, Result};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures,
};

/// A guest's call stack, in bytes.
pub(crate) const WASM_STACK: usize = 256 << 10;
/// A fiber holds the guest's stack and what the host's import functions need, which is little: requests are served outside.
const FIBER_STACK: usize = WASM_STACK + (128 << 10);
/// How often a computing guest lets others run, and has its deadline checked.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// A guest has one memory in practice. More would be a slot for each.
const POOL_TABLES_PER_MODULE: u32 = 2;
/// Memory of a slot that stays mapped between guests: zeroing it is cheaper than faulting it in again.
const KEEP_RESIDENT: usize = 64 << 10;

/// Where an instance lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Placement {
    /// In a slot of the pool: microseconds, but there is a fixed number of slots.
    Pool,
    /// On the heap: slower, and as many as memory allows. Takes over when the pool is full, or a module does not fit it.
    Heap,
}

/// What a module is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) placement: Placement,
    /// Whether the code counts its fuel, which makes it slower.
    pub(crate) metered: bool,
}

/// The engines of both [`Placement`]s.
struct Pair {
    /// `None` where this machine has no address space for it.
    pool: Option<Engine>,
    heap: Engine,
}

/// An engine for each [`Target`].
pub(crate) struct Engines {
    plain: Pair,
    /// Made when the first job with a bound on fuel comes.
    metered: OnceLock<Result<Pair>>,
    pool_size: u32,
    max_table_elements: usize,
}

impl Engines {
    pub(crate) fn new(pool_size: u32, max_table_elements: usize) -> Result<Self> {
        let plain = Pair::new(pool_size, max_table_elements, false)?;
        Ok(Self { plain, metered: OnceLock::new(), pool_size, max_table_elements })
    }

    /// The engine for `target`; `None` where there is no pool.
    pub(crate) fn get(&self, target: Target) -> Result<Option<&Engine>> {
        let pair = if target.metered {
            let metered = self
                .metered
                .get_or_init(|| Pair::new(self.pool_size, self.max_table_elements, true));
            metered.as_ref().map_err(Error::clone)?
        } else {
            &self.plain
        };
        Ok(match target.placement {
            Placement::Pool => pair.pool.as_ref(),
            Placement::Heap => Some(&pair.heap),
        })
    }

    /// Whether instances live in a pool, as far as it has slots.
    pub(crate) fn have_pool(&self) -> bool {
        self.plain.pool.is_some()
    }

    pub(crate) fn increment_epochs(&self) {
        let metered = self.metered.get().and_then(|pair| pair.as_ref().ok());
        for pair in [Some(&self.plain), metered].into_iter().flatten() {
            for engine in pair.pool.iter().chain([&pair.heap]) {
                engine.increment_epoch();
            }
        }
    }
}

impl Pair {
    fn new(pool_size: u32, max_table_elements: usize, metered: bool) -> Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(pool_size)
            .total_memories(pool_size)
            .total_tables(pool_size * POOL_TABLES_PER_MODULE)
            .total_stacks(pool_size)
            .max_memories_per_module(1)
            .max_tables_per_module(POOL_TABLES_PER_MODULE)
            // One more than a guest may have, so that a breach meets the limit and not the end of the slot.
            .table_elements(max_table_elements.saturating_add(1))
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(KEEP_RESIDENT)
            .max_unused_warm_slots(pool_size)
            .pagemap_scan(Enabled::Auto);
        let mut pooled = deterministic();
        pooled.consume_fuel(metered);
        pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));

        // Without reservations, guards and images a memory is one plain mapping, which the kernel joins with its neighbours;
        // a process has some 65,000 mappings. Bounds checks take the place of guards.
        let mut heap = deterministic();
        heap.consume_fuel(metered)
            .allocation_strategy(InstanceAllocationStrategy::OnDemand)
            .memory_reservation(0)
            .memory_reservation_for_growth(0)
            .memory_guard_size(0)
            .memory_init_cow(false);
        #[cfg(target_os = "linux")]
        crate::stacks::use_guard_regions(&mut heap, FIBER_STACK);

        let heap = engine(&heap)?;
        let pool = match engine(&pooled) {
            Ok(pool) => Some(pool),
            // A pool is address space for all of its slots: terabytes, which `ulimit -v`, small address spaces and some sandboxes
            // do not give.
            Err(error) => {
                tracing::warn!(
                    "{error}; wasm guests run without a pool, which takes each some 20 µs more"
                );
                None
            }
        };
        Ok(Self { pool, heap })
    }
}

fn engine(config: &Config) -> Result<Engine> {
    Engine::new(config).map_err(|error| Error::runtime(format!("wasmtime cannot start: {error:#}")))
}

/// What every engine has in common, and what decides results.
fn deterministic() -> Config {
    let mut config = Config::new();
    config
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_features(WasmFeatures::THREADS, false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK);
    config
}

/// The settings that decide results, for the host image.
pub(crate) const DETERMINISM: [(&str, &str); 4] = [
    ("nan", "canonical"),
    ("relaxed-simd", "deterministic"),
    ("threads", "off"),
    ("wasi", "deterministic-stubs-2"),
];
