//! The [`Host`] trait: everything that a guest can access.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::object::{Object, ObjectId, ObjectRef};
use crate::report::Report;
use crate::tree::Tree;

/// A guest's request to run an image. The run takes its salt and its named images from the calling
/// frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// The image reference as the guest wrote it, not yet resolved.
    pub image: String,
    /// The id of the tree of arguments.
    pub args: ObjectId,
}

/// What a runtime gives a guest access to: objects, nested runs and a log.
///
/// A host deliberately offers no access to the memo, to the calling frames, to a clock or to the
/// environment.
///
/// # Behavior
/// - An object that one method stored can be read by all others.
/// - Dropping a returned future stops waiting for it. A nested run that has no other waiter is then
///   cancelled.
/// - A frame that waits in `run` or `run_many` holds no run permit.
#[async_trait]
pub trait Host: Send + Sync {
    /// Reads the tree `id`.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::Reason::MissingObject) if there is no such object.
    /// - [`Reason::WrongKind`](crate::Reason::WrongKind) if the object is a blob.
    /// - [`Reason::BadTree`](crate::Reason::BadTree) if git would refuse the tree.
    /// - [`Reason::StoreFailed`](crate::Reason::StoreFailed) if the store fails.
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>>;

    /// Reads the blob `id`.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::Reason::MissingObject) if there is no such object.
    /// - [`Reason::WrongKind`](crate::Reason::WrongKind) if the object is a tree.
    /// - [`Reason::StoreFailed`](crate::Reason::StoreFailed) if the store fails.
    async fn get(&self, id: ObjectId) -> Result<Bytes>;

    /// Reads the bytes in `range` of the blob `id`. The part of `range` beyond the end of the blob
    /// is ignored, so the result can be shorter than `range`, or empty.
    ///
    /// The default implementation reads the whole blob.
    ///
    /// # Errors
    /// As [`Host::get`].
    async fn get_range(&self, id: ObjectId, range: Range<u64>) -> Result<Bytes> {
        Ok(Object::blob(self.get(id).await?).range(range))
    }

    /// Returns the size of the blob `id` in bytes.
    ///
    /// The default implementation reads the blob.
    ///
    /// # Errors
    /// As [`Host::get`].
    async fn size(&self, id: ObjectId) -> Result<u64> {
        Ok(self.get(id).await?.len() as u64)
    }

    /// Stores a blob and returns its id.
    ///
    /// # Errors
    /// - [`Reason::StoreFailed`](crate::Reason::StoreFailed) if the store fails.
    /// - [`Reason::LimitBreached`](crate::Reason::LimitBreached) if the guests of the root call
    ///   have stored too much.
    async fn put_blob(&self, content: Bytes) -> Result<ObjectId>;

    /// Stores a tree and returns its id.
    ///
    /// Every entry except a submodule must name an object that exists and has the kind of the
    /// entry's mode. So every tree in the store is complete.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::Reason::MissingObject) if an entry names an object that
    ///   does not exist.
    /// - [`Reason::WrongKind`](crate::Reason::WrongKind) if an entry names an object of another
    ///   kind than its mode requires.
    /// - [`Reason::StoreFailed`](crate::Reason::StoreFailed) if the store fails.
    /// - [`Reason::LimitBreached`](crate::Reason::LimitBreached) if the guests of the root call
    ///   have stored too much.
    async fn put_tree(&self, tree: Tree) -> Result<ObjectId>;

    /// Runs an image and returns its outcome, from the memo if the request was run before.
    ///
    /// # Errors
    /// - The error of the nested run, with its whole chain, if the run fails.
    /// - [`Reason::BadImage`](crate::Reason::BadImage) if the image reference cannot be resolved.
    /// - [`Reason::Cycle`](crate::Reason::Cycle) if the run would wait for itself.
    async fn run(&self, call: Call) -> Result<ObjectRef>;

    /// Runs many images, a bounded number at a time, and returns the results in the order of
    /// `calls`.
    ///
    /// # Behavior
    /// - Equal requests among the calls run once.
    /// - The failure of one call does not affect the others.
    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<ObjectRef>>;

    /// Writes a message to the job's log. Nothing that the guest can observe depends on it.
    fn log(&self, message: &str);

    /// Tells the host what the job does and uses, for traces. A runtime calls this when its guest
    /// starts, for example, and whenever it likes. Nothing that the guest can observe depends on it.
    ///
    /// The default implementation does nothing.
    fn report(&self, report: Report) {
        let _ = report;
    }
}
