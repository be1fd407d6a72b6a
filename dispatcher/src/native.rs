//! [`NativeRuntime`]: a runtime whose guests are Rust closures.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Call, Capabilities, EntryMode, Error, Host, HostImage, Job, ObjectId, ObjectKind, ObjectRef,
    Reason, Result, Runtime, Tree, TreeEntry, TreeError, async_trait,
};

type GuestFuture = Pin<Box<dyn Future<Output = Result<ObjectRef>> + Send>>;
type GuestFunction = Arc<dyn Fn(NativeGuest) -> GuestFuture + Send + Sync>;

/// A runtime whose guests are closures of this process, for tests and for the parts of a program
/// that need no sandbox.
///
/// A module is a blob that holds the name of a guest. The closures are trusted: no limit applies to
/// them. If two builds use one name for different closures, they must differ in the runtime's name
/// or version.
pub struct NativeRuntime {
    host_image: HostImage,
    guests: HashMap<ObjectId, GuestFunction>,
}

/// Builds a [`NativeRuntime`].
pub struct NativeRuntimeBuilder {
    name: String,
    version: String,
    guests: HashMap<ObjectId, GuestFunction>,
}

impl fmt::Debug for NativeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeRuntime")
            .field("host_image", &self.host_image)
            .field("guests", &self.guests.len())
            .finish()
    }
}

impl NativeRuntime {
    /// Returns a builder for a runtime. Change `version` whenever the outcomes of the guests
    /// change, because the memo cannot see their code.
    pub fn builder(name: impl Into<String>, version: impl Into<String>) -> NativeRuntimeBuilder {
        NativeRuntimeBuilder { name: name.into(), version: version.into(), guests: HashMap::new() }
    }
}

impl fmt::Debug for NativeRuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeRuntimeBuilder")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("guests", &self.guests.len())
            .finish()
    }
}

impl NativeRuntimeBuilder {
    /// Adds a guest. Its module is the blob `name`.
    #[must_use]
    pub fn guest<F, R>(mut self, name: &str, function: F) -> Self
    where
        F: Fn(NativeGuest) -> R + Send + Sync + 'static,
        R: Future<Output = Result<ObjectRef>> + Send + 'static,
    {
        let function: GuestFunction = Arc::new(move |guest| Box::pin(function(guest)));
        self.guests.insert(ObjectId::of(ObjectKind::Blob, name.as_bytes()), function);
        self
    }

    /// Builds the runtime.
    ///
    /// # Errors
    /// Returns a [`TreeError`] if the host image cannot be encoded as a tree.
    pub fn build(self) -> Result<NativeRuntime, TreeError> {
        let host_image = HostImage::new(self.name)
            .with("kind", "native")
            .with("version", self.version)
            .seal()?;
        Ok(NativeRuntime { host_image, guests: self.guests })
    }
}

#[async_trait]
impl Runtime for NativeRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_computes_only_when_polled()
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let module = job.code.own_module()?.id;
        let function = self.guests.get(&module).ok_or_else(|| {
            let problem = "no native guest has this name".to_owned();
            Error::new(Reason::BadModule { module, problem })
        })?;
        function(NativeGuest { job, host }).await
    }
}

/// The job and the host of a native guest, and shorthands for common operations.
pub struct NativeGuest {
    job: Job,
    host: Arc<dyn Host>,
}

impl fmt::Debug for NativeGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeGuest").field("job", &self.job).finish_non_exhaustive()
    }
}

impl NativeGuest {
    /// Returns the job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Returns the host, for operations that have no shorthand here.
    pub fn host(&self) -> &dyn Host {
        &*self.host
    }

    /// Returns a shared handle to the host, for tasks that the guest starts. It runs nothing more
    /// after the guest's own function has ended.
    pub fn host_handle(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host)
    }

    /// Reads the arguments tree.
    ///
    /// # Errors
    /// The errors of [`Host::tree`].
    pub async fn args(&self) -> Result<Arc<Tree>> {
        self.host.tree(self.job.args).await
    }

    /// Returns the argument `name`, or `None` if there is none.
    ///
    /// # Errors
    /// The errors of [`Host::tree`].
    pub async fn arg(&self, name: &str) -> Result<Option<TreeEntry>> {
        Ok(self.args().await?.get(name).cloned())
    }

    /// Returns the argument `name`.
    ///
    /// # Errors
    /// - [`Reason::GuestFailed`] if there is no such argument.
    /// - The errors of [`Host::tree`].
    pub async fn required(&self, name: &str) -> Result<TreeEntry> {
        self.arg(name)
            .await?
            .ok_or_else(|| Error::guest_failed(format!("the argument `{name}` is missing")))
    }

    /// Reads the content of the argument `name`, which must be a blob.
    ///
    /// # Errors
    /// - [`Reason::GuestFailed`] if there is no such argument.
    /// - [`Reason::WrongKind`] if the argument is a tree.
    /// - The errors of [`Host::tree`] and [`Host::get`].
    pub async fn bytes(&self, name: &str) -> Result<Bytes> {
        self.host.get(self.required(name).await?.id).await
    }

    /// Reads the content of the argument `name` as text.
    ///
    /// # Errors
    /// - [`Reason::GuestFailed`] if the content is not UTF-8.
    /// - The errors of [`NativeGuest::bytes`].
    pub async fn text(&self, name: &str) -> Result<String> {
        let bytes = self.bytes(name).await?;
        bytes
            .to_str()
            .map(str::to_owned)
            .map_err(|_| Error::guest_failed(format!("the argument `{name}` is not UTF-8 text")))
    }

    /// Stores `content` as a blob and returns it as an outcome.
    ///
    /// # Errors
    /// The errors of [`Host::put_blob`].
    pub async fn blob(&self, content: impl Into<Bytes>) -> Result<ObjectRef> {
        Ok(ObjectRef::blob(self.host.put_blob(content.into()).await?))
    }

    /// Stores a tree and returns its id. The entries can be in any order.
    ///
    /// # Errors
    /// - [`Reason::BadTree`] if git would refuse the tree.
    /// - The errors of [`Host::put_tree`].
    pub async fn put_tree(
        &self,
        entries: impl IntoIterator<Item = TreeEntry> + Send,
    ) -> Result<ObjectId> {
        let tree = Tree::new(entries)?;
        self.host.put_tree(tree).await
    }

    /// Runs `image` on `args`.
    ///
    /// # Errors
    /// The errors of [`Host::run`].
    pub async fn run(&self, image: &str, args: ObjectId) -> Result<ObjectRef> {
        self.host.run(Call { image: image.to_owned(), args }).await
    }
}

/// Returns the entry of an arguments tree for `object`. It has the plain mode of the object's kind,
/// whatever mode the object has elsewhere.
pub fn argument(name: &str, object: ObjectRef) -> TreeEntry {
    TreeEntry::new(name, EntryMode::plain(object.kind), object.id)
}
