use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::{Call, Error, Host, ObjectId, Outcome, Result, Tree, async_trait};

use crate::objects::Objects;

/// What `Runtime::prepare` gets: it may read its module, and there is no frame to do anything else in.
pub(crate) struct ReadOnlyHost<'a>(pub(crate) &'a Objects);

fn no_frame<T>() -> Result<T> {
    Err(Error::runtime("preparing a module may read objects, and nothing else"))
}

#[async_trait]
impl Host for ReadOnlyHost<'_> {
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>> {
        self.0.tree(id).map(Arc::new)
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        self.0.blob(id)
    }

    async fn put_blob(&self, _: Bytes) -> Result<ObjectId> {
        no_frame()
    }

    async fn put_tree(&self, _: Tree) -> Result<ObjectId> {
        no_frame()
    }

    async fn run(&self, _: Call) -> Result<Outcome> {
        no_frame()
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<Outcome>> {
        calls.iter().map(|_| no_frame()).collect()
    }

    fn log(&self, message: &str) {
        tracing::debug!("{message}");
    }
}
