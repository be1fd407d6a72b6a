//! [`SpyHost`]: a test host that notes the guest's first operation, and can fail to store.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{
    Call, Error, Host, ObjectId, ObjectRef, Report, Result, TestHost, Tree,
};

use crate::content::unknown_id;

/// The host of one job or of one preparation. It passes everything on to a [`TestHost`].
pub(super) struct SpyHost {
    inner: TestHost,
    args: ObjectId,
    has_read_args: Arc<AtomicBool>,
    /// The error with which the host refuses to store objects.
    refusal: Option<Error>,
}

impl SpyHost {
    /// Creates the host of a job with the arguments tree `args`. Sets `has_read_args` when the
    /// guest reads that tree.
    pub(super) fn new(
        inner: TestHost,
        args: ObjectId,
        has_read_args: Arc<AtomicBool>,
        refusal: Option<Error>,
    ) -> Self {
        Self { inner, args, has_read_args, refusal }
    }

    /// Creates a host that refuses to store objects, for the preparation of modules.
    pub(super) fn reading(inner: TestHost) -> Self {
        let refusal = Error::runtime("a module is prepared with a host that only reads objects");
        Self { inner, args: unknown_id(), has_read_args: Arc::default(), refusal: Some(refusal) }
    }

    fn stores(&self) -> Result<()> {
        self.refusal.clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Host for SpyHost {
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>> {
        if id == self.args {
            self.has_read_args.store(true, Ordering::SeqCst);
        }
        self.inner.tree(id).await
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        self.inner.get(id).await
    }

    async fn get_range(&self, id: ObjectId, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(id, range).await
    }

    async fn size(&self, id: ObjectId) -> Result<u64> {
        self.inner.size(id).await
    }

    async fn put_blob(&self, content: Bytes) -> Result<ObjectId> {
        self.stores()?;
        Host::put_blob(&self.inner, content).await
    }

    async fn put_tree(&self, tree: Tree) -> Result<ObjectId> {
        self.stores()?;
        self.inner.put_tree(tree).await
    }

    async fn run(&self, call: Call) -> Result<ObjectRef> {
        self.inner.run(call).await
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<ObjectRef>> {
        self.inner.run_many(calls).await
    }

    fn log(&self, message: &str) {
        Host::log(&self.inner, message);
    }

    fn report(&self, report: Report) {
        self.inner.report(report);
    }
}
