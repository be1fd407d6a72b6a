//! Guests that are Rust closures.

mod fold;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Call, Capabilities, EntryMode, Error, Host, HostImage, Job, ObjectId, ObjectKind, Outcome,
    Reason, Result, Runtime, Tree, TreeEntry, TreeError, async_trait,
};

type GuestFuture = Pin<Box<dyn Future<Output = Result<Outcome>> + Send>>;
type GuestFunction = Arc<dyn Fn(NativeGuest) -> GuestFuture + Send + Sync>;

/// A runtime whose guests are closures of this process, for tests and for the parts of a program that need no sandbox.
///
/// A module is the blob that holds a guest's name. The closures are trusted: nothing limits them, and two builds that give
/// one name to different closures have to differ in the runtime's name or version.
pub struct NativeRuntime {
    host_image: HostImage,
    guests: HashMap<ObjectId, GuestFunction>,
}

/// A [`NativeRuntime`] whose guests are still being listed.
pub struct NativeRuntimeBuilder {
    name: String,
    version: String,
    guests: HashMap<ObjectId, GuestFunction>,
}

impl NativeRuntime {
    /// Starts a runtime. Change `version` whenever the guests' answers change, as the memo cannot see their code.
    pub fn builder(name: impl Into<String>, version: impl Into<String>) -> NativeRuntimeBuilder {
        NativeRuntimeBuilder { name: name.into(), version: version.into(), guests: HashMap::new() }
    }
}

impl NativeRuntimeBuilder {
    /// Adds the guest whose module is the blob `name`.
    #[must_use]
    pub fn guest<F, R>(mut self, name: &str, function: F) -> Self
    where
        F: Fn(NativeGuest) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Outcome>> + Send + 'static,
    {
        let function: GuestFunction = Arc::new(move |guest| Box::pin(function(guest)));
        self.guests.insert(ObjectId::of(ObjectKind::Blob, name.as_bytes()), function);
        self
    }

    /// Finishes the runtime.
    ///
    /// # Errors
    /// None in practice: the host image's settings have names that a tree takes.
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
        Capabilities::blob_modules()
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<Outcome> {
        let module = job.code.own_module()?.id;
        let function = self.guests.get(&module).ok_or_else(|| {
            let problem = "no native guest has this name".to_owned();
            Error::new(Reason::BadModule { module, problem })
        })?;
        function(NativeGuest { job, host }).await
    }
}

/// What a native guest works with: its job, its host, and shorthands for what guests usually do.
pub struct NativeGuest {
    job: Job,
    host: Arc<dyn Host>,
}

impl NativeGuest {
    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The host, for operations that have no shorthand here.
    pub fn host(&self) -> &dyn Host {
        &*self.host
    }

    /// A share of the host, for tasks that the guest starts. It runs nothing more once the guest's own function is over.
    pub fn host_handle(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host)
    }

    /// The arguments.
    ///
    /// # Errors
    /// What [`Host::tree`] answers.
    pub async fn args(&self) -> Result<Arc<Tree>> {
        self.host.tree(self.job.args).await
    }

    /// The argument `name`; `None` when there is none.
    ///
    /// # Errors
    /// What [`Host::tree`] answers.
    pub async fn arg(&self, name: &str) -> Result<Option<TreeEntry>> {
        Ok(self.args().await?.get(name).cloned())
    }

    /// The argument `name`, which the caller has to give.
    ///
    /// # Errors
    /// `GuestFailed` when it is missing.
    pub async fn required(&self, name: &str) -> Result<TreeEntry> {
        self.arg(name)
            .await?
            .ok_or_else(|| Error::guest_failed(format!("the argument `{name}` is missing")))
    }

    /// The content of the argument `name`, which has to be a blob.
    ///
    /// # Errors
    /// `GuestFailed` when it is missing, `WrongKind` when it is a tree.
    pub async fn bytes(&self, name: &str) -> Result<Bytes> {
        self.host.get(self.required(name).await?.id).await
    }

    /// The argument `name` as text.
    ///
    /// # Errors
    /// As [`NativeGuest::bytes`], and `GuestFailed` when it is not UTF-8.
    pub async fn text(&self, name: &str) -> Result<String> {
        let bytes = self.bytes(name).await?;
        bytes
            .to_str()
            .map(str::to_owned)
            .map_err(|_| Error::guest_failed(format!("the argument `{name}` is no text")))
    }

    /// Stores `content` and answers it as the outcome.
    ///
    /// # Errors
    /// What [`Host::put_blob`] answers.
    pub async fn blob(&self, content: impl Into<Bytes>) -> Result<Outcome> {
        Ok(Outcome::blob(self.host.put_blob(content.into()).await?))
    }

    /// Stores a tree of entries in any order, and answers its id.
    ///
    /// # Errors
    /// What [`Host::put_tree`] answers.
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
    /// What [`Host::run`] answers.
    pub async fn run(&self, image: &str, args: ObjectId) -> Result<Outcome> {
        self.host.run(Call { image: image.to_owned(), args }).await
    }
}

/// The entry of an arguments tree for `object`: a plain mode, whatever mode it had elsewhere.
pub fn argument(name: &str, object: Outcome) -> TreeEntry {
    TreeEntry::new(name, EntryMode::plain(object.kind), object.id)
}
