//! What a guest can reach.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::object::ObjectId;
use crate::request::Outcome;
use crate::tree::Tree;

/// A guest's wish to run an image. Salt and named images come from the frame that wishes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// The image reference, unresolved.
    pub image: String,
    /// The arguments tree.
    pub args: ObjectId,
}

/// Everything that a guest can reach, and all that a runtime gets: neither the memo nor the ancestors, clock or environment.
///
/// # Behavior
/// - Objects that one method stored, the others find.
/// - Dropping a returned future gives up the wait; a nested run that nobody else waits for is cancelled then.
/// - While a frame waits in `run` or `run_many`, it occupies no run permit.
#[async_trait]
pub trait Host: Send + Sync {
    /// Reads the tree `id`.
    ///
    /// # Errors
    /// `MissingObject`, `WrongKind` for a blob, `BadTree` when git would refuse it.
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>>;

    /// Reads the blob `id`.
    ///
    /// # Errors
    /// `MissingObject`, `WrongKind` for a tree.
    async fn get(&self, id: ObjectId) -> Result<Bytes>;

    /// Stores a blob and answers its id.
    ///
    /// # Errors
    /// `StoreFailed`.
    async fn put_blob(&self, content: Bytes) -> Result<ObjectId>;

    /// Stores a tree and answers its id.
    ///
    /// # Errors
    /// `MissingObject` or `WrongKind` when an entry, submodules aside, names no object of its mode's kind, so that no tree
    /// in the store dangles.
    async fn put_tree(&self, tree: Tree) -> Result<ObjectId>;

    /// Runs an image, or remembers its outcome.
    ///
    /// # Errors
    /// The nested run's own error, with its chain; `Cycle` when the run would wait for itself.
    async fn run(&self, call: Call) -> Result<Outcome>;

    /// Runs many images, some at a time, and answers in the order of `calls`.
    ///
    /// # Behavior
    /// - Duplicates among the calls run once.
    /// - One call's failure leaves the others alone.
    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<Outcome>>;

    /// Takes a line for the log. Nothing that the guest can see depends on it.
    fn log(&self, message: &str);
}
