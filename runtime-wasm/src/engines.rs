//! The engines of the pools and the heap engine. They differ in where instances live, but in nothing
//! that a guest can observe.
//!
//! There is a pool for modules that start with a small memory, and one for the others. After a guest
//! with a small memory, all of it is overwritten. Asking the kernel which pages the guest has
//! written (`PAGEMAP_SCAN`) would take longer: 1.9 of the 14 µs of a fold's frame. For a larger
//! memory it is the other way round.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manifold_runtime_api::{Error, Result};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures,
};
use wasmtime_environ::wasmparser::{Parser, Payload};

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
/// The largest memory that a module for the pool of small memories may start with, in bytes. That
/// pool keeps so much mapped.
const SMALL_MEMORY: usize = 128 << 10;

/// The largest image of a memory, in bytes, that may consist mostly of zeros. Data segments that lie
/// further apart are copied when an instance starts. Otherwise a module of a hundred bytes could have an
/// image of megabytes, which no limit counts.
const SPARSE_IMAGE: u64 = 256 << 10;

/// Where an instance lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Placement {
    /// In a slot of a pool. An instance starts in microseconds, but the number of slots is fixed.
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

/// The settings of the engines.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) pool_size: u32,
    pub(crate) max_table_elements: usize,
    /// Called once if there is no pool.
    pub(crate) on_no_pool: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The engines of all [`Target`]s, each created when it is first needed: a call whose result is
/// memoized needs none, and a pool takes milliseconds.
pub(crate) struct Engines {
    settings: Settings,
    plain: Group,
    metered: Group,
}

/// The engines of both [`Placement`]s.
#[derive(Default)]
struct Group {
    small_pool: Pool,
    pool: Pool,
    heap: OnceLock<Result<Engine>>,
}

/// `None` if its address space cannot be reserved on this machine.
type Pool = OnceLock<Option<Engine>>;

/// The size of the memories of a pool's guests when they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memories {
    /// At most [`SMALL_MEMORY`].
    Small,
    /// More.
    Large,
}

impl Engines {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, plain: Group::default(), metered: Group::default() }
    }

    fn group(&self, metered: bool) -> &Group {
        if metered { &self.metered } else { &self.plain }
    }

    /// Returns the engine for `target` and a module with this code; `None` if it is a pool and there
    /// is none.
    ///
    /// # Errors
    /// Returns an error if the engine cannot be created, or if the module cannot run in a pool. It is
    /// found out before the code is compiled, which takes time and memory.
    pub(crate) fn get(&self, target: Target, code: &[u8]) -> Result<Option<&Engine>> {
        match target.placement {
            Placement::Pool => {
                let memories = Memories::of(code).ok_or_else(|| {
                    Error::runtime("a module with several memories does not run in the pool")
                })?;
                Ok(self.pool(memories, target.metered))
            }
            Placement::Heap => {
                let heap = &self.group(target.metered).heap;
                let heap = heap.get_or_init(|| heap_engine(target.metered));
                Ok(Some(heap.as_ref().map_err(Error::clone)?))
            }
        }
    }

    fn pool(&self, memories: Memories, metered: bool) -> Option<&Engine> {
        let group = self.group(metered);
        let pool = match memories {
            Memories::Small => &group.small_pool,
            Memories::Large => &group.pool,
        };
        pool.get_or_init(|| self.settings.pool(memories, metered)).as_ref()
    }

    /// Returns whether there is a pool. Creates it if it is not needed yet.
    pub(crate) fn have_pool(&self) -> bool {
        self.pool(Memories::Small, false).is_some()
    }

    /// Increments the epoch of every engine that exists.
    pub(crate) fn increment_epochs(&self) {
        for group in [&self.plain, &self.metered] {
            let pools = [&group.small_pool, &group.pool];
            let pools = pools.into_iter().filter_map(|pool| pool.get()?.as_ref());
            let heap = group.heap.get().and_then(|heap| heap.as_ref().ok());
            for engine in pools.chain(heap) {
                engine.increment_epoch();
            }
        }
    }
}

impl Memories {
    /// Returns the size of the memory that a module declares, or `None` if it declares several. A
    /// module that imports a memory or cannot be read runs in no pool, so the answer does not matter
    /// for it.
    fn of(code: &[u8]) -> Option<Self> {
        const PAGE: u64 = 64 << 10;
        let memories = Parser::new(0).parse_all(code).find_map(|payload| match payload {
            Ok(Payload::MemorySection(memories)) => Some(memories),
            _ => None,
        });
        let mut pages = memories.into_iter().flatten().flatten().map(|memory| memory.initial);
        let first = pages.next().unwrap_or(0);
        if pages.next().is_some() {
            return None;
        }
        let is_small = first.saturating_mul(PAGE) <= SMALL_MEMORY as u64;
        Some(if is_small { Self::Small } else { Self::Large })
    }
}

impl Settings {
    /// Creates the engine with a pool.
    fn pool(&self, memories: Memories, metered: bool) -> Option<Engine> {
        let (keep_resident, scan) = match memories {
            Memories::Small => (SMALL_MEMORY, Enabled::No),
            Memories::Large => (KEEP_RESIDENT, Enabled::Auto),
        };
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(self.pool_size)
            .total_memories(self.pool_size)
            .total_tables(self.pool_size * POOL_TABLES_PER_MODULE)
            .total_stacks(self.pool_size)
            // Guests have one memory in practice. The pool would need a slot for each further one.
            .max_memories_per_module(1)
            .max_tables_per_module(POOL_TABLES_PER_MODULE)
            // One more than a guest may have, so that a breach is reported by the limit and not by
            // the end of the slot.
            .table_elements(self.max_table_elements.saturating_add(1))
            .linear_memory_keep_resident(keep_resident)
            .table_keep_resident(KEEP_RESIDENT)
            .max_unused_warm_slots(self.pool_size)
            .pagemap_scan(scan);
        let mut pooled = deterministic();
        pooled.consume_fuel(metered).memory_guaranteed_dense_image_size(SPARSE_IMAGE);
        pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match engine(&pooled) {
            Ok(pool) => Some(pool),
            // A pool reserves address space for all of its slots. That is terabytes, which is
            // refused under `ulimit -v`, in small address spaces and in some sandboxes.
            Err(error) => {
                tracing::warn!(
                    "{error}; wasm guests run without a pool, which adds some 20 µs to each start"
                );
                if let Some(tell) = self.on_no_pool.as_ref()
                    && memories == Memories::Small
                    && !metered
                {
                    tell();
                }
                None
            }
        }
    }
}

/// Creates the engine without a pool.
fn heap_engine(metered: bool) -> Result<Engine> {
    // Without reservations, guard pages and copy-on-write images, a memory is one plain mapping,
    // which the kernel can merge with its neighbors. That matters because a process may have only
    // some 65,000 mappings. Bounds checks replace the guard pages.
    let mut heap = deterministic();
    heap.consume_fuel(metered)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_reservation(0)
        .memory_reservation_for_growth(0)
        .memory_guard_size(0)
        .memory_init_cow(false);
    #[cfg(target_os = "linux")]
    crate::stacks::use_guard_regions(&mut heap, FIBER_STACK);
    engine(&heap)
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
        .wasm_features(NO_FEATURES, false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK);
    config
}

/// The features that no guest has. Those beside threads depend on a feature of the crate `wasmtime`,
/// which another crate of the program may have enabled.
const NO_FEATURES: WasmFeatures = WasmFeatures::THREADS
    .union(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::GC)
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::EXCEPTIONS)
    .union(WasmFeatures::LEGACY_EXCEPTIONS)
    .union(WasmFeatures::STACK_SWITCHING);

/// The settings that affect outcomes, as keys and values of the host image.
pub(crate) const DETERMINISM: [(&str, &str); 4] = [
    ("nan", "canonical"),
    ("relaxed-simd", "deterministic"),
    ("threads", "off"),
    ("wasi", "deterministic-stubs-2"),
];
