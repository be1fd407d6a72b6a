//! [`ReadOnlyHost`]: the host for preparing a module.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::{Call, Error, Host, ObjectId, ObjectRef, Result, Tree, async_trait};

use crate::objects::Objects;

/// The host that `Runtime::prepare` receives. It can read the module. Everything else needs a
/// frame, and fails.
pub(crate) struct ReadOnlyHost<'a>(pub(crate) &'a Objects);

fn read_only<T>() -> Result<T> {
    Err(Error::runtime("a runtime can only read objects while it prepares a module"))
}

#[async_trait]
impl Host for ReadOnlyHost<'_> {
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>> {
        self.0.tree(id).map(Arc::new)
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        self.0.blob(id)
    }

    async fn get_range(&self, id: ObjectId, range: Range<u64>) -> Result<Bytes> {
        self.0.blob_range(id, range)
    }

    async fn size(&self, id: ObjectId) -> Result<u64> {
        self.0.blob_size(id)
    }

    async fn put_blob(&self, _: Bytes) -> Result<ObjectId> {
        read_only()
    }

    async fn put_tree(&self, _: Tree) -> Result<ObjectId> {
        read_only()
    }

    async fn run(&self, _: Call) -> Result<ObjectRef> {
        read_only()
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<ObjectRef>> {
        calls.iter().map(|_| read_only()).collect()
    }

    fn log(&self, message: &str) {
        tracing::debug!("{message}");
    }
}
