//! The pool engine and the heap engine. They differ in where instances live, but in nothing that a
//! guest can observe.

use std::sync::OnceLock;
use std::time::Duration;

use manifold_runtime_api::{Error, Result};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures,
};

/// Size of a guest's call stack, in bytes.
pub(crate) const WASM_STACK: usize = 256 << 10;
/// Size of a fiber's stack, in bytes: the guest's stack, and the little that the host's import
/// functions need. Requests are served outside the fiber.
const FIBER_STACK: usize = WASM_STACK + (128 << 10);
/// Interval at which a computing guest yields to the executor and its computing time is checked.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Maximum number of tables per module in the pool. The pool reserves this many for each of its
/// slots.
const POOL_TABLES_PER_MODULE: u32 = 2;
/// Bytes of a slot that stay mapped between guests: zeroing them is cheaper than faulting them in
/// again.
const KEEP_RESIDENT: usize = 64 << 10;

/// Where an instance lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Placement {
    /// In a slot of the pool. An instance starts in microseconds, but the number of slots is fixed.
    Pool,
    /// On the heap. Slower, but bounded only by memory. Used when the pool is full or a module does
    /// not fit its slots.
    Heap,
}

/// The engine that a module is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) placement: Placement,
    /// Whether the code counts fuel, which makes it slower.
    pub(crate) metered: bool,
}

/// The engines of both [`Placement`]s.
struct Pair {
    /// `None` if its address space cannot be reserved on this machine.
    pool: Option<Engine>,
    heap: Engine,
}

/// The engines of all [`Target`]s.
pub(crate) struct Engines {
    plain: Pair,
    /// Created for the first job with a bound on fuel.
    metered: OnceLock<Result<Pair>>,
    pool_size: u32,
    max_table_elements: usize,
}

impl Engines {
    pub(crate) fn new(pool_size: u32, max_table_elements: usize) -> Result<Self> {
        let plain = Pair::new(pool_size, max_table_elements, false)?;
        Ok(Self { plain, metered: OnceLock::new(), pool_size, max_table_elements })
    }

    /// Returns the engine for `target`; `None` if it is the pool and there is none.
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

    /// Returns whether there is a pool.
    pub(crate) fn have_pool(&self) -> bool {
        self.plain.pool.is_some()
    }

    /// Increments the epoch of every engine that exists.
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
            // Guests have one memory in practice. The pool would need a slot for each further one.
            .max_memories_per_module(1)
            .max_tables_per_module(POOL_TABLES_PER_MODULE)
            // One more than a guest may have, so that a breach is reported by the limit and not by
            // the end of the slot.
            .table_elements(max_table_elements.saturating_add(1))
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(KEEP_RESIDENT)
            .max_unused_warm_slots(pool_size)
            .pagemap_scan(Enabled::Auto);
        let mut pooled = deterministic();
        pooled.consume_fuel(metered);
        pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));

        // Without reservations, guard pages and copy-on-write images, a memory is one plain
        // mapping, which the kernel can merge with its neighbors. That matters because a process
        // may have only some 65,000 mappings. Bounds checks replace the guard pages.
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
            // A pool reserves address space for all of its slots. That is terabytes, which is
            // refused under `ulimit -v`, in small address spaces and in some sandboxes.
            Err(error) => {
                tracing::warn!(
                    "{error}; wasm guests run without a pool, which adds some 20 µs to each start"
                );
                None
            }
        };
        Ok(Self { pool, heap })
    }
}

fn engine(config: &Config) -> Result<Engine> {
    Engine::new(config).map_err(|error| Error::runtime(format!("cannot start wasmtime: {error:#}")))
}

/// The configuration that all engines share. Everything in it can affect outcomes.
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

/// The settings that affect outcomes, as keys and values of the host image.
pub(crate) const DETERMINISM: [(&str, &str); 4] = [
    ("nan", "canonical"),
    ("relaxed-simd", "deterministic"),
    ("threads", "off"),
    ("wasi", "deterministic-stubs-2"),
];
