use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::entry_mode::EntryMode;
use crate::error::{Error, Result};
use crate::host::{Call, Host};
use crate::image::Code;
use crate::object::{Object, ObjectId, ObjectKind, ObjectRef};
use crate::reason::Reason;
use crate::runtime::Job;
use crate::tree::{Tree, TreeEntry};

type Image = Arc<dyn Fn(Call) -> ImageFuture + Send + Sync>;
type ImageFuture = Pin<Box<dyn Future<Output = Result<ObjectRef>> + Send>>;

/// A [`Host`] for the tests of a runtime, without a dispatcher.
///
/// It keeps objects in a map, runs Rust closures in place of images, and records the log. Cloning
/// is cheap, and clones share everything.
///
/// ```
/// use manifold_runtime_api::{Code, ObjectRef, TestHost};
///
/// let host = TestHost::new().image("same", |call| async move { Ok(ObjectRef::tree(call.args)) });
/// let module = ObjectRef::blob(host.put_blob("the guest's code"));
/// let input = ObjectRef::blob(host.put_blob("hello"));
/// let job = host.job(Code::Module(module), [("in", input)])?;
/// // `runtime.run(job, Arc::new(host.clone())).await` runs the guest.
/// # let _ = job;
/// # Ok::<(), manifold_runtime_api::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct TestHost {
    images: HashMap<String, Image>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: HashMap<ObjectId, Object>,
    calls: Vec<Call>,
    log: Vec<String>,
}

impl fmt::Debug for TestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHost").field("images", &self.images.keys()).finish_non_exhaustive()
    }
}

impl TestHost {
    /// Creates a host without objects and images.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has calls of the image reference `reference` run `image`. A call of any other reference
    /// fails.
    #[must_use]
    pub fn image<F, R>(mut self, reference: impl Into<String>, image: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<ObjectRef>> + Send + 'static,
    {
        let image: Image = Arc::new(move |call| Box::pin(image(call)));
        self.images.insert(reference.into(), image);
        self
    }

    /// Stores an object and returns its id.
    pub fn put(&self, object: Object) -> ObjectId {
        let id = object.id();
        self.state.lock().objects.insert(id, object);
        id
    }

    /// Stores a blob and returns its id.
    pub fn put_blob(&self, content: impl Into<Bytes>) -> ObjectId {
        self.put(Object::blob(content))
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`Reason::MissingObject`] if it was not stored.
    pub fn read(&self, id: ObjectId) -> Result<Object> {
        self.state.lock().objects.get(&id).cloned().ok_or_else(|| Error::missing(id))
    }

    /// Returns the calls that guests made, in their order.
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// Returns the lines that guests logged, in their order.
    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    /// Stores an arguments tree of `arguments` and returns a job that runs `code` with it, under
    /// the default limits.
    ///
    /// # Errors
    /// [`Reason::BadTree`] if git would refuse a name or the list has one twice.
    pub fn job<'a>(
        &self,
        code: Code,
        arguments: impl IntoIterator<Item = (&'a str, ObjectRef)>,
    ) -> Result<Job> {
        let entries = arguments
            .into_iter()
            .map(|(name, object)| TreeEntry::new(name, EntryMode::plain(object.kind), object.id));
        let args = self.put(Tree::new(entries)?.to_object());
        let request = ObjectId::of(ObjectKind::Blob, b"a request of the test host");
        Ok(Job::new(request, "an image of the test host", code, args))
    }

    fn of_kind(&self, id: ObjectId, expected: ObjectKind) -> Result<Bytes> {
        let object = self.read(id)?;
        if object.kind != expected {
            let (expected, found) = (expected.as_str(), object.kind.as_str());
            return Err(Error::new(Reason::WrongKind { id, expected, found }));
        }
        Ok(object.content)
    }
}

#[async_trait]
impl Host for TestHost {
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>> {
        let content = self.of_kind(id, ObjectKind::Tree)?;
        Tree::decode(&content).map(Arc::new).map_err(|problem| Error::bad_tree(id, problem))
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        self.of_kind(id, ObjectKind::Blob)
    }

    async fn put_blob(&self, content: Bytes) -> Result<ObjectId> {
        Ok(self.put(Object::blob(content)))
    }

    async fn put_tree(&self, tree: Tree) -> Result<ObjectId> {
        for entry in tree.objects() {
            if self.read(entry.id)?.kind != entry.kind {
                let found = if entry.kind == ObjectKind::Blob { "tree" } else { "blob" };
                let (id, expected) = (entry.id, entry.kind.as_str());
                return Err(Error::new(Reason::WrongKind { id, expected, found }));
            }
        }
        Ok(self.put(tree.to_object()))
    }

    async fn run(&self, call: Call) -> Result<ObjectRef> {
        self.state.lock().calls.push(call.clone());
        match self.images.get(&call.image) {
            Some(image) => image(call).await,
            None => {
                let problem = format!("the test host has no image `{}`", call.image);
                Err(Error::guest_failed(problem))
            }
        }
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<ObjectRef>> {
        let mut results = Vec::with_capacity(calls.len());
        for call in calls {
            results.push(self.run(call).await);
        }
        results
    }

    fn log(&self, message: &str) {
        self.state.lock().log.push(message.to_owned());
    }
}
