//! [`Dispatcher`], the public interface of this crate.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use manifold_runtime_api::{
    EncodedNode, Error, HostImage, HostRef, Object, ObjectId, ObjectRef, Result, Runtime,
    RuntimeNode, Tree, TreeEntry,
};

use crate::builder::DispatcherBuilder;
use crate::completion::Completion;
use crate::core::Core;
use crate::held::Held;
use crate::input::Input;
use crate::invocation::{Invocation, Policy};
use crate::observe::{Event, Stats};
use crate::root_call::RootCall;
use crate::source::ObjectSource;
use crate::store::Pin;

/// Runs requests and memoizes their outcomes. A request is executed at most once at a time.
///
/// Clones are cheap and share all state. Methods that store or read objects can block for as long
/// as the store takes. Runs need a tokio runtime.
///
/// ```
/// use manifold_dispatcher::native::NativeRuntime;
/// use manifold_dispatcher::{Dispatcher, Invocation};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let guests = NativeRuntime::builder("example", "1")
///     .guest("shout", |guest| async move { guest.blob(guest.text("in").await?.to_uppercase()).await })
///     .build()?;
/// let dispatcher = Dispatcher::builder().build()?;
/// let host = dispatcher.add_runtime(guests)?;
/// let shout = dispatcher.install(host, "shout")?;
/// let first = dispatcher.run(Invocation::new(shout).arg("in", "hello")).await?;
/// assert_eq!(first.text()?, "HELLO");
/// let second = dispatcher.run(Invocation::new(shout).arg("in", "hello")).await?;
/// assert!(second.from_memo);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Dispatcher {
    pub(crate) core: Arc<Core>,
}

impl Dispatcher {
    /// Returns a builder for a dispatcher with an in-memory store, no runtimes and default limits.
    pub fn builder() -> DispatcherBuilder {
        DispatcherBuilder::default()
    }

    /// Runs a request, or returns its memoized outcome.
    ///
    /// # Behavior
    /// - Concurrent callers of one request share one execution. When the last of them drops its
    ///   future, the execution is cancelled.
    /// - Failures are not memoized.
    /// - When this returns, the outcome and all that it reaches are in the store and pinned under
    ///   the request's id, unless the invocation says otherwise. They are durable once
    ///   [`Dispatcher::flush`] has returned, or some time later without it.
    /// - If the store loses an object while the call runs, the object is computed again.
    ///
    /// # Errors
    /// Returns the failure of the run with its whole chain of frames.
    pub async fn run(&self, invocation: Invocation) -> Result<Completion> {
        let invocation = invocation.with_stored_args(&self.core.objects)?;
        match self.repeated_hit(&invocation)? {
            Some(completion) => Ok(completion),
            None => RootCall::new(&self.core, invocation)?.run().await,
        }
    }

    /// The fast path for most hits: a root call with the same raw key was made before, its outcome
    /// is memoized, and no pin has to be set.
    fn repeated_hit(&self, invocation: &Invocation) -> Result<Option<Completion>> {
        let core = &self.core;
        // A hit with a span takes the other path.
        if invocation.policy != Policy::Reuse || core.spans.is_some() {
            return Ok(None);
        }
        let Some(request) = core.raw_keys.get(&invocation.raw_key()) else { return Ok(None) };
        let Some(outcome) = core.memoized(request)? else { return Ok(None) };
        if invocation.pin && core.objects.store.pinned(request)? != Some(outcome) {
            return Ok(None);
        }
        core.emit(&Event::Hit { request });
        Ok(Some(Completion::new(core, request, outcome, true)))
    }

    /// Makes all objects, memo entries and pins that were written so far as durable as the store
    /// can.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn flush(&self) -> Result<()> {
        self.core.objects.store.flush()
    }

    /// Returns all pins. No collection removes a pinned outcome.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        self.core.objects.store.pins()
    }

    /// Returns when the pin of `request` was last set or used, as far as the store knows.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn pinned_at(&self, request: ObjectId) -> Result<Option<SystemTime>> {
        self.core.objects.store.pinned_at(request)
    }

    /// Removes the pin of `request`. Returns whether the request was pinned.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.core.objects.store.unpin(request)
    }

    /// Returns whether [`Dispatcher::run`] would return a memoized outcome without running
    /// anything.
    ///
    /// # Errors
    /// Returns an error if the image cannot be resolved, if the arguments are not an available
    /// tree, or if the store fails.
    pub fn is_memoized(&self, invocation: &Invocation) -> Result<bool> {
        if invocation.policy != Policy::Reuse {
            return Ok(false);
        }
        let invocation = invocation.clone().with_stored_args(&self.core.objects)?;
        let request = RootCall::new(&self.core, invocation)?.request();
        Ok(self.core.memoized(request)?.is_some())
    }

    /// Returns the id of the request that [`Dispatcher::run`] would run for `invocation`, and stores
    /// the request's tree. Runs nothing.
    ///
    /// # Errors
    /// Returns an error if the image cannot be resolved, if the arguments are not an available
    /// tree, or if the store fails.
    pub fn request(&self, invocation: &Invocation) -> Result<ObjectId> {
        let invocation = invocation.clone().with_stored_args(&self.core.objects)?;
        let mut call = RootCall::new(&self.core, invocation)?;
        call.store_request()?;
        Ok(call.request())
    }

    /// Returns the memoized outcome of the request with the id `request`. An entry whose object is
    /// not available counts as none.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.core.look_up(request)
    }

    /// Prepares the module of `image`, so that later runs start faster: it is read, validated and
    /// compiled.
    ///
    /// # Errors
    /// Returns an error if the image cannot be resolved, or if its module cannot be loaded.
    pub async fn prepare(&self, image: &str, std: Option<ObjectId>) -> Result<()> {
        let core = &self.core;
        let image = core.resolver.resolve(image, std, &core.objects, &core.registry)?;
        core.prepare(&image, &core.allowance).await
    }

    /// Reads an object from the store or from a source.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) if the object is not
    ///   available.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    pub fn read(&self, id: ObjectId) -> Result<Object> {
        self.core.objects.find(id)?.ok_or_else(|| Error::missing(id))
    }

    /// Reads a tree from the store or from a source.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) if the object is not
    ///   available.
    /// - [`Reason::WrongKind`](crate::api::Reason::WrongKind) if the object is a blob.
    /// - [`Reason::BadTree`](crate::api::Reason::BadTree) if git could not read the tree.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    pub fn read_tree(&self, id: ObjectId) -> Result<Tree> {
        self.core.objects.tree(id)
    }

    /// Returns the size of a blob in bytes, without reading it where its source knows it.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) if the object is not
    ///   available.
    /// - [`Reason::WrongKind`](crate::api::Reason::WrongKind) if the object is a tree.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    pub fn blob_size(&self, id: ObjectId) -> Result<u64> {
        self.core.objects.blob_size(id)
    }

    /// Reads a part of a blob. What is beyond its end is left out.
    ///
    /// # Errors
    /// As [`Dispatcher::blob_size`].
    pub fn read_range(&self, id: ObjectId, range: Range<u64>) -> Result<Bytes> {
        self.core.objects.blob_range(id, range)
    }

    /// Keeps the objects that `id` reaches in memory until the returned guard is dropped, so that
    /// they stay available even if the store loses them.
    ///
    /// The objects are those that trees contain, and the images that short blobs name. Objects that
    /// a source has are not kept, and neither is anything beyond 64 MiB or 10,000 objects. A call
    /// holds its own arguments and images while it runs. Use this for objects that are passed to a
    /// later call.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    pub fn hold(&self, id: ObjectId) -> Result<Held> {
        Held::new(&self.core, id)
    }

    /// Registers a runtime and returns its host image hash, under which [`Dispatcher::install`]
    /// installs modules for it. Calls in progress see it from their next run on.
    ///
    /// # Errors
    /// - [`Reason::RuntimeFailed`](crate::api::Reason::RuntimeFailed) if another runtime with this
    ///   host image is registered.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn add_runtime(&self, runtime: impl Runtime) -> Result<ObjectId> {
        let host = runtime.host_image().id();
        self.core.register(host, Arc::new(runtime))?;
        Ok(host)
    }

    /// Also reads objects from `source`, after the store and the sources that were added before.
    /// Calls in progress see it at once.
    pub fn add_source(&self, source: impl ObjectSource) {
        self.core.objects.sources.write().push(Arc::new(source));
    }

    /// Returns the host images of the registered runtimes, in the order of their ids.
    pub fn runtimes(&self) -> Vec<HostImage> {
        self.core.registry.host_images()
    }

    /// Installs a module for the runtime whose host image has the hash `host`, and returns the id of
    /// the image.
    ///
    /// # Errors
    /// As [`Dispatcher::put`].
    pub fn install(&self, host: ObjectId, module: impl Into<Input>) -> Result<ObjectId> {
        let module = self.put(module)?;
        self.put_node(RuntimeNode { host: HostRef::HostImage(host), module }.encode()?)
    }

    /// Stores a value and returns the object that it became.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) or
    ///   [`Reason::WrongKind`](crate::api::Reason::WrongKind) if the value refers to an object that
    ///   is not available, or has another kind.
    /// - [`Reason::BadTree`](crate::api::Reason::BadTree) if git would refuse a name in a tree.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if a file cannot be read, or if
    ///   the store fails.
    pub fn put(&self, value: impl Into<Input>) -> Result<ObjectRef> {
        value.into().store(&self.core.objects)
    }

    /// Stores a blob and returns its id.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn put_blob(&self, content: impl Into<Bytes>) -> Result<ObjectId> {
        self.core.objects.store.write(Object::blob(content))
    }

    /// Stores a tree and returns its id. The entries can be in any order.
    ///
    /// # Errors
    /// - [`Reason::BadTree`](crate::api::Reason::BadTree) if git would refuse the tree.
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) if an entry names an object
    ///   that is not available.
    /// - [`Reason::WrongKind`](crate::api::Reason::WrongKind) if an entry names an object of
    ///   another kind than its mode requires.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    pub fn put_tree(&self, entries: impl IntoIterator<Item = TreeEntry>) -> Result<ObjectId> {
        let tree = Tree::new(entries)?;
        self.core.objects.write_tree(&tree, tree.to_object())
    }

    /// Stores an image and returns its id. The image runs `module` on the runtime whose host image
    /// has the hash `host`.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) or
    ///   [`Reason::WrongKind`](crate::api::Reason::WrongKind) if `module` does not name an
    ///   available object of its kind.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    pub fn put_image(&self, host: ObjectId, module: ObjectRef) -> Result<ObjectId> {
        self.core.objects.check(module.id, module.kind)?;
        self.put_node(RuntimeNode { host: HostRef::HostImage(host), module }.encode()?)
    }

    /// Stores a node and its blobs, and returns the id of the node.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn put_node(&self, node: EncodedNode) -> Result<ObjectId> {
        self.core.objects.write_node(node)
    }

    /// Returns how many frames compute now, and how many can compute at once.
    pub fn permits(&self) -> (usize, usize) {
        self.core.permits.in_use()
    }

    /// Returns the counters of the work done so far.
    pub fn stats(&self) -> Stats {
        self.core.counters.read()
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runtimes: Vec<_> =
            self.runtimes().iter().map(|host_image| host_image.name().to_owned()).collect();
        f.debug_struct("Dispatcher")
            .field("runtimes", &runtimes)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
