//! What the dispatcher keeps things in.

use std::sync::Arc;

use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, Outcome, Result};

use crate::through::{source_through, store_through};

/// The file of a durable store in its directory. Files beside it that begin so are the store's, too.
pub(crate) const STORE_FILE: &str = "manifold.redb";

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

/// A request whose outcome is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The request.
    pub request: ObjectId,
    /// Its outcome.
    pub outcome: Outcome,
}

/// Objects that can be written, the memo (which request had which outcome), and pins.
///
/// # Behavior
/// - An object that `write` answered an id for is found by `read`.
/// - When `remember` or `pin` returns, the objects written before are at least as durable as the entry or pin.
/// - What a pin reaches outlives every eviction and collection.
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

    /// Pins the outcome of `request`, in place of any other.
    ///
    /// # Errors
    /// `StoreFailed`.
    fn pin(&self, request: ObjectId, outcome: Outcome) -> Result<()>;

    /// Takes a pin away. Answers whether there was one.
    ///
    /// # Errors
    /// `StoreFailed`.
    fn unpin(&self, request: ObjectId) -> Result<bool>;

    /// The pinned outcome of `request`.
    ///
    /// # Errors
    /// `StoreFailed`.
    fn pinned(&self, request: ObjectId) -> Result<Option<Outcome>>;

    /// All pins.
    ///
    /// # Errors
    /// `StoreFailed`.
    fn pins(&self) -> Result<Vec<Pin>>;

    /// Whether nobody but its user takes anything out of it: no other process, no collection. A call then need not keep what it was
    /// given besides. Default: no.
    fn keeps_everything(&self) -> bool {
        false
    }

    /// Makes everything written so far as durable as it will be.
    ///
    /// # Errors
    /// `StoreFailed` when something is not.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// The id of an object that is to be stored.
///
/// # Errors
/// `StoreFailed` when it has none.
pub(crate) fn id_to_store(object: &Object) -> Result<ObjectId> {
    let id = object.id();
    if id.is_null() {
        return Err(Error::store("the content is one half of a SHA-1 collision and has no id"));
    }
    Ok(id)
}

impl<T: ObjectSource + ?Sized> ObjectSource for Arc<T> {
    source_through!(self => (**self));
}

impl<T: Store + ?Sized> Store for Arc<T> {
    store_through!(self => (**self));
}
