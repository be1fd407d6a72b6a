use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use manifold_runtime_api::{
    EncodedNode, Error, HostRef, Limits, Module, Object, ObjectId, Outcome, Result, Runtime,
    RuntimeNode, Tree, TreeEntry,
};
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::claim::Claims;
use crate::core::Core;
use crate::held::{Held, HeldObjects};
use crate::invocation::{Completion, Invocation, Policy};
use crate::memory_store::MemoryStore;
use crate::objects::Objects;
use crate::observe::{Counters, Event, Observer, Stats};
use crate::permits::Permits;
use crate::registry::Registry;
use crate::resolve::Resolver;
use crate::root_call::RootCall;
use crate::scope::Allowance;
use crate::store::{ObjectSource, Pin, Store};

/// Runs requests, each at most once.
///
/// Cloning is cheap, and clones share everything. Methods that store or read objects may block for as long as the store
/// takes; runs need a tokio runtime around them.
#[derive(Clone)]
pub struct Dispatcher {
    pub(crate) core: Arc<Core>,
    pub(crate) roots: Arc<AtomicU64>,
}

impl Dispatcher {
    /// Starts a dispatcher: in-memory store, no runtimes, default limits.
    pub fn builder() -> DispatcherBuilder {
        DispatcherBuilder::default()
    }

    /// Runs a request, or remembers its outcome.
    ///
    /// # Behavior
    /// - Callers that want one request at a time share one execution; the last one to drop the future cancels it.
    /// - A failure is never remembered.
    /// - The outcome, with all that it reaches, is in the store and pinned under the request's id when this returns, unless the
    ///   invocation says otherwise. It is durable once [`Dispatcher::flush`] has returned, or soon.
    /// - An object that was lost on the way is computed again.
    ///
    /// # Errors
    /// The failure with its whole chain of frames.
    pub async fn run(&self, invocation: Invocation) -> Result<Completion> {
        match self.remembered(&invocation)? {
            Some(completion) => Ok(completion),
            None => RootCall::new(self, invocation)?.run().await,
        }
    }

    /// The way of most hits: what was asked before in these words, has been answered, and needs no pin.
    fn remembered(&self, invocation: &Invocation) -> Result<Option<Completion>> {
        let core = &self.core;
        if invocation.policy != Policy::Reuse {
            return Ok(None);
        }
        let Some(request) = core.spellings.get(&invocation.spelling()) else { return Ok(None) };
        let Some(outcome) = core.recall(request)? else { return Ok(None) };
        if invocation.pin && core.objects.store.pinned(request)? != Some(outcome) {
            return Ok(None);
        }
        core.tell(&Event::Hit { request });
        Ok(Some(Completion { request, outcome, remembered: true }))
    }

    /// Makes everything stored and remembered so far as durable as the store makes it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn flush(&self) -> Result<()> {
        self.core.objects.store.flush()
    }

    /// The pins: requests whose outcomes outlive every collection.
    ///
    /// # Errors
    /// What the store answers.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        self.core.objects.store.pins()
    }

    /// Takes the pin of `request` away. Answers whether there was one.
    ///
    /// # Errors
    /// What the store answers.
    pub fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.core.objects.store.unpin(request)
    }

    /// Whether [`Dispatcher::run`] would answer from the memo.
    ///
    /// # Errors
    /// When the image cannot be resolved or the request not be keyed; what the store answers.
    pub fn remembers(&self, invocation: &Invocation) -> Result<bool> {
        if invocation.policy != Policy::Reuse {
            return Ok(false);
        }
        let request = RootCall::new(self, invocation.clone())?.request();
        Ok(self.core.recall(request)?.is_some())
    }

    /// The remembered outcome of a request, by its id. One whose object is gone counts as none.
    ///
    /// # Errors
    /// What the store answers.
    pub fn look_up(&self, request: ObjectId) -> Result<Option<Outcome>> {
        self.core.look_up(request)
    }

    /// Makes later runs of `image` faster: its module is read, checked and compiled now.
    ///
    /// # Errors
    /// When the image cannot be resolved, or no job of its module can run.
    pub async fn prepare(&self, image: &str, std: Option<ObjectId>) -> Result<()> {
        let core = &self.core;
        let image = core.resolver.resolve(image, std, &core.objects, &core.registry)?;
        core.prepare(&image, &core.allowance).await
    }

    /// Reads an object from the store or a source.
    ///
    /// # Errors
    /// `MissingObject`, or what the store answers.
    pub fn read(&self, id: ObjectId) -> Result<Object> {
        self.core.objects.find(id)?.ok_or_else(|| Error::missing(id))
    }

    /// Reads a tree.
    ///
    /// # Errors
    /// `MissingObject`, `WrongKind`, `BadTree`, or what the store answers.
    pub fn read_tree(&self, id: ObjectId) -> Result<Tree> {
        self.core.objects.tree(id)
    }

    /// Keeps what `id` reaches until the answer is dropped, whatever is deleted from the store meanwhile: what trees hold, and
    /// the images that short blobs name. Objects that a source has are not kept, as little as what is beyond 64 MiB or 10,000 objects. A call keeps what
    /// it was given for as long as it runs; this is for what is given to a later one.
    ///
    /// # Errors
    /// What the store answers.
    pub fn hold(&self, id: ObjectId) -> Result<Held> {
        Held::new(&self.core, id)
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// What the store answers.
    pub fn put_blob(&self, content: impl Into<Bytes>) -> Result<ObjectId> {
        self.core.objects.store.write(Object::blob(content))
    }

    /// Stores a tree of entries in any order.
    ///
    /// # Errors
    /// `BadTree` when git would refuse it; `MissingObject` or `WrongKind` when an entry names no object of its mode's kind.
    pub fn put_tree(&self, entries: impl IntoIterator<Item = TreeEntry>) -> Result<ObjectId> {
        let tree = Tree::new(entries)?;
        self.core.objects.write_tree(&tree, tree.to_object())
    }

    /// Stores an image: `module`, to be run by the host whose image has the hash `host`.
    ///
    /// # Errors
    /// What the store answers.
    pub fn put_image(&self, host: ObjectId, module: Module) -> Result<ObjectId> {
        self.core.objects.check(module.id, module.kind)?;
        self.put_node(RuntimeNode { host: HostRef::HostImage(host), module }.encode()?)
    }

    /// Stores a node and its blobs.
    ///
    /// # Errors
    /// What the store answers.
    pub fn put_node(&self, node: EncodedNode) -> Result<ObjectId> {
        self.core.objects.write_node(node)
    }

    /// How much has been done so far.
    pub fn stats(&self) -> Stats {
        self.core.counters.read()
    }
}

/// A [`Dispatcher`] whose parts are still being chosen.
#[derive(Default)]
pub struct DispatcherBuilder {
    store: Option<Arc<dyn Store>>,
    sources: Vec<Arc<dyn ObjectSource>>,
    runtimes: Vec<(Option<ObjectId>, Arc<dyn Runtime>)>,
    containers: Option<Arc<dyn Runtime>>,
    observer: Option<Arc<dyn Observer>>,
    limits: Limits,
    budget: Budget,
    executor: Option<Handle>,
    permits: Option<usize>,
    width: Option<usize>,
}

/// How many nested runs of one frame are under way at once, unless told otherwise.
const DEFAULT_WIDTH: usize = 16;
/// How many calls from outside are remembered with the requests that they came down to.
const SPELLINGS: usize = 4096;

impl DispatcherBuilder {
    /// Keeps objects and the memo in `store`. Default: a [`MemoryStore`].
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Also reads objects from `source`, after the store and the sources added before.
    #[must_use]
    pub fn source(mut self, source: Arc<dyn ObjectSource>) -> Self {
        self.sources.push(source);
        self
    }

    /// Runs images whose marker carries the hash of `runtime`'s host image.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtimes.push((None, runtime));
        self
    }

    /// Runs images whose marker carries `host` on `runtime`, though its host image has another hash. The caller vouches that
    /// it answers as that host would.
    #[must_use]
    pub fn runtime_as(mut self, host: ObjectId, runtime: Arc<dyn Runtime>) -> Self {
        self.runtimes.push((Some(host), runtime));
        self
    }

    /// Runs images that are named by `docker://` on `runtime`, and modules whose marker names a container as their host. It is not
    /// thereby registered under its host image.
    #[must_use]
    pub fn containers(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.containers = Some(runtime);
        self
    }

    /// Tells `observer` about everything that happens to requests.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Bounds every frame by `limits`. An invocation may have tighter ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Bounds every call from outside by `budget`. An invocation may have a tighter one.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Executes runs on `executor`. Default: each run on the tokio runtime of the caller who wants it first, and whoever joins it
    /// depends on that one. A program with several runtimes names one that lasts.
    #[must_use]
    pub fn executor(mut self, executor: Handle) -> Self {
        self.executor = Some(executor);
        self
    }

    /// Lets `count` frames compute at once, at least one. Frames that wait for nested runs do not count. Default: one for
    /// each core.
    #[must_use]
    pub fn permits(mut self, count: usize) -> Self {
        self.permits = Some(count.max(1));
        self
    }

    /// Lets one frame's `run_many` have `count` runs under way at once, at least one. Default: 16.
    #[must_use]
    pub fn width(mut self, count: usize) -> Self {
        self.width = Some(count.max(1));
        self
    }

    /// Builds the dispatcher, and writes the host image of every runtime to the store.
    ///
    /// # Errors
    /// `RuntimeFailed` when two runtimes claim one host image hash; what the store answers.
    pub fn build(self) -> Result<Dispatcher> {
        let store = self.store.unwrap_or_else(|| Arc::new(MemoryStore::new()));
        if let Some(runtime) =
            self.containers.as_ref().filter(|runtime| !runtime.capabilities().containers)
        {
            let problem = format!("runtime {} runs no containers", runtime.host_image().name());
            return Err(Error::runtime(problem));
        }
        let mut registry = Registry::new(self.containers);
        for (alias, runtime) in self.runtimes {
            let image = runtime.host_image().clone();
            for object in image.node().clone().into_objects() {
                store.write(object)?;
            }
            let host = alias.unwrap_or_else(|| image.id());
            if let Some(other) = registry.insert(host, runtime) {
                let (one, other) = (image.name(), other.host_image().name());
                let problem =
                    format!("runtimes {one} and {other} are both registered for host image {host}");
                return Err(Error::runtime(problem));
            }
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let core = Core {
            objects: Objects { store, sources: self.sources, held: HeldObjects::default() },
            registry,
            resolver: Resolver::new(),
            claims: Arc::new(Claims::default()),
            permits: Permits::new(self.permits.unwrap_or_else(cores)),
            allowance: Allowance {
                limits: self.limits,
                budget: self.budget,
                recomputes_all: false,
            },
            executor: self.executor,
            spellings: Cache::new(SPELLINGS),
            width: self.width.unwrap_or(DEFAULT_WIDTH),
            counters: Counters::default(),
            observer: self.observer,
        };
        Ok(Dispatcher { core: Arc::new(core), roots: Arc::default() })
    }
}
