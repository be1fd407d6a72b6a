//! What the dispatcher keeps things in.

use manifold_runtime_api::{Object, ObjectId, ObjectKind, Outcome, Result};

/// Something that objects can be read from.
///
/// # Behavior
/// - What is read under an id has that id, always.
/// - Calls may block for as long as a disk takes, and may come from any thread.
pub trait ObjectSource: Send + Sync + 'static {
    /// Reads an object; `None` when it is not here.
    ///
    /// # Errors
    /// `StoreFailed` when the source cannot tell; `WrongKind` when `id` is neither a blob nor a tree.
    fn read(&self, id: ObjectId) -> Result<Option<Object>>;

    /// Tells an object's kind; `None` when it is not here.
    ///
    /// # Errors
    /// As [`ObjectSource::read`].
    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        Ok(self.read(id)?.map(|object| object.kind))
    }
}

/// Objects that can be written, and the memo: which request had which outcome.
///
/// # Behavior
/// - An object that `write` answered an id for is found by `read`.
/// - When `remember` returns, the objects written before it are at least as durable as the entry.
pub trait Store: ObjectSource {
    /// Stores an object and answers its id. Writing what is there already changes nothing.
    ///
    /// # Errors
    /// `StoreFailed`.
    fn write(&self, object: Object) -> Result<ObjectId>;

    /// The outcome remembered for `request`.
    ///
    /// # Errors
    /// `StoreFailed`.
    fn recall(&self, request: ObjectId) -> Result<Option<Outcome>>;

    /// Remembers the outcome of `request`, in place of any other.
    ///
    /// # Errors
    /// `StoreFailed`.
    fn remember(&self, request: ObjectId, outcome: Outcome) -> Result<()>;
}
