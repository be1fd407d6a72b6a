//! [`DispatcherBuilder`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use manifold_runtime_api::{Limits, ObjectId, Result, Runtime};
#[cfg(feature = "functions")]
use parking_lot::Mutex;
use parking_lot::RwLock;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::claim::Claims;
use crate::core::Core;
use crate::dispatcher::Dispatcher;
use crate::elsewhere::Sharing;
use crate::held::HeldObjects;
use crate::objects::Objects;
use crate::observe::{Counters, Event, Observed, Observer};
use crate::permits::Permits;
use crate::registry::Registry;
use crate::resolve::Resolver;
use crate::scope::Allowance;
use crate::source::ObjectSource;
use crate::span::Spans;
use crate::store::{MemoryStore, Store};

/// Builds a [`Dispatcher`].
///
/// ```
/// use manifold_dispatcher::api::Limits;
/// use manifold_dispatcher::{Budget, Dispatcher, MemoryStore};
///
/// let dispatcher = Dispatcher::builder()
///     .store(MemoryStore::new())
///     .limits(Limits::default().memory_bytes(64 << 20))
///     .budget(Budget::default().runs(1_000_000))
///     .permits(2)
///     .build()?;
/// # Ok::<(), manifold_dispatcher::api::Error>(())
/// ```
#[derive(Default)]
pub struct DispatcherBuilder {
    store: Option<Arc<dyn Store>>,
    sources: Vec<Arc<dyn ObjectSource>>,
    runtimes: Vec<(Option<ObjectId>, Arc<dyn Runtime>)>,
    containers: Option<Arc<dyn Runtime>>,
    observers: Vec<Arc<dyn Observer>>,
    limits: Limits,
    budget: Budget,
    executor: Option<Handle>,
    permits: Option<usize>,
    provenance: bool,
    shares_runs: bool,
    width: Option<usize>,
}

/// The default of [`DispatcherBuilder::width`].
const DEFAULT_WIDTH: usize = 16;
/// The number of root calls whose request ids are cached by raw key.
const RAW_KEY_CAPACITY: usize = 4096;

impl DispatcherBuilder {
    /// Sets the store of objects, memo and pins. Default: a [`MemoryStore`].
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Adds a source. Objects are looked for in the store first, then in the sources in the order
    /// in which they were added.
    #[must_use]
    pub fn source(mut self, source: impl ObjectSource) -> Self {
        self.sources.push(Arc::new(source));
        self
    }

    /// Registers `runtime` under the hash of its host image. It runs the images whose marker holds
    /// that hash.
    #[must_use]
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.runtimes.push((None, Arc::new(runtime)));
        self
    }

    /// Registers `runtime` under `host` although its host image has another hash. It runs the
    /// images whose marker holds `host`. The caller guarantees that `runtime` produces the same
    /// outcomes as that host.
    #[must_use]
    pub fn runtime_as(mut self, host: ObjectId, runtime: impl Runtime) -> Self {
        self.runtimes.push((Some(host), Arc::new(runtime)));
        self
    }

    /// Sets the runtime of images that are named by `docker://`, and of modules whose marker names
    /// a container as their host. This does not register the runtime under its host image.
    #[must_use]
    pub fn containers(mut self, runtime: impl Runtime) -> Self {
        self.containers = Some(Arc::new(runtime));
        self
    }

    /// Adds an observer, which receives every [`Event`], and every [`Span`](crate::Span) if it wants
    /// them.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Calls `observe` for every [`Event`]. Like [`DispatcherBuilder::observer`] otherwise.
    #[must_use]
    pub fn on_event(self, observe: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observer(Closure(observe))
    }

    /// Sets the limits of every frame. An invocation can have tighter ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the budget of every root call. An invocation can have a tighter one.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Sets whether runs may be given away ([`Dispatcher::take_queued`], [`Dispatcher::long_runs`]).
    /// Default: no.
    #[must_use]
    pub fn shares_runs(mut self, shares: bool) -> Self {
        self.shares_runs = shares;
        self
    }

    /// Sets whether the store keeps a record of each run: the request itself, and which requests it
    /// wanted, also if it failed. Default: it does not, because the store then has some 80 bytes more
    /// for each run. See [`Dispatcher::provenance`].
    #[must_use]
    pub fn provenance(mut self, record: bool) -> Self {
        self.provenance = record;
        self
    }

    /// Sets the tokio runtime that executes runs. Default: the tokio runtime of the caller that
    /// requests a run first. Callers that join the run depend on that runtime, so a program with
    /// several tokio runtimes should set one that outlives the runs.
    #[must_use]
    pub fn executor(mut self, executor: Handle) -> Self {
        self.executor = Some(executor);
        self
    }

    /// Sets how many frames can compute at once, at least one. Frames that wait for nested runs do
    /// not count. Default: one for each core.
    #[must_use]
    pub fn permits(mut self, count: usize) -> Self {
        self.permits = Some(count.max(1));
        self
    }

    /// Sets how many runs of one `run_many` can be in progress at once, at least one. Default: 16.
    #[must_use]
    pub fn width(mut self, count: usize) -> Self {
        self.width = Some(count.max(1));
        self
    }

    /// Builds the dispatcher, and stores the host image of every runtime.
    ///
    /// # Errors
    /// - [`Reason::RuntimeFailed`](crate::api::Reason::RuntimeFailed) if two runtimes are
    ///   registered for the same host image hash, or if the runtime for containers cannot run
    ///   containers.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn build(self) -> Result<Dispatcher> {
        let store = self.store.unwrap_or_else(|| Arc::new(MemoryStore::new()));
        let begun = Instant::now();
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let permits = self.permits.unwrap_or_else(cores);
        let context = Observed { permits, began: SystemTime::now() };
        self.observers.iter().for_each(|observer| observer.on_build(&context));
        let of_spans = self.observers.iter().filter(|observer| observer.observes_spans());
        let of_spans: Vec<_> = of_spans.cloned().collect();
        let core = Core {
            objects: Objects {
                store,
                sources: RwLock::new(self.sources),
                held: HeldObjects::default(),
            },
            registry: Registry::default(),
            resolver: Resolver::new(),
            claims: Arc::new(Claims::default()),
            permits: Permits::new(permits),
            allowance: Allowance {
                limits: self.limits,
                budget: self.budget,
                recomputes_all: false,
            },
            executor: self.executor,
            raw_keys: Cache::new(RAW_KEY_CAPACITY),
            width: self.width.unwrap_or(DEFAULT_WIDTH),
            sharing: self.shares_runs.then(Sharing::default),
            counters: Counters::default(),
            spans: (!of_spans.is_empty()).then(|| Spans::new(of_spans, begun)),
            observers: self.observers,
            provenance: self.provenance,
            next_root: AtomicU64::new(0),
            #[cfg(feature = "functions")]
            functions: Mutex::default(),
        };
        if let Some(runtime) = self.containers {
            core.registry.set_containers(runtime)?;
        }
        for (alias, runtime) in self.runtimes {
            let host = alias.unwrap_or_else(|| runtime.host_image().id());
            core.register(host, runtime)?;
        }
        Ok(Dispatcher { core: Arc::new(core) })
    }
}

impl fmt::Debug for DispatcherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatcherBuilder")
            .field("limits", &self.limits)
            .field("budget", &self.budget)
            .field("permits", &self.permits)
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

/// An observer that calls a closure.
struct Closure<F>(F);

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for Closure<F> {
    fn on_event(&self, event: &Event<'_>) {
        (self.0)(event);
    }
}
